"""The index of runs: what it says is what the folders say, whatever happened to either."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindworks.cli import main
from mindworks.errors import InputError
from mindworks.lab.folder import locked
from mindworks.lab.index import index
from mindworks.lab.index.command import HELP
from mindworks.lab.index.facts import COLUMNS
from mindworks.lab.index.query import Fields, condition, order, select

LONG_AGO = 1_700_000_000


def record(**parts: Any) -> dict[str, Any]:
    """A record with one check that holds and one that does not."""
    checks = [
        {"claim": "RMSVE after 40 sweeps", "value": 0.25, "op": "<=", "bar": 0.5, "passed": True},
        {"claim": "Accuracy, worst seed", "value": None, "op": ">=", "bar": 0.9, "passed": False},
    ]
    usual = {"study": "walk", "paper": "arXiv:1", "scale": "cpu", "config": {"lr": 0.1}, "seeds": [0, 1, 2]}
    where = {"mindworks": "0.1.0", "commit": "12345", "torch": "2.13.0", "python": "3.11.7", "cpu": "x", "threads": 2}
    return {**usual, "checks": checks, "timing": {"wall_s": 2.0, "cpu_s": 1.5}, "environment": where, **parts}


def make(folder: Path, result: bool = True, **parts: Any) -> Path:
    """A run's folder, as a run leaves it."""
    folder.mkdir(parents=True)
    whole = record(**parts)
    described = {key: whole[key] for key in ("study", "scale", "config", "seeds")}
    (folder / "config.json").write_text(json.dumps(described))
    if result:
        (folder / "result.json").write_text(json.dumps(whole))
    settle(folder)
    return folder


def settle(folder: Path, seconds: int = LONG_AGO) -> None:
    """Let the folder's last change lie in the past, where its time tells changes apart."""
    os.utime(folder, (seconds, seconds))


def rows(root: Path, *where: str, sort: str = "path", rebuild: bool = False) -> list[dict[str, Any]]:
    """The runs that fulfil all conditions."""

    def use(connection: sqlite3.Connection) -> list[dict[str, Any]]:
        fields = Fields(connection)
        return select(connection, [condition(fields, text) for text in where], order(fields, sort), None, True)

    return index.with_index(root, use, rebuild)


