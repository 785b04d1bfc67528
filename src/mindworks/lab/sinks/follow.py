"""The process of one sink.

It sends what the run's folder holds and has not been sent, until a word on standard input, or the end of the process
that started it, says that the run has ended. What it has to say it says on standard output; whatever else is printed
goes to `log.txt` in the sink's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mindworks.errors import InputError
from mindworks.lab.files import write_atomic
from mindworks.lab.folder import locked, read_description, read_record
from mindworks.lab.processes import one_line
from mindworks.lab.sinks import LIMITS, off
from mindworks.lab.sinks.sink import About
from mindworks.lab.sinks.tail import Tail

POLL_SECONDS = 1.0


class End:
    """The end of the run, and of this process `LIMITS` seconds later, whatever it is doing then."""

    def __init__(self, words: Any, say: Callable[[str], None]) -> None:
        self._how, self._come, self._say = "", threading.Event(), say
        self._parent = os.getppid()
        threading.Thread(target=self._listen, args=(words,), daemon=True).start()
        threading.Thread(target=self._limit, daemon=True).start()

    def wait(self, seconds: float) -> str:
        """How the run has ended, after `seconds` at most; "" while it goes on."""
        self._come.wait(seconds)
        if os.getppid() != self._parent:  # killed, and something it started still holds the pipe open
            self._set("failed")
        return self._how

    def _listen(self, words: Any) -> None:
        word = words.readline().strip()
        self._set(word if word in LIMITS else "failed")

    def _set(self, how: str) -> None:
        self._how = self._how or how
        self._come.set()

    def _limit(self) -> None:
        self._come.wait()
        time.sleep(LIMITS[self._how])
        self._say(f"not done {LIMITS[self._how]:g} seconds after the run; --resume with --track sends the rest")
        os._exit(1)


class State:
    """`state.json`: the run's id, how many lines of each file were sent, and whether the checks were."""

    def __init__(self, path: Path) -> None:
        self.path, self.resumed = path, path.exists()
        values: dict[str, Any] = {}
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if self.resumed else {}
            self.id, self.sent, self.checks = values.get("id") or uuid.uuid4().hex[:8], values.get("sent", {}), False
            self.checks = bool(values.get("checks"))
        except (ValueError, AttributeError) as error:
            raise InputError(f"damaged {path}: not a state of tracking") from error

    def store(self, sent: dict[str, int], checks: bool = False) -> None:
        """Keep what has been sent, if that is more than the file says."""
        if sent == self.sent and checks == self.checks and self.path.exists():
            return
        self.sent, self.checks = sent, checks
        write_atomic(self.path, json.dumps({"id": self.id, "sent": sent, "checks": checks}) + "\n")


def follow(folder: Path, name: str, home: Path, end: End, say: Callable[[str], None]) -> None:
    """Send the run in `folder` to the sink `name` until its end, and then its checks."""
    with locked(home, patience=max(LIMITS.values())):  # the sink of an interrupted run may still be ending
        state = State(home / "state.json")
        run = read_description(folder)
        about = About(
            home=home, name=folder.name, id=state.id, resumed=state.resumed, **{key: run[key] for key in _DESCRIBED}
        )
        sink = import_module(f"mindworks.lab.sinks.{name}").start(about)
        say(f"tracking with {name}: {sink.where}")
        state.store(state.sent, state.checks)
        tails: dict[str, Tail] = {}
        how, sure = "", state.sent
        while not how:
            how = end.wait(POLL_SECONDS)
            for tail in _tails(folder, about.seeds, tails, state.sent):
                for point in tail.points():
                    sink.write(point)
            sink.flush()
            if sink.durable:
                state.store(sure, state.checks)
            sure = {**state.sent, **{source: tail.sent for source, tail in tails.items()}}
        record = read_record(folder) if how == "finished" and not state.checks else None
        checks = [] if record is None else record["checks"]
        sink.close(how == "finished", checks)
        state.store(sure, state.checks or bool(checks))


_DESCRIBED = ("study", "scale", "seeds", "config")


def _tails(folder: Path, seeds: list[int], tails: dict[str, Tail], sent: dict[str, int]) -> Iterator[Tail]:
    """The files of metrics: those of the seeds where each has a folder, whose sum the file of the run is, else that."""
    homes = [f"seed-{seed}" for seed in seeds if (folder / f"seed-{seed}").is_dir()]
    for source in [f"{home}/metrics.jsonl" for home in homes] or ["metrics.jsonl"]:
        if source not in tails:
            tails[source] = Tail(folder / source, sent.get(source, 0))
        yield tails[source]


def main(words: list[str]) -> int:
    """Follow the run in the folder `words[0]` with the sink `words[1]`; returns the exit status."""
    folder, name = Path(words[0]), words[1]
    voice, told = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(0))

    def say(text: str) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            print(text, file=voice, flush=True)

    try:
        home = folder / "tracking" / name
        home.mkdir(parents=True, exist_ok=True)
        _redirect(home / "log.txt")
        follow(folder, name, home, End(told, lambda reason: say(off(name, reason))), say)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        say(off(name, one_line(error)))
        return 1
    return 0


def _redirect(path: Path) -> None:
    """What libraries print goes to `path`, and what they ask is answered by nobody."""
    with path.open("a", encoding="utf-8") as log, open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def live(words: list[str]) -> None:
    """The whole life of the process; no hook that a library has left may hold its end up."""
    status = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
