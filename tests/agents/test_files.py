"""Reading and searching files that were shared, and no others; and the tools a model calls them by."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents.files import Folders, Found, Match
from mindworks.agents.models import Reply, Usage
from mindworks.agents.tools import Tool, file_tools, python_tool, use_tools
from mindworks.errors import InputError


@pytest.fixture
def shared(tmp_path):
    """A folder `shared` with a few files, a secret beside it, and links to the secret."""
    (tmp_path / "secret").write_text("the secret is 42\n")
    root = tmp_path / "shared"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("one\ntwo Apples\nthree\n")
    (root / "sub" / "b.txt").write_text("an apple\n")
    (root / "photo.bin").write_bytes(b"apple\0\1")
    (root / "latin.txt").write_bytes("caf\xe9 apple".encode("latin-1"))
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    return root


def test_reading_by_lines(shared) -> None:
    folders = Folders({"s": str(shared)})
    assert folders.read("s/a.txt") == "one\ntwo Apples\nthree\n"
    assert folders.read("s/./sub//b.txt") == "an apple\n"
    assert folders.read("s/a.txt", first=2, lines=1) == "two Apples\n"
    assert folders.read("s/a.txt", first=9) == ""


def test_listing_shows_folders_and_files_and_no_links(shared) -> None:
    folders = Folders({"s": str(shared), "below": str(shared / "sub")})
    assert folders.list() == ("below/", "s/")
    assert folders.list("s") == ("s/a.txt", "s/latin.txt", "s/photo.bin", "s/sub/")
    assert folders.list("s/sub/") == ("s/sub/b.txt",)


def test_searching(shared) -> None:
    folders = Folders({"s": str(shared)})
    both = (Match("s/a.txt", 2, "two Apples"), Match("s/sub/b.txt", 1, "an apple"))
    assert folders.search("APPLE") == Found(both, False)  # the two that are no text were left out
    assert folders.search("apple", "s/sub") == Found(both[1:], True)
    assert folders.search("apple", "s/a.txt") == Found(both[:1], True)
    assert folders.search("secret").matches == ()
    assert folders.search("apple", limit=1) == Found(both[:1], False)
    few = Folders({"s": str(shared / "sub"), "t": str(shared / "sub")}, max_files=1)
    assert few.search("apple") == Found((Match("s/b.txt", 1, "an apple"),), False)
    assert Folders({"s": str(shared / "sub")}, max_bytes=3).search("apple") == Found((), False)
    assert folders.search(".*", "s/sub").matches == ()  # plain text and no pattern


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "relative to a root"),
        ("~/x", "relative to a root"),
        ("s/../secret", "must not lead out"),
        ("..", "must not lead out"),
        ("s/sub/../../secret", "must not lead out"),
        ("s/..\\secret", "without backslashes"),
        ("s/link", "must be a file"),
        ("s/up/secret", "must be a file"),
        ("s/pipe", "must be a regular file"),
        ("s/sub", "must be a regular file"),
        ("s", "must be a"),
        ("t/a.txt", "must start with one of s, got 't/a.txt'"),
        ("s/none", "No such file"),
        ("s/a.txt/x", "Not a directory"),
        ("s/a\0", "printable"),
        ("s/" + "x" * 300, "too long"),
        ("", "must not be empty"),
        ("s/photo.bin", "holds zero bytes"),
        ("s/latin.txt", "breaks at 3"),
    ],
)
def test_what_is_not_read(shared, path: str, reason: str) -> None:
    with pytest.raises(InputError, match=r"^path must") as caught:
        Folders({"s": str(shared)}).read(path)
    assert reason in str(caught.value)


def test_large_files_are_refused(shared) -> None:
    with pytest.raises(InputError, match=r"at most 8 bytes, got 's/sub/b.txt'"):
        Folders({"s": str(shared)}, max_bytes=8).read("s/sub/b.txt")
    assert Folders({"s": str(shared)}, max_bytes=9).read("s/sub/b.txt") == "an apple\n"


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.sampled_from(["s", "..", ".", "up", "link", "sub", "secret", "/", "~", "", "a.txt"]), max_size=6)
)
def test_no_path_reaches_the_secret(tmp_path_factory, parts: list[str]) -> None:
    base = tmp_path_factory.getbasetemp() / "walls"
    if not base.exists():
        (base / "shared" / "sub").mkdir(parents=True)
        (base / "secret").write_text("the secret is 42")
        (base / "shared" / "a.txt").write_text("open")
        (base / "shared" / "link").symlink_to(base / "secret")
        (base / "shared" / "up").symlink_to(base)
    folders = Folders({"s": str(base / "shared")})
    for path in ("/".join(parts), "s/" + "/".join(parts)):
        with contextlib.suppress(InputError):
            assert folders.read(path) == "open"
        with contextlib.suppress(InputError):
            assert not any("secret" in match.text for match in folders.search("secret", path).matches)


def test_roots_at_the_door(tmp_path) -> None:
    for roots, named in [
        ({}, "got none"),
        ({"a/b": str(tmp_path)}, "'a/b'"),
        ({"a": str(tmp_path / "no")}, r"roots\['a'\]"),
    ]:
        with pytest.raises(InputError, match=named):
            Folders(roots)
    with pytest.raises(InputError, match="max_bytes must be positive, got 0"):
        Folders({"a": str(tmp_path)}, max_bytes=0)
    with pytest.raises(InputError, match="words must not be empty"):
        Folders({"a": str(tmp_path)}).search("")


class _Scripted:
    """A model that makes one call of a tool after another, then says what it was told last."""

    name = "scripted"

    def __init__(self, *calls: Any) -> None:
        self.calls, self.asked = list(calls), 0
        self.tools: Any = None

    async def chat(self, messages: Any, *, sample: int = 0, **settings: Any) -> Reply:
        self.tools = settings.get("tools")
        if self.asked == len(self.calls):
            return Reply(messages[-1]["content"], Usage(0, 0))
        name, arguments = self.calls[self.asked]
        self.asked += 1
        call = {"id": f"c{self.asked}", "type": "function", "function": {"name": name, "arguments": arguments}}
        return Reply("", Usage(0, 0), finish="tool_calls", tool_calls=(call,))


def _told(tools: Any, name: Any, arguments: Any, **options: Any) -> str:
    run = asyncio.run(use_tools(_Scripted((name, arguments)), [{"role": "user", "content": "go"}], tools, **options))
    assert (run.calls, run.finished) == (1, True)
    assert [message["role"] for message in run.messages] == ["user", "assistant", "tool", "assistant"]
    assert run.messages[2]["tool_call_id"] == "c1"
    return run.text


def test_a_model_reads_files_by_tools(shared) -> None:
    tools = file_tools(Folders({"s": str(shared)}))
    assert _told(tools, "read_file", '{"path": "s/a.txt", "first": 3}') == "three\n"
    assert _told(tools, "list_files", "") == "s/"
    assert _told(tools, "search_files", '{"words": "apple", "path": "s/sub"}') == "s/sub/b.txt:1: an apple"
    assert _told(tools, "search_files", '{"words": "pear", "path": "s/sub"}') == "(no line holds it)"
    assert _told(tools, "read_file", '{"path": "s/a.txt"}', output=5) == "one\nt\n[cut at 5 characters]"


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("rm", "{}", "error: no tool named 'rm'; there are: list_files, read_file, search_files"),
        (None, "{}", "error: no tool named None; there are: list_files, read_file, search_files"),
        (["x"], "{}", "error: no tool named None; there are: list_files, read_file, search_files"),
        ("read_file", "{path: x}", "error: arguments of read_file must be JSON, got '{path: x}'"),
        ("read_file", "[1]", "error: arguments of read_file must be an object, got '[1]'"),
        ("read_file", "[" * 100_000, "error: arguments of read_file must be JSON, got '" + "[" * 80 + "'"),
        ("read_file", {"path": "x"}, "error: arguments of read_file must be JSON text, got dict"),
        ("read_file", "{}", "error: read_file needs path"),
        ("read_file", '{"path": 3}', "error: path must be of type string, got 3"),
        ("read_file", '{"path": "s/a.txt", "first": true}', "error: first must be of type integer, got True"),
        ("read_file", '{"path": "s/a.txt", "mode": "w"}', "error: read_file has no argument 'mode'"),
        ("read_file", '{"path": "s/../x"}', "error: path must not lead out of its root, got 's/../x'"),
    ],
)
def test_what_is_wrong_with_a_call_is_told_to_the_model(shared, name: Any, arguments: Any, told: str) -> None:
    assert _told(file_tools(Folders({"s": str(shared)})), name, arguments).startswith(told.replace("None", repr(name)))


def test_steps_are_bounded_and_schemas_are_sent(shared) -> None:
    tools = file_tools(Folders({"s": str(shared)}))
    model = _Scripted(*[("list_files", "{}")] * 10)
    run = asyncio.run(use_tools(model, [{"role": "user", "content": "go"}], tools, steps=3))
    assert (run.calls, run.finished, model.asked) == (3, False, 3)
    read = model.tools[1]["function"]
    assert read["name"] == "read_file"
    assert read["parameters"]["required"] == ["path"]
    assert json.loads(json.dumps(model.tools)) == model.tools


def test_generated_code_is_a_tool_only_when_switched_on() -> None:
    with pytest.raises(InputError, match="switched_on must be True"):
        python_tool()
    tool = python_tool(switched_on=True, accept_weaker=True)
    assert _told([tool], "run_python", json.dumps({"code": "print(6 * 7)"})) == "42\n"
    assert "exit status 3" in _told([tool], "run_python", json.dumps({"code": "raise SystemExit(3)"}))


def test_tools_at_the_door() -> None:
    async def nothing() -> str:
        return ""

    for bad, named in [
        (lambda: Tool("a b", "", {}, nothing), "name must be letters"),
        (lambda: Tool("a", "", {"x": ("list", "")}, nothing), "must be one of string"),
        (lambda: Tool("a", "", {}, nothing, frozenset({"x"})), "optional must name parameters, got x"),
        (lambda: asyncio.run(use_tools(_Scripted(), [], [Tool("a", "", {}, nothing)] * 2)), "names of their own"),
        (lambda: asyncio.run(use_tools(_Scripted(), [], [], steps=0)), "steps must be at least 1, got 0"),
    ]:
        with pytest.raises(InputError, match=named):
            bad()


def test_a_defect_of_a_tool_is_raised() -> None:
    async def broken() -> str:
        raise KeyError("defect")

    with pytest.raises(KeyError, match="defect"):
        _told([Tool("broken", "", {}, broken)], "broken", "{}")
