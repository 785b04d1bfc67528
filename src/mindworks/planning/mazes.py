"""Mazes with their shortest paths, the published way to make them, and the published arrays.

The family is that of Lee, Parisotto, Chaplot, Xing and Salakhutdinov, "Gated Path Planning Networks", ICML 2018,
arXiv:1806.06408. Shape legend: N mazes, O orientations, A actions, H, W a map's height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindworks.errors import InputError, require
from mindworks.planning.mechanisms import Mechanism, find_mechanism
from mindworks.planning.shortest_paths import distances, optimal_actions, successors

LABELS = ("all", "single")
_KEPT = ("distances", "optimal")  # what a part of a set takes along once it is computed


@dataclass(frozen=True, eq=False)
class Mazes:
    """Maps with a goal each; `from_arrays` checks what it is given, the constructor does not.

    `mazes[2:5]`, `mazes[indices]` and `mazes[mask]` are sets again, and `mazes[3]` is a set of one.
    """

    free: Tensor
    """bool `[N, H, W]`: True where a cell is open"""
    goal: Tensor
    """int64 `[N, 3]`: orientation, row, column"""
    mechanism: Mechanism
    """how the agent moves"""

    @classmethod
    def from_arrays(cls, free: Any, goal: Any, mechanism: str | Mechanism) -> Mazes:
        """Your own maps: `free[N, H, W]` of booleans or of zeros and ones, `goal[N, 3]` of whole numbers.

        Maps need no walls around them and need not be square. Raises `InputError` for another shape or type, an unknown
        mechanism, a goal outside its map, and a goal on a wall; the last two name the first such maze.
        """
        mechanism = find_mechanism(mechanism)
        free, goal = _open_cells(free, "free"), torch.as_tensor(goal).cpu()
        whole = not (goal.is_floating_point() or goal.is_complex() or goal.dtype == torch.bool)
        require(
            whole and goal.shape == (len(free), 3),
            f"goal must be whole numbers [{len(free)}, 3] (orientation, row, column), got {_described(goal)}",
        )
        goal = goal.to(torch.int64)
        limits = torch.tensor([mechanism.orientations, *free.shape[1:]])
        outside = ((goal < 0) | (goal >= limits)).any(1)
        if outside.any():
            first = int(outside.nonzero()[0])
            raise InputError(f"goal of maze {first} must be in {tuple(limits.tolist())}, got {goal[first].tolist()}")
        walled = ~free[torch.arange(len(free)), goal[:, 1], goal[:, 2]]
        if walled.any():
            first = int(walled.nonzero()[0])
            raise InputError(f"goal of maze {first} must be an open cell, got the wall {goal[first, 1:].tolist()}")
        return cls(free, goal, mechanism)

    @classmethod
    def from_goal_maps(cls, mazes: Any, goal_maps: Any, mechanism: str | Mechanism) -> Mazes:
        """Mazes of the published arrays: `mazes[N, H, W]`, 1 open and 0 wall, and `goal_maps[N, O, H, W]`, one 1 each.

        The published policies are not needed: every optimal action is computed here. Raises `InputError` as
        `from_arrays` does, and for a maze without exactly one goal.
        """
        mechanism = find_mechanism(mechanism)
        free, goal_maps = _open_cells(mazes, "mazes"), torch.as_tensor(goal_maps).cpu()
        shape = (len(free), mechanism.orientations, *free.shape[1:])
        require(
            goal_maps.shape == shape,
            f"goal_maps must be {list(shape)} for {mechanism.name}, got {_described(goal_maps)}",
        )
        goals = goal_maps.flatten(1)
        single = ((goals != 0).sum(1) == 1) & ((goals == 1).sum(1) == 1)
        if not single.all():
            raise InputError(f"goal_maps must hold one 1 per maze, got another for maze {int((~single).nonzero()[0])}")
        places = (goals != 0).int().argmax(1)
        _, height, width = free.shape
        goal = torch.stack([places // (height * width), places // width % height, places % width], 1)
        return cls.from_arrays(free, goal, mechanism)

    @staticmethod
    def concatenate(parts: Sequence[Mazes]) -> Mazes:
        """All mazes of `parts` as one set; smaller maps get walls at the bottom and on the right.

        Raises `InputError` for no parts and for parts of several mechanisms.
        """
        require(len(parts) > 0, "parts must be at least one set of mazes, got none")
        names = sorted({part.mechanism.name for part in parts})
        require(len(names) == 1, f"parts must share a mechanism, got {', '.join(names)}")
        sizes = [part.free.shape[1:] for part in parts]
        height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)

        def padded(values: Tensor, wall: int) -> Tensor:
            below, right = height - values.shape[-2], width - values.shape[-1]
            return torch.nn.functional.pad(values, (0, right, 0, below), value=wall)

        free = torch.cat([padded(part.free, 0) for part in parts])
        whole = Mazes(free, torch.cat([part.goal for part in parts]), parts[0].mechanism)
        for name, wall in zip(_KEPT, (-1, 0), strict=True):
            if all(name in vars(part) for part in parts):
                vars(whole)[name] = torch.cat([padded(getattr(part, name), wall) for part in parts])
        return whole

    def __len__(self) -> int:
        return len(self.free)

    def __getitem__(self, index: Any) -> Mazes:
        if isinstance(index, (int, np.integer)):
            position = int(index) + len(self) * (index < 0)
            if not 0 <= position < len(self):
                raise IndexError(f"maze {index} of a set of {len(self)}")
            index = slice(position, position + 1)
        elif not isinstance(index, slice):
            index = torch.as_tensor(index)
        part = Mazes(self.free[index], self.goal[index], self.mechanism)
        vars(part).update({name: vars(self)[name][index] for name in _KEPT if name in vars(self)})
        return part

    @cached_property
    def distances(self) -> Tensor:
        """Steps to the goal, int32 `[N, O, H, W]`; -1 in walls and where the goal cannot be reached."""
        return distances(self.free, self.goal, self.mechanism)

    @cached_property
    def optimal(self) -> Tensor:
        """Every action that begins a shortest path, bool `[N, A, O, H, W]`; none at the goal and without a path."""
        return optimal_actions(self.distances, self.mechanism)

    def goal_maps(self) -> Tensor:
        """float32 `[N, O, H, W]`: 1 at the goal."""
        maps = torch.zeros(len(self), self.mechanism.orientations, *self.free.shape[1:])
        maps[(torch.arange(len(self)), *self.goal.T)] = 1
        return maps

    def inputs(self) -> Tensor:
        """What a planner sees, float32 `[N, 1 + O, H, W]`: the map, 1 open and 0 wall, and the goal per orientation."""
        return torch.cat([self.free[:, None].float(), self.goal_maps()], 1)

    def target(self, labels: str = "all", generator: torch.Generator | None = None) -> Tensor:
        """What a planner learns, float32 `[N, A, O, H, W]`: a distribution over the actions of every state.

        Uniform over all optimal actions, or with `labels="single"` one of them drawn with `generator`, as the published
        labels are. Zeros where nothing is to be learnt: at the goal, in walls, and where there is no path. Raises
        `InputError` for other labels, and for single ones without a generator.
        """
        return _label(self.optimal, labels, generator)

    def to_arrays(
        self, labels: str = "single", generator: torch.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The published arrays, float32: mazes `[N, H, W]`, goal maps `[N, O, H, W]`, policies `[N, A, O, H, W]`.

        The policies have an action in every state, as the published ones: at the goal, in walls and where there is no
        path it is one that leads to the best neighbour, the state itself included, which means nothing. Elsewhere they
        are `target(labels, generator)`.
        """
        states = self.distances.flatten(1)
        worst = states.shape[1]
        values = torch.where(states < 0, worst, states)[:, None].expand(-1, self.mechanism.actions, -1)
        after = values.gather(2, successors(self.free, self.mechanism))
        best = (after == after.amin(1, keepdim=True)).unflatten(2, self.distances.shape[1:])
        policies = _label(best, labels, generator)
        return self.free.float().numpy(), self.goal_maps().numpy(), policies.numpy()


