"""What every sink offers, and what it is told at its start."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mindworks.lab.sinks.curves import Point


@dataclass(frozen=True)
class About:
    """The run that a sink follows.

    `home` is the sink's own folder, `id` a name that no other run has and that a resumed run keeps, `resumed` whether
    the sink has followed this run before.
    """

    home: Path
    name: str
    id: str
    resumed: bool
    study: str
    scale: str
    seeds: list[int]
    config: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration with study, scale and seeds beside its fields."""
        return {**self.config, "study": self.study, "scale": self.scale, "seeds": self.seeds}

    @property
    def project(self) -> str:
        """The project of tools that have projects."""
        return "mindworks"


class Sink(Protocol):
    """A tool that shows curves; its module's `start(about)` opens it. Any exception turns it off."""

    durable: bool
    """whether what was written and flushed is on the disk a second later, even if the process is killed"""

    where: str
    """how to look at it, in a few words"""

    def write(self, point: Point) -> None:
        """Add a point to its curves."""

    def flush(self) -> None:
        """Show what was written."""

    def close(self, finished: bool, checks: list[dict[str, Any]]) -> None:
        """The run has ended, finished or not; `checks` are those of its record, each sent once."""


def check_numbers(checks: list[dict[str, Any]]) -> dict[str, float]:
    """The checks as numbers: `checks/N/value`, `bar`, `passed` (0 or 1), from N = 1, and how many there are."""
    found: dict[str, float] = {}
    for n, check in enumerate(checks, start=1):
        numbers = {"value": check["value"], "bar": check["bar"], "passed": int(check["passed"])}
        found |= {f"checks/{n}/{name}": number for name, number in numbers.items() if number is not None}
    if checks:
        found |= {"checks/passed": sum(check["passed"] for check in checks), "checks/count": len(checks)}
    return found


def check_table(checks: list[dict[str, Any]]) -> str:
    """The checks as a table in Markdown."""
    rows = ["| | claim | value | bar | |", "|---|---|---|---|---|"]
    for n, check in enumerate(checks, start=1):
        verdict = "passes" if check["passed"] else "fails"
        rows.append(f"| {n} | {check['claim']} | {check['value']} | {check['op']} {check['bar']} | {verdict} |")
    return "\n".join(rows)


def pretty(settings: dict[str, Any]) -> str:
    """Settings as a block of Markdown."""
    return "\n".join(f"    {line}" for line in json.dumps(settings, indent=1, ensure_ascii=False).splitlines())
