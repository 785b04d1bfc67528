"""Shortest paths to the goal of every maze of a batch, and the actions that begin one.

A state is (orientation, row, column), flat `(o * H + row) * W + column`. Shape legend: N mazes, O orientations, A
actions, H, W a map's height and width, S = O * H * W states.

The published code tests the wall of the cell that a differential drive stands on, not of the cell ahead, so that it may
drive into a wall and not out of it. No shortest path does: distances and optimal actions are the same. Here forward
into a wall stays, as in the other mechanisms.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mindworks.planning.mechanisms import Mechanism

BLOCK = 1 << 20
"""States searched at once: the search of a block costs some 20 us per step of its longest path, whatever its size."""

_WALL, _UNSEEN = -2, -1


def distances(free: Tensor, goal: Tensor, mechanism: Mechanism) -> Tensor:
    """Steps to the goal, int32 `[N, O, H, W]`; -1 in walls and where the goal cannot be reached.

    `free[N, H, W]` is True where a cell is open; `goal[N, 3]` holds orientation, row and column.
    """
    count, height, width = free.shape
    out = torch.empty(count, mechanism.orientations, height, width, dtype=torch.int32)
    chunk = max(1, BLOCK // (mechanism.orientations * (height + 2) * (width + 2)))
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        out[part] = torch.from_numpy(_search(free[part].numpy(), goal[part].numpy(), mechanism))
    return out


def _search(free: np.ndarray, goal: np.ndarray, mechanism: Mechanism) -> np.ndarray:
    """Breadth-first search of all mazes at once, from the goals backwards; int32 `[N, O, H, W]`.

    A step touches the states that it reaches and no whole map: paths of thousands of steps are common.
    """
    count, height, width = free.shape
    orientations = mechanism.orientations
    steps = np.full((count, orientations, height + 2, width + 2), _WALL, np.int32)  # walls around: no bounds to test
    steps[:, :, 1:-1, 1:-1] = np.where(free[:, None], _UNSEEN, _WALL)
    flat = steps.reshape(-1)
    cells = (height + 2) * (width + 2)
    backwards = _backwards(mechanism, cells, width + 2)
    claims = np.empty(flat.shape, np.int32)
    frontier = (np.arange(count) * orientations + goal[:, 0]) * cells + (goal[:, 1] + 1) * (width + 2) + goal[:, 2] + 1
    flat[frontier] = 0
    step = 0
    while len(frontier):
        step += 1
        orientation = frontier // cells % orientations if orientations > 1 else 0
        before = (frontier + backwards[:, orientation].reshape(len(backwards), -1)).reshape(-1)
        before = before[flat[before] == _UNSEEN]
        # A state reached over several moves goes on once: the last one to write its number there.
        numbers = np.arange(len(before), dtype=np.int32)
        claims[before] = numbers
        frontier = before[claims[before] == numbers]
        flat[frontier] = step
    return np.maximum(steps[:, :, 1:-1, 1:-1], _UNSEEN)


def _backwards(mechanism: Mechanism, cells: int, width: int) -> np.ndarray:
    """Flat offsets `[K, O]` from a state to the states before it; 0, the state itself, where there are fewer than K."""
    before: list[list[int]] = [[] for _ in range(mechanism.orientations)]
    for orientation, moves in enumerate(mechanism.moves):
        for turned, down, right in moves:
            before[turned].append((orientation - turned) * cells - down * width - right)
    longest = max(map(len, before))
    return np.array([offsets + [0] * (longest - len(offsets)) for offsets in before]).T


def optimal_actions(steps: Tensor, mechanism: Mechanism) -> Tensor:
    """Every action that begins a shortest path, bool `[N, A, O, H, W]`, from `steps` as `distances` gives them.

    All False at the goal, in walls and where the goal cannot be reached.
    """
    count, orientations, height, width = steps.shape
    around = torch.nn.functional.pad(steps, (1, 1, 1, 1), value=_UNSEEN)
    # Never the number of a wall: that is -1, and these are at least 0 where there is a path.
    nearer = torch.where(steps > 0, steps - 1, _WALL)
    out = torch.empty(count, mechanism.actions, orientations, height, width, dtype=torch.bool)
    for orientation, moves in enumerate(mechanism.moves):
        for action, (turned, down, right) in enumerate(moves):
            ahead = around[:, turned, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
            torch.eq(ahead, nearer[:, orientation], out=out[:, action, orientation])
    return out


def successors(free: Tensor, mechanism: Mechanism) -> Tensor:
    """The flat state after every action, int64 `[N, A, S]`; a move into a wall or out of the map stays.

    Walls have successors too, which nobody can reach: into their open neighbours, as in the published labels.
    """
    count, height, width = free.shape
    around = torch.nn.functional.pad(free, (1, 1, 1, 1))
    states = torch.arange(mechanism.orientations * height * width).reshape(-1, height, width)
    out = torch.empty(count, mechanism.actions, *states.shape, dtype=torch.int64)
    for orientation, moves in enumerate(mechanism.moves):
        for action, (turned, down, right) in enumerate(moves):
            here, moved = states[orientation], states[turned] + down * width + right
            if down or right:
                ahead = around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
                out[:, action, orientation] = torch.where(ahead, moved, here)
            else:
                out[:, action, orientation] = moved
    return out.flatten(2)
