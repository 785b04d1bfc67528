"""Generated code: what it may do, what it may not, and that nothing of it stays behind."""

from __future__ import annotations

import ast
import asyncio
import glob
import os
import struct
import sys
import tempfile

import pytest

from mindworks.agents import _confine
from mindworks.agents.sandbox import Limits, Result, SandboxUnavailable, clear, run_python
from mindworks.errors import InputError

QUICK = Limits(timeout=20, cpu=5)


def _run(code: str, limits: Limits = QUICK, **options: bool) -> Result:
    return asyncio.run(run_python(code, switched_on=True, limits=limits, **options))


def _held() -> bool:
    try:
        return _run("pass").guard == "kernel"
    except SandboxUnavailable:
        return False


pytestmark = pytest.mark.skipif(not _held(), reason="this kernel has no Landlock, or the processor is another")


@pytest.fixture(autouse=True)
def _no_folder_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert glob.glob(str(tmp_path / "mindworks-*")) == []


def test_nothing_runs_unless_switched_on() -> None:
    for word in (False, 1, "yes"):
        with pytest.raises(InputError, match="switched_on must be True for generated code to run"):
            asyncio.run(run_python("print(1)", switched_on=word))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="switched_on"):
        asyncio.run(run_python("print(1)"))


def test_a_program_prints_and_ends() -> None:
    code = "import math, sys\nprint(math.comb(10, 3), 'é', __name__)\nprint('x', file=sys.stderr)"
    assert _run(code) == Result(True, "120 é __main__\n", "x\n", False, 0, False, False, "kernel")
    assert _run("import sys; sys.exit(3)").returncode == 3


def test_an_error_shows_the_codes_own_lines() -> None:
    result = _run("def f():\n    return 1 / 0\nf()")
    assert (result.ok, result.returncode) == (False, 1)
    assert 'File "main.py", line 2, in f' in result.stderr
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "_confine" not in result.stderr
    assert "SyntaxError" in _run("def f(:").stderr


def test_its_own_folder_is_for_writing_and_starts_empty() -> None:
    code = "import os\nos.mkdir('a')\nopen('a/b', 'w').write('hi')\nprint(open('a/b').read(), sorted(os.listdir('.')))"
    assert _run(code).stdout == "hi ['a', 'main.py']\n"


