"""Simulated members of a swarm with known abilities: what learning should find can be told in advance.

A question has `OPTIONS` answers, one of them right. Truthful voters know it with a given probability and otherwise
choose wrongly; adversaries all tell one lie. The last node is the decision, a plurality of the nodes that lead to it.

Shape legend: Q questions, M graphs of each, V voters, d potential edges.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mindworks.agents.edges import EdgeSpace, between
from mindworks.errors import require

Array = NDArray[Any]

OPTIONS = 4
NO_ANSWER = -1
_DEMONSTRATION = re.compile(r"^Task: (.*)\nAnswer: (.*)$", re.MULTILINE)  # as mindworks.agents.prompts writes them


def voter_space(voters: int) -> EdgeSpace:
    """Voters of one node each and the decision, node `voters`: all edges between voters, and to the decision."""
    require(voters >= 1, f"voters must be at least 1, got {voters}")
    return EdgeSpace(voters + 1, [], between([[voter] for voter in range(voters)], voters), voters)


@dataclass(frozen=True)
class Voters:
    """Voters whose own answers are known: `answers[Q, V]`, right ones `right[Q]`.

    `hears[V]` says who changes its answer by what it hears: to the plurality of its messages, in which its own answer
    weighs `own`. Whoever does not hear repeats its own. Ties go to the option that `preference[Q, OPTIONS]` ranks
    highest; it is drawn once, so that the same votes on the same question always have the same outcome.
    """

    answers: Array
    right: Array
    hears: Array
    preference: Array
    own: float = 1.5

    @property
    def space(self) -> EdgeSpace:
        """The graphs over these voters."""
        return voter_space(self.answers.shape[1])

    def questions(self, chosen: slice | Array) -> Voters:
        """The same voters on some of the questions."""
        return Voters(self.answers[chosen], self.right[chosen], self.hears, self.preference[chosen], self.own)

    def said(self, questions: Array, links: Array) -> Array:
        """What every voter says, `[Q, M, V]`, on questions `[Q]` in graphs `links[Q, M, V + 1, V + 1]`.

        As many rounds as there are voters bring the messages along every path of an acyclic graph.
        """
        voters = self.answers.shape[1]
        answers = np.broadcast_to(self.answers[questions][:, None], (*links.shape[:2], voters))
        if not self.hears.any():
            return answers
        choices = np.arange(OPTIONS)
        heard_by = np.ascontiguousarray(np.swapaxes(links[..., :voters, :voters], -1, -2)).astype(np.float32)
        base = self.own * (answers[..., None] == choices) + 0.01 * self.preference[questions][:, None, None]
        said = answers
        for _ in range(voters - 1):
            votes = heard_by @ (said[..., None] == choices).astype(np.float32)
            new = np.where(self.hears, (base + votes).argmax(-1), answers)
            if (new == said).all():
                break
            said = new
        return said

    def decided(self, questions: Array, links: Array) -> Array:
        """The option with the most votes, `[Q, M]`; `NO_ANSWER` where nobody leads to the decision."""
        voters = self.answers.shape[1]
        votes = links[..., None, :voters, voters].astype(np.float32) @ (
            self.said(questions, links)[..., None] == np.arange(OPTIONS)
        ).astype(np.float32)
        winner = (votes[..., 0, :] + 0.01 * self.preference[questions][:, None]).argmax(-1)
        return np.where(links[..., :voters, voters].any(-1), winner, NO_ANSWER)

    def utility(self, questions: Array, included: Array) -> Array:
        """1 where graphs `included[Q, M, d]` answer questions `[Q]` rightly, else 0: `[Q, M]`."""
        if not self.hears.any():
            return self._without_messages(questions, included)
        decided = self.decided(questions, self.space.adjacency(included))
        return (decided == self.right[questions][:, None]).astype(np.float64)

    def _without_messages(self, questions: Array, included: Array) -> Array:
        """`utility` where no edge between voters matters: the last V edges of the space lead to the decision."""
        votes = included[..., -self.answers.shape[1] :]
        said = self.answers[questions][..., None] == np.arange(OPTIONS)
        counts = votes.astype(np.float32) @ said.astype(np.float32) + 0.01 * self.preference[questions][:, None]
        return ((counts.argmax(-1) == self.right[questions][:, None]) & votes.any(-1)).astype(np.float64)

    def accuracy(self, included: Array) -> float:
        """The share of all questions answered rightly by a graph `[d]`, or by graphs of each question `[Q, M, d]`."""
        questions = np.arange(len(self.right))
        shape = (len(questions), *(1, *included.shape)[-2:])
        return float(self.utility(questions, np.broadcast_to(included, shape)).mean())

    def asked(self, included: Array) -> Array:
        """Which voters graphs `included[..., d]` have to ask, `[..., V]`: those whose words can reach the decision.

        Where nobody hears, only those that lead to it directly: what others say changes nothing.
        """
        voters = self.answers.shape[1]
        if not self.hears.any():
            return included[..., -voters:]
        return self.space.matters(included)[..., :voters]


def simulated_voters(
    questions: int,
    rng: np.random.Generator,
    *,
    truthful: int = 3,
    adversaries: int = 3,
    ignorant: int = 0,
    know: float = 0.8,
    lucky: float = 0.1,
    alike: bool = True,
    hear: bool = False,
) -> Voters:
    """Voters in this order: truthful, adversarial, ignorant; who guess.

    A truthful voter is right with probability `know`, else it tells any of the wrong options; `alike`: all of them say
    the same, as copies of one model do. The adversaries' common lie happens to be right with probability `lucky`.
    `hear`: truthful voters listen, the others never do.
    """
    require(questions >= 1, f"questions must be at least 1, got {questions}")
    for name, count in (("truthful", truthful), ("adversaries", adversaries), ("ignorant", ignorant)):
        require(count >= 0, f"{name} must be at least 0, got {count}")
    require(truthful + adversaries + ignorant >= 1, "truthful, adversaries and ignorant must not all be 0")
    for name, chance in (("know", know), ("lucky", lucky)):
        require(0 <= chance <= 1, f"{name} must be in [0, 1], got {chance}")
    right = rng.integers(OPTIONS, size=(questions, 1))

    def answers(count: int, chance: float, same: bool) -> Array:
        shape = (questions, 1 if same else count)
        wrong = (right + rng.integers(1, OPTIONS, size=shape)) % OPTIONS
        return np.broadcast_to(np.where(rng.random(shape) < chance, right, wrong), (questions, count))

    parts = [answers(truthful, know, alike), answers(adversaries, lucky, True), answers(ignorant, 1 / OPTIONS, False)]
    hears = np.arange(truthful + adversaries + ignorant) < (truthful if hear else 0)
    preference = rng.permuted(np.tile(np.arange(OPTIONS), (questions, 1)), axis=1)
    return Voters(np.concatenate(parts, 1), right[:, 0], hears, preference)


def mean_by_kind(space: EdgeSpace, probabilities: Array, truthful: int) -> dict[str, float | None]:
    """Mean probability of the edges from truthful voters (T), nodes below `truthful`, and from others (A).

    Keys, by where the edges lead: `T to decision`, `A to decision`, `T to T`, `A to T`; None where there is none.
    """
    source, target = space.potential.T
    kinds = {
        f"{name} to {end}": by & to
        for end, to in (("decision", target == space.decision), ("T", target < truthful))
        for name, by in (("T", source < truthful), ("A", source >= truthful))
    }
    return {kind: float(probabilities[edges].mean()) if edges.any() else None for kind, edges in kinds.items()}


class NearestDemonstration:
    """An in-context learner: it answers as the demonstration in its prompt whose task is nearest to the new one.

    Tasks are numbers in text. It knows nothing but the text of the chat, so `mindworks.agents.models.FunctionModel`
    makes a model of it. Without a demonstration it guesses one of `labels`.
    """

    def __init__(self, labels: Sequence[str], rng: np.random.Generator) -> None:
        require(len(labels) > 0, "labels must hold at least one, got none")
        self.labels, self.rng = list(labels), rng

    def __call__(self, chat: Sequence[dict[str, Any]], sample: int = 0) -> str:
        """The answer to the last message, from the demonstrations in the first."""
        shown = _DEMONSTRATION.findall(chat[0]["content"])
        if not shown:
            return self.labels[int(self.rng.integers(len(self.labels)))]
        points = np.array([task.split() for task, _ in shown], np.float64)
        query = np.array(chat[-1]["content"].split(), np.float64)
        return str(shown[int(((points - query) ** 2).sum(-1).argmin())][1])
