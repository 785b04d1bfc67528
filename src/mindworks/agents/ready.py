"""Ready-made members for a server: symbolic ones that need no key and answer within milliseconds, or real models.

The symbolic ones do sums. Three of five calculators are right, two add one; who speaks to whom decides what comes out.
"""

from __future__ import annotations

import ast
import contextlib
import operator
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

from mindworks.agents.decisions import MajorityVote, References
from mindworks.agents.graph import Graph, Node, model_node
from mindworks.agents.messages import Message
from mindworks.agents.models import ChatModel
from mindworks.agents.serve import Answerer, GraphAnswers, SocietyAnswers
from mindworks.agents.swarm import DECISION, Swarm
from mindworks.errors import InputError, require

CALCULATORS = {"ada": 0, "blaise": 0, "charles": 0, "dora": 1, "emil": 1}
"""how much each calculator adds to what is right"""
NO_SUM = "I do sums, such as 12 * 7."
_SUM = re.compile(r"-?\s?[\d(][\d\s.()+*/-]*")
_LONGEST = 100  # characters of a sum
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def value_of(text: str) -> float:
    """The value of a sum such as `2 * (3 + 4)`: numbers, `+ - * /` and parentheses; raises `InputError` for others."""

    def value(node: ast.AST) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return float(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.operand))
        raise InputError(f"text must be a sum, got {text!r}")

    require(len(text) <= _LONGEST, f"text must have at most {_LONGEST} characters, got {len(text)}")
    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError) as error:
        raise InputError(f"text must be a sum with a value, got {text!r}") from error


def sums_in(question: str) -> list[float]:
    """The values of the sums in a question, in their order; at most the first ten pieces of text are looked at."""
    found = []
    for piece in islice(_SUM.finditer(question), 10):
        with contextlib.suppress(InputError):
            found.append(value_of(piece.group().strip().rstrip(" .+*/-")))
    return found


def _calculator(name: str, added: float) -> Node:
    async def calculate(task: Any, messages: tuple[Message, ...]) -> str:
        values = sums_in(task)
        return f"{values[0] + added:.12g}" if values else NO_SUM

    return Node(name, calculate)


def swarm() -> Answerer:
    """Five calculators that answer a sum such as `What is 17 * 3?`, and a majority vote."""
    return GraphAnswers(
        _voting(Swarm([_calculator(name, added) for name, added in CALCULATORS.items()], MajorityVote()))
    )


def society() -> Answerer:
    """Five calculators that say whether a sum comes out, such as `Is 17 * 3 = 51?`, and democracy: `yes` or `no`."""
    from mindworks.agents.society import Democracy, Expert, Question, Society, say

    def expert(name: str, added: float) -> Expert:
        def respond(question: Question) -> str:
            values = sums_in(question.text)
            if len(values) < 2:
                raise InputError("the question must hold two sums, such as Is 17 * 3 = 51?")
            return say("yes" if abs(values[0] + added - values[1]) < 1e-9 else "no", 1.0)

        return Expert(name, respond)

    members = [expert(name, added) for name, added in CALCULATORS.items()]
    return SocietyAnswers(Society(members), Democracy(), ("yes", "no"))


def model_swarm(model: ChatModel, members: int = 3) -> Answerer:
    """`members` draws of one language model, and an answer by the same model that has theirs as references."""
    require(members >= 1, f"members must be at least 1, got {members}")
    prompt = "Answer the question. Be brief and give your reason."
    nodes = [model_node(f"member-{index}", model, prompt, sample=index) for index in range(members)]
    return GraphAnswers(_voting(Swarm(nodes, References(model))))


READY: dict[str, Callable[[], Answerer]] = {"society": society, "swarm": swarm}


def _voting(members: Swarm) -> Graph:
    """The graph in which every member speaks to the decision and to nobody else."""
    return members.graph([end == DECISION for _, end in members.potential])
