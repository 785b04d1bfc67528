"""What a study's `run` is handed: progress, metrics, stages and checkpoints."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mindworks.errors import InputError, require
from mindworks.lab import checkpoint
from mindworks.lab.files import dumps, loads, plain, read_sealed, write_sealed
from mindworks.lab.metrics import MetricsFile
from mindworks.lab.progress import Display, Progress

Item = TypeVar("Item")
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")


class Job(Protocol):
    """A loop that can be taken up where its state was taken, such as `mindworks.policies.Training`."""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""

    @property
    def step(self) -> int:
        """How far it is, in the units of the progress shown."""

    def advance(self) -> None:
        """Go on by a little."""

    def metrics(self) -> dict[str, Any]:
        """What to append to `metrics.jsonl` after every advance."""

    def state(self) -> Any:
        """Everything that decides what happens next."""

    def load(self, state: Any) -> None:
        """Go on from where `state` was taken."""


class RunLog:
    """The log of a run in `folder`, or of one stage of it.

    Opening a folder that holds checkpoints continues from them: `metrics.jsonl` is cut where the last checkpoint
    stands, finished stages answer from the disk, and `load` gives back the state saved last. Checkpoints change when
    a run can continue, never the numbers it computes.
    """

    def __init__(
        self,
        folder: Path,
        display: Display | None = None,
        on_save: Callable[[], None] | None = None,
        common: dict[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.display = Display() if display is None else display
        self._scope = ""
        self._checkpoints = self.folder / "checkpoint"
        self._metrics = MetricsFile(self.folder / "metrics.jsonl", _last_offset(self._checkpoints))
        self._on_save = on_save
        self._common = common or {}
        self._start()

    def _start(self) -> None:
        self._used: set[str] = set()
        self._saved_at = time.monotonic()
        self._latest: dict[str, Any] = {}

    def track(
        self, iterable: Iterable[Item], label: str, total: float | None = None, metric: str | None = None
    ) -> Iterator[Item]:
        """Iterate with progress on display; `metric` names the value given to `metric()` that is shown beside it.

        A `range` that starts above zero counts as a loop that is already that far.
        """
        done = 0
        if isinstance(iterable, range) and iterable.step == 1 and total is None:
            done, total = iterable.start, iterable.stop
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        with self.progress(label, total, done) as progress:
            for item in iterable:
                yield item
                shown = {metric: self._latest[metric]} if metric in self._latest else {}
                progress.update(advance=1, **shown)

    def progress(self, label: str, total: float | None = None, completed: float = 0) -> Progress:
        """A handle for a loop that counts steps: `with log.progress("steps", n) as bar: bar.update(completed=k)`."""
        return self.display.start(label, total, completed)

    def metric(self, **values: Any) -> None:
        """Append one line to `metrics.jsonl`; NaN and infinity are stored as null. `stage` is the log's own word."""
        require("stage" not in values, "a metric cannot be called 'stage': the log writes it by itself")
        self._latest.update(values)
        self._metrics.append(self._scope, {**self._common, **values})

    def say(self, text: str) -> None:
        """Print a remark."""
        self.display.say(text)

    def stage(self, name: str, function: Callable[[RunLog], Any]) -> Any:
        """What `function(stage_log)` returns, as plain data; a stage that has finished before is not run again.

        The result of the first run is the same as the one read from the disk: arrays and tuples come back as lists.
        """
        require(_STAGE_NAME.fullmatch(name) is not None, f"stage name must be letters, digits or ._=+-, got {name!r}")
        require(name not in self._used, f"stage name {name!r} is used twice")
        self._used.add(name)
        log = self._child(name)
        return log._finish(self._checkpoints / f"{name}.json", function)

    def tagged(self, **common: Any) -> RunLog:
        """This log, with `common` in each of its further metrics."""
        self._common = {**self._common, **common}
        return self

    def save(self, state: Any, step: int) -> None:
        """Save `state` (nested dicts, lists, tensors, arrays, numbers) at `step`, replacing the state saved before."""
        about = {"step": int(step), "offset": self._metrics.sync(), "lines": self._metrics.position(self._scope)}
        checkpoint.save(self._checkpoints, state, about)
        self._saved()

    def load(self) -> Any:
        """The state saved last, or None: the loop then starts at its beginning."""
        state = checkpoint.load(self._checkpoints)
        about = checkpoint.about(self._checkpoints)
        if about is not None:
            self._metrics.rewind(self._scope, about["lines"])
        return state

    def due(self, seconds: float = 20.0) -> bool:
        """Whether `seconds` have passed since the last save, or since the stage began.

        The environment variable MINDWORKS_CHECKPOINT_SECONDS overrides `seconds`, for machines that may vanish.
        """
        return time.monotonic() - self._saved_at >= _seconds_between_saves(seconds)

    def drive(
        self, job: Job, label: str, total: int, lines: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None
    ) -> None:
        """Advance a job to its end with progress, metrics and checkpoints, from the state saved last.

        `lines` makes several lines of what `job.metrics()` returns, for example one per configuration.
        """
        if (saved := self.load()) is not None:
            job.load(saved)
        with self.progress(label, total, job.step) as bar:
            while not job.done:
                job.advance()
                for line in [job.metrics()] if lines is None else lines(job.metrics()):
                    self.metric(**line)
                bar.update(completed=job.step)
                if self.due():
                    self.save(job.state(), step=job.step)

    def close(self) -> None:
        """Close the metrics file."""
        self._metrics.close()

    def _child(self, name: str) -> RunLog:
        log = object.__new__(RunLog)
        log.folder, log.display = self.folder, self.display
        log._scope = f"{self._scope}/{name}" if self._scope else name
        log._checkpoints = self._checkpoints / name
        log._metrics, log._on_save, log._common = self._metrics, self._on_save, self._common
        log._start()
        return log

    def _finish(self, path: Path, function: Callable[[RunLog], Any]) -> Any:
        """The stored value of `path`, or what `function` returns, stored there."""
        if path.exists():
            return read_sealed(path)["value"]
        value = plain(function(self))
        write_sealed(path, {"offset": self._metrics.sync(), "value": value})
        self._saved()
        return loads(dumps(value))

    def whole(self, function: Callable[[RunLog], Any]) -> Any:
        """What `function(self)` returns, stored like a stage: the last step of a run, not repeated on resuming."""
        return self._finish(self._checkpoints / "_run.json", function)

    def _saved(self) -> None:
        self._saved_at = time.monotonic()
        if self._on_save is not None:
            self._on_save()


def _seconds_between_saves(usual: float) -> float:
    given = os.environ.get("MINDWORKS_CHECKPOINT_SECONDS")
    if given is None:
        return usual
    try:
        return float(given)
    except ValueError as error:
        raise InputError(f"MINDWORKS_CHECKPOINT_SECONDS must be a number of seconds, got {given!r}") from error


def _last_offset(folder: Path) -> int:
    """The furthest place in `metrics.jsonl` that a checkpoint below `folder` vouches for."""
    offsets = [0]
    for path in sorted(folder.rglob("*.json")):
        if path.name.startswith(".") or path.name == "_timing.json":
            continue
        stored = read_sealed(path)
        offsets.append(stored["about"]["offset"] if path.name == "_state.json" else stored["offset"])
    return max(offsets)
