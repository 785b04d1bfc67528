"""An OpenAI-compatible endpoint: one client per event loop, what its answers and its failures mean."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

LONGEST_BACKOFF = 8.0
"""seconds"""
_MESSAGE_TOKENS = 32  # a chat template's own tokens around one message; the templates seen take fewer than 10
_AGAIN = (408, 409, 429)
_HOPELESS = ("insufficient_quota", "billing_hard_limit_reached")  # sent with 429, and no waiting helps
_UNSENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
_TRANSPORTS = ("anyio", "httpcore", "httpcore2", "httpx", "httpx2", "ssl")


class ModelError(RuntimeError):
    """A model gave no usable answer: the message says which, why, and after how many requests.

    `status` is the HTTP status of the last one, None where there was none; `requests` counts them.
    """

    def __init__(self, message: str, status: int | None = None, requests: int = 1) -> None:
        super().__init__(message)
        self.status, self.requests = status, requests


@dataclass(frozen=True)
class Failure:
    """Why one request gave no answer, what became of it, and whether another one may."""

    text: str
    fate: str
    """`refused`: not billed; `lost`: no answer came, it may be billed; `spoiled`: an answer came and is of no use"""
    again: bool = True
    wait: float | None = None
    """seconds that the endpoint asks for"""
    status: int | None = None


def failed(error: Exception, sdk: ModuleType) -> Failure:
    """Return what an error of the SDK `sdk` or of what it stands on means; any other error is raised again."""
    if isinstance(error, sdk.APIStatusError):
        return _status(error)
    if isinstance(error, TimeoutError | sdk.APIConnectionError):
        cause = type(error.__cause__).__name__
        if cause in _UNSENT:
            return Failure(f"no connection: {cause}", "refused")
        late = isinstance(error, TimeoutError | sdk.APITimeoutError)
        return Failure("timed out" if late else f"the connection broke: {cause}", "lost")
    if isinstance(error, sdk.APIError):  # an error event inside a stream
        return Failure(error.message, "lost")
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | sdk.APIResponseValidationError):
        return Failure("the answer is no JSON", "spoiled")
    if type(error).__module__.partition(".")[0] in _TRANSPORTS:
        return Failure(f"the connection broke: {type(error).__name__}", "lost")
    raise error


def _status(error: Any) -> Failure:
    body, status, headers = error.body, error.status_code, error.response.headers
    said = body.get("message") if isinstance(body, dict) else body
    text = f"status {status}: {said or error.message!s}"
    again = status in _AGAIN or status >= 500
    wish = headers.get("x-should-retry")
    again = wish == "true" if wish in ("true", "false") else again
    hopeless = getattr(error, "code", None) in _HOPELESS or status in (401, 403)
    return Failure(text, "refused", again and not hopeless, _retry_after(headers), status)


def _retry_after(headers: Any) -> float | None:
    """The seconds that the headers ask for, as milliseconds, seconds or a date; None where they say nothing sound."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with contextlib.suppress(TypeError, ValueError):
            seconds = float(headers.get(name)) * unit
            if math.isfinite(seconds):
                return max(0.0, seconds)
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, parsedate_to_datetime(headers.get("retry-after")).timestamp() - time())
    return None


def backoff(first: float, tried: int, body: dict[str, Any]) -> float:
    """Return the seconds before repetition `tried` (from 0): `first` doubled each time, less up to a half.

    The part taken off depends on the request, so that many that failed together do not come back together.
    """
    mark = hashlib.sha256(f"{tried}:{json.dumps(body, default=str)}".encode()).digest()
    return min(max(first, LONGEST_BACKOFF), first * 2.0 ** min(tried, 30)) * (1 - mark[0] / 510)


def read(payload: object) -> dict[str, Any] | Failure:
    """Return `text`, `finish`, `tool_calls` and `model` of a chat completion, or why it cannot be used."""
    if not isinstance(payload, dict):
        return Failure("the answer is no JSON object", "spoiled")
    choices = payload.get("choices")
    if not choices and payload.get("error"):
        return Failure(f"an error in place of an answer: {payload['error']!s}", "refused")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Failure("the answer has no choices", "spoiled")
    finish, message = str(choices[0].get("finish_reason") or "stop"), choices[0].get("message")
    if not isinstance(message, dict):
        return Failure("the answer has no message", "spoiled")
    text, calls = _joined(message.get("content")), tuple(message.get("tool_calls") or ())
    if text is None and isinstance(message.get("refusal"), str):
        text, finish = message["refusal"], "refusal"
    if text is None and not calls:
        again = finish not in ("length", "content_filter")  # those come out the same each time
        return Failure(f"the answer has no text, finish reason {finish}", "spoiled", again)
    return {"text": text or "", "finish": finish, "tool_calls": calls, "model": str(payload.get("model") or "")}


