"""Node calls that many graphs of one question share: each distinct call runs once, also while it is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import Any

from mindworks.agents.messages import Message

NodeFunction = Callable[[Any, tuple[Message, ...]], Awaitable[str]]
"""What a node does: `await function(task, messages)` is its text; `messages` are those of its predecessors."""


async def text_of(function: NodeFunction, task: Any, messages: tuple[Message, ...]) -> str:
    """Return the text of one call of `function`; raises `TypeError` where it is not async or its value is no text."""
    called = function(task, messages)
    if not isawaitable(called):
        raise TypeError(f"a node must be an async function, got a plain {type(called).__name__}")
    text = await called
    if not isinstance(text, str):
        raise TypeError(f"a node must return a str, got {type(text).__name__}")
    return text


async def _said(text: str) -> str:
    return text


@dataclass
class _Flight:
    call: asyncio.Task[str]
    waiting: int = 0


class Memo:
    """Remembers the texts of node calls by (node, task, messages), and lets equal calls in flight share one.

    A node is told by its path and its function, a task by its value where it is a string and by its identity otherwise:
    do not change a task while its memo lives. A call that fails is forgotten, after all who wait for it have seen the
    error. A call goes on while anyone waits for it and is cancelled with the last. One memo serves several event loops;
    calls in flight are shared within a loop.
    """

    def __init__(self) -> None:
        self.calls = 0
        """node calls that were made"""
        self.hits = 0
        """node calls that were answered by another's text"""
        self._texts: dict[Hashable, str] = {}
        self._flights: dict[Hashable, _Flight] = {}
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def call(
        self, path: str, function: NodeFunction, task: Any, messages: tuple[Message, ...]
    ) -> tuple[Coroutine[Any, Any, str], bool]:
        """Return the text of the node at `path`, to be awaited at once, and whether this caller makes the call."""
        key = (path, self._identity(function), task if isinstance(task, str) else self._identity(task), messages)
        known = self._texts.get(key)
        if known is not None:
            self.hits += 1
            return _said(known), False
        loop = asyncio.get_running_loop()
        place = (id(loop), key)
        flight = self._flights.get(place)
        made = flight is None
        if flight is None:
            flight = self._flights[place] = _Flight(loop.create_task(text_of(function, task, messages), name=path))
            flight.call.add_done_callback(partial(self._land, place, key, flight))
        self.calls += made
        self.hits += not made
        return self._wait(place, flight), made

    async def _wait(self, place: Hashable, flight: _Flight) -> str:
        flight.waiting += 1
        try:
            # the shield keeps one caller's cancellation from the others' call
            return await asyncio.shield(flight.call)
        except asyncio.CancelledError:
            if flight.waiting == 1 and not flight.call.done():
                self._forget(place, flight)
                flight.call.cancel()
                await asyncio.wait([flight.call])
            raise
        finally:
            flight.waiting -= 1

    def _land(self, place: Hashable, key: Hashable, flight: _Flight, call: asyncio.Task[str]) -> None:
        self._forget(place, flight)
        if not call.cancelled() and call.exception() is None:
            self._texts[key] = call.result()

    def _forget(self, place: Hashable, flight: _Flight) -> None:
        if self._flights.get(place) is flight:
            del self._flights[place]

    def _identity(self, thing: Any) -> int:
        # kept alive: the identity of what is gone may be given to something else
        self._kept[id(thing)] = thing
        return id(thing)
