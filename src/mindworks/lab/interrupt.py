"""Interrupts end a run within about a second, also while a long native call holds the main thread."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

STATUS = 130
GRACE_SECONDS = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptible(last_words: Callable[[], None]) -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise KeyboardInterrupt; if it cannot take effect the process ends after a grace.

    What a run leaves on the disk is whole at every moment, so that ending it at any line is safe. `last_words` is
    called before a forced end; the caller that catches KeyboardInterrupt says them itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    done = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while received := os.read(reader, 1):
            if received[0] in _SIGNALS and not done.wait(GRACE_SECONDS):
                last_words()
                os._exit(STATUS)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(previous_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)
        watcher.join()
        os.close(reader)
