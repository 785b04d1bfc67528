"""What the command line prints: the list of studies, one study, and the end of a run, in 80 plain columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mindworks.lab.fields import describe
from mindworks.lab.progress import clock
from mindworks.lab.study import Study

WIDTH = 80
_FIGURES = (".pdf", ".png", ".svg")


def verdict(record: dict[str, Any] | None) -> str:
    """'9/9 hold', or 'no record'."""
    if record is None:
        return "no record"
    checks = record["checks"]
    return f"{sum(check['passed'] for check in checks)}/{len(checks)} hold"


def passed(record: dict[str, Any]) -> bool:
    """Whether every check of a record passed."""
    return bool(record["checks"]) and all(check["passed"] for check in record["checks"])


def number(value: float | None) -> str:
    """A number in four digits; 'none' where nothing finite was measured."""
    return "none" if value is None else f"{value:.4g}"


def listing(studies: Iterable[tuple[Study, dict[str, Any] | None]]) -> str:
    """Two or more lines per study: name, year, paper and verdict, then the claim."""
    lines: list[str] = []
    for study, record in studies:
        where = f" ({record['scale']}, {seeds(record)})" if record else ""
        lines.append(f"{study.name:<14} {study.year or '':<5} {study.paper:<18} {verdict(record)}{where}")
        lines += _wrapped(study.claim or study.title, "    ")
    return "\n".join(lines)


def seeds(record: dict[str, Any]) -> str:
    """'5 seeds'."""
    return _seeds(len(record["seeds"]))


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def claims(checks: Iterable[dict[str, Any]]) -> str:
    """PASS or FAIL, value, direction and bar of each check, with its claim."""
    lines = []
    for check in checks:
        head = f"{'PASS' if check['passed'] else 'FAIL'}  {number(check['value']):>10} {check['op']:<2} "
        head += f"{number(check['bar']):<10}  "
        lines += textwrap.wrap(check["claim"], WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    return "\n".join(lines)


def ending(record: dict[str, Any], folder: Path) -> str:
    """The claims, the figures, the record and the time of a finished run."""
    timing = record["timing"]
    lines = [claims(record["checks"]), ""]
    lines += [f"figure  {path}" for path in sorted(folder.iterdir()) if path.suffix in _FIGURES]
    lines.append(f"record  {folder / 'result.json'}")
    lines.append(f"time    {timing['cpu_s']:.1f} CPU s, {clock(timing['wall_s'])} on the clock, {seeds(record)}")
    lines.append(f"{record['study']}: {verdict(record)}")
    return "\n".join(lines)


def page(study: Study, record: dict[str, Any] | None) -> str:
    """Claim, fields with defaults and meaning, checks with bars, citation and documentation of one study."""
    lines = [
        f"{study.name}: {study.title}" if study.title else study.name,
        f"{study.paper} {study.year or ''}".rstrip(),
    ]
    lines += ["", *_wrapped(study.claim, ""), "", "Fields (defaults at scale cpu)"]
    for field in describe(study.defaults("cpu" if "cpu" in study.scales else next(iter(study.scales)))):
        lines.append(f"  --{field.name.replace('_', '-')} {field.type} = {field.default}")
        lines += _wrapped(field.doc, "      ")
    lines += ["", "Scales"]
    for scale in study.scales:
        lines += _wrapped(_scale(study, scale), "  ", "      ")
    lines += ["", "Checks"]
    if record is None:
        lines.append("  no record yet")
    else:
        lines += [claims(record["checks"]), f"  from the record at scale {record['scale']}, {seeds(record)}"]
    lines += ["", f"Cite    mindworks cite {study.name}", f"Docs    {study.docs}" if study.docs else "Docs    none"]
    return "\n".join(lines)


def _scale(study: Study, scale: str) -> str:
    changes = ", ".join(f"{name}={value}" for name, value in study.scales[scale].items())
    return f"{scale}: {_seeds(study.seeds[scale])}{', ' if changes else ''}{changes}"


def _wrapped(text: str, indent: str, later: str | None = None) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent if later is None else later)
