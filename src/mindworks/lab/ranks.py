"""One run on several processes that torchrun started: rank 0 holds the folder, the others compute along.

`torchrun --nproc-per-node 2 -m mindworks run NAME` calls the study's `run` in every process. That of rank 0 has the
run's log; the other logs write and print nothing, and what they answer (saved states, finished stages, whether a save
is due) comes from rank 0: JSON and safetensors over a Gloo group, so that every process takes the same path.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, MissingExtra, require
from mindworks.lab import checkpoint
from mindworks.lab.files import dumps, loads
from mindworks.lab.folder import describe, revive
from mindworks.lab.interrupt import STATUS as INTERRUPTED
from mindworks.lab.interrupt import interruptible
from mindworks.lab.log import RunLog
from mindworks.lab.processes import BAD_INPUT, CRASH, one_line
from mindworks.lab.progress import Display
from mindworks.lab.study import Study

JOINING = timedelta(minutes=10)
# The others wait while rank 0 evaluates, draws or waits for a disk. A process that ends is noticed at once all the
# same: its connections close.
PATIENCE = timedelta(days=1)
LOST = "another process of the run has ended or does not answer"
_HEAD, _LENGTHS, _CHUNK = 256, "<QQ", 2**28
_FAILED = "failed"


class RanksFailed(Exception):
    """Another process of the run has failed; `status` is the exit status. What was saved continues."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def several() -> bool:
    """Whether this process is one of several that torchrun, or a launcher with its variables, has started."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def run(find: Callable[[str], Study], lead: Callable[[Callable[[Study], Study]], int]) -> int:
    """The exit status of a run on several processes, the same in each.

    Rank 0 calls `lead(share)`, which runs `share(study)` in place of the study and returns the status. The others
    learn from it what to run: the study `find(name)`. Raises InputError where the launcher's environment is broken.
    """
    channel = Channel()
    return _lead(channel, lead) if channel.rank == 0 else _follow(channel, find)


class Channel:
    """What rank 0 tells the others, and the note of the process that failed first."""

    def __init__(self) -> None:
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        try:
            store, self.rank, size = next(rendezvous("env://", timeout=JOINING))
        except (ValueError, RuntimeError) as error:
            raise InputError(f"the processes that torchrun started do not meet: {one_line(error)}") from error
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"mindworks-run-{attempt}", store)
        dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=size, timeout=PATIENCE)
        self._dist = dist
        self.running = False

    def share(self, topic: str, value: Any = None) -> Any:
        """`value` of rank 0, in every process; the processes must come to the same `topic`."""
        if self.rank == 0:
            self._send(topic, value)
            return value
        told, value = self.receive()
        if told != topic:
            raise RuntimeError(f"rank {self.rank} is at {topic!r}, rank 0 at {told!r}: their calls of the log differ")
        return value

    def _send(self, topic: str, value: Any) -> None:
        skeleton, blob = checkpoint.pack(value)
        body = dumps([topic, skeleton]).encode()
        content = bytearray(struct.pack(_LENGTHS, len(body), len(blob)) + body + blob)
        self._cast(content.ljust(_HEAD, b"\0"))

    def receive(self) -> tuple[str, Any]:
        """What rank 0 tells next: the topic and the value."""
        head = bytearray(_HEAD)
        self._broadcast(head, 0, _HEAD)
        start = struct.calcsize(_LENGTHS)
        body, blob = struct.unpack(_LENGTHS, head[:start])
        content = head.ljust(start + body + blob, b"\0")
        self._cast(content, _HEAD)
        topic, skeleton = loads(content[start : start + body].decode())
        return topic, checkpoint.unpack(skeleton, bytes(content[start + body : start + body + blob]))

    def _cast(self, content: bytearray, begin: int = 0) -> None:
        if begin == 0:
            self._broadcast(content, 0, _HEAD)
        for start in range(_HEAD, len(content), _CHUNK):
            self._broadcast(content, start, min(_CHUNK, len(content) - start))

    def _broadcast(self, content: bytearray, start: int, count: int) -> None:
        import torch

        self._dist.broadcast(torch.frombuffer(content, dtype=torch.uint8, offset=start, count=count), src=0)

    def note(self, status: int) -> tuple[int, int]:
        """Leave word that this process fails with `status`; returns (rank, status) of the one that failed first."""
        mine = json.dumps([self.rank, status])
        with contextlib.suppress(RuntimeError):  # the store may have ended with its host
            mine = self._store.compare_set(_FAILED, "", mine).decode()
        rank, status = json.loads(mine)
        return rank, status

    def failed(self) -> tuple[int, int] | None:
        """(rank, status) of the process that failed first, or None."""
        with contextlib.suppress(RuntimeError):
            if self._store.check([_FAILED]):
                rank, status = json.loads(self._store.get(_FAILED).decode())
                return rank, status
        return None

    def wait_for_failure(self, seconds: float) -> None:
        """Wait until a process has left a note, but no longer than `seconds`."""
        with contextlib.suppress(RuntimeError):
            self._store.wait([_FAILED], timedelta(seconds=seconds))

    def over(self, status: int) -> None:
        """Tell the others how rank 0 ends; those within the study's run see its connections close instead."""
        if self.running:
            self.note(status)
            return
        with contextlib.suppress(RuntimeError):  # one that has failed meanwhile ends with its own status
            self.share("over", status)
            self._dist.destroy_process_group()


