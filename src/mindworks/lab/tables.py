"""The tables of a record and of a benchmark as plain grids of text, for whoever draws them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

SUMMARY = frozenset({"n", "mean", "min", "max", "iqm", "low", "high", "seeds"})


@dataclass(frozen=True)
class Grid:
    """A table as text: its title, the head of every column, and rows whose first cell names the row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def number(value: Any) -> str:
    """A number in four digits, a list of them, or `none` where nothing finite was measured."""
    if isinstance(value, list):
        return ", ".join(map(number, value)) if value else "none"
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def interval(ends: list[float | None] | None) -> str:
    """An interval in words; empty without one."""
    if not ends or None in ends:
        return ""
    return f"{number(ends[0])} to {number(ends[1])}"


def of_record(record: dict[str, Any]) -> list[Grid]:
    """The tables of a record; one of a shape that no study writes is shown as JSON."""
    return [grid(title, content, record["seeds"]) for title, content in record["tables"].items() if content]


def grid(title: str, content: Any, seeds: list[int]) -> Grid:
    """One of a record's tables: its shape says how it is drawn.

    A list of numbers gives a column per seed, and a mapping to such lists a line for each. A mapping to summaries
    (`iqm`, `low`, `high`, `seeds`) gives interquartile means with intervals; a mapping to one row of values per seed
    gives a line per seed; a mapping to mappings to one value per seed gives medians, with all values in brackets; a
    mapping to mappings to plain numbers gives those.
    """
    try:
        return _shaped(title, content, seeds)
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError):
        return Grid(title, ("", "as JSON"), ((title, json.dumps(content, ensure_ascii=False)),))


def _shaped(title: str, content: Any, seeds: list[int]) -> Grid:
    each = tuple(f"seed {seed}" for seed in seeds)
    if isinstance(content, list):
        return Grid(title, ("", *each), ((title, *map(number, content)),))
    first = next(iter(content.values()))
    if isinstance(first, dict):
        if "iqm" in first:
            return _summaries(title, content)
        return (_spreads if any(isinstance(value, list) for value in first.values()) else _plain)(title, content)
    if not isinstance(first[0], dict):
        return Grid(title, ("", *each), tuple((name, *map(number, values)) for name, values in content.items()))
    lines = (
        (name, str(seed), *(number(row[column]) for column in first[0]))
        for name, rows in content.items()
        for seed, row in zip(seeds, rows, strict=True)
    )
    return Grid(title, ("", "seed", *_words(first[0])), tuple(lines))


def _summaries(title: str, content: dict[str, dict[str, Any]]) -> Grid:
    more = [column for column in next(iter(content.values())) if column not in SUMMARY]
    rows = (
        (
            name,
            number(part["iqm"]),
            f"{number(part['low'])} to {number(part['high'])}",
            *(number(part[column]) for column in more),
            number(part["seeds"]),
        )
        for name, part in content.items()
    )
    return Grid(title, ("", "interquartile mean", "95 % interval", *more, "per seed"), tuple(rows))


def _plain(title: str, content: dict[str, dict[str, Any]]) -> Grid:
    columns = next(iter(content.values()))
    rows = ((name, *(number(part[column]) for column in columns)) for name, part in content.items())
    return Grid(title, ("", *_words(columns)), tuple(rows))


def _spreads(title: str, content: dict[str, dict[str, list[Any]]]) -> Grid:
    columns = next(iter(content.values()))
    rows = ((name, *(_spread(part[column]) for column in columns)) for name, part in content.items())
    several = any(len(value) > 1 for part in content.values() for value in part.values() if isinstance(value, list))
    return Grid(f"{title}: median (per seed)" if several else title, ("", *_words(columns)), tuple(rows))


def _spread(values: list[Any]) -> str:
    """Median of one number per seed, and all of them in brackets; the values alone where they are pairs (ranges)."""
    shown = ", ".join(" to ".join(map(number, value)) if isinstance(value, list) else number(value) for value in values)
    several = len(values) > 1 and all(isinstance(value, (int, float)) for value in values)
    return f"{number(median(values))} ({shown})" if several else shown


def _words(columns: Iterable[str]) -> tuple[str, ...]:
    return tuple(column.replace("_", " ") for column in columns)
