"""The curves in a run's `metrics.jsonl`, read line by line and thinned, so that a long file takes little memory."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

AXES = ("step", "iteration", "generation", "update", "epoch")
_NO_CURVE = frozenset({*AXES, "stage", "seed", "config"})
_SEED_STAGE = re.compile(r"seed-\d+(/|$)")
MOST_POINTS, MOST_CURVES = 1024, 2000


class Name(NamedTuple):
    """What tells curves apart: the stage, the words of the line (`variant=random`), and the key."""

    stage: str
    words: str
    key: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


@dataclass
class Track:
    """One sequence of numbers, thinned evenly to `MOST_POINTS`; its last point is always kept.

    A point is its number in the sequence, its place on the axis of the line where it has one, and its value.
    """

    kept: list[tuple[int, float | None, float]] = field(default_factory=list)
    last: tuple[int, float | None, float] | None = None
    stride: int = 1
    count: int = 0

    def add(self, line: int, axis: float | None, value: float) -> None:
        """Append a point."""
        self.last = (line, axis, value)
        if self.count % self.stride == 0:
            self.kept.append(self.last)
            if len(self.kept) >= MOST_POINTS:
                self.kept = self.kept[::2]
                self.stride *= 2
        self.count += 1

    def all(self) -> list[tuple[int, float | None, float]]:
        """The points that are kept, and the last."""
        return self.kept if self.last is None or self.kept[-1] == self.last else [*self.kept, self.last]

    def rises(self) -> bool:
        """Whether every point has a place on the axis, and each lies beyond the one before."""
        places = [place for _, place, _ in self.all()]
        return all(b is not None and (a is None or a < b) for a, b in zip([None, *places[:-1]], places, strict=True))


@dataclass
class Curve:
    """The tracks of one name by seed; a curve that no seed owns has the single track None."""

    tracks: dict[int | None, Track] = field(default_factory=lambda: defaultdict(Track))
    axis: str = ""

    def drawn(self, axis: str) -> list[tuple[list[float], list[float]]]:
        """Places and values of each track; the places are line numbers where `axis` is empty."""
        return [
            ([float(x if axis and x is not None else line) for line, x, _ in track.all()], [y for *_, y in track.all()])
            for track in self.tracks.values()
        ]

    def ends(self) -> list[float]:
        """The last value of each track."""
        return [track.last[2] for track in self.tracks.values() if track.last is not None]


@dataclass(frozen=True)
class Curves:
    """The first `MOST_CURVES` curves of a run by name, and how many lines could not be read."""

    by_name: dict[Name, Curve]
    unread: int

    @property
    def full(self) -> bool:
        """Whether there may be more curves in the file."""
        return len(self.by_name) >= MOST_CURVES


def read(path: Path, seeds: Sequence[Any] = ()) -> Curves:
    """The curves of a file; without one there are none.

    A list of as many numbers as there are `seeds` is one value per seed. An unfinished last line is no damage.
    """
    reader = _Reader(seeds)
    unread, unfinished = 0, False
    if not path.is_file():
        return Curves({}, 0)
    with path.open("rb") as file:
        for line in file:
            try:
                reader.add(json.loads(line))
                unfinished = False
            except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
                unread, unfinished = unread + 1, not line.endswith(b"\n")
    return Curves(reader.curves, unread - unfinished)


class _Group:
    """The lines of one stage, with the same words and the same seed: how many there were, and their tracks by key."""

    __slots__ = ("count", "tracks")

    def __init__(self) -> None:
        self.count = 0
        self.tracks: dict[tuple[str, int | None], Track | None] = {}


class _Reader:
    """Sorts the values of lines into curves; a file may have millions of lines, so what is known of a group is kept."""

    def __init__(self, seeds: Sequence[Any]) -> None:
        self.curves: dict[Name, Curve] = {}
        self._seeds = list(seeds)
        self._groups: dict[tuple[str, str, Any], _Group] = defaultdict(_Group)

    def add(self, values: dict[str, Any]) -> None:
        """The next line."""
        stage, seed, words, place, axis = values.get("stage", ""), values.get("seed"), "", None, ""
        if not isinstance(stage, str):
            raise TypeError("a stage has a name")
        numbers: list[tuple[str, Any]] = []
        for key, value in values.items():
            if key in _NO_CURVE:
                if not axis and key in AXES:
                    axis, place = key, _number(value)
            elif isinstance(value, str):
                words += f" {key}={value}"
            elif value is not None:
                numbers.append((key, value))
        group = self._groups[stage, words, seed]
        group.count += 1
        for key, value in numbers:
            if type(value) is not list:
                self._keep(group, (stage, words, key, axis), seed, place, value)
            elif len(value) == len(self._seeds):
                for owner, each in zip(self._seeds, value, strict=True):
                    self._keep(group, (stage, words, key, axis), owner, place, each)

    def _keep(
        self, group: _Group, where: tuple[str, str, str, str], seed: Any, place: float | None, value: Any
    ) -> None:
        number = value if type(value) is float and math.isfinite(value) else _number(value)
        if number is None:
            return
        try:
            track = group.tracks[where[2], seed]
        except KeyError:
            track = group.tracks[where[2], seed] = self._track(*where, seed)
        if track is not None:
            track.add(group.count, place, number)

    def _track(self, stage: str, words: str, key: str, axis: str, seed: Any) -> Track | None:
        """Where a new sequence goes; None when there are too many curves."""
        if seed is not None:
            stage = _SEED_STAGE.sub("", stage)
        name = Name(stage, words.strip(), key)
        if name not in self.curves and len(self.curves) >= MOST_CURVES:
            return None
        curve = self.curves.setdefault(name, Curve(axis=axis))
        return curve.tracks[seed]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def common_axis(curves: Sequence[Curve]) -> str:
    """The axis that the lines of all curves name, or "" where they are counted."""
    named = {curve.axis for curve in curves}
    rising = all(track.rises() for curve in curves for track in curve.tracks.values())
    return named.pop() if rising and len(named) == 1 else ""


def iqm(values: Sequence[float]) -> float:
    """The interquartile mean: that of the values without the lowest and the highest quarter."""
    cut = len(values) // 4
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)


def course(tracks: Sequence[tuple[list[float], list[float]]], grid: Sequence[float]) -> list[float | None]:
    """At each place of `grid` the interquartile mean of what the tracks had come to; None before and after them all."""
    found: list[float | None] = []
    for place in grid:
        values = [ys[bisect_right(xs, place) - 1] for xs, ys in tracks if xs[0] <= place <= xs[-1]]
        found.append(iqm(values) if values else None)
    return found


def grid(tracks: Sequence[tuple[list[float], list[float]]], count: int) -> list[float]:
    """`count` places that span all tracks."""
    low, high = min(xs[0] for xs, _ in tracks), max(xs[-1] for xs, _ in tracks)
    return [low + (high - low) * place / (count - 1) for place in range(count - 1)] + [high]


def spark(values: Sequence[float | None], low: float, high: float, marks: str) -> str:
    """A line of text: each value as one of `marks`, from `low` to `high`; a blank where there is none."""
    top = len(marks) - 1
    span = high / 2 - low / 2  # halves, as the difference of two numbers may be none

    def mark(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return " "
        return marks[min(top, int((value / 2 - low / 2) / span * (top + 1))) if span > 0 else top // 2]

    return "".join(map(mark, values))
