"""What became of the claims of studies since their last records."""

from __future__ import annotations

import shlex
import signal
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.lab.processes import CRASH
from mindworks.lab.verdict import WIDTH, number, verdict


@dataclass(frozen=True)
class Outcome:
    """One study: its last record, the one made now (None: the run in `folder` ended with `status` before its end)."""

    name: str
    before: dict[str, Any] | None
    now: dict[str, Any] | None
    folder: Path
    status: int = 0


@dataclass(frozen=True)
class Change:
    """A claim whose verdict differs; None: it did not stand there. `check` is the newest that is known of it."""

    held: bool | None
    holds: bool | None
    check: dict[str, Any]

    @property
    def lost(self) -> bool:
        """Whether the claim held and does so no more, or is gone."""
        return self.held is True and not self.holds

    def words(self) -> str:
        """'held, fails now: CLAIM: VALUE OP BAR'."""
        check = self.check
        before = {True: "held", False: "failed", None: "new"}[self.held]
        now = {True: "holds now", False: "fails now", None: "is gone"}[self.holds]
        return f"{before}, {now}: {check['claim']}: {number(check['value'])} {check['op']} {number(check['bar'])}"


def changes(before: dict[str, Any] | None, now: dict[str, Any] | None) -> list[Change]:
    """The claims, known by their texts, whose verdicts differ in two records; none where there is one record alone."""
    if before is None or now is None:
        return []
    old, new = _by_text(before), _by_text(now)
    found = []
    for key in [*new, *(key for key in old if key not in new)]:
        held = old[key]["passed"] if key in old else None
        holds = new[key]["passed"] if key in new else None
        if held != holds:
            found.append(Change(held, holds, new.get(key) or old[key]))
    return found


def _by_text(record: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """The checks by claim; a text that stands several times is counted."""
    seen: Counter[str] = Counter()
    found = {}
    for check in record["checks"]:
        found[check["claim"], seen[check["claim"]]] = check
        seen[check["claim"]] += 1
    return found


def exit_status(outcomes: list[Outcome]) -> int:
    """That of the first run that did not finish; else 1 where a claim that held is lost; else 0."""
    for outcome in outcomes:
        if outcome.now is None:
            return outcome.status if outcome.status > 0 else CRASH
    return int(any(change.lost for outcome in outcomes for change in changes(outcome.before, outcome.now)))


def summary(outcomes: list[Outcome]) -> str:
    """The verdicts of every study before and now, every claim that changed, and the runs that did not finish."""
    lines = [f"{'study':<16} {'before':<14} now"]
    for outcome in outcomes:
        now = verdict(outcome.now) if outcome.now is not None else f"not finished, {_ended(outcome.status)}"
        lines.append(f"{outcome.name:<16} {verdict(outcome.before):<14} {now}")
    for outcome in outcomes:
        changed = changes(outcome.before, outcome.now)
        lines += ["", outcome.name] if changed else []
        for change in changed:
            lines += textwrap.wrap(change.words(), WIDTH, initial_indent="  ", subsequent_indent="    ")
    unfinished = [outcome for outcome in outcomes if outcome.now is None]
    lines += ["", "continue with, then keep with `mindworks claims --record DIR`:"] if unfinished else []
    lines += [f"  mindworks run {each.name} --resume {shlex.quote(str(each.folder))}" for each in unfinished]
    return "\n".join(lines)


def _ended(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