def _described(array: Tensor) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} {list(array.shape)}"


def _open_cells(values: Any, name: str) -> Tensor:
    cells = torch.as_tensor(values).cpu()
    require(
        cells.ndim == 3 and min(cells.shape[1:]) > 0 and not cells.is_complex(),
        f"{name} must be [N, H, W] with True or 1 where a cell is open, got {_described(cells)}",
    )
    strange = (cells != 0) & (cells != 1)
    require(not bool(strange.any()), f"{name} must hold zeros and ones, got {cells[strange][:1].tolist()}")
    return cells == 1


def _label(choices: Tensor, labels: str, generator: torch.Generator | None) -> Tensor:
    """A distribution over the True of `choices[N, A, ...]` along A: uniform, or on one of them drawn uniformly."""
    require(labels in LABELS, f"labels must be one of {', '.join(LABELS)}, got {labels!r}")
    if labels == "all":
        return choices / choices.sum(1, keepdim=True).clamp(min=1)
    if generator is None:
        raise InputError("generator must be given for labels='single', got None")
    draws = torch.where(choices, torch.rand(choices.shape, generator=generator), -1.0)
    one = torch.zeros_like(draws).scatter_(1, draws.argmax(1, keepdim=True), 1.0)
    return one * choices


# -- making mazes ------------------------------------------------------------------------------------------------------

