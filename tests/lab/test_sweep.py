"""Sweeps end to end, on processes of this machine: the numbers of single runs, and nothing lost that had finished."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from mindworks import cli
from mindworks.lab.progress import Display
from mindworks.lab.sweep import local
from mindworks.lab.sweep.driver import Sweep, claim_folder
from mindworks.lab.sweep.engine import Ended
from mindworks.lab.sweep.grid import points
from mindworks.lab.sweep.plan import Plan, plan
from mindworks.lab.sweep.table import Table, _Point
from mindworks.lab.sweep.work import job, perform

Toy = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which commands run, those of this process too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(*words: str) -> int:
    """The exit status of `mindworks sweep` with one worker."""
    return cli.main(["sweep", *words, "--workers", "1"], package="toys")


def records(root: Path, kind: str = "cells") -> dict[str, dict]:
    """The records under a sweep's folder by the names of their folders."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(root.glob(f"{kind}/*/result.json"))}


def data(folder: Path) -> dict:
    return json.loads((folder / "data.json").read_text())


def test_a_cell_is_the_run_that_run_makes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("walk", "--grid", "drift=0.1,0.9", "--seeds", "3", "--show", "walk") == 0
    shown = capsys.readouterr().out
    cells = sorted((here / "runs/walk/sweep/cells").iterdir())
    for drift, cell in zip((0.1, 0.9), cells, strict=True):
        cli.main(
            ["run", "walk", "--drift", str(drift), "--seeds", "3", "--out", str(here / str(drift))], package="toys"
        )
        (single,) = (here / str(drift)).iterdir()
        assert data(single) == data(cell)
        assert (single / "metrics.jsonl").read_bytes() == (cell / "metrics.jsonl").read_bytes()
        alone, swept = json.loads((single / "result.json").read_text()), json.loads((cell / "result.json").read_text())
        for record in (alone, swept):
            del record["timing"], record["environment"]["threads"]
        assert alone == swept
        assert f"{alone['checks'][0]['value']:.4g}" in shown
        assert not list(cell.glob("*.svg"))
    assert "2/2" in shown
    assert "drift  cells  hold" in shown


def test_finished_cells_are_never_run_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("walk", "--grid", "drift=0.1,0.9", "--seeds", "2")
    sweep(*words)
    root = here / "runs/walk/sweep"
    stamps = {path: path.stat().st_mtime_ns for path in root.glob("cells/*/*")}
    capsys.readouterr()
    assert sweep(*words) == 0
    assert "2 of them there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in root.glob("cells/*/*")} == stamps
    assert sweep("walk", "--grid", "drift=0.1,0.9,0.5", "--seeds", "2") == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(records(root)) == 3


def test_finished_cells_of_other_code_are_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep("walk", "--seeds", "1")
    (path,) = here.glob("runs/walk/sweep/cells/*/result.json")
    record = json.loads(path.read_text())
    record["environment"]["commit"] = "feedc0ffee0123"
    path.write_text(json.dumps(record))
    capsys.readouterr()
    sweep("walk", "--seeds", "1")
    assert "of other code: commit feedc0ffee01" in capsys.readouterr().out


def test_cells_computed_together_are_those_computed_alone(here: Path) -> None:
    grid = ("side", "--grid", "rate=0.2,0.6,0.9", "--grid", "steps=2,4")
    assert sweep(*grid, "--out", "together") == 0
    assert sweep(*grid, "--out", "alone", "--together", "1") == 0
    together, alone = records(here / "together"), records(here / "alone")
    assert together.keys() == alone.keys()
    for name, record in together.items():
        assert record["checks"] == alone[name]["checks"]
        assert (record["timing"].pop("together"), record["seeds"]) == (3, [0, 1, 2])
        both = [here / kind / "cells" / name for kind in ("together", "alone")]
        assert data(both[0])["left"] == data(both[1])["left"]
        assert (data(both[0])["together"], data(both[1])["together"]) == (3, 1)
        lines = [[json.loads(line) for line in (folder / "metrics.jsonl").open()] for folder in both]
        assert lines[0] == [{key: value for key, value in line.items() if key != "config"} for line in lines[1]]
        assert len(lines[0]) == 1 + record["config"]["steps"]
    assert list((here / "together/batches").iterdir()) == []


