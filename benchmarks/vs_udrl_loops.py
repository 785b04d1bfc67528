"""Iterations of exact and sampled eUDRL: matrix products and array draws against the form of the published code.

The peers are that form written plainly. Exact: loops over states, horizons and goals, a numpy vector over actions in
the middle, or a dictionary of Python floats; for the two arms also loops simplified by hand for one step left. Sampled:
a loop over episodes with `numpy.random.choice`, or with `random.random` and bisection. Both sides compute the objective
of every policy too. The exact ones must agree to 1e-12; the unit is one iteration of one policy. Rows with bar 0 are
information. Run: `python benchmarks/vs_udrl_loops.py`.
"""

from __future__ import annotations

import bisect
import itertools
import random
import sys
from collections import defaultdict
from typing import Any

import numpy as np

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor

from mindworks.tabular.command_cases import any_command, grid_kernel, one_goal, two_armed, with_memory
from mindworks.tabular.command_extension import CommandExtension
from mindworks.tabular.udrl import EUDRL
from mindworks.tabular.udrl_sampled import SampledEUDRL

GRID = ["...", "..#", "..."]
AGREE = 1e-12


class Loops:
    """The recursion over all segments, a loop per index and a vector over actions: the peer."""

    def __init__(self, ce: CommandExtension) -> None:
        self.sizes = ce.states, ce.horizon, ce.goals
        self.kernel = ce.transition.numpy()
        self.paid = ce.hit_probability.numpy()
        self.start = ce.start.numpy()

    def visits(self, policy: np.ndarray) -> np.ndarray:
        """Visits `[S, N, G]`, a distribution per time step."""
        states, horizon, _ = self.sizes
        now, total = self.start.copy(), self.start.copy()
        for _ in range(1, horizon):
            then = np.zeros_like(now)
            for s in range(states):
                for h in range(horizon - 1):
                    for a in range(policy.shape[-1]):
                        then[s, h] += (now[:, h + 1] * policy[:, h + 1, :, a] * self.kernel[:, a, s, None]).sum(0)
            now = then
            total += now
        return total

    def cross_values(self, policy: np.ndarray) -> np.ndarray:
        """P(goal g after h steps | s, a, meant h' and g') `[N, G, S, N, G, A]`."""
        states, horizon, goals = self.sizes
        q = np.zeros((horizon, goals, states, horizon, goals, policy.shape[-1]))
        v = np.zeros((horizon, goals, states, horizon, goals))
        for h, s, g in itertools.product(range(horizon), range(states), range(goals)):
            for meant in range(h, horizon):
                for meant_goal in range(goals):
                    here = self.paid[s, :, g] if h == 0 else self.kernel[s] @ v[h - 1, g, :, meant - 1, meant_goal]
                    q[h, g, s, meant, meant_goal] = here
                    v[h, g, s, meant, meant_goal] = here @ policy[s, meant, meant_goal]
        return q

    def step(self, policy: np.ndarray) -> tuple[np.ndarray, float]:
        """The next policy `[S, N, G, A]` and the objective of the given one."""
        states, horizon, goals = self.sizes
        visits, q = self.visits(policy), self.cross_values(policy)
        after, objective = np.zeros_like(policy), 0.0
        for s, h, g in itertools.product(range(states), range(horizon), range(goals)):
            counts = np.zeros(policy.shape[-1])
            for meant in range(h, horizon):
                for meant_goal in range(goals):
                    here = policy[s, meant, meant_goal] * visits[s, meant, meant_goal]
                    counts += q[h, g, s, meant, meant_goal] * here
            total = counts.sum()
            after[s, h, g] = counts / total if total > 0 else 1 / len(counts)
            objective += self.start[s, h, g] * (q[h, g, s, h, g] @ policy[s, h, g])
        return after, objective

    def run(self, policy: np.ndarray, iterations: int) -> tuple[np.ndarray, list[float]]:
        """The last policy, and the objectives of those before it."""
        objectives = []
        for _ in range(iterations):
            policy, objective = self.step(policy)
            objectives.append(objective)
        return policy, objectives


