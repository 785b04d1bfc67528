"""Graphs run their nodes at the right time, with the right messages, and say what failed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents import FunctionModel, Graph, Memo, Message, Node, model_node, run_all, run_sync
from mindworks.errors import InputError


def teller(name: str, log: list[Any] | None = None) -> Node:
    """A node that says its name and what it heard."""

    async def tell(task: Any, messages: tuple[Message, ...]) -> str:
        if log is not None:
            log.append((name, messages))
        return f"{name}({' '.join(message.text for message in messages)})"

    return Node(name, tell)


def failing(name: str, error: BaseException) -> Node:
    async def fail(task: Any, messages: tuple[Message, ...]) -> str:
        raise error

    return Node(name, fail)


def chain(name: str, *nodes: str) -> Graph:
    return Graph(name, [teller(node) for node in nodes], list(pairwise(nodes)), nodes[-1])


def test_a_node_hears_its_predecessors_and_the_output_answers() -> None:
    graph = Graph("g", [teller(n) for n in "abcd"], [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], "d")
    run = graph.run_sync("x")
    assert run.answer == "d(b(a()) c(a()))"
    assert run.outputs == {"a": "a()", "b": "b(a())", "c": "c(a())", "d": run.answer}
    assert (run.failures, run.calls, run.shared) == ({}, 4, 0)
    assert graph.predecessors("d") == ("b", "c")
    assert graph.sources == ("a",)


@settings(max_examples=25, deadline=None)
@given(st.permutations([("a", "d"), ("b", "d"), ("c", "d"), ("a", "c"), ("b", "c")]))
def test_messages_arrive_in_the_order_of_the_nodes(edges: list[tuple[str, str]]) -> None:
    log: list[Any] = []
    graph = Graph("g", [teller(n, log) for n in "dcba"], edges, "d")
    graph.run_sync("x")
    heard = {name: [message.sender for message in messages] for name, messages in log}
    assert heard == {"a": [], "b": [], "c": ["b", "a"], "d": ["c", "b", "a"]}


def test_a_graph_stands_where_a_node_stands() -> None:
    inner = Graph("pair", [teller("s"), teller("t"), teller("end")], [("s", "end"), ("t", "end")], "end")
    middle = Graph("middle", [inner, teller("last")], [("pair", "last")], "last")
    graph = Graph(
        "g", [teller("a"), middle, teller("z")], [("a", "middle"), ("middle", "z"), ("middle/pair/s", "z")], "z"
    )
    assert graph.paths == ("a", "middle/pair/s", "middle/pair/t", "middle/pair/end", "middle/last", "z")
    assert graph.predecessors("middle/pair/t") == ("a",)
    assert graph.predecessors("z") == ("middle/pair/s", "middle/last")
    inside = "end(s(a()) t(a()))"
    assert graph.run_sync("x").answer == f"z(s(a()) last({inside}))"
    assert Graph("outer", [middle], [], "middle").run_sync("x").answer == "last(end(s() t()))"


def test_independent_nodes_run_at_the_same_time() -> None:
    # each waits until both have begun: one after the other would never end
    begun = 0
    both = asyncio.Event()

    async def meet(task: Any, messages: tuple[Message, ...]) -> str:
        nonlocal begun
        begun += 1
        if begun == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 5)
        return "met"

    graph = Graph("g", [Node("a", meet), Node("b", meet), teller("c")], [("a", "c"), ("b", "c")], "c")
    assert graph.run_sync("x").answer == "c(met met)"


def test_a_node_starts_as_soon_as_its_own_predecessors_are_done() -> None:
    async def scenario() -> str | None:
        reached = asyncio.Event()

        async def slow(task: Any, messages: tuple[Message, ...]) -> str:
            await asyncio.wait_for(reached.wait(), 5)
            return "slow"

        async def second(task: Any, messages: tuple[Message, ...]) -> str:
            reached.set()
            return "second"

        nodes = [teller("fast"), Node("slow", slow), Node("second", second), teller("end")]
        graph = Graph("g", nodes, [("fast", "second"), ("second", "end"), ("slow", "end")], "end")
        return (await graph.run("x")).answer

    assert asyncio.run(scenario()) == "end(slow second)"


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: Graph("g", [], [], "a"), "nodes of graph 'g' must hold at least one, got none"),
    (lambda: Graph("g", [teller("a"), teller("a")], [], "a"), "must be distinct, got 'a' more than once"),
    (lambda: Graph("g", [teller("a/b"), chain("a", "b")], [], "a/b"), "must be distinct, got 'a/b' more than once"),
    (lambda: Graph("g", [teller("a"), chain("a", "b")], [], "a"), "must be distinct, got 'a' more than once"),
    (lambda: Graph("g", [teller("a")], [("a", "q")], "a"), "edges of graph 'g' must name one of 'a', got 'q'"),
    (lambda: Graph("g", [teller("a")], ["aa"], "a"), "edges of graph 'g' must be pairs of names, got 'aa'"),
    (lambda: Graph("g", [teller("a")], [], "q"), "output of graph 'g' must name one of 'a', got 'q'"),
    (lambda: Graph("g", [teller("a"), teller("b")], [("a", "b")], "a"), "path to the output 'a', got none from 'b'"),
    (lambda: Graph("g", [teller("a")], [("a", "a")], "a"), "must form no cycle, got a -> a"),
    (lambda: Graph("g", ["a"], [], "a"), "nodes must be of type Node or Graph, got 'a'"),
    (lambda: Node("a\nb", teller("a").function), "name must be one printable line"),
    (lambda: Node("a", None), "function of node 'a' must be callable, got None"),
    (lambda: chain("g", "a", "b").predecessors("c"), "path must be one of 'a', 'b', got 'c'"),
    (lambda: asyncio.run(run_all([], concurrency=0)), "concurrency must be at least 1, got 0"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_a_bad_graph_is_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        make()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "edges", [[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")], [("b", "a"), ("a", "b"), ("b", "d")]]
)
def test_a_cycle_is_named_in_its_direction(edges: list[tuple[str, str]]) -> None:
    nodes = sorted({name for edge in edges for name in edge})
    with pytest.raises(InputError, match="must form no cycle, got ") as refused:
        Graph("g", [teller(node) for node in nodes], edges, "d")
    cycle = str(refused.value).rpartition("got ")[2].split(" -> ")
    assert cycle[0] == cycle[-1]
    assert set(pairwise(cycle)) <= set(edges)


def test_a_cycle_through_a_nested_graph_is_named() -> None:
    with pytest.raises(InputError, match="no cycle, got") as refused:
        Graph("g", [chain("pair", "s", "t"), teller("a")], [("pair", "a"), ("a", "pair")], "a")
    assert {"pair/s", "pair/t", "a"} <= set(str(refused.value).rpartition("got ")[2].split(" -> "))


def test_a_raising_node_is_recorded_and_its_successors_run_without_it() -> None:
    nodes = [failing("a", ValueError("no idea")), teller("b"), teller("c")]
    run = Graph("g", nodes, [("a", "c"), ("b", "c")], "c").run_sync("x")
    assert run.answer == "c(b())"
    assert run.failures == {"a": "ValueError: no idea"}
    assert run.outputs == {"b": "b()", "c": "c(b())"}
    assert run.calls == 3


def test_a_failing_output_is_no_answer_and_says_why() -> None:
    run = Graph("g", [teller("a"), failing("b", KeyError())], [("a", "b")], "b").run_sync("x")
    assert run.answer is None
    assert run.failures == {"b": "KeyError"}


def test_what_is_no_text_is_a_failure() -> None:
    async def number(task: Any, messages: tuple[Message, ...]) -> Any:
        return 4

    def plain(task: Any, messages: tuple[Message, ...]) -> Any:
        return "four"

    run = Graph("g", [Node("a", number), Node("b", plain), teller("c")], [("a", "c"), ("b", "c")], "c").run_sync("x")
    assert run.failures["a"] == "TypeError: a node must return a str, got int"
    assert run.failures["b"] == "TypeError: a node must be an async function, got a plain str"
    assert run.answer == "c()"


def test_a_node_that_needs_messages_fails_where_all_that_it_would_hear_failed() -> None:
    strict = Node("z", teller("z").function, needs_messages=True)
    run = Graph("g", [failing("a", ValueError("x")), strict], [("a", "z")], "z").run_sync("x")
    assert run.answer is None
    assert run.failures["z"] == "no message: every predecessor failed ('a')"
    assert run.calls == 1
    assert Graph("g", [strict], [], "z").run_sync("x").answer == "z()"
    nested = Graph("outer", [failing("a", ValueError("x")), Graph("in", [strict], [], "z")], [("a", "in")], "in")
    assert nested.run_sync("x").failures["in/z"] == run.failures["z"]
    mixed = Graph("g", [failing("a", ValueError("x")), teller("b"), strict], [("a", "z"), ("b", "z")], "z")
    assert mixed.run_sync("x").answer == "z(b())"


def test_a_cancellation_inside_a_node_is_a_failure_of_that_node() -> None:
    run = Graph("g", [failing("a", asyncio.CancelledError()), teller("b")], [("a", "b")], "b").run_sync("x")
    assert run.failures == {"a": "CancelledError"}
    assert run.answer == "b()"


@pytest.mark.parametrize("memo", [None, Memo()])
def test_a_cancelled_run_leaves_no_task(memo: Memo | None) -> None:
    cleaned: list[str] = []

    async def scenario() -> int:
        async def hang(task: Any, messages: tuple[Message, ...]) -> str:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)
                cleaned.append(task)
            return "never"

        graph = Graph("g", [Node("a", hang), Node("b", hang), teller("c")], [("a", "c"), ("b", "c")], "c")
        running = asyncio.create_task(graph.run("x", memo))
        await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return len(asyncio.all_tasks())

    assert asyncio.run(scenario()) == 1
    assert cleaned == ["x", "x"]


def test_nothing_starts_after_a_cancellation() -> None:
    log: list[Any] = []

    async def scenario() -> None:
        async def stubborn(task: Any, messages: tuple[Message, ...]) -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                log.append("asked to stop")
            return "done all the same"

        async def obedient(task: Any, messages: tuple[Message, ...]) -> str:
            await asyncio.sleep(60)
            return "never"

        nodes = [Node("a", stubborn), Node("b", obedient), teller("c", log), teller("d", log)]
        running = asyncio.create_task(Graph("g", nodes, [("a", "c"), ("b", "d"), ("c", "d")], "d").run("x"))
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()

    asyncio.run(scenario())
    assert log == ["asked to stop"]


def test_it_runs_inside_a_running_loop() -> None:
    async def notebook() -> str | None:
        return chain("g", "a", "b").run_sync("x").answer

    assert asyncio.run(notebook()) == "b(a())"

    async def broken() -> None:
        raise ValueError("mine")

    async def notebook_that_fails() -> None:
        run_sync(broken())

    with pytest.raises(ValueError, match="mine"):
        asyncio.run(notebook_that_fails())


def test_an_interrupt_of_a_notebook_cancels_the_work() -> None:
    # in a process of its own: a signal that comes late would end the tests
    script = """
