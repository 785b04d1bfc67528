"""`mindworks claims`: ordinary runs, records kept whatever their verdict, and what changed since the last ones."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mindworks import cli
from mindworks.errors import InputError
from mindworks.lab import changes, claims, discovery, readme

START = "import sys; sys.path.insert(0, '.'); from mindworks.cli import main; sys.exit(main(package='slow'))"


def call(results: Path | None, *words: object) -> int:
    """`mindworks claims` on the toy studies."""
    return cli.main(["claims", *map(str, words)], package="toys", results=results)


def altered(path: Path, **parts: Any) -> None:
    """Change the first check of a record."""
    record = json.loads(path.read_text())
    record["checks"][0] |= parts
    path.write_text(json.dumps(record))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Path:
    """A folder with the records of a study that holds and of one that does not."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    assert call(results, "--only", "walk", "stuck") == 0
    capfd.readouterr()
    return results


def test_every_run_is_an_ordinary_one_and_its_record_is_kept(kept: Path, tmp_path: Path) -> None:
    (run,) = (tmp_path / "runs" / "walk").iterdir()
    assert re.fullmatch(r"[\d-]+_[\d-]+_cpu", run.name)
    assert (run / "walk.svg").exists()
    assert (kept / "walk.json").read_bytes() == (run / "result.json").read_bytes()
    assert json.loads((kept / "stuck.json").read_text())["checks"][0]["passed"] is False


