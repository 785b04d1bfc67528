"""Language models through the official SDK, against a real server on loopback that fails to order."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import pytest
from faulty_server import USAGE, Act, FaultyServer, completion, refusal

from mindworks.agents.budget import Amount, Budget, BudgetExceeded
from mindworks.agents.cache import Cache
from mindworks.agents.models import LLM, ChatModel, FunctionModel, ModelError, Reply, Usage, image_part
from mindworks.agents.pricing import Price
from mindworks.errors import InputError

pytest.importorskip("openai")

KEY = "sk-very-secret-word"
HELLO = [{"role": "user", "content": "hello there"}]


def model(server: FaultyServer, **options: Any) -> LLM:
    return LLM("m", **{"base_url": server.url, "api_key": KEY, "backoff": 0.001, "timeout": 10.0, **options})


def ask(server: FaultyServer, question: Callable[[LLM], Awaitable[Any]], **options: Any) -> tuple[LLM, Any]:
    """Run `question(model)` in a loop of its own; the model, and what came of it or the error."""

    async def main() -> tuple[LLM, Any]:
        async with model(server, **options) as llm:
            try:
                return llm, await question(llm)
            except (ModelError, BudgetExceeded) as error:
                return llm, error

    return asyncio.run(main(), debug=False)


async def hello(llm: LLM) -> Reply:
    return await llm.chat(HELLO)


async def streamed(llm: LLM) -> list[str]:
    return [piece async for piece in llm.stream(HELLO)]


@pytest.fixture(autouse=True)
def no_noise(caplog: pytest.LogCaptureFixture):
    """No test leaves a task's error behind, a warning of an open connection, or the key in a log."""
    caplog.set_level(logging.DEBUG)
    yield
    said = [(record.name, record.levelno, record.getMessage()) for record in caplog.get_records("call")]
    assert [line for line in said if KEY in line[2]] == []
    assert [line for line in said if line[0] == "asyncio" and line[1] > logging.INFO] == []


# -- one question -----------------------------------------------------------------------------------------------------


def test_an_answer_and_what_it_took() -> None:
    with FaultyServer() as server:
        llm, reply = ask(server, hello, temperature=0.5, max_tokens=7, price=Price(1.0, 2.0))
        assert reply == Reply("to hello there", Usage(9, 2), model="m")
        assert reply.usage.total == 11
        assert server.requests[0]["body"] == {"model": "m", "messages": HELLO, "temperature": 0.5, "max_tokens": 7}
        assert server.requests[0]["headers"]["authorization"] == f"Bearer {KEY}"
        assert llm.account.snapshot() == {
            "requests": 1,
            "answers": 1,
            "spoiled": 0,
            "cached": 0,
            "retries": 0,
            "lost": 0,
            "prompt_tokens": 9,
            "completion_tokens": 2,
            "unpriced": 0,
            "usd": 13e-6,
        }
        assert server.quiet()


def test_settings_of_a_call_replace_those_of_the_model_and_a_seed_follows_the_sample() -> None:
    with FaultyServer() as server:

        async def question(llm: LLM) -> None:
            await llm.chat(HELLO, sample=2, temperature=None, top_p=0.5, extra_body={"top_k": 3})

        ask(server, question, temperature=1.0, seed=10)
        sent = server.requests[0]["body"]
        assert sent == {"model": "m", "messages": HELLO, "seed": 12, "top_p": 0.5, "top_k": 3}