import asyncio, os, signal, threading
from mindworks.agents import run_sync
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background starts without it
ended = []
async def hang():
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        ended.append("cancelled")
        raise
async def notebook():
    try:
        run_sync(hang())
    except KeyboardInterrupt:
        ended.append("interrupted")
asyncio.new_event_loop().run_until_complete(notebook())
assert ended == ["cancelled", "interrupted"], ended
assert threading.active_count() == 1
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=25)
    assert ended.returncode == 0, ended.stderr


def test_removing_an_edge_changes_a_prompt() -> None:
    prompts: list[str] = []

    def respond(chat: Any, sample: int) -> str:
        prompts.append(json.dumps(chat))
        return "seven" if "Guess" in chat[0]["content"] else "done"

    model = FunctionModel("m", respond)
    nodes = [model_node("a", model, "Guess."), model_node("b", model, "Judge.")]
    with_edge = Graph("g", [*nodes, teller("end")], [("a", "b"), ("a", "end"), ("b", "end")], "end")
    without = Graph("g", [*nodes, teller("end")], [("a", "end"), ("b", "end")], "end")
    with_edge.run_sync("How many?")
    first, prompts[:] = set(prompts), []
    without.run_sync("How many?")
    assert first & set(prompts) == {
        json.dumps([{"role": "system", "content": "Guess."}, {"role": "user", "content": "How many?"}])
    }
    judged = json.loads((first - set(prompts)).pop())[1]["content"]
    assert judged.startswith("How many?\n\n")
    assert "```message from a\nseven\n```" in judged
    assert "seven" not in "".join(prompts)


