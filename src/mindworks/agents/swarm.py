"""Swarms: agents whose nodes may talk to each other, and a decision; which edges are there is a matter of learning.

Zhuge et al., "Language Agents as Optimizable Graphs", ICML 2024, arXiv:2402.16823. A swarm is the union of its agents'
graphs, a set of potential edges between them, and one decision node, which is the output.

Shape legend: T tasks, M graphs of each, d potential edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from mindworks.agents.decisions import Decision
from mindworks.agents.graph import Graph, Node, Run, find_cycle, leaves, reaching, require_distinct, run_all
from mindworks.agents.memo import Memo
from mindworks.errors import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mindworks.agents.edge_optimizer import EdgeDistribution
    from mindworks.agents.edges import EdgeSpace

DECISION = "decision"
"""name of a swarm's decision node"""

Pair = tuple[str, str]


class Swarm:
    """Agents, the potential edges between them, and the decision.

    Each agent is a node or a graph. By default the potential edges are the paper's: all ordered pairs of nodes of
    different agents, agent by agent, then every node to the decision; `potential` replaces them by pairs of paths. The
    edges inside agents are fixed, and so are the pairs `fixed`. Raises `InputError` for no agent, a name twice, an
    unknown path, an edge twice or one that leaves the decision, and for fixed edges that form a cycle.
    """

    def __init__(
        self,
        agents: Sequence[Graph | Node],
        decide: Decision,
        *,
        fixed: Iterable[Pair] = (),
        potential: Iterable[Pair] | None = None,
    ) -> None:
        require(len(agents) > 0, "agents must hold at least one, got none")
        nested = [leaves(agent) for agent in agents]
        # a swarm's decision must not take the silence of failed agents for their vote
        decision = Node(DECISION, decide, needs_messages=True)
        self.nodes = (*(node for group in nested for node in group), decision)
        """the agents' nodes, named by their paths, and the decision"""
        self.paths = tuple(node.name for node in self.nodes)
        """names of the nodes; the decision is the last"""
        require_distinct([*self.paths, *(agent.name for agent in agents if isinstance(agent, Graph))])
        self._index = {path: index for index, path in enumerate(self.paths)}
        self.agents = {
            agent.name: tuple(node.name for node in group) for agent, group in zip(agents, nested, strict=True)
        }
        """paths of every agent's nodes"""
        self._outlets = {
            agent.name: f"{agent.name}/{agent.output}" if isinstance(agent, Graph) else agent.name for agent in agents
        }
        inner = [
            (f"{agent.name}/{start}", f"{agent.name}/{end}")
            for agent in agents
            if isinstance(agent, Graph)
            for start, end in agent.edges
        ]
        self.fixed = self._checked("fixed", [*inner, *fixed], set())
        """edges that are in every graph, as pairs of paths"""
        chosen = self._between(set(self.fixed)) if potential is None else potential
        self.potential = self._checked("potential", chosen, set(self.fixed))
        """edges that may be in a graph, as pairs of paths"""
        cycle = find_cycle(len(self.paths), self._numbers(self.fixed))
        told = " -> ".join(self.paths[node] for node in cycle)
        require(not cycle, f"fixed edges must form no cycle, got {told}")

    @property
    def edges(self) -> tuple[Pair, ...]:
        """Fixed edges, then potential ones."""
        return (*self.fixed, *self.potential)

    @property
    def output(self) -> str:
        """Path of the decision."""
        return DECISION

    @property
    def space(self) -> EdgeSpace:
        """The graphs that can be drawn, on the indices of `paths`; loads numpy."""
        from mindworks.agents.edges import EdgeSpace

        return EdgeSpace(len(self.paths), self._numbers(self.fixed), self._numbers(self.potential), len(self.paths) - 1)

    def graph(self, included: Sequence[bool] | NDArray[np.bool_] | EdgeDistribution) -> Graph:
        """Return the graph with the potential edges that are `included[d]`; nodes that cannot reach the decision go.

        A distribution stands for the graph to deploy, its `threshold()`. Raises `InputError` for another length, for a
        value that is neither true nor false, and for a cycle.
        """
        flags = [_flag(value) for value in (included.threshold() if hasattr(included, "threshold") else included)]
        wanted = len(self.potential)
        require(len(flags) == wanted, f"included must hold {wanted} flags, one per potential edge, got {len(flags)}")
        pairs = [*self.fixed, *(pair for pair, flag in zip(self.potential, flags, strict=True) if flag)]
        numbers = self._numbers(pairs)
        cycle = find_cycle(len(self.paths), numbers)
        told = " -> ".join(self.paths[node] for node in cycle)
        require(not cycle, f"included must form no cycle, got {told}")
        kept = reaching(len(self.paths) - 1, numbers)
        nodes = [node for index, node in enumerate(self.nodes) if index in kept]
        edges = [pair for pair, (_, end) in zip(pairs, numbers, strict=True) if end in kept]
        return Graph("swarm", nodes, edges, DECISION)

    def alone(self, agent: str) -> Graph:
        """Return the graph in which only `agent` answers: what the swarm is compared with."""
        known = ", ".join(map(repr, self.agents))
        require(agent in self.agents, f"agent must be one of {known}, got {agent!r}")
        inside = {*self.agents[agent], DECISION}
        edges = [pair for pair in self.fixed if set(pair) <= inside and pair[1] != DECISION]
        edges.append((self._outlets[agent], DECISION))
        kept = {self.paths[index] for index in reaching(len(self.paths) - 1, self._numbers(edges))}
        nodes = [node for node in self.nodes if node.name in kept]
        return Graph(agent if agent != DECISION else "alone", nodes, [e for e in edges if e[1] in kept], DECISION)

    def by_edge(self, values: Sequence[float] | NDArray[np.floating[Any]]) -> dict[Pair, float]:
        """Return `values[d]`, such as probabilities, by potential edge."""
        wanted = len(self.potential)
        require(len(values) == wanted, f"values must hold {wanted} numbers, one per potential edge, got {len(values)}")
        return {pair: float(value) for pair, value in zip(self.potential, values, strict=True)}

    def _between(self, taken: set[Pair]) -> list[Pair]:
        groups = list(self.agents.values())
        pairs = [
            (start, end) for left in groups for start in left for right in groups if right is not left for end in right
        ]
        pairs += [(path, DECISION) for path in self.paths[:-1]]
        return [pair for pair in pairs if pair not in taken]

    def _checked(self, name: str, pairs: Iterable[Pair], taken: set[Pair]) -> tuple[Pair, ...]:
        checked: list[Pair] = []
        seen = set(taken)
        for pair in pairs:
            start, end = pair
            for path in pair:
                known = ", ".join(map(repr, self.paths))
                require(path in self._index, f"{name} edges must join two of {known}, got {path!r}")
            require(start != end, f"{name} edges must join two nodes, got {start!r} -> {end!r}")
            require(start != DECISION, f"{name} edges must not leave the decision, got {start!r} -> {end!r}")
            require(pair not in seen, f"{name} edges must be new, got {start!r} -> {end!r} twice")
            seen.add((start, end))
            checked.append((start, end))
        return tuple(checked)

    def _numbers(self, pairs: Iterable[Pair]) -> list[tuple[int, int]]:
        return [(self._index[start], self._index[end]) for start, end in pairs]


