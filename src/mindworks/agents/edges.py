"""Distributions over directed acyclic graphs: which of the potential edges of a swarm are there.

Zhuge, Wang, Kirsch, Faccio, Khizbullin and Schmidhuber, "Language Agents as Optimizable Graphs", ICML 2024,
arXiv:2402.16823. The likelihood is that of the sampler, as in the published code. The product that the paper prints
lacks the factor 1 - p of an edge that could have been included and was not.

Shape legend: n nodes, d potential edges, `...` any leading dimensions, which broadcast. W words of 64 bits hold a set
of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mindworks.errors import InputError, require

Array = NDArray[Any]
Pairs = Sequence[tuple[int, int]]

MAX_ENUMERATED = 16  # edges: 65,536 graphs


class Graphs(NamedTuple):
    """Which potential edges graphs `[..., d]` include, and which ones they could have included without a cycle."""

    included: Array
    feasible: Array


class EdgeSpace:
    """Graphs on the nodes 0 ... n - 1: the `fixed` edges are in each, the `potential` ones may be.

    Edges are pairs (source, target). The graphs are acyclic: potential edges are gone through in `order`, a permutation
    of their indices (by default as they are listed), and one that would close a cycle is infeasible. Nothing leaves
    `decision`, the node whose output is the answer. Raises InputError for a pair outside the nodes, a pair twice, a
    fixed edge that closes a cycle, and an edge that leaves the decision.
    """

    def __init__(
        self, nodes: int, fixed: Pairs, potential: Pairs, decision: int, order: Sequence[int] | Array | None = None
    ) -> None:
        require(nodes >= 1, f"nodes must be at least 1, got {nodes}")
        require(0 <= decision < nodes, f"decision must be a node below {nodes}, got {decision}")
        self.nodes, self.decision = nodes, decision
        self.fixed, self.potential = _pairs("fixed", fixed, nodes), _pairs("potential", potential, nodes)
        seen: set[tuple[int, int]] = set()
        for source, target in [*self.fixed.tolist(), *self.potential.tolist()]:
            require(source != target, f"an edge must join two nodes, got ({source}, {target})")
            require((source, target) not in seen, f"an edge must be given once, got ({source}, {target}) twice")
            require(source != decision, f"no edge may leave the decision {decision}, got ({source}, {target})")
            seen.add((source, target))
        self.order = _permutation(order, len(self.potential))
        reach = _reach(nodes, self.fixed.tolist())
        everything = _reach(nodes, [*self.fixed.tolist(), *self.potential.tolist()], cyclic=True)
        # an edge between two nodes that cannot reach each other whatever is included never closes a cycle
        self.free = np.array([not everything[t] >> s & 1 for s, t in self.potential.tolist()], bool)
        words = (nodes + 63) // 64
        self._reach = np.array([[row >> 64 * w & (1 << 64) - 1 for w in range(words)] for row in reach], np.uint64)

    def __len__(self) -> int:
        return len(self.potential)

    def shuffled(self, rng: np.random.Generator) -> EdgeSpace:
        """The same space with another order: early edges are infeasible less often, whoever they are."""
        order = rng.permutation(len(self))
        return EdgeSpace(self.nodes, self.fixed.tolist(), self.potential.tolist(), self.decision, order)

    def graphs(self, wanted: Array, allowed: Array | None = None) -> Graphs:
        """Add the edges that are `wanted[..., d]`, in order, unless one closes a cycle or is not `allowed[..., d]`."""
        wanted = np.asarray(wanted)
        require(wanted.dtype == bool, f"wanted must be bool, got {wanted.dtype}")
        require(wanted.shape[-1:] == (len(self),), f"wanted must be [..., {len(self)}], got {list(wanted.shape)}")
        if allowed is not None:
            require(
                allowed.shape[-1:] == (len(self),), f"allowed must be [..., {len(self)}], got {list(allowed.shape)}"
            )
            wanted, allowed = np.broadcast_arrays(wanted, allowed)
            allowed = np.ascontiguousarray(allowed).reshape(-1, len(self))
        rows = np.ascontiguousarray(wanted).reshape(-1, len(self))
        kernels = _kernels()
        if kernels is None:
            included, feasible = self._add(rows, allowed)
        else:
            parts = (self.potential, self.order, self.free, self._reach)
            included, feasible = kernels.add(rows, *parts, rows[:0] if allowed is None else allowed)
        return Graphs(included.reshape(wanted.shape), feasible.reshape(wanted.shape))

    def _add(self, wanted: Array, allowed: Array | None) -> tuple[Array, Array]:
        """`graphs` in plain numpy, for rows `[G, d]`: edge by edge, all graphs at once."""
        feasible = np.ones_like(wanted) if allowed is None else allowed.copy()
        reach = np.repeat(self._reach[None], len(wanted), 0)
        for edge in self.order[~self.free[self.order]]:
            source, target = self.potential[edge]
            word, bit = source // 64, np.uint64(source % 64)
            feasible[:, edge] &= (reach[:, target, word] >> bit & np.uint64(1)) == 0
            joins = (wanted[:, edge] & feasible[:, edge])[:, None] & (reach[:, :, word] >> bit & np.uint64(1) == 1)
            reach |= np.where(joins[:, :, None], reach[:, target, None, :], np.uint64(0))
        return wanted & feasible, feasible

    def sample(
        self,
        logits: Array,
        count: int | tuple[int, ...],
        rng: np.random.Generator,
        allowed: Array | None = None,
    ) -> Graphs:
        """`count` graphs `[..., count, d]` of each row of `logits[..., d]`: a feasible edge is in with p = sigmoid.

        `allowed`, which broadcasts against them, holds the edges that can be feasible: see `NodeRanking`.
        """
        logits = self._logits(logits)
        shape = (count,) if isinstance(count, int) else tuple(count)
        require(min(shape, default=1) >= 1, f"count must be at least 1, got {count}")
        p = probabilities(logits).reshape(*logits.shape[:-1], *(1 for _ in shape), len(self))
        return self.graphs(rng.random((*logits.shape[:-1], *shape, len(self))) < p, allowed)

    def threshold(self, logits: Array, above: float = 0.5, allowed: Array | None = None) -> Array:
        """The graph to deploy, `[..., d]`: every edge of probability over `above`, in order, that closes no cycle."""
        require(0 <= above < 1, f"above must be in [0, 1), got {above}")
        return self.graphs(probabilities(self._logits(logits)) > above, allowed).included

    def full(self) -> Array:
        """The graph `[d]` with every edge that closes no cycle when its turn comes."""
        return self.graphs(np.ones(len(self), bool)).included

    def feasible(self, included: Array, allowed: Array | None = None) -> Array:
        """Which edges had their turn without closing a cycle in graphs `included[..., d]`.

        Raises InputError for a graph that the sampler cannot draw, such as one with a cycle.
        """
        graphs = self.graphs(included, allowed)
        require(bool((graphs.included == included).all()), "included must hold acyclic graphs, got one with a cycle")
        return graphs.feasible

    def log_likelihood(self, logits: Array, graphs: Graphs) -> Array:
        """log P(graph), `[...]`: log p of the edges that are in, log(1 - p) of the feasible ones that are not.

        An infeasible edge contributes nothing: it had no choice.
        """
        x = self._logits(logits)
        terms = -np.logaddexp(0, np.where(graphs.included, -x, x))  # log sigmoid, also where sigmoid is 0
        return (terms * graphs.feasible).sum(-1)

    def score(self, logits: Array, graphs: Graphs) -> Array:
        """The gradient of `log_likelihood` in the logits, `[..., d]`: a - p where feasible, a = 1 if the edge is in."""
        return graphs.feasible * (graphs.included - probabilities(self._logits(logits)))

    def enumerate(self, allowed: Array | None = None) -> Graphs:
        """Every graph that can be drawn, `[G, d]`; their probabilities sum to 1."""
        require(len(self) <= MAX_ENUMERATED, f"at most {MAX_ENUMERATED} edges can be enumerated, got {len(self)}")
        wanted = (np.arange(1 << len(self))[:, None] >> np.arange(len(self)) & 1).astype(bool)
        graphs = self.graphs(wanted, allowed)
        drawn = (graphs.included == wanted).all(-1)
        return Graphs(graphs.included[drawn], graphs.feasible[drawn])

    def matters(self, included: Array) -> Array:
        """Which nodes `[..., n]` can reach the decision in graphs `included[..., d]`: the others need not run."""
        included = np.asarray(included)
        matter = np.zeros((*included.shape[:-1], self.nodes), bool)
        matter[..., self.decision] = True
        links = self.adjacency(included)
        while True:
            wider = matter | (links & matter[..., None, :]).any(-1)
            if (wider == matter).all():
                return matter
            matter = wider

    def adjacency(self, included: Array) -> Array:
        """The graphs as matrices `[..., source, target]`, fixed edges too."""
        included = np.asarray(included)
        require(included.shape[-1:] == (len(self),), f"included must be [..., {len(self)}], got {list(included.shape)}")
        links = np.zeros((*included.shape[:-1], self.nodes, self.nodes), bool)
        links[..., self.potential[:, 0], self.potential[:, 1]] = included
        links[..., self.fixed[:, 0], self.fixed[:, 1]] = True
        return links

    def edges(self, included: Array) -> list[tuple[int, int]]:
        """The pairs of one graph `included[d]`: fixed edges first, then the potential ones that are in."""
        require(np.shape(included) == (len(self),), f"included must be [{len(self)}], got {list(np.shape(included))}")
        return [(int(s), int(t)) for s, t in [*self.fixed, *self.potential[np.asarray(included, bool)]]]

    def _logits(self, logits: Array) -> Array:
        logits = np.asarray(logits, np.float64)
        require(logits.shape[-1:] == (len(self),), f"logits must be [..., {len(self)}], got {list(logits.shape)}")
        return logits


def probabilities(logits: Array) -> Array:
    """sigmoid(logits), without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


