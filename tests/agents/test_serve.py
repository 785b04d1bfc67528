"""The server, driven by the official client and by requests that no good client makes; the command that starts it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from mindworks import cli, serving  # noqa: E402
from mindworks.agents import ready  # noqa: E402
from mindworks.agents.graph import Graph, Node  # noqa: E402
from mindworks.agents.models import FunctionModel  # noqa: E402
from mindworks.agents.serve import (  # noqa: E402
    GraphAnswers,
    ServerLimits,
    application,
    is_loopback,
    listening,
    url_of,
)
from mindworks.agents.serve import serving as served  # noqa: E402
from mindworks.errors import InputError  # noqa: E402

SUM = [{"role": "user", "content": "What is 17 * 3?"}]


async def _echo(question: str) -> str:
    return question


async def _failing(question: str) -> str:
    raise ZeroDivisionError("by zero")


class _Slow:
    """It starts, then waits until it is cancelled."""

    def __init__(self) -> None:
        self.started, self.cancelled = threading.Event(), threading.Event()

    async def answer(self, question: str) -> str:
        self.started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return ""


async def _nothing(question: str) -> Any:
    return None


async def _refused(task: Any, messages: Any) -> str:
    raise ValueError("no idea")


SLOW = _Slow()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    members: dict[str, Any] = {
        "swarm": ready.swarm(),
        "society": ready.society(),
        "echo": _echo,
        "failing": _failing,
        "slow": SLOW,
        "nothing": _nothing,
        "graph": GraphAnswers(Graph("g", [Node("n", _refused)], [], "n")),
    }
    with served(members, limits=ServerLimits(body=10_000), grace=1) as base:
        yield base


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=20) as client:
        yield client


def _said(client: Any, model: str, text: str) -> str:
    reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    assert (reply.model, reply.object, reply.choices[0].finish_reason) == (model, "chat.completion", "stop")
    assert reply.usage is None
    return reply.choices[0].message.content


def test_the_official_client_talks_to_a_swarm_and_a_society(client: Any) -> None:
    assert _said(client, "swarm", "What is 17 * 3?") == "51"
    assert _said(client, "swarm", "And (2 + 3) * -4 / 8?") == "-2.5"
    assert _said(client, "swarm", "How are you?") == ready.NO_SUM
    assert _said(client, "society", "Is 17 * 3 = 51?") == "yes"
    assert _said(client, "society", "Is 17 * 3 = 52?") == "no"  # what the two that are wrong would say yes to


def test_models_are_listed(client: Any) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["swarm", "society", "echo", "failing", "slow", "nothing", "graph"]
    assert client.models.retrieve("echo").owned_by == "mindworks"
    with pytest.raises(openai.NotFoundError, match="no model 'none'; there are: swarm"):
        client.models.retrieve("none")


def test_streaming_gives_the_same_text(client: Any) -> None:
    text = "one\ntwo é\n\nthree \N{SNOWMAN}"
    ask = [{"role": "user", "content": text}]
    chunks = list(client.chat.completions.create(model="echo", messages=ask, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) == 6
    with pytest.raises(openai.InternalServerError, match="by zero"):  # an error comes before the stream
        client.chat.completions.create(model="failing", messages=ask, stream=True)


def test_the_async_client_asks_many_at_a_time(url: str) -> None:
    async def many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def one(number: int) -> str:
                ask = [{"role": "user", "content": f"{number} + 1"}]
                reply = await client.chat.completions.create(model="swarm", messages=ask)
                return reply.choices[0].message.content

            return await asyncio.gather(*(one(number) for number in range(20)))

    assert asyncio.run(many()) == [str(number + 1) for number in range(20)]


def test_the_last_user_message_is_the_question(client: Any) -> None:
    parts = [{"type": "text", "text": "3 +"}, {"type": "text", "text": "4"}]
    ask = [{"role": "system", "content": "5"}, *SUM, {"role": "assistant", "content": "51"}]
    ask += [{"role": "user", "content": parts}]
    assert client.chat.completions.create(model="echo", messages=ask).choices[0].message.content == "3 +\n4"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("failing", "failing failed: ZeroDivisionError: by zero"),
        ("nothing", "nothing gave no text but NoneType"),
        ("graph", "graph failed: RuntimeError: n: ValueError: no idea"),
        ("society", "society failed: RuntimeError: the society found no answer"),
    ],
)
def test_a_failing_member_is_a_500_that_says_why(client: Any, model: str, message: str) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        _said(client, model, "hello")
    assert caught.value.status_code == 500
    assert caught.value.body["message"] == message
    assert caught.value.body["code"] == "member_failed"


def _raw(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    given = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        connection.request(method, path, body, given)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


_ECHO: dict[str, Any] = {"model": "echo", "messages": SUM}
_IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the request is no JSON"),
        (b"\xff\xfe{", 400, "the request is no JSON"),
        (b"[" * 9000, 400, "the request is no JSON"),
        (b"[]", 400, "the request must be an object, got list"),
        (b"", 400, "the request is no JSON"),
        ({"messages": SUM}, 404, "no model None; there are: swarm"),
        ({"model": ["echo"], "messages": SUM}, 404, "no model ['echo']"),
        ({"model": "gpt", "messages": SUM}, 404, "no model 'gpt'"),
        ({"model": "echo"}, 400, "messages must be a list with at least one message"),
        ({"model": "echo", "messages": []}, 400, "messages must be a list with at least one message"),
        ({"model": "echo", "messages": ["hi"]}, 400, "messages[0] must be an object with a role"),
        ({"model": "echo", "messages": [{"role": "system", "content": "x"}]}, 400, "must hold a user message"),
        ({"model": "echo", "messages": [{"role": "user", "content": None}]}, 400, "must hold a user message"),
        ({"model": "echo", "messages": _IMAGE}, 400, "members read text, got a part of type 'image_url'"),
        ({**_ECHO, "n": 2}, 400, "n must be 1, got 2"),
        ({**_ECHO, "stream": "yes"}, 400, "stream must be true or false, got 'yes'"),
        ({**_ECHO, "pad": "x" * 10_000}, 413, "a request may hold 10000 bytes"),
    ],
)
def test_bad_requests_are_json_errors(url: str, body: Any, status: int, message: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    got, reply = _raw(url, "POST", "/v1/chat/completions", data)
    assert got == status
    assert message in reply["error"]["message"]
    assert set(reply["error"]) == {"message", "type", "param", "code"}


def test_wrong_ways_in_are_json_errors(url: str) -> None:
    good = json.dumps(_ECHO).encode()
    assert _raw(url, "POST", "/v1/chat/completions", good)[0] == 200
    assert _raw(url, "GET", "/v1/chat/completions")[0] == 405
    assert _raw(url, "POST", "/v1/nothing", good)[0] == 404
    # what a page in a browser could send: another content type, or a name that was made to lead here
    status, reply = _raw(url, "POST", "/v1/chat/completions", good, content_type="text/plain")
    assert (status, reply["error"]["message"]) == (415, "content-type must be application/json, got 'text/plain'")
    status, reply = _raw(url, "GET", "/v1/models", host="evil.example")
    assert (status, "loopback only" in reply["error"]["message"]) == (403, True)
    assert _raw(url, "GET", "/v1/models", host="localhost:1")[0] == 200


def test_half_characters_come_back(url: str) -> None:
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "a\ud800"}]}).encode()
    assert _raw(url, "POST", "/v1/chat/completions", body)[1]["choices"][0]["message"]["content"] == "a\ud800"


def test_a_client_that_leaves_takes_its_question_with_it(url: str) -> None:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    body = json.dumps({"model": "slow", "messages": SUM})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    assert SLOW.started.wait(20)
    connection.close()
    assert SLOW.cancelled.wait(20)


def test_questions_in_work_and_time_are_bounded() -> None:
    slow = _Slow()
    with served({"slow": slow}, limits=ServerLimits(questions=1, answer_seconds=1.5), grace=1) as base:
        results: list[Any] = []
        body = json.dumps({"model": "slow", "messages": SUM}).encode()
        first = threading.Thread(target=lambda: results.append(_raw(base, "POST", "/v1/chat/completions", body)))
        first.start()
        assert slow.started.wait(20)
        assert _raw(base, "POST", "/v1/chat/completions", body)[0] == 503
        first.join()
        status, reply = results[0]
        assert (status, reply["error"]["message"]) == (504, "slow did not answer in 1.5 seconds")
    assert slow.cancelled.is_set()


def test_a_stopped_server_lets_go_of_its_port() -> None:
    with served({"echo": _echo}) as base:
        port = urlsplit(base).port
        with pytest.raises(InputError, match=f"cannot listen on host 127.0.0.1 port {port}: Address already in use"):
            listening(port=port or 0)
    listening(port=port or 0).close()


def test_where_it_listens_at_the_door() -> None:
    for host, named in [("0.0.0.0", "host must be loopback unless anywhere is True, got '0.0.0.0'"), ("::", "'::'")]:
        with pytest.raises(InputError, match=named):
            listening(host)
    with pytest.raises(InputError, match="port must be in 0 to 65535, got 65536"):
        listening(port=65536)
    with pytest.raises(InputError, match="host must be a name or an address"):
        listening("no.such.host.invalid", anywhere=True)
    with pytest.raises(InputError, match="members must name at least one"):
        application({})
    with pytest.raises(InputError, match="questions must be positive, got 0"):
        ServerLimits(questions=0)
    hosts = ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "10.0.0.1", "localhost.evil.example", "", "0.0.0.0")
    assert [is_loopback(host) for host in hosts] == [True] * 5 + [False] * 4
    bound = listening("::1") if _has_ipv6() else listening()
    assert url_of(bound).startswith("http://[::1]:" if _has_ipv6() else "http://127.0.0.1:")
    bound.close()


def _has_ipv6() -> bool:
    try:
        listening("::1").close()
    except InputError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("What is 17 * 3?", [51.0]),
        ("Is (2 + 2) * 2 = 8?", [8.0, 8.0]),
        ("-5 + 2.", [-3.0]),
        ("1 / 0, 9**9**9, (1 and hello", []),
        ("1 " * 200, []),
        (" " * 100_000, []),
    ],
)
def test_sums_are_found(text: str, values: list[float]) -> None:
    assert ready.sums_in(text) == values


def test_a_swarm_of_models_answers_with_its_members_as_references() -> None:
    prompts: list[str] = []

    def respond(chat: Any, sample: int) -> str:
        prompts.append(str(chat[-1]["content"]))
        return f"draw {sample} of {len(prompts)}"

    answer = asyncio.run(ready.model_swarm(FunctionModel("m", respond), members=2).answer("why?"))
    assert answer == "draw 0 of 3"
    assert "draw 0 of 1" in prompts[2]
    assert "draw 1 of 2" in prompts[2]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("swarm --port x", "--port must be a whole number in 0 to 65535, got 'x'"),
        ("swarm --port 70000", "--port must be a whole number in 0 to 65535, got '70000'"),
        ("swarm --port -1", "--port must be a whole number in 0 to 65535, got '-1'"),
        ("swarm --port", "--port needs a value, got none"),
        ("swarm --host --port 3", "--host needs a value, got none"),
        ("swarm --host 0.0.0.0", "host must be loopback unless anywhere is True, got '0.0.0.0'"),
        ("swarm --host no.such.host.invalid --anywhere", "host must be a name or an address"),
        ("swram", "nothing to serve named 'swram'; nearest: swarm"),
        ("swarm society", "serve needs one name, got swarm society"),
        ("--port 0", "serve needs one name, got none; there are: society, swarm"),
        ("swarm --prot 0", "unknown flag --prot; nearest: --port"),
        ("society --model m", "--model and --base-url go with swarm, not with society"),
        ("swarm --base-url http://x", "--base-url needs --model as well"),
        ("swarm --members 0", "--members must be a whole number in 1 to 1000, got '0'"),
    ],
)
def test_bad_words_are_one_line(words: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", *words.split()]) == 2
    out, complaint = capsys.readouterr()
    assert (out, complaint.count("\n")) == ("", 1)
    assert complaint.startswith("mindworks: ")
    assert named in complaint


def test_help_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--help"]) == 0
    assert cli.main(["serve"]) == 2
    assert capsys.readouterr().out == (serving.HELP + "\n") * 2
    assert sorted(ready.READY) == sorted(serving.NAMES)
    wanted = serving.understood(
        ["--port=0", "swarm", "--model", "m", "--base-url", "http://x/v1", "--anywhere", "--members", "5"]
    )
    assert wanted == serving.Wanted("swarm", "127.0.0.1", 0, True, "m", "http://x/v1", 5)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_interrupted(ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "mindworks", "serve", "swarm", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            url = first.split(" at ")[1].partition(";")[0]
            with openai.OpenAI(base_url=url, api_key="none", timeout=20) as client:
                assert _said(client, "swarm", "6 * 7") == "42"
            process.send_signal(ending)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "mindworks: the server has ended\n", "")
