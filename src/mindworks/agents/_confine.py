"""The inside of the sandbox: a script that gives up its own rights for good, then runs `main.py` of its folder.

It is started as a file of its own (`python -I _confine.py SETTINGS`) and imports the standard library only. Its first
line on the error stream says what holds it: `guard: kernel`, `guard: audit`, or `refused: WHY`.

On Linux three things of the kernel hold it, none of which the code can undo. Landlock: files can be opened under the
scratch folder, and read where Python's own libraries lie, nowhere else. Seccomp: no new process or thread, no program,
no network, no signal to others, no change of rights or times of a file. No capabilities. Elsewhere an audit hook
refuses the same from within Python; code that means harm gets around a hook.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys
import traceback
from typing import Any

REFUSED, KERNEL, AUDIT = "refused: ", "guard: kernel", "guard: audit"
REFUSED_STATUS = 78

# Calls by number, from the kernel's headers. From 424 on the numbers are one list for all processors; all of those
# are refused as unknown: clone3, io_uring, pidfd, openat2, new mounts, and whatever comes later.
FIRST_COMMON = 424
_LONE_CALLS = {
    # fork vfork clone execve execveat | socket connect bind listen accept accept4 sendmsg sendmmsg |
    # ptrace process_vm_readv process_vm_writev kcmp tkill rt_sigqueueinfo rt_tgsigqueueinfo setsid setpgid |
    # bpf perf_event_open userfaultfd keyctl add_key request_key unshare setns name_to_handle_at open_by_handle_at |
    # setpriority sched_setaffinity sched_setscheduler sched_setparam sched_setattr ioprio_set migrate_pages move_pages
    # | memfd_create shmget shmat shmctl msgget semget mq_open | chmod fchmod fchmodat chown lchown fchown fchownat
    # utime utimes utimensat futimesat {,l,f}setxattr {,l,f}removexattr truncate inotify_init inotify_init1
    "x86_64": (
        *(57, 58, 56, 59, 322, 41, 42, 49, 50, 43, 288, 46, 307, 101, 310, 311, 312, 200, 129, 297, 112, 109),
        *(321, 298, 323, 250, 248, 249, 272, 308, 303, 304, 141, 203, 144, 142, 314, 251, 256, 279),
        *(319, 29, 30, 31, 68, 64, 240, 90, 91, 268, 92, 94, 93, 260, 132, 235, 280, 261),
        *(188, 189, 190, 197, 198, 199, 76, 253, 294),
    ),
    "aarch64": (
        *(220, 221, 281, 198, 203, 200, 201, 202, 242, 211, 269, 117, 270, 271, 272, 130, 138, 240, 157, 154),
        *(280, 241, 282, 219, 217, 218, 97, 268, 264, 265, 140, 122, 119, 118, 274, 30, 238, 239),
        *(279, 194, 196, 195, 186, 190, 180, 52, 53, 55, 54, 88, 5, 6, 7, 14, 15, 16, 45, 26),
    ),
}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# socketpair kill tgkill prlimit64 fcntl ioctl openat open
_JUDGED_CALLS = {"x86_64": (53, 62, 234, 302, 72, 16, 257, 2), "aarch64": (199, 129, 131, 261, 25, 29, 56, None)}
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026

_WRITE, _READ, _LIST = 1 << 1, 1 << 2, 1 << 3
_OWN = _WRITE | _READ | _LIST | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12  # remove, make folders, files and links
_MOVE, _TRUNCATE = 1 << 13, 1 << 14


def judged(machine: str, pid: int) -> list[tuple[int, int, int, int, bool]]:
    """Calls judged by an argument: (call, argument, mask, value, whether a match is the only thing allowed)."""
    pair, kill, tgkill, prlimit, fcntl, ioctl, openat, plain_open = _JUDGED_CALLS[machine]
    rules = [
        (pair, 1, 0xF, 1, True),  # streams only: a datagram socket can be turned to other addresses
        (kill, 0, 0xFFFFFFFF, pid, True),
        (tgkill, 0, 0xFFFFFFFF, pid, True),
        (prlimit, 0, 0xFFFFFFFF, 0, True),
        *((fcntl, 1, 0xFFFFFFFF, owner, False) for owner in (8, 15)),  # F_SETOWN: signals to others
        *((ioctl, 1, 0xFFFFFFFF, owner, False) for owner in (0x8901, 0x8902)),
        (openat, 2, 0x203, 0x200, False),  # O_TRUNC on a file opened to read: Landlock before its third version lets it
    ]
    return rules if plain_open is None else [*rules, (plain_open, 1, 0x203, 0x200, False)]


def filter_program(machine: str, pid: int) -> bytes:
    """The seccomp filter of process `pid` as the kernel reads it: 8 bytes per instruction (code, jumps, operand)."""

    def step(code: int, operand: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("<HBBI", code, then, otherwise, operand)

    number, denied = step(_LOAD, 0), step(_RETURN, _EPERM)
    program = [step(_LOAD, 4), step(_EQUAL, _ARCHITECTURE[machine], 1, 0), step(_RETURN, _KILL), number]
    program += [step(_AT_LEAST, FIRST_COMMON, 0, 1), step(_RETURN, _ENOSYS)]
    for call in _LONE_CALLS[machine]:
        program += [step(_EQUAL, call, 0, 1), denied]
    for call, argument, mask, value, only in judged(machine, pid):
        program += [step(_EQUAL, call, 0, 5), step(_LOAD, 16 + 8 * argument), step(_AND, mask)]
        program += [step(_EQUAL, value, int(only), int(not only)), denied, number]
    return b"".join([*program, step(_RETURN, _ALLOW)])


def _call(libc: ctypes.CDLL, what: str, number: int, *words: Any) -> int:
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def _close_files(libc: ctypes.CDLL, scratch: str, readable: list[str]) -> None:
    """Landlock: `scratch` may be written, `readable` be read, nothing else be opened."""
    version = _call(libc, "Landlock is not in this kernel", 444, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    rights = 13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16
    handled = (1 << rights) - 1
    attributes = struct.pack("<Q", handled)
    ruleset = _call(libc, "Landlock", 444, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    rules = [(path, _READ | _LIST) for path in readable] + [(scratch, _OWN | _MOVE | _TRUNCATE)]
    rules += [(f"/dev/{name}", _READ) for name in ("zero", "random", "urandom")] + [("/dev/null", _READ | _WRITE)]
    for path, wanted in rules:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            continue  # a library folder this system lacks
        if not os.path.isdir(path):
            wanted &= ~_LIST
        rule = struct.pack("<Qi", wanted & handled, place)
        _call(libc, f"Landlock on {path}", 445, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0))
        os.close(place)
    _call(libc, "Landlock", 446, ctypes.c_int(ruleset), ctypes.c_uint(0))
    os.close(ruleset)


def hold_by_kernel(scratch: str, readable: list[str]) -> None:
    """Give up files, network, processes and capabilities; raises OSError where the kernel cannot take them."""
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in _LONE_CALLS:
        raise OSError(0, f"no kernel guard for {sys.platform} on {machine}")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capset(struct.pack("<II", 0x20080522, 0), bytes(24))
    if libc.prctl(38, 1, 0, 0, 0):  # no new privileges: the filter may not be put on without it
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _close_files(libc, scratch, readable)
    program = ctypes.create_string_buffer(filter_program(machine, os.getpid()))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(program))
    if libc.prctl(22, 2, head, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def hold_by_hook(scratch: str, readable: list[str]) -> None:
    """Refuse files, network and processes from within Python: a guard against mistakes, not against malice."""
    ours, libraries = os.path.realpath(scratch), tuple(map(os.path.realpath, readable))
    closed = ("ctypes.", "os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.system", "pty.", "socket.")
    paths = {"open": 1, "os.listdir": 1, "os.scandir": 1, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.rename": 2}
    paths |= {"os.chmod": 1, "os.chown": 1, "os.link": 2, "os.symlink": 2, "os.truncate": 1, "os.utime": 1}

    def under(path: Any, folders: tuple[str, ...]) -> bool:
        place = os.path.realpath(os.fsdecode(path))
        return any(place == folder or place.startswith(folder + os.sep) for folder in folders)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(closed) or event == "subprocess.Popen":
            raise PermissionError(f"{event} is refused in the sandbox")
        writes = event != "open" or arguments[1] not in (None, "r", "rb") or arguments[2] & ~os.O_CLOEXEC
        reads = not writes or event in ("os.listdir", "os.scandir")
        folders = (ours, *libraries) if reads else (ours,)
        for path in arguments[: paths.get(event, 0)]:
            if not isinstance(path, int) and not under(path or ".", folders):
                raise PermissionError(f"{event} of {path!r} is refused in the sandbox")

    sys.addaudithook(hook)


def limit(limits: dict[str, int]) -> None:
    """Put hard limits on this process, by the names of `resource`; one that the system lacks or refuses is left out."""
    for name, value in limits.items():
        try:
            # at its soft limit of processor time a process gets a signal that tells why; at its hard one it is killed
            resource.setrlimit(getattr(resource, name), (value, value + (name == "RLIMIT_CPU")))
        except (AttributeError, ValueError, OSError):
            if name != "RLIMIT_AS":  # macOS has the name and refuses the value
                raise


def _run(code: str) -> None:
    """Run `code` as a program: its own traceback, without the frames of this file, and status 1 where it raises."""
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    sys.argv = ["main.py"]
    try:
        exec(compile(code, "main.py", "exec"), main.__dict__)
    except Exception as error:
        frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
        traceback.print_exception(type(error), error, frames)
        sys.exit(1)


def confined(settings: dict[str, Any]) -> None:
    """Limit this process, give up its rights, and run the code; a refusal ends it before any of the code has run."""
    with open("main.py", encoding="utf-8") as file:
        code = file.read()
    scratch, guard = os.getcwd(), KERNEL
    limit(settings["limits"])
    try:
        hold_by_kernel(scratch, settings["readable"])
    except OSError as error:
        if not settings["accept_weaker"]:
            sys.stderr.write(f"{REFUSED}{error.strerror}\n")
            sys.exit(REFUSED_STATUS)
        guard = AUDIT
        hold_by_hook(scratch, settings["readable"])
    sys.stderr.write(f"{guard}\n")
    sys.stderr.flush()
    _run(code)


if __name__ == "__main__":
    confined(json.loads(sys.argv[1]))
