"""Language models behind one interface: any OpenAI-compatible endpoint, or a Python function that needs no key.

A chat is a sequence of OpenAI-style messages, `{"role": ..., "content": ...}`, whose content is a string or a list of
parts. A model answers it with a `Reply`; the sample index tells repeated questions apart, in the cache and elsewhere.
Nothing here logs, and no error or `repr` holds a key.
"""

from __future__ import annotations

import asyncio
import base64
import os
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mindworks.agents._endpoint import (
    Failure,
    Sessions,
    Streamed,
    backoff,
    failed,
    most_prompt_tokens,
    read,
    tokens_used,
)
from mindworks.agents._endpoint import ModelError as ModelError
from mindworks.agents.budget import Account, Amount, Budget, Reservation
from mindworks.agents.cache import Cache, digest
from mindworks.agents.pricing import Price, price_of
from mindworks.errors import import_extra, require

Chat = Sequence[dict[str, Any]]

OPENAI_URL = "https://api.openai.com/v1"
ANSWER_TOKENS = 4096
"""the most tokens of an answer where a budget of tokens or money needs a bound and no setting gives one"""
_SHOWN = 300  # characters of an endpoint's message in an error
_PLACE = "/chat/completions"
_NO_TIMEOUT: Any = {"timeout": None}  # of its steps: one timer around the request is cheaper than six inside it
_TAKEN = ("messages", "model", "stream", "stream_options")


@dataclass(frozen=True)
class Usage:
    """Tokens that one answer took."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total(self) -> int:
        """Tokens of prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Reply:
    """One answer."""

    text: str
    usage: Usage
    cached: bool = False
    """whether no call was made for it: it came from the cache, or from the same question asked beside it"""
    finish: str = "stop"
    """why the model stopped, in the endpoint's words"""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """calls of tools that the model asks for, as the endpoint gave them"""
    model: str = ""
    """the model that answered, in the endpoint's words"""


class ChatModel(Protocol):
    """What a node, a member or a decision asks of a language model."""

    name: str

    async def chat(self, messages: Chat, *, sample: int = 0, **settings: Any) -> Reply:
        """Answer `messages`; another `sample` is another draw."""
        ...


def image_part(image: bytes | str, media_type: str = "image/png") -> dict[str, Any]:
    """Return the part of a message's content that shows an image: its bytes, or the URL it stands at."""
    if isinstance(image, str):
        return {"type": "image_url", "image_url": {"url": image}}
    require(len(image) > 0, "image must hold bytes, got none")
    data = base64.b64encode(image).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}


class FunctionModel:
    """A model that is a Python function of the messages and the sample index: no key, no network.

    `respond(messages, sample)` returns the text or an awaitable of it. `calls` counts how often it was asked; a cached
    answer asks nobody, and entries are found by `name`. Its tokens are words. A `budget` may limit calls only, since
    how long an answer gets is known afterwards.
    """

    def __init__(
        self,
        name: str,
        respond: Callable[[Chat, int], str | Awaitable[str]],
        cache: Cache | None = None,
        budget: Budget | None = None,
    ) -> None:
        bounded = budget is not None and budget.bounds_answers
        require(not bounded, "budget of a FunctionModel may limit calls only, got one of tokens or usd")
        self.name, self.respond, self.calls = name, respond, 0
        self.cache, self.budget, self.account = cache, budget, Account()

    async def chat(self, messages: Chat, *, sample: int = 0, **settings: Any) -> Reply:
        """Answer `messages`; another `sample` is another draw. `settings` only tell cached answers apart."""
        _check_chat(messages, sample)
        request = _request(self.name, "", messages, sample, settings)
        return await _remembered(self, request, lambda: self._ask(messages, sample))

    async def _ask(self, messages: Chat, sample: int) -> Reply:
        held = None if self.budget is None else await self.budget.reserve(Amount(calls=1))
        try:
            self.calls += 1
            said = self.respond(messages, sample)
            text = said if isinstance(said, str) else await said
            require(isinstance(text, str), f"respond of model {self.name} must return a string, got {text!r}")
        except BaseException:
            if held is not None:
                held.release()
            raise
        usage = Usage(sum(len(_text(message).split()) for message in messages), len(text.split()))
        if held is not None:
            held.settle(Amount(calls=1, tokens=usage.total))
        self.account.add(requests=1, answers=1, prompt_tokens=usage.prompt_tokens)
        self.account.add(completion_tokens=usage.completion_tokens)
        return Reply(text, usage, model=self.name)


