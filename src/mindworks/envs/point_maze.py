"""A ball in a maze of your own, and a controller that takes it along a plan made on the grid.

The physics are those of Gymnasium-Robotics' PointMaze, the point maze of Fu, Kumar, Nachum, Tucker and Levine, "D4RL:
Datasets for Deep Data-Driven Reinforcement Learning", arXiv:2004.07219: a ball of radius 0.1 m and 4.2 kg, pushed by
up to 100 N along x and along y, its velocity along each cut at 5 m/s, between frictionless walls of 1 m by 1 m. A step
is 0.01 s.

CPU us per environment step, one thread, 2026-11-27: 48 in 15 by 15 cells, 63 in 35 by 35, 183 in 101 by 101, which take
0.07, 0.10 and 0.61 s to build.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from mindworks.errors import import_extra, require

Array = NDArray[Any]
Cell = tuple[int, int]

MOVES: tuple[Cell, ...] = ((-1, 0), (0, 1), (0, -1), (1, 0), (-1, 1), (-1, -1), (1, 1), (1, -1))
"""Rows down and columns right of every action: north, east, west, south, and the diagonals of Moore's."""
NOISE = 0.25  # the published one; from 0.28 on, a goal of radius 0.45 m is reached across the corner of two walls
STEPS_PER_CELL = 50  # the default limit is that for every open cell; following a shortest path takes some 25
_RING = 1  # cells of wall laid around every map: the ball cannot leave it, and coordinates stay centred


class PointMaze(gymnasium.Wrapper[Any, Any, Any, Any]):
    """PointMaze on the map `free[H, W]` from `start` to `goal`: `point_maze` makes one and checks what it is given.

    Actions `[2]` are forces along x (east) and y (north) in [-1, 1]; observations are dictionaries of `observation`
    (x, y and their velocities), `achieved_goal` and `desired_goal`, in metres from the middle of the map. The reward is
    1 within 0.45 m of the goal and 0 elsewhere. The episode terminates there and is truncated after `max_steps`.
    """

    def __init__(
        self, free: Array, start: Cell, goal: Cell, *, noise: float, max_steps: int, render_mode: str | None
    ) -> None:
        import_extra("gymnasium_robotics", "robotics")
        module: Any = import_module("gymnasium_robotics.envs.maze.point_maze")
        walls = np.pad(~free, _RING, constant_values=True).astype(int)
        inner = module.PointMazeEnv(
            maze_map=walls.tolist(),
            continuing_task=False,
            render_mode=render_mode,
            max_geom=int(walls.sum()) + 1000,  # all that is drawn; MuJoCo's default of 1000 is a map of 40 by 40
        )
        os.unlink(inner.tmp_xml_file_path)  # the description, read by now, which would stay in the system's folder
        inner.position_noise_range = noise  # its constructor takes no such argument: it hands it on to one that fails
        super().__init__(inner)
        self.free, self.start, self.goal, self.max_steps = free, start, goal, max_steps
        self._elapsed = 0

    def position(self, cell: Sequence[int]) -> Array:
        """The centre (x, y) of `cell` (row, column), in metres."""
        return self._maze.cell_rowcol_to_xy(np.asarray(cell) + _RING)

    def cell(self, position: Sequence[float] | Array) -> Cell:
        """The cell (row, column) that `position` (x, y) lies in; outside of the map it goes on counting."""
        row, column = self._maze.cell_xy_to_rowcol(position) - _RING
        return int(row), int(column)

    @property
    def _maze(self) -> Any:
        return self.get_wrapper_attr("maze")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Put the ball at the start; `options` may hold another `start` and `goal` (row, column) for this episode.

        Raises `InputError` for another option, and for a start or goal in a wall or outside the map.
        """
        given = {"start": self.start, "goal": self.goal} | (options or {})
        strange = sorted(set(given) - {"start", "goal"})
        require(not strange, f"options must be start and goal, got {', '.join(map(repr, strange))}")
        start, goal = (_open_cell(self.free, given[name], name) for name in ("start", "goal"))
        self._elapsed = 0
        inner = {"reset_cell": np.array(start) + _RING, "goal_cell": np.array(goal) + _RING}
        return self.env.reset(seed=seed, options=inner)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Push with `action` for 0.01 s."""
        observation, reward, terminated, _, info = self.env.step(action)
        self._elapsed += 1
        return observation, float(reward), terminated, self._elapsed >= self.max_steps, info


def point_maze(
    free: Any,
    start: Sequence[int],
    goal: Sequence[int],
    *,
    noise: float = 0.0,
    max_steps: int | None = None,
    render_mode: str | None = None,
) -> PointMaze:
    """A point maze on your own map `free[H, W]`, True or 1 where a cell is open; a cell is 1 m by 1 m.

    `start` and `goal` are cells (row, column); `noise` moves both of them at every reset, uniformly by up to that many
    metres along x and y (the published environment has 0.25). An episode is truncated after `max_steps`, by default
    50 for every open cell. `reset(options={"start": ..., "goal": ...})` begins an episode elsewhere on the same map
    without building it again. Needs the extra `robotics`. Raises `InputError` for a map that is not of two dimensions
    or not of zeros and ones, for a start or goal in a wall or outside the map, and for a number out of range.
    """
    cells = np.asarray(free)
    require(
        cells.ndim == 2 and cells.size > 0 and cells.dtype.kind in "biuf",
        f"free must be a map [H, W] of zeros and ones, got {cells.dtype} {list(cells.shape)}",
    )
    strange = cells[(cells != 0) & (cells != 1)]
    require(strange.size == 0, f"free must hold zeros and ones, got {strange[:1].tolist()}")
    cells = cells == 1
    require(0 <= noise <= NOISE, f"noise must be in [0, {NOISE}] metres, got {noise}")
    limit = STEPS_PER_CELL * int(cells.sum()) if max_steps is None else max_steps
    here, there = _open_cell(cells, start, "start"), _open_cell(cells, goal, "goal")
    require(limit >= 1, f"max_steps must be at least 1, got {limit}")
    return PointMaze(cells, here, there, noise=noise, max_steps=limit, render_mode=render_mode)