def names(root: Path, *where: str, **options: Any) -> list[str]:
    """Their folders."""
    return [run["path"] for run in rows(root, *where, **options)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are read."""
    seen: list[str] = []
    facts = index.facts
    monkeypatch.setattr(index, "facts", lambda folder, path: (seen.append(path), facts(folder, path))[1])
    return seen


def test_a_run_is_known_by_what_its_record_says(tmp_path: Path) -> None:
    make(tmp_path / "walk" / "2026-11-28_01-02-03_cpu", config={"lr": 0.1, "inner": {"depth": 3}, "sizes": [1, 2]})
    (run,) = rows(tmp_path)
    finished = run.pop("finished")
    assert run == {
        "path": "walk/2026-11-28_01-02-03_cpu",
        "study": "walk",
        "scale": "cpu",
        "state": "finished",
        "seeds": 3,
        "first_seed": 0,
        "held": 1,
        "checks": 2,
        "cpu_s": 1.5,
        "wall_s": 2.0,
        "started": "2026-11-28 01:02:03",
        "paper": "arXiv:1",
        "version": "0.1.0",
        "commit": "12345",
        "torch": "2.13.0",
        "python": "3.11.7",
        "cpu": "x",
        "threads": 2,
        "error": None,
        "config": {"lr": 0.1, "inner.depth": 3, "sizes": [1, 2]},
        "claims": [
            {"claim": "RMSVE after 40 sweeps", "value": 0.25, "passed": True},
            {"claim": "Accuracy, worst seed", "value": None, "passed": False},
        ],
    }
    assert len(finished) == len("2026-11-28 01:02:03")
    assert all(name in HELP for name in COLUMNS)


def test_cells_of_sweeps_are_runs_and_seeds_of_a_run_are_not(tmp_path: Path) -> None:
    make(tmp_path / "walk" / "one")
    make(tmp_path / "walk" / "one" / "seed-0")
    make(tmp_path / "walk" / "sweep" / "cells" / "a-1")
    make(tmp_path / "walk" / "sweep" / "merged" / "a-2")
    make(tmp_path / ".hidden" / "b")
    (tmp_path / "walk" / "sweep" / "sweep.json").write_text("{}")
    (tmp_path / "walk" / "again").symlink_to(tmp_path / "walk" / "one")
    assert names(tmp_path) == ["walk/one", "walk/sweep/cells/a-1", "walk/sweep/merged/a-2"]


def test_states(tmp_path: Path) -> None:
    make(tmp_path / "done")
    make(tmp_path / "cut", result=False)
    make(tmp_path / "busy", result=False)
    failed = make(tmp_path / "failed", result=False)
    (failed / "error.json").write_text(json.dumps({"error": "no luck", "status": 70, "attempts": 2}))
    (tmp_path / "apart" / "cell").mkdir(parents=True)
    (tmp_path / "apart" / "cell" / "error.json").write_text('{"error": "at once"}')
    for name in ("busy", "done"):
        with locked(tmp_path / name):
            settle(tmp_path / name)
            found = {run["path"]: run["state"] for run in rows(tmp_path)}
            assert found["busy"] == ("running" if name == "busy" else "stopped")
            assert (found["done"], found["cut"], found["failed"]) == ("finished", "stopped", "failed")
    with locked(failed):
        assert names(tmp_path, "state = running") == ["failed"]
    assert {run["path"]: (run["study"], run["error"]) for run in rows(tmp_path, "state = failed")} == {
        "failed": ("walk", "no luck"),
        "apart/cell": ("apart", "at once"),
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("result.json", "{"),
        ("result.json", ""),
        ("result.json", "[]"),
        ("result.json", "[" * 100_000),
        ("result.json", '{"study": "walk"}'),
        ("result.json", json.dumps(record(checks=[3]))),
        ("result.json", json.dumps(record(study="\ud800"))),
        ("result.json", json.dumps(record(timing=None))),
        ("result.json", b"\xff\xfe"),
        ("config.json", "null"),
        ("config.json", '{"study": 1, "scale": "cpu", "config": {}, "seeds": []}'),
    ],
)
def test_a_damaged_run_is_shown_as_one(tmp_path: Path, name: str, text: str | bytes) -> None:
    make(tmp_path / "good")
    folder = make(tmp_path / "bad", result=False)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert names(tmp_path, "state = damaged") == ["bad"]
    assert name in rows(tmp_path, "state = damaged")[0]["error"]
    assert names(tmp_path, "state = finished") == ["good"]


def test_strange_values_are_kept_as_text(tmp_path: Path) -> None:
    config = {"huge": 2**70, "none": None, "word": "ü", "deep": [[float("nan")]], "end": {"$float": "inf"}}
    make(tmp_path / "a", config=config, seeds=[[1]], timing={"cpu_s": "soon", "wall_s": [1]})
    (run,) = rows(tmp_path)
    assert run["config"] == {"huge": str(2**70), "none": None, "word": "ü", "deep": [["nan"]], "end": "inf"}
    assert (run["first_seed"], run["cpu_s"], run["wall_s"]) == ("[1]", "soon", "[1]")
    assert names(tmp_path, "end = inf") == names(tmp_path, "none = none") == names(tmp_path, "deep ~ nan") == ["a"]


def test_only_folders_that_changed_are_read_again(tmp_path: Path, reads: list[str]) -> None:
    for name in "abc":
        make(tmp_path / name)
    assert names(tmp_path) == ["a", "b", "c"]
    reads.clear()
    assert names(tmp_path) == ["a", "b", "c"]
    assert reads == []
    (tmp_path / "b" / "new.json").write_text(json.dumps(record(scale="paper")))
    os.replace(tmp_path / "b" / "new.json", tmp_path / "b" / "result.json")
    assert [run["scale"] for run in rows(tmp_path)] == ["cpu", "paper", "cpu"]
    assert reads == ["b"]
    reads.clear()
    assert names(tmp_path, rebuild=True) == ["a", "b", "c"]
    assert sorted(reads) == ["a", "b", "c"]


def test_a_folder_that_changed_just_now_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    folder = make(tmp_path / "a")
    now = os.stat(tmp_path).st_mtime_ns
    os.utime(folder, ns=(now, now))
    names(tmp_path)
    (folder / "result.json").write_text(json.dumps(record(scale="paper")))
    os.utime(folder, ns=(now, now))  # the same tick of the clock
    assert rows(tmp_path)[0]["scale"] == "paper"
    assert reads == ["a", "a"]


def test_runs_that_vanish_or_move_leave_the_index(tmp_path: Path) -> None:
    for name in "abc":
        make(tmp_path / name)
    assert len(names(tmp_path)) == 3
    (tmp_path / "a").rename(tmp_path / "d")
    for file in (tmp_path / "b").iterdir():
        file.unlink()
    make(tmp_path / "b" / "inner")
    assert names(tmp_path) == ["b/inner", "c", "d"]


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 1000)


def _torn(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3000:] = os.urandom(len(data) - 3000)
    path.write_bytes(bytes(data))


def _older(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("DROP TABLE runs; CREATE TABLE runs (path, old); PRAGMA user_version = 0;")
    connection.close()


def _other_columns(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("DROP TABLE runs; CREATE TABLE runs (path)")
    connection.close()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [_garbage, _torn, _older, _other_columns, _folder, _empty])
def test_a_damaged_index_heals(tmp_path: Path, reads: list[str], harm: Callable[[Path], None]) -> None:
    for number in range(40):
        make(tmp_path / f"run-{number:02d}", config={"lr": number})
    before = rows(tmp_path)
    assert len(before) == 40
    harm(tmp_path / index.NAME)
    assert rows(tmp_path) == before
    reads.clear()
    assert rows(tmp_path) == before
    assert reads == [] or harm is _folder  # where a folder stands in its place, none can be kept


def test_an_index_that_cannot_be_written_serves_from_memory(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    names(tmp_path)
    reads.clear()
    make(tmp_path / "c")
    monkeypatch.setattr(index, "WAIT_S", 0.01)
    other = sqlite3.connect(tmp_path / index.NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert names(tmp_path) == ["a", "b", "c"]
    assert reads.count("a") == 0
    other.execute("ROLLBACK")
    assert other.execute("SELECT count(*) FROM runs").fetchone() == (2,)
    other.close()


def test_nothing_is_written_into_the_folder_of_a_run(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    before = sorted(os.listdir(folder))
    assert names(folder) == ["."]
    assert sorted(os.listdir(folder)) == before


def test_many_at_once_all_see_all_runs(tmp_path: Path) -> None:
    for number in range(30):
        make(tmp_path / f"run-{number:02d}")
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda rebuild=rebuild: found.append(len(names(tmp_path, rebuild=rebuild))))
        for rebuild in (False, True) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [30] * 8


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three runs with different fields."""
    make(tmp_path / "walk" / "a", config={"lr": 0.1, "name": "Big", "on": True, "sizes": [32, 32]})
    make(tmp_path / "walk" / "b", config={"lr": 1e-4, "name": None, "on": False, "sizes": []}, seeds=[5])
    make(tmp_path / "run" / "c", study="run", config={"depth": 3, "checks": 7}, result=False)
    return tmp_path


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["lr = 0.1"], "a"),
        (["lr=1e-4"], "b"),
        (["config.lr<=0.1"], "ab"),
        (["lr < 0.1"], "b"),
        (["lr != 0.1"], "b"),
        (["lr = none"], "c"),
        (["lr != none"], "ab"),
        (["lr = big"], ""),
        (["lr != big"], "ab"),
        (["lr > a"], ""),
        (["name = Big"], "a"),
        (["name ~ bi"], "a"),
        (["name = none"], "bc"),
        (["on = true"], "a"),
        (["on = false"], "b"),
        (["sizes = [32, 32]"], "a"),
        (["study = walk", "seeds > 1"], "a"),
        (["commit = 12345"], "ab"),
        (["commit < 2"], "ab"),
        (["commit > 2"], ""),
        (["first-seed >= 5"], "b"),
        (["path ~ RUN/"], "c"),
        (["checks = 2"], "ab"),
        (["config.checks = 7"], "c"),
        (["claim:rmsve after 40 <= 0.25"], "ab"),
        (["claim:RMSVE < 0.25"], ""),
        (["claim:accuracy, worst = none"], "abc"),
        (["study = walk' OR '1' = '1"], ""),
        (["started >= 2000-01-01T00:00"], "abc"),
        (["started < 2000-01-01"], ""),
        (["held == 1", "lr < 1e-3"], "b"),
        (["config.depth = 3"], "c"),
    ],
)
def test_conditions(three: Path, where: list[str], expected: str) -> None:
    assert "".join(sorted(name[-1] for name in names(three, *where))) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("lrr = 1", "no field 'lrr'; nearest: lr"),
        ("config.lrr = 1", "no field 'config.lrr'; nearest: lr"),
        ("studi = walk", "nearest: study"),
        ("claim:xyz = 1", "no run has a check whose claim contains 'xyz'"),
        ("claim: = 1", "needs a part of a claim"),
        ("lr", "FIELD OP VALUE"),
        ("lr =", "FIELD OP VALUE"),
        ("= 3", "FIELD OP VALUE"),
        ("lr => 3", "FIELD OP VALUE"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(three: Path, where: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        names(three, where)


def test_numbers_compare_to_the_last_digit(tmp_path: Path) -> None:
    generator = random.Random(0)
    values = [generator.random() * 10 ** generator.randint(-30, 30) for _ in range(30)]
    for number, value in enumerate(values):
        make(tmp_path / f"r{number:02d}", config={"lr": value})
    for number, value in enumerate(values):
        assert names(tmp_path, f"lr = {value!r}") == [f"r{number:02d}"]


def test_orders(three: Path) -> None:
    assert names(three, sort="lr") == ["walk/b", "walk/a", "run/c"]
    assert names(three, sort="-lr") == ["walk/a", "walk/b", "run/c"]
    assert names(three, sort="-seeds")[-1] == "walk/b"
    assert names(three, sort="-claim:RMSVE")[-1] == "run/c"
    with pytest.raises(InputError, match="--sort: the runs have no field 'speed'"):
        names(three, sort="-speed")


def run(*words: str) -> int:
    """The command line on the toy studies."""
    return main(["runs", *words], package="toys")


def test_the_table(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--runs", str(three), "--show", "lr,on", "--show", "claim:accuracy, worst", "--sort", "path") == 0
    lines = capsys.readouterr().out.splitlines()
    heads = ["folder", "study", "scale", "seeds", "state", "held", "CPU", "s", "lr", "on", "claim:accuracy,", "worst"]
    assert lines[0].split() == heads
    assert lines[1].split() == [f"{three}/run/c", "run", "cpu", "3", "stopped", *"-----"]
    assert lines[2].split() == [f"{three}/walk/a", "walk", "cpu", "3", "finished", "1/2", "1.5", "0.1", "true", "-"]
    assert len(lines) == 4
    run("--runs", str(three), "--limit", "1", "--study", "walk")
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 3 runs"


def test_the_newest_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("2026-11-28_01-02-03_cpu", "2026-11-28_01-02-04_cpu", "2025-12-28_01-02-03_cpu"):
        make(tmp_path / name)
    run("--runs", str(tmp_path), "--csv")
    found = [Path(row["path"]).name[:19] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert found == ["2026-11-28_01-02-04", "2026-11-28_01-02-03", "2025-12-28_01-02-03"]


def test_a_table_on_a_terminal_fits(
    three: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(three / ("long-" * 30) / "end")
    run("--runs", str(three))
    assert f"{three}/{'long-' * 30}/end" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "90")
    run("--runs", str(three))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 90
    assert any(line.split()[0].endswith("-/end") for line in lines)


def test_json_and_csv(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--runs", str(three), "--json", "--where", "lr = 0.1", "--show", "lr,claim:RMSVE")
    (found,) = json.loads(capsys.readouterr().out)
    assert found["path"] == f"{three}/walk/a"
    assert found["config"]["sizes"] == [32, 32]
    assert found["shown"] == {"lr": 0.1, "claim:RMSVE": 0.25}
    run("--runs", str(three), "--csv", "--show", "sizes,on,config.checks", "--sort", "path")
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(table[0]) == [*COLUMNS, "sizes", "on", "config.checks"]
    assert [(row["cpu_s"], row["sizes"], row["on"], row["config.checks"]) for row in table] == [
        ("", "", "", "7"),
        ("1.5", "[32,32]", "true", ""),
        ("1.5", "[]", "false", ""),
    ]


def test_no_runs(
    tmp_path: Path, three: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run() == 0
    assert capsys.readouterr().out == "no runs below runs; `mindworks run NAME` makes one there\n"
    assert not (tmp_path / "elsewhere" / "runs").exists()
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run("--runs", str(three), "--study", "stuck") == 0
    assert capsys.readouterr().out == f"none of the 3 runs below {three} is among those asked for\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runs", "nowhere"], "--runs nowhere: no folder is there"),
        (["--study", "wolk"], "--study: no run of a study 'wolk'; nearest: walk"),
        (["--wher", "lr=1"], "unknown flag --wher; nearest: --where"),
        (["--where"], "--where needs a value, got none"),
        (["--limit", "0"], "--limit must be a whole number of at least 1, got '0'"),
        (["--limit", "1", "--limit", "2"], "--limit is given 2 times: 1 2"),
        (["--json", "--csv"], "--json and --csv exclude one another"),
        (["--json=yes"], "--json takes no value, got 'yes'"),
        (["--show", "lrr"], "--show: the runs have no field 'lrr'; nearest: lr"),
        (["walk"], "unexpected argument 'walk'"),
    ],
)
def test_words_that_mean_nothing_are_refused(
    three: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(three)
    there = [] if "--runs" in words else ["--runs", "."]
    assert run(*there, *words) == 2
    assert capsys.readouterr().err.strip() == f"mindworks: {message}"


def test_the_index_follows_real_runs(toy: Any, tmp_path: Path) -> None:
    assert toy("run", "walk", "--scale", "smoke", "--drift", "0.25").returncode == 0
    assert toy("run", "stuck", "--how", "extra").returncode == 2
    ended = toy("runs", "--show", "drift", "--sort", "study")
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert [(line[1], line[4], line[-1]) for line in lines[1:]] == [
        ("stuck", "stopped", "-"),
        ("walk", "finished", "0.25"),
    ]
    assert toy("runs", "--help").stdout.strip() == HELP
    assert max(map(len, HELP.splitlines())) <= 80