class SharedLog(RunLog):
    """The log of a run on several processes, in one of them; `own` is the run's log, which rank 0 alone has.

    `load`, `due`, `stage` and `drive` must be called by every process; `metric`, `save` and `say` need not.
    """

    def __init__(self, channel: Channel, own: RunLog | None, folder: Path) -> None:
        self.folder = folder
        self.display = _Silent() if own is None else own.display
        self._channel, self._own = channel, own
        self._start()

    def metric(self, **values: Any) -> None:
        self._latest.update(values)
        if self._own is not None:
            self._own.metric(**values)

    def tagged(self, **common: Any) -> RunLog:
        if self._own is not None:
            self._own.tagged(**common)
        return self

    def save(self, state: Any, step: int) -> None:
        if self._own is not None:
            self._own.save(state, step)

    def load(self) -> Any:
        return self._channel.share("load", None if self._own is None else self._own.load())

    def due(self, seconds: float = 20.0) -> bool:
        return self._channel.share("due", self._own is not None and self._own.due(seconds))

    def stage(self, name: str, function: Callable[[RunLog], Any]) -> Any:
        begin, end = f"begin {name}", f"end {name}"
        if self._own is None:
            if self._channel.share(begin):
                function(SharedLog(self._channel, None, self.folder))
            return self._channel.share(end)
        begun = False

        def first(own: RunLog) -> Any:
            nonlocal begun
            begun = self._channel.share(begin, True)
            return function(SharedLog(self._channel, own, self.folder))

        value = self._own.stage(name, first)
        if not begun:
            self._channel.share(begin, False)
        return self._channel.share(end, value)

    def close(self) -> None:
        if self._own is not None:
            self._own.close()


class _Silent(Display):
    """A display that shows nothing."""

    def __init__(self) -> None:
        super().__init__(terminal=False)

    def say(self, text: str) -> None:
        """Keep it to oneself."""


def _lead(channel: Channel, lead: Callable[[Callable[[Study], Study]], int]) -> int:
    """Rank 0: the command as it is alone, with a study that tells the others what to compute."""

    def share(study: Study) -> Study:
        alone = f"the study {study.name!r} gives every seed a process of its own: start it without torchrun"
        require(study.combine is None, alone)

        def shared(config: Any, seeds: list[int], log: RunLog) -> Any:
            channel.share("run", {**describe(study, "", config, seeds), "folder": str(log.folder)})
            channel.running = True
            try:
                data = study.run(config, seeds, SharedLog(channel, log, log.folder))
            except (OSError, RuntimeError, KeyboardInterrupt) as error:
                _blame(channel, error)
                raise
            channel.running = False
            return data

        return replace(study, run=shared)

    status = CRASH
    try:
        status = lead(share)
    finally:
        channel.over(status)
    return status


def _blame(channel: Channel, error: BaseException) -> None:
    """Raise RanksFailed where `error` is but the consequence of another process's failure."""
    if (failed := channel.failed()) is not None:
        raise RanksFailed(f"the process of rank {failed[0]} has failed", failed[1]) from error
    if _lost(error):
        raise RanksFailed(LOST, CRASH) from error


def _lost(error: BaseException | None) -> bool:
    """Whether `error`, or what it comes from, is the end of a connection between the processes."""
    from torch.distributed import DistError

    while error is not None:
        if isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error)):
            return True
        error = error.__cause__
    return False


def _follow(channel: Channel, find: Callable[[str], Study]) -> int:
    """The other ranks: compute what rank 0 says, then end as it ends."""
    again = ""
    try:
        with interruptible(lambda: None):
            topic, value = channel.receive()
            if topic == "run":
                study, folder = find(value["study"]), Path(value["folder"])
                again = f"; continue with: mindworks run {study.name} --resume {shlex.quote(str(folder))}"
                config = revive(study.config, value["config"])
                study.run(config, value["seeds"], SharedLog(channel, None, folder))
                value = channel.share("over")
            return int(value)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        lost = _lost(error)
        mendable = isinstance(error, (InputError, MissingExtra, OSError)) and not lost
        if mendable:
            channel.wait_for_failure(1.0)  # rank 0 is likely to meet the same, and to say it
        rank, status = channel.note(BAD_INPUT if mendable else CRASH)
        if rank == channel.rank:
            if not mendable and not lost:
                traceback.print_exc()
            reason = f"{LOST}{again}" if lost else one_line(error)
            print(f"mindworks: rank {rank}: {reason}", file=sys.stderr, flush=True)
        return status
