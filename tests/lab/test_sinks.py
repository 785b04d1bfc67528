"""What is sent where: names and steps of curves, files that grow and are cut, sinks that fail, runs that end early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mindworks.cli import main
from mindworks.errors import InputError, MissingExtra
from mindworks.lab import sinks
from mindworks.lab.flags import grid, parse
from mindworks.lab.progress import Display
from mindworks.lab.runner import execute
from mindworks.lab.sinks import sink as sink_module
from mindworks.lab.sinks.curves import Curves
from mindworks.lab.sinks.follow import State
from mindworks.lab.sinks.tail import Tail
from toys import walk

WALK = walk.STUDY


class Listening(Display):
    """A display that keeps what is said."""

    def __init__(self) -> None:
        super().__init__(terminal=False)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warnings(self) -> list[str]:
        return [text for text in self.said if text.startswith("warning")]


def tracked(folder: Path, *track: str, resume: bool = False, display: Display | None = None) -> dict:
    """The record of the walk at scale smoke, with sinks."""
    return execute(WALK, WALK.defaults("smoke"), "smoke", [0], folder, resume, display or Listening(), track=track)


def points(*lines: dict) -> list:
    curves = Curves()
    return [curves.point(line) for line in lines]


def followers(folder: Path) -> list[int]:
    """Processes of sinks that follow `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words and any(b"sinks.follow" in word for word in words):
            found.append(int(path.name))
    return found


def until(true: Callable[[], object]) -> None:
    """Wait for it, for 60 seconds at most."""
    end = time.monotonic() + 60
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    assert true()


# -- curves -----------------------------------------------------------------------------------------------------------


def test_a_curve_is_named_by_stage_and_key_and_has_the_lines_own_step() -> None:
    (point,) = points({"stage": "out/far", "step": 30, "mean": 0.5})
    assert point.values == {"out/far/step": 30, "out/far/mean": 0.5}
    assert (point.run, point.prefix, point.axis, point.step, point.row) == ("", "out/far/", "step", 30, 0)
    assert points({"loss": 1.0})[0].values == {"loss": 1.0}


def test_lines_without_a_step_are_counted_for_each_prefix() -> None:
    found = points({"a": 1.0}, {"stage": "s", "a": 2.0}, {"a": 3.0}, {"steps": 7, "a": 4.0}, {"step": 1.5, "a": 5.0})
    assert [(p.axis, p.step) for p in found] == [("line", 1), ("line", 1), ("line", 2), ("steps", 7), ("line", 4)]
    assert [p.row for p in found] == [0, 1, 2, 3, 4]


def test_words_of_a_line_name_its_curves_and_long_ones_are_left_out() -> None:
    found = points({"stage": "s", "rule": "most votes!", "accuracy": 0.5, "text": "x" * 41})
    assert found[0].values == {"s/most-votes/accuracy": 0.5}


def test_a_seed_has_curves_of_its_own_under_the_same_names() -> None:
    found = points({"stage": "s", "seed": 3, "a": 1}, {"stage": "s", "seed": 4, "a": 2}, {"stage": "s", "a": 3})
    assert [(p.run, p.values, p.step, p.row) for p in found] == [
        ("seed-3", {"s/a": 1}, 1, 0),
        ("seed-4", {"s/a": 2}, 1, 0),
        ("", {"s/a": 3}, 1, 0),
    ]
    names = [next(iter(p.values)) for p in points({"stage": "seed-3", "seed": 3, "a": 1})]
    names += [next(iter(p.values)) for p in points({"stage": "seed-3/s", "seed": 3, "a": 1})]
    names += [next(iter(p.values)) for p in points({"stage": "seed-30/s", "seed": 3, "a": 1})]
    assert names == ["a", "s/a", "seed-30/s/a"]


def test_what_is_no_number() -> None:
    values = {"yes": True, "nan": None, "each": [1, 2, 6], "gap": [1, None], "none": [], "deep": [[1]], "d": {"x": 2}}
    (point,) = points(values)
    assert point.values == {"yes": 1, "each": 3.0, "d/x": 2}
    assert points({"nan": None}, {"seed": 1}) == [None, None]
    assert points({"nan": None}, {"a": 1})[1].row == 0, "rows number the points"


# -- the file ---------------------------------------------------------------------------------------------------------


def _steps(tail: Tail) -> list[int]:
    return [point.step for point in tail.points()]


def _write(path: Path, *steps: int, rest: str = "") -> None:
    path.write_text("".join(f'{{"step": {step}}}\n' for step in steps) + rest)


def test_a_growing_file_gives_every_whole_line_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert _steps(tail) == []
    _write(path, 1, 2, rest='{"step": ')
    assert _steps(tail) == [1, 2]
    assert _steps(tail) == []
    _write(path, 1, 2, 3)
    assert _steps(tail) == [3]
    assert tail.sent == 3


def test_lines_computed_again_are_not_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _write(path, 1, 2, 3)
    tail = Tail(path)
    assert _steps(tail) == [1, 2, 3]
    _write(path, 1)
    assert _steps(tail) == []
    _write(path, 1, 2, 3, 4)
    assert _steps(tail) == [4]
    assert _steps(Tail(path, sent=2)) == [3, 4]
    _write(path, 1)
    later = Tail(path, sent=2)
    assert _steps(later) == []
    _write(path, 1, 2, 3)
    assert _steps(later) == [3]


def test_lines_sent_before_count_for_steps_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    assert [(p.step, p.row) for p in Tail(path, sent=2).points()] == [(3, 2)]


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    state = State(tmp_path / "state.json")
    state.store({"metrics.jsonl": 4}, True)
    again = State(tmp_path / "state.json")
    assert (again.id, again.sent, again.checks, again.resumed) == (state.id, {"metrics.jsonl": 4}, True, True)
    (tmp_path / "state.json").write_text("[")
    with pytest.raises(InputError, match=r"damaged .*state\.json"):
        State(tmp_path / "state.json")


def test_checks_become_numbers() -> None:
    checks = [
        {"claim": "a", "value": 2.0, "op": "<", "bar": 3, "passed": True},
        {"claim": "b", "value": None, "op": "<", "bar": 3, "passed": False},
    ]
    numbers = sink_module.check_numbers(checks)
    assert numbers["checks/1/value"] == 2.0
    assert "checks/2/value" not in numbers
    assert [numbers[name] for name in ("checks/2/passed", "checks/passed", "checks/count")] == [0, 1, 2]
    assert sink_module.check_numbers([]) == {}
    assert "| 2 | b | None | < 3 | fails |" in sink_module.check_table(checks)


# -- flags ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "find_spec", lambda name: SimpleNamespace(origin="somewhere"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ()),
        (["--track", "wandb"], ("wandb",)),
        (["--track", "wandb", "--seeds", "2", "--track=tensorboard"], ("wandb", "tensorboard")),
        (["--track", "trackio,wandb,trackio"], ("trackio", "wandb")),
        (["--track", "trackio", "wandb"], ("trackio", "wandb")),
    ],
)
def test_track_takes_one_sink_or_several(words: list[str], expected: tuple[str, ...]) -> None:
    assert parse(WALK, words).track == expected
    assert grid(WALK, words, {"steps": [["--steps", "3"]]})[0].track == expected


def test_a_resumed_run_may_be_tracked_otherwise(tmp_path: Path) -> None:
    tracked(tmp_path)
    assert parse(WALK, ["--resume", str(tmp_path), "--track", "wandb"]).track == ("wandb",)
    assert parse(WALK, ["--resume", str(tmp_path)]).track == ()


def test_an_unknown_sink_is_refused_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sink is named 'wandbb'; nearest: wandb"):
        parse(WALK, ["--track", "tensorboard,wandbb"])
    with pytest.raises(InputError, match="--track needs a value"):
        parse(WALK, ["--track"])
    with pytest.raises(InputError, match="no sink is named 'x'"):
        tracked(tmp_path / "run", "x")
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in (None, SimpleNamespace(origin=None)):  # missing, and a folder of that name
        monkeypatch.setattr(sinks, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(MissingExtra, match=r"wandb is not installed: pip install 'mindworks\[track\]'"):
            tracked(tmp_path / "run", "wandb")
    assert not (tmp_path / "run").exists()
    monkeypatch.chdir(tmp_path)
    assert main(["run", "walk", "--track", "wandb"], package="toys") == 2
    assert list(tmp_path.iterdir()) == []


# -- runs with a sink that needs no tool ------------------------------------------------------------------------------

_LOADED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from toys import walk
from mindworks.lab.runner import execute
execute(walk.STUDY, walk.STUDY.defaults("smoke"), "smoke", [0], Path("run"), track={track})
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"tensorboard", "trackio", "wandb", "google"}}))
"""


@pytest.mark.parametrize("track", [(), ("tensorboard",)])
def test_the_run_itself_imports_no_tool(tmp_path: Path, track: tuple[str, ...]) -> None:
    if track:
        pytest.importorskip("tensorboard")
    script = _LOADED.format(tests=str(Path(__file__).parents[1]), track=track)
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "run" / "tracking").exists() == bool(track)


@pytest.mark.usefixtures("all_installed")
def test_a_sink_that_fails_costs_one_line(tmp_path: Path) -> None:
    display, folder = Listening(), tmp_path / "run"
    folder.mkdir()
    (folder / "tracking").write_text("in the way")
    record = tracked(folder, "tensorboard", display=display)
    assert record["checks"] == tracked(tmp_path / "plain")["checks"]
    (warning,) = display.warnings()
    assert warning.startswith("warning: tracking with tensorboard is off: ")
    assert "tracking" in warning.partition("off: ")[2]


@pytest.mark.usefixtures("all_installed")
def test_a_sink_that_cannot_start_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    display = Listening()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    tracked(tmp_path / "run", "tensorboard", display=display)
    assert display.warnings() == ["warning: tracking with tensorboard is off: No such file or directory"]


@pytest.mark.usefixtures("all_installed")
def test_a_sink_that_dies_without_a_word_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    display = Listening()
    monkeypatch.setattr(sinks, "_START", "import os; os._exit(9)")
    tracked(tmp_path / "run", "tensorboard", display=display)
    assert display.warnings() == ["warning: tracking with tensorboard is off: its process ended with status 9"]


@pytest.mark.usefixtures("all_installed")
def test_a_sink_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    display = Listening()
    monkeypatch.setattr(sinks, "LIMITS", {**sinks.LIMITS, "finished": -4.9})
    monkeypatch.setattr(sinks, "_START", "import time; time.sleep(600)")
    tracked(tmp_path / "run", "tensorboard", display=display)
    until(display.warnings)
    assert display.warnings() == ["warning: tracking with tensorboard is off: its process ended with status -9"]


# -- runs that end early ----------------------------------------------------------------------------------------------


def _begun(command: list[str], folder: Path, *words: str) -> tuple[subprocess.Popen[str], Path]:
    """A long walk with TensorBoard, once something has been sent."""
    pytest.importorskip("tensorboard")
    started = [*command, "run", "walk", "--steps", "100000", "--pause", "0.01", "--track", "tensorboard", *words]
    process = subprocess.Popen(started, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: any(_sent(path) for path in folder.rglob("state.json")))
    return process, next(folder.rglob("config.json")).parent.resolve()


def _sent(path: Path) -> int:
    return sum(json.loads(path.read_text())["sent"].values())


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process_and_no_line_unsent(
    command: list[str], tmp_path: Path, number: int
) -> None:
    process, folder = _begun(command, tmp_path)
    assert len(followers(folder)) == 1
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.rstrip().endswith(f"--resume {folder.relative_to(tmp_path.resolve())} --track tensorboard")
    until(lambda: not followers(folder))
    lines = (folder / "metrics.jsonl").read_bytes().count(b"\n")
    assert _sent(folder / "tracking" / "tensorboard" / "state.json") == lines > 1
