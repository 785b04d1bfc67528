"""The command `mindworks serve`: a swarm, a society, or a swarm of real models as an OpenAI-compatible server.

The agents and the server load once the words are understood.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab.discovery import nearest

HELP = """\
usage: mindworks serve NAME [flags]

An OpenAI-compatible server: POST /v1/chat/completions and GET /v1/models. There is
no authentication. Ctrl-C ends it.

  swarm     five calculators, two of them wrong, and a vote: "What is 17 * 3?"
  society   the same as a democracy: "Is 17 * 3 = 51?"

  --host HOST       where to listen (default: 127.0.0.1)
  --port PORT       0 takes a free one (default: 8765)
  --anywhere        allow a host that is not loopback
  --model MODEL     swarm: draws of this language model instead of calculators
  --base-url URL    its OpenAI-compatible endpoint (default: OpenAI's)
  --members N       how many draws (default: 3)"""

NAMES = ("society", "swarm")
_FLAGS = {"--host": "127.0.0.1", "--port": "8765", "--model": "", "--base-url": "", "--members": "3"}


@dataclass(frozen=True)
class Wanted:
    """What the words of the command ask for."""

    name: str
    host: str
    port: int
    anywhere: bool
    model: str
    base_url: str
    members: int


def understood(words: Sequence[str]) -> Wanted:
    """The words after `mindworks serve`; raises `InputError` in one line that names the word."""
    given, names, anywhere, rest = dict(_FLAGS), [], False, list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag == "--anywhere" and not equals:
            anywhere = True
        elif flag in _FLAGS:
            require(bool(equals) or (bool(rest) and not rest[0].startswith("--")), f"{flag} needs a value, got none")
            given[flag] = value if equals else rest.pop(0)
        elif flag.startswith("-"):
            raise InputError(f"unknown flag {flag}{nearest(flag, (*_FLAGS, '--anywhere'))}")
        else:
            names.append(flag + equals + value)
    require(len(names) == 1, f"serve needs one name, got {' '.join(names) or 'none'}; there are: {', '.join(NAMES)}")
    require(names[0] in NAMES, f"nothing to serve named {names[0]!r}{nearest(names[0], NAMES)}")
    model, url = given["--model"], given["--base-url"]
    require(not (model or url) or names[0] == "swarm", f"--model and --base-url go with swarm, not with {names[0]}")
    require(bool(model) or not url, "--base-url needs --model as well, got none")
    port, members = _number("--port", given["--port"], 0, 65535), _number("--members", given["--members"], 1, 1000)
    return Wanted(names[0], given["--host"], port, anywhere, model, url, members)


def _number(flag: str, word: str, least: int, most: int) -> int:
    plain = word.isascii() and word.isdigit() and len(word) <= 9
    require(plain and least <= int(word) <= most, f"{flag} must be a whole number in {least} to {most}, got {word!r}")
    return int(word)


def command(words: Sequence[str]) -> None:
    """Serve what `words` ask for until SIGINT or SIGTERM; prints where, and one line at the end."""
    wanted = understood(words)
    from mindworks.agents import serve

    members = {wanted.model or wanted.name: _answerer(wanted)}
    app = serve.application(members, anywhere=wanted.anywhere)
    bound = serve.listening(wanted.host, wanted.port, anywhere=wanted.anywhere)

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        print(f"serving {', '.join(members)} at {serve.url_of(bound)}; Ctrl-C ends it", flush=True)
        serve.serve(bound, app)
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        bound.close()
    print("mindworks: the server has ended", flush=True)


def _answerer(wanted: Wanted) -> Any:
    from mindworks.agents import ready

    if not wanted.model:
        return ready.READY[wanted.name]()
    from mindworks.agents.models import LLM

    return ready.model_swarm(LLM(wanted.model, base_url=wanted.base_url or None), wanted.members)
