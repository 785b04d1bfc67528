"""The Ray engine: an instance of this machine, a cluster of two nodes, and what becomes of jobs when parts die."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import pytest

from mindworks.errors import InputError, MissingExtra
from mindworks.lab.sweep import ray_engine
from mindworks.lab.sweep.engine import Ended
from mindworks.lab.sweep.ray_engine import RayEngine
from toys import _labour

TESTS = Path(__file__).parents[1]
PATIENCE = 90.0  # for what must happen; nothing here measures time


def _soon(condition, what: str):
    """What `condition()` gives once that is true."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)
    return found


def _collect(engine: RayEngine, count: int) -> dict[str, Ended]:
    ended: dict[str, Ended] = {}
    end = time.monotonic() + PATIENCE
    while len(ended) < count and time.monotonic() < end:
        ended |= {one.key: one for one in engine.wait(1.0)}
    assert len(ended) == count
    return ended


def _mark(path: Path) -> tuple[int, int]:
    """The process and the session of the job that leaves the mark `path`."""
    _soon(path.exists, f"{path.name} begins")
    pid, session = path.read_text().split()
    return int(pid), int(session)


def _session(leader: int) -> list[int]:
    """The live processes of a session."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            zombie = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if os.getsid(int(name)) == leader and not zombie:
                found.append(int(name))
    return found


needs_ray = pytest.mark.skipif(not ray_engine.find_spec("ray"), reason="ray is not installed")
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the processes are counted in /proc")


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    engine = RayEngine(_labour.work, workers=2)
    try:
        yield engine
        for number in range(4):
            engine.submit(f"late{number}", {"until": "/nowhere"})
    finally:
        engine.stop()
    assert _session(engine._process.pid) == []
    assert not engine._folder.exists()


@needs_ray
@needs_proc
class TestLocalInstance:
    def test_jobs_run_elsewhere_with_their_threads_and_come_back_exactly(self, engine: RayEngine) -> None:
        values = [1, "ü\n\u2028", {"a": [None, True, 0.1]}, float("inf")]
        for number, value in enumerate(values):
            engine.submit(f"v{number}", {"value": value})
        ended = _collect(engine, 4)
        assert [ended[f"v{number}"].outcome["value"] for number in range(4)] == values
        assert {one.lost for one in ended.values()} == {""}
        assert os.getpid() not in {one.outcome["pid"] for one in ended.values()}
        assert ended["v0"].outcome["threads"].items() >= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}.items()

    def test_two_jobs_overlap_and_a_third_waits(self, engine: RayEngine, tmp_path: Path) -> None:
        assert engine.workers == 2
        marks = [tmp_path / name for name in ("a", "b", "c")]
        engine.submit("a", {"mark": str(marks[0]), "until": str(marks[1])})
        engine.submit("b", {"mark": str(marks[1]), "until": str(tmp_path / "go")})
        engine.submit("d", {"mark": str(tmp_path / "d"), "until": str(tmp_path / "go")})
        engine.submit("c", {"mark": str(marks[2])})
        assert set(_collect(engine, 1)) == {"a"}
        _mark(tmp_path / "d")
        assert engine.running() == ["b", "d"]
        assert engine.wait(0.2) == []
        assert not marks[2].exists()
        (tmp_path / "go").touch()
        assert set(_collect(engine, 3)) == {"b", "c", "d"}
        assert engine.running() == []

    def test_a_killed_worker_costs_its_job_alone(self, engine: RayEngine, tmp_path: Path) -> None:
        engine.submit("victim", {"mark": str(tmp_path / "victim"), "until": str(tmp_path / "go")})
        engine.submit("other", {"mark": str(tmp_path / "other"), "until": str(tmp_path / "go")})
        engine.submit("later", {"value": 3})
        _mark(tmp_path / "other")
        os.kill(_mark(tmp_path / "victim")[0], signal.SIGKILL)
        first = _soon(lambda: engine.wait(1.0), "the lost job is told")
        assert Ended("victim", None, "its Ray worker died") in first
        (tmp_path / "go").touch()
        ended = _collect(engine, 3 - len(first)) | {one.key: one for one in first}
        assert ended["other"].lost == ended["later"].lost == ""
        assert ended["later"].outcome["value"] == 3

    def test_an_error_of_the_work_is_an_outcome(self, engine: RayEngine) -> None:
        engine.submit("bad", {"error": "two\nlines"})
        ended = _collect(engine, 1)["bad"]
        assert (ended.outcome["status"], ended.outcome["error"]) == ("failed", "ValueError: two lines")
        assert "_labour.py" in ended.outcome["traceback"]
        assert ended.lost == ""

    def test_more_jobs_than_ray_is_given_at_once(self, engine: RayEngine) -> None:
        for number in range(100):
            engine.submit(f"n{number}", {"value": number})
        ended = _collect(engine, 100)
        assert [ended[f"n{number}"].outcome["value"] for number in range(100)] == list(range(100))

    def test_it_listens_on_the_loopback_interface_alone(self, engine: RayEngine) -> None:
        sockets = set()
        for pid in _session(engine._process.pid):
            for handle in Path("/proc", str(pid), "fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(handle))
        lines = [
            line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()
        ]
        listening = {
            line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets
        }
        assert listening
        assert listening <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


_SWEEP = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from toys import _labour
from mindworks.lab.sweep.ray_engine import RayEngine
engine = RayEngine(_labour.work, workers=1)
engine.submit("first", {{"mark": "first", "until": "go", "value": 5}})
try:
    while True:
        engine.wait(1.0)
except KeyboardInterrupt:
    open("go", "w").close()
while not (ended := engine.wait(1.0)):
    pass
engine.submit("second", {{"mark": "second", "until": "never"}})
print(engine._process.pid, engine._folder, ended[0].outcome["value"], flush=True)
signal.pause()
"""