def test_seeds_taken_singly_are_merged_into_the_run_of_all(here: Path) -> None:
    assert sweep("apart", "--grid", "draws=2,4", "--seeds", "3") == 0
    root = here / "runs/apart/sweep"
    assert [record["seeds"] for record in records(root).values()] == [[0], [1], [2]] * 2
    merged = records(root, "merged")
    assert [record["seeds"] for record in merged.values()] == [[0, 1, 2]] * 2
    cli.main(["run", "apart", "--draws", "4", "--seeds", "3", "--out", "single"], package="toys")
    (single,) = (here / "single").iterdir()
    (folder,) = (root / "merged" / name for name, record in merged.items() if record["config"]["draws"] == 4)
    assert data(single)["mean"] == data(folder)["mean"]
    assert data(folder)["threads"] == ["1"] * 3
    assert (single / "metrics.jsonl").read_text().count("seed") == 12
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [(line["seed"], line["step"]) for line in lines] == [(seed, step) for seed in range(3) for step in range(4)]
    before = (folder / "result.json").stat().st_mtime_ns
    assert sweep("apart", "--grid", "draws=2,4", "--seeds", "4") == 0  # one more seed of each
    assert (folder / "result.json").stat().st_mtime_ns == before
    assert sum(record["seeds"] == [0, 1, 2, 3] for record in records(root, "merged").values()) == 2


def test_seeds_can_be_put_into_cells_by_hand(here: Path) -> None:
    assert sweep("apart", "--seeds", "3", "--batch", "2") == 0
    root = here / "runs/apart/sweep"
    assert [record["seeds"] for record in records(root).values()] == [[2], [0, 1]]
    (merged,) = records(root, "merged")
    assert len(data(root / "merged" / merged)["mean"]) == 3


def test_a_failing_cell_is_recorded_and_tried_again_as_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fault").write_text("1 defect")
    words = ("apart", "--seeds", "3", "--fault", "fault")
    assert sweep(*words, "--retries", "2") == 1
    shown = capsys.readouterr().out
    assert shown.count("trying again") == 2
    assert "RuntimeError: out of luck" in shown
    (path,) = here.glob("runs/apart/sweep/cells/*/error.json")
    error = json.loads(path.read_text())
    assert (error["attempts"], error["status"], error["error"]) == (3, 70, "RuntimeError: out of luck")
    assert "Traceback" in path.with_name("error.txt").read_text()
    assert len(records(here / "runs/apart/sweep")) == 2
    assert not records(here / "runs/apart/sweep", "merged")
    Path("fault").unlink()
    assert sweep(*words) == 0
    assert not list(here.glob("runs/apart/sweep/cells/*/error.*"))
    assert len(records(here / "runs/apart/sweep", "merged")) == 1


def test_an_error_of_the_user_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fault").write_text("0 input")
    assert sweep("apart", "--seeds", "1", "--fault", "fault") == 1
    assert "draws must be lucky, got 13" in capsys.readouterr().out
    assert not list(here.glob("runs/apart/sweep/cells/*/error.txt"))


def test_a_study_that_exits_costs_its_cell_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fault").write_text("0 exit")
    assert sweep("apart", "--seeds", "2", "--fault", "fault") == 1
    assert "SystemExit: giving up" in capsys.readouterr().out
    assert len(records(here / "runs/apart/sweep")) == 1


def _points(study: str, *grids: str, words: tuple[str, ...] = ()) -> Plan:
    module = import_module(f"toys.{study}")
    configs = [request.config for request in points(module.STUDY, words, grids)]
    made = plan(module.STUDY, "toys", "cpu", configs, [0], Path("made"))
    claim_folder(made, "mindworks sweep")
    return made