class LLM:
    """A model behind an OpenAI-compatible endpoint, asked through the official SDK.

    `base_url` is the endpoint, else OPENAI_BASE_URL, else OpenAI's. `api_key` is the key, else OPENAI_API_KEY; OpenAI's
    own endpoint needs one, others may not. `sampling` holds settings for each request, such as `temperature` or
    `max_tokens`; `chat` may change them; unknown ones are sent as they are. A `seed` is sent as seed + sample.

    At most `concurrency` requests are in flight in an event loop; each ends after `timeout` seconds. Up to `retries`
    repetitions follow no connection, a time-out, a cut or empty answer, and the statuses 408, 409, 429 and 5xx, after
    the seconds that `retry-after` asks for, or `backoff` seconds doubled each time. A wait of more than `patience`
    seconds is an error, and so is every other status: a missing or refused key is never tried again.

    A `budget` is reserved with upper bounds: a token per byte of the prompt, `image_tokens` per image, and for the
    answer `max_completion_tokens`, `max_tokens`, or else 4,096, which is then sent as `max_tokens`. `price` is that of
    `PRICES` unless given; without one, tokens are counted and dollars are not. `account` says what was used.

    `async with` or `aclose` closes the connections of the running loop; `asyncio.run` closes them by itself at its end.
    Raises InputError for bad input, ModelError for a failed call, BudgetExceeded.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        cache: Cache | str | os.PathLike[str] | None = None,
        budget: Budget | None = None,
        concurrency: int = 32,
        timeout: float = 60.0,
        retries: int = 5,
        backoff: float = 0.5,
        patience: float = 120.0,
        price: Price | None = None,
        image_tokens: int = 4096,
        **sampling: Any,
    ) -> None:
        require(bool(model), f"model must be a name, got {model!r}")
        require(concurrency >= 1, f"concurrency must be at least 1, got {concurrency}")
        require(timeout > 0, f"timeout must be above 0 seconds, got {timeout}")
        for name, value in (("retries", retries), ("backoff", backoff), ("patience", patience)):
            require(value >= 0, f"{name} must be at least 0, got {value}")
        self.name = model
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).rstrip("/")
        key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        known = bool(key) or self.base_url != OPENAI_URL
        require(known, f"api_key must be given for {OPENAI_URL}, or be in OPENAI_API_KEY, got none")
        plain = key.isascii() and key.isprintable() and " " not in key
        require(plain, f"api_key must be one word of ASCII, got {len(key)} characters with others among them")
        self.cache = cache if cache is None or isinstance(cache, Cache) else Cache(cache)
        self.budget, self.account, self.sampling = budget, Account(), sampling
        self.timeout, self.retries, self.backoff, self.patience = timeout, retries, backoff, patience
        self.price = price if price is not None else price_of(model)
        self.image_tokens = image_tokens
        self._sdk = import_extra("openai", "agents")
        self._sessions = Sessions(self._sdk, self.base_url, key, concurrency, timeout)
        self._body([], 0, {})  # bad settings are refused here
        if self.price is None and budget is not None and budget.limit.pico is not None:
            warnings.warn(f"no price is known for {model}: its dollars are not counted; pass price", stacklevel=2)

    def __repr__(self) -> str:
        return f"LLM({self.name!r}, base_url={self._sessions.shown_url!r})"

    async def __aenter__(self) -> LLM:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        await self._sessions.aclose()

    async def chat(self, messages: Chat, *, sample: int = 0, **settings: Any) -> Reply:
        """Answer `messages`; another `sample` is another draw. `settings` replace those of the constructor."""
        _check_chat(messages, sample)
        body = self._body(messages, sample, settings)
        return await _remembered(self, self._request(body, sample), lambda: self._ask(body))

    async def stream(self, messages: Chat, *, sample: int = 0, **settings: Any) -> AsyncIterator[str]:
        """Yield the pieces of the answer's text as they come; a cached answer is one piece.

        A request that fails before its first piece is repeated, as in `chat`; a later failure raises ModelError. Only
        an answer that ended is cached. Tool calls are not part of it.
        """
        _check_chat(messages, sample)
        body = self._body(messages, sample, settings)
        key = digest(self._request(body, sample))
        found = None if self.cache is None else self.cache.get(key)
        if found is not None:
            self.account.add(cached=1)
            yield found["text"]
            return
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        tried = 0
        while True:
            state = Streamed()
            async with aclosing(self._stream_once(body, state)) as pieces:
                async for piece in pieces:
                    yield piece
            if state.failure is None:
                break
            if state.parts:
                raise self._error(state.failure, tried + 1)
            await self._wait(state.failure, tried, body)
            tried += 1
        if self.cache is not None and state.parts:
            usage = self._usage(state.payload, body, state.text)
            self.cache.put(key, _entry(Reply(state.text, usage, finish=state.finish, model=state.model)))

    # -- a request ----------------------------------------------------------------------------------------------------

    def _error(self, failure: Failure, requests: int) -> ModelError:
        """The error that ends a call; endpoints repeat keys in their messages, so it is cut out before the rest is."""
        said = self._sessions.redact(failure.text)[:_SHOWN]
        times = "1 request" if requests == 1 else f"{requests} requests"
        where = f"model {self.name} at {self._sessions.shown_url}"
        return ModelError(f"{where}: {said} (after {times})", failure.status, requests)

    def _body(self, messages: Chat, sample: int, settings: dict[str, Any]) -> dict[str, Any]:
        """What is sent."""
        merged = {name: value for name, value in {**self.sampling, **settings}.items() if value is not None}
        merged |= merged.pop("extra_body", {})
        for name in _TAKEN:
            require(name not in merged, f"{name} is no setting, got {name}={merged.get(name)!r}")
        require(merged.get("n", 1) == 1, f"n must be 1, got {merged.get('n')}: ask for sample=0, 1, ... instead")
        if "seed" in merged:
            merged["seed"] += sample
        if self.budget is not None and self.budget.bounds_answers and not _answer_bound(merged):
            merged["max_tokens"] = ANSWER_TOKENS
        return {"model": self.name, "messages": list(messages), **merged}

    def _request(self, body: dict[str, Any], sample: int) -> dict[str, Any]:
        settings = {name: value for name, value in body.items() if name not in _TAKEN}
        return _request(self.name, self.base_url, body["messages"], sample, settings)

    async def _ask(self, body: dict[str, Any]) -> Reply:
        tried = 0
        while True:
            outcome = await self._attempt(body)
            if isinstance(outcome, Reply):
                return outcome
            await self._wait(outcome, tried, body)
            tried += 1

    async def _wait(self, failure: Failure, tried: int, body: dict[str, Any]) -> None:
        """Sleep until the request may be repeated, or raise where it must not be."""
        seconds = backoff(self.backoff, tried, body) if failure.wait is None else failure.wait
        if not failure.again or tried >= self.retries or seconds > self.patience:
            raise self._error(failure, tried + 1)
        await asyncio.sleep(seconds)
        self.account.add(retries=1)

    async def _attempt(self, body: dict[str, Any]) -> Reply | Failure:
        """Send `body` once, with a slot and a reservation that are both given back whatever happens."""
        session = await self._sessions.current()
        async with session.slots:
            held = await self._reserve(body)
            self.account.add(requests=1)
            payload: object = None
            said: dict[str, Any] | Failure = Failure("cancelled", "lost")
            try:
                async with asyncio.timeout(self.timeout):  # the whole request; the SDK's own bounds each step of it
                    payload = await session.client.post(_PLACE, cast_to=object, body=body, options=_NO_TIMEOUT)
                said = read(payload)
            except Exception as error:
                said = failed(error, self._sdk)
            finally:
                usage = self._close(held, said, payload, body)
        return said if isinstance(said, Failure) else Reply(usage=usage, **said)

    async def _stream_once(self, body: dict[str, Any], state: Streamed) -> AsyncGenerator[str, None]:
        """Yield the pieces of one request; `state` says what became of it."""
        session = await self._sessions.current()
        async with session.slots:
            held = await self._reserve(body)
            self.account.add(requests=1)
            chunks = None
            try:
                kind = self._sdk.AsyncStream[object]
                chunks = await session.client.post(_PLACE, cast_to=object, body=body, stream=True, stream_cls=kind)
                async for chunk in chunks:
                    for piece in state.take(chunk):
                        yield piece
                if not state.finish:
                    state.failure = Failure(f"the stream ended early, after {len(state.text)} characters", "lost")
            except Exception as error:
                state.failure = failed(error, self._sdk)
            finally:
                self._close_stream(held, state, body)
                if chunks is not None:
                    await chunks.close()

    # -- what it takes ------------------------------------------------------------------------------------------------

    async def _reserve(self, body: dict[str, Any]) -> Reservation | None:
        """Hold the most that `body` can take."""
        if self.budget is None:
            return None
        if not self.budget.bounds_answers:
            return await self.budget.reserve(Amount(calls=1))
        prompt, answer = most_prompt_tokens(body, self.image_tokens), _answer_bound(body)
        return await self.budget.reserve(Amount(1, prompt + answer, self._cost(prompt, answer)))

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        return 0 if self.price is None else self.price.cost(prompt_tokens, completion_tokens)

    def _usage(self, payload: object, body: dict[str, Any], text: str) -> Usage:
        """The tokens of an answer: what the endpoint names, else upper bounds of what was sent and what came."""
        named = tokens_used(payload)
        if named is not None:
            return Usage(*named)
        return Usage(most_prompt_tokens(body, self.image_tokens), len(text.encode("utf-8", "surrogatepass")))

    def _close(
        self, held: Reservation | None, said: dict[str, Any] | Failure, payload: object, body: dict[str, Any]
    ) -> Usage:
        """End a request: answers and `spoiled` ones are paid for, `lost` ones may have been, `refused` ones not."""
        failure = said if isinstance(said, Failure) else None
        usage = self._usage(payload, body, "" if isinstance(said, Failure) else said["text"])
        if failure is not None and failure.fate != "spoiled":
            self.account.add(lost=int(failure.fate == "lost"))
            if held is not None:
                held.lose() if failure.fate == "lost" else held.release()
            return usage
        pico = self._cost(usage.prompt_tokens, usage.completion_tokens)
        unknown = failure is not None and tokens_used(payload) is None
        if held is not None:  # an answer nobody can read, of unknown length, costs all that was held for it
            held.settle(held.amount if unknown else Amount(1, usage.total, pico))
        self.account.add(answers=int(failure is None), spoiled=int(failure is not None))
        self.account.add(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
        self.account.add(pico=pico, unpriced=int(self.price is None))
        return usage

    def _close_stream(self, held: Reservation | None, state: Streamed, body: dict[str, Any]) -> Usage:
        """End a stream; of one that was cut, or that its reader left, what came is paid for."""
        if state.finish and state.failure is None:
            return self._close(held, {"text": state.text}, state.payload, body)
        failure = state.failure or Failure("left by its reader", "lost")
        if not state.parts:
            return self._close(held, failure, None, body)
        came = self._usage(state.payload, body, state.text)
        counted = {"usage": {"prompt_tokens": came.prompt_tokens, "completion_tokens": came.completion_tokens}}
        return self._close(held, replace(failure, fate="spoiled"), counted, body)


def _check_chat(messages: Chat, sample: int) -> None:
    listed = isinstance(messages, list | tuple) and len(messages) > 0
    require(listed, f"messages must be a list of messages, at least one, got {messages!r:.80}")
    for message in messages:
        fine = isinstance(message, dict) and isinstance(message.get("role"), str)
        require(fine, f"messages must be dicts with a role, got {message!r:.80}")
    require(isinstance(sample, int) and sample >= 0, f"sample must be an index of at least 0, got {sample!r}")


def _answer_bound(settings: dict[str, Any]) -> int:
    return int(settings.get("max_completion_tokens") or settings.get("max_tokens") or 0)


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))


def _request(name: str, url: str, messages: Chat, sample: int, settings: dict[str, Any]) -> dict[str, Any]:
    """All that an answer depends on; `version` makes old entries misses when what it holds changes."""
    asked = {"model": name, "base_url": url, "messages": list(messages), "settings": settings, "sample": sample}
    return {"version": 1, **asked}


async def _remembered(
    model: FunctionModel | LLM, request: dict[str, Any], ask: Callable[[], Awaitable[Reply]]
) -> Reply:
    """The answer to `request` from the model's cache, if it has one, else from `ask`."""
    if model.cache is None:
        return await ask()

    async def make() -> dict[str, Any]:
        return _entry(await ask())

    entry, found = await model.cache.once(digest(request), make)
    model.account.add(cached=int(found))
    return _reply(entry, found)


def _entry(reply: Reply) -> dict[str, Any]:
    return {**{name: value for name, value in vars(reply).items() if name != "cached"}, "usage": vars(reply.usage)}


def _reply(entry: dict[str, Any], cached: bool) -> Reply:
    usage, calls = Usage(**entry["usage"]), tuple(entry["tool_calls"])
    return Reply(**{**entry, "usage": usage, "tool_calls": calls, "cached": cached})
