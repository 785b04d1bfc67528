"""Jobs on Ray: an instance of this machine, or a cluster."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, MissingExtra, require
from mindworks.lab.files import dumps, loads
from mindworks.lab.processes import limited_threads
from mindworks.lab.record import cores
from mindworks.lab.sweep.engine import Ended, Work
from mindworks.lab.sweep.ray_driver import end_session

START_S = 60.0  # for a local instance; 2 s are usual
CONNECT_S = 12.0  # for a cluster; 1 s is usual
SILENCE_S = 20.0  # a cluster that answers nothing for so long is lost; Ray's own patience is 60 s
STOP_S = 3.0
_ADDRESS = re.compile(r"auto|(ray://)?(\[[0-9a-fA-F:.]+\]|[\w.-]+):(?P<port>\d{1,5})")
_INSTALLED = {"site-packages", "dist-packages"}
_START = "from mindworks.lab.sweep.ray_driver import main; main()"
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_NUM_REDIS_GET_RETRIES": "3", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class RayEngine:
    """Every job is a Ray task with `threads` CPUs, tried once.

    `address` "" starts an instance for this sweep, on the loopback interface, with room for `workers` jobs (default:
    one per `threads` processors). `auto`, `HOST:PORT` or `ray://HOST:PORT` is a cluster that runs already; there
    `workers` limits how many jobs Ray has at a time. Workers import `work` by its name; jobs and outcomes are JSON.

    Raises InputError for an address at which no cluster answers, and MissingExtra without Ray; `wait` raises OSError
    when the cluster is lost. Whatever ends this process, the instance, or the cluster's tasks, end with it.
    """

    def __init__(self, work: Work, address: str = "", workers: int | None = None, threads: int = 1) -> None:
        require(threads >= 1, f"--threads must be at least 1, got {threads}")
        require(workers is None or workers >= 1, f"--workers must be at least 1, got {workers}")
        require(
            not address or _is_address(address),
            f"--address must be auto, HOST:PORT or ray://HOST:PORT, got {address!r}",
        )
        if find_spec("ray") is None:
            raise MissingExtra("ray is not installed: pip install 'mindworks[cluster]'")
        if not address and workers is None:
            workers = max(1, cores() // threads)
        self._name = f"the Ray cluster at {address}" if address else "the local Ray instance"
        self._workers = workers or 1
        self._gone = ""
        self._pending: dict[str, None] = {}
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._ready = threading.Event()
        # Paths of sockets are limited to about a hundred bytes, which the usual folder of some machines uses up.
        self._folder = Path(tempfile.mkdtemp(prefix="mw-", dir="/tmp" if os.path.isdir("/tmp") else None))
        self._process = self._start(address, threads)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipes = self._process.stdin, self._process.stdout
        options: dict[str, Any] = {"address": address, "workers": workers, "threads": threads, "silence": SILENCE_S}
        options |= {"work": f"{work.__module__}:{work.__qualname__}", "paths": _paths(), "folder": str(self._folder)}
        self._send(options)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self._await_ready(address, CONNECT_S if address else START_S)
        except BaseException:
            self._end()
            raise

    @property
    def workers(self) -> int:
        """How many jobs can run at a time, as of a second ago: nodes come and go."""
        return self._workers

    def submit(self, key: str, job: dict[str, Any]) -> None:
        """Queue a job; returns at once."""
        self._pending[key] = None
        self._send([key, job])

    def running(self) -> list[str]:
        """The keys of the oldest jobs that have not ended, `workers` of them: Ray takes them in turn."""
        return list(self._pending)[: self._workers]

    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that ended since the last call; waits up to `seconds` for the first.

        Raises OSError in one line when the cluster or the instance is lost, and with it every job.
        """
        ended: list[Ended] = []
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while not self._gone:
                patience = 0.0 if ended else max(0.0, deadline - time.monotonic())
                self._take(self._messages.get(timeout=patience), ended)
        if self._gone and not ended:
            raise OSError(f"{self._name} is lost: {self._gone}")
        return ended

    def stop(self) -> None:
        """End every process of this sweep, whatever it is at, within a second or two."""
        with contextlib.suppress(OSError):
            self._pipes[0].close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        end_session(self._process.pid)
        self._listener.join(1.0)
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # what the driver did not live to read
                pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, address: str, threads: int) -> subprocess.Popen[str]:
        with limited_threads(threads):
            variables = os.environ | _QUIET | {"PYTHONPATH": os.pathsep.join(_paths())}
        if not address:
            # Ray gives a machine's outward address to all that it starts, except where it takes it for a desktop.
            variables |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
            variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        with (self._folder / "log.txt").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=variables,
                encoding="utf-8",
                errors="surrogatepass",
                start_new_session=True,  # the terminal's interrupt reaches the sweep alone
            )

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # its end is `wait`'s to report
            self._pipes[0].write(dumps(message) + "\n")
            self._pipes[0].flush()

    def _listen(self) -> None:
        with contextlib.suppress(ValueError, OSError):  # half a line, from a driver that was killed
            for line in self._pipes[1]:
                message = loads(line)
                if "workers" in message:
                    self._workers = message["workers"]
                    self._ready.set()
                else:
                    self._messages.put(message)
        self._messages.put({"gone": _last_line(self._folder / "log.txt")})
        self._ready.set()

    def _take(self, message: dict[str, Any], ended: list[Ended]) -> None:
        if "gone" in message:
            self._gone = message["gone"]
        else:
            ended.append(Ended(**message))
            self._pending.pop(message["key"], None)

    def _await_ready(self, address: str, seconds: float) -> None:
        answered = self._ready.wait(seconds)
        with contextlib.suppress(queue.Empty):
            self._take(self._messages.get_nowait(), [])
        reason = self._gone or ("" if answered else f"nothing that answers as Ray does within {seconds:g} s")
        if reason and address:
            raise InputError(f"--address {address}: {reason}")
        if reason:
            raise OSError(f"Ray does not start here: {reason}")


def _is_address(text: str) -> bool:
    found = _ADDRESS.fullmatch(text)
    return found is not None and int(found["port"] or 0) < 1 << 16


def _paths() -> list[str]:
    """Where this process finds modules beside those that are installed: the tests' folder, or an editable install."""
    own = [path for path in map(os.path.abspath, sys.path) if not path.endswith(".zip")]
    standard = sysconfig.get_path("stdlib")
    return [path for path in own if not path.startswith(standard) and not _INSTALLED & set(Path(path).parts)]


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return " ".join(lines[-1].split())[:200]
    return "its driver ended"
