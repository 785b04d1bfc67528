"""The optimiser of edges: its gradient against enumeration, its Adam against another, resuming, and what it learns."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mindworks.agents.edge_optimizer import (
    PAPER,
    EdgeDistribution,
    EdgeOptimizer,
    EdgeSettings,
    Trial,
    optimize_edges,
)
from mindworks.agents.edges import EdgeSpace, Graphs
from mindworks.agents.graph import Node, run_sync
from mindworks.agents.memo import Memo
from mindworks.agents.swarm import Swarm
from mindworks.agents.voters import simulated_voters, voter_space
from mindworks.core.adam import Adam
from mindworks.errors import InputError
from mindworks.lab import checkpoint

SPACE = EdgeSpace(3, [], [(0, 1), (1, 0), (0, 2), (1, 2)], 2)
BASELINES: list[str | float] = ["none", "leave_one_out", 0.7]


def optimizer(seed: int = 0, space: EdgeSpace = SPACE, tasks: int = 8, **settings: Any) -> EdgeOptimizer:
    return EdgeOptimizer(space, tasks, np.random.default_rng(seed), EdgeSettings(**settings))


def trial_of(graphs: Graphs, *rows: int, rank: np.ndarray | None = None) -> Trial:
    """One task with some of the graphs of an enumeration."""
    chosen = list(rows)
    some = Graphs(graphs.included[chosen][None], graphs.feasible[chosen][None])
    return Trial(np.zeros(1, np.int64), some, None if rank is None else rank[chosen][None])


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_estimate_is_unbiased(baseline: str | float) -> None:
    learner = optimizer(tasks=8, baseline=baseline, graphs=2, order="listed")
    learner.parameters[:] = [0.4, -0.3, 0.2, -0.1]
    graphs = SPACE.enumerate()
    utility = np.random.default_rng(1).normal(size=len(graphs.included))
    p = np.exp(SPACE.log_likelihood(learner.logits, graphs))
    exact = (p * utility) @ SPACE.score(learner.logits, graphs)
    mean = np.zeros(4)
    for a, b in itertools.product(range(len(p)), repeat=2):
        mean += p[a] * p[b] * learner.gradient(trial_of(graphs, a, b), utility[[a, b]][None])
    np.testing.assert_allclose(mean, exact, atol=1e-12)


def test_the_estimate_is_unbiased_where_the_order_is_learned() -> None:
    learner = optimizer(order="ranked", graphs=2)
    learner.parameters[:] = [0.4, -0.3, 0.2, -0.1, 0.5, -0.5, 0]
    ranking, scores = learner.ranking, learner.parameters[4:]
    assert ranking is not None
    parts = []
    for places in ([0, 1, 2], [1, 0, 2]):
        rank = np.array(places)
        graphs = SPACE.enumerate(ranking.allowed(rank))
        parts.append((graphs, np.broadcast_to(rank, (len(graphs.included), 3))))
    graphs = Graphs(*(np.concatenate([part[0][k] for part in parts]) for k in range(2)))
    rank = np.concatenate([part[1] for part in parts])
    utility = np.random.default_rng(2).normal(size=len(rank))

    def value(x: np.ndarray) -> float:
        p = np.exp(SPACE.log_likelihood(x[:4], graphs) + ranking.log_likelihood(x[4:], rank))
        return float(p @ utility)

    p = np.exp(SPACE.log_likelihood(learner.logits, graphs) + ranking.log_likelihood(scores, rank))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    mean = sum(
        p[a] * p[b] * learner.gradient(trial_of(graphs, a, b, rank=rank), utility[[a, b]][None])
        for a, b in itertools.product(range(len(p)), repeat=2)
    )
    x = learner.parameters
    differences = [(value(x + d) - value(x - d)) / 2e-6 for d in 1e-6 * np.eye(7)]
    np.testing.assert_allclose(mean, differences, atol=1e-8)


def test_other_graphs_are_those_of_the_task_or_of_the_step() -> None:
    utility = np.array([[1.0, 0, 0], [1, 1, 0]])
    wanted = [[0, 0.5, 0.5], [0.5, 0.5, 1]]
    np.testing.assert_allclose(optimizer(tasks=8, graphs=3)._baseline(utility), wanted)
    alone = optimizer(graphs=1)._baseline(np.array([[1.0], [0], [0], [1]]))
    np.testing.assert_allclose(np.ravel(alone), [1 / 3, 2 / 3, 2 / 3, 1 / 3])


def test_moving_average_is_of_earlier_steps() -> None:
    learner = optimizer(baseline="moving_average", decay=0.5)
    seen = []
    for value in (1.0, 0.0, 1.0):
        trial = learner.ask()
        seen.append(learner._baseline(np.full((4, 16), value)))
        learner.tell(trial, np.full((4, 16), value))
    assert seen == pytest.approx([0, 1, 1 / 3])  # then (0 * 1/2 + 1 * 1/4) / (3/4)


def test_steps_are_those_of_adam() -> None:
    learner = optimizer(lr=0.3, baseline="none", order="listed")
    peer = Adam(torch.zeros(1, 4, dtype=torch.float64), 0.3)
    rng = np.random.default_rng(0)
    for _ in range(5):
        trial = learner.ask()
        utility = rng.random((4, 16))
        peer.step(-torch.from_numpy(learner.gradient(trial, utility))[None])
        learner.tell(trial, utility)
        np.testing.assert_allclose(learner.parameters, peer.parameter[0].numpy(), rtol=1e-7)


def test_a_better_graph_becomes_more_likely() -> None:
    learner = optimizer(order="listed")
    learner.run(lambda tasks, included: included[..., 2].astype(float) - included[..., 3], 40)
    assert learner.distribution.probabilities[2] > 0.95
    assert learner.distribution.probabilities[3] < 0.05
    assert learner.distribution.threshold()[2:].tolist() == [True, False]
    assert learner.history[-1] > learner.history[0]


def test_logits_are_clipped() -> None:
    learner = optimizer(lr=5.0, clip=2.0, baseline="none")
    learner.run(lambda tasks, included: included[..., 2].astype(float), 30)
    assert np.abs(learner.logits).max() == 2


def test_tasks_come_in_passes() -> None:
    learner = optimizer(tasks=10)
    taken = np.concatenate([learner.ask().tasks for _ in range(5)])
    assert sorted(taken[:10]) == list(range(10))
    assert sorted(taken[10:]) == list(range(10))
    assert all(len(set(taken[k : k + 4])) == 4 for k in range(0, 20, 4))


@pytest.mark.parametrize("order", ["listed", "shuffled", "ranked"])
def test_a_resumed_run_equals_an_unbroken_one(order: str, tmp_path: Path) -> None:
    voters = simulated_voters(20, np.random.default_rng(1))
    settings = EdgeSettings(order=order, baseline="moving_average")

    def fresh(seed: int) -> EdgeOptimizer:
        return EdgeOptimizer(voters.space, 20, np.random.default_rng(seed), settings)

    whole, half, resumed = fresh(3), fresh(3), fresh(99)
    whole.run(voters.utility, 7)
    half.run(voters.utility, 3)
    checkpoint.save(tmp_path, half.state())
    resumed.load(checkpoint.load(tmp_path))
    resumed.run(voters.utility, 4)
    np.testing.assert_array_equal(resumed.parameters, whole.parameters)
    assert resumed.history == whole.history
    assert (resumed.ask().graphs.included == whole.ask().graphs.included).all()
    assert (resumed.distribution.threshold() == whole.distribution.threshold()).all()
    assert not np.array_equal(half.parameters, whole.parameters)


def test_a_state_of_another_space_is_refused() -> None:
    learner = optimizer()
    with pytest.raises(InputError, match="state must hold 4 edges and 4 parameters, got 36 and 36"):
        learner.load(optimizer(space=voter_space(6)).state())
    with pytest.raises(InputError, match="4 parameters, got 4 and 7"):
        learner.load(optimizer(order="ranked").state())


def test_a_graph_without_utility_counts_for_nothing() -> None:
    learner = optimizer(tasks=8, graphs=3, order="listed")
    trial = learner.ask()
    utility = np.random.default_rng(0).random((4, 3))
    utility[0] = [np.nan, 0.25, 1]
    utility[1] = [np.nan, np.nan, 1]  # one left: nothing to compare it with
    a = np.zeros((4, 3))
    a[0, 1:] = [-0.75, 0.75]
    a[2:] = utility[2:] - (utility[2:].sum(1, keepdims=True) - utility[2:]) / 2
    wanted = (a[..., None] * SPACE.score(learner.logits, trial.graphs)).sum((0, 1)) / 12
    np.testing.assert_allclose(learner.gradient(trial, utility), wanted, atol=1e-15)
    learner.tell(trial, utility)
    assert learner.failed == 3
    assert learner.history == [pytest.approx(np.nanmean(utility))]


def test_bad_utilities_name_the_fault() -> None:
    learner = optimizer()
    trial = learner.ask()
    with pytest.raises(InputError, match=r"utility must be \[4, 16\], got \[4\]"):
        learner.tell(trial, np.zeros(4))
    with pytest.raises(InputError, match="got NaN for every graph"):
        learner.tell(trial, np.full((4, 16), np.nan))
    with pytest.raises(InputError, match="got infinity"):
        learner.tell(trial, np.full((4, 16), np.inf))
    assert learner.step == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tasks", 0),
        ("graphs", 0),
        ("lr", 0.0),
        ("baseline", "mean"),
        ("baseline", float("nan")),
        ("initial", 1.0),
        ("order", "random"),
        ("clip", 0.0),
        ("betas", (0.9, 1.0)),
        ("decay", 1.0),
    ],
)
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        replace(EdgeSettings(), **{field: value})  # type: ignore[arg-type]


def test_too_little_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="needs at least 2 graphs in a step, got 1"):
        EdgeSettings(tasks=1, graphs=1)
    with pytest.raises(InputError, match="tasks must be at least 4, got 3"):
        optimizer(tasks=3)
    with pytest.raises(InputError, match="must have potential edges, got none"):
        optimizer(space=EdgeSpace(2, [(0, 1)], [], 1))


@pytest.mark.parametrize("settings", [PAPER, EdgeSettings(), EdgeSettings(order="ranked")])
def test_the_same_seed_gives_the_same_numbers(settings: EdgeSettings) -> None:
    voters = simulated_voters(20, np.random.default_rng(1))
    runs = [EdgeOptimizer(voters.space, 20, np.random.default_rng(seed), settings) for seed in (0, 0, 1)]
    for run in runs:
        run.run(voters.utility, 3)
    assert np.array_equal(runs[0].parameters, runs[1].parameters)
    assert not np.array_equal(runs[0].parameters, runs[2].parameters)


def test_sampled_deployment_follows_the_learned_ranking() -> None:
    scores = np.array([9.0, -9, 0])
    distribution = EdgeDistribution(SPACE, np.full(4, 9.0), scores)
    graphs, rank = distribution.sample((5, 3), np.random.default_rng(0))
    assert rank is not None
    assert rank.shape == (5, 3, 3)
    assert graphs.included[..., :2].tolist() == [[[True, False]] * 3] * 5
    assert distribution.threshold().tolist() == [True, False, True, True]


# -- through a swarm: texts are the only channel ----------------------------------------------------------------------

RIGHT = {f"question {k}": str(k) for k in range(8)}


def members(asked: list[str]) -> Swarm:
    async def honest(task: str, messages: tuple) -> str:
        asked.append(task)
        return RIGHT[task]

    async def liar(task: str, messages: tuple) -> str:
        asked.append(task)
        return "a lie"

    async def last(task: str, messages: tuple) -> str:
        return messages[-1].text

    return Swarm([Node("honest", honest), Node("liar", liar)], last)


def test_a_swarm_learns_whom_to_ask_and_shares_the_calls() -> None:
    asked: list[str] = []
    swarm, memo, tasks = members(asked), Memo(), list(RIGHT)
    learner = EdgeOptimizer(swarm.space, 8, np.random.default_rng(0))
    after: list[int] = []

    def score(task: str, answer: str) -> float:
        return float(answer == RIGHT[task])

    work = optimize_edges(swarm, tasks, score, learner, 25, memo, lambda: after.append(learner.step))
    run_sync(work)
    found = swarm.by_edge(learner.distribution.probabilities)
    assert found["honest", "decision"] > 0.9
    assert found["liar", "decision"] < 0.2
    assert after == list(range(1, 26))
    # 25 steps x 4 tasks x 16 graphs, but a member hears at most the other: at most two calls of it per question
    assert 8 <= len(asked) <= 8 * 4
    assert learner.failed > 0  # nobody leads to the decision: nothing to say


def test_a_swarm_needs_the_tasks_of_its_optimizer() -> None:
    swarm = members([])
    learner = EdgeOptimizer(swarm.space, 8, np.random.default_rng(0))
    with pytest.raises(InputError, match="tasks must be 8, got 2"):
        run_sync(optimize_edges(swarm, list(RIGHT)[:2], lambda task, answer: 0.0, learner, 1))