class Blind:
    """An engine whose jobs end at once, as `outcomes` say, and leave nothing on the disk that can be seen yet."""

    workers = 1

    def __init__(self, *outcomes: str) -> None:
        self.outcomes, self.jobs = list(outcomes), list[str]()

    def submit(self, key: str, job: dict) -> None:
        self.jobs.append(key)

    def running(self) -> list[str]:
        return []

    def wait(self, seconds: float) -> list[Ended]:
        jobs, self.jobs = self.jobs, []
        errors = [self.outcomes.pop(0) if self.outcomes else "" for _ in jobs]
        return [
            Ended(key, {"status": "failed" if error else "finished", "error": error})
            for key, error in zip(jobs, errors, strict=True)
        ]

    def stop(self) -> None:
        """Nothing."""


def test_a_record_that_a_shared_disk_shows_later_is_no_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Sweep(_points("walk"), Blind(), Table(live=False)).run() == {}
    assert ": finished\n" in capsys.readouterr().out


def test_a_merge_that_is_tried_again_has_not_failed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = import_module("toys.apart").STUDY
    made = plan(study, "toys", "cpu", [study.defaults("cpu")], [0, 1], Path("made"))
    claim_folder(made, "mindworks sweep")
    assert Sweep(made, Blind("", "", "no luck"), Table(live=False), retries=1).run() == {}
    shown = capsys.readouterr().out
    assert "trying again" in shown
    assert "FAILED" not in shown


