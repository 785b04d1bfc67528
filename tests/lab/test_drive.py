"""`RunLog.drive`: a job runs to its end, logs, saves when it is due, and ends the same wherever it was cut."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindworks.lab import RunLog, checkpoint
from mindworks.lab.progress import Display, Progress

END = 20


class Crash(Exception):
    """Stands in for the end of a process."""


class Walk:
    """A random walk, one to three steps at a time; it dies in its advance number `crash_at`, before or after moving."""

    def __init__(self, seed: int = 0, crash_at: int = 0, late: bool = False) -> None:
        self.rng, self.place, self.step = random.Random(seed), np.zeros(2), 0
        self.crash_at, self.late, self.advances = crash_at, late, 0

    @property
    def done(self) -> bool:
        return self.step >= END

    def advance(self) -> None:
        self.advances += 1
        if self.advances == self.crash_at and not self.late:
            raise Crash
        self.step += self.rng.randint(1, 3)
        self.place += (self.rng.gauss(0, 1), 1)
        if self.advances == self.crash_at:
            raise Crash

    def metrics(self) -> dict[str, Any]:
        return {"step": self.step, "place": self.place}

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "place": self.place, "random": self.rng.getstate()}

    def load(self, state: dict[str, Any]) -> None:
        self.step, self.place = state["step"], state["place"].copy()
        self.rng.setstate(state["random"])


class Watching(Display):
    """A display without a terminal that notes every loop begun and every count shown."""

    def __init__(self) -> None:
        super().__init__(terminal=False)
        self.begun: list[tuple] = []
        self.counts: list[float] = []

    def start(self, label: str, total: float | None, completed: float = 0) -> Progress:
        self.begun.append((label, total, completed))
        bar = super().start(label, total, completed)
        update = bar.update

        def watched(completed: float | None = None, **rest: Any) -> None:
            self.counts.append(completed)
            update(completed, **rest)

        bar.update = watched  # type: ignore[method-assign]
        return bar


def drive(folder: Path, job: Walk, stage: str | None = "walk", display: Display | None = None) -> Walk:
    """The job after it was driven in `folder`, in a stage that does not finish or outside any."""
    log = RunLog(folder, Display(terminal=False) if display is None else display)
    log = log if stage is None else log._child(stage)
    try:
        log.drive(job, "walk", END)
    finally:
        log.close()
    return job


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes every third look at the clock a save; lists the steps that were saved."""
    looks, steps, save = iter(range(1, 10**6)), [], RunLog.save

    def note(log: RunLog, state: Any, step: int) -> None:
        steps.append(step)
        save(log, state, step)

    monkeypatch.setattr(RunLog, "due", lambda log, seconds=20.0: next(looks) % 3 == 0)
    monkeypatch.setattr(RunLog, "save", note)
    return steps


@pytest.mark.parametrize("stage", [None, "walk"])
def test_a_job_runs_to_its_end_and_logs_every_advance(tmp_path: Path, stage: str | None) -> None:
    job, twin, display, expected = Walk(), Walk(), Watching(), []
    drive(tmp_path, job, stage, display)
    while not twin.done:
        twin.advance()
        scope = {} if stage is None else {"stage": stage}
        expected.append({**scope, "step": twin.step, "place": twin.place.tolist()})
    assert lines(tmp_path) == expected
    assert job.state()["step"] == twin.step >= END
    assert display.begun == [("walk", END, 0)]
    assert display.counts == [line["step"] for line in expected]


@pytest.mark.parametrize(("seconds", "saved"), [("1000", False), ("0", True)])
def test_it_saves_when_it_is_due(tmp_path: Path, seconds: str, saved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDWORKS_CHECKPOINT_SECONDS", seconds)
    with pytest.raises(Crash):
        drive(tmp_path, Walk(crash_at=4))
    state = checkpoint.load(tmp_path / "checkpoint" / "walk")
    assert (state is not None) == saved
    if saved:
        assert state["step"] == lines(tmp_path)[-1]["step"]
        assert len(lines(tmp_path)) == 3


@pytest.mark.parametrize("stage", [None, "walk"])
@pytest.mark.parametrize("late", [False, True], ids=["before it moves", "after it moved"])
@pytest.mark.parametrize("crash_at", range(1, 9))
def test_a_job_that_died_goes_on_to_the_same_end_and_the_same_lines(
    tmp_path: Path, crash_at: int, late: bool, stage: str | None, saves: list[int]
) -> None:
    whole = drive(tmp_path / "whole", Walk(), stage)
    del saves[:]
    folder = tmp_path / "broken"
    folder.mkdir()
    with pytest.raises(Crash):
        drive(folder, Walk(crash_at=crash_at, late=late), stage)
    begin = saves[-1] if saves else 0
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"half a li')
    resumed = drive(folder, Walk(seed=7) if saves else Walk(), stage)
    assert resumed.advances == sum(line["step"] > begin for line in lines(folder))
    assert str(resumed.state()) == str(whole.state())
    assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_progress_goes_on_where_the_job_was_taken_up(tmp_path: Path, saves: list[int]) -> None:
    with pytest.raises(Crash):
        drive(tmp_path, Walk(crash_at=6))
    display = Watching()
    drive(tmp_path, Walk(), display=display)
    assert saves[0] > 0
    assert display.begun == [("walk", END, saves[0])], "steps done before would count towards the rate"


def test_a_job_that_is_done_is_left_alone(tmp_path: Path) -> None:
    job = Walk()
    job.step = END
    assert drive(tmp_path, job).advances == 0
    assert not (tmp_path / "metrics.jsonl").exists() or lines(tmp_path) == []


def test_a_job_saved_at_its_end_does_not_advance_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDWORKS_CHECKPOINT_SECONDS", "0")
    whole = drive(tmp_path, Walk())
    before = lines(tmp_path)
    again = drive(tmp_path, Walk(seed=7))
    assert again.advances == 0
    assert str(again.state()) == str(whole.state())
    assert lines(tmp_path) == before