def _joined(content: object) -> str | None:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else None


@dataclass
class Streamed:
    """What has come of one stream."""

    parts: list[str] = field(default_factory=list)
    finish: str = ""
    """why the model stopped; empty until it says so"""
    payload: dict[str, Any] = field(default_factory=dict)
    """the last chunk that named the usage"""
    model: str = ""
    failure: Failure | None = None

    @property
    def text(self) -> str:
        """All pieces so far."""
        return "".join(self.parts)

    def take(self, chunk: object) -> Iterator[str]:
        """Keep a chunk, and yield its text where it has some."""
        if not isinstance(chunk, dict):
            return
        self.model = str(chunk.get("model") or self.model)
        if isinstance(chunk.get("usage"), dict):
            self.payload = chunk
        for choice in chunk.get("choices") or ():
            self.finish = str(choice.get("finish_reason") or self.finish)
            piece = (choice.get("delta") or {}).get("content")
            if isinstance(piece, str) and piece:
                self.parts.append(piece)
                yield piece


def tokens_used(payload: object) -> tuple[int, int] | None:
    """Return the tokens of prompt and answer that a completion names; None if it names none."""
    usage = payload.get("usage") if isinstance(payload, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    return counts[0], counts[1]  # type: ignore[return-value]


def most_prompt_tokens(body: dict[str, Any], image_tokens: int) -> int:
    """Return an upper bound of a prompt's tokens: its bytes, as a token holds at least one, and so much per image."""
    images, messages = 0, []
    for message in body["messages"]:
        parts = message.get("content")
        if isinstance(parts, list):
            texts = [part for part in parts if not (isinstance(part, dict) and part.get("type") == "image_url")]
            images += len(parts) - len(texts)
            message = {**message, "content": texts}
        messages.append(message)
    rest = [body.get(name) for name in ("tools", "functions", "response_format")]
    size = len(json.dumps([messages, rest], ensure_ascii=False, default=str).encode("utf-8", "surrogatepass"))
    return size + _MESSAGE_TOKENS * (len(messages) + 1) + image_tokens * images


@dataclass(eq=False)
class Session:
    """What one event loop has of an endpoint: a client, and the slots of the requests in flight."""

    client: Any
    slots: asyncio.Semaphore
    guard: AsyncGenerator[None, None] | None = None


class Sessions:
    """The clients of one endpoint, one per event loop, and its key, which nothing shows."""

    def __init__(self, sdk: ModuleType, url: str, key: str, concurrency: int, timeout: float) -> None:
        self._sdk, self._url, self._key = sdk, url, key
        self._concurrency, self._timeout = concurrency, timeout
        self._open: dict[asyncio.AbstractEventLoop, Session] = {}

    @property
    def shown_url(self) -> str:
        """The URL without user, password and query."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def redact(self, text: str) -> str:
        """Return `text` without the key: endpoints repeat it in their messages."""
        return text.replace(self._key, "***") if self._key else text

    async def current(self) -> Session:
        """Return the session of the running loop, opened on first use."""
        loop = asyncio.get_running_loop()
        session = self._open.get(loop)
        if session is None:
            client = self._sdk.AsyncOpenAI(
                api_key=self._key or "none", base_url=self._url, max_retries=0, timeout=self._timeout
            )
            session = self._open[loop] = Session(client, asyncio.Semaphore(self._concurrency))
            session.guard = self._guard(loop, client)
            await anext(session.guard)
            await self._forget_dead()
        return session

    async def _guard(self, loop: asyncio.AbstractEventLoop, client: Any) -> AsyncGenerator[None, None]:
        """Hold a client open until the loop ends: a loop that shuts down ends its generators first, and so this."""
        try:
            yield
        finally:
            self._open.pop(loop, None)
            await client.close()

    async def _forget_dead(self) -> None:
        """Let go of the clients of loops that were closed without a shutdown; their connections are gone with them."""
        for loop in [loop for loop in list(self._open) if loop.is_closed()]:
            session = self._open.pop(loop)
            with contextlib.suppress(RuntimeError):  # "Event loop is closed", said once and here
                await session.client.close()

    async def aclose(self) -> None:
        """Close the client of the running loop, if it has one."""
        session = self._open.get(asyncio.get_running_loop())
        if session is not None and session.guard is not None:
            await session.guard.aclose()
        await self._forget_dead()
