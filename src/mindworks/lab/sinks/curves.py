"""From a line of `metrics.jsonl` to a point on curves: names, steps, and what becomes of values that are no number."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

STEPS = ("step", "steps", "iteration")
LONGEST_LABEL = 40


@dataclass(frozen=True)
class Point:
    """The numbers of one line, each with the full name of its curve.

    `run` is "" or `seed-N`; `prefix` is what the names begin with, `stage/label/` or ""; `step` is the place on the
    axis `axis`: a number of the line itself, or "line", the count of the lines with this prefix. `row` counts the
    points of `run` from 0.
    """

    run: str
    prefix: str
    axis: str
    step: int
    row: int
    values: dict[str, float]


class Curves:
    """The points of a file, line by line."""

    def __init__(self) -> None:
        self._lines: Counter[tuple[str, str]] = Counter()
        self._rows: Counter[str] = Counter()

    def point(self, line: dict[str, Any]) -> Point | None:
        """The next line as a point; None where it holds no number."""
        seed = line.get("seed")
        run = f"seed-{seed}" if type(seed) is int else ""
        values = {key: value for key, value in line.items() if key != "stage" and not (key == "seed" and run)}
        stage = str(line.get("stage", ""))
        stage = "" if stage == run else stage.removeprefix(f"{run}/") if run else stage
        words = (value for value in values.values() if isinstance(value, str))
        labels = [_slug(word) for word in words if len(word) <= LONGEST_LABEL]
        prefix = "".join(f"{part}/" for part in (stage, *labels) if part)
        self._lines[run, prefix] += 1
        axis = next((name for name in STEPS if type(values.get(name)) is int), "line")
        step = values[axis] if axis != "line" else self._lines[run, prefix]
        found = {f"{prefix}{name}": number for name, number in _numbers(values)}
        if not found:
            return None
        self._rows[run] += 1
        return Point(run, prefix, axis, step, self._rows[run] - 1, found)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", text).strip("-")


def _numbers(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers and truth values as they are, lists of numbers as their mean, dicts with joined names; nothing else."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, list) and value and all(map(_is_number, value)):
            yield f"{prefix}{name}", math.fsum(value) / len(value)
        elif _is_number(value):
            yield f"{prefix}{name}", float(value) if isinstance(value, float) else int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
