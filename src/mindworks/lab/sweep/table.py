"""What a sweep shows: a row per configuration, live on a terminal, and a line per cell elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mindworks.errors import InputError
from mindworks.lab.folder import read_record
from mindworks.lab.index.facts import claimed
from mindworks.lab.progress import clock, on_terminal
from mindworks.lab.stats import interval
from mindworks.lab.sweep.plan import Cell, Merge, Plan
from mindworks.lab.verdict import number, verdict

_REDRAW = 0.2  # seconds
_REST = 6  # lines of the terminal that the table leaves to the bar and to the head


@dataclass
class _Point:
    """A configuration: its cells, and the records that are there."""

    cells: list[Cell] = field(default_factory=list)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    merged: dict[str, Any] | None = None
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def held(self) -> str:
        """'9/10', from the run of all seeds where there is one, else the mean over the cells."""
        found = [self.merged] if self.merged else list(self.records.values())
        if not found:
            return ""
        if len(found) == 1:
            return verdict(found[0]).removesuffix(" hold")
        share = sum(sum(check["passed"] for check in record["checks"]) for record in found) / len(found)
        return f"{share:.3g}/{len(found[0]['checks'])}"

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of the finished cells."""
        return float(sum(record["timing"]["cpu_s"] for record in self.records.values()))

    def value(self, claim: str) -> str:
        """The value of the first check whose claim holds the words `claim`, with its interval."""
        found = [self.merged] if self.merged else list(self.records.values())
        checks = [check for record in found if (check := claimed(record["checks"], claim)) is not None]
        if not checks:
            return ""
        if len(checks) == 1:
            ends = checks[0].get("interval")
            return number(checks[0]["value"]) + (f" [{number(ends[0])}, {number(ends[1])}]" if ends else "")
        values = [check["value"] for check in checks if check["value"] is not None]
        if not values:
            return "none"
        low, high = interval(values)
        return f"{number(sum(values) / len(values))} [{number(low)}, {number(high)}]"


