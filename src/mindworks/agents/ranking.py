"""A learned order of the nodes of a swarm: edges lead from lower to higher rank, so no graph has a cycle.

The order is drawn one node at a time from those whose fixed predecessors stand already, each with a chance in
proportion to exp(score): a Plackett-Luce ranking (Plackett, "The analysis of permutations", 1975) that keeps the fixed
edges. The decision is last.

Shape legend: n nodes, d potential edges, `...` any leading dimensions. `rank[..., n]` is the place of every node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mindworks.agents.edges import EdgeSpace
from mindworks.errors import require

Array = NDArray[Any]


class NodeRanking:
    """Rankings of the nodes of `space`, given a score per node: `scores[..., n]`; that of the decision is not read."""

    def __init__(self, space: EdgeSpace) -> None:
        self.space = space
        self.before = np.zeros((space.nodes, space.nodes), bool)
        self.before[space.fixed[:, 1], space.fixed[:, 0]] = True  # row: the fixed predecessors of a node
        self._sorted = _topological(self.before)
        self._ranked = np.arange(space.nodes) != space.decision

    def sample(self, scores: Array, count: int, rng: np.random.Generator) -> Array:
        """`count` rankings `[..., count, n]` of each row of scores."""
        scores = self._scores(scores)
        require(count >= 1, f"count must be at least 1, got {count}")
        # arrivals: a node arrives an exponential time of rate exp(score) after the last of its predecessors. Waiting
        # times have no memory, so at every moment the next to arrive is drawn in proportion to the rates.
        wait = rng.standard_exponential((*scores.shape[:-1], count, self.space.nodes)) * np.exp(-scores)[..., None, :]
        return self._places(self._arrivals(wait))

    def best(self, scores: Array) -> Array:
        """The ranking `[..., n]` that takes the highest score that may stand next, place by place."""
        scores = self._scores(scores)
        rank = np.full(scores.shape, self.space.nodes - 1)
        placed = np.zeros(scores.shape, bool)
        for place in range(self.space.nodes - 1):
            waits = (self.before & ~placed[..., None, :]).any(-1)
            chosen = np.where(placed | waits | ~self._ranked, -np.inf, scores).argmax(-1)[..., None]
            np.put_along_axis(rank, chosen, place, -1)
            np.put_along_axis(placed, chosen, True, -1)
        return rank

    def allowed(self, rank: Array) -> Array:
        """The potential edges `[..., d]` that lead from a lower to a higher rank."""
        source, target = self.space.potential.T
        return rank[..., source] < rank[..., target]

    def log_likelihood(self, scores: Array, rank: Array) -> Array:
        """log P(ranking), `[...]`: of every place, the score that stands there less the log-sum of those that could."""
        scores = np.where(self._ranked, self._scores(scores), 0)
        choices = np.where(self._could(rank), scores[..., None, :], -np.inf)
        highest = choices.max(-1, keepdims=True)
        total = np.log(np.exp(choices - highest).sum(-1)) + highest[..., 0]
        return scores.sum(-1) - total.sum(-1)

    def score(self, scores: Array, rank: Array) -> Array:
        """The gradient of `log_likelihood` in the scores, `[..., n]`: 1 less the chances a node had before its turn."""
        scores = np.where(self._ranked, self._scores(scores), 0)
        choices = np.where(self._could(rank), scores[..., None, :], -np.inf)
        weights = np.exp(choices - choices.max(-1, keepdims=True))
        return self._ranked - (weights / weights.sum(-1, keepdims=True)).sum(-2)

    def _could(self, rank: Array) -> Array:
        """Which nodes could have been chosen at each place but the last, `[..., place, n]`."""
        earliest = np.where(self.before, rank[..., None, :] + 1, 0).max(-1)
        place = np.arange(self.space.nodes - 1)[:, None]
        return (earliest[..., None, :] <= place) & (place <= rank[..., None, :]) & self._ranked

    def _arrivals(self, wait: Array) -> Array:
        arrival = wait.copy()
        for node in self._sorted:
            if self.before[node].any():
                arrival[..., node] += arrival[..., self.before[node]].max(-1)
        arrival[..., self.space.decision] = np.inf
        return arrival

    def _places(self, arrival: Array) -> Array:
        return arrival.argsort(-1, kind="stable").argsort(-1, kind="stable")

    def _scores(self, scores: Array) -> Array:
        scores = np.asarray(scores, np.float64)
        n = self.space.nodes
        require(scores.shape[-1:] == (n,), f"scores must be [..., {n}], got {list(scores.shape)}")
        return scores


def _topological(before: Array) -> list[int]:
    """Nodes after their predecessors; the rows of `before` come without cycles."""
    depth = np.zeros(len(before), np.int64)
    for _ in range(len(before)):
        depth = np.where(before, depth + 1, 0).max(-1, initial=0)
    return [int(node) for node in depth.argsort(kind="stable")]