def test_cells_that_failed_together_are_known_to_the_index(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fault").write_text("0.6")
    made = _points("side", "rate=0.2,0.6", words=("--fault", "fault"))
    assert perform(job(made, *made.batches()))["status"] == "failed"
    assert cli.main(["runs", "--runs", "made", "--where", "rate = 0.6", "--study", "side"], package="toys") == 0
    assert capsys.readouterr().out.count("failed") == 1


def test_an_interrupt_while_a_process_starts_leaves_none(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def interrupted() -> Iterator[None]:
        yield
        raise KeyboardInterrupt

    before = set(multiprocessing.active_children())
    monkeypatch.setattr(local, "no_interrupt", interrupted)
    with pytest.raises(KeyboardInterrupt), local.closing(local.LocalEngine(perform, here / "logs", 2)) as engine:
        engine.submit("any", {})
    assert not set(multiprocessing.active_children()) - before


def test_a_column_is_one_claim_in_whatever_case() -> None:
    point = _Point()
    checks = [{"claim": f"Value after {n}", "value": float(n), "passed": True} for n in (2, 100)]
    point.records = {seed: {"checks": checks} for seed in "ab"}
    assert point.value("value AFTER") == "2 [2, 2]"


def test_a_cell_that_spoils_its_company_fails_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fault").write_text("0.6")
    words = ("side", "--grid", "rate=0.2,0.6,0.9", "--fault", "fault")
    assert sweep(*words) == 1
    assert "each of them is tried alone" in capsys.readouterr().out
    assert sorted(r["config"]["rate"] for r in records(here / "runs/side/sweep").values()) == [0.2, 0.9]
    Path("fault").unlink()
    assert sweep(*words) == 0


def test_a_cell_that_kills_its_process_fails_in_the_end(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fault").write_text("1 kill")
    assert sweep("apart", "--seeds", "3", "--fault", "fault") == 1
    shown = capsys.readouterr().out
    assert shown.count("trying again") == 3
    (path,) = here.glob("runs/apart/sweep/cells/*/error.json")
    assert json.loads(path.read_text())["error"] == "its process was killed by SIGKILL, 4 times"
    assert len(records(here / "runs/apart/sweep")) == 2


# -- processes that die -----------------------------------------------------------------------------------------------


def _children(pid: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found |= {int(child) for child in (task / "children").read_text().split()}
    return {child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


def _until(condition: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


SLOW = ("sweep", "apart", "--seeds", "6", "--draws", "12", "--pause", "0.1", "--workers", "2")


def _started(command: list[str], here: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *(words or SLOW)], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _computed(root: Path) -> dict[str, int]:
    """The process that computed each finished cell."""
    return {path.parent.name: json.loads(path.read_text())["pid"][0] for path in root.glob("cells/*/data.json")}


def test_a_killed_worker_costs_its_cell_alone(command: list[str], here: Path) -> None:
    root = here / "runs/apart/sweep"
    driver = _started(command, here)
    _until(lambda: len(list(root.glob("cells/*/metrics.jsonl"))) >= 3)
    before = _computed(root)
    victim = min(_children(driver.pid))
    os.kill(victim, signal.SIGKILL)
    shown, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0, shown
    assert shown.count("trying again") == 1
    assert "its process was killed by SIGKILL" in shown
    after = _computed(root)
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    assert len(set(after.values())) == 3  # two workers, and the one that came for the killed one
    assert len(records(root, "merged")) == 1


def test_a_killed_driver_loses_the_running_cells_at_most(command: list[str], here: Path) -> None:
    root = here / "runs/apart/sweep"
    driver = _started(command, here)
    _until(lambda: len(list(root.glob("cells/*/result.json"))) >= 2)
    workers = _children(driver.pid)
    assert len(workers) == 2
    driver.kill()
    driver.communicate()
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)
    before = {path: path.stat().st_mtime_ns for path in root.glob("cells/*/result.json")}
    assert 2 <= len(before) < 6
    again = _started(command, here)
    shown, _ = again.communicate(timeout=60)
    assert again.returncode == 0, shown
    assert f"{len(before)} of them there already" in shown
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (merged,) = (root / "merged").iterdir()
    lines = [json.loads(line) for line in (merged / "metrics.jsonl").open()]
    assert [(line["seed"], line["step"]) for line in lines] == [(seed, step) for seed in range(6) for step in range(12)]


def test_an_interrupt_ends_within_seconds_and_says_how_to_go_on(command: list[str], here: Path) -> None:
    words = [*SLOW[:-1], "2", "--draws", "400"]
    driver = _started(command, here, *words)
    _until(lambda: list(here.glob("runs/apart/sweep/cells/*/metrics.jsonl")))
    workers = _children(driver.pid)
    begun = time.monotonic()
    driver.send_signal(signal.SIGINT)
    shown, _ = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert time.monotonic() - begun < 20  # seconds on a crowded machine, not the forty of a cell
    assert shown.strip().splitlines()[-1] == f"mindworks: interrupted; continue with: mindworks {' '.join(words)}"
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert "Traceback" not in shown


def test_a_second_sweep_in_the_folder_is_refused(command: list[str], here: Path, toy: Toy) -> None:
    driver = _started(command, here)
    _until(lambda: list(here.glob("runs/apart/sweep/cells/*/metrics.jsonl")))
    description = here / "runs/apart/sweep/sweep.json"
    before = description.read_text()
    second = toy(*SLOW, "--retries", "1")
    assert description.read_text() == before
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=30)
    assert second.returncode == 2
    assert f"is in use by process {driver.pid}" in second.stderr


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_a_terminal_shows_a_table_that_lives(command: list[str], here: Path) -> None:
    ours, theirs = pty.openpty()
    words = ("sweep", "apart", "--grid", "draws=3,4", "--seeds", "2", "--pause", "0.15", "--workers", "1")
    driver = subprocess.Popen(
        [*command, *words], cwd=here, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and select.select([ours], [], [], 30)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other side has closed
            break
    assert driver.wait(10) == 0
    text = shown.decode()
    assert "1 running" in text
    assert "1/4 cells" in text or "2/4 cells" in text
    assert text.rstrip().splitlines()[-5].split()[:3] == ["draws", "cells", "hold"]
    assert "\x1b[?25h" in text  # the cursor is there again


def test_nothing_runs_dry(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("side", "--grid", "rate=0.1,0.2", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 cells, 2 to do in 1 job"
    assert sweep("side", "--dry-run", "--together", "-1") == 2
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wlak"], "no study named 'wlak'; nearest: walk"),
        (["--grid", "drift=1", "walk"], "needs the name of a study first"),
        (["walk", "--engine", "slurm"], "--engine must be local or ray, got 'slurm'"),
        (["walk", "--address", "auto"], "--address belongs to --engine ray"),
        (["walk", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["walk", "--workers", "many"], "--workers must be int, got 'many'"),
        (["walk", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["walk", "--retries", "-1"], "--retries must be at least 0, got -1"),
        (["walk", "--together", "-1"], "--together must be at least 0, got -1"),
        (["walk", "--batch"], "--batch needs a value"),
        (["walk", "--track", "tensorbord"], "--track: no sink is named 'tensorbord'; nearest: tensorboard"),
        (["walk", "--figures=yes"], "--figures takes no value, got 'yes'"),
        (["walk", "--resume", "x"], "--resume: a sweep goes on by itself"),
        (["walk", "--no-such", "x"], "unknown flag --no-such"),
        (["walk", "--retry", "2"], "unknown flag --retry; nearest: --retries"),
        (["walk", "--dry-run", "--engine", "slurm"], "--engine must be local or ray, got 'slurm'"),
        (["walk", "--dry-run", "--workers", "many"], "--workers must be int, got 'many'"),
        (["walk", "--dry-run", "--track", "tensorbord"], "--track: no sink is named 'tensorbord'"),
    ],
)
def test_wrong_words_are_refused_in_a_line(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["sweep", *words], package="toys") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(here.glob("runs/*/sweep/cells"))


def test_a_folder_serves_one_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("walk", "--seeds", "1", "--out", "there") == 0
    assert sweep("side", "--out", "there") == 2
    assert "a sweep of the study walk is there" in capsys.readouterr().err
    (here / "there/sweep.json").write_text("{")
    assert sweep("walk", "--out", "there") == 2
    assert "damaged" in capsys.readouterr().err


def test_a_claim_that_nobody_makes_is_not_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("walk", "--seeds", "1", "--show", "walk") == 0
    assert sweep("walk", "--seeds", "1", "--show", "runs fast") == 2
    assert "no claim of this study holds the words 'runs fast'" in capsys.readouterr().err
    assert sweep("walk", "--seeds", "2", "--batch", "1", "--show", "runs fast") == 0
    assert capsys.readouterr().out.count("--show: so far no claim holds the words 'runs fast'") == 1


def test_a_closed_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert not Table().live
    assert not Display().terminal


def test_figures_are_drawn_when_asked_for(here: Path) -> None:
    assert sweep("walk", "--seeds", "1", "--figures") == 0
    assert list(here.glob("runs/walk/sweep/cells/*/walk.svg"))


@pytest.mark.parametrize(
    "words", [("walk", "--seeds", "1"), ("side", "--grid", "rate=0.2,0.6"), ("apart", "--seeds", "2")]
)
def test_metrics_go_to_the_sinks_that_are_asked_for(here: Path, words: tuple[str, ...]) -> None:
    pytest.importorskip("tensorboard")
    assert sweep(*words, "--track", "tensorboard", "--out", "here") == 0
    folders = [path.parent for path in here.glob("here/*/*/result.json")]
    assert len(folders) == (3 if words[0] == "apart" else words.count("--grid") + 1)
    assert all(list(folder.rglob("*.tfevents.*")) for folder in folders)


def test_a_job_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    from toys import walk

    made = plan(walk.STUDY, "toys", "cpu", [walk.STUDY.defaults("cpu")], [0], tmp_path / "far")
    outcome = perform(job(made, made.batches()[0]))
    assert outcome["status"] == "failed"
    assert "a folder that all of them share" in outcome["error"]
