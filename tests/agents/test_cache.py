"""The cache of answers: exact, asked once, shared by processes, and not brought down by damage."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mindworks.agents.cache import Cache, digest
from mindworks.errors import InputError


def test_values_are_kept_in_a_file_that_any_sqlite_reads_as_json(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.sqlite"
    with Cache(path) as cache:
        assert cache.get("a") is None
        assert cache.put("a", {"text": "é", "n": [1, 2.5, None]}) == {"text": "é", "n": [1, 2.5, None]}
    with Cache(path) as cache:
        assert cache.get("a") == {"text": "é", "n": [1, 2.5, None]}
        assert len(cache) == 1
    rows = sqlite3.connect(path).execute("SELECT key, value FROM answers").fetchall()
    assert [(key, json.loads(value)["text"]) for key, value in rows] == [("a", "é")]


def test_the_first_answer_stored_is_the_one_that_counts() -> None:
    cache = Cache()
    cache.put("a", {"n": 1})
    assert cache.put("a", {"n": 2}) == {"n": 1} == cache.get("a")


@pytest.mark.parametrize("value", ['{"n": 1', '{"n":2}', "[1]", b"\x00\xff", ""])
def test_a_damaged_entry_is_missing_and_is_replaced(tmp_path: Path, value: object) -> None:
    path = tmp_path / "answers.sqlite"
    with Cache(path) as cache:
        cache.put("a", {"n": 1})
    with sqlite3.connect(path) as other:
        other.execute("UPDATE answers SET value = ?", (value,))
    other.close()
    with Cache(path) as cache:
        assert cache.get("a") is None
        assert cache.damaged == 1
        assert cache.put("a", {"n": 3}) == {"n": 3} == cache.get("a")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes " * 100)
    with pytest.raises(InputError, match=r"cache .*notes.txt cannot be used: file is not a database"):
        Cache(path)
    assert path.read_text() == "my notes " * 100


def test_a_file_that_cannot_be_written_costs_the_entry_and_not_the_answer(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "answers.sqlite")
    cache.put("a", {"n": 1})
    cache._connect().execute("PRAGMA query_only=ON")
    with pytest.warns(RuntimeWarning, match="an answer was not stored"):
        assert cache.put("b", {"n": 2}) == {"n": 2}
    assert cache.get("a") == {"n": 1}
    assert cache.get("b") is None


def test_one_question_asked_by_many_is_asked_once() -> None:
    calls = []

    async def make() -> dict:
        calls.append(1)
        await asyncio.sleep(0.01)
        return {"n": len(calls)}

    async def main(cache: Cache) -> list:
        return await asyncio.gather(*(cache.once(key, make) for key in "aaaaab"))

    cache = Cache()
    answers = asyncio.run(main(cache))
    assert len(calls) == 2
    assert [found for _, found in answers] == [False, True, True, True, True, False]
    assert {value["n"] for value, _ in answers[:5]} == {answers[0][0]["n"]}
    assert (cache.hits, cache.misses, cache.joined) == (0, 2, 4)
    assert asyncio.run(cache.once("a", make))[1]
    assert cache.hits == 1


def test_all_who_wait_get_the_error_and_the_next_one_tries_again() -> None:
    calls = []

    async def make() -> dict:
        calls.append(1)
        await asyncio.sleep(0)
        if len(calls) == 1:
            raise OSError("down")
        return {"n": 2}

    async def main(cache: Cache) -> list:
        return await asyncio.gather(*(cache.once("a", make) for _ in range(3)), return_exceptions=True)

    cache = Cache()
    assert [repr(end) for end in asyncio.run(main(cache))] == ["OSError('down')"] * 3
    assert asyncio.run(cache.once("a", make)) == ({"n": 2}, False)
    assert len(calls) == 2


def test_another_takes_over_from_one_who_is_cancelled_and_only_from_that_one() -> None:
    made = []

    async def main() -> None:
        cache = Cache()

        async def make() -> dict:
            made.append(1)
            await asyncio.sleep(0.01)
            return {"n": len(made)}

        leader, waiter, leaves = (asyncio.create_task(cache.once("a", make)) for _ in range(3))
        await asyncio.sleep(0)
        leaves.cancel()  # one who only waited: nobody else notices
        await asyncio.sleep(0)
        leader.cancel()
        assert await asyncio.wait_for(waiter, 1) == ({"n": 2}, False)
        ends = await asyncio.gather(leader, leaves, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 2
        # All of them at once: none may take over.
        tasks = [asyncio.create_task(cache.once("b", make)) for _ in range(4)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 4
        assert cache._flights == {}

    asyncio.run(main())
    assert len(made) == 3


def test_loops_in_several_threads_ask_once() -> None:
    cache, calls, answers = Cache(), [], []

    async def make() -> dict:
        calls.append(1)
        await asyncio.sleep(0.05)
        return {"n": 1}

    start = threading.Barrier(4)

    def one() -> None:
        start.wait()
        answers.append(asyncio.run(cache.once("a", make))[0])

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(calls) == 1
    assert answers == [{"n": 1}] * 4


_WRITER = """
import sys
from mindworks.agents.cache import Cache
cache, name = Cache(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
kept = [cache.put(f"{i}", {"by": name, "i": i})["by"] for i in range(150)]
print(" ".join(kept))
"""


def test_two_processes_write_one_file_and_agree_on_every_entry(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name], stdin=pipe, stdout=pipe, text=True)
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    kept = [writer.communicate(timeout=60)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    with Cache(path) as cache:
        stored = [cache.get(f"{i}") for i in range(150)]
    assert [value and value["i"] for value in stored] == list(range(150))
    assert kept[0] == kept[1] == [value["by"] for value in stored if value]


def test_a_digest_sees_values_and_not_their_order() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert len({digest(value) for value in ({"a": 1}, {"a": "1"}, {"a": [1]}, {"b": 1}, {"a": True})}) == 5
    for bad in (object(), float("nan"), {"a": b"bytes"}):
        with pytest.raises(InputError, match="a request must hold plain JSON values"):
            digest({"x": bad})
