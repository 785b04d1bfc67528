"""The records of `results/benchmarks` as grids: what was compared with what, and where the peer wins."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.errors import InputError
from mindworks.lab.report.papers import KEY
from mindworks.lab.tables import Grid


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's name, what it was made on, its table, and whether a row misses its bar."""

    name: str
    made: str
    grid: Grid
    missed: int = 0
    barred: int = 0


def read(results: Path) -> dict[str, Benchmark]:
    """All benchmarks below `results`, by name; raises InputError that names a damaged file."""
    found = {}
    for path in sorted((results / "benchmarks").glob("*.json")):
        if KEY.fullmatch(path.stem) is None:
            continue
        try:
            found[path.stem] = benchmark(path.stem, json.loads(path.read_text(encoding="utf-8")))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"damaged {path}: not the record of a benchmark ({type(error).__name__})") from error
    return found


def benchmark(name: str, record: dict[str, Any]) -> Benchmark:
    """One benchmark from its record: rows of times, curves of learning, or a plain table."""
    where = record["environment"]
    made = f"{where['date']}, {where['cpu']}, {where['threads']} thread{'s' * (where['threads'] != 1)}"
    made += f", torch {where['torch']}"
    if "rows" in record:
        barred = [row for row in record["rows"] if row["bar"]]
        return Benchmark(name, made, _ratios(name, record), sum(not row["passed"] for row in barred), len(barred))
    return Benchmark(name, made, (_curves if "runs" in record else _plain)(name, record))


def _ratios(name: str, record: dict[str, Any]) -> Grid:
    rows = []
    for row in record["rows"]:
        case = row["case"]
        if "ours_bytes" in row:
            ours, peer, bar = (f"{row[key] / 1e6:.0f} MB" for key in ("ours_bytes", "peer_bytes", "bytes_bar"))
            case += f" (stored: ours {ours}, peer {peer}, bar {bar})"
        verdict = ("holds" if row["passed"] else "missed") if row["bar"] else "no bar"
        times = f"{row['ours_us']:.2f}", f"{row['peer_us']:.2f}", f"{row['ratio']:.2f}"
        rows.append((case, *times, f"{row['bar']:g}" if row["bar"] else "–", verdict))
    return Grid(name, ("case", "ours, µs", "peer, µs", "ratio", "bar", "verdict"), tuple(rows))


def _curves(name: str, record: dict[str, Any]) -> Grid:
    rows = []
    for task, runs in record["runs"].items():
        for method, run in sorted(runs.items()):
            final, whole = (
                f"{run[key]['iqm']:.0f} [{run[key]['low']:.0f}, {run[key]['high']:.0f}]" for key in ("final", "area")
            )
            setting = ", ".join(f"{k} {v}" for k, v in run["setting"].items() if k != "source")
            rows.append((task, method, final, whole, f"{run['cpu_us_per_step']:.0f}", setting))
    head = ("task", "method", "final return", "mean return over the budget", "CPU µs per step", "setting")
    return Grid(name, head, tuple(rows))


def _plain(name: str, record: dict[str, Any]) -> Grid:
    return Grid(name, tuple(map(str, record["columns"])), tuple(tuple(map(str, row)) for row in record["cells"]))