def test_the_prompt_of_a_model_may_be_a_function_and_its_task_may_hold_images() -> None:
    seen: list[Any] = []
    model = FunctionModel("m", lambda chat, sample: (seen.append((chat, sample)), "ok")[1])
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    nodes = [
        model_node("a", model, lambda task, messages: [{"role": "user", "content": str(len(task))}], sample=3),
        model_node("b", model, "Look.", sample=4),
    ]
    Graph("g", nodes, [("a", "b")], "b").run_sync([image])
    assert seen[0] == ([{"role": "user", "content": "1"}], 3)
    content = seen[1][0][1]["content"]
    assert content[0] == image
    assert "```message from a\nok\n```" in content[1]["text"]
    run = Graph("g", [nodes[1]], [], "b").run_sync({"q": 1})
    assert "task must be a string or a list of content parts" in run.failures["b"]


def counted(name: str, counts: dict[Any, int]) -> Node:
    async def count(task: Any, messages: tuple[Message, ...]) -> str:
        await asyncio.sleep(0)
        key = (name, str(task), tuple(message.text for message in messages))
        counts[key] = counts.get(key, 0) + 1
        return f"{name}({' '.join(key[2])})"

    return Node(name, count)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.sampled_from([(i, j) for i in range(4) for j in range(i + 1, 5)])), min_size=1, max_size=12))
