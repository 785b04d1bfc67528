"""The runs below a folder: study, state, the metrics they wrote last, and small curves of these."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.lab.index.facts import FAILED, MARKERS, RUNNING, STOPPED, facts
from mindworks.lab.index.index import walk

SHOWN = 24
_READ = 2_000_000  # bytes of a metrics file that are read, from its end
_POINTS = 200
_CURVES = 6
_ALONG = ("step", "iteration", "episode", "epoch", "update", "frames", "steps", "episodes")
_TAGS = ("stage", "seed", "config")


@dataclass(frozen=True)
class Curve:
    """A metric over the lines of the log as SVG, with its last value."""

    name: str
    svg: str
    last: str


@dataclass(frozen=True)
class Run:
    """One run: where it is, what it runs, its state, why it failed, how many checks hold, and what it logged."""

    folder: str
    study: str
    scale: str
    seeds: int
    state: str
    error: str
    checks: str
    lines: int
    last: str
    curves: list[Curve]


def newest(root: Path) -> list[Path]:
    """The folders below `root` that hold a run, the one that changed last first."""
    if not root.is_dir():
        return []
    return sorted((root / path for path, _ in walk(root, {})), key=_changed, reverse=True)


def _changed(folder: Path) -> int:
    return max((stamp[0] for stamp in stamps(folder)), default=0)


def stamps(folder: Path) -> list[tuple[int, int]]:
    """Time of change and size of every file that says how far the run in `folder` is."""
    found = []
    for path in (*(folder / name for name in sorted(MARKERS)), *_logs(folder)):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((status.st_mtime_ns, status.st_size))
    return found


def _logs(folder: Path) -> list[Path]:
    """The metrics of the run; of its processes, one per seed, until they are merged."""
    whole = folder / "metrics.jsonl"
    return [whole] if whole.exists() else sorted(folder.glob("seed-*/metrics.jsonl"))


def read(folder: Path, root: Path) -> Run:
    """The run in `folder`, whatever is damaged there."""
    path = str(folder.relative_to(root))
    known = facts(str(folder), path).columns
    rows = [row for log in _logs(folder) for row in _rows(log)]
    last = ", ".join(f"{key} {_short(value)}" for key, value in (rows[-1] if rows else {}).items() if _shown(value))
    return Run(
        folder=path,
        study=known["study"] or "a run that cannot be read",
        scale=known["scale"] or "",
        seeds=known["seeds"] or 0,
        state=RUNNING if known["state"] in (FAILED, STOPPED) and running(folder) else known["state"],
        error=known["error"] or "",
        checks=f"{known['held']} of {known['checks']} checks hold" if known["checks"] else "",
        lines=len(rows),
        last=last[:400],
        curves=list(_curves(rows)),
    )


def running(folder: Path) -> bool:
    """Whether a process works in `folder`."""
    return any(_held(lock) for lock in (folder / ".lock", *folder.glob("seed-*/.lock")))


def _held(lock: Path) -> bool:
    """Whether a process holds the lock; asked of the kernel's table, since taking it would keep a run out."""
    try:
        inode = lock.stat().st_ino
        table = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return _alive(lock)
    return any(line.split()[5].rpartition(":")[2] == str(inode) for line in table.splitlines() if len(line.split()) > 5)


def _alive(lock: Path) -> bool:
    try:
        os.kill(int(lock.read_text(encoding="ascii")), 0)
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _rows(log: Path) -> list[dict[str, Any]]:
    """The lines of a log that are whole."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _READ))
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def _curves(rows: list[dict[str, Any]]) -> Iterator[Curve]:
    """One curve per metric, a line for each stage and seed."""
    lines: dict[str, dict[tuple[str, ...], list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        tag = tuple(str(row.get(key, "")) for key in _TAGS)
        along = next((row[key] for key in _ALONG if _number(row.get(key))), None)
        for name, value in row.items():
            y = _mean(value)
            if name not in _TAGS and name not in _ALONG and y is not None:
                points = lines[name][tag]
                points.append((float(along) if along is not None else float(len(points)), y))
    drawn = ((name, [_thin(line) for line in parts.values() if len(line) > 1]) for name, parts in lines.items())
    for name, parts in [(name, parts) for name, parts in drawn if parts][:_CURVES]:
        yield Curve(name, _svg(parts), _short(parts[-1][-1][1]))


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = max(1, len(points) // _POINTS)
    return points[::stride] + ([points[-1]] if (len(points) - 1) % stride else [])


def _svg(parts: list[list[tuple[float, float]]], width: float = 220, height: float = 80) -> str:
    xs, ys = [x for line in parts for x, _ in line], [y for line in parts for _, y in line]
    left, bottom = min(xs), min(ys)
    wide, high = (max(xs) - left) or 1.0, (max(ys) - bottom) or 1.0

    def place(point: tuple[float, float]) -> str:
        x, y = 3 + (width - 6) * (point[0] - left) / wide, height - 3 - (height - 6) * (point[1] - bottom) / high
        return f"{x:.1f},{y:.1f}"

    curves = "".join(f'<polyline points="{" ".join(map(place, line))}"/>' for line in parts)
    head = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img"'
    label = f"From {_short(bottom)} to {_short(max(ys))}, {len(parts)} line{'s' * (len(parts) != 1)}"
    frame = f'<rect x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}"/>'
    return f'<svg {head} aria-label="{label}">{frame}{curves}</svg>'


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _mean(value: Any) -> float | None:
    """A number, or the mean of a list of them, such as one per seed."""
    if _number(value):
        return float(value)
    if isinstance(value, list) and value and all(map(_number, value)):
        return math.fsum(value) / len(value)
    return None


def _shown(value: Any) -> bool:
    return isinstance(value, str) or _mean(value) is not None


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{_mean(value) or 0:.4g}"
