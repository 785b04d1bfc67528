"""A graph, a swarm or a society behind an OpenAI-compatible server, so that any OpenAI client can talk to it.

Served: `POST /v1/chat/completions`, streamed or not, `GET /v1/models` and `GET /v1/models/NAME`. The question is the
text of the last user message; earlier turns, system messages and sampling settings do not reach the members. Members do
not count tokens, so `usage` is null. Every error is JSON in OpenAI's form. There is no authentication: the server binds
to loopback unless told otherwise, and then answers only requests that name a loopback host and carry JSON, which a web
page opened in a browser cannot send. Needs the extra `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mindworks.agents.graph import Graph
from mindworks.errors import InputError, import_extra, require

if TYPE_CHECKING:
    from mindworks.agents.society.assembly import Deliberation, Society

EXTRA = "serve"
Answer = Callable[[str], Awaitable[str]]


class Answerer(Protocol):
    """Whatever answers a question in text."""

    async def answer(self, question: str) -> str:
        """The answer to `question`."""
        ...


@dataclass(frozen=True)
class ServerLimits:
    """What one client may ask of the server."""

    body: int = 1 << 20
    """bytes of a request"""
    body_seconds: float = 30.0
    """seconds until a request has arrived"""
    answer_seconds: float = 600.0
    """seconds of wall time for an answer"""
    questions: int = 64
    """questions in work at a time; further ones are turned away with status 503"""

    def __post_init__(self) -> None:
        for name in ("body", "body_seconds", "answer_seconds", "questions"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")


class GraphAnswers:
    """A graph as an answerer: the text of its output node; raises `RuntimeError` where that node failed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    async def answer(self, question: str) -> str:
        """Run the graph on `question`."""
        run = await self.graph.run(question)
        if run.answer is None:
            raise RuntimeError("; ".join(f"{name}: {reason}" for name, reason in run.failures.items()) or "no answer")
        return run.answer


class SocietyAnswers:
    """A society as an answerer of questions that have the same `choices`; raises `RuntimeError` where it finds none."""

    def __init__(self, society: Society, protocol: Deliberation, choices: tuple[str, ...]) -> None:
        self.society, self.protocol, self.choices = society, protocol, choices

    async def answer(self, question: str) -> str:
        """Let the society deliberate on `question`."""
        from mindworks.agents.society.members import Question

        transcript = await self.society.deliberate(Question(question, self.choices), self.protocol)
        if transcript.answer is None:
            raise RuntimeError("the society found no answer")
        return transcript.answer


class Refusal(Exception):
    """A request that is not answered: an HTTP status, and what OpenAI's form of an error holds."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def application(
    members: Mapping[str, Answerer | Answer], *, limits: ServerLimits | None = None, anywhere: bool = False
) -> Any:
    """Return the Starlette application that serves `members` by their names as models.

    A member is an object with `async answer(question)`, or such a function. Requests must name a loopback host unless
    `anywhere`. Raises `InputError` for no member or an empty name.
    """
    require(len(members) > 0, "members must name at least one, got none")
    for name in members:
        require(name.strip() != "" and name.isprintable(), f"members must have printable names, got {name!r}")
    starlette = import_extra("starlette.applications", EXTRA)
    routing, errors = import_extra("starlette.routing", EXTRA), import_extra("starlette.exceptions", EXTRA)
    service = _Service(dict(members), limits or ServerLimits(), anywhere)

    async def refused(request: Any, error: Refusal) -> Any:
        return _reply(error.body(), error.status)

    async def missed(request: Any, error: Any) -> Any:
        text = f"{request.method} {request.url.path}: {error.detail}"
        return _reply(Refusal(error.status_code, text).body(), error.status_code, dict(error.headers or {}))

    return starlette.Starlette(
        routes=[
            routing.Route("/v1/chat/completions", service.complete, methods=["POST"]),
            routing.Route("/v1/models", service.models, methods=["GET"]),
            routing.Route("/v1/models/{name:path}", service.model, methods=["GET"]),
        ],
        exception_handlers={Refusal: refused, errors.HTTPException: missed},
    )


class _Service:
    """The three routes."""

    def __init__(self, members: dict[str, Any], limits: ServerLimits, anywhere: bool) -> None:
        self.members, self.limits, self.anywhere = members, limits, anywhere
        self.started, self.working = int(time.time()), 0

    async def models(self, request: Any) -> Any:
        """Who can be asked."""
        self._admit(request)
        return _reply({"object": "list", "data": [self._card(name) for name in self.members]})

    async def model(self, request: Any) -> Any:
        """One of them."""
        self._admit(request)
        return _reply(self._card(self._known(request.path_params["name"])))

    async def complete(self, request: Any) -> Any:
        """An answer, whole or streamed."""
        self._admit(request)
        asked = await self._body(request)
        name, question, stream = self._known(asked.get("model")), question_of(asked), asked.get("stream") or False
        if not isinstance(stream, bool):
            raise Refusal(400, f"stream must be true or false, got {stream!r:.80}", param="stream")
        if self.working >= self.limits.questions:
            raise Refusal(503, f"{self.working} questions are in work; ask again later", "overloaded")
        self.working += 1
        try:
            text = await self._answer(request, name, question)
        finally:
            self.working -= 1
        if not stream:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return _reply({**_head(name, "chat.completion"), "choices": [choice], "usage": None})
        responses = import_extra("starlette.responses", EXTRA)
        return responses.StreamingResponse(_chunks(name, text), media_type="text/event-stream")

    def _admit(self, request: Any) -> None:
        host = request.url.hostname or ""
        if not self.anywhere and not is_loopback(host):
            raise Refusal(403, f"this server answers on loopback only, not as {host!r:.80}")

    def _known(self, name: Any) -> str:
        if not isinstance(name, str) or name not in self.members:
            there = ", ".join(self.members)
            raise Refusal(404, f"no model {name!r:.80}; there are: {there}", "model_not_found", "model")
        return name

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.started, "owned_by": "mindworks"}

    async def _body(self, request: Any) -> dict[str, Any]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, f"content-type must be application/json, got {kind!r:.80}")
        data = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    data += part
                    if len(data) > self.limits.body:
                        raise Refusal(413, f"a request may hold {self.limits.body} bytes", "request_too_large")
        except TimeoutError as error:
            raise Refusal(408, f"the request did not arrive in {self.limits.body_seconds:g} seconds") from error
        try:
            asked = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"the request is no JSON: {error}"[:200]) from error
        if not isinstance(asked, dict):
            raise Refusal(400, f"the request must be an object, got {type(asked).__name__}")
        return asked

    async def _answer(self, request: Any, name: str, question: str) -> str:
        """The member's text; a client that leaves takes its question with it."""
        member = self.members[name]
        answer = getattr(member, "answer", member)
        work, left = asyncio.ensure_future(_awaited(answer, question)), asyncio.ensure_future(_left(request))
        try:
            seconds = self.limits.answer_seconds
            done, _ = await asyncio.wait({work, left}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                text = work.result()
            elif left in done:
                raise Refusal(499, "the client left")
            else:
                raise Refusal(504, f"{name} did not answer in {seconds:g} seconds", "timeout")
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(500, f"{name} failed: {type(error).__name__}: {error}"[:500], "member_failed") from error
        finally:
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)
        if not isinstance(text, str):
            raise Refusal(500, f"{name} gave no text but {type(text).__name__}", "member_failed")
        return text


