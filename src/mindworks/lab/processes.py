"""One process per seed, for methods that cannot take the seeds as a leading dimension."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, MissingExtra
from mindworks.lab.files import read_sealed, write_atomic
from mindworks.lab.folder import locked
from mindworks.lab.log import RunLog
from mindworks.lab.progress import Display
from mindworks.lab.record import cores
from mindworks.lab.study import Study

BAD_INPUT, CRASH = 2, 70
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class SeedsFailed(Exception):
    """Seeds that did not finish, in one line; `status` is the exit status. Finished seeds are kept for resuming."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_seeds(study: Study, config: Any, seeds: Sequence[int], folder: Path, display: Display) -> list[Any]:
    """What `study.run(config, [seed], log)` returned for each seed, in the order of `seeds`.

    Every seed has a process of its own with one thread, at most one per processor at a time, and works in
    `folder/seed-N`. Seeds that finished in an earlier part of the run are read from there.
    """
    context = multiprocessing.get_context("spawn")
    pending = [seed for seed in seeds if not _result(folder, seed).exists()]
    running: dict[Any, tuple[int, Any]] = {}
    failed: dict[int, tuple[str, int]] = {}
    try:
        while pending or running:
            while pending and len(running) < cores():
                seed = pending.pop(0)
                process = context.Process(target=_work, args=(study.run, config, seed, _home(folder, seed)))
                with limited_threads(1), no_interrupt():
                    process.start()
                running[process.sentinel] = seed, process
            for sentinel in wait(list(running)):
                seed, process = running.pop(sentinel)
                process.join()
                if process.exitcode == 0:
                    display.say(f"seed {seed} finished")
                else:
                    failed[seed] = _failure(folder, seed, process.exitcode)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    if failed:
        reasons = "; ".join(f"seed {seed}: {reason}" for seed, (reason, _) in sorted(failed.items()))
        raise SeedsFailed(reasons, max(status for _, status in failed.values()))
    _merge_metrics(folder, seeds)
    return [read_sealed(_result(folder, seed))["value"] for seed in seeds]


def _home(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}"


def _result(folder: Path, seed: int) -> Path:
    return _home(folder, seed) / "checkpoint" / "_run.json"


def _failure(folder: Path, seed: int, exitcode: int) -> tuple[str, int]:
    if exitcode < 0:
        return f"its process was killed by {signal.Signals(-exitcode).name}", CRASH
    note = _home(folder, seed) / "error.txt"
    lines = note.read_text(encoding="utf-8").strip().splitlines() if note.exists() else []
    if exitcode == BAD_INPUT and lines:
        return lines[-1], BAD_INPUT
    return (f"{lines[-1]} (traceback in {note})" if lines else f"its process ended with status {exitcode}"), CRASH


def _merge_metrics(folder: Path, seeds: Sequence[int]) -> None:
    parts = [_home(folder, seed) / "metrics.jsonl" for seed in seeds]
    write_atomic(folder / "metrics.jsonl", b"".join(part.read_bytes() for part in parts if part.exists()))


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Processes started here see `count` threads each, so that N of them share N times as many processors."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def no_interrupt() -> Iterator[None]:
    """Processes started here never see the terminal's interrupt: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(run: Callable[..., Any], config: Any, seed: int, folder: Path) -> None:
    """The life of one process: run one seed, leave its result or the reason there is none."""
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    note = folder / "error.txt"
    status = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        with locked(folder, patience=5.0):  # a killed run's processes take a moment to end
            log = RunLog(folder, Display(terminal=False, prefix=f"seed {seed}: "), common={"seed": seed})
            log.whole(lambda log: run(config, [seed], log))
            log.close()
    except (InputError, MissingExtra, OSError) as error:
        reason, status = one_line(error), BAD_INPUT
    except Exception:
        reason, status = traceback.format_exc(), CRASH
    if status:
        with contextlib.suppress(OSError):
            note.write_text(reason + "\n", encoding="utf-8")
        raise SystemExit(status)


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(CRASH)

    threading.Thread(target=watch, daemon=True).start()


def one_line(error: BaseException) -> str:
    """An error a user can mend, in one line."""
    if isinstance(error, OSError) and error.strerror:
        words = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        words = str(error) or type(error).__name__
    return " ".join(words.split())


def described(error: BaseException) -> str:
    """An error of a program, with its kind, in one line."""
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return " ".join(words.split())
