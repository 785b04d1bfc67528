"""What the benchmark scripts share: alternating CPU timing of two sides, a table, and a JSON record.

Seconds are CPU seconds (`time.process_time`). Import it before torch or numpy where you can: it asks their libraries
for one thread. A script that imports torch first also calls `torch.set_num_threads(1)`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"


def compare(ours: Callable[[], Any], peer: Callable[[], Any], repeats: int = 7, warmup: int = 1) -> tuple[float, float]:
    """Return the median CPU seconds of one call of either side, measured in turns after `warmup` calls of both."""
    for _ in range(warmup):
        ours()
        peer()
    taken: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):  # neither side always runs on the other's warm caches
            start = time.process_time()
            (ours, peer)[side]()
            taken[side].append(time.process_time() - start)
    return median(taken[0]), median(taken[1])


def row(case: str, ours_s: float, peer_s: float, bar: float, per: float = 1.0, **more: Any) -> dict[str, Any]:
    """Return one row of a record: microseconds per unit (a call is `per` units), peer over ours, and the verdict."""
    ratio = peer_s / ours_s
    return {
        "case": case,
        "ours_us": round(ours_s / per * 1e6, 3),
        "peer_us": round(peer_s / per * 1e6, 3),
        "ratio": round(ratio, 2),
        "bar": bar,
        "passed": ratio >= bar,
        **more,
    }


def write(name: str, rows: list[dict[str, Any]]) -> bool:
    """Print the rows, write `results/benchmarks/NAME.json`, and say whether every row passed."""
    width = max(len(entry["case"]) for entry in rows)
    print(f"{'case':{width}}  {'ours us':>10}  {'peer us':>10}  {'ratio':>7}  {'bar':>5}")
    for entry in rows:
        verdict = "pass" if entry["passed"] else "FAIL"
        numbers = f"{entry['ours_us']:10.2f}  {entry['peer_us']:10.2f}  {entry['ratio']:7.2f}  {entry['bar']:5.1f}"
        print(f"{entry['case']:{width}}  {numbers}  {verdict}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {"benchmark": name, "rows": rows, "environment": environment()}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return all(entry["passed"] for entry in rows)


def table(name: str, columns: list[str], cells: list[list[Any]]) -> None:
    """Write `results/benchmarks/NAME.json` with columns of its own; the caller has printed them."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {"benchmark": name, "columns": columns, "cells": cells, "environment": environment()}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def environment() -> dict[str, Any]:
    """Return versions, processor, threads and date of this run."""
    packages = {}
    for package in ("mindworks", "torch", "numpy", "gymnasium", "mujoco"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "missing"
    return {
        **packages,
        "python": platform.python_version(),
        "cpu": _processor(),
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if sys.platform == "linux" and info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