def test_claims_that_fail_as_before_end_with_0_and_lost_ones_with_1(
    kept: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(kept, "--only", "stuck") == 0
    altered(kept / "stuck.json", passed=True)
    altered(kept / "walk.json", passed=False)
    assert call(kept, "--only", "walk", "stuck", "walk") == 1
    out = capfd.readouterr().out
    assert out.count("== walk\n") == 1
    table = out[out.rindex("study  ") :].splitlines()
    assert [line.split() for line in table[1:3]] == [
        ["walk", "0/1", "hold", "1/1", "hold"],
        ["stuck", "1/1", "hold", "0/1", "hold"],
    ]
    assert "  failed, holds now: the walk ends above where it began, however long the" in table
    assert "  held, fails now: a number comes out: none >= 0" in table
    assert call(kept, "--only", "stuck") == 0  # it is in the record now


def test_a_renamed_claim_is_said_and_lost_where_it_held(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    altered(kept / "walk.json", claim="the walk goes up")
    altered(kept / "stuck.json", claim="a number", value=3.0)
    assert call(kept, "--only", "walk") == 1
    assert call(kept, "--only", "stuck") == 0
    out = capfd.readouterr().out
    assert "  held, is gone: the walk goes up: " in out
    assert "  new, holds now: the walk ends above" in out
    assert "  failed, is gone: a number: 3 >= 0" in out
    assert "  new, fails now: a number comes out: none >= 0" in out


def test_a_text_that_stands_twice_is_two_claims() -> None:
    def record(*passed: bool) -> dict[str, Any]:
        return {"checks": [{"claim": "c", "value": 1.0, "op": ">", "bar": 0, "passed": each} for each in passed]}

    assert changes.changes(record(True, False), record(True, False)) == []
    (change,) = changes.changes(record(True, True), record(True, False))
    assert change.lost
    (gone,) = changes.changes(record(True, True), record(True))
    assert gone.words() == "held, is gone: c: 1 > 0"
    assert changes.changes(None, record(False)) == []


def test_another_scale_never_replaces_a_record_at_cpu(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (kept / "walk.json").read_bytes()
    assert call(kept, "--only=walk", "--scale", "smoke") == 0
    assert (kept / "walk.json").read_bytes() == before
    assert json.loads((kept / "smoke" / "walk.json").read_text())["scale"] == "smoke"
    assert "no record" in capfd.readouterr().out.splitlines()[-1]  # that of the other scale is no record of this one


def test_a_run_that_does_not_finish_keeps_no_study_from_its_record(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (kept / "walk.json").read_bytes()
    monkeypatch.setenv("MINDWORKS_CHECKPOINT_SECONDS", "many")  # read by the walk alone
    assert call(kept, "--only", "walk", "apart", "--results", kept) == 2
    out = capfd.readouterr().out
    assert re.search(r"^walk +1/1 hold +not finished, status 2$", out, re.MULTILINE)
    assert json.loads((kept / "apart.json").read_text())["study"] == "apart"
    assert (kept / "walk.json").read_bytes() == before
    monkeypatch.delenv("MINDWORKS_CHECKPOINT_SECONDS")
    again = shlex.split(out.splitlines()[-1])
    assert again[:4] == ["mindworks", "run", "walk", "--resume"]
    with pytest.raises(InputError, match="no finished run is there"):
        claims.command(["--record", again[4]], "toys", kept)
    assert cli.main(again[1:], package="toys") == 0
    assert call(kept, "--record", again[4]) == 0
    assert (kept / "walk.json").read_bytes() == (Path(again[4]) / "result.json").read_bytes() != before


def test_a_killed_run_is_named_so() -> None:
    outcome = changes.Outcome("walk", None, None, Path("my runs"), -9)
    assert changes.exit_status([outcome]) == 70
    text = changes.summary([outcome])
    assert "not finished, killed by SIGKILL" in text
    assert "mindworks run walk --resume 'my runs'" in text


def test_only_the_runs_of_a_scale_as_it_stands_are_recorded(kept: Path, tmp_path: Path) -> None:
    before = (kept / "walk.json").read_bytes()
    for words, named in (
        (["--drift", "0.1", "--bar", "-1"], "drift, bar"),
        (["--seed", "3"], "seeds"),
    ):
        cli.main(["run", "walk", "--out", "other", *words], package="toys")
        (folder,) = (tmp_path / "other").iterdir()
        with pytest.raises(InputError, match=f"differs from scale cpu in {named}$"):
            claims.command(["--record", str(folder)], "toys", kept)
        folder.rename(tmp_path / named)
    cli.main(["run", "walk", "--scale", "smoke", "--out", "other"], package="toys")
    (folder,) = (tmp_path / "other").iterdir()
    assert call(kept, "--record", folder) == 0
    assert (kept / "smoke" / "walk.json").read_bytes() == (folder / "result.json").read_bytes()
    assert (kept / "walk.json").read_bytes() == before


def test_what_is_no_record_is_not_kept(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError, match="not the record of a run"):
        claims.command(["--record", str(tmp_path)], "toys", kept)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["walk"], "unexpected argument 'walk'"),
        (["--onyl", "walk"], "unknown flag --onyl; nearest: --only"),
        (["--only"], "--only needs a value"),
        (["--only", "wlak"], "no study named 'wlak'; nearest: walk"),
        (["--scale", "huge"], "--scale must be one of .*'huge'"),
        (["--scale", "cpu", "smoke"], "--scale needs one value, got cpu smoke"),
        (["--scale", "paper", "--only", "walk", "stuck"], "--scale paper: the study 'stuck'"),
        (["--record", "x", "--only", "walk"], "--record and --only exclude"),
        (["--record", "nowhere"], "--record nowhere: no finished run"),
    ],
)
def test_bad_words_are_refused_before_any_run(
    words: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(None, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(complaint, line)
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(None, "--help") == 0
    shown = capsys.readouterr().out
    assert set(re.findall(r"^  (--\w+)", shown, re.MULTILINE)) == {*claims._ONE, *claims._MANY}
    assert max(map(len, shown.splitlines())) <= 80


def test_the_tables_of_a_checkout_are_renewed(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, script = tmp_path / "README.md", tmp_path / "scripts" / "docs_tables.py"
    page.write_text(f"# Title\n{readme.BEGIN}\n{readme.END}\n")
    script.parent.mkdir()
    script.write_text("from pathlib import Path\nPath('pages').write_text('renewed')\n")
    (run,) = (tmp_path / "runs" / "walk").iterdir()
    assert call(kept, "--record", run) == 0
    assert "1/1 hold" not in page.read_text()  # not a checkout yet
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(claims, "CHECKOUT", tmp_path)
    monkeypatch.setattr(discovery, "CHECKOUT", tmp_path)
    assert call(kept, "--record", run, "--results", tmp_path / "elsewhere") == 0
    assert not (tmp_path / "pages").exists()
    assert call(kept, "--record", run, "--results", kept) == 0
    assert (tmp_path / "pages").read_text() == "renewed"
    assert readme.expected(page.read_text(), kept, "toys") == page.read_text()
    for text in ("1/1 hold", "0/1 hold", "no record yet"):
        assert text in page.read_text()
    script.write_text("raise SystemExit(3)\n")
    assert call(kept, "--record", run, "--results", kept) == 2
    monkeypatch.chdir(tmp_path / "scripts")
    assert call(kept, "--record", run) == 0  # other studies than the checkout's own leave its records alone
    assert (tmp_path / "scripts" / "results" / "walk.json").exists()


SLOW = '''
"""A study that takes its time while a file is there."""

import time
from dataclasses import dataclass
from pathlib import Path

from mindworks.lab import Check, Study


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def run(config, seeds, log):
    for step in range(600):
        log.metric(step=step)
        time.sleep(0.1 if Path("slow.txt").exists() and "NAME" == "crawl" else 0)
    return {"steps": 600}


STUDY = Study(
    name="NAME",
    paper="arXiv:0000.00009",
    config=Config,
    run=run,
    check=lambda data: [Check("it arrives", data["steps"], ">=", 600)],
    plot=lambda data, folder: [],
    scales={"smoke": {}, "cpu": {}},
    seeds={"smoke": 1, "cpu": 1},
)
'''


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_how_to_go_on(number: int, tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    for name in ("__init__", "ambles", "crawl", "dawdles"):
        (tmp_path / "slow" / f"{name}.py").write_text("" if name == "__init__" else SLOW.replace("NAME", name))
    (tmp_path / "slow.txt").touch()
    start = [sys.executable, "-c", START]
    options: dict[str, Any] = {"cwd": tmp_path, "text": True, "stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([*start, "claims", "--runs", "my runs"], **options)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("my runs/crawl/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    out, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.search(r"^ambles +no record +1/1 hold$", out, re.MULTILINE)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["ambles.json"]
    (tmp_path / "slow.txt").unlink()
    todo = [shlex.split(line) for line in complaint.splitlines() if line.startswith("  mindworks ")]
    assert [words[1] for words in todo] == ["run", "claims", "claims"]
    for words in todo:
        assert subprocess.run([*start, *words[1:]], **options, check=False).returncode == 0
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"ambles.json", "crawl.json", "dawdles.json"}
    assert len(list(tmp_path.glob("my runs/*/*"))) == 3