def test_graphs_of_one_task_share_every_equal_call(choices: list[set[tuple[int, int]]]) -> None:
    counts: dict[Any, int] = {}
    nodes, end = [counted(str(index), counts) for index in range(5)], teller("end")

    def graph(chosen: set[tuple[int, int]]) -> Graph:
        edges = [*((str(i), str(j)) for i, j in chosen), *((str(i), "end") for i in range(5))]
        return Graph("g", [*nodes, end], edges, "end")

    graphs = [graph(chosen) for chosen in choices]
    alone = [graph.run_sync("x").answer for graph in graphs]
    distinct = set(counts)
    counts.clear()
    memo = Memo()
    runs = run_sync(run_all([(graph, "x") for graph in graphs], memo=memo))
    assert [run.answer for run in runs] == alone
    assert set(counts) == distinct
    assert set(counts.values()) == {1}
    ends = len(set(alone))
    assert memo.calls == len(counts) + ends == len(memo)
    assert sum(run.calls for run in runs) == memo.calls
    assert sum(run.shared for run in runs) == memo.hits == 6 * len(graphs) - memo.calls


def test_a_memo_tells_tasks_and_nodes_apart() -> None:
    counts: dict[Any, int] = {}
    memo = Memo()
    first, second = {"q": 1}, {"q": 1}
    graph = Graph("g", [counted("a", counts)], [], "a")
    for task in (first, second, first, "s", "s"):
        graph.run_sync(task, memo)
    assert (memo.calls, memo.hits) == (3, 2)
    Graph("g", [counted("a", counts)], [], "a").run_sync("s", memo)  # another function of the same name
    assert memo.calls == 4