def test_images_and_tools_pass_through() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    chat = [{"role": "user", "content": [{"type": "text", "text": "what?"}, image_part(b"\x89PNG"), image_part("u")]}]
    with FaultyServer(Act(body=completion(None, finish="tool_calls", tool_calls=[call]))) as server:

        async def question(llm: LLM) -> Reply:
            return await llm.chat(chat, tools=[tool])

        _, reply = ask(server, question)
        assert (reply.text, reply.finish, reply.tool_calls) == ("", "tool_calls", (call,))
        sent = server.requests[0]["body"]
        assert sent["tools"] == [tool]
        assert sent["messages"][0]["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBORw=="
        assert sent["messages"][0]["content"][2]["image_url"]["url"] == "u"


@pytest.mark.parametrize(
    ("body", "text", "finish"),
    [
        (completion([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab", "stop"),
        (completion(None, refusal="I will not"), "I will not", "refusal"),
        (completion("half", finish="length"), "half", "length"),
        (completion("x", usage=None), "x", "stop"),
    ],
)
def test_odd_answers_are_answers(body: Any, text: str, finish: str) -> None:
    with FaultyServer(Act(body=body)) as server:
        _, reply = ask(server, hello)
        assert (reply.text, reply.finish) == (text, finish)
        # Where the endpoint names no tokens, the bytes of prompt and answer bound them.
        assert reply.usage == Usage(9, 2) or (reply.usage.completion_tokens == 1 and reply.usage.prompt_tokens > 11)


def test_another_model_than_the_one_asked_for_is_named_and_an_unknown_one_is_an_error() -> None:
    missing = refusal(404, "The model `m` does not exist", code="model_not_found")
    with FaultyServer(Act(body=completion("x", model="other")), missing) as server:
        assert ask(server, hello)[1].model == "other"
        _, error = ask(server, hello)
        assert f"model m at {server.url}: status 404: The model `m` does not exist (after 1 request)" == str(error)
        assert error.status == 404


# -- failures ---------------------------------------------------------------------------------------------------------

EMPTY = {**completion(), "choices": []}


@pytest.mark.parametrize(
    ("act", "fate"),
    [
        (refusal(429), "refused"),
        (refusal(500), "refused"),
        (refusal(503), "refused"),
        (refusal(408), "refused"),
        (Act(body={"error": {"message": "overloaded"}}), "refused"),
        (Act(delay=1.0), "lost"),
        (Act(body=completion("abc"), keep=0.5), "lost"),
        (Act(body=b'{"choices": [{"ind'), "spoiled"),
        (Act(body=b"<html>busy</html>", headers={"content-type": "text/html"}), "spoiled"),
        (Act(body=EMPTY), "spoiled"),
        (Act(body=completion(None)), "spoiled"),
        (Act(body=b"[]"), "spoiled"),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again_and_paid_for_as_it_ended(act: Act, fate: str) -> None:
    budget = Budget(calls=5, tokens=100_000)
    with FaultyServer(act) as server:
        llm, reply = ask(server, hello, budget=budget, max_tokens=2000, timeout=0.3 if act.delay else 10.0)
        assert reply.text == "to hello there"
        account = llm.account
        assert (account.requests, account.retries, account.answers) == (2, 1, 1)
        assert (account.lost, account.spoiled) == (int(fate == "lost"), int(fate == "spoiled"))
        assert budget.spent.calls == 1 + (fate == "spoiled")
        assert budget.lost.calls == int(fate == "lost")
        named = isinstance(act.body, dict) and "usage" in act.body
        if fate != "spoiled":
            assert budget.spent.tokens == 11
        elif named:
            assert budget.spent.tokens == 22
        else:  # an answer nobody can read costs all that was held for it
            assert budget.spent.tokens > 11 + 2000 + len("hello there")
        assert budget.reserved == Amount()
        assert server.quiet()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (refusal(401, f"Incorrect API key provided: {KEY}"), r"status 401: Incorrect API key provided: \*\*\* "),
        (refusal(403, "not yours"), "status 403: not yours"),
        (refusal(400, "context too long"), "status 400: context too long"),
        (refusal(429, "You exceeded your quota", code="insufficient_quota"), "status 429: You exceeded your quota"),
        (refusal(500, "broken", headers={"x-should-retry": "false"}), "status 500: broken"),
        (refusal(429, "later", headers={"retry-after": "121"}), "status 429: later"),
        (Act(body=completion(None, finish="length")), "the answer has no text, finish reason length"),
        (Act(body=completion(None, finish="content_filter")), "finish reason content_filter"),
    ],
    ids=str,
)
def test_what_cannot_pass_is_tried_once(act: Act, words: str) -> None:
    with FaultyServer(act) as server:
        llm, error = ask(server, hello)
        with pytest.raises(ModelError, match=rf"model m at {server.url}: .*{words}.*\(after 1 request\)"):
            raise error
        assert len(server.requests) == llm.account.requests == 1
        assert llm.account.retries == 0
        chain = [error, error.__cause__, error.__context__]
        assert KEY not in "".join(map(repr, [*chain, llm, vars(error)]))


def test_a_key_is_cut_out_before_a_long_message_is_cut() -> None:
    with FaultyServer(refusal(401, "x" * 290 + KEY)) as server:
        assert "sk-" not in str(ask(server, hello)[1])


def test_after_the_last_repetition_the_error_says_so() -> None:
    with FaultyServer(choose=lambda number, body: refusal(503, "busy")) as server:
        llm, error = ask(server, hello, retries=2)
        assert str(error) == f"model m at {server.url}: status 503: busy (after 3 requests)"
        assert (error.status, error.requests, llm.account.retries) == (503, 3, 2)


def test_no_server_is_no_connection() -> None:
    with FaultyServer() as server:
        pass
    llm, error = ask(server, hello, retries=1)
    assert "no connection: ConnectError (after 2 requests)" in str(error)
    assert llm.account.lost == 0


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "50"}, 0.25),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_wait_that_the_endpoint_asks_for_is_kept(headers: dict[str, str], least: float) -> None:
    with FaultyServer(refusal(429, headers=headers)) as server:
        ask(server, hello)
        first, second = server.requests
        assert second["time"] - first["time"] >= least


def test_a_wait_until_a_date_is_kept() -> None:
    with FaultyServer(refusal(429, headers={"retry-after": formatdate(time.time() + 100, usegmt=True)})) as server:
        _, error = ask(server, hello, patience=50.0)
        assert "status 429" in str(error)
        assert len(server.requests) == 1


def test_an_answer_that_trickles_ends_at_the_timeout() -> None:
    """The SDK's own timeout is one of single reads: pieces in time would keep it going."""
    with FaultyServer(Act(trickle=0.05)) as server:
        start = time.monotonic()
        _, error = ask(server, hello, timeout=0.2, retries=0)
        assert "timed out (after 1 request)" in str(error)
        assert time.monotonic() - start < 4


# -- many questions ---------------------------------------------------------------------------------------------------


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    async def many(llm: LLM) -> list[Reply]:
        return await asyncio.gather(*(llm.chat([{"role": "user", "content": f"{i}"}]) for i in range(20)))

    with FaultyServer(latency=0.05) as server:
        _, replies = ask(server, many, concurrency=4)
        assert [reply.text for reply in replies] == [f"to {i}" for i in range(20)]
        assert 2 <= server.most <= 4
        assert server.quiet()


def test_a_budget_is_spent_to_the_last_call_and_not_beyond() -> None:
    async def many(llm: LLM) -> list[Any]:
        chats = ([{"role": "user", "content": f"{i}"}] for i in range(30))
        return await asyncio.gather(*(llm.chat(chat) for chat in chats), return_exceptions=True)

    budget = Budget(calls=12)
    with FaultyServer(choose=lambda number, body: refusal(500) if number % 3 == 2 else None) as server:
        llm, ends = ask(server, many, budget=budget)
        assert sum(isinstance(end, Reply) for end in ends) == 12 == server.answered == budget.spent.calls
        assert sum(isinstance(end, BudgetExceeded) for end in ends) == 18
        assert (budget.reserved, llm.account.answers) == (Amount(), 12)


def test_tokens_and_money_are_held_by_upper_bounds_and_settled_exactly() -> None:
    budget = Budget(tokens=10_000, usd=1.0)
    with FaultyServer(None, None) as server:
        llm, _ = ask(server, hello, budget=budget, price=Price(1.0, 10.0))
        assert server.requests[0]["body"]["max_tokens"] == 4096  # an answer needs a bound where a budget has one
        assert budget.spent == Amount(1, 11, 29_000_000)
        assert llm.account.usd == 29e-6 == budget.spent.usd
        _, error = ask(server, hello, budget=budget, price=Price(1.0, 10.0), max_tokens=9_990)
        assert "budget of tokens: the limit is 10000, 11 spent" in str(error)
        _, error = ask(server, hello, budget=Budget(usd=0.001), price=Price(1.0, 10.0), max_completion_tokens=100)
        assert "budget of usd: the limit is 0.001 US dollars" in str(error)
        assert len(server.requests) == 1


def test_an_unknown_price_counts_tokens_and_says_so_once() -> None:
    budget = Budget(usd=1.0)
    with FaultyServer() as server, pytest.warns(UserWarning, match="no price is known for m: its dollars are not"):
        llm, reply = ask(server, hello, budget=budget)
    assert reply.text == "to hello there"
    assert (budget.spent, llm.account.unpriced, llm.account.usd) == (Amount(1, 11, 0), 1, 0.0)


def test_cancelled_questions_leave_no_reservation_slot_connection_or_task() -> None:
    budget = Budget(calls=100, tokens=10**6)

    async def question(llm: LLM) -> tuple[Any, int]:
        chats = ([{"role": "user", "content": f"{i}"}] for i in range(12))
        tasks = [asyncio.create_task(llm.chat(chat)) for chat in chats]
        while len(server.requests) < 3:
            await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        assert (budget.spent, budget.reserved) == (Amount(), Amount())
        assert budget.lost.calls == llm.account.lost == 3
        return await llm.chat(HELLO), len(asyncio.all_tasks())

    with FaultyServer(*[Act(delay=1)] * 3) as server:
        _, (reply, tasks) = ask(server, question, budget=budget, concurrency=3)
        assert (reply.text, tasks) == ("to hello there", 1)
        assert server.quiet()


# -- the cache --------------------------------------------------------------------------------------------------------


def test_the_same_question_is_asked_once_and_any_difference_asks_anew(tmp_path) -> None:
    path = tmp_path / "answers.sqlite"

    async def question(llm: LLM) -> list[Reply]:
        same = await asyncio.gather(*(llm.chat(HELLO) for _ in range(5)))
        tools = [{"type": "function", "function": {"name": "f"}}]
        other = [
            await llm.chat(HELLO, sample=1),
            await llm.chat(HELLO, temperature=0.1),
            await llm.chat(HELLO, tools=tools),
            await llm.chat([{"role": "system", "content": "s"}, *HELLO]),
            await llm.chat([{"role": "user", "content": [{"type": "text", "text": "hello there"}]}]),
        ]
        return [*same, *other]

    with FaultyServer() as server:
        llm, replies = ask(server, question, cache=path)
        assert [reply.cached for reply in replies] == [False, True, True, True, True] + [False] * 5
        assert len({reply.text for reply in replies[:5]}) == 1
        assert (len(server.requests), llm.account.cached, llm.account.answers) == (6, 4, 6)
        _, again = ask(server, question, cache=Cache(path))
        assert all(reply.cached for reply in again)
        assert [reply.text for reply in again] == [reply.text for reply in replies]
        assert len(server.requests) == 6
        with FaultyServer() as elsewhere:
            assert not ask(elsewhere, hello, cache=path)[1].cached  # another base URL


def test_a_cached_answer_is_whole_and_costs_nothing() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    cache, budget = Cache(), Budget(calls=1)
    with FaultyServer(Act(body=completion("x", finish="tool_calls", tool_calls=[call], model="m-1"))) as server:
        _, first = ask(server, hello, cache=cache, budget=budget)
        _, second = ask(server, hello, cache=cache, budget=budget)
    assert second == Reply("x", Usage(9, 2), True, "tool_calls", (call,), "m-1")
    assert (first.text, first.cached, budget.spent.calls) == ("x", False, 1)


def test_failures_are_not_cached() -> None:
    cache = Cache()
    with FaultyServer(refusal(400)) as server:
        assert isinstance(ask(server, hello, cache=cache)[1], ModelError)
        assert ask(server, hello, cache=cache)[1].text == "to hello there"
    assert len(cache) == 1


# -- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_comes_in_pieces_and_is_cached_whole() -> None:
    cache, budget = Cache(), Budget(calls=5, tokens=50_000)
    with FaultyServer() as server:
        llm, pieces = ask(server, streamed, cache=cache, budget=budget)
        assert pieces == ["to", " hello", " there"]
        assert (budget.spent, budget.reserved, llm.account.answers) == (Amount(1, 11), Amount(), 1)
        _, reply = ask(server, hello, cache=cache, budget=budget)
        assert (reply.text, reply.cached, reply.usage) == ("to hello there", True, Usage(9, 2))
        assert ask(server, streamed, cache=cache, budget=budget)[1] == ["to hello there"]
        assert len(server.requests) == 1
        assert server.quiet()


@pytest.mark.parametrize("act", [refusal(500), Act(pieces=0), refusal(429, headers={"retry-after": "0.01"})], ids=str)
def test_a_stream_that_fails_before_its_first_piece_is_tried_again(act: Act) -> None:
    with FaultyServer(act) as server:
        llm, pieces = ask(server, streamed)
        assert pieces == ["to", " hello", " there"]
        assert (llm.account.retries, llm.account.answers) == (1, 1)


@pytest.mark.parametrize("sound", [False, True])
def test_a_stream_that_is_cut_is_an_error_paid_for_and_not_cached(sound: bool) -> None:
    cache, budget, got = Cache(), Budget(calls=5, tokens=50_000), []

    async def question(llm: LLM) -> None:
        async for piece in llm.stream(HELLO):
            got.append(piece)

    with FaultyServer(Act(pieces=2, sound=sound)) as server:
        llm, error = ask(server, question, cache=cache, budget=budget)
        assert isinstance(error, ModelError)
        assert got == ["to", " hello"]
        assert (len(server.requests), len(cache), llm.account.spoiled) == (1, 0, 1)
        assert budget.spent.calls == 1
        assert budget.spent.tokens > len("to hello")
        assert budget.reserved == Amount()
        assert server.quiet()


def test_a_stream_that_its_reader_leaves_holds_nothing() -> None:
    budget = Budget(calls=5)

    async def question(llm: LLM) -> str:
        pieces = llm.stream(HELLO)
        first = await anext(pieces)
        assert budget.reserved == Amount(1)
        await pieces.aclose()  # type: ignore[attr-defined]
        assert (budget.reserved, budget.spent) == (Amount(), Amount(1, budget.spent.tokens))
        return first + (await llm.chat(HELLO)).text

    with FaultyServer() as server:
        assert ask(server, question, budget=budget, concurrency=1)[1] == "toto hello there"
        assert server.quiet()


# -- loops and keys ---------------------------------------------------------------------------------------------------


def test_one_model_serves_loop_after_loop_and_each_closes_its_connections() -> None:
    with FaultyServer() as server, warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        llm = model(server)
        for count in range(3):
            assert asyncio.run(hello(llm)).text == "to hello there"  # nobody calls aclose
            assert server.quiet()
            assert len(server.requests) == count + 1
            assert llm._sessions._open == {}
        gc.collect()


def test_a_loop_that_was_closed_without_a_shutdown_makes_no_noise() -> None:
    """What the SDK does by itself: a task in the next loop that ends with "Event loop is closed"."""

    async def again(llm: LLM) -> Reply:
        reply = await hello(llm)
        gc.collect()  # finds the client of the loop that is gone
        await asyncio.sleep(0.01)
        gc.collect()
        return reply

    with FaultyServer() as server:
        llm = model(server)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(hello(llm))
        loop.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # that loop left its socket to the collector
            assert asyncio.run(again(llm)).text == "to hello there"
            assert llm._sessions._open == {}


def test_one_client_serves_a_loop_and_a_closed_model_opens_another() -> None:
    async def question(llm: LLM) -> int:
        await asyncio.gather(*(llm.chat(HELLO) for _ in range(4)))
        first = (await llm._sessions.current()).client
        assert (await llm._sessions.current()).client is first
        await llm.aclose()
        await llm.aclose()
        await llm.chat(HELLO)
        return id((await llm._sessions.current()).client) != id(first)

    with FaultyServer() as server:
        assert ask(server, question)[1]
        assert server.quiet()


def test_a_missing_key_is_refused_before_any_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match=r"api_key must be given for https://api\.openai\.com/v1"):
        LLM("gpt-4o")
    with FaultyServer() as server:
        assert ask(server, hello, api_key=None)[1].text == "to hello there"  # a local endpoint needs none
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        ask(server, hello, api_key=None)
        assert server.requests[1]["headers"]["authorization"] == f"Bearer {KEY}"


def test_nothing_shows_the_key() -> None:
    llm = LLM("m", base_url=f"http://user:{KEY}@localhost:1/v1?key={KEY}", api_key=KEY, retries=0)
    assert repr(llm) == "LLM('m', base_url='http://localhost:1/v1')"
    with pytest.raises(ModelError) as caught:
        asyncio.run(hello(llm))
    assert KEY not in repr(caught.value)


def _with(**options: Any) -> Callable[[], Any]:
    return lambda: LLM("m", **{"base_url": "http://localhost:1", "api_key": "k", **options})


def _chat(messages: Any, **options: Any) -> Callable[[], Any]:
    return lambda: asyncio.run(_with()().chat(messages, **options))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LLM("", api_key="k"), "model must be a name, got ''"),
        (_with(concurrency=0), "concurrency must be at least 1, got 0"),
        (_with(timeout=0), "timeout must be above 0 seconds, got 0"),
        (_with(retries=-1), "retries must be at least 0, got -1"),
        (_with(n=2), "n must be 1, got 2: ask for sample=0, 1, ... instead"),
        (_with(stream=True), "stream is no setting, got stream=True"),
        (_with(api_key="two words"), "api_key must be one word of ASCII, got 9 characters"),
        (_chat("hello"), "messages must be a list of messages, at least one, got 'hello'"),
        (_chat([]), r"messages must be a list of messages, at least one, got \[\]"),
        (_chat([{"content": "x"}]), "messages must be dicts with a role, got"),
        (_chat(HELLO, sample=-1), "sample must be an index of at least 0, got -1"),
        (lambda: image_part(b""), "image must hold bytes, got none"),
        (lambda: FunctionModel("f", str, budget=Budget(tokens=1)), "budget of a FunctionModel may limit calls only"),
    ],
)
def test_bad_input_is_refused_at_the_door(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


# -- functions --------------------------------------------------------------------------------------------------------


def test_a_function_is_a_model() -> None:
    async def later(messages: Any, sample: int) -> str:
        return f"{messages[-1]['content']} {sample}"

    budget = Budget(calls=3)
    models: list[ChatModel] = [
        FunctionModel("now", lambda messages, sample: f"{messages[-1]['content']} {sample}"),
        FunctionModel("later", later, cache=Cache(), budget=budget),
    ]
    for each in models:
        assert asyncio.run(each.chat(HELLO, sample=4)) == Reply("hello there 4", Usage(2, 3), model=each.name)
    cached = models[1]
    assert isinstance(cached, FunctionModel)
    assert asyncio.run(cached.chat(HELLO, sample=4)).cached
    assert not asyncio.run(cached.chat(HELLO, sample=5)).cached
    assert (cached.calls, budget.spent) == (2, Amount(2, 10))


def test_a_function_that_raises_or_gives_no_text_gives_its_reservation_back() -> None:
    budget = Budget(calls=1)
    wrong: Any = lambda messages, sample: 5 if sample else 1 / 0  # noqa: E731
    each = FunctionModel("f", wrong, budget=budget)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(each.chat(HELLO))
    with pytest.raises((InputError, TypeError)):
        asyncio.run(each.chat(HELLO, sample=1))
    assert (budget.spent, budget.reserved) == (Amount(), Amount())


def test_models_load_neither_the_sdk_nor_arrays() -> None:
    script = (
        "import sys, mindworks.agents.models\n"
        "sys.exit(', '.join(n for n in ('numpy', 'torch', 'openai', 'httpx', 'aiohttp') if n in sys.modules) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_server_counts_tokens_as_the_tests_expect() -> None:
    assert USAGE["total_tokens"] == USAGE["prompt_tokens"] + USAGE["completion_tokens"] == 11
