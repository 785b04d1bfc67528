"""Distances and optimal actions against plain searches, SciPy's graphs and maps drawn by hand."""

from __future__ import annotations

from collections import deque
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from mindworks.planning import shortest_paths
from mindworks.planning.mechanisms import DIFFERENTIAL, MECHANISMS, MOORE, NEWS, Mechanism
from mindworks.planning.shortest_paths import distances, optimal_actions, successors

State = tuple[int, int, int]
NAMES = list(MECHANISMS)


def random_maps(count: int, size: tuple[int, int], mechanism: Mechanism, seed: int) -> tuple[Tensor, Tensor]:
    """Maps without walls around them, and goals on open cells."""
    rng = np.random.default_rng(seed)
    free = rng.random((count, *size)) < rng.uniform(0.3, 0.9, (count, 1, 1))
    goal = np.stack([rng.integers(0, limit, count) for limit in (mechanism.orientations, *size)], 1)
    free[np.arange(count), goal[:, 1], goal[:, 2]] = True
    return torch.from_numpy(free), torch.from_numpy(goal)


def step(free: np.ndarray, mechanism: Mechanism, state: State, action: int) -> State:
    """The state after an action, by the definition of a mechanism."""
    orientation, row, column = state
    turned, down, right = mechanism.moves[orientation][action]
    at = row + down, column + right
    inside = 0 <= at[0] < free.shape[0] and 0 <= at[1] < free.shape[1]
    return (turned, *at) if inside and free[at] else state


def plain_distances(free: np.ndarray, goal: State, mechanism: Mechanism) -> np.ndarray:
    """A search from every open state forwards, one state at a time."""
    out = np.full((mechanism.orientations, *free.shape), -1)
    for start in product(*map(range, out.shape)):
        if not free[start[1:]]:
            continue
        queue, found = deque([start]), {start: 0}
        while queue and goal not in found:
            state = queue.popleft()
            for action in range(mechanism.actions):
                after = step(free, mechanism, state, action)
                if after not in found:
                    found[after] = found[state] + 1
                    queue.append(after)
        out[start] = found.get(goal, -1)
    return out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(5, 5), (4, 7), (1, 6)])
def test_distances_are_those_of_a_plain_search(name: str, size: tuple[int, int]) -> None:
    mechanism = MECHANISMS[name]
    free, goal = random_maps(6, size, mechanism, 3)
    ours = distances(free, goal, mechanism)
    assert ours.dtype == torch.int32
    assert (ours == -1).any()
    assert (ours > 1).any()
    for one, steps, target in zip(free.numpy(), ours.numpy(), goal.tolist(), strict=True):
        np.testing.assert_array_equal(steps, plain_distances(one, tuple(target), mechanism))


@pytest.mark.parametrize("name", NAMES)
def test_distances_are_those_of_a_graph_of_the_successors(name: str) -> None:
    mechanism = MECHANISMS[name]
    free, goal = random_maps(4, (13, 17), mechanism, 5)
    ours, after = distances(free, goal, mechanism).flatten(1).numpy(), successors(free, mechanism).numpy()
    for maze, (orientation, row, column) in enumerate(goal.tolist()):
        states = after.shape[2]
        open_states = np.broadcast_to(free[maze].numpy(), (mechanism.orientations, 13, 17)).reshape(-1)
        come = np.tile(np.arange(states), mechanism.actions)
        edges = csr_array((open_states[come].astype(float), (after[maze].reshape(-1), come)), shape=(states, states))
        theirs = dijkstra(edges, unweighted=True, indices=(orientation * 13 + row) * 17 + column)
        np.testing.assert_array_equal(ours[maze], np.where(np.isinf(theirs) | ~open_states, -1, theirs))


def test_maps_drawn_by_hand() -> None:
    rows = ["..#.", ".#..", "...."]
    free = torch.tensor([[cell == "." for cell in row] for row in rows])[None]
    news = distances(free, torch.tensor([[0, 0, 0]]), NEWS)[0, 0]
    assert news.tolist() == [[0, 1, -1, 7], [1, -1, 5, 6], [2, 3, 4, 5]]
    moore = distances(free, torch.tensor([[0, 0, 0]]), MOORE)[0, 0]
    assert moore.tolist() == [[0, 1, -1, 3], [1, -1, 2, 3], [2, 2, 3, 3]]
    # The goal faces north in the west cell of three. From the east cell: west is orientation 2, and one turn is north.
    drive = distances(torch.ones(1, 1, 3, dtype=torch.bool), torch.tensor([[0, 0, 0]]), DIFFERENTIAL)[0, :, 0]
    assert drive.tolist() == [[0, 3, 4], [1, 4, 5], [1, 2, 3], [2, 3, 4]]