class Table:
    """The view of a sweep: keeps the standing of every point and shows it.

    `shown` are parts of claims whose values are columns. `live` (default: whether standard output is a terminal)
    redraws a table and a bar; otherwise every cell that ends is a line.
    """

    def __init__(self, shown: Sequence[str] = (), live: bool | None = None) -> None:
        self.shown = tuple(shown)
        self.live = on_terminal() if live is None else live
        self._doubted: set[str] = set()
        self._points: list[_Point] = []
        self._running: set[str] = set()
        self._screen: Any = None
        self._began = time.monotonic()
        self._drawn = 0.0
        self._done = self._total = self._left = 0

    def begin(self, plan: Plan, left: int) -> None:
        """Read the records that are there, and say how much there is to do."""
        self._plan = plan
        self._points = [_Point() for _ in plan.configs]
        for cell in plan.cells:
            self._points[cell.point].cells.append(cell)
            self._read(cell)
        for merge in plan.merges:
            self._points[merge.whole.point].merged = read_record(merge.whole.folder)
        self._total, self._left = len(plan.cells), left
        self._done = self._total - left
        there = f", {self._done} of them there already{self._of_other_code()}" if self._done else ""
        self.say(f"{plan.study.name}: {counted(self._total, 'cell')} in {plan.root}{there}")
        self._doubt_claims()

    def ended(self, cells: tuple[Cell, ...], error: str, again: bool) -> None:
        """Note cells that finished or failed."""
        for cell in cells:
            point = self._points[cell.point]
            self._running.discard(cell.name)
            point.errors.pop(cell.name, None)
            if error:
                if not again:
                    point.errors[cell.name] = error
                self.say(f"{'trying again' if again else 'FAILED'}  {cell.name}: {error}")
                continue
            self._read(cell)
            self._done += 1
            if not self.live:
                record = point.records.get(cell.name)  # a shared disk may show it later
                took = f"{verdict(record)}, {record['timing']['cpu_s']:.1f} CPU s" if record else "finished"
                self.say(f"[{self._done}/{self._total}]  {cell.name}: {took}")
        self._doubt_claims()
        self._draw()

    def merged(self, merge: Merge, error: str, again: bool) -> None:
        """Note the run of all seeds of a configuration."""
        if error:
            self.say(f"{'trying again' if again else 'FAILED'}  {merge.whole.name}: {error}")
        else:
            self._points[merge.whole.point].merged = read_record(merge.whole.folder)
        self._draw()

    def tick(self, running: list[str]) -> None:
        """Note what is being computed."""
        self._running = set(running)
        self._draw()

    def say(self, text: str) -> None:
        """Print a line; on a terminal it appears above the table."""
        if self._screen is not None:
            self._screen.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def text(self) -> str:
        """The table as plain lines, one per point."""
        return "\n".join(self._lines())

    @contextmanager
    def open(self) -> Iterator[None]:
        """Within, a terminal shows the table and redraws it."""
        if not self.live:
            yield
            return
        from rich.live import Live

        with Live(auto_refresh=False, transient=True) as self._screen:
            try:
                yield
            finally:
                self._screen = None

    def _read(self, cell: Cell) -> None:
        if (record := read_record(cell.folder)) is not None:
            self._points[cell.point].records[cell.name] = record

    def _of_other_code(self) -> str:
        """' (made by another commit: abc)' where finished cells are of code that is not this."""
        from mindworks.lab.record import commit

        records = [record for point in self._points for record in point.records.values()]
        others = {str(record["environment"]["commit"])[:12] for record in records} - {str(commit())[:12]}
        return f" (of other code: commit {', '.join(sorted(others))})" if others else ""

    def _doubt_claims(self) -> None:
        """Refuse a `--show` that no record's claims know; say it, once, where a cell to come may have such a claim."""
        checks = [check for point in self._points for record in point.records.values() for check in record["checks"]]
        for part in self.shown:
            if part in self._doubted or not checks or claimed(checks, part) is not None:
                continue
            self._doubted.add(part)
            if not self._left:
                raise InputError(f"--show: no claim of this study holds the words {part!r}")
            self.say(f"--show: so far no claim holds the words {part!r}")

    def _lines(self) -> list[str]:
        fields = list(dict.fromkeys(name for shown in self._plan.shown for name in shown))
        rows = [[*fields, "cells", "hold", *self.shown, "CPU s", ""]]
        for point, shown in zip(self._points, self._plan.shown, strict=True):
            count = f"{len(point.records)}/{len(point.cells)}"
            row = [*(_text(shown.get(name)) for name in fields), count, point.held]
            row += [point.value(claim) for claim in self.shown]
            rows.append([*row, f"{point.cpu_seconds:.1f}" if point.records else "", self._state(point)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

    def _state(self, point: _Point) -> str:
        at_work = sum(cell.name in self._running for cell in point.cells)
        failed = len(point.errors)
        return ", ".join([*([f"{at_work} running"] if at_work else []), *([f"{failed} failed"] if failed else [])])

    def _draw(self) -> None:
        now = time.monotonic()
        if self._screen is None or now - self._drawn < _REDRAW:
            return
        self._drawn = now
        from rich.text import Text

        lines, height = self._lines(), shutil.get_terminal_size().lines - _REST
        hidden = len(lines) - 1 - max(1, height)
        if hidden > 0:
            lines = [*lines[: height + 1], f"... and {hidden} more"]
        elapsed = now - self._began
        since = self._done - (self._total - self._left)
        ahead = clock(elapsed / since * (self._total - self._done)) if since else "?"
        share = f"{self._done}/{self._total} cells  elapsed {clock(elapsed)}  left {ahead}"
        self._screen.update(Text("\n".join([*lines, "", share]), no_wrap=True, overflow="ellipsis"), refresh=True)


def counted(number: int, thing: str) -> str:
    """'1 cell', '2 cells'."""
    return f"{number} {thing}{'s' * (number != 1)}"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ":".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