_STEPS = ((-1, 0), (0, 1), (0, -1), (1, 0))
_ORDERS = tuple(permutations(range(4)))
_BACK = 4
# _FIRST[order, visited neighbours as bits]: the first direction of that order to a cell not visited, or _BACK.
_FIRST = np.array(
    [[next((d for d in order if not mask >> d & 1), _BACK) for mask in range(16)] for order in _ORDERS], np.uint8
)
_NUMBERS = 1 << 21  # random numbers held at once


def generate(
    count: int,
    size: int | tuple[int, int],
    *,
    mechanism: str | Mechanism = "news",
    decimation: tuple[float, float] = (0.0, 1.0),
    seed: int | np.random.Generator,
    avoid: Mazes | None = None,
) -> Mazes:
    """`count` mazes of `size` (or height, width), made as the published ones.

    Depth-first search carves the cells at odd rows and columns from (1, 1) on, in random order: a tree with one path
    between any two cells. Then every wall inside is opened with a probability that is drawn for each maze uniformly
    from the range `decimation`. The goal is uniform over the cells inside but (1, 1), where published agents start; its
    cell is opened, so that it may lie where no path leads. Its orientation is uniform.

    Even sizes have paths along the last row and column, which decimation and goals leave out. With `avoid`, no maze has
    the walls of one of those, nor of another one here. The same seed gives the same mazes, also the first ones of a
    larger `count`, and the same walls for every mechanism. Raises `InputError` for what cannot be made.
    """
    mechanism = find_mechanism(mechanism)
    height, width = _size(size)
    _check_family(count, height, width, decimation)
    generator = np.random.default_rng(seed)
    if avoid is not None:
        return _different(count, (height, width), mechanism, decimation, generator, avoid)
    return _some(count, (height, width), mechanism, decimation, generator)


def splits(
    size: int | tuple[int, int],
    counts: tuple[int, int, int] = (25000, 5000, 5000),
    *,
    mechanism: str | Mechanism = "news",
    decimation: tuple[float, float] = (0.0, 1.0),
    seed: int | np.random.Generator,
) -> tuple[Mazes, Mazes, Mazes]:
    """Mazes to train, to validate and to test, of `generate`'s family; no two of them have the same walls.

    Raises `InputError` if the family has too few different mazes.
    """
    mechanism = find_mechanism(mechanism)
    height, width = _size(size)
    require(len(counts) == 3, f"counts must be three (train, validation, test), got {counts!r}")
    for count in counts:
        _check_family(count, height, width, decimation)
    mazes = _different(sum(counts), (height, width), mechanism, decimation, np.random.default_rng(seed), None)
    first, second = counts[0], counts[0] + counts[1]
    return mazes[:first], mazes[first:second], mazes[second:]


def _size(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, (int, np.integer)) else size
    return int(height), int(width)


def _check_family(count: int, height: int, width: int, decimation: tuple[float, float]) -> None:
    require(count >= 0, f"count must be at least 0, got {count}")
    require(
        min(height, width) >= 3 and max(height, width) > 3,
        f"size must be at least 3 by 4 to have a start and a goal inside, got {height} by {width}",
    )
    low, high = decimation
    require(0 <= low <= high <= 1, f"decimation must be a range in [0, 1], got {decimation}")


