"""Generated Python in a process of its own that can do little: off unless it is switched on.

What holds on Linux (x86_64 and aarch64, kernel 5.13 or newer with Landlock), by the kernel and not by Python:

- one process with one thread; no other program; no signal to another process
- no socket to anything, no device but `/dev/null`, `/dev/zero` and `/dev/urandom`
- files are read and written in a scratch folder of its own and read among Python's libraries; nothing else opens, so
  neither `/etc`, `/proc`, `/tmp` nor the home folder
- limits on wall time, processor time, memory, size and number of files; nothing of the caller's environment
- the folder is removed afterwards, whatever is in it

What does not hold: code can ask whether a path exists and how long a file is; it can read installed packages; the
folder's total size is looked at ten times a second, so it is overshot by what is written in between; a hole in the
kernel is a hole here. Where the kernel offers no guard nothing runs, unless the caller accepts a weaker one: an audit
hook inside Python, which stops mistakes and not malice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
from dataclasses import dataclass

from mindworks.agents._confine import AUDIT, KERNEL, REFUSED
from mindworks.errors import InputError, require

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_confine.py")
_WATCH_SECONDS = 0.1
_DEEPEST = 8  # folders below the scratch folder
# One thread: the numeric libraries would start others, which the guard refuses.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")


class SandboxUnavailable(RuntimeError):
    """This system has no guard that holds generated code, and the caller did not accept a weaker one."""


@dataclass(frozen=True)
class Limits:
    """What generated code may use."""

    timeout: float = 10.0
    """seconds of wall time"""
    cpu: int = 10
    """seconds of processor time"""
    memory: int = 512 << 20
    """bytes of address space"""
    file_size: int = 16 << 20
    """bytes of one file"""
    folder_size: int = 64 << 20
    """bytes of all files together"""
    files: int = 256
    """files and folders in the scratch folder"""
    open_files: int = 64
    """files open at a time"""
    output: int = 64 << 10
    """bytes kept of each stream; the rest is read and dropped"""

    def __post_init__(self) -> None:
        require(0 < self.timeout < float("inf"), f"timeout must be positive and finite, got {self.timeout}")
        least = {"cpu": 1, "memory": 64 << 20, "file_size": 0, "folder_size": 0, "files": 1, "open_files": 16}
        for name, bound in {**least, "output": 1}.items():
            value = getattr(self, name)
            require(isinstance(value, int) and value >= bound, f"{name} must be an int >= {bound}, got {value!r}")


@dataclass(frozen=True)
class Result:
    """How a run of generated code ended."""

    ok: bool
    """it ended by itself with status 0"""
    stdout: str
    """what it printed, cut at the limit"""
    stderr: str
    """what it complained of, cut at the limit"""
    timed_out: bool
    """it was ended for its wall time or processor time"""
    returncode: int
    """its exit status; minus the signal's number where a signal ended it"""
    cut: bool
    """some of its output is missing"""
    overfull: bool
    """it was ended for what lay in its folder"""
    guard: str
    """what held it: "kernel", or "audit" for the weaker one; empty where time was up before anything ran"""


async def run_python(
    code: str, *, switched_on: bool = False, limits: Limits | None = None, accept_weaker: bool = False
) -> Result:
    """Run the program `code` in a confined process and return how it ended; `switched_on` must be True.

    The process and its folder are gone when this returns, raises or is cancelled. Raises `InputError` unless it is
    switched on or where `code` is no text, and `SandboxUnavailable` where the kernel has no guard and `accept_weaker`
    is False.
    """
    require(switched_on is True, f"switched_on must be True for generated code to run, got {switched_on!r}")
    require(isinstance(code, str), f"code must be a string, got {type(code).__name__}")
    require(os.name == "posix", f"generated code runs on Linux and macOS only, got {os.name}")
    try:
        text = code.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"code must be text, got half a character at {error.start}") from error
    scratch = tempfile.mkdtemp(prefix="mindworks-")
    try:
        with open(os.path.join(scratch, "main.py"), "wb") as file:
            file.write(text)
        return await _confined(scratch, limits or Limits(), accept_weaker)
    finally:
        await asyncio.shield(asyncio.to_thread(clear, scratch))  # a full folder takes a while


