"""Node optimisation: a node improves its prompt from the history of what it was asked and what it answered.

Zhuge, Wang, Kirsch, Faccio, Khizbullin and Schmidhuber, "Language Agents as Optimizable Graphs", ICML 2024,
arXiv:2402.16823. Nodes are optimised independently, so an object of this module belongs to one node. The paper's rule
shows a node examples that it has solved. It cannot learn what it never gets right; `feedback` shows it any example
with its true answer.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mindworks.agents._together import together
from mindworks.agents.messages import Message, quoted
from mindworks.agents.models import ChatModel
from mindworks.errors import require, require_at_least

RULES = ("solved", "feedback")
SOLVED = 1.0


@dataclass(frozen=True)
class Example:
    """A task and its answer."""

    task: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """What a node is told before its task: an instruction, and demonstrations of it."""

    instruction: str
    demonstrations: tuple[Example, ...] = ()

    def text(self) -> str:
        """The prompt as it is sent."""
        shown = [f"Task: {each.task}\nAnswer: {each.answer}" for each in self.demonstrations]
        return "\n\n".join([self.instruction, *shown])


@dataclass(frozen=True)
class Attempt:
    """One entry of a node's history: an example, what the node said, and what that was worth."""

    example: Example
    output: str
    utility: float


@dataclass(frozen=True)
class PromptSettings:
    """When demonstrations are chosen anew, from what, and how candidates are judged."""

    rule: str = "feedback"
    """solved: what the node itself has solved, the paper's rule; feedback: any example with its true answer"""
    every: int = 4
    """tasks between two choices"""
    demonstrations: int = 4
    """most demonstrations in a prompt"""
    window: int = 10
    """last inputs on which candidates are scored"""
    candidates: int = 1
    """random sets of demonstrations beside the present one"""

    def __post_init__(self) -> None:
        require(self.rule in RULES, f"rule must be one of {', '.join(RULES)}, got {self.rule!r}")
        require_at_least(self, 1, "every", "demonstrations", "window", "candidates")