def _different(
    count: int,
    size: tuple[int, int],
    mechanism: Mechanism,
    decimation: tuple[float, float],
    generator: np.random.Generator,
    avoid: Mazes | None,
) -> Mazes:
    """The first `count` mazes whose walls are not those of an earlier one or of one to avoid."""
    seen = set(_walls(avoid.free)) if avoid is not None and avoid.free.shape[1:] == size else set()
    parts, found, drawn = [_some(0, size, mechanism, decimation, generator)], 0, 0
    limit = 50 * count + 1000
    while found < count:
        require(
            drawn < limit,
            f"count must be at most the number of different mazes of the family, got {count}: "
            f"{drawn} draws of size {size[0]} by {size[1]} gave {found}",
        )
        # A few more than are missing, so that the last of a small family do not come one by one.
        more = _some(max(count - found, min(drawn // 8, 1000)), size, mechanism, decimation, generator)
        drawn += len(more)
        new = []
        for index, walls in enumerate(_walls(more.free)):
            if walls not in seen:
                seen.add(walls)
                new.append(index)
        parts.append(more[np.array(new, np.int64)])
        found += len(new)
    return Mazes.concatenate(parts)[:count]


def _walls(free: Tensor) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(free.flatten(1).numpy(), axis=1)]


def _some(
    count: int,
    size: tuple[int, int],
    mechanism: Mechanism,
    decimation: tuple[float, float],
    generator: np.random.Generator,
) -> Mazes:
    height, width = size
    inside, cells = (height - 2) * (width - 2), (height // 2) * (width // 2)
    # Every maze takes one row of numbers, so that it does not depend on how many are made at once.
    row = 3 + inside + cells
    chunk = max(1, _NUMBERS // row)
    free = np.zeros((count, height, width), bool)
    goal = np.empty((count, 3), np.int64)
    for start in range(0, count, chunk):
        part = slice(start, min(start + chunk, count))
        numbers = generator.random((part.stop - part.start, row))
        _carve(free[part], numbers[:, 3 + inside :])
        share = decimation[0] + (decimation[1] - decimation[0]) * numbers[:, 0]
        opened = numbers[:, 3 : 3 + inside] < share[:, None]
        free[part, 1:-1, 1:-1] |= opened.reshape(-1, height - 2, width - 2)
        place = 1 + (numbers[:, 1] * (inside - 1)).astype(np.int64)  # place 0 is (1, 1)
        goal[part, 0] = numbers[:, 2] * mechanism.orientations
        goal[part, 1], goal[part, 2] = 1 + place // (width - 2), 1 + place % (width - 2)
    free[np.arange(count), goal[:, 1], goal[:, 2]] = True
    return Mazes(torch.from_numpy(free), torch.from_numpy(goal), mechanism)


def _carve(free: np.ndarray, numbers: np.ndarray) -> None:
    """Open a random depth-first tree in every maze of `free[N, H, W]`, one step of every search per iteration.

    `numbers[N, cells]` in [0, 1) pick the order in which each cell tries its neighbours. The published code pushes all
    neighbours of a cell on a stack in such an order and skips those visited by the time they are popped; to step to the
    first neighbour not visited, and back to the parent when there is none, makes the same trees equally often.
    """
    count, height, width = free.shape
    rows, columns = height // 2, width // 2
    free[:, 1::2, 1::2] = True
    visited = np.ones((count, rows + 2, columns + 2), np.uint8)  # around the cells, so that no search leaves them
    visited[:, 1:-1, 1:-1] = 0
    order = np.zeros((count, rows + 2, columns + 2), np.uint8)
    order[:, 1:-1, 1:-1] = (numbers * len(_ORDERS)).reshape(count, rows, columns)
    here = np.arange(count) * ((rows + 2) * (columns + 2)) + columns + 3
    came = np.full(visited.shape, _BACK, np.uint8).reshape(-1)  # the direction of the step that found a cell
    visited, order = visited.reshape(-1), order.reshape(-1)
    visited[here] = 1
    offsets = np.array([down * (columns + 2) + right for down, right in _STEPS])
    jumps, around = np.append(offsets, 0), offsets[:, None]
    left = count * (rows * columns - 1)
    while left:
        mask = np.packbits(visited[here + around], axis=0, bitorder="little")[0]
        direction = _FIRST[order[here], mask]
        back = direction == _BACK
        forward = ~back
        # A search that is done stands at its root, where the step back is 0.
        here += np.where(back, -jumps[came[here]], jumps[direction])
        found = here[forward]
        visited[found] = 1
        came[found] = direction[forward]
        left -= len(found)
    grid = came.reshape(count, rows + 2, columns + 2)[:, 1:-1, 1:-1]
    for direction, (down, right) in enumerate(_STEPS):
        maze, row, column = np.nonzero(grid == direction)
        free[maze, 2 * row + 1 - down, 2 * column + 1 - right] = True
