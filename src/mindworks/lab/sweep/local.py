"""Jobs in processes of this machine: as many single-process executors as there are workers.

One executor per worker and not one for all: when a process dies, `concurrent.futures` gives up the whole executor.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from mindworks.errors import require
from mindworks.lab.processes import described, end_with_parent, limited_threads, no_interrupt
from mindworks.lab.record import cores
from mindworks.lab.sweep.engine import Ended, Work


class LocalEngine:
    """`workers` processes (default: one per `threads` processors), started afresh, each with `threads` threads.

    What a process prints goes to `logs/worker-N.txt`.
    """

    def __init__(self, work: Work, logs: Path, workers: int | None = None, threads: int = 1) -> None:
        require(threads >= 1, f"--threads must be at least 1, got {threads}")
        count = max(1, cores() // threads) if workers is None else workers
        require(count >= 1, f"--workers must be at least 1, got {count}")
        logs.mkdir(parents=True, exist_ok=True)
        self._queue: deque[tuple[str, dict[str, Any]]] = deque()
        self._workers = [_Worker(work, threads, logs / f"worker-{number}.txt") for number in range(count)]

    @property
    def workers(self) -> int:
        """How many processes there are."""
        return len(self._workers)

    def submit(self, key: str, job: dict[str, Any]) -> None:
        """Queue a job; returns at once."""
        self._queue.append((key, job))
        self._hand_out()

    def running(self) -> list[str]:
        """The keys of the jobs that processes are at."""
        return [worker.key for worker in self._workers if worker.future is not None]

    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that ended since the last call; waits up to `seconds` for the first."""
        at_work = {worker.future: worker for worker in self._workers if worker.future is not None}
        done, _ = wait(at_work, timeout=seconds, return_when=FIRST_COMPLETED)
        ended = [at_work[future].collect() for future in done]
        self._hand_out()
        return ended

    def stop(self) -> None:
        """Kill every process."""
        self._queue.clear()
        for worker in self._workers:
            worker.kill()

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.future is None and self._queue:
                worker.start(*self._queue.popleft())


class _Worker:
    """One process, replaced by another when it dies."""

    def __init__(self, work: Work, threads: int, log: Path) -> None:
        self.work, self.threads, self.log = work, threads, log
        self.key = ""
        self.future: Future[dict[str, Any]] | None = None
        self._executor: ProcessPoolExecutor | None = None
        self._process: Any = None

    def start(self, key: str, job: dict[str, Any]) -> None:
        self.key = key
        if self._executor is not None:
            with contextlib.suppress(BrokenProcessPool):  # it died while it had nothing to do
                self.future = self._executor.submit(self.work, job)
                return
            self.kill()
        before = set(multiprocessing.active_children())
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(str(self.log),))
        with limited_threads(self.threads), no_interrupt():
            try:
                self.future = self._executor.submit(self.work, job)
            finally:  # an interrupt must find what there is to kill
                self._process = next(iter(set(multiprocessing.active_children()) - before), None)

    def collect(self) -> Ended:
        """What became of the job that has ended."""
        assert self.future is not None
        future, self.future = self.future, None
        try:
            return Ended(self.key, future.result())
        except BrokenProcessPool:
            process = self._process
            self.kill()  # first: the executor's own thread waits for the process, and one of two waiters learns nothing
            return Ended(self.key, None, _death(process.exitcode, self.log))
        except Exception as error:
            return Ended(self.key, {"status": "failed", "error": described(error)})

    def kill(self) -> None:
        """End the process, whatever it is at."""
        if self._process is not None:
            self._process.kill()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self.future = self._executor = self._process = None


def _death(code: int | None, log: Path) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with status {code}; what it printed is in {log}"


def _begin(log: str) -> None:
    """The first thing in a process: it ends with its parent, and prints into a file."""
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


@contextlib.contextmanager
def closing(engine: Any) -> Iterator[Any]:
    """The engine, stopped at the end however it comes."""
    try:
        yield engine
    finally:
        engine.stop()