async def _awaited(answer: Answer, question: str) -> str:
    return await answer(question)


async def _left(request: Any) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def question_of(asked: Mapping[str, Any]) -> str:
    """The text of the last user message of a chat-completions request; raises `Refusal` where there is none."""
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "messages must be a list with at least one message", param="messages")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refusal(400, f"messages[{place}] must be an object with a role", param="messages")
    if asked.get("n") not in (None, 1):
        raise Refusal(400, f"n must be 1, got {asked['n']!r:.80}", param="n")
    content = next((message.get("content") for message in reversed(messages) if message["role"] == "user"), None)
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise Refusal(400, f"members read text, got a part of type {kind!r:.80}", param="messages")
    if not parts:
        raise Refusal(400, "messages must hold a user message with text", param="messages")
    return "\n".join(part["text"] for part in parts)


def _head(name: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


async def _chunks(name: str, text: str) -> AsyncIterator[str]:
    """The answer as server-sent events, a line of it at a time."""
    head = _head(name, "chat.completion.chunk")

    def event(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"

    yield event({"role": "assistant", "content": ""})
    for line in text.splitlines(keepends=True):
        yield event({"content": line})
    yield event({}, "stop")
    yield "data: [DONE]\n\n"


def _reply(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Any:
    # json.dumps escapes half characters, which Starlette's own JSON reply cannot encode.
    responses = import_extra("starlette.responses", EXTRA)
    return responses.Response(json.dumps(body), status, headers=headers, media_type="application/json")


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listening(host: str = "127.0.0.1", port: int = 0, *, anywhere: bool = False) -> socket.socket:
    """Return a socket bound to `host` and `port` (0: any that is free); raises `InputError` where that cannot be.

    A host that is not loopback is refused unless `anywhere`: there is no authentication.
    """
    require(isinstance(port, int) and 0 <= port <= 65535, f"port must be in 0 to 65535, got {port}")
    require(anywhere or is_loopback(host), f"host must be loopback unless anywhere is True, got {host!r}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"host must be a name or an address, got {host!r}: {error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise InputError(f"cannot listen on host {host} port {port}: {error.strerror}") from error
    return bound


def url_of(bound: socket.socket) -> str:
    """The base URL that a client of this socket takes."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(bound: socket.socket, app: Any, *, grace: int = 5) -> None:
    """Serve `app` on a socket of `listening` until SIGINT or SIGTERM; requests in work get `grace` seconds to end.

    The signal is raised again afterwards: SIGINT as KeyboardInterrupt.
    """
    _server(app, grace).run(sockets=[bound])


@contextlib.contextmanager
def serving(
    members: Mapping[str, Answerer | Answer], *, port: int = 0, limits: ServerLimits | None = None, grace: int = 5
) -> Iterator[str]:
    """Within, `members` are served on loopback from a thread; gives the base URL. For notebooks and tests."""
    server = _server(application(members, limits=limits), grace)
    bound = listening(port=port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        if not server.started:
            raise RuntimeError("the server did not start")
        yield url_of(bound)
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


def _server(app: Any, grace: int) -> Any:
    uvicorn = import_extra("uvicorn", EXTRA)
    settings = {
        "log_level": "error",
        "access_log": False,
        "timeout_graceful_shutdown": grace,
        "lifespan": "off",
        "ws": "none",
    }
    return uvicorn.Server(uvicorn.Config(app, server_header=False, **settings))
