"""Driving a sweep: what is left goes to the engine, what fails or is lost goes there again as told."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Protocol

from mindworks import __version__
from mindworks.errors import InputError, require
from mindworks.lab.files import dumps, loads, write_atomic
from mindworks.lab.folder import locked
from mindworks.lab.processes import CRASH
from mindworks.lab.sweep.engine import Ended, Engine
from mindworks.lab.sweep.plan import Batch, Cell, Merge, Plan
from mindworks.lab.sweep.work import job, record_error

LOSSES = 3  # a cell whose process dies more often than that has failed: it may be what kills them
PAUSE = 0.5


class View(Protocol):
    """Who is told how a sweep goes."""

    def begin(self, plan: Plan, left: int) -> None:
        """A sweep begins, or goes on, with `left` cells to compute."""

    def ended(self, cells: tuple[Cell, ...], error: str, again: bool) -> None:
        """Cells have finished, or failed with `error`; `again`: they are tried once more."""

    def merged(self, merge: Merge, error: str, again: bool) -> None:
        """The run of all seeds of a configuration is there, or could not be made; `again`: it is tried once more."""

    def tick(self, running: list[str]) -> None:
        """Nothing happened for a moment; the names of what is being computed."""


class Sweep:
    """A plan being carried out: `run` returns the names of what failed, with the error of each, in a line.

    `retries`: how often a failing cell is tried again. A cell whose process is killed, or whose machine vanishes, is
    tried again in any case, `LOSSES` times. `together`: at most so many cells in one call of `run_many`, 0 for all.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        view: View,
        retries: int = 0,
        together: int = 0,
        figures: bool = False,
        track: tuple[str, ...] = (),
    ) -> None:
        require(retries >= 0, f"--retries must be at least 0, got {retries}")
        require(together >= 0, f"--together must be at least 0, got {together}")
        self.plan, self.engine, self.view = plan, engine, view
        self.retries, self.together, self.figures, self.track = retries, together, figures, track
        self.failed: dict[str, str] = {}
        self._open: dict[str, Batch | Merge] = {}
        self._failures: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._lacking: dict[str, set[str]] = {}
        self._merge_of: dict[str, Merge] = {}

    def run(self) -> dict[str, str]:
        """Carry the plan out; interrupted, it leaves every finished cell finished."""
        with locked(self.plan.root):
            batches = self.plan.batches(self.together)
            self.view.begin(self.plan, sum(len(batch.cells) for batch in batches))
            for batch in batches:
                self._submit(batch)
            self._wait_for_parts()
            while self._open:
                ended = self.engine.wait(PAUSE)
                for each in ended:
                    self._take(each)
                if not ended:
                    at_work = (self._open[key] for key in self.engine.running() if key in self._open)
                    self.view.tick([cell.name for task in at_work for cell in _cells(task)])
        return self.failed

    def _submit(self, task: Batch | Merge) -> None:
        name = task.whole.name if isinstance(task, Merge) else task.name
        self._open[name] = task
        self.engine.submit(name, job(self.plan, task, self.figures, self.track))

    def _wait_for_parts(self) -> None:
        """Note what every merge still lacks; those that lack nothing begin."""
        self._merge_of = {part.name: merge for merge in self.plan.merges for part in merge.parts}
        for merge in self.plan.merges:
            if not merge.whole.finished:
                self._lacking[merge.whole.name] = {part.name for part in merge.parts if not part.finished}
                if not self._lacking[merge.whole.name]:
                    self._submit(merge)

    def _has_finished(self, cell: Cell) -> None:
        """A merge begins with the last of its parts."""
        merge = self._merge_of.get(cell.name)
        if merge is not None and (lacking := self._lacking.get(merge.whole.name)):
            lacking.discard(cell.name)
            if not lacking:
                self._submit(merge)

    def _take(self, ended: Ended) -> None:
        task = self._open.pop(ended.key)
        cells = _cells(task)
        if ended.outcome is None:
            self._losses[ended.key] += 1
            error, again = ended.lost, self._losses[ended.key] <= LOSSES
            if not again:
                record_error([cell.folder for cell in cells], f"{error}, {LOSSES + 1} times", CRASH)
        else:
            error = ended.outcome["error"] if ended.outcome["status"] != "finished" else ""
            self._failures[ended.key] += bool(error)
            again = bool(error) and self._failures[ended.key] <= self.retries
        if isinstance(task, Batch) and len(cells) > 1 and error and not again:
            self.view.ended(cells, f"{error} (each of them is tried alone)", True)
            for cell in cells:  # one of them may be what spoils the others
                self._submit(Batch((cell,)))
            return
        if isinstance(task, Merge):
            self.view.merged(task, error, again)
        else:
            self.view.ended(cells, error, again)
        if again:
            self._submit(task)
        elif error:
            self.failed[ended.key] = error
        elif isinstance(task, Batch):
            for cell in cells:
                self._has_finished(cell)


def _cells(task: Batch | Merge) -> tuple[Cell, ...]:
    return (task.whole,) if isinstance(task, Merge) else task.cells


def claim_folder(plan: Plan, command: str) -> None:
    """Make the sweep's folder, or go on in it; raises InputError where it is one of another study, or in use."""
    path = plan.root / "sweep.json"
    if path.exists():
        held = _study_of(path)
        if held != plan.study.name:
            raise InputError(f"--out {plan.root}: a sweep of the study {held} is there")
    about = {"study": plan.study.name, "scale": plan.scale, "command": command, "mindworks": __version__}
    plan.root.mkdir(parents=True, exist_ok=True)
    with locked(plan.root):  # a sweep that is refused leaves the description of the one at work
        write_atomic(path, dumps({**about, "begun": time.strftime("%Y-%m-%dT%H:%M:%S")}, indent=1) + "\n")


def _study_of(path: Path) -> str:
    try:
        return str(loads(path.read_text(encoding="utf-8"))["study"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"damaged {path}: not the description of a sweep") from error