class Dictionary:
    """The recursion with dictionaries of Python floats, for any horizon: faster than `Loops` where A is small."""

    def __init__(self, ce: CommandExtension) -> None:
        self.shape = (ce.states, ce.horizon, ce.goals, ce.actions)
        self.paid = entries(ce.hit_probability)
        self.kernel = entries(ce.transition)
        self.start = entries(ce.start)

    def visits(self, pi: dict) -> dict:
        """Visits of (s, h, g), with most steps left first."""
        states, horizon, goals, actions = map(range, self.shape)
        total = dict(self.start)
        for h in reversed(horizon[1:]):
            for s, g, a in itertools.product(states, goals, actions):
                flow = total[s, h, g] * pi[s, h, g, a]
                for then in states:
                    total[then, h - 1, g] += flow * self.kernel[s, a, then]
        return total

    def run(self, policy: np.ndarray, iterations: int) -> tuple[np.ndarray, list[float]]:
        """The last policy, and the objectives of those before it."""
        states, horizon, goals, actions = map(range, self.shape)
        pi, objectives = entries(torch.from_numpy(policy)), []
        for _ in range(iterations):
            visits, v, after, objective = self.visits(pi), {}, {}, 0.0
            for h, s, g in itertools.product(horizon, states, goals):
                counts = [0.0] * len(actions)
                for meant, aim in itertools.product(horizon[h:], goals):
                    value = 0.0
                    for a in actions:
                        if h:
                            paid = sum(self.kernel[s, a, t] * v[h - 1, g, t, meant - 1, aim] for t in states)
                        else:
                            paid = self.paid[s, a, g]
                        value += paid * pi[s, meant, aim, a]
                        counts[a] += paid * pi[s, meant, aim, a] * visits[s, meant, aim]
                    v[h, g, s, meant, aim] = value
                total = sum(counts)
                for a in actions:
                    after[s, h, g, a] = counts[a] / total if total > 0 else 1 / len(actions)
                objective += self.start[s, h, g] * v[h, g, s, h, g]
            pi = after
            objectives.append(objective)
        return np.array([pi[key] for key in np.ndindex(self.shape)]).reshape(self.shape), objectives


class OneStep:
    """The same for one step left, with what does not depend on the goal taken out of the loops by hand."""

    def __init__(self, ce: CommandExtension) -> None:
        self.states, self.goals, self.actions = range(ce.states), range(ce.goals), range(ce.actions)
        self.paid, self.start = entries(ce.hit_probability), entries(ce.start[:, 0])

    def run(self, policy: np.ndarray, iterations: int) -> tuple[np.ndarray, list[float]]:
        """The last policy, and the objectives of those before it."""
        pi, objectives = entries(torch.from_numpy(policy[:, 0])), []
        for _ in range(iterations):
            objective, after = 0.0, {}
            for s in self.states:
                flow = [sum(self.start[s, g] * pi[s, g, a] for g in self.goals) for a in self.actions]
                for g in self.goals:
                    counts = [flow[a] * self.paid[s, a, g] for a in self.actions]
                    total = sum(counts)
                    for a in self.actions:
                        objective += self.start[s, g] * pi[s, g, a] * self.paid[s, a, g]
                        after[s, g, a] = counts[a] / total if total > 0 else 1 / len(self.actions)
            pi = after
            objectives.append(objective)
        return np.array(list(pi.values())).reshape(policy.shape), objectives


def entries(values: Tensor) -> dict:
    """A tensor as a dictionary of floats by index."""
    return {key: float(values[key]) for key in np.ndindex(tuple(values.shape))}


def same(case: str, ours: Tensor, peer: Any) -> None:
    """Stop where both sides are not the same to 1e-12."""
    gap = float(np.abs(ours.numpy() - np.asarray(peer)).max())
    if not gap <= AGREE:
        raise SystemExit(f"the sides differ: {case} by {gap:.2e}")


def exact_case(case: str, ce: CommandExtension, peer: Any, iterations: int, bar: float) -> dict[str, Any]:
    """Time a run of one policy on both sides."""
    learner, policy = EUDRL(ce), ce.uniform_policy()
    run = learner.run(policy, iterations)
    after, objectives = peer.run(policy.numpy(), iterations)
    same(case, run.policy, after)
    same(case, run.objective[:-1], objectives)
    times = 20  # ours is too fast to be measured in one call
    ours_s, peer_s = _bench.compare(
        lambda: [learner.run(policy, iterations, keep=False) for _ in range(times)],
        lambda: peer.run(policy.numpy(), iterations),
    )
    return _bench.row(case, ours_s / times, peer_s, bar, per=iterations)