async def _confined(scratch: str, limits: Limits, accept_weaker: bool) -> Result:
    settings = {"limits": _resource_limits(limits), "readable": _readable(), "accept_weaker": accept_weaker}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-B", "-X", "utf8", _SCRIPT, json.dumps(settings)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=scratch,
        env=_ENVIRONMENT,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    first = asyncio.ensure_future(_line(process.stderr))
    reading = asyncio.gather(_kept(process.stdout, limits.output), _after(first, process.stderr, limits.output))
    watching = asyncio.ensure_future(_watch(scratch, limits))
    late = overfull = False
    try:
        ended = asyncio.ensure_future(process.wait())
        done, _ = await asyncio.wait({ended, watching}, timeout=limits.timeout, return_when=asyncio.FIRST_COMPLETED)
        late, overfull = not done, ended not in done and watching in done
    finally:
        watching.cancel()
        _kill(process)
        await asyncio.shield(asyncio.gather(process.wait(), reading))
    (out, out_cut), (err, err_cut) = reading.result()
    guard = "" if late and not first.result() else _guard(first.result())
    status = process.returncode
    assert status is not None
    spent = late or status == -signal.SIGXCPU
    texts = (out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
    return Result(status == 0 and not late, *texts, spent, status, out_cut or err_cut, overfull, guard)


def _resource_limits(limits: Limits) -> dict[str, int]:
    named = {"RLIMIT_CPU": limits.cpu, "RLIMIT_AS": limits.memory, "RLIMIT_FSIZE": limits.file_size}
    # The filter refuses new processes anyway; this holds the weaker guard too, except for root.
    return {**named, "RLIMIT_NOFILE": limits.open_files, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0}


def _readable() -> list[str]:
    """The folders that Python's own libraries and the system's lie in."""
    own = [os.path.join(prefix, lib) for prefix in {sys.prefix, sys.base_prefix} for lib in ("lib", "lib64")]
    paths = sysconfig.get_paths()
    return sorted({*own, *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")), *_SYSTEM_LIBRARIES})


def _guard(line: bytes) -> str:
    """What holds the code, from the first line of its error stream; raises where nothing ran."""
    text = line.decode("utf-8", "replace").strip()
    if text.startswith(REFUSED):
        reason = text.removeprefix(REFUSED)
        raise SandboxUnavailable(f"this system cannot hold generated code: {reason}; accept_weaker=True runs it anyway")
    if text not in (KERNEL, AUDIT):
        raise SandboxUnavailable(f"the sandbox did not start: {text or 'it said nothing'}")
    return text.removeprefix("guard: ")


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # longer than the reader's buffer: no line of ours
        return b""


async def _after(first: asyncio.Future[bytes], stream: asyncio.StreamReader, size: int) -> tuple[bytes, bool]:
    await first
    return await _kept(stream, size)


async def _kept(stream: asyncio.StreamReader, size: int) -> tuple[bytes, bool]:
    """The first `size` bytes of a stream, and whether there were more; it is read to its end so that nothing blocks."""
    kept, cut = bytearray(), False
    while part := await stream.read(1 << 16):
        room = size - len(kept)
        kept += part[:room]
        cut = cut or len(part) > room
    return bytes(kept), cut


async def _watch(scratch: str, limits: Limits) -> None:
    """Return once the folder holds more than it may."""
    while _within(scratch, limits):
        await asyncio.sleep(_WATCH_SECONDS)


def _within(scratch: str, limits: Limits) -> bool:
    pending, files, size = [(scratch, 0)], -1, 0  # main.py does not count
    while pending:
        folder, depth = pending.pop()
        if depth > _DEEPEST:
            return False
        with contextlib.suppress(OSError), os.scandir(folder) as entries:  # files come and go while this looks
            for entry in entries:
                files += 1
                if files > limits.files:
                    return False
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, depth + 1))
                else:
                    size += entry.stat(follow_symlinks=False).st_size
    return size <= limits.folder_size


def _kill(process: asyncio.subprocess.Process) -> None:
    """End the process and its group: the weaker guard may have let it have children."""
    for end in (lambda: os.killpg(process.pid, signal.SIGKILL), process.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end()


def clear(folder: str) -> None:
    """Remove `folder` with everything in it, however deep and without rights its folders are."""
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(folder)
    serial = 0
    while os.path.isdir(folder):  # a tree too deep for a path: lift what is inside a folder, then remove the folder
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            tops = list(entries)
        for top in tops:
            if not top.is_dir(follow_symlinks=False):
                os.unlink(top.path)
                continue
            os.chmod(top.path, 0o700)
            for name in os.listdir(top.path):
                serial += 1
                os.rename(os.path.join(top.path, name), os.path.join(folder, f"{serial}-lifted"))
            os.rmdir(top.path)
        if not tops:
            os.rmdir(folder)
