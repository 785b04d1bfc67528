"""The log: valid JSON lines, stages that are run once, progress that can be read."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mindworks.errors import InputError
from mindworks.lab import RunLog
from mindworks.lab import progress as progress_module
from mindworks.lab.files import dumps, loads, plain
from mindworks.lab.progress import Display, clock


class Crash(Exception):
    """Stands in for the end of a process."""


def _quiet(folder: Path) -> RunLog:
    return RunLog(folder, Display(terminal=False))


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _strict(text: str) -> object:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_metrics_are_valid_json(tmp_path: Path) -> None:
    log = _quiet(tmp_path)
    log.metric(step=1, loss=math.nan, worst=-math.inf, place=np.arange(2), scalar=np.float32(0.5), name="x")
    line = (tmp_path / "metrics.jsonl").read_text()
    assert _strict(line) == {"step": 1, "loss": None, "worst": None, "place": [0, 1], "scalar": 0.5, "name": "x"}


def test_the_word_stage_belongs_to_the_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'stage'"):
        _quiet(tmp_path).metric(stage="mine")


def test_plain_values_round_trip_exactly() -> None:
    value = {"a": (0.1, math.inf, np.float64(1 / 3)), 3: [np.int64(4), True, None], "n": np.array([[1.5, math.nan]])}
    text = dumps(plain(value))
    _strict(text)
    back = loads(text)
    assert back["a"] == [0.1, math.inf, 1 / 3]
    assert back["3"] == [4, True, None]
    assert back["n"][0][0] == 1.5
    assert math.isnan(back["n"][0][1])
    with pytest.raises(TypeError, match="set is not plain"):
        plain({"s": {1}})


def test_a_finished_stage_answers_from_the_disk(tmp_path: Path) -> None:
    calls = []

    def stage(log: RunLog) -> dict:
        calls.append(1)
        log.metric(x=1)
        return {"curve": (np.float32(0.1), math.nan), 2: 3}

    first, second = (_quiet(tmp_path).stage("one", stage) for _ in range(2))
    assert calls == [1]
    assert dumps(first) == dumps(second)
    assert type(first["curve"]) is type(second["curve"]) is list
    assert _lines(tmp_path) == [{"stage": "one", "x": 1}]


@pytest.mark.parametrize("name", ["", "../up", "a/b", "_run", ".hidden", "a b"])
def test_stage_names_stay_inside_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stage name"):
        _quiet(tmp_path).stage(name, lambda log: None)


def test_one_stage_name_cannot_serve_two_stages(tmp_path: Path) -> None:
    log = _quiet(tmp_path)
    log.stage("a", lambda log: 1)
    with pytest.raises(InputError, match="used twice"):
        log.stage("a", lambda log: 2)


def _program(log: RunLog, crash_at: int) -> dict:
    """Lines outside stages, a nested stage, a loop that saves every third step; dies before its line `crash_at`."""
    count = 0

    def line(log: RunLog, **values: object) -> None:
        nonlocal count
        count += 1
        if count == crash_at:
            raise Crash
        log.metric(**values)

    def loop(log: RunLog) -> list:
        state = log.load() or {"step": 0, "total": np.zeros(2)}
        total = state["total"]
        for step in range(state["step"], 7):
            total = total + step
            line(log, step=step, total=total)
            if step % 3 == 2:
                log.save({"step": step + 1, "total": total}, step + 1)
        return total.tolist()

    def outer(log: RunLog) -> dict:
        line(log, outer="begins")
        inner = log.stage("inner", loop)
        line(log, outer="ends")
        return {"inner": inner}

    line(log, begin=1)
    first = log.stage("first", loop)
    line(log, between=1)
    line(log, between=2)
    second = log.stage("outer", outer)
    line(log, end=1)
    return {"first": first, "second": second}


def _program_with_root_state(log: RunLog, crash_at: int) -> dict:
    """The same outside every stage: the run saves by itself, with a stage between two of its saves."""
    lines = iter(range(1, 100))

    def line(log: RunLog, **values: object) -> None:
        if next(lines) == crash_at:
            raise Crash
        log.metric(**values)

    state = log.load() or {"step": 0, "total": 0.0}
    for step in range(state["step"], 4):
        line(log, step=step)
        state["total"] += log.stage(f"part{step}", lambda log, step=step: line(log, part=step) or step / 3)
        line(log, total=state["total"])
        if step % 2:
            log.save({"step": step + 1, "total": state["total"]}, step + 1)
    line(log, end=True)
    return {"total": state["total"]}


@pytest.mark.parametrize("program", [_program, _program_with_root_state])
@pytest.mark.parametrize("crash_at", range(1, 21))
def test_no_line_is_lost_or_repeated_wherever_a_run_dies(
    program: Callable[[RunLog, int], dict], crash_at: int, tmp_path: Path
) -> None:
    whole = _quiet(tmp_path / "whole").whole(lambda log: program(log, -1))
    folder = tmp_path / "broken"
    with contextlib.suppress(Crash):
        _quiet(folder).whole(lambda log: program(log, crash_at))
    folder.mkdir(exist_ok=True)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"half a li')
    for again in (3, -1):  # die once more, then finish
        try:
            resumed = _quiet(folder).whole(lambda log, again=again: program(log, again))
        except Crash:
            continue
    assert resumed == whole
    assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_shortened_metrics_file_is_refused(tmp_path: Path) -> None:
    _quiet(tmp_path).stage("a", lambda log: log.metric(x=1))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        _quiet(tmp_path)


def test_due_counts_from_the_last_save(tmp_path: Path) -> None:
    log = _quiet(tmp_path)
    assert not log.due(1000.0)
    assert log.due(0.0)
    log._saved_at -= 50
    assert log.due(20)
    log.save({}, 0)
    assert not log.due(20)


def test_piped_progress_is_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = _quiet(tmp_path)
    for step in log.track(range(5, 10), "walk", metric="loss"):
        log.metric(loss=step / 3)
    assert capsys.readouterr().out == ""  # short loops leave no line
    with log.progress("steps", 200) as bar:
        bar._shown -= progress_module.LINE_SECONDS
        bar.began -= 10
        bar.update(completed=50, best=np.float32(1.25))
        bar.update(completed=60)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("steps 50/200 (25 %)  ")
    assert "best=1.25" in lines[0]
    assert "left 0:30" in lines[0]
    assert lines[1].startswith("steps 60/200 (30 %)")


def test_bars_on_a_terminal_show_count_and_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, Display(terminal=True))
    for step in log.track(range(3), "outer", metric="loss"):
        log.metric(loss=step + 0.5)
        for _ in log.track([1, 2], "inner"):
            log.say("a remark")
    for _ in log.track(iter("ab"), "unknown length"):
        pass
    out = capsys.readouterr().out
    assert out.count("a remark") == 6
    assert "outer" in out
    assert "loss=2.5" in out


def test_a_closed_display_leaves_open_loops_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(terminal=True)
    log = RunLog(tmp_path, display)
    loop = iter(log.track(range(3), "loop"))
    next(loop)
    display.close()
    assert list(loop) == [1, 2]
    with log.progress("another", 2) as bar:
        bar.update(completed=1)
    assert "another" in capsys.readouterr().out


def test_clock() -> None:
    assert [clock(5), clock(65), clock(3725)] == ["0:05", "1:05", "1:02:05"]


def test_the_environment_says_how_often_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tmp_path)
    assert not log.due()
    monkeypatch.setenv("MINDWORKS_CHECKPOINT_SECONDS", "0")
    assert log.due()
    monkeypatch.setenv("MINDWORKS_CHECKPOINT_SECONDS", "often")
    with pytest.raises(InputError, match="MINDWORKS_CHECKPOINT_SECONDS must be a number of seconds, got 'often'"):
        log.due()
