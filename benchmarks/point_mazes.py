"""A ball led through mazes by the plans of trained planners: PointMaze's physics, maps of our own, one controller.

A DT-VIN and a VIN with the same priors learn on the same 15 x 15 mazes. Then each plans on maps that it has not seen,
with random walls of 15 x 15 and without loops of 35 x 35, and the controller of `mindworks.envs.point_maze` follows the
plan, from the cell farthest from the goal and from another one drawn at random; start and goal are moved inside their
cells by up to 0.25 m, as in the published environment. The exact policy, any shortest path, shows what the controller
alone makes of it. The same start, map and noise for all three. Needs the extra `robotics`.
Run: `python benchmarks/point_mazes.py`.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np

import _bench  # before torch: it asks for one thread

import torch  # isort: skip

from mindworks.envs.point_maze import NOISE, Ride, follow, point_maze
from mindworks.planning import DTVIN, VIN, Mazes, Planner, Training, TrainingConfig, generate, informed_vin

SEEDS = (0, 1, 2)
SIZE, DEPTH, TRAINED_ON = 15, 60, 5000
# name: mazes, size, decimation, layers of the planner
SETS = {"15 x 15": (20, SIZE, (0.0, 1.0), 2 * DEPTH), "35 x 35, no loops": (3, 35, (0.0, 0.0), 1500)}
CONFIGS = {
    "DT-VIN": TrainingConfig(iterations=1000, sharpness=16.0),
    "VIN": TrainingConfig(iterations=1000, lr=1e-2, loss="last"),
}
COLUMNS = [
    "planner", "mazes", "seed", "episodes", "success, %", "steps per cell", "CPU s per episode", "CPU s per plan",
]  # fmt: skip


def trained(name: str, mazes: Mazes, seed: int) -> Planner:
    """The planner `name` after its steps on these mazes."""
    start = torch.Generator().manual_seed(seed)
    if name == "DT-VIN":
        planner: Planner = DTVIN("news", DEPTH, generator=start)
    else:
        planner = VIN("news", DEPTH, informed_vin(), generator=start)
    training = Training(planner, mazes, CONFIGS[name], seed=seed)
    while not training.done:
        training.advance()
    return training.finish()


def starts(mazes: Mazes, seed: int) -> list[list[tuple[int, int]]]:
    """Two starts of each maze: the cell farthest from the goal, and any other from which it can be reached."""
    rng, found = np.random.default_rng(seed), []
    for steps in mazes.distances[:, 0].numpy():
        far = np.unravel_index(steps.argmax(), steps.shape)
        others = np.argwhere((steps > 0) & (steps < steps.max()))
        found.append([(int(row), int(column)) for row, column in (far, others[rng.integers(len(others))])])
    return found


def episodes(planner: Planner | None, mazes: Mazes, depth: int, seed: int) -> list[Any]:
    """Success in %, steps per cell of the shortest path where the goal is reached, and CPU seconds, over all rides."""
    rides: list[tuple[Ride, int]] = []
    planning, began = 0.0, time.process_time()
    for index, places in enumerate(starts(mazes, seed)):
        maze = mazes[index]
        before = time.process_time()
        plan = maze.optimal.int().argmax(1) if planner is None else planner.act(maze.inputs(), depth=depth)
        planning += time.process_time() - before
        env = point_maze(maze.free[0], places[0], maze.goal[0, 1:].tolist(), noise=NOISE)
        for place in places:
            ride = follow(env, plan[0], start=place, seed=seed + index)
            rides.append((ride, int(maze.distances[0, 0][place])))
        env.close()
    seconds = (time.process_time() - began) / len(rides)
    success = 100 * sum(ride.success for ride, _ in rides) / len(rides)
    paces = [ride.steps / cells for ride, cells in rides if ride.success]
    pace = f"{sum(paces) / len(paces):.1f}" if paces else "–"
    return [len(rides), f"{success:.1f}", pace, f"{seconds:.3f}", f"{planning / len(mazes):.4f}"]


def rows(seed: int) -> list[list[Any]]:
    """All rows of one seed."""
    learnt = generate(TRAINED_ON, SIZE, seed=seed)
    planners: dict[str, Planner | None] = {"shortest paths": None}
    for name in CONFIGS:
        began = time.process_time()
        planners[name] = trained(name, learnt, seed)
        print(f"{name}, seed {seed}: trained in {time.process_time() - began:.0f} CPU s", flush=True)
    found = []
    for mazes, (count, size, decimation, depth) in SETS.items():
        unseen = generate(count, size, decimation=decimation, seed=100 + seed, avoid=learnt)
        _ = unseen.optimal  # computed once, before the clock runs
        for name, planner in planners.items():
            found.append([name, mazes, seed, *episodes(planner, unseen, depth, seed)])
            print(found[-1], flush=True)
    return found


def main() -> int:
    torch.set_num_threads(1)
    cells = sorted((row for seed in SEEDS for row in rows(seed)), key=lambda row: (row[1], row[0], row[2]))
    where = {**_bench.environment(), "gymnasium-robotics": version("gymnasium-robotics")}
    record = {"benchmark": "point_mazes", "columns": COLUMNS, "cells": cells, "environment": where}
    _bench.RESULTS.mkdir(parents=True, exist_ok=True)
    (_bench.RESULTS / "point_mazes.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
