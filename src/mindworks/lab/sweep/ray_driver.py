"""The process that speaks to Ray for a sweep: jobs arrive on its standard input, one JSON line each, outcomes leave.

It stands apart because Ray ends a process that has lost its cluster, blocks in calls that know no time limit, and takes
over signals. Here it can: the sweep goes on, and ends this process and all that belongs to it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
import traceback
from collections import deque
from importlib import import_module
from typing import Any, TextIO

from mindworks.errors import require
from mindworks.lab.files import dumps, loads
from mindworks.lab.processes import described, one_line

REACH_S = 4.0  # to open a connection to an address
PARTING_S = 2.0  # for Ray to end its processes in its own way
OBJECT_STORE = 80 << 20  # bytes; Ray takes no less than 75 MiB, and outcomes are a few lines


def main() -> None:
    """Serve one sweep: the first line holds the options, every other a key and a job; the end of input ends it."""
    jobs, outcomes = _take_over_pipes()
    options = loads(jobs.readline())
    driver = _Driver(options, outcomes)
    threading.Thread(target=driver.listen, args=(jobs,), daemon=True).start()
    try:
        driver.connect()
        driver.serve()
    except BaseException as error:
        traceback.print_exc()
        driver.say({"gone": one_line(error)})
    driver.leave()


def _take_over_pipes() -> tuple[TextIO, TextIO]:
    """Both pipes to the sweep, out of reach of what prints, and of the processes that Ray starts."""
    jobs = os.fdopen(os.dup(0), encoding="utf-8", errors="surrogatepass")
    outcomes = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return jobs, outcomes


class _Driver:
    """Keeps Ray supplied with jobs, and the sweep with what became of them."""

    def __init__(self, options: dict[str, Any], outcomes: TextIO) -> None:
        self.options = options
        self.threads, self.limit = options["threads"], options["workers"]
        self._outcomes = outcomes
        self._speaking = threading.Lock()
        self._events: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self._seen = time.monotonic()
        self._capacity = 1

    def say(self, message: dict[str, Any]) -> None:
        """Tell the sweep; one that is no longer there is told nothing."""
        with self._speaking, contextlib.suppress(OSError, ValueError):
            self._outcomes.write(dumps(message) + "\n")
            self._outcomes.flush()

    def listen(self, jobs: TextIO) -> None:
        """Take in jobs until there are no more, which is when the sweep has ended in whatever way."""
        with contextlib.suppress(ValueError):  # half a line, from a sweep that was killed
            for line in jobs:
                self._events.put(("job", *loads(line)))
        self._events.put(("end", None, None))
        time.sleep(PARTING_S)
        self.leave()

    def connect(self) -> None:
        """Start a Ray instance, or connect to a running one."""
        address = self.options["address"]
        if address not in ("", "auto"):
            _reach(address)
        import ray

        common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address:
            variables = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
            variables["PYTHONPATH"] = os.pathsep.join([*self.options["paths"], "${PYTHONPATH}"])
            ray.init(address, runtime_env={"env_vars": variables}, **common)
        else:
            ray.init(
                "local",
                num_cpus=self.limit * self.threads,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE,
                _temp_dir=os.path.join(self.options["folder"], "r"),
                **common,
            )
        largest = max(self._sizes(), default=0.0)
        # A cluster without any CPU may be one that starts nodes on demand.
        require(
            not largest or largest >= self.threads,
            f"no node has the {self.threads} CPUs of --threads {self.threads}; the largest has {largest:g}",
        )
        self._count()
        threading.Thread(target=self._watch, daemon=True).start()

    def serve(self) -> None:
        """Hand jobs to Ray, few ahead of those that run, until the sweep ends; a lost cluster is an OSError."""
        import ray

        remote = ray.remote(num_cpus=self.threads, max_retries=0)(_perform)
        waiting: deque[tuple[str, Any]] = deque()
        at_work: dict[str, Any] = {}
        while True:
            with contextlib.suppress(queue.Empty):
                kind, key, value = self._events.get(timeout=1.0)
                if kind == "end":
                    break
                if kind == "job":
                    waiting.append((key, value))
                else:
                    del at_work[key]
                    self.say({"key": key, **_ending(value)})
            if time.monotonic() - self._seen > self.options["silence"]:
                raise OSError("it does not answer any more")
            # Without a limit, as many again wait in Ray itself, so that a cluster that grows on demand sees the demand.
            while waiting and len(at_work) < (self.limit or 2 * self._capacity):
                key, job = waiting.popleft()
                at_work[key] = remote.options(name=key).remote(self.options["work"], dumps(job))
                at_work[key].future().add_done_callback(functools.partial(self._done, key))
        for reference in at_work.values():
            ray.cancel(reference, force=True)
        ray.shutdown()

    def _done(self, key: str, future: Any) -> None:
        self._events.put(("done", key, future))

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            with contextlib.suppress(Exception):
                self._count()

    def _sizes(self) -> list[float]:
        import ray

        nodes = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]}
        # Every job is scheduled by way of the node that this process is at.
        if ray.get_runtime_context().get_node_id() in nodes:
            self._seen = time.monotonic()
        return list(nodes.values())

    def _count(self) -> None:
        """Tell the sweep how many jobs can run at a time."""
        capacity = max(1, sum(int(size // self.threads) for size in self._sizes()))
        self._capacity = min(capacity, self.limit or capacity)
        self.say({"workers": self._capacity})

    def leave(self) -> None:
        """End what Ray may have left behind of a local instance, and this process."""
        end_session(os.getpid())
        shutil.rmtree(self.options["folder"], ignore_errors=True)
        os._exit(0)


def _reach(address: str) -> None:
    """Raise OSError unless something listens at the address: Ray would try for a long time, and print a page."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), REACH_S):
        pass


def _perform(work: str, job: str) -> str:
    """What a worker of Ray does: the work called `MODULE:NAME` on a job, both ways as JSON."""
    module, _, name = work.partition(":")
    try:
        return dumps(getattr(import_module(module), name)(loads(job)))
    except Exception as error:
        return dumps(_failed(error, traceback.format_exc()))


def _failed(error: BaseException, text: str) -> dict[str, Any]:
    return {"status": "failed", "error": described(error), "traceback": text}


def _ending(future: Any) -> dict[str, Any]:
    """What became of a job: the `outcome`, or how its process was `lost`."""
    from ray import exceptions

    error = future.exception()
    if error is None:
        return {"outcome": loads(future.result()), "lost": ""}
    if isinstance(error, (exceptions.RayTaskError, exceptions.RuntimeEnvSetupError)):
        lines = str(error).strip().splitlines()
        return {"outcome": _failed(RuntimeError(lines[-1]), str(error)), "lost": ""}
    if isinstance(error, exceptions.WorkerCrashedError):
        return {"outcome": None, "lost": "its Ray worker died"}
    if isinstance(error, exceptions.OutOfMemoryError):
        return {"outcome": None, "lost": "Ray ended its worker: its node ran out of memory"}
    if isinstance(error, exceptions.NodeDiedError):
        return {"outcome": None, "lost": "its node died"}
    return {"outcome": None, "lost": described(error)[:200]}


def end_session(leader: int) -> None:
    """Kill every other process of the session that the process `leader` began."""
    if not hasattr(os, "getsid"):
        return
    for number in _processes():
        with contextlib.suppress(OSError):
            if number != os.getpid() and os.getsid(number) == leader:
                os.kill(number, signal.SIGKILL)


def _processes() -> list[int]:
    if os.path.isdir("/proc/self"):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    listed = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=False).stdout
    return [int(number) for number in listed.split()]
