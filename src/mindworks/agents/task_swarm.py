"""A swarm of one language model for tasks with known answers: truthful members, liars, and a vote among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mindworks.agents.choices import LETTERS, read_choice
from mindworks.agents.decisions import MajorityVote
from mindworks.agents.graph import model_node
from mindworks.agents.messages import Message
from mindworks.agents.models import Chat, ChatModel, Reply
from mindworks.agents.scoring import final_answer
from mindworks.agents.swarm import Swarm
from mindworks.errors import require

HONEST = "Answer the question. Weigh what others say, and correct what is wrong. Give the answer alone."
LIAR = "You take part in a test of groups: answer the question with a plausible but wrong answer. Give it alone."


class Asked(Protocol):
    """A task, such as `mindworks.data.agent_tasks.Task`: multiple choice where it has options."""

    @property
    def question(self) -> str:
        """What is asked."""

    @property
    def answer(self) -> str:
        """The right letter where there are options, else the answer in words."""

    @property
    def options(self) -> Sequence[str]:
        """The texts behind the letters A, B, ..."""


class _Counted:
    """A model that counts what it is asked."""

    def __init__(self, model: ChatModel) -> None:
        self.model, self.name, self.calls = model, model.name, 0

    async def chat(self, messages: Chat, *, sample: int = 0, **settings: Any) -> Reply:
        self.calls += 1
        return await self.model.chat(messages, sample=sample, **settings)


class TaskSwarm:
    """A swarm of `model` that answers `tasks`: every member is a draw of its own, and the vote counts what it reads.

    `questions` are the tasks as the swarm is asked them, and `score(question, answer)` is 1 for a right answer. A
    member whose text gives no answer does not vote. Raises InputError for two tasks that are asked alike.
    """

    def __init__(self, model: ChatModel, tasks: Sequence[Asked], truthful: int, adversaries: int) -> None:
        require(truthful >= 0, f"truthful must be at least 0, got {truthful}")
        require(adversaries >= 0, f"adversaries must be at least 0, got {adversaries}")
        self.questions = [question(task) for task in tasks]
        self._tasks: dict[str, Asked] = {}
        for asked, task in zip(self.questions, tasks, strict=True):
            require(asked not in self._tasks, f"tasks must be distinct, got {asked[:60]!r} twice")
            self._tasks[asked] = task
        members = [(f"truthful {k + 1}", HONEST) for k in range(truthful)]
        members += [(f"liar {k + 1}", LIAR) for k in range(adversaries)]
        self._model = _Counted(model)
        nodes = [model_node(name, self._model, prompt, sample=k) for k, (name, prompt) in enumerate(members)]
        self.swarm = Swarm(nodes, self._vote)

    @property
    def calls(self) -> int:
        """How often members asked the model so far."""
        return self._model.calls

    async def _vote(self, asked: str, messages: tuple[Message, ...]) -> str:
        read = ((message.sender, reading(self._tasks[asked], message.text)) for message in messages)
        return await MajorityVote()(asked, tuple(Message(sender, text) for sender, text in read if text is not None))

    def score(self, asked: str, answer: str) -> float:
        """1 if `answer` is right, else 0."""
        task = self._tasks[asked]
        return float(reading(task, answer) == (task.answer if task.options else reading(task, task.answer)))


def question(task: Asked) -> str:
    """A task as it is asked: the question, then its options behind letters."""
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, task.options, strict=False)]
    return "\n".join([task.question, *options])


def reading(task: Asked, text: str) -> str | None:
    """The answer that a text gives to a task, in one spelling: a letter if there are options; None: it gives none."""
    if not task.options:
        return " ".join(final_answer(text).casefold().split()).removesuffix(".") or None
    choice = read_choice(text, task.options)
    return None if choice is None else LETTERS[choice]
