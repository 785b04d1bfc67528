"""A paper and its record in the words of a page."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mindworks.lab import fields
from mindworks.lab.report import papers
from mindworks.lab.report.papers import Paper, Published
from mindworks.lab.report.sources import Entry
from mindworks.lab.study import Study
from mindworks.lab.tables import interval, number

SIGNS = {"<=": "≤", ">=": "≥", "==": "=", "<": "<", ">": ">"}


@dataclass(frozen=True)
class CheckView:
    """A check as a row: the paper's numbers, ours, its interval, the bar and the verdict."""

    claim: str
    published: list[Published]
    ours: str
    interval: str
    seeds: int
    each: list[str]
    strip: str
    bar: str
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """How many of the checks hold, and those that do not; `state` is holds, partly, fails or none."""

    state: str
    words: str
    failing: tuple[str, ...] = ()
    share: float = -1.0


def verdict(record: dict[str, Any] | None) -> Verdict:
    """What a record says as a whole."""
    if record is None:
        return Verdict("none", "no record yet")
    checks = record["checks"]
    failing = tuple(check["claim"] for check in checks if not check["passed"])
    held = len(checks) - len(failing)
    if not held:
        return Verdict("fails", f"none of {len(checks)} holds", failing, 0.0)
    words = f"{held} of {len(checks)} hold{'s' * (held == 1)}" if failing else f"all {held} hold"
    return Verdict("partly" if failing else "holds", words, failing, held / len(checks))


def check_rows(paper: Paper, record: dict[str, Any]) -> list[CheckView]:
    """The checks of a record beside the numbers that the paper prints."""
    return [
        CheckView(
            claim=check["claim"],
            published=papers.for_claim(check["claim"], paper.published),
            ours=number(check["value"]),
            interval=interval(check.get("interval")),
            seeds=len(check.get("each") or record["seeds"]),
            each=[number(value) for value in check.get("each") or ()],
            strip=strip(check.get("each") or (), check["bar"]),
            bar=f"{SIGNS.get(check['op'], check['op'])} {number(check['bar'])}",
            passed=check["passed"] is True,
        )
        for check in record["checks"]
    ]


def strip(values: Sequence[float | None], bar: float, width: float = 120, height: float = 14) -> str:
    """One value per seed as dots on a line, and the bar as a stroke across it, as SVG; empty without finite values."""
    finite = [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    if len(finite) < 2 or not isinstance(bar, (int, float)):
        return ""
    low, high = min(*finite, bar), max(*finite, bar)
    if not high > low:
        return ""

    def place(value: float) -> str:
        return f"{4 + (width - 8) * (value - low) / (high - low):.1f}"

    middle = height / 2
    dots = "".join(f'<circle cx="{place(value)}" cy="{middle:g}" r="2.5"/>' for value in finite)
    return (
        f'<svg class="strip" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'aria-hidden="true"><path d="M4 {middle:g}H{width - 4:g}"/>{dots}'
        f'<path class="bar" d="M{place(bar)} 0V{height:g}"/></svg>'
    )


def short_authors(names: Sequence[str]) -> str:
    """Last names: up to three, else the first and `et al.`"""
    last = [name.split()[-1] for name in names if name.split()]
    if len(last) > 3:
        return f"{last[0]} et al."
    return " and ".join(filter(None, (", ".join(last[:-1]), last[-1]))) if last else ""


def seeds(values: Sequence[Any]) -> str:
    """'seed 3', '5 seeds (0 to 4)', or all of them where they have gaps."""
    if len(values) == 1:
        return f"seed {values[0]}"
    if _gapless(values):
        return f"{len(values)} seeds ({values[0]} to {values[-1]})"
    return f"{len(values)} seeds ({', '.join(map(str, values))})"


def _gapless(values: Sequence[Any]) -> bool:
    return list(values) == list(range(values[0], values[0] + len(values))) if isinstance(values[0], int) else False


def command(entry: Entry) -> str:
    """The command that makes the record again: scale, seeds, and every field that is not that scale's default."""
    record = entry.record
    assert record is not None
    words = ["mindworks", "run", str(record["study"]), "--scale", str(record["scale"])]
    if _gapless(record["seeds"]):
        words += ["--seed", str(record["seeds"][0]), "--seeds", str(len(record["seeds"]))]
    for name, value in _changed(entry.study, record):
        words += _flag(name, value)
    return shlex.join(words)


def _changed(study: Study | None, record: dict[str, Any]) -> list[tuple[str, Any]]:
    if study is None or record["scale"] not in study.scales:
        return []
    defaults = study.defaults(record["scale"])
    known = [(name, value) for name, value in record["config"].items() if hasattr(defaults, name)]
    return [(name, value) for name, value in known if _listed(getattr(defaults, name)) != _listed(value)]


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]


def commit(record: dict[str, Any]) -> str:
    """The commit of a record, where it names a whole one; else nothing."""
    found = str(record["environment"].get("commit") or "")
    return "" if found.endswith("-dirty") else found


def configuration(entry: Entry) -> list[tuple[str, str, str]]:
    """Name, value and meaning of every field; the meaning is empty where the study is not installed."""
    assert entry.record is not None
    docs = fields.docstrings(entry.study.config) if entry.study is not None else {}
    return [(name, value_text(value), docs.get(name, "")) for name, value in entry.record["config"].items()]


def value_text(value: Any) -> str:
    """A value of a configuration as text."""
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        return ", ".join(map(value_text, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def environment(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what the record was made with."""
    return [(name, "none" if value is None else str(value)) for name, value in record["environment"].items()]