def test_a_failed_call_is_seen_by_all_who_wait_and_then_forgotten() -> None:
    tries = 0

    async def flaky(task: Any, messages: tuple[Message, ...]) -> str:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0.01)
        if tries == 1:
            raise ConnectionError("once")
        return "fine"

    graph, memo = Graph("g", [Node("a", flaky)], [], "a"), Memo()
    runs = run_sync(run_all([(graph, "x")] * 3, memo=memo))
    assert [run.failures for run in runs] == [{"a": "ConnectionError: once"}] * 3
    assert [(run.calls, run.shared) for run in runs] == [(1, 0), (0, 1), (0, 1)]
    assert graph.run_sync("x", memo).answer == "fine"
    assert tries == 2


def test_a_shared_call_outlives_one_caller_and_ends_with_the_last() -> None:
    ended: list[str] = []

    async def scenario() -> None:
        go = asyncio.Event()

        async def wait(task: Any, messages: tuple[Message, ...]) -> str:
            try:
                await go.wait()
            except asyncio.CancelledError:
                ended.append(task)
                raise
            return "kept"

        graph, memo = Graph("g", [Node("a", wait)], [], "a"), Memo()
        runs = [asyncio.create_task(graph.run("x", memo)) for _ in range(2)]
        await asyncio.sleep(0.01)
        runs[0].cancel()
        await asyncio.wait([runs[0]])
        go.set()
        assert (await runs[1]).answer == "kept"
        go.clear()
        runs = [asyncio.create_task(graph.run("y", memo)) for _ in range(2)]
        await asyncio.sleep(0.01)
        for run in runs:
            run.cancel()
        await asyncio.wait(runs)
        assert all(run.cancelled() for run in runs)
        assert len(asyncio.all_tasks()) == 1
        go.set()
        assert (await graph.run("y", memo)).answer == "kept"

    asyncio.run(scenario())
    assert ended == ["y"]


def test_a_newcomer_does_not_join_a_call_that_is_being_cancelled() -> None:
    async def scenario() -> Any:
        begun = 0

        async def slow_to_stop(task: Any, messages: tuple[Message, ...]) -> str:
            nonlocal begun
            begun += 1
            if begun == 2:
                return "second"
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.02)
            return "never"

        graph, memo = Graph("g", [Node("a", slow_to_stop)], [], "a"), Memo()
        first = asyncio.create_task(graph.run("x", memo))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.005)
        assert not first.done()
        second = await graph.run("x", memo)
        await asyncio.wait([first])
        return second, await graph.run("x", memo)

    second, third = asyncio.run(scenario())
    assert (second.answer, second.failures, second.calls) == ("second", {}, 1)
    assert (third.answer, third.shared) == ("second", 1)


def test_a_thousand_runs_with_errors_are_all_accounted_for() -> None:
    busy = most = 0

    async def flaky(task: Any, messages: tuple[Message, ...]) -> str:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        try:
            await asyncio.sleep(0.001)
            if int(task) % 20 == 7:
                raise TimeoutError(f"task {task}")
            return f"{task}!"
        finally:
            busy -= 1

    async def scenario() -> list[Any]:
        graph = Graph("g", [Node("a", flaky), teller("b")], [("a", "b")], "b")
        strict = Graph("s", [graph.nodes[0], Node("b", teller("b").function, needs_messages=True)], [("a", "b")], "b")
        runs = await run_all([(strict, str(task)) for task in range(1000)], concurrency=100)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return runs

    runs = asyncio.run(scenario())
    assert [run.answer for run in runs] == [None if t % 20 == 7 else f"b({t}!)" for t in range(1000)]
    assert sum(run.answer is None for run in runs) == 50
    assert all(run.failures["a"] == f"TimeoutError: task {t}" for t, run in enumerate(runs) if run.answer is None)
    assert most == 100


def test_agents_load_without_torch_and_numpy() -> None:
    script = (
        "import sys; from mindworks.agents import Graph, Memo, Node, Swarm, MajorityVote, quoted, FunctionModel\n"
        "heavy = [name for name in ('torch', 'numpy', 'openai', 'scipy') if name in sys.modules]\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    import mindworks.agents as agents

    assert set(agents.__all__) <= set(dir(agents))
    assert all(getattr(agents, name) is not None for name in agents.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = agents.Nothing