def between(groups: Iterable[Sequence[int]], decision: int) -> list[tuple[int, int]]:
    """The paper's potential edges: all ordered pairs of nodes of different agents, then every node to the decision."""
    members = [list(group) for group in groups]
    pairs = [
        (s, t)
        for a, left in enumerate(members)
        for s in left
        for b, right in enumerate(members)
        if a != b
        for t in right
    ]
    return pairs + [(node, decision) for group in members for node in group]


def _pairs(name: str, pairs: Pairs, nodes: int) -> Array:
    listed = [(int(source), int(target)) for source, target in pairs]
    for pair in listed:
        require(min(pair) >= 0 and max(pair) < nodes, f"{name} must join nodes below {nodes}, got {pair}")
    return np.array(listed, np.int64).reshape(-1, 2)


def _permutation(order: Sequence[int] | Array | None, count: int) -> Array:
    given = np.arange(count) if order is None else np.asarray(order, np.int64)
    require(sorted(given.tolist()) == list(range(count)), f"order must be a permutation of {count} edges, got {order}")
    return given


def _reach(nodes: int, pairs: Iterable[Sequence[int]], cyclic: bool = False) -> list[int]:
    """For every node the set, as the bits of an integer, of those it reaches, itself included."""
    reach = [1 << node for node in range(nodes)]
    for source, target in pairs:
        if reach[target] >> source & 1 and not cyclic:
            raise InputError(f"fixed edges must be acyclic, got ({source}, {target}), which closes a cycle")
        if not reach[source] >> target & 1:
            reach = [row | reach[target] if row >> source & 1 else row for row in reach]
    return reach


@cache
def _kernels() -> ModuleType | None:
    try:
        return import_module("mindworks.agents._edge_kernels")
    except ImportError:
        return None
