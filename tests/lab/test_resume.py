"""Real processes, ended in every way: what they leave on the disk continues to the same numbers."""

from __future__ import annotations

import json
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Toy = Callable[..., "subprocess.CompletedProcess[str]"]
SLOW = ["--steps", "120", "--pause", "0.004", "--save-every", "0.1"]


def _start(command: list[str], folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*command, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def _lines(folder: Path) -> int:
    found = list(folder.glob("*/metrics.jsonl"))
    return len(found[0].read_bytes().splitlines()) if found else 0


def _only(folder: Path) -> Path:
    (found,) = (path for path in folder.iterdir() if path.is_dir())
    return found


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    words = ["run", "walk", "--out", "runs", *SLOW, "--pause", "0"]
    assert subprocess.run([*command, *words], cwd=folder, check=False).returncode == 0
    return _only(folder / "runs")


def _same_numbers(folder: Path, whole: Path) -> None:
    for name in ("data.json", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    ours, theirs = (json.loads((path / "result.json").read_text()) for path in (folder, whole))
    for key in ("checks", "tables", "seeds", "scale", "study", "paper"):
        assert ours[key] == theirs[key]


@pytest.mark.parametrize("lines", [90, 170])  # within the first stage, and within the second
def test_killed_and_resumed_gives_the_same_numbers(
    lines: int, command: list[str], toy: Toy, tmp_path: Path, whole: Path
) -> None:
    process = _start(command, tmp_path, "run", "walk", "--out", "runs", *SLOW)
    _wait_for(lambda: _lines(tmp_path / "runs") >= lines)
    process.kill()
    process.communicate()
    folder = _only(tmp_path / "runs")
    assert not (folder / "result.json").exists()
    assert list(folder.rglob("_state.json"))
    spent = json.loads((folder / "checkpoint" / "_timing.json").read_text())["value"]
    assert spent["cpu_s"] > 0
    ended = toy("run", "walk", "--resume", str(folder))
    assert ended.returncode == 0, ended.stderr
    _same_numbers(folder, whole)
    assert json.loads((folder / "result.json").read_text())["timing"]["wall_s"] > spent["wall_s"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_prints_the_command_that_resumes(
    number: int, command: list[str], tmp_path: Path, whole: Path
) -> None:
    process = _start(command, tmp_path, "run", "walk", "--out", "my runs", *SLOW)
    _wait_for(lambda: _lines(tmp_path / "my runs") >= 60)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=10)
    assert process.returncode == 130
    (line,) = complaint.splitlines()
    again = shlex.split(line.partition("continue with: mindworks ")[2])
    assert again[:3] == ["run", "walk", "--resume"]
    assert subprocess.run([*command, *again], cwd=tmp_path, check=False).returncode == 0
    _same_numbers(_only(tmp_path / "my runs"), whole)


def test_interrupt_ends_a_native_call_that_does_not_listen(command: list[str], tmp_path: Path) -> None:
    process = _start(command, tmp_path, "run", "stuck", "--how", "native", "--out", "runs")
    _wait_for(lambda: _lines(tmp_path / "runs") >= 1)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == 130
    assert len(complaint.splitlines()) == 1
    assert "continue with: mindworks run stuck --resume" in complaint


def test_finished_run_is_reprinted_and_not_repeated(toy: Toy, tmp_path: Path) -> None:
    first = toy("run", "walk", "--out", "runs", "--drift", "0", "--seed", "3", "--seeds", "1")
    folder = _only(tmp_path / "runs")
    content = (folder / "result.json").read_bytes()
    again = toy("run", "walk", "--resume", str(folder))
    assert again.returncode == first.returncode
    assert again.stdout.splitlines()[0] == first.stdout.splitlines()[0]
    assert (folder / "result.json").read_bytes() == content


def test_resume_refuses_what_differs(toy: Toy, tmp_path: Path) -> None:
    assert toy("run", "walk", "--out", "runs", "--scale", "smoke", "--start-points", "1", "2").returncode == 0
    folder = str(_only(tmp_path / "runs"))
    same = toy("run", "walk", "--resume", folder, "--scale", "smoke", "--seeds", "1", "--start-points", "1", "2")
    assert same.returncode == 0, same.stderr
    for words, named in (
        (["--steps", "21"], "--steps 21 differs"),
        (["--seed", "1"], "--seed 1 differs"),
        (["--scale", "cpu"], "--scale cpu differs"),
        (["--out", "elsewhere"], "--out elsewhere differs"),
        (["--steps", "many"], "--steps must be int, got 'many'"),
    ):
        ended = toy("run", "walk", "--resume", folder, *words)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert named in ended.stderr
    other = toy("run", "apart", "--resume", folder)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "of study 'walk', not 'apart'" in other.stderr
    nowhere = toy("run", "walk", "--resume", "nowhere")
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (2, 1)


def test_a_folder_in_use_is_refused(command: list[str], toy: Toy, tmp_path: Path) -> None:
    process = _start(command, tmp_path, "run", "walk", "--out", "runs", *SLOW, "--pause", "1")
    try:
        _wait_for(lambda: _lines(tmp_path / "runs") >= 1)
        ended = toy("run", "walk", "--resume", str(_only(tmp_path / "runs")))
        assert ended.returncode == 2
        assert f"in use by process {process.pid}" in ended.stderr
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("damage", ["half", "flip"])
def test_damaged_checkpoint_is_one_line_and_nothing_is_lost(
    damage: str, command: list[str], toy: Toy, tmp_path: Path
) -> None:
    process = _start(command, tmp_path, "run", "walk", "--out", "runs", *SLOW, "--pause", "1", "--save-every", "0")
    _wait_for(lambda: bool(list((tmp_path / "runs").rglob("_state.json"))))
    process.kill()
    process.communicate()
    folder = _only(tmp_path / "runs")
    (path,) = folder.rglob("_state.json")
    content = path.read_bytes()
    at = content.index(b'"place"') + 12
    bad = content[: len(content) // 2] if damage == "half" else content[:at] + b"7" + content[at + 1 :]
    path.write_bytes(bad)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    ended = toy("run", "walk", "--resume", str(folder))
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert str(path.relative_to(folder)) in ended.stderr
    changed = {file.name for file, data in before.items() if file.read_bytes() != data}
    assert changed <= {".lock", "_timing.json"}


def test_full_disk_is_one_line_and_the_run_continues_afterwards(toy: Toy, tmp_path: Path, whole: Path) -> None:
    def small_disk() -> None:  # a file beyond this size fails like a full disk does
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    words = [*SLOW, "--pause", "0", "--save-every", "1000"]
    ended = toy("run", "walk", "--out", "runs", *words, preexec_fn=small_disk)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    folder = _only(tmp_path / "runs")
    assert not (folder / "result.json").exists()
    assert toy("run", "walk", "--resume", str(folder)).returncode == 0
    assert (folder / "data.json").read_bytes() == (whole / "data.json").read_bytes()
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_torch_training_continues_to_the_same_bits(tmp_path: Path) -> None:
    import torch

    from mindworks.lab import RunLog

    def train(log: RunLog, die_at: int = -1) -> list:
        weight, momentum = torch.zeros(5), torch.zeros(5)
        generator = torch.Generator().manual_seed(0)
        start = 0
        if (state := log.load()) is not None:
            weight, momentum, start = state["weight"], state["momentum"], state["step"]
            generator.set_state(state["random"])
        for step in range(start, 40):
            if step == die_at:
                raise KeyboardInterrupt
            momentum = 0.9 * momentum + torch.randn(5, generator=generator)
            weight = weight + 0.01 * momentum
            if step % 7 == 0:
                random = generator.get_state()
                log.save({"weight": weight, "momentum": momentum, "step": step + 1, "random": random}, step)
        return weight.tolist()

    straight = train(RunLog(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        train(RunLog(tmp_path / "b"), die_at=25)
    assert train(RunLog(tmp_path / "b")) == straight


def test_seeds_run_in_processes_of_their_own(toy: Toy, tmp_path: Path) -> None:
    ended = toy("run", "apart", "--out", "runs", "--seed", "4")
    assert ended.returncode == 0, ended.stderr
    folder = _only(tmp_path / "runs")
    data = json.loads((folder / "data.json").read_text())
    assert len(set(data["pid"])) == 3
    assert data["threads"] == ["1"] * 3
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [4] * 5 + [5] * 5 + [6] * 5
    assert json.loads((folder / "result.json").read_text())["timing"]["cpu_s"] > 0.1  # that of the processes


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("kill", 70, "killed by SIGKILL"),
        ("input", 2, "draws must be lucky, got 13"),
        ("defect", 70, "RuntimeError: out of luck (traceback in"),
    ],
)
def test_a_failing_seed_is_one_line_and_the_others_are_kept(
    how: str, status: int, words: str, toy: Toy, tmp_path: Path
) -> None:
    fault = tmp_path / "fault"
    fault.write_text(f"1 {how}")
    ended = toy("run", "apart", "--out", "runs", "--fault", str(fault))
    assert ended.returncode == status
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert f"seed 1: {words}" in " ".join(ended.stderr.split()) or f"seed 1: its process was {words}" in ended.stderr
    folder = _only(tmp_path / "runs")
    kept = [(folder / f"seed-{seed}" / "checkpoint" / "_run.json").read_bytes() for seed in (0, 2)]
    fault.unlink()
    assert toy("run", "apart", "--resume", str(folder)).returncode == 0
    assert [(folder / f"seed-{seed}" / "checkpoint" / "_run.json").read_bytes() for seed in (0, 2)] == kept


def _alive(folder: Path) -> list[str]:
    """Processes whose working directory is `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder and "Z" not in (process / "stat").read_text().split(")")[1][:3]:
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_of_seeds_end_with_their_run(number: int, command: list[str], tmp_path: Path) -> None:
    process = _start(command, tmp_path, "run", "apart", "--out", "runs", "--pause", "10")
    _wait_for(lambda: bool(list((tmp_path / "runs").rglob("seed-*/.lock"))))
    process.send_signal(number)
    _, complaint = process.communicate(timeout=10)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert "Traceback" not in complaint
    _wait_for(lambda: not _alive(tmp_path))
