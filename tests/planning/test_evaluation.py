"""Scores against a plain walk that takes one step at a time, and against cases worked out by hand."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mindworks.errors import InputError
from mindworks.planning import evaluation
from mindworks.planning.evaluation import BINS, evaluate, follow, trajectory
from mindworks.planning.mazes import Mazes, generate
from mindworks.planning.mechanisms import MECHANISMS

NAMES = list(MECHANISMS)
NORTH, EAST, WEST, SOUTH = range(4)


def walk(maze: Mazes, actions: np.ndarray, start: tuple[int, int, int]) -> int:
    """Steps to the goal of a set of one maze, -1 if it is not reached in as many steps as there are states."""
    free, goal, state = maze.free[0].numpy(), tuple(maze.goal[0].tolist()), start
    for steps in range(actions.size + 1):
        if state == goal:
            return steps
        turned, down, right = maze.mechanism.moves[state[0]][actions[state]]
        at = state[1] + down, state[2] + right
        if 0 <= at[0] < free.shape[0] and 0 <= at[1] < free.shape[1] and free[at]:
            state = (turned, *at)
    return -1


def some_policy(mazes: Mazes, wrong: float, seed: int = 0) -> Tensor:
    """Optimal actions, a share `wrong` of them replaced by any."""
    generator = torch.Generator().manual_seed(seed)
    best = mazes.optimal.int().argmax(1)
    other = torch.randint(mazes.mechanism.actions, best.shape, generator=generator)
    return torch.where(torch.rand(best.shape, generator=generator) < wrong, other, best)


def open_rooms(name: str) -> Mazes:
    """Maps without walls around them, some with cells that are cut off."""
    rng = np.random.default_rng(0)
    free = rng.random((6, 5, 6)) < 0.7
    free[:, 2, 3] = True
    goal = np.tile([MECHANISMS[name].orientations - 1, 2, 3], (6, 1))
    return Mazes.from_arrays(free, goal, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [0.1, 1.0])
def test_scores_are_those_of_a_plain_walk(name: str, wrong: float) -> None:
    mazes = open_rooms(name)
    actions = some_policy(mazes, wrong)
    lengths, score = follow(actions, mazes), evaluate(actions, mazes)
    assert lengths.dtype == torch.int32
    starts = successes = optimal = unreachable = loops = 0
    for maze in range(len(mazes)):
        of_maze = 0
        for state in product(*map(range, lengths.shape[1:])):
            if not mazes.free[(maze, *state[1:])]:
                assert lengths[(maze, *state)] == -1
                continue
            steps = walk(mazes[maze], actions[maze].numpy(), state)
            assert lengths[(maze, *state)] == steps
            shortest = int(mazes.distances[(maze, *state)])
            unreachable += shortest < 0
            if shortest > 0:
                starts += 1
                of_maze += steps > 0
                loops += steps < 0
                optimal += steps == shortest
        assert score.maze_successes[maze] == of_maze
        successes += of_maze
    assert min(unreachable, loops, optimal) > 0
    assert score.unreachable == unreachable
    assert score.success_rate == successes / starts
    assert score.optimality_rate == optimal / starts
    torch.testing.assert_close(score.maze_success_rates, score.maze_successes / score.maze_starts.double())


@pytest.mark.parametrize("name", NAMES)
def test_the_optimal_policy_scores_everything_and_a_random_one_little(name: str) -> None:
    mazes = generate(20, 9, mechanism=name, decimation=(0, 0.5), seed=0)
    best = evaluate(some_policy(mazes, 0), mazes)
    assert best.success_rate == best.optimality_rate == 1
    assert (best.maze_success_rates == 1).all()
    assert int(best.starts.sum()) == int((mazes.distances > 0).sum())
    half, none = (evaluate(some_policy(mazes, wrong), mazes) for wrong in (0.2, 1.0))
    assert 1 > half.success_rate > none.success_rate > 0
    assert none.success_rate < 0.2


def test_a_detour_succeeds_and_a_wall_or_a_circle_does_not() -> None:
    square = Mazes.from_arrays(np.ones((1, 2, 2)), [[0, 0, 0]], "news")
    detour = torch.tensor([[[[NORTH, SOUTH], [NORTH, WEST]]]])  # from (0, 1) down, left and up instead of left
    score = evaluate(detour, square)
    assert follow(detour, square).tolist() == [[[[0, 3], [1, 2]]]]
    assert score.success_rate == 1
    assert score.optimality_rate == 2 / 3
    assert score.starts.tolist() == [0, 2, 1]
    assert score.optimal.tolist() == [0, 1, 1]
    wall = torch.tensor([[[[NORTH, EAST], [NORTH, EAST]]]])
    assert follow(wall, square).tolist() == [[[[0, -1], [1, -1]]]]
    circle = torch.tensor([[[[NORTH, SOUTH], [SOUTH, NORTH]]]])
    assert evaluate(circle, square).success_rate == 0


def test_logits_are_the_actions_of_their_first_maximum() -> None:
    mazes = open_rooms("diffdrive")
    logits = torch.randn(6, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0)).round()
    by_logits, by_actions = evaluate(logits, mazes), evaluate(logits.argmax(1), mazes)
    assert torch.equal(by_logits.maze_successes, by_actions.maze_successes)
    assert evaluate(torch.where(mazes.optimal, 0.0, -math.inf), mazes).optimality_rate == 1


def test_bins_add_up() -> None:
    mazes = generate(30, 11, decimation=(0, 0), seed=0)
    score = evaluate(some_policy(mazes, 0.1), mazes, bins=(1, 7, 30))
    rows = score.by_path_length()
    assert [(row["low"], row["high"]) for row in rows] == [(1, 1), (2, 7), (8, 30), (31, None)]
    steps, lengths = mazes.distances, follow(some_policy(mazes, 0.1), mazes)
    for row in rows:
        inside = (steps >= row["low"]) & (steps <= (row["high"] or 10**6))
        assert row["starts"] == int(inside.sum()) > 0
        assert row["success"] == pytest.approx((lengths[inside] > 0).double().mean().item())
        assert row["optimality"] == pytest.approx((lengths[inside] == steps[inside]).double().mean().item())
    assert sum(row["starts"] for row in rows) == int(score.starts.sum())
    total = sum(row["starts"] * row["success"] for row in rows)
    assert total / int(score.starts.sum()) == pytest.approx(score.success_rate)
    far = score.by_path_length((10_000,))
    assert far[1] == {"low": 10_001, "high": None, "starts": 0, "success": None, "optimality": None}
    assert far[0]["success"] == score.success_rate
    assert [row["high"] for row in evaluate(some_policy(mazes, 0), mazes).by_path_length()] == [*BINS, None]


def test_scores_of_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    mazes = Mazes.concatenate([generate(3, 7, seed=0), generate(4, 15, decimation=(0, 0), seed=0)])
    actions = some_policy(mazes, 0.1)
    whole = evaluate(actions, mazes)
    sums = [evaluate(actions[:3], mazes[:3]) + evaluate(actions[3:], mazes[3:])]
    sums.append(evaluate(actions[3:], mazes[3:]) + evaluate(actions[:3], mazes[:3]))
    monkeypatch.setattr(evaluation, "_BLOCK", 500)  # two mazes at once
    sums.append(evaluate(actions, mazes))
    for number, total in enumerate(sums):
        assert total.by_path_length() == whole.by_path_length()
        assert total.success_rate == whole.success_rate
        order = [3, 4, 5, 6, 0, 1, 2] if number == 1 else list(range(7))
        for name in ("maze_starts", "maze_successes", "maze_optimal", "maze_unreachable"):
            assert torch.equal(getattr(total, name), getattr(whole, name)[order])


def test_nothing_to_score_is_no_rate() -> None:
    mazes = generate(2, 7, seed=0)
    empty = evaluate(some_policy(mazes, 0)[:0], mazes[:0])
    assert math.isnan(empty.success_rate)
    assert empty.by_path_length((5,))[0]["success"] is None
    alone = Mazes.from_arrays(np.eye(3)[None], [[0, 1, 1]], "news")
    score = evaluate(torch.zeros(1, 1, 3, 3, dtype=torch.int64), alone)
    assert score.unreachable == 2
    assert math.isnan(score.maze_success_rates.item())
    assert evaluate(torch.zeros(1, 1, 3, 3, dtype=torch.int64), alone).published_rates() == (1 / 3, 1.0)


def test_published_rates_are_over_all_open_states() -> None:
    """The published count in full: lengths below a common impossible one, goals and states without a path included."""
    mazes = open_rooms("diffdrive")
    actions = some_policy(mazes, 0.1)
    states = mazes.distances[0].numel()
    success, optimal = [], []
    for maze in range(len(mazes)):
        is_open = mazes.free[maze].expand(4, -1, -1)
        walked, shortest = (
            torch.where(lengths < 0, states, lengths)[is_open]
            for lengths in (follow(actions, mazes)[maze], mazes.distances[maze])
        )
        success.append(1 - (walked == states).double().mean().item())
        optimal.append((walked == shortest).double().mean().item())
    assert evaluate(actions, mazes).published_rates() == pytest.approx((np.mean(success), np.mean(optimal)))


def test_a_trajectory_ends_at_the_goal_or_where_it_repeats() -> None:
    mazes = generate(1, 15, mechanism="diffdrive", decimation=(0, 0), seed=0)
    start = next(state for state in mazes.distances[0].nonzero().tolist() if mazes.distances[(0, *state)] > 20)
    path = trajectory(mazes, some_policy(mazes, 0)[0], start)
    assert path[0] == tuple(start)
    assert path[-1] == tuple(mazes.goal[0].tolist())
    assert [int(mazes.distances[(0, *state)]) for state in path] == list(range(len(path) - 1, -1, -1))
    square = Mazes.from_arrays(np.ones((1, 2, 2)), [[0, 0, 0]], "news")
    circle = torch.tensor([[[NORTH, SOUTH], [EAST, NORTH]]])
    assert trajectory(square, circle, (0, 1, 0)) == [(0, 1, 0), (0, 1, 1), (0, 0, 1), (0, 1, 1)]
    stuck = torch.tensor([[[NORTH, EAST], [EAST, NORTH]]])
    assert trajectory(square, stuck, (0, 0, 1)) == [(0, 0, 1), (0, 0, 1)]
    assert trajectory(square, stuck, (0, 0, 0)) == [(0, 0, 0)]


def test_trajectories_from_nowhere_are_refused() -> None:
    mazes = generate(2, 7, decimation=(0, 0), seed=0)
    actions = some_policy(mazes, 0)
    with pytest.raises(InputError, match="maze must be a set of one, got 2"):
        trajectory(mazes, actions[0], (0, 1, 1))
    for start in ([0, 0, 0], [0, 1, 7], [1, 1, 1], [0, -1, 1], [1, 1]):
        with pytest.raises(InputError, match=r"start must be an open state of \(1, 7, 7\), got"):
            trajectory(mazes[0], actions[0], start)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (torch.zeros(2, 1, 7, 8).long(), r"policy must be actions \[2, 1, 7, 7\] or logits \[2, 4, 1, 7, 7\], got"),
        (torch.zeros(2, 3, 1, 7, 7), "policy must be actions"),
        (torch.zeros(2, 1, 7, 7), "policy must be actions as whole numbers, got float32"),
        (torch.full((2, 1, 7, 7), 4), "policy must be actions from 0 to 3, got 4"),
        (torch.full((2, 1, 7, 7), -1), "policy must be actions from 0 to 3, got -1"),
        (torch.full((2, 4, 1, 7, 7), math.nan), "policy must be logits without nan"),
    ],
)
def test_policies_that_are_none_are_refused(policy: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(policy, generate(2, 7, seed=0))


@pytest.mark.parametrize("edges", [(0,), (5, 5), (9, 3)])
def test_bins_must_rise(edges: Any) -> None:
    mazes = generate(1, 7, seed=0)
    with pytest.raises(InputError, match="bins must rise from 1 on"):
        evaluate(some_policy(mazes, 0), mazes, bins=edges)
    with pytest.raises(InputError, match="bins must rise from 1 on"):
        evaluate(some_policy(mazes, 0), mazes).by_path_length(edges)
