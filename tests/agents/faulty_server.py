"""A chat-completions server that fails to order: a real one, on a port of loopback, in a thread or in its own process.

Each request gets an `Act`: what to answer, after how long, and how to break it. As a process it prints its port:
`python tests/agents/faulty_server.py LATENCY EVERY` answers after LATENCY seconds and fails every EVERYth request
(0: none) with status 500; `GET /counts` says what it saw.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PROMPT_TOKENS, COMPLETION_TOKENS = 9, 2
USAGE = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS, "total_tokens": 11}


@dataclass
class Act:
    """What happens to one request."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    """what is sent in place of an answer: JSON, or bytes as they are"""
    delay: float = 0.0
    """seconds before anything is sent"""
    keep: float = 1.0
    """the share of the body that is sent before the connection is cut"""
    trickle: float = 0.0
    """seconds between two bytes of the body"""
    pieces: int | None = None
    """of a stream, how many pieces are sent before it is cut"""
    sound: bool = False
    """whether the body of a stream that is cut ends as HTTP wants it"""


def completion(
    text: str | None = "", *, finish: str = "stop", model: str = "m", usage: Any = USAGE, **more: Any
) -> Any:
    """The body of an answer; `more` are fields of its message."""
    message = {"role": "assistant", "content": text, **more}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
    return body if usage is None else {**body, "usage": usage}


def refusal(status: int, message: str = "no", headers: dict[str, str] | None = None, **more: Any) -> Act:
    """An error status with a message in OpenAI's form."""
    return Act(status, headers or {}, {"error": {"message": message, "type": "t", "code": None, **more}})


def echo(body: dict[str, Any]) -> str:
    """The text of a sound answer: it depends on the question alone."""
    content = body["messages"][-1]["content"]
    return f"to {content if isinstance(content, str) else json.dumps(content)}"


class FaultyServer:
    """Plays `acts` in turn, None standing for a sound answer, and then answers soundly; or asks `choose(number, body)`.

    As a context manager it runs in a thread. `requests` holds headers, body and time of each; `answered` counts status
    200; `most` is the most requests that were in flight at once, `connections` those that are open.
    """

    def __init__(self, *acts: Act | None, choose: Callable[[int, Any], Act | None] | None = None, latency: float = 0.0):
        self.acts, self.choose, self.latency = acts, choose, latency
        self.requests: list[dict[str, Any]] = []
        self.answered = self.in_flight = self.most = self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FaultyServer:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(ready.set)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def quiet(self, seconds: float = 5.0) -> bool:
        """Wait until no connection is open; False if one stays."""
        end = time.monotonic() + seconds
        while self.connections and time.monotonic() < end:
            time.sleep(0.005)
        return self.connections == 0

    async def serve(self, ready: Callable[[], Any]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.current_task())  # type: ignore[arg-type]
            self.connections += 1
            try:
                while await self._one(reader, writer):
                    pass
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                self.connections -= 1
                tasks.discard(asyncio.current_task())  # type: ignore[arg-type]
                writer.transport.abort()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        if head[0].startswith("GET /counts"):
            counts = {"requests": len(self.requests), "answered": self.answered, "connections": self.connections - 1}
            return await self._send(writer, Act(body=counts), json.dumps(counts).encode())
        body = json.loads(raw)
        number = len(self.requests)
        self.requests.append({"headers": headers, "body": body, "time": time.monotonic()})
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        if self.choose is not None:
            act = self.choose(number, body) or Act()
        else:
            act = (self.acts[number] if number < len(self.acts) else None) or Act()
        try:
            await asyncio.sleep(self.latency + act.delay)
        finally:  # before the answer leaves: its reader may ask again before this goes on
            self.in_flight -= 1
        self.answered += act.status == 200
        if body.get("stream") and act.status == 200 and act.body is None:
            return await self._stream(writer, act, body)
        sent = completion(echo(body), model=body["model"]) if act.body is None else act.body
        return await self._send(writer, act, sent if isinstance(sent, bytes) else json.dumps(sent).encode())

    async def _send(self, writer: asyncio.StreamWriter, act: Act, body: bytes) -> bool:
        headers = {"content-type": "application/json", "content-length": str(len(body)), **act.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {act.status} x\r\n{head}\r\n".encode())
        kept = body[: int(len(body) * act.keep)]
        for byte in kept if act.trickle else b"":
            writer.write(bytes([byte]))
            await asyncio.sleep(act.trickle)
        writer.write(b"" if act.trickle else kept)
        await writer.drain()
        return act.keep == 1

    async def _stream(self, writer: asyncio.StreamWriter, act: Act, body: dict[str, Any]) -> bool:
        """Send the words of the answer one by one, the reason for the end, the usage, and the mark of the end."""
        words = echo(body).split(" ")
        pieces = [word if place == 0 else f" {word}" for place, word in enumerate(words)]
        writer.write(b"HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in pieces[: act.pieces]:
            await self._event(writer, {"choices": [{"index": 0, "delta": {"content": piece}}]})
        if act.pieces is not None:
            writer.write(b"0\r\n\r\n" if act.sound else b"")
            await writer.drain()
            return False
        await self._event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if body.get("stream_options", {}).get("include_usage"):
            await self._event(writer, {"choices": [], "usage": USAGE})
        writer.write(self._chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _event(self, writer: asyncio.StreamWriter, data: dict[str, Any]) -> None:
        writer.write(self._chunk(f"data: {json.dumps({'model': 'm', **data})}\n\n".encode()))
        await writer.drain()

    @staticmethod
    def _chunk(data: bytes) -> bytes:
        return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def main() -> None:
    latency, every = float(sys.argv[1]), int(sys.argv[2])

    def choose(number: int, body: Any) -> Act | None:
        return refusal(500) if every and number % every == every - 1 else None

    server = FaultyServer(choose=choose, latency=latency)
    asyncio.run(server.serve(lambda: print(server.port, flush=True)))


if __name__ == "__main__":
    main()
