"""A run on several processes: what rank 0 tells the others, and real processes that are killed and resumed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mindworks import cli
from mindworks.errors import InputError
from mindworks.lab import RunLog, ranks
from toys import apart, line, walk

START = """import sys
sys.path.insert(0, {path!r})
from mindworks.cli import main
if __name__ == "__main__":
    sys.exit(main(package="toys"))
"""
RUN_BY_TORCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


class Wire(ranks.Channel):
    """One end of a channel in one process: rank 0 speaks first, then the other listens to the tape."""

    def __init__(self, rank: int, tape: deque[bytes], failures: list[tuple[int, int]]) -> None:
        self.rank, self.running = rank, False
        self._tape, self._failures = tape, failures

    def _broadcast(self, content: bytearray, start: int, count: int) -> None:
        if self.rank == 0:
            self._tape.append(bytes(content[start : start + count]))
        else:
            told = self._tape.popleft()
            assert len(told) == count
            content[start : start + count] = told

    def note(self, status: int) -> tuple[int, int]:
        self._failures.append((self.rank, status))
        return self._failures[0]

    def failed(self) -> tuple[int, int] | None:
        return self._failures[0] if self._failures else None

    def wait_for_failure(self, seconds: float) -> None:
        assert seconds > 0

    def over(self, status: int) -> None:
        if self.running:
            self.note(status)
        else:
            self.share("over", status)


@pytest.fixture
def ends() -> tuple[Wire, Wire]:
    """Both ends of one channel."""
    tape: deque[bytes] = deque()
    failures: list[tuple[int, int]] = []
    return Wire(0, tape, failures), Wire(1, tape, failures)


@pytest.mark.parametrize("chunk", [7, 2**28])
def test_values_of_every_size_arrive(ends: tuple[Wire, Wire], chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_CHUNK", chunk)
    first, other = ends
    sent = [None, True, {"a": [1, (2.5, "é")]}, *("x" * size for size in range(210, 240)), math.inf]
    state = {"w": torch.arange(6.0).reshape(2, 3), "n": np.arange(3), 5: torch.zeros(0, dtype=torch.bfloat16)}
    for value in [*sent, state]:
        assert first.share("topic", value) is value
    for value in sent:
        assert other.share("topic") == value
    told = other.share("topic")
    assert torch.equal(told["w"], state["w"])
    assert told["n"].tolist() == [0, 1, 2]
    assert told[5].dtype == torch.bfloat16
    assert not other._tape


def test_calls_that_differ_are_named(ends: tuple[Wire, Wire]) -> None:
    first, other = ends
    first.share("begin a", True)
    with pytest.raises(RuntimeError, match="rank 1 is at 'load', rank 0 at 'begin a'"):
        other.share("load")


def _two_stages(calls: list[str], die: bool = False) -> Callable[[RunLog], dict[str, Any]]:
    def stage(name: str) -> Callable[[RunLog], Any]:
        def function(log: RunLog) -> Any:
            calls.append(name)
            state = log.load() or {"step": 0, "w": torch.zeros(2)}
            for step in log.track(range(state["step"], 4), name):
                log.metric(step=step)
                if log.due(0.0):
                    log.save({"step": step + 1, "w": state["w"] + step}, step + 1)
                if die and name == "b" and step == 2:
                    raise KeyboardInterrupt
            calls.append(f"{name} from {state['step']}")
            return {"calls": len(calls)}

        return function

    return lambda log: {name: log.stage(name, stage(name)) for name in "ab"}


def test_the_others_take_the_path_of_rank_0(ends: tuple[Wire, Wire], tmp_path: Path) -> None:
    first, other = ends
    calls: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _two_stages(calls, die=True)(ranks.SharedLog(first, RunLog(tmp_path), tmp_path))
    with pytest.raises(IndexError):  # the others wait for what rank 0 no longer says
        _two_stages([])(ranks.SharedLog(other, None, tmp_path))
    led, followed = [], ["a call more"]
    data = _two_stages(led)(ranks.SharedLog(first, RunLog(tmp_path), tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    told = _two_stages(followed)(ranks.SharedLog(other, None, tmp_path))
    assert led == followed[1:] == ["b", "b from 3"]
    assert told == data  # the count of its own calls would be another
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    lines = [json.loads(each) for each in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [each["step"] for each in lines] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_run_is_told_and_followed(
    ends: tuple[Wire, Wire], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = ends
    config = walk.Config(steps=3)
    found: list[Any] = []

    def lead(share: Callable[..., Any]) -> int:
        log = RunLog(tmp_path)
        found.append(share(walk.STUDY).run(config, [4, 5], log))
        return 1

    assert ranks._lead(first, lead) == 1
    assert ranks._follow(other, {"walk": walk.STUDY}.__getitem__) == 1
    assert found == [walk.run(config, [4, 5], RunLog(tmp_path / "alone"))]
    assert capsys.readouterr() == ("", "")


def test_a_failure_is_told_by_the_first_that_fails(
    ends: tuple[Wire, Wire], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = ends
    config = line.Config(batch=1)

    def lead(share: Callable[..., Any]) -> int:
        share(line.STUDY).run(config, [0], RunLog(tmp_path))
        return 0

    def unlucky(name: str) -> Any:
        raise InputError("luck must be good, got 13")

    ranks._lead(first, lead)
    assert ranks._follow(other, unlucky) == 2
    assert capsys.readouterr().err == "mindworks: rank 1: luck must be good, got 13\n"
    with pytest.raises(ranks.RanksFailed, match="rank 1 has failed") as caught:
        ranks._blame(first, KeyboardInterrupt())
    assert caught.value.status == 2
    third = Wire(2, deque(), other._failures)  # it fails as a consequence, and is silent
    assert ranks._follow(third, unlucky) == 2
    assert capsys.readouterr().err == ""


def test_a_study_with_processes_of_its_own_is_refused(ends: tuple[Wire, Wire]) -> None:
    first, other = ends
    with pytest.raises(InputError, match="'apart' gives every seed a process of its own: start it without torchrun"):
        ranks._lead(first, lambda share: bool(share(apart.STUDY)))
    assert ranks._follow(other, lambda name: apart.STUDY) == ranks.CRASH


def test_a_broken_environment_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    assert cli.main(["run", "walk"], package="toys") == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "the processes that torchrun started do not meet" in complaint
    assert "RANK" in complaint


# -- real processes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def together(tmp_path: Path) -> list[str]:
    """The words that start the command line on the toy studies in two processes."""
    script = tmp_path / "start.py"
    script.write_text(START.format(path=str(Path(__file__).parents[1])))
    return [*RUN_BY_TORCH, str(script)]


def _ended(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def _only(folder: Path) -> Path:
    (found,) = (path for path in folder.iterdir() if path.is_dir())
    return found


def test_killed_and_resumed_on_two_processes_gives_the_numbers_of_one(together: list[str], tmp_path: Path) -> None:
    words = ["run", "line", "--out", "runs", "--pause", "0.05", "--save-every", "0.1"]
    process = subprocess.Popen([*together, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "runs").glob("*/checkpoint/second/_state.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
    folder = _only(tmp_path / "runs")
    os.kill(int((folder / ".lock").read_text()), signal.SIGKILL)
    process.communicate(timeout=60)  # torchrun waits for the other process, which must end too
    assert process.returncode != 0
    assert not (folder / "result.json").exists()

    ended = _ended([*together, "run", "line", "--resume", str(folder)], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("no weight is large") == 1
    record = json.loads((folder / "result.json").read_text())
    assert record["environment"]["processes"] == 2
    alone = line.run(line.Config(), [0], RunLog(tmp_path / "alone"))
    data = json.loads((folder / "data.json").read_text())
    for stage in ("first", "second"):
        assert np.allclose(data[stage], alone[stage], rtol=1e-10, atol=1e-10)
    lines, wanted = (
        [json.loads(each) for each in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (folder, tmp_path / "alone")
    )
    assert [(each["stage"], each["step"]) for each in lines] == [(each["stage"], each["step"]) for each in wanted]
    assert np.allclose([each["loss"] for each in lines], [each["loss"] for each in wanted], rtol=1e-10, atol=1e-10)


def test_a_failing_process_ends_the_other_in_one_line_each(together: list[str], tmp_path: Path) -> None:
    ended = _ended([*together, "run", "line", "--out", "runs", "--fault", "input"], tmp_path)
    assert ended.returncode != 0
    said = [each for each in ended.stderr.splitlines() if each.startswith("mindworks:")]
    assert sorted(each.partition(";")[0] for each in said) == [
        "mindworks: rank 1: rows must be readable, got 13",
        "mindworks: the process of rank 1 has failed",
    ]
    assert sum("; continue with: mindworks run line --resume runs" in each for each in said) == 1
    assert "InputError" not in ended.stderr
