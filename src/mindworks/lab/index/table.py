"""Runs as an aligned table, as JSON, or as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindworks.lab.index.facts import COLUMNS, compact
from mindworks.lab.index.query import CLAIM, CONFIG, Field

_HEADS = ("folder", "study", "scale", "seeds", "state", "held", "CPU s")
_RIGHT = {"seeds", "held", "CPU s"}
_LEAST_FOLDER, _MOST_SHOWN = 24, 30


def table(runs: Sequence[dict[str, Any]], root: Path, show: Sequence[Field], width: int | None = None) -> str:
    """One line per run under a line of heads; with `width` long folders and values are shortened to fit into it."""
    heads = [*_HEADS, *(title(field) for field in show)]
    rows = [[*_usual(run, root), *(cell(field.of(run)) for field in show)] for run in runs]
    if width is not None:
        heads = [*heads[: len(_HEADS)], *(_short(head, _MOST_SHOWN) for head in heads[len(_HEADS) :])]
        rows = [[*row[: len(_HEADS)], *(_short(text, _MOST_SHOWN) for text in row[len(_HEADS) :])] for row in rows]
    sizes = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    if width is not None and (left := width - sum(sizes[1:]) - 2 * (len(sizes) - 1)) < sizes[0]:
        sizes[0] = max(_LEAST_FOLDER, left)
        rows = [[_tail(row[0], sizes[0]), *row[1:]] for row in rows]
    numeric = [head in _RIGHT or _numbers(row[place] for row in rows) for place, head in enumerate(heads)]
    return "\n".join(_line(row, sizes, numeric) for row in (heads, *rows))


def _line(row: list[str], sizes: list[int], numeric: list[bool]) -> str:
    places = zip(row, sizes, numeric, strict=True)
    return "  ".join(text.rjust(size) if right else text.ljust(size) for text, size, right in places).rstrip()


def _usual(run: dict[str, Any], root: Path) -> list[str]:
    held = "-" if run["held"] is None else f"{run['held']}/{run['checks']}"
    seconds = run["cpu_s"]
    spent = f"{seconds:.1f}" if isinstance(seconds, (int, float)) else "-"
    return [
        os.path.normpath(os.path.join(root, run["path"])),
        *(cell(run[name]) for name in ("study", "scale", "seeds", "state")),
        held,
        spent,
    ]


def title(field: Field) -> str:
    """The head of a field's column: the shortest name that `--show` takes for it."""
    if field.kind == "claim":
        return CLAIM + field.name
    return CONFIG + field.name if field.kind == "config" and field.name in COLUMNS else field.name


def cell(value: Any) -> str:
    """A value in a table: numbers in four digits, '-' for none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value) if isinstance(value, (str, int)) else compact(value)
    return (text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)) or "-"


def _numbers(texts: Any) -> bool:
    def numeric(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return text == "-"
        return True

    return all(map(numeric, texts))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _tail(text: str, most: int) -> str:
    """The end of a folder's name, where runs differ."""
    return text if len(text) <= most else "…" + text[len(text) - most + 1 :]


def as_json(runs: Sequence[dict[str, Any]], root: Path, show: Sequence[Field]) -> str:
    """All columns, the configuration and the claims of each run; the fields of `--show` stand under `shown`."""
    found = []
    for run in runs:
        entry = {**run, "path": os.path.normpath(os.path.join(root, run["path"]))}
        if show:
            entry["shown"] = {title(field): field.of(run) for field in show}
        found.append(entry)
    return json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1)


def as_csv(runs: Sequence[dict[str, Any]], root: Path, show: Sequence[Field]) -> str:
    """All columns and the fields of `--show`, in full digits; nothing stands for none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(title(field) for field in show)])
    for run in runs:
        usual = [run[name] for name in COLUMNS[1:]]
        writer.writerow(
            [os.path.normpath(os.path.join(root, run["path"])), *usual, *(_plain(field.of(run)) for field in show)]
        )
    return text.getvalue().rstrip("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return compact(value) if isinstance(value, (list, dict)) else value