@dataclass(frozen=True)
class Evaluation:
    """Graphs of a swarm, run on tasks and scored."""

    utilities: NDArray[np.float64]
    """`[T, M]`; NaN where the run gave no answer because something failed, which is not an answer worth zero"""
    runs: tuple[tuple[Run, ...], ...]
    """`[T][M]`; equal graphs of one task share a run"""


async def evaluate(
    swarm: Swarm,
    tasks: Sequence[Any],
    graphs: Sequence[Any] | NDArray[np.bool_],
    score: Callable[[Any, str], Any],
    memo: Memo | None = None,
    *,
    concurrency: int = 256,
) -> Evaluation:
    """Run graphs on tasks, each distinct call of a node on a task once, and score the answers.

    `graphs[M, d]` are the included edges of graphs that run on every task, `graphs[T, M, d]` those of each task.
    `score(task, answer)` is a finite number, or awaits one; it is asked once per distinct answer of a task.
    `concurrency` graphs run at a time. Raises `RuntimeError` with the first failure where no run gave an answer.
    """
    import numpy as np

    chosen = np.asarray(graphs)
    require(chosen.ndim in (2, 3), f"graphs must be [M, d] or [T, M, d], got shape {list(chosen.shape)}")
    if chosen.ndim == 2:
        chosen = np.broadcast_to(chosen, (len(tasks), *chosen.shape))
    count, wanted = len(tasks), len(swarm.potential)
    fits = chosen.shape[0] == count and chosen.shape[2] == wanted
    require(fits, f"graphs must be [M, {wanted}] or [{count}, M, {wanted}], got shape {list(np.shape(graphs))}")
    require(chosen.size > 0 or wanted == 0, f"tasks and graphs must not be empty, got shape {list(chosen.shape)}")
    built: dict[bytes, Graph] = {}
    where: dict[tuple[int, bytes], int] = {}
    for task in range(count):
        for row in chosen[task]:
            if row.tobytes() not in built:
                built[row.tobytes()] = swarm.graph(row)
            where.setdefault((task, row.tobytes()), len(where))
    pairs = ((built[key], tasks[task]) for task, key in where)
    done = await run_all(pairs, memo=Memo() if memo is None else memo, concurrency=concurrency)
    if done and all(run.answer is None for run in done):
        path, reason = next(iter(done[0].failures.items()))
        raise RuntimeError(f"no run of {len(done)} gave an answer; node {path!r} failed first: {reason}")
    runs = tuple(tuple(done[where[task, row.tobytes()]] for row in chosen[task]) for task in range(count))
    values = np.full(chosen.shape[:2], nan)
    for index, task in enumerate(tasks):
        scores: dict[str, float] = {}
        for graph, run in enumerate(runs[index]):
            if run.answer is not None:
                if run.answer not in scores:
                    scores[run.answer] = await _score(score, task, run.answer)
                values[index, graph] = scores[run.answer]
    return Evaluation(values, runs)


async def utilities(
    swarm: Swarm,
    tasks: Sequence[Any],
    graphs: Sequence[Any] | NDArray[np.bool_],
    score: Callable[[Any, str], Any],
    memo: Memo | None = None,
    *,
    concurrency: int = 256,
) -> NDArray[np.float64]:
    """Return `evaluate(...).utilities`, `[T, M]`: what an optimiser of edges asks of a swarm."""
    return (await evaluate(swarm, tasks, graphs, score, memo, concurrency=concurrency)).utilities


async def _score(score: Callable[[Any, str], Any], task: Any, answer: str) -> float:
    value = score(task, answer)
    number = float(await value if isawaitable(value) else value)
    require(isfinite(number), f"score must return a finite number, got {number} for the answer {answer!r}")
    return number


def _flag(value: Any) -> bool:
    require(value in (0, 1), f"included must hold true or false for every edge, got {value!r}")
    return bool(value)