def batch_case(case: str, ce: CommandExtension, count: int, iterations: int, bar: float) -> dict[str, Any]:
    """Time `count` policies at once against some of them one by one; the unit is an iteration of one policy."""
    generator = torch.Generator().manual_seed(0)
    policy = torch.rand(count, *ce.uniform_policy().shape, dtype=torch.float64, generator=generator) + 1e-3
    policy /= policy.sum(-1, keepdim=True)
    learner, peer, part = EUDRL(ce), Loops(ce), 5
    run = learner.run(policy, iterations)
    for k in range(part):
        after, objectives = peer.run(policy[k].numpy(), iterations)
        same(case, run.policy[k], after)
        same(case, run.objective[k, :-1], objectives)
    ours_s, peer_s = _bench.compare(
        lambda: learner.run(policy, iterations, keep=False),
        lambda: [peer.run(policy[k].numpy(), iterations) for k in range(part)],
    )
    return _bench.row(case, ours_s / count, peer_s / part, bar, per=iterations)


def choices(ce: CommandExtension, policy: np.ndarray, trajectories: int) -> np.ndarray:
    """Counts `[G, A]` of two arms from a loop over episodes, three draws of `numpy.random.choice` each: the peer."""
    goals, outcomes = ce.start[0, 0].numpy(), ce.hit_probability[0].numpy()
    counts = np.zeros((2, 2))
    for _ in range(trajectories):
        goal = np.random.choice(2, p=goals)  # noqa: NPY002
        action = np.random.choice(2, p=policy[0, 0, goal])  # noqa: NPY002
        counts[np.random.choice(2, p=outcomes[action]), action] += 1  # noqa: NPY002
    return counts


def bisections(ce: CommandExtension, policy: np.ndarray, trajectories: int) -> np.ndarray:
    """The same with Python's own random numbers and prepared cumulative sums: the strongest loop."""
    goals = np.cumsum(ce.start[0, 0]).tolist()
    outcomes, acts = np.cumsum(ce.hit_probability[0], -1).tolist(), np.cumsum(policy[0, 0], -1).tolist()
    counts: dict[tuple[int, int], int] = defaultdict(int)
    draw, find = random.random, bisect.bisect_right
    for _ in range(trajectories):
        action = find(acts[find(goals, draw(), 0, 1)], draw(), 0, 1)
        counts[find(outcomes[action], draw(), 0, 1), action] += 1
    return np.array([[counts[g, a] for a in range(2)] for g in range(2)])


def sampled_case(case: str, peer: Any, trajectories: int, bar: float) -> dict[str, Any]:
    """Time the counts of one iteration of the sampled two arms."""
    ce = two_armed(0.6)
    learner, policy = SampledEUDRL(ce, trajectories), ce.optimum().policy
    generators = [np.random.default_rng(0)]
    ours = learner.segment_counts(policy[None], generators)[0, 0, 0].numpy()
    expected = EUDRL(ce).segment_counts(policy)[0, 0].numpy() * trajectories
    for counts in (ours, peer(ce, policy.numpy(), trajectories)):
        if not (np.abs(counts - expected) <= 5 * np.sqrt(expected)).all():
            raise SystemExit(f"a side draws other episodes: {counts.tolist()} where {expected.tolist()} are expected")
    ours_s, peer_s = _bench.compare(
        lambda: [learner.step(policy[None], generators) for _ in range(20)],
        lambda: peer(ce, policy.numpy(), trajectories),
    )
    return _bench.row(case, ours_s / 20, peer_s, bar)


def main() -> int:
    """Run the cases; the status is 1 when a bar is missed."""
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    arms, slippery = two_armed(0.6), grid_kernel(GRID, 0.1)
    every, alone = any_command(slippery, 4), one_goal(slippery, 4, start=7, goal=2)
    memory = with_memory(alone, 3).extension
    rows = [
        exact_case("two arms, one policy", arms, Loops(arms), 100, 1.0),
        exact_case("two arms, one policy, against a dictionary", arms, Dictionary(arms), 100, 1.0),
        exact_case("two arms, one policy, against simplified loops", arms, OneStep(arms), 100, 0.0),
        exact_case("grid with all goals, one policy", every, Loops(every), 3, 15.0),
        exact_case("grid with all goals, one policy, against a dictionary", every, Dictionary(every), 1, 15.0),
        batch_case("grid with one goal, 200 policies", alone, 200, 5, 50.0),
        exact_case(f"grid with one goal, {memory.states} histories, one policy", memory, Loops(memory), 1, 0.0),
        sampled_case("two arms, 10000 sampled episodes", choices, 10_000, 100.0),
        sampled_case("two arms, 10000 sampled episodes, against bisection", bisections, 10_000, 0.0),
    ]
    return 0 if _bench.write("vs_udrl_loops", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
