"""Planners that start at random, trained for long on many mazes, on a GPU: what data and steps alone buy.

Every job is a process of its own; all run side by side on one GPU for the same time. A job first measures how fast it
goes in that company, and takes as many steps as fit: about equal times, at a step size of 0.01, with all best actions
as labels. Mazes and protocol are those of the study, with 25,000 training
mazes. It needs a CUDA GPU and triton. MINDWORKS_RESULTS names another folder for the
record. Run: `python benchmarks/long_on_gpu.py`, or with `--seconds N` for another time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import _bench  # before torch: it asks for one thread

import torch  # isort: skip

from mindworks.planning import (
    DTVIN,
    VIN,
    HighwayVIN,
    Planner,
    Training,
    TrainingConfig,
    paper_dt_vin,
    score,
    splits,
)

COUNTS = (25_000, 500, 1000)
EDGES = (20, 40, 60, 100)
ADAPTIVE, LAST = {"loss": "adaptive"}, {"loss": "last"}
# name: planner, size of the mazes, depth, loss, seed
JOBS: list[tuple[str, int, int, dict[str, Any], int]] = [
    *(("DT-VIN, no priors", 15, 60, ADAPTIVE, seed) for seed in (0, 1, 2)),
    *(("DT-VIN, no priors", 25, 200, ADAPTIVE, seed) for seed in (0, 1)),
    ("DT-VIN, no priors", 35, 300, ADAPTIVE, 0),
    *(("VIN", 15, depth, LAST, 0) for depth in (100, 200)),
    *(("highway VIN", 15, depth, LAST, 0) for depth in (100, 200)),
]


def planner_of(name: str, depth: int, seed: int) -> Planner:
    """A planner that knows nothing."""
    start = torch.Generator().manual_seed(seed)
    if name.startswith("DT-VIN"):
        return DTVIN("news", depth, paper_dt_vin(), generator=start)
    return (VIN if name == "VIN" else HighwayVIN)("news", depth, generator=start)


def work(job: tuple[str, int, int, dict[str, Any], int], device: str, seconds: float, found: Any) -> None:
    """Train one planner for about `seconds` and put its row into `found`."""
    name, size, depth, loss, seed = job
    torch.set_num_threads(1)
    mazes, validation, tests = splits(size, COUNTS, seed=seed)
    warm = Training(planner_of(name, depth, seed).to(device), mazes, TrainingConfig(iterations=10**6, **loss))
    for _ in range(10):
        warm.advance()
    began = time.monotonic()
    for _ in range(100):
        warm.advance()
    iterations = int(100 / (time.monotonic() - began) * seconds)
    config = TrainingConfig(iterations=iterations, validate_every=max(1, iterations // 20), **loss)
    training = Training(planner_of(name, depth, seed).to(device), mazes, config, validation=validation, seed=seed)
    stop = time.monotonic() + 1.2 * seconds
    while not training.done and time.monotonic() < stop:
        training.advance()
    result = score(training.finish(), tests)
    rates = [row["success"] for row in result.by_path_length(EDGES)]
    shown = ["–" if rate is None else f"{100 * rate:.1f}" for rate in rates]
    row = [name, f"{size} x {size}", depth, seed, training.step, f"{100 * result.success_rate:.2f}", *shown]
    print(row, f"of {iterations} steps", flush=True)
    found.put(row)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=360.0)
    seconds = parser.parse_args().seconds
    if not torch.cuda.is_available():
        parser.error("it needs a GPU with CUDA, and triton")
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    processes = [context.Process(target=work, args=(job, "cuda", seconds, found)) for job in JOBS]
    for process in processes:
        process.start()
    cells, deadline = [], time.monotonic() + 1.2 * seconds + 100
    while len(cells) < len(JOBS) and time.monotonic() < deadline:
        if not found.empty():
            cells.append(found.get())
        elif not any(process.is_alive() for process in processes):
            break
        time.sleep(0.2)
    for process in processes:
        process.kill()
    where = _bench.environment()
    where["cpu"] = f"{torch.cuda.get_device_name()}, {len(JOBS)} processes side by side"
    bins = [f"{low}-{high}" for low, high in zip((1, 21, 41, 61), EDGES, strict=True)]
    columns = ["planner", "mazes", "layers", "seed", "steps", "success, %", *bins, f"past {EDGES[-1]}"]
    cells.sort(key=lambda row: (row[0], row[1], row[2], row[3]))
    record = {"benchmark": "long_on_gpu", "columns": columns, "cells": cells, "environment": where}
    folder = Path(os.environ.get("MINDWORKS_RESULTS", _bench.RESULTS))
    (folder / "long_on_gpu.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if len(cells) == len(JOBS) else 1


if __name__ == "__main__":
    sys.exit(main())
