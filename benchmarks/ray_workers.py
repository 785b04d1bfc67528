"""Cells per second on the clock with one and two workers, on Ray and on processes of this machine.

The cells are the study `udrl` at scale `cpu` with 30 seeds and 200 or more kernels, 12 seconds each, one thread.
Time is on the clock, as it is the subject: from the start of the command to its end, so that starting Ray, importing
torch and stopping everything count. The bar is 1.6 times the cells per second with two workers on Ray. It takes a
machine with two free processors. Needs the extra `cluster`. Run: `python benchmarks/ray_workers.py`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from statistics import median
from typing import Any

import _bench

BAR = 1.6
CELLS = 4
REPEATS = 3
WORDS = ["udrl", "--scale", "cpu", "--seeds", "30", "--grid"]


def seconds(engine: str, workers: int) -> float:
    """Seconds on the clock of a sweep over `CELLS` cells."""
    grid = "kernels=" + ",".join(str(200 + number) for number in range(CELLS))
    with tempfile.TemporaryDirectory() as folder:
        words = [*WORDS, grid, "--engine", engine, "--workers", str(workers), "--out", f"{folder}/sweep"]
        begun = time.monotonic()
        subprocess.run([sys.executable, "-m", "mindworks", "sweep", *words], check=True, capture_output=True)
        return time.monotonic() - begun


def main() -> int:
    """Measure in turns, write the record, return the exit status."""
    taken: dict[tuple[str, int], list[float]] = {(e, w): [] for e in ("ray", "local") for w in (1, 2)}
    for repeat in range(REPEATS):
        for (engine, workers), found in taken.items():
            found.append(seconds(engine, workers))
            print(f"{repeat}: {engine}, {workers}: {found[-1]:.1f} s", flush=True)
    rows: list[list[Any]] = []
    gains = {}
    for engine in ("ray", "local"):
        one, two = (median(taken[engine, workers]) for workers in (1, 2))
        gains[engine] = one / two
        bar = f"{BAR}{'' if gains[engine] >= BAR else ', missed'}" if engine == "ray" else "–"
        rows.append([engine, f"{one / CELLS:.1f}", f"{two / CELLS:.1f}", f"{gains[engine]:.2f}", bar])
    _bench.table("ray_workers", ["engine", "s per cell, one worker", "two workers", "gain", "bar"], rows)
    return 0 if gains["ray"] >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