@needs_ray
@needs_proc
def test_an_interrupt_spares_the_jobs_and_a_killed_sweep_leaves_no_process(tmp_path: Path) -> None:
    sweep = subprocess.Popen(
        [sys.executable, "-c", _SWEEP.format(tests=str(TESTS))],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _mark(tmp_path / "first")
        os.killpg(sweep.pid, signal.SIGINT)
        leader, folder, value = sweep.stdout.readline().split()
        assert value == "5"
        _mark(tmp_path / "second")
        assert len(_session(int(leader))) > 3
    finally:
        sweep.kill()
        sweep.communicate()
    _soon(lambda: not _session(int(leader)), "every process ends")
    assert not Path(folder).exists()


@needs_ray
def test_a_sweep_on_ray_finishes_its_cells(toy, tmp_path: Path) -> None:
    done = toy("sweep", "walk", "--scale", "smoke", "--seeds", 2, "--batch", 1, "--engine", "ray", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs/walk/sweep/cells").glob("*/result.json"))) == 2


class _Cluster:
    """Nodes with one CPU each on this machine; the processes of a node are a session of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{_free()}"
        self.nodes: list[subprocess.Popen] = []

    def add(self) -> int:
        """Start a node, the first as head; returns its session."""
        where = [f"--address={self.address}"]
        if not self.nodes:
            port = self.address.partition(":")[2]
            where = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
            where += [f"--ray-client-server-port={_free()}"]
        flags = ["--block", "--num-cpus=1", f"--object-store-memory={80 << 20}"]
        output = self.folder / f"node{len(self.nodes)}.txt"
        with output.open("w") as file:
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags, *where]
            node = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)
        self.nodes.append(node)
        _soon(lambda: "Ray runtime started" in output.read_text() or node.poll() is not None, "a node starts")
        assert node.poll() is None, output.read_text()
        return node.pid

    def kill(self, number: int) -> None:
        """End a node as a power cut does, with what it was just about to start."""
        for _ in range(3):
            for pid in _session(self.nodes[number].pid):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        self.nodes[number].wait()


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Cluster]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")  # five failed checks make a node dead; 3 s apart as a rule
    folder = Path(tempfile.mkdtemp(prefix="mw-", dir="/tmp"))  # sockets need a short path
    cluster = _Cluster(folder)
    try:
        yield cluster
    finally:
        for number in range(len(cluster.nodes)):
            cluster.kill(number)
        rmtree(folder, ignore_errors=True)
    assert [pid for node in cluster.nodes for pid in _session(node.pid)] == []


@needs_ray
@needs_proc
def test_a_cluster_outlives_a_node_and_its_end_is_one_line(
    cluster: _Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "SILENCE_S", 3.0)
    monkeypatch.setattr(ray_engine, "CONNECT_S", PATIENCE)
    head = cluster.add()
    with pytest.raises(InputError, match=r"^--address .*: no node has the 2 CPUs of --threads 2; the largest has 1$"):
        RayEngine(_labour.work, cluster.address, threads=2)
    engine = RayEngine(_labour.work, cluster.address)
    try:
        assert engine.workers == 1
        second = cluster.add()
        _soon(lambda: engine.workers == 2, "the second node counts")
        keys = ["a", "b"]
        for key in keys:
            engine.submit(key, {"mark": str(tmp_path / key), "until": str(tmp_path / "go")})
        where = {_mark(tmp_path / key)[1]: key for key in keys}
        assert set(where) == {head, second}

        cluster.kill(1)
        lost = _collect(engine, 1)[where[second]]
        assert lost.outcome is None
        assert lost.lost in ("its node died", "its Ray worker died")
        (tmp_path / "go").touch()
        engine.submit(where[second], {"value": 2})
        ended = _collect(engine, 2)
        assert {one.outcome["session"] for one in ended.values()} == {head}
        _soon(lambda: engine.workers == 1, "the dead node does not count")

        engine.submit("last", {"mark": str(tmp_path / "last"), "until": str(tmp_path / "never")})
        _mark(tmp_path / "last")
        cluster.kill(0)
        with pytest.raises(OSError, match=f"^the Ray cluster at {cluster.address} is lost: .+$"):
            _soon(lambda: any(one.lost == "" for one in engine.wait(1.0)), "the cluster is lost")
    finally:
        engine.stop()
    assert _session(engine._process.pid) == []


def _at_work(root: Path) -> dict[int, str]:
    """The processes that hold a cell which has not finished, and the cells."""
    found = {}
    for lock in root.glob("cells/*/.lock"):
        if not (lock.parent / "result.json").exists() and (text := lock.read_text().strip()):
            found[int(text)] = lock.parent.name
    return {pid: name for pid, name in found.items() if Path(f"/proc/{pid}").exists()}


def _fresh(root: Path, session: int) -> list[str]:
    """The cells that a node of this session has just begun."""
    lines = {
        name: root / "cells" / name / "metrics.jsonl" for pid, name in _at_work(root).items() if _of(pid) == session
    }
    return [name for name, path in lines.items() if path.exists() and path.read_text().count("\n") in range(1, 5)]


def _of(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return 0


@needs_ray
@needs_proc
def test_a_sweep_outlives_a_worker_and_a_node(cluster: _Cluster, tmp_path: Path, command: list[str]) -> None:
    cluster.add()
    second = cluster.add()
    root = tmp_path / "runs/apart/sweep"
    words = ["sweep", "apart", "--seeds", "8", "--draws", "20", "--pause", "0.1", "--engine", "ray"]
    sweep = subprocess.Popen(
        [*command, *words, "--address", cluster.address],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _soon(lambda: len(list(root.glob("cells/*/result.json"))) >= 1, "a cell finishes")
        victim = _soon(lambda: next(iter(_at_work(root)), 0), "a worker is at a cell")
        os.kill(victim, signal.SIGKILL)
        _soon(lambda: _fresh(root, second), "a cell begins on the second node")
        stamps = {path: path.stat().st_mtime_ns for path in root.glob("cells/*/result.json")}
        cluster.kill(1)
        shown, _ = sweep.communicate(timeout=PATIENCE)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, shown
    assert 1 <= len(stamps) < 8
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(list(root.glob("cells/*/result.json"))) == 8
    assert len(list(root.glob("merged/*/result.json"))) == 1
    assert 2 <= shown.count("trying again") <= 3, shown  # the worker's cell, the node's, perhaps one just handed out
    assert "its Ray worker died" in shown


@needs_ray
@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_an_address_at_which_nothing_listens(prefix: str) -> None:
    address = f"{prefix}127.0.0.1:{_free()}"
    with pytest.raises(InputError, match=rf"^--address {address}: Connection refused$"):
        RayEngine(_labour.work, address)


@needs_ray
def test_an_address_at_which_something_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "CONNECT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"^--address {address}: nothing that answers as Ray does within 2 s$"):
            RayEngine(_labour.work, address)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"address": "host"}, "--address must be auto, HOST:PORT or ray://HOST:PORT, got 'host'"),
        ({"address": "host:70000"}, "--address must be auto, HOST:PORT or ray://HOST:PORT, got 'host:70000'"),
        ({"address": "http://host:1"}, "--address must be auto, HOST:PORT or ray://HOST:PORT, got 'http://host:1'"),
        ({"workers": 0}, "--workers must be at least 1, got 0"),
        ({"threads": 0}, "--threads must be at least 1, got 0"),
    ],
)
def test_bad_flags_of_the_ray_engine(flags: dict, words: str) -> None:
    with pytest.raises(InputError) as refused:
        RayEngine(_labour.work, **flags)
    assert str(refused.value) == words


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"^ray is not installed: pip install 'mindworks\[cluster\]'$"):
        RayEngine(_labour.work)