def test_the_callers_environment_and_input_stay_outside(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result = _run("import os, sys\nprint(dict(os.environ), repr(sys.stdin.read()))")
    assert "sk-secret" not in result.stdout
    names = set(ast.literal_eval(result.stdout.rpartition("}")[0] + "}"))
    assert names <= {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LC_CTYPE"}
    assert result.stdout.endswith("''\n")


# every attempt by itself, and that the plain thing next to it works, so that the guard is what refuses
_ATTEMPTS = """
import ctypes, os, socket, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
outside, parent = %r, os.getppid()
def raw(name, *words):
    if getattr(libc, name)(*words) < 0:
        raise OSError(ctypes.get_errno(), name)
tries = {
    "passwd": lambda: open("/etc/passwd"),
    "home": lambda: os.listdir(os.path.expanduser("~root")),
    "list root": lambda: os.listdir("/"),
    "proc": lambda: open(f"/proc/{parent}/environ"),
    "own proc": lambda: open("/proc/self/environ"),
    "write outside": lambda: open(outside + "/new", "w"),
    "append outside": lambda: open(outside + "/there", "a"),
    "read outside": lambda: open(outside + "/there"),
    "remove outside": lambda: os.remove(outside + "/there"),
    "truncate outside": lambda: os.truncate(outside + "/there", 0),
    "truncate a library": lambda: os.open(os.__file__, os.O_RDONLY | os.O_TRUNC),
    "chmod outside": lambda: os.chmod(outside + "/there", 0o777),
    "utime outside": lambda: os.utime(outside + "/there"),
    "rename outside": lambda: os.rename("main.py", outside + "/new"),
    "by a link": lambda: (os.symlink(outside, "link"), open("link/there")),
    "hard link": lambda: os.link(outside + "/there", "hard"),
    "tmp": lambda: open("/tmp/mindworks-new", "w"),
    "socket": lambda: socket.socket(),
    "datagrams": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "fork": lambda: os.fork(),
    "spawn": lambda: subprocess.run(["/bin/true"]),
    "exec": lambda: os.execv(sys.executable, [sys.executable, "-V"]),
    "thread": lambda: threading.Thread(target=int).start(),
    "kill": lambda: os.kill(parent, 0),
    "kill the group": lambda: os.kill(0, 0),
    "session": lambda: os.setpgid(0, 0),
    "ptrace": lambda: raw("ptrace", 16, parent, 0, 0),
    "limits of others": lambda: __import__("resource").prlimit(parent, 7),
    "own limits": lambda: __import__("resource").setrlimit(0, (10**6, 10**6)),
    "namespace": lambda: raw("unshare", 0x10000000),
    "memory file": lambda: os.memfd_create("x"),
    "uid": lambda: os.setuid(12345),
    "mount": lambda: raw("mount", b"none", b"/mnt", b"tmpfs", 0, None),
}
for name, attempt in tries.items():
    try:
        attempt()
    except (OSError, RuntimeError, ValueError) as error:
        pass
    else:
        print("did:", name)
a, b = socket.socketpair(); a.send(b"ok"); print(b.recv(2).decode())
os.kill(os.getpid(), 0)
import asyncio; print(asyncio.run(asyncio.sleep(0, "loop")))
"""


_HARMLESS = ("passwd", "list root", "own proc", "write outside", "append outside", "read outside", "chmod outside")
_HARMLESS += (
    "utime outside",
    "by a link",
    "hard link",
    "socket",
    "datagrams",
    "spawn",
    "thread",
    "kill",
    "memory file",
)


def test_what_it_may_not_do_is_refused(tmp_path) -> None:
    (tmp_path / "there").write_text("outside")
    result = _run(_ATTEMPTS % str(tmp_path))
    assert (result.stdout, result.stderr) == ("ok\nloop\n", "")
    assert (tmp_path / "there").read_text() == "outside"
    assert not (tmp_path / "new").exists()


def test_the_attempts_succeed_without_the_guard(tmp_path) -> None:
    (tmp_path / "there").write_text("outside")
    lines = _ATTEMPTS.splitlines()
    kept = [line for line in lines if not line.startswith('    "') or line.split('"')[1] in _HARMLESS]
    script = tmp_path / "plain.py"
    script.write_text("\n".join(kept) % str(tmp_path))

    async def free() -> str:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=pipe, cwd=tmp_path)
        return (await process.communicate())[0].decode()

    did = asyncio.run(free())
    assert [name for name in _HARMLESS if f"did: {name}\n" not in did] == []


def test_a_bomb_of_processes_leaves_none() -> None:
    code = "import os\nfor _ in range(200):\n    try: os.fork()\n    except OSError: pass\nprint(os.getpid())"
    result = _run(code)
    assert result.ok
    assert result.stdout.count("\n") == 1  # one process alone came to the end


def test_an_endless_loop_is_ended_by_either_clock() -> None:
    late = _run("while True: pass", Limits(timeout=0.5, cpu=30))
    assert (late.ok, late.timed_out, late.returncode) == (False, True, -9)
    spent = _run("while True: pass", Limits(timeout=60, cpu=1))
    assert (spent.ok, spent.timed_out) == (False, True)
    assert _run("import time; time.sleep(60)", Limits(timeout=0.5)).timed_out


def test_memory_and_files_are_limited() -> None:
    assert "MemoryError" in _run("x = bytearray(1 << 30)").stderr
    small = Limits(timeout=20, file_size=1000)
    assert "File too large" in _run("with open('a', 'wb') as f: f.write(bytes(2000))", small).stderr
    assert "Too many open files" in _run("f = [open('main.py') for _ in range(100)]").stderr


@pytest.mark.parametrize(
    "code",
    [
        "for i in range(100): open(f'{i}', 'w')",
        "import os\nfor i in range(30): os.mkdir('d'); os.chdir('d')",
        "for i in range(5): open(f'{i}', 'wb').write(bytes(1000))",
    ],
)
def test_an_overfull_folder_ends_it(code: str) -> None:
    limits = Limits(timeout=30, files=50, folder_size=4000)
    result = _run(f"{code}\nimport time; time.sleep(30)", limits)
    assert (result.ok, result.overfull, result.timed_out) == (False, True, False)


def test_output_is_cut_and_never_blocks() -> None:
    result = _run("import sys\nfor s in (sys.stdout, sys.stderr): s.write('ab' * 500_000)", Limits(output=1000))
    assert (result.ok, result.cut) == (True, True)
    assert result.stdout == result.stderr == "ab" * 500
    assert not _run("print('a' * 998)", Limits(output=999)).cut


def test_cancelling_ends_the_process(tmp_path) -> None:
    async def cancelled() -> list[str]:
        task = asyncio.create_task(run_python("import time\nopen('up', 'w')\ntime.sleep(60)", switched_on=True))
        while not glob.glob(str(tmp_path / "mindworks-*" / "up")):
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [path for path in glob.glob("/proc/*/cwd") if str(tmp_path) in _target(path)]

    assert asyncio.run(cancelled()) == []


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def test_runs_beside_each_other_do_not_meet() -> None:
    async def both() -> list[Result]:
        codes = [f"import os\nopen('f{i}', 'w').write('x')\nprint({i}, len(os.listdir('.')))" for i in range(3)]
        return await asyncio.gather(*(run_python(code, switched_on=True) for code in codes))

    assert [result.stdout for result in asyncio.run(both())] == ["0 2\n", "1 2\n", "2 2\n"]


def test_without_a_guard_of_the_kernel_nothing_runs_unless_the_weaker_is_accepted(monkeypatch) -> None:
    with open(_confine.__file__, encoding="utf-8") as file:
        without = file.read().replace('sys.platform.startswith("linux")', "False")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        script = os.path.join(folder, "confine.py")
        with open(script, "w", encoding="utf-8") as file:
            file.write(without)
        monkeypatch.setattr("mindworks.agents.sandbox._SCRIPT", script)
        with pytest.raises(SandboxUnavailable, match=r"no kernel guard .*accept_weaker=True"):
            _run("print(1)")
        assert _run("print(open('main.py').read()[:5])", accept_weaker=True).guard == "audit"
        for code in (
            "open('/etc/passwd')",
            "import os; os.fork()",
            "import socket; socket.socket()",
            "import ctypes; ctypes.CDLL(None)",
        ):
            assert "is refused in the sandbox" in _run(code, accept_weaker=True).stderr


def test_clear_removes_what_rmtree_cannot(tmp_path, monkeypatch) -> None:
    def too_deep(folder: str) -> None:
        raise RecursionError

    monkeypatch.setattr("shutil.rmtree", too_deep)
    folder = tmp_path / "deep"
    inner = folder / "/".join(["d"] * 20)
    inner.mkdir(parents=True)
    for place in (folder, inner, inner.parent):
        (place / "file").write_text("x")
    (inner / "out").symlink_to(tmp_path)
    (folder / "shut").mkdir(mode=0)
    (tmp_path / "kept").write_text("")
    clear(str(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_decides_as_its_table_says(machine: str) -> None:
    """An interpreter of the few instructions in use, over every call number and a few arguments."""
    program = _confine.filter_program(machine, pid=77)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    assert len(code) < 4096  # what the kernel takes

    def verdict(number: int, arguments: tuple[int, ...] = (0,) * 6, arch: int = _confine._ARCHITECTURE[machine]) -> int:
        data, at, value = struct.pack("<IIQ6Q", number, arch, 0, *arguments), 0, 0
        while True:
            operation, then, otherwise, operand = code[at]
            at += 1
            if operation == 0x20:
                value = struct.unpack_from("<I", data, operand)[0]
            elif operation == 0x54:
                value &= operand
            elif operation == 0x06:
                return operand
            else:
                holds = value == operand if operation == 0x15 else value >= operand
                at += then if holds else otherwise

    allow, refuse, unknown = 0x7FFF0000, 0x00050001, 0x00050026
    pair, kill, _, prlimit, fcntl, _, openat, _ = _confine._JUDGED_CALLS[machine]
    with_rule = {rule[0] for rule in _confine.judged(machine, 77)}
    for number in range(600):
        if number not in with_rule:
            wanted = unknown if number >= 424 else refuse if number in _confine._LONE_CALLS[machine] else allow
            assert verdict(number) == wanted, number
    assert verdict(0x40000000 + 41) == unknown  # the x32 twins of x86_64
    assert verdict(0, arch=0x40000003) == 0x80000000  # calls of 32-bit programs
    assert [verdict(kill, (pid,) + (9,) * 5) for pid in (77, 76, 0, 2**32 - 77)] == [allow, refuse, refuse, refuse]
    assert [verdict(pair, (1, kind, 0, 0, 0, 0)) for kind in (0o2000001, 1, 2, 5)] == [allow, allow, refuse, refuse]
    assert [verdict(prlimit, (pid,) + (0,) * 5) for pid in (0, 1)] == [allow, refuse]
    assert [verdict(fcntl, (3, what, 0, 0, 0, 0)) for what in (3, 8, 15)] == [allow, refuse, refuse]
    flags = (os.O_RDONLY, os.O_RDONLY | 0x200, os.O_WRONLY | 0x200)
    assert [verdict(openat, (0, 0, flag, 0, 0, 0)) for flag in flags] == [allow, refuse, allow]


def test_limits_at_the_door() -> None:
    for bad, named in [
        ({"timeout": 0}, "timeout must be positive and finite, got 0"),
        ({"timeout": float("inf")}, "timeout must be positive and finite, got inf"),
        ({"cpu": 0}, "cpu must be an int >= 1, got 0"),
        ({"memory": 1000}, "memory must be an int >= 67108864, got 1000"),
        ({"output": 0}, "output must be an int >= 1, got 0"),
        ({"files": 1.5}, "files must be an int >= 1, got 1.5"),
    ]:
        with pytest.raises(InputError, match=named):
            Limits(**bad)
    with pytest.raises(InputError, match="code must be a string, got int"):
        _run(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="code must be text, got half a character at 1"):
        _run("#\ud800")
