"""Learning the edges of a swarm of simulated voters, beside the loop of the published code.

The peer is written plainly after a description of that code: a graph of node objects that is deep-copied to add edges
and again to run, nodes found by a search through the list, a torch operation per edge, nodes awaited one by one,
autograd and `torch.optim.Adam`. The second peer is the same without the copies. All sides have the nodes' answers at
hand, so what is measured is the sampler, the vote and the step, end to end. The unit is one graph: drawn, run, scored
and learned from. torch.optim is imported and warm before anything is timed.
Run: `python benchmarks/vs_swarm_loop.py`.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

import _bench  # before torch: it asks for one thread

import torch  # isort: skip

from mindworks.agents.edge_optimizer import PAPER, EdgeOptimizer, EdgeSettings, Trial
from mindworks.agents.voters import Voters, simulated_voters

QUESTIONS = 285


class Member:
    """A node as an object: who it hears, who hears it, what it said, and what it remembers."""

    def __init__(self, name: int, answers: list[int]) -> None:
        self.name, self.answers = name, answers
        self.predecessors: list[Member] = []
        self.successors: list[Member] = []
        self.inputs: list[dict] = []
        self.outputs: list[dict] = []
        self.memory: dict[str, list] = {"history": []}

    def add_successor(self, other: Member) -> None:
        if other not in self.successors:
            self.successors.append(other)
            other.predecessors.append(self)

    async def execute(self, question: int) -> None:
        self.inputs = [{"task": question}]
        self.outputs = [{"task": question, "output": self.answers[question]}]
        self.memory["history"].append(self.outputs[0])


class Decision(Member):
    """The output node: a majority vote of those it hears."""

    def __init__(self, name: int, preference: list[list[int]]) -> None:
        super().__init__(name, [])
        self.preference = preference

    async def execute(self, question: int) -> None:
        votes = Counter(output["output"] for node in self.predecessors for output in node.outputs)
        rank = self.preference[question]
        winner = max(votes, key=lambda option: (votes[option], rank[option])) if votes else -1
        self.outputs = [{"task": question, "output": winner}]


class Composite:
    """The graph of the swarm."""

    def __init__(self, nodes: list[Member]) -> None:
        self.nodes = nodes

    def find(self, name: int) -> Member:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def closes_cycle(self, new: Member, targets: set[Member]) -> bool:
        if new in targets:
            return True
        return any(self.closes_cycle(successor, targets) for successor in new.successors)

    async def run(self, question: int) -> int:
        waiting = {node: len(node.predecessors) for node in self.nodes}
        ready = [node for node, count in waiting.items() if count == 0]
        while ready:
            node = ready.pop(0)
            await node.execute(question)
            for successor in node.successors:
                waiting[successor] -= 1
                if waiting[successor] == 0:
                    ready.append(successor)
        return self.nodes[-1].outputs[0]["output"]


class Loop:
    """The optimiser of the published code on the questions of `voters`."""

    def __init__(self, voters: Voters, copies: bool = True) -> None:
        self.space, self.copies = voters.space, copies
        self.right = voters.right.tolist()
        members = [Member(k, column.tolist()) for k, column in enumerate(voters.answers.T)]
        self.graph = Composite([*members, Decision(len(members), voters.preference.tolist())])
        self.pairs = [tuple(pair) for pair in self.space.potential.tolist()]
        self.logits = torch.nn.Parameter(torch.zeros(len(self.pairs)))
        self.adam = torch.optim.Adam([self.logits], lr=0.1)
        self.draw: Callable[[], torch.Tensor] = lambda: torch.rand(1)

    def duplicate(self, graph: Composite) -> Composite:
        if self.copies:
            return copy.deepcopy(graph)
        nodes = [copy.copy(node) for node in graph.nodes]
        for node in nodes:
            node.predecessors, node.successors = [], []
        return Composite(nodes)

    def realize(self) -> tuple[Composite, torch.Tensor]:
        graph = self.duplicate(self.graph)
        terms = [torch.tensor(0.0)]
        for (source, target), logit in zip(self.pairs, self.logits, strict=True):
            left, right = graph.find(source), graph.find(target)
            if graph.closes_cycle(right, {left}):
                continue
            probability = torch.sigmoid(logit)
            if self.draw() < probability:
                left.add_successor(right)
                terms.append(torch.log(probability))
            else:
                terms.append(torch.log(1 - probability))
        return graph, torch.sum(torch.stack(terms))

    async def answer(self, graph: Composite, question: int) -> int:
        return await (copy.deepcopy(graph) if self.copies else graph).run(question)

    async def step(self, questions: list[int]) -> None:
        drawn = [self.realize() for _ in questions]
        answers = await asyncio.gather(
            *(self.answer(graph, question) for (graph, _), question in zip(drawn, questions, strict=True))
        )
        losses = [
            -likelihood * float(answer == self.right[question])
            for (_, likelihood), answer, question in zip(drawn, answers, questions, strict=True)
        ]
        loss = torch.mean(torch.stack(losses))
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()


def plain(voters: Voters, steps: int, copies: bool = True) -> Callable[[], None]:
    """Run `steps` steps of the loop, with four questions each."""

    def go() -> None:
        loop, order = Loop(voters, copies), np.random.default_rng(0).permutation(QUESTIONS).tolist()

        async def learn() -> None:
            for step in range(steps):
                await loop.step([order[(4 * step + k) % QUESTIONS] for k in range(4)])

        asyncio.run(learn())

    return go


def ours(voters: Voters, settings: EdgeSettings, steps: int) -> Callable[[], None]:
    """Run `steps` steps of the optimiser, from its construction on."""
    space = voters.space

    def go() -> None:
        EdgeOptimizer(space, QUESTIONS, np.random.default_rng(0), settings).run(voters.utility, steps)

    return go


def compared(voters: Voters, copies: bool, steps: int = 6) -> float:
    """The largest difference of the logits after some steps from the same random numbers."""
    rng, space = np.random.default_rng(1), voters.space
    optimizer = EdgeOptimizer(space, QUESTIONS, rng, replace(PAPER, order="listed"))
    loop = Loop(voters, copies)
    for step in range(steps):
        uniform, questions = rng.random((4, 1, len(space))), np.arange(4 * step, 4 * step + 4)
        graphs = space.graphs(uniform < 1 / (1 + np.exp(-optimizer.logits)))
        # the loop draws for feasible edges only
        numbers = iter([value for row in range(4) for value in uniform[row, 0][graphs.feasible[row, 0]]])
        loop.draw = lambda numbers=numbers: torch.tensor([next(numbers)])
        asyncio.run(loop.step(questions.tolist()))
        optimizer.tell(Trial(questions, graphs), voters.utility(questions, graphs.included))
    return float(np.abs(optimizer.logits - loop.logits.detach().numpy()).max())


def main() -> int:
    torch.set_num_threads(1)
    rows = []
    for agents, peer_steps in ((3, 50), (7, 10)):
        voters = simulated_voters(QUESTIONS, np.random.default_rng(0), truthful=agents, adversaries=agents)
        for copies in (True, False):
            if not (gap := compared(voters, copies)) <= 1e-4:
                raise SystemExit(f"the sides differ by {gap:.2e} in a logit, {agents} + {agents} agents")
        main_case = agents == 3
        sides = [
            ("paper's setting", replace(PAPER, order="listed"), 200, 20 if main_case else 0),
            ("4 questions x 16 graphs", EdgeSettings(), 200, 500 if main_case else 0),
            ("16 questions x 64 graphs", EdgeSettings(tasks=16, graphs=64), 50, 0),
        ]
        for name, settings, steps, bar in sides:
            units = steps * settings.tasks * settings.graphs
            for peer, copies in (("the loop", True), ("the loop without copies", False)):
                mine, theirs = _bench.compare(ours(voters, settings, steps), plain(voters, peer_steps, copies), 5)
                case = f"{agents} + {agents} agents, {name}, {peer}"
                per_s = {
                    "graphs_per_cpu_s": round(units / mine),
                    "peer_graphs_per_cpu_s": round(4 * peer_steps / theirs),
                }
                rows.append(_bench.row(case, mine / units, theirs / (4 * peer_steps), bar if copies else 0, **per_s))
    return 0 if _bench.write("vs_swarm_loop", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