def _open_cell(free: Array, cell: Any, name: str) -> Cell:
    place = np.asarray(cell)
    require(
        place.shape == (2,) and place.dtype.kind in "iu",
        f"{name} must be a cell (row, column), got {cell!r}",
    )
    row, column = place.tolist()
    inside = 0 <= row < free.shape[0] and 0 <= column < free.shape[1]
    require(inside, f"{name} must lie inside {free.shape} (rows, columns), got {(row, column)}")
    require(bool(free[row, column]), f"{name} must be an open cell, got the wall {(row, column)}")
    return row, column


# -- following a plan --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ride:
    """One episode of `follow`: whether the goal was reached, after how many steps, and along which way."""

    success: bool
    steps: int
    path: Array
    """`[steps + 1, 2]`: x and y of the ball in metres"""
    cells: Array
    """`[K, 2]`: row and column of the cells that it was in, one after the other"""

    @property
    def length(self) -> float:
        """The length of the path in cells, which are 1 m wide."""
        return float(np.linalg.norm(np.diff(self.path, axis=0), axis=1).sum())


@dataclass(frozen=True)
class Controller:
    """Force in [-1, 1] towards a waypoint: `stiffness` per metre away from it, less `damping` per metre a second.

    A waypoint counts as reached within `reach` metres. Stiffer or less damped is faster, and cuts corners.
    """

    stiffness: float = 3.0
    damping: float = 0.5
    reach: float = 0.3

    def force(self, observation: Array, waypoint: Array) -> Array:
        """Proportional and derivative control, `[2]`, from x, y and their velocities `[4]`."""
        force = self.stiffness * (waypoint - observation[:2]) - self.damping * observation[2:]
        return np.clip(force, -1.0, 1.0)


def follow(
    env: PointMaze,
    actions: Any,
    *,
    start: Sequence[int] | None = None,
    goal: Sequence[int] | None = None,
    seed: int | None = None,
    controller: Controller = Controller(),
) -> Ride:
    """Play an episode along a plan: `actions[H, W]`, or `[1, H, W]` as planners give it, numbers of `MOVES`.

    The waypoint is the centre of the cell that the action leads to; once there, the action of that cell counts, and if
    the ball gets elsewhere, that of the cell it is in. In the goal's cell the waypoint is the goal. A diagonal slides
    past a wall on one side; between two walls the ball does not get through, although the grid's moves do. An action
    into a wall pushes against it. The ride ends at the goal or after the environment's `max_steps`.

    `start` and `goal` are those of the environment unless given. Raises `InputError` for actions of another shape or
    type, and as `PointMaze.reset` does.
    """
    plan = _plan(actions, env.free.shape)
    options = {name: cell for name, cell in (("start", start), ("goal", goal)) if cell is not None}
    observed, info = env.reset(seed=seed, options=options)
    state, target = observed["observation"], observed["desired_goal"]
    here, last = env.cell(state[:2]), env.cell(target)
    aim, corridor = _aim(plan, here)
    path, cells, steps = [state[:2].copy()], [here], 0
    success, ended = bool(info["success"]), False
    while not (success or ended):
        waypoint = target if here == last else env.position(aim)
        observed, _, success, ended, _ = env.step(controller.force(state, waypoint))
        state, steps = observed["observation"], steps + 1
        here = env.cell(state[:2])
        path.append(state[:2].copy())
        if here != cells[-1]:
            cells.append(here)
        arrived = here == aim and np.abs(state[:2] - waypoint).max() <= controller.reach
        if arrived or here not in corridor:
            aim, corridor = _aim(plan, here)
    return Ride(success, steps, np.array(path), np.array(cells))


def _aim(plan: list[list[int]], here: Cell) -> tuple[Cell, set[Cell]]:
    """The cell that the action of the cell `here` leads to, and the cells that the ball may cross on its way there."""
    (row, column), (down, right) = here, MOVES[plan[here[0]][here[1]]]
    aim = row + down, column + right
    return aim, {here, aim, (row + down, column), (row, column + right)}


def _plan(actions: Any, shape: tuple[int, ...]) -> list[list[int]]:
    plan = np.asarray(actions)
    plan = plan[0] if plan.ndim == 3 and len(plan) == 1 else plan
    require(
        plan.shape == shape and plan.dtype.kind in "iu",
        f"actions must be whole numbers {list(shape)}, got {plan.dtype} {list(plan.shape)}",
    )
    low, high = int(plan.min()), int(plan.max())
    last = len(MOVES) - 1
    require(low >= 0 and high <= last, f"actions must be in [0, {last}], got {low if low < 0 else high}")
    return plan.tolist()
