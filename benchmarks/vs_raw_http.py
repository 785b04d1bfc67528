"""Language models asked through `LLM`, against bare HTTP clients that post the same bodies.

The server is a process of its own that answers each request after 20 ms; 32 requests are in flight. `LLM` stands on the
official SDK, `openai`, which stands on httpx2: these two are the client in use. httpx and aiohttp stand beside them.
Every side posts the same question, reads the text of the answer, and keeps one client. Latency is the subject, so
seconds are wall seconds here, measured in turns; the CPU microseconds of a request stand beside them. On a machine with
few cores the clients' own work, not the latency, sets the pace: the ideal is 32 requests per 20 ms. `LLM` runs with a
budget, as in use, and without a cache, so that each question is asked.

The last row is a load test: 1,000 questions at once, of which the server refuses every 20th request with status 500.
Run: `python benchmarks/vs_raw_http.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import httpx
import httpx2
import openai

import _bench
from mindworks.agents.budget import Budget
from mindworks.agents.models import LLM

SERVER = Path(__file__).resolve().parents[1] / "tests" / "agents" / "faulty_server.py"
BAR = 0.7
LATENCY = 0.02
IN_FLIGHT = 32
REQUESTS = 192
REPEATS = 7
QUESTIONS = 1000
FAILING = 20
CHAT = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
BODY = {"model": "m", "messages": CHAT, "temperature": 0.2, "max_tokens": 64}

Ask = Callable[[], Awaitable[str]]


@contextlib.contextmanager
def server(every: int = 0) -> Iterator[str]:
    """Start the server as a process and give its URL; it refuses each `every`-th request."""
    words = [sys.executable, str(SERVER), str(LATENCY), str(every)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def sides(url: str) -> AsyncIterator[dict[str, Ask]]:
    """Give one function per client that asks once and returns the text."""
    place = f"{url}/v1/chat/completions"
    budget = Budget(calls=10**9, tokens=10**12)
    async with (
        LLM("m", base_url=f"{url}/v1", api_key="k", budget=budget, temperature=0.2, max_tokens=64) as llm,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as sdk,
        httpx2.AsyncClient() as second,
        httpx.AsyncClient() as first,
        aiohttp.ClientSession() as session,
    ):

        async def ours() -> str:
            return (await llm.chat(CHAT)).text

        async def openai_sdk() -> str:
            return (await sdk.chat.completions.create(**BODY)).choices[0].message.content or ""

        async def raw_httpx2() -> str:
            return (await second.post(place, json=BODY)).json()["choices"][0]["message"]["content"]

        async def raw_httpx() -> str:
            return (await first.post(place, json=BODY)).json()["choices"][0]["message"]["content"]

        async def raw_aiohttp() -> str:
            async with session.post(place, json=BODY) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        yield {
            "ours": ours,
            "openai's client, in use": openai_sdk,
            "raw httpx2, under it": raw_httpx2,
            "raw httpx": raw_httpx,
            "raw aiohttp, not in use": raw_aiohttp,
        }


async def timed(ask: Ask) -> tuple[float, float]:
    """Return wall and CPU seconds of REQUESTS requests, IN_FLIGHT at a time."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> str:
        async with slots:
            return await ask()

    wall, cpu = time.perf_counter(), time.process_time()
    said = await asyncio.gather(*(one() for _ in range(REQUESTS)))
    taken = time.perf_counter() - wall, time.process_time() - cpu
    if set(said) != {f"to {CHAT[0]['content']}"}:
        raise SystemExit("the sides differ")
    return taken


async def throughput() -> list[dict[str, Any]]:
    """Time all sides in turns."""
    with server() as url:
        async with sides(url) as asked:
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
            for repeat in range(REPEATS + 1):
                names = list(asked) if repeat % 2 == 0 else list(asked)[::-1]
                for name in names:
                    taken[name].append(await timed(asked[name]))
    wall = {name: median(pair[0] for pair in pairs[1:]) for name, pairs in taken.items()}
    cpu = {name: round(median(pair[1] for pair in pairs[1:]) / REQUESTS * 1e6) for name, pairs in taken.items()}
    ideal = IN_FLIGHT / LATENCY
    rows = []
    for name in list(asked)[1:]:
        rates = {"ours_per_s": round(REQUESTS / wall["ours"]), "peer_per_s": round(REQUESTS / wall[name])}
        more = {**rates, "ideal_per_s": ideal, "ours_cpu_us": cpu["ours"], "peer_cpu_us": cpu[name]}
        bar = 0.0 if name.startswith("raw aiohttp") else BAR
        rows.append(_bench.row(name, wall["ours"], wall[name], bar=bar, per=REQUESTS, **more))
    return rows


async def load() -> dict[str, Any]:
    """Ask QUESTIONS questions at once while every FAILING-th request fails; each answer and each call must be found."""
    with server(FAILING) as url:
        budget = Budget(calls=QUESTIONS, tokens=10**12)
        async with httpx2.AsyncClient() as client:
            async with LLM("m", base_url=f"{url}/v1", api_key="k", budget=budget, backoff=0.05, max_tokens=64) as llm:
                start = time.perf_counter()
                chats = ([{"role": "user", "content": f"question {i}"}] for i in range(QUESTIONS))
                replies = await asyncio.gather(*(llm.chat(chat) for chat in chats))
                seconds = time.perf_counter() - start
            await asyncio.sleep(0.2)
            counts = (await client.get(f"{url}/counts")).json()
        account = llm.account
        facts = {
            "right": sum(reply.text == f"to question {i}" for i, reply in enumerate(replies)),
            "requests": account.requests,
            "server_requests": counts["requests"],
            "server_answered": counts["answered"],
            "budget_calls": budget.spent.calls,
            "budget_tokens": budget.spent.tokens,
            "held_at_end": budget.reserved.calls,
            "connections_left": counts["connections"],
            "tasks_left": len(asyncio.all_tasks()) - 1,
        }
    tokens = sum(reply.usage.total for reply in replies)
    sound = facts["right"] == budget.spent.calls == counts["answered"] == QUESTIONS
    sound = sound and account.requests == counts["requests"] and budget.spent.tokens == tokens
    sound = sound and facts["held_at_end"] == facts["connections_left"] == facts["tasks_left"] == 0
    entry = _bench.row(f"{QUESTIONS} questions, 5 % errors", seconds, seconds, bar=1.0, per=QUESTIONS, **facts)
    return {**entry, "passed": sound}


async def measured() -> list[dict[str, Any]]:
    """Every row."""
    return [*await throughput(), await load()]


def main() -> int:
    """Run the cases; the status is 1 when a bar is missed."""
    return 0 if _bench.write("vs_raw_http", asyncio.run(measured())) else 1


if __name__ == "__main__":
    sys.exit(main())
