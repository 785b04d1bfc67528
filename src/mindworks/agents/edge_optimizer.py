"""Learning the edges of a swarm: REINFORCE on the probabilities of its potential edges.

Zhuge, Wang, Kirsch, Faccio, Khizbullin and Schmidhuber, "Language Agents as Optimizable Graphs", ICML 2024,
arXiv:2402.16823. The paper's own setting is one graph for each of four tasks, no baseline and a step size of 0.1. Many
graphs per task cost no further call of a node that has answered that task already, and a baseline among them takes
out how hard the task is.

Shape legend: Q tasks, M graphs of each, d potential edges, n nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, log
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mindworks.agents.edges import EdgeSpace, Graphs, probabilities
from mindworks.agents.ranking import NodeRanking
from mindworks.errors import require, require_at_least

if TYPE_CHECKING:
    from mindworks.agents.memo import Memo
    from mindworks.agents.swarm import Swarm

Array = NDArray[Any]
Utility = Callable[[Array, Array], Array]

BASELINES = ("none", "moving_average", "leave_one_out")
ORDERS = ("listed", "shuffled", "ranked")


@dataclass(frozen=True)
class EdgeSettings:
    """How edges are learned; the defaults are for nodes whose answers are shared between graphs."""

    tasks: int = 4
    """tasks of a step"""
    graphs: int = 16
    """graphs of each task"""
    lr: float = 0.4
    """step size of Adam"""
    baseline: str | float = "leave_one_out"
    """what utilities are compared with: none, moving_average, leave_one_out (the other graphs of the task, or of the
    step where a task has one graph), or a number"""
    initial: float = 0.5
    """probability of every edge at the start, in (0, 1)"""
    order: str = "shuffled"
    """order in which edges are added: listed, shuffled (once) or ranked (a learned order of the nodes)"""
    clip: float = 10.0
    """logits stay within this distance of 0"""
    betas: tuple[float, float] = (0.9, 0.999)
    """decay of Adam's means"""
    decay: float = 0.9
    """decay of the moving average, in [0, 1)"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "tasks", "graphs")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        known = self.baseline in BASELINES if isinstance(self.baseline, str) else isfinite(self.baseline)
        require(known, f"baseline must be one of {', '.join(BASELINES)} or a number, got {self.baseline!r}")
        several = self.baseline != "leave_one_out" or self.tasks * self.graphs > 1
        require(several, "baseline leave_one_out needs at least 2 graphs in a step, got 1")
        require(0 < self.initial < 1, f"initial must be in (0, 1), got {self.initial}")
        require(self.order in ORDERS, f"order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        require(self.clip > 0, f"clip must be positive, got {self.clip}")
        require(all(0 <= beta < 1 for beta in self.betas), f"betas must be in [0, 1), got {self.betas}")
        require(0 <= self.decay < 1, f"decay must be in [0, 1), got {self.decay}")


PAPER = EdgeSettings(tasks=4, graphs=1, lr=0.1, baseline="none")


@dataclass(frozen=True)
class EdgeDistribution:
    """A distribution over the graphs of a space: logits `[d]`, and scores `[n]` where the order is learned."""

    space: EdgeSpace
    logits: Array
    scores: Array | None = None

    @property
    def probabilities(self) -> Array:
        """The probability of every potential edge, `[d]`, where it is feasible."""
        return probabilities(self.logits)

    def sample(self, count: int | tuple[int, ...], rng: np.random.Generator) -> tuple[Graphs, Array | None]:
        """Graphs `[*count, d]`, and their rankings `[*count, n]` where the order is learned."""
        if self.scores is None:
            return self.space.sample(self.logits, count, rng), None
        shape = (count,) if isinstance(count, int) else tuple(count)
        ranking = NodeRanking(self.space)
        rank = ranking.sample(self.scores, int(np.prod(shape)), rng).reshape(*shape, -1)
        return self.space.sample(self.logits, shape, rng, ranking.allowed(rank)), rank

    def threshold(self, above: float = 0.5) -> Array:
        """The graph `[d]` to deploy: edges of probability over `above`, along the best ranking if there is one."""
        allowed = None
        if self.scores is not None:
            ranking = NodeRanking(self.space)
            allowed = ranking.allowed(ranking.best(self.scores))
        return self.space.threshold(self.logits, above, allowed)


@dataclass(frozen=True)
class Trial:
    """What to try: graphs `[Q, M, d]` on tasks `[Q]`, given as indices."""

    tasks: Array
    graphs: Graphs
    rank: Array | None = None


class EdgeOptimizer:
    """Maximise the mean utility of graphs over `tasks` tasks: `ask` what to try, `tell` what it was worth.

    Tasks are taken in random passes. The same generator gives the same numbers, also after `load(state())`.
    """

    def __init__(
        self, space: EdgeSpace, tasks: int, rng: np.random.Generator, settings: EdgeSettings | None = None
    ) -> None:
        self.settings = EdgeSettings() if settings is None else settings
        require(tasks >= self.settings.tasks, f"tasks must be at least {self.settings.tasks}, got {tasks}")
        require(len(space) > 0, "space must have potential edges, got none")
        self.tasks, self.rng = tasks, rng
        self.space = space.shuffled(rng) if self.settings.order == "shuffled" else space
        self.ranking = NodeRanking(space) if self.settings.order == "ranked" else None
        size = len(space) + (0 if self.ranking is None else space.nodes)
        self.parameters = np.zeros(size)  # logits of the edges, then scores of the nodes
        self.parameters[: len(space)] = log(self.settings.initial / (1 - self.settings.initial))
        self._mean, self._square = np.zeros(size), np.zeros(size)
        self._pass = np.zeros(0, np.int64)
        self._average = 0.0
        self.history: list[float] = []
        """mean utility of the graphs of every step"""
        self.failed = 0
        """graphs without a utility so far"""

    @property
    def step(self) -> int:
        """How many steps were made."""
        return len(self.history)

    @property
    def logits(self) -> Array:
        """Logits of the potential edges, `[d]`, as they are now."""
        return self.parameters[: len(self.space)]

    @property
    def distribution(self) -> EdgeDistribution:
        """What has been learned, as a copy."""
        scores = None if self.ranking is None else self.parameters[len(self.space) :].copy()
        return EdgeDistribution(self.space, self.logits.copy(), scores)

    def ask(self) -> Trial:
        """Draw the tasks and the graphs of the next step."""
        shape = (self.settings.tasks, self.settings.graphs)
        if len(self._pass) < shape[0]:
            new = self.rng.permutation(self.tasks)
            late = np.isin(new, self._pass)  # no task twice in a step
            self._pass = np.concatenate([self._pass, new[~late], new[late]])
        tasks, self._pass = self._pass[: shape[0]], self._pass[shape[0] :]
        if self.ranking is None:
            return Trial(tasks, self.space.sample(self.logits, shape, self.rng))
        return Trial(tasks, *self.distribution.sample(shape, self.rng))

    def tell(self, trial: Trial, utility: Array) -> None:
        """Follow the gradient that `utility[Q, M]` of a trial's graphs estimates, one step of Adam upwards.

        NaN stands for a graph that gave no answer because something failed: it counts for nothing, neither as a
        utility nor in a baseline. Raises InputError where all are NaN.
        """
        utility = np.asarray(utility, np.float64)
        shape = (len(trial.tasks), trial.graphs.included.shape[1])
        require(utility.shape == shape, f"utility must be {list(shape)}, got {list(utility.shape)}")
        missing = np.isnan(utility)
        require(not missing.all(), "utility must hold a number, got NaN for every graph")
        require(not np.isinf(utility).any(), "utility must be finite or NaN, got infinity")
        self._climb(self.gradient(trial, utility))
        average = float(utility[~missing].mean())
        self._average = self.settings.decay * self._average + (1 - self.settings.decay) * average
        self.history.append(average)
        self.failed += int(missing.sum())

    def run(self, utility: Utility, steps: int) -> None:
        """Make `steps` steps with `utility(tasks[Q], included[Q, M, d])`, which gives `[Q, M]`."""
        for _ in range(steps):
            trial = self.ask()
            self.tell(trial, utility(trial.tasks, trial.graphs.included))

    def gradient(self, trial: Trial, utility: Array) -> Array:
        """The estimate 1 / QM sum (u - b) grad log P of the gradient of the mean utility, in all parameters."""
        advantage = np.nan_to_num((utility - self._baseline(utility)).ravel()) / utility.size
        included, feasible = (part.reshape(advantage.size, -1) for part in trial.graphs)
        # sum of advantages times (a - p) where feasible: an edge that is in was feasible
        gradient = advantage @ included - (advantage @ feasible) * probabilities(self.logits)
        if self.ranking is None or trial.rank is None:
            return gradient
        rank = trial.rank.reshape(advantage.size, -1)
        return np.concatenate([gradient, advantage @ self.ranking.score(self.parameters[len(self.space) :], rank)])

    def _baseline(self, utility: Array) -> Array | float:
        if not isinstance(self.settings.baseline, str):
            return self.settings.baseline
        if self.settings.baseline == "moving_average":
            # of earlier steps only, so that it stays independent of these graphs; Adam's correction for the start at 0
            return self._average / (1 - self.settings.decay**self.step) if self.step else 0.0
        if self.settings.baseline == "leave_one_out":
            axis = 1 if utility.shape[1] > 1 else 0
            others = (~np.isnan(utility)).sum(axis, keepdims=True) - 1  # of a graph that has a utility
            rest = np.nansum(utility, axis, keepdims=True) - utility
            return np.where(others > 0, rest / np.maximum(others, 1), utility)  # nothing to compare with: no advantage
        return 0.0

    def _climb(self, gradient: Array) -> None:
        """One step of Adam (Kingma and Ba, arXiv:1412.6980) upwards."""
        beta1, beta2 = self.settings.betas
        count = self.step + 1
        self._mean += (1 - beta1) * (gradient - self._mean)
        self._square += (1 - beta2) * (gradient * gradient - self._square)
        scale = np.sqrt(self._square / (1 - beta2**count)) + 1e-8
        self.parameters += self.settings.lr / (1 - beta1**count) * self._mean / scale
        np.clip(self.parameters, -self.settings.clip, self.settings.clip, out=self.parameters)

    def state(self) -> dict[str, Any]:
        """Everything that decides what happens next, as arrays, numbers and the state of the generator."""
        return {
            "order": self.space.order.copy(),
            "parameters": self.parameters.copy(),
            "mean": self._mean.copy(),
            "square": self._square.copy(),
            "pass": self._pass.copy(),
            "average": self._average,
            "failed": self.failed,
            "history": list(self.history),
            "generator": self.rng.bit_generator.state,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken: the same space, settings and kind of generator."""
        fits = len(state["order"]) == len(self.space) and len(state["parameters"]) == len(self.parameters)
        found = f"{len(state['order'])} and {len(state['parameters'])}"
        require(fits, f"state must hold {len(self.space)} edges and {len(self.parameters)} parameters, got {found}")
        space = self.space
        pairs = space.fixed.tolist(), space.potential.tolist()
        self.space = EdgeSpace(space.nodes, *pairs, space.decision, state["order"])
        self.parameters = np.array(state["parameters"], np.float64)
        self._mean, self._square = np.array(state["mean"], np.float64), np.array(state["square"], np.float64)
        self._pass = np.array(state["pass"], np.int64)
        self._average, self.failed = float(state["average"]), int(state["failed"])
        self.history = [float(value) for value in state["history"]]
        self.rng.bit_generator.state = state["generator"]


async def optimize_edges(
    swarm: Swarm,
    tasks: Sequence[Any],
    score: Callable[[Any, str], Any],
    optimizer: EdgeOptimizer,
    steps: int,
    memo: Memo | None = None,
    after: Callable[[], None] | None = None,
) -> None:
    """Make `steps` steps of an optimiser over `swarm.space`, with graphs that run on `tasks`.

    `score(task, answer)` is the utility of an answer, or awaits it. All graphs of a step run at once, and each distinct
    call of a node is made once as long as `memo` lives, whose `calls` says how many were made. A graph that gives no
    answer has no utility. `after` is called after every step, to report or to save. Raises RuntimeError where no graph
    of a step gave an answer.
    """
    from mindworks.agents.memo import Memo
    from mindworks.agents.swarm import utilities

    require(len(tasks) == optimizer.tasks, f"tasks must be {optimizer.tasks}, got {len(tasks)}")
    memo = Memo() if memo is None else memo
    for _ in range(steps):
        trial = optimizer.ask()
        chosen = [tasks[index] for index in trial.tasks]
        optimizer.tell(trial, await utilities(swarm, chosen, trial.graphs.included, score, memo))
        if after is not None:
            after()
