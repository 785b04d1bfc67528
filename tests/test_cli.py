"""The command line: what it prints, how it ends, and how little it costs to ask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from mindworks import __version__, cli
from mindworks.lab import discovery, doctor
from toys import walk

Toy = Callable[..., "subprocess.CompletedProcess[str]"]


def _call(capsys: pytest.CaptureFixture[str], *words: str, results: Path | None = None) -> tuple[int, str, str]:
    status = cli.main(words, package="toys", results=results)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_list_names_every_study(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = _call(capsys, "list", results=tmp_path)
    assert status == 0
    for word in ("walk", "2001", "arXiv:0000.00001", "A walk with drift goes up.", "apart", "no record"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80


def _record(folder: Path, passed: bool) -> None:
    checks = [{"claim": "it goes up", "value": 0.5, "op": ">", "bar": 0.0, "passed": passed}]
    record = {"study": "walk", "scale": "cpu", "seeds": [0, 1], "checks": checks, "timing": {"cpu_s": 1, "wall_s": 1}}
    (folder / "walk.json").write_text(json.dumps(record))


def test_list_and_show_speak_of_the_last_record(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no record yet" in _call(capsys, "show", "walk", results=tmp_path)[1]
    _record(tmp_path, passed=False)
    assert "0/1 hold (cpu, 2 seeds)" in _call(capsys, "list", results=tmp_path)[1]
    status, out, _ = _call(capsys, "show", "walk", results=tmp_path)
    assert status == 0
    for word in ("--drift float = 0.5", "mean of a step, in [0, 1)", "FAIL", "it goes up", "docs/papers/walk.md"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80


def test_cite_prints_bibtex(capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(capsys, "cite", "walk")[:2] == (0, walk.STUDY.bibtex + "\n")


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(capsys, "--version")[:2] == (0, f"mindworks {__version__}\n")
    status, out, _ = _call(capsys, "--help")
    assert status == 0
    assert all(command in out for command in ("list", "show NAME", "run NAME", "doctor", "cite NAME", "130"))
    assert _call(capsys)[1] == out
    assert _call(capsys, "show", "--help")[1] == out


def test_help_of_a_run_shows_fields_and_the_defaults_of_the_scale(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _call(capsys, "run", "walk", "--help")
    assert status == 0
    for word in ("--steps INT", "steps of each stage (default: 60)", "first seed", "--resume DIR", "(default: 3)"):
        assert word in out
    status, out, _ = _call(capsys, "run", "walk", "--scale", "smoke", "--help")
    assert "steps of each stage (default: 20)" in out
    assert "(default: 1)" in out
    status, out, _ = _call(capsys, "run", "--help")
    assert status == 0
    assert "walk" in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("rum walk", "unknown command 'rum'; nearest: run"),
        ("run wlak", "no study named 'wlak'; nearest: walk"),
        ("show wlak", "nearest: walk"),
        ("cite", "cite needs one name of a study"),
        ("list all", "unexpected argument 'all'"),
        ("run walk 7", "unexpected argument '7'"),
        ("run --seeds 3", "run needs the name of a study"),
        ("run walk --stps 3", "unknown flag --stps; nearest: --steps"),
        ("run walk --no-steps", "unknown flag --no-steps"),
        ("run walk --steps 3.5", "--steps must be int, got '3.5'"),
        ("run walk --steps", "--steps needs a value: int"),
        ("run walk --steps 3 4", "--steps must be int, got '3 4'"),
        ("run walk --drift up --steps 7", "--drift must be float, got 'up'"),
        ("run walk --drift 1.5", "drift must be in [0, 1), got 1.5"),
        ("run walk --drift -0.5", "drift must be in [0, 1), got -0.5"),
        ("run walk --mirrored yes", "--mirrored takes no value, got 'yes'"),
        ("run walk --start-points 1 x", "--start-points must be tuple[float, ...], got '1 x'"),
        ("run stuck --how oddly", "--how must be one of 'native', 'defect', 'extra', 'disk', 'nan', got 'oddly'"),
        ("run walk --scale huge", "--scale must be one of smoke, cpu, paper, got 'huge'"),
        ("run walk --scale", "--scale needs one value, got none"),
        ("run walk --seeds 0", "--seeds must be at least 1, got 0"),
        ("run walk --seed -1", "--seed must be at least 0, got -1"),
        ("run walk --seed one", "--seed must be int, got 'one'"),
        ("run walk --resume nowhere", "--resume nowhere: no run is there"),
    ],
)
def test_bad_usage_is_one_line_that_names_the_word(
    words: str, named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, complaint = _call(capsys, *words.split())
    assert (status, out) == (2, "")
    assert complaint.startswith("mindworks: ")
    assert complaint.count("\n") == 1
    assert named in complaint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["extra", "disk"])
def test_what_a_user_can_mend_is_one_line(how: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, complaint = _call(capsys, "run", "stuck", "--how", how, "--out", str(tmp_path))
    assert status == 2
    assert complaint.count("\n") == 1
    assert {"extra": "pip install 'mindworks[widgets]'", "disk": "No space left on device: somewhere"}[how] in complaint
    assert "mindworks run stuck --resume" in complaint


def test_a_defect_shows_its_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, complaint = _call(capsys, "run", "stuck", "--how", "defect", "--out", str(tmp_path))
    assert status == 70
    assert "ValueError: a defect" in complaint


def test_a_value_that_is_not_a_number_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = _call(capsys, "run", "stuck", "--out", str(tmp_path))
    assert status == 1
    assert "FAIL        none >= 0" in out
    (path,) = tmp_path.glob("*/result.json")
    assert json.loads(path.read_text())["checks"][0]["value"] is None


def test_out_below_a_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    status, _, complaint = _call(capsys, "run", "walk", "--out", str(tmp_path / "file" / "x"))
    assert status == 2
    assert complaint.count("\n") == 1
    assert "--out" in complaint
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_prints_its_claims_and_leaves_the_record(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--seeds=2", "--start_points", "1", "2", "--scale", "smoke", "walk", "--seed", "5", "--drift", "0.9"]
    status, out, _ = _call(capsys, "run", "--out", str(tmp_path), *words)
    assert status == 0
    assert out.startswith("PASS ")
    assert "CPU s" in out
    (folder,) = tmp_path.iterdir()
    assert str(folder / "walk.svg") in out
    assert str(folder / "result.json") in out
    assert max(len(line) for line in out.splitlines() if str(folder) not in line) <= 80
    record = json.loads((folder / "result.json").read_text())
    keys = ["study", "paper", "scale", "config", "seeds", "checks", "tables", "timing", "environment"]
    assert list(record) == keys
    assert list(record["timing"]) == ["wall_s", "cpu_s"]
    assert list(record["environment"]) == ["mindworks", "commit", "torch", "python", "cpu", "threads"]
    assert list(record["checks"][0]) == ["claim", "value", "op", "bar", "passed"]
    assert record["seeds"] == [5, 6]
    assert record["config"] | {"steps": 20, "drift": 0.9, "start_points": [1.0, 2.0]} == record["config"]
    assert json.loads((folder / "config.json").read_text())["config"] == record["config"]


def test_an_earlier_run_is_never_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for drift in ("0.5", "0.6", "0.7"):  # within one second, so that their names would be the same
        _call(capsys, "run", "walk", "--scale", "smoke", "--out", str(tmp_path), "--drift", drift)
    found = [json.loads(path.read_text())["config"]["drift"] for path in tmp_path.glob("*/result.json")]
    assert sorted(found) == [0.5, 0.6, 0.7]


def test_booleans_have_two_flags(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for flag, expected in (("--mirrored", True), ("--no-mirrored", False)):
        _call(capsys, "run", "walk", "--scale", "smoke", "--out", str(tmp_path / flag), flag)
        (path,) = (tmp_path / flag).glob("*/config.json")
        assert json.loads(path.read_text())["config"]["mirrored"] is expected


def test_a_reader_that_leaves_is_no_error(command: list[str]) -> None:
    process = subprocess.Popen([*command, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


def _cpu_seconds(words: list[str]) -> float:
    before = os.times()
    subprocess.run(words, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.parametrize("words", [["--help"], ["run", "walk", "--help"]])
def test_help_costs_little(words: list[str], command: list[str]) -> None:
    assert min(_cpu_seconds([*command, *words]) for _ in range(3)) < 0.3


def test_python_m_is_the_command() -> None:
    ended = subprocess.run([sys.executable, "-m", "mindworks", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout == f"mindworks {__version__}\n"


def test_doctor_lists_extras_from_the_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _call(capsys, "doctor")
    assert status == 0
    assert "self-test        ok" in out
    needs = doctor.requirements()
    assert "torch" in needs[""]
    assert "numba" in needs["fast"]
    for extra in needs:
        assert not extra or f"\n  {extra} " in out
    assert "mujoco" in needs["test"]  # an extra within an extra


def test_doctor_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: None if name == "mujoco" else "1.0")
    lines, healthy = doctor.report()
    assert healthy
    assert any(line.endswith("lacks mujoco: pip install 'mindworks[mujoco]'") for line in lines)
    assert any("mindworks[test]" in line for line in lines)
    monkeypatch.setattr(doctor, "version", lambda name: None if name == "torch" else "1.0")
    lines, healthy = doctor.report()
    assert not healthy
    assert "pip install torch" in lines[-1]


def test_discovery_finds_the_library_and_checks_names() -> None:
    assert discovery.names("toys") == ["apart", "line", "side", "stuck", "walk"]
    assert discovery.find("walk", "toys") is walk.STUDY
    assert discovery.last_record("walk", None) is None
    for name in discovery.names():
        study = discovery.find(name)
        assert study.claim, name
        assert study.bibtex, name
        assert {"smoke", "cpu", "paper"} == set(study.scales), name
        assert study.seeds["cpu"] >= 3, name


def test_a_study_that_exits_has_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(*_: object) -> dict:
        raise SystemExit(0)

    study = import_module("toys.stuck")
    monkeypatch.setattr(study, "STUDY", replace(study.STUDY, run=leave))
    assert cli.main(["run", "stuck", "--out", str(tmp_path)], package="toys") == 70
    assert "continue with: mindworks run stuck --resume" in capsys.readouterr().err