class PromptLearner:
    """The prompt of one node: `observe` its attempts; when `due`, score `candidates()` and `choose`."""

    def __init__(self, prompt: Prompt, rng: np.random.Generator, settings: PromptSettings | None = None) -> None:
        self.prompt, self.rng = prompt, rng
        self.settings = PromptSettings() if settings is None else settings
        self.history: list[Attempt] = []

    def observe(self, example: Example, output: str, utility: float) -> None:
        """Remember one attempt; a utility of 1 or more is a solved task."""
        require(math.isfinite(utility), f"utility must be finite, got {utility}")
        self.history.append(Attempt(example, output, float(utility)))

    @property
    def due(self) -> bool:
        """Whether it is time to choose again."""
        return len(self.history) > 0 and len(self.history) % self.settings.every == 0

    @property
    def scored_on(self) -> list[Example]:
        """The last inputs of the node, on which candidates are compared."""
        return [attempt.example for attempt in self.history[-self.settings.window :]]

    def candidates(self) -> list[Prompt]:
        """The present prompt, then the same instruction with random demonstrations from the old and the new ones."""
        recent = self.history[-self.settings.every :]
        if self.settings.rule == "feedback":
            new = [attempt.example for attempt in recent]
        else:
            new = [replace(each.example, answer=each.output) for each in recent if each.utility >= SOLVED]
        pool = list(dict.fromkeys([*self.prompt.demonstrations, *new]))
        drawn = []
        for _ in range(self.settings.candidates):
            chosen = self.rng.permutation(len(pool))[: self.settings.demonstrations]
            drawn.append(replace(self.prompt, demonstrations=tuple(pool[k] for k in chosen)))
        return [self.prompt, *drawn]

    def choose(self, candidates: Sequence[Prompt], scores: Sequence[float]) -> None:
        """Take the candidate of the highest score, the first of them where several have it."""
        require(len(candidates) == len(scores) > 0, f"scores must be {len(candidates)}, got {len(scores)}")
        require(all(map(math.isfinite, scores)), f"scores must be finite, got {list(scores)}")
        self.prompt = candidates[int(np.argmax(scores))]

    def state(self) -> dict[str, Any]:
        """Everything that decides what happens next, as plain data."""
        return {
            "prompt": asdict(self.prompt),
            "history": [asdict(attempt) for attempt in self.history],
            "generator": self.rng.bit_generator.state,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        shown = tuple(Example(**each) for each in state["prompt"]["demonstrations"])
        self.prompt = Prompt(state["prompt"]["instruction"], shown)
        self.history = [
            Attempt(Example(**each["example"]), each["output"], float(each["utility"])) for each in state["history"]
        ]
        self.rng.bit_generator.state = state["generator"]


Respond = Callable[[Prompt, str], Awaitable[str]]
Judge = Callable[[Example, str], float]
Improve = Callable[[Prompt, Sequence[Attempt]], Awaitable[Prompt]]


def exact(example: Example, output: str) -> float:
    """1 if the output is the answer, but for white space around it."""
    return float(output.strip() == example.answer.strip())


def responding(model: ChatModel) -> Respond:
    """How `model` answers: the prompt is its system message, the task the user's."""

    async def respond(prompt: Prompt, task: str) -> str:
        chat = [{"role": "system", "content": prompt.text()}, {"role": "user", "content": task}]
        return (await model.chat(chat)).text

    return respond


async def optimize_prompt(
    learner: PromptLearner,
    respond: Respond,
    examples: Sequence[Example],
    judge: Judge = exact,
    improve: Improve | None = None,
) -> list[float]:
    """Let a node work through `examples` and improve its prompt on the way; the utilities, one per example.

    `improve(prompt, negative attempts)`, such as `rewriting`, adds a candidate to each choice. Candidates are scored
    on all their inputs at once.
    """
    utilities = []
    for example in examples:
        output = await respond(learner.prompt, example.task)
        utilities.append(judge(example, output))
        learner.observe(example, output, utilities[-1])
        if not learner.due:
            continue
        candidates = learner.candidates()
        missed = [attempt for attempt in learner.history[-learner.settings.every :] if attempt.utility < SOLVED]
        if improve is not None and missed:
            candidates.append(await improve(learner.prompt, missed))
        scores = [await score(prompt, learner.scored_on, respond, judge) for prompt in candidates]
        learner.choose(candidates, scores)
    return utilities


async def score(prompt: Prompt, examples: Sequence[Example], respond: Respond, judge: Judge = exact) -> float:
    """The mean utility of what `prompt` makes a node answer; what a node raises is raised."""
    require(len(examples) > 0, "examples must hold at least one, got none")
    outputs = await together(respond(prompt, example.task) for example in examples)
    return float(np.mean([judge(example, output) for example, output in zip(examples, outputs, strict=True)]))


def rewriting(model: ChatModel, description: str) -> Improve:
    """An improver that asks `model` for one sentence of advice per negative attempt, then for a new instruction.

    The instruction must stand between <START> and <END>; without them, or with nothing between, the prompt stays.
    Tasks and outputs are quoted as data.
    """

    async def improve(prompt: Prompt, attempts: Sequence[Attempt]) -> Prompt:
        async def advise(attempt: Attempt) -> str:
            shown = [
                Message("instruction", prompt.instruction),
                Message("task", attempt.example.task),
                Message("output", attempt.output),
                Message("answer", attempt.example.answer),
            ]
            words = f"A node should do this: {description}. Its output missed the answer. In one sentence, what should"
            return await _ask(model, f"{words} its instruction say so that it would not?\n\n{quoted(shown)}")

        advice = await together(map(advise, attempts))
        shown = [Message("instruction", prompt.instruction), *(Message("adviser", text) for text in advice)]
        words = f"A node should do this: {description}. Write a better instruction that follows the advice."
        text = await _ask(model, f"{words} Put it between <START> and <END>.\n\n{quoted(shown)}")
        _, start, rest = text.partition("<START>")
        instruction, end, _ = rest.partition("<END>")
        return replace(prompt, instruction=instruction.strip()) if start and end and instruction.strip() else prompt

    return improve


async def _ask(model: ChatModel, text: str) -> str:
    return (await model.chat([{"role": "user", "content": text}])).text


class DemonstrationBandit:
    """UCB1 over demonstrations: `ask` which to show, `tell` what that was worth, in [0, 1].

    Auer, Cesa-Bianchi and Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem", 2002: the highest of
    mean + sqrt(2 log(plays) / plays of the arm), each arm once first. The paper's rule for crosswords.
    """

    def __init__(self, arms: int) -> None:
        require(arms >= 1, f"arms must be at least 1, got {arms}")
        self.plays = np.zeros(arms, np.int64)
        self.total = np.zeros(arms)

    def ask(self) -> int:
        """The arm to play next."""
        if (self.plays == 0).any():
            return int(self.plays.argmin())
        bonus = np.sqrt(2 * np.log(self.plays.sum()) / self.plays)
        return int((self.total / self.plays + bonus).argmax())

    def tell(self, arm: int, utility: float) -> None:
        """Count one play of `arm`."""
        require(0 <= arm < len(self.plays), f"arm must be below {len(self.plays)}, got {arm}")
        require(0 <= utility <= 1, f"utility must be in [0, 1], got {utility}")
        self.plays[arm] += 1
        self.total[arm] += utility

    def best(self) -> int:
        """The arm of the highest mean so far; one that was never played does not count."""
        require(bool(self.plays.any()), "best needs a play, got none")
        return int(np.where(self.plays > 0, self.total / np.maximum(self.plays, 1), -np.inf).argmax())

    def state(self) -> dict[str, Any]:
        """Plays and totals of the arms."""
        return {"plays": self.plays.copy(), "total": self.total.copy()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        require(len(state["plays"]) == len(self.plays), f"plays must be {len(self.plays)}, got {len(state['plays'])}")
        self.plays, self.total = np.array(state["plays"], np.int64), np.array(state["total"], np.float64)
