"""Live tracking: what a run appends to `metrics.jsonl`, also sent to TensorBoard, Weights & Biases or trackio.

Each sink is a process of its own that follows the run's folder: the run imports nothing, waits for nobody and never
fails with a sink. The record stays `metrics.jsonl`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from mindworks.errors import InputError, MissingExtra
from mindworks.lab.discovery import nearest
from mindworks.lab.progress import Display

SINKS = ("tensorboard", "trackio", "wandb")
# Seconds that a sink has for the rest once a run has ended in one of these ways; then it ends as it is.
LIMITS = {"finished": 30.0, "failed": 10.0, "interrupted": 5.0}
_ROOT = Path(__file__).resolve().parents[3]
_START = """
import sys
_, root, *words = sys.argv
sys.path[:0] = [] if root in sys.path else [root]
from mindworks.lab.sinks.follow import live
live(words)
"""


def known(names: Iterable[str]) -> tuple[str, ...]:
    """`names` without repeats; raises InputError at one that is no sink."""
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in SINKS:
            raise InputError(f"--track: no sink is named {name!r}{nearest(name, SINKS)}")
    return found


def available(names: Iterable[str]) -> tuple[str, ...]:
    """`known(names)`; raises MissingExtra where a sink's package is not installed. Nothing is imported."""
    found = known(names)
    for name in found:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name, such as W&B leaves, is no package
            raise MissingExtra(f"{name} is not installed: pip install 'mindworks[track]'")
    return found


@contextlib.contextmanager
def following(folder: Path, names: Iterable[str], display: Display) -> Iterator[None]:
    """Within, every sink of `names` follows the run in `folder`; what goes wrong there is one remark on `display`.

    A finished run waits for its sinks, at most `LIMITS` seconds. An interrupted one does not: they end by themselves.
    """
    followers = [_Follower(folder, name, display) for name in names]
    how = "failed"
    try:
        yield
        how = "finished"
    except KeyboardInterrupt:
        how = "interrupted"
        raise
    finally:
        interrupted = how == "interrupted"
        for follower in followers:
            follower.end(how)
        deadline = time.monotonic() + (0.3 if interrupted else LIMITS[how] + 5.0)
        for follower in followers:
            follower.wait(max(deadline - time.monotonic(), 0.0), leave=interrupted)


class _Follower:
    """The process of one sink, and a thread that passes on what it says."""

    def __init__(self, folder: Path, name: str, display: Display) -> None:
        self._name, self._display = name, display
        self._process: subprocess.Popen[str] | None = None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(_ROOT), str(folder.resolve()), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # the terminal's interrupt is for the run, which tells its sinks
            )
        except OSError as error:
            display.say(off(name, error.strerror or str(error)))
            return
        assert self._process.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()

    def _listen(self, voice: IO[str]) -> None:
        assert self._process is not None
        excused = False
        for line in voice:
            excused = excused or line.startswith("warning")
            self._display.say(line.rstrip("\n"))
        status = self._process.wait()
        if status and not excused:
            self._display.say(off(self._name, f"its process ended with status {status}"))

    def end(self, how: str) -> None:
        """Tell the sink that the run has ended."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it is gone, and has said why
                self._process.stdin.write(f"{how}\n")
                self._process.stdin.close()

    def wait(self, seconds: float, leave: bool) -> None:
        """Wait for the sink's end; after `seconds` it is killed, or, with `leave`, left to end by itself."""
        if self._process is None:
            return
        done = False
        try:
            self._listener.join(seconds)
            done = leave or not self._listener.is_alive()
        finally:
            if not done:
                self._process.kill()


def off(name: str, reason: str) -> str:
    """The one line that a sink which fails leaves."""
    return f"warning: tracking with {name} is off: {reason}"