def published_drive_distances(free: np.ndarray, goal: State) -> np.ndarray:
    """By the published rule: a drive moves unless it stands on a wall itself, and walls get no distance."""
    ahead, right, left = [(-1, 0), (0, 1), (0, -1), (1, 0)], [1, 3, 0, 2], [2, 0, 3, 1]
    out = np.full((4, *free.shape), -1)
    out[goal] = 0
    queue = deque([goal])
    while queue:
        orientation, row, column = state = queue.popleft()
        behind = (orientation, row - ahead[orientation][0], column - ahead[orientation][1])
        for before in (behind, (right[orientation], row, column), (left[orientation], row, column)):
            inside = 0 <= before[1] < free.shape[0] and 0 <= before[2] < free.shape[1]
            if inside and free[before[1:]] and out[before] < 0:
                out[before] = out[state] + 1
                queue.append(before)
    return out


def test_the_published_rule_for_a_drive_gives_the_same_distances() -> None:
    free, goal = random_maps(8, (6, 7), DIFFERENTIAL, 8)
    ours = distances(free, goal, DIFFERENTIAL).numpy()
    for maze in range(8):
        np.testing.assert_array_equal(
            ours[maze], published_drive_distances(free[maze].numpy(), tuple(goal[maze].tolist()))
        )


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 6), st.integers(1, 6), st.integers(0, 10_000))
def test_an_action_is_optimal_when_it_comes_one_step_nearer(name: str, height: int, width: int, seed: int) -> None:
    mechanism = MECHANISMS[name]
    free, goal = random_maps(2, (height, width), mechanism, seed)
    steps = distances(free, goal, mechanism)
    optimal = optimal_actions(steps, mechanism)
    assert optimal.shape == (2, mechanism.actions, mechanism.orientations, height, width)
    for maze, (one, steps_of_one) in enumerate(zip(free.numpy(), steps.numpy(), strict=True)):
        for state in product(*map(range, steps_of_one.shape)):
            nearer = [
                bool(steps_of_one[state] > 0 and steps_of_one[after] == steps_of_one[state] - 1)
                for after in (step(one, mechanism, state, action) for action in range(mechanism.actions))
            ]
            assert optimal[(maze, slice(None), *state)].tolist() == nearer
            assert any(nearer) == (steps_of_one[state] > 0)


@pytest.mark.parametrize("name", NAMES)
def test_successors_are_the_steps_of_the_mechanism(name: str) -> None:
    mechanism = MECHANISMS[name]
    free, _ = random_maps(2, (4, 5), mechanism, 1)
    after = successors(free, mechanism)
    assert after.dtype == torch.int64
    states = list(product(range(mechanism.orientations), range(4), range(5)))
    for maze, one in enumerate(free.numpy()):
        for (number, state), action in product(enumerate(states), range(mechanism.actions)):
            expected = step(one, mechanism, state, action)
            turns = mechanism.moves[state[0]][action][1:] == (0, 0)
            if turns and not one[state[1:]]:  # in a wall a drive may turn, which is no move into a wall
                expected = (mechanism.moves[state[0]][action][0], *state[1:])
            assert states[after[maze, action, number]] == expected


def test_blocks_and_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    free, goal = random_maps(5, (7, 9), DIFFERENTIAL, 2)
    whole = distances(free, goal, DIFFERENTIAL)
    monkeypatch.setattr(shortest_paths, "BLOCK", 2 * 4 * 9 * 11)
    assert torch.equal(distances(free, goal, DIFFERENTIAL), whole)
    alone = [distances(free[i : i + 1], goal[i : i + 1], DIFFERENTIAL) for i in range(5)]
    assert torch.equal(torch.cat(alone), whole)
    assert distances(free[:0], goal[:0], DIFFERENTIAL).shape == (0, 4, 7, 9)


def test_a_path_through_the_whole_map_is_counted_to_its_end() -> None:
    size = 41
    free = torch.ones(1, size, size, dtype=torch.bool)
    free[0, 1::4, :-1] = False  # rows are joined on the right and on the left in turns
    free[0, 3::4, 1:] = False
    steps = distances(free, torch.tensor([[0, 0, 0]]), NEWS)[0, 0]
    cells = int(free.sum())
    assert steps[-1, -1] == cells - 1
    assert sorted(steps[free[0]].tolist()) == list(range(cells))
