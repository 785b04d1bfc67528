"""Tools that a language model may call, in the form of OpenAI's function calls, and the loop that lets it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mindworks.agents.files import Folders
from mindworks.agents.models import Chat, ChatModel
from mindworks.agents.sandbox import Limits, SandboxUnavailable, run_python
from mindworks.errors import InputError, require

_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}


@dataclass(frozen=True)
class Tool:
    """A function that a model may call by name."""

    name: str
    """letters, digits, `_` and `-`"""
    description: str
    """what it does, for the model"""
    parameters: Mapping[str, tuple[str, str]]
    """for each argument its JSON type (string, integer, number or boolean) and what it means"""
    call: Callable[..., Awaitable[str]]
    """takes the arguments by name and returns what the model is told; `InputError` is told, others are raised"""
    optional: frozenset[str] = frozenset()
    """arguments that may be missing"""

    def __post_init__(self) -> None:
        plain = self.name.replace("_", "").replace("-", "").isalnum() and self.name.isascii() and len(self.name) <= 64
        require(plain, f"name must be letters, digits, _ and -, at most 64, got {self.name!r}")
        for argument, (kind, _) in self.parameters.items():
            require(kind in _TYPES, f"parameters[{argument!r}] must be one of {', '.join(_TYPES)}, got {kind!r}")
        unknown = sorted(self.optional - set(self.parameters))
        require(not unknown, f"optional must name parameters, got {', '.join(unknown)}")

    def schema(self) -> dict[str, Any]:
        """Return the tool as an entry of the `tools` of a chat-completions request."""
        properties = {name: {"type": kind, "description": text} for name, (kind, text) in self.parameters.items()}
        required = [name for name in self.parameters if name not in self.optional]
        shape = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": shape},
        }

    def arguments(self, text: str) -> dict[str, Any]:
        """Return the arguments that the JSON `text` holds; raises `InputError` where they do not fit the schema."""
        try:
            given = json.loads(text or "{}")
        except (ValueError, RecursionError) as error:
            raise InputError(f"arguments of {self.name} must be JSON, got {text[:80]!r}") from error
        require(isinstance(given, dict), f"arguments of {self.name} must be an object, got {text[:80]!r}")
        for name, value in given.items():
            require(name in self.parameters, f"{self.name} has no argument {name!r}")
            kind = self.parameters[name][0]
            fits = isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
            require(fits, f"{name} must be of type {kind}, got {value!r:.80}")
        missing = [name for name in self.parameters if name not in given and name not in self.optional]
        require(not missing, f"{self.name} needs {', '.join(missing)}")
        return given


@dataclass(frozen=True)
class ToolRun:
    """How a conversation with tools ended."""

    text: str
    """the model's last words"""
    messages: tuple[dict[str, Any], ...]
    """the whole conversation, with calls and what the tools said"""
    calls: int
    """calls of tools, refused ones too"""
    finished: bool
    """False where the steps were used up while the model still asked for tools"""


async def use_tools(
    model: ChatModel, messages: Chat, tools: Sequence[Tool], *, steps: int = 8, output: int = 8000, **settings: Any
) -> ToolRun:
    """Let `model` answer `messages`, calling `tools` in at most `steps` turns; what a tool says is cut at `output`.

    A call of an unknown tool, arguments that are no JSON or do not fit, and a tool's `InputError` are told to the
    model. Raises `InputError` for tools of one name, and whatever else the model or a tool raises.
    """
    require(steps >= 1, f"steps must be at least 1, got {steps}")
    require(output >= 1, f"output must be at least 1, got {output}")
    known = {tool.name: tool for tool in tools}
    require(len(known) == len(tools), f"tools must have names of their own, got {[tool.name for tool in tools]}")
    said, calls = [dict(message) for message in messages], 0
    schemas: dict[str, Any] = {"tools": [tool.schema() for tool in tools]} if tools else {}
    for _ in range(steps):
        reply = await model.chat(said, **schemas, **settings)
        answer: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if not reply.tool_calls:
            return ToolRun(reply.text, (*said, answer), calls, True)
        said.append({**answer, "tool_calls": [dict(call) for call in reply.tool_calls]})
        for call in reply.tool_calls:
            calls += 1
            text = await _told(call, known)
            text = text if len(text) <= output else f"{text[:output]}\n[cut at {output} characters]"
            said.append({"role": "tool", "tool_call_id": call.get("id", ""), "content": text})
    return ToolRun(reply.text, tuple(said), calls, False)


async def _told(call: Mapping[str, Any], known: Mapping[str, Tool]) -> str:
    function = call.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or name not in known:
        return f"error: no tool named {name!r}; there are: {', '.join(known) or 'none'}"
    try:
        given = function.get("arguments", "")
        require(isinstance(given, str), f"arguments of {name} must be JSON text, got {type(given).__name__}")
        return await known[name].call(**known[name].arguments(given))
    except InputError as error:
        return f"error: {error}"


def file_tools(folders: Folders) -> tuple[Tool, Tool, Tool]:
    """Return the tools `list_files`, `read_file` and `search_files` over `folders`."""

    async def list_files(path: str = "") -> str:
        return "\n".join(await asyncio.to_thread(folders.list, path)) or "(empty)"

    async def read_file(path: str, first: int = 1, lines: int = 200) -> str:
        return await asyncio.to_thread(folders.read, path, first=first, lines=lines) or "(nothing there)"

    async def search_files(words: str, path: str = "") -> str:
        found = await asyncio.to_thread(folders.search, words, path)
        lines = [f"{match.path}:{match.line}: {match.text}" for match in found.matches] or ["(no line holds it)"]
        return "\n".join(lines if found.complete else [*lines, "(not everything was searched)"])

    path = ("string", "a path such as those that list_files gives; empty for all")
    start = {"first": ("integer", "the first line, from 1"), "lines": ("integer", "how many lines; 200 if not given")}
    return (
        Tool("list_files", "List the files right below a folder.", {"path": path}, list_files, frozenset({"path"})),
        Tool("read_file", "Read a text file.", {"path": ("string", "a path"), **start}, read_file, frozenset(start)),
        Tool(
            "search_files",
            "Find the lines of text files that hold some words.",
            {"words": ("string", "plain text, no pattern"), "path": path},
            search_files,
            frozenset({"path"}),
        ),
    )


def python_tool(*, switched_on: bool = False, limits: Limits | None = None, accept_weaker: bool = False) -> Tool:
    """Return the tool `run_python`, which runs a model's program in the sandbox; `switched_on` must be True."""
    require(switched_on is True, f"switched_on must be True for generated code to run, got {switched_on!r}")

    async def run(code: str) -> str:
        try:
            result = await run_python(code, switched_on=True, limits=limits, accept_weaker=accept_weaker)
        except SandboxUnavailable as error:
            raise InputError(str(error)) from error
        notes = [f"exit status {result.returncode}"] if result.returncode else []
        notes += ["time was up"] if result.timed_out else []
        notes += ["output was cut"] if result.cut else []
        notes += ["its folder held too much"] if result.overfull else []
        said = "\n".join(part for part in (result.stdout, result.stderr, "; ".join(notes)) if part)
        return said or "(it printed nothing)"

    text = "Run a Python program and return what it prints. It has no network and no files but its own folder."
    return Tool("run_python", text, {"code": ("string", "the program")}, run)
