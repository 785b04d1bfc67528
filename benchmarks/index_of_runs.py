"""Listing 10,000 runs with `mindworks runs`: the first time, again, and after some of them changed.

Every tenth run is unfinished; the others hold a record of about 10 kB. The plain way, reading every record, stands
beside it. Seconds are CPU seconds of one process, without its start; the median of the repeats counts. There is no
bar. Run: `python benchmarks/index_of_runs.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import _bench
from mindworks.cli import main

RUNS, CHANGED, REPEATS = 10_000, 100, 5
COLUMNS = ["listing 10,000 runs", "CPU s", "runs read"]
LONG_AGO = 1_700_000_000


def make(root: Path) -> list[Path]:
    """The folders of all runs; their last change lies in the past, as that of most runs does."""
    checks = [
        {
            "claim": f"claim {number}: " + "words " * 12,
            "value": number / 7,
            "op": ">=",
            "bar": 0.1,
            "passed": number > 0,
        }
        for number in range(16)
    ]
    tables = {"curve": [number / 3 for number in range(400)]}
    folders = []
    for number in range(RUNS):
        folder = root / f"study-{number % 8}" / "sweep" / "cells" / f"cpu_lr={number}"
        folder.mkdir(parents=True)
        about = {"study": f"study-{number % 8}", "scale": "cpu", "config": {"lr": number * 1e-4, "steps": 1000}}
        about["seeds"] = [0, 1, 2]
        (folder / "config.json").write_text(json.dumps(about, indent=1))
        if number % 10:
            record = {**about, "checks": checks, "tables": tables, "timing": {"wall_s": 2.0, "cpu_s": 1.5}}
            record["environment"] = {"mindworks": "0.1.0", "commit": "0" * 40, "torch": "2.13.0", "threads": 1}
            (folder / "result.json").write_text(json.dumps(record, indent=1))
        os.utime(folder, (LONG_AGO, LONG_AGO))
        folders.append(folder)
    return folders


def listed(root: Path, *words: str) -> int:
    """How many runs the command lists."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = main(["runs", "--runs", str(root), *words])
    if status:
        sys.exit(status)
    return sum("cpu_lr=" in line for line in text.getvalue().splitlines())


def plainly(root: Path) -> int:
    """The same without an index: every record is read."""
    lines = []
    for folder in sorted(path.parent for path in root.glob("*/sweep/cells/*/config.json")):
        path = folder / "result.json"
        record = json.loads((path if path.exists() else folder / "config.json").read_text(encoding="utf-8"))
        lines.append(
            f"{folder} {record['study']} {record['scale']} {sum(c['passed'] for c in record.get('checks', []))}"
        )
    return len(lines)


def seconds(call: Callable[[], int], before: Callable[[], Any] = lambda: None, expected: int = RUNS) -> float:
    """The median CPU seconds of `call`, each after `before`; what it lists is counted."""
    taken = []
    for _ in range(REPEATS):
        before()
        start = time.process_time()
        found = call()
        taken.append(time.process_time() - start)
        if found != expected:
            sys.exit(f"{found} runs are listed, there are {expected}")
    return round(median(taken), 3)


def measured(root: Path) -> list[list[Any]]:
    """Rows of the record."""
    folders = make(root)
    times = iter(range(LONG_AGO + 1, LONG_AGO + 1 + REPEATS))

    def change() -> None:
        now = next(times)
        for folder in folders[:CHANGED]:
            os.utime(folder, (now, now))

    def forget() -> None:
        (root / ".index.sqlite").unlink(missing_ok=True)

    strict = ("--where", "lr < 0.5", "--where", "claim:claim 3 > 0.4", "--sort", "-lr")
    held = sum(number % 10 > 0 for number in range(5000))
    return [
        ["every record read, no index", seconds(lambda: plainly(root)), RUNS],
        ["the first time", seconds(lambda: listed(root), forget), RUNS],
        ["again", seconds(lambda: listed(root)), 0],
        [f"after {CHANGED} changed", seconds(lambda: listed(root), change), CHANGED],
        [
            "again, by a field of the configuration and a claim",
            seconds(lambda: listed(root, *strict), expected=held),
            0,
        ],
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder))
    for case, cpu, read in rows:
        print(f"{case:52} {cpu:8.3f} CPU s  {read:6} read")
    _bench.table("index_of_runs", COLUMNS, rows)
