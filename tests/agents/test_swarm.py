"""Swarms: the edges that are there decide who hears whom, and the decision says what it was told."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents import (
    FirstAnswer,
    FunctionModel,
    Graph,
    MajorityVote,
    Memo,
    Message,
    Node,
    RandomChoice,
    References,
    SelectBest,
    SelfConsistency,
    Swarm,
    evaluate,
    model_node,
    run_sync,
    unquoted,
    utilities,
)
from mindworks.agents.decisions import chosen_number
from mindworks.agents.edge_optimizer import EdgeOptimizer, EdgeSettings, optimize_edges
from mindworks.agents.edges import between
from mindworks.errors import InputError


def says(name: str, text: str) -> Node:
    async def say(task: Any, messages: tuple[Message, ...]) -> str:
        return text

    return Node(name, say)


def told(name: str) -> Node:
    async def tell(task: Any, messages: tuple[Message, ...]) -> str:
        return f"{name}({' '.join(message.text for message in messages)})"

    return Node(name, tell)


def breaks(name: str) -> Node:
    async def fail(task: Any, messages: tuple[Message, ...]) -> str:
        raise ConnectionError("no line")

    return Node(name, fail)


PAIR = Graph("pair", [told("x"), told("y")], [("x", "y")], "y")
SWARM = Swarm([told("a"), PAIR], FirstAnswer())


def flags(swarm: Swarm, *pairs: tuple[str, str]) -> list[bool]:
    assert set(pairs) <= set(swarm.potential)
    return [pair in pairs for pair in swarm.potential]


def decide(decision: Any, *texts: str, task: Any = "q") -> str:
    return asyncio.run(decision(task, tuple(Message(f"m{index}", text) for index, text in enumerate(texts))))


def test_the_potential_edges_are_those_of_the_paper() -> None:
    assert SWARM.paths == ("a", "pair/x", "pair/y", "decision")
    assert SWARM.fixed == (("pair/x", "pair/y"),)
    assert SWARM.potential == (
        ("a", "pair/x"),
        ("a", "pair/y"),
        ("pair/x", "a"),
        ("pair/y", "a"),
        ("a", "decision"),
        ("pair/x", "decision"),
        ("pair/y", "decision"),
    )
    assert [tuple(pair) for pair in SWARM.space.potential.tolist()] == between([[0], [1, 2]], 3)
    assert [tuple(pair) for pair in SWARM.space.fixed.tolist()] == [(1, 2)]
    assert len(Swarm([told(str(index)) for index in range(6)], FirstAnswer()).potential) == 36
    assert SWARM.by_edge(range(7))["pair/x", "decision"] == 5.0


def test_a_graph_has_the_chosen_edges_and_the_nodes_that_matter() -> None:
    graph = SWARM.graph(flags(SWARM, ("a", "pair/x"), ("pair/y", "decision")))
    assert graph.edges == (("a", "pair/x"), ("pair/x", "pair/y"), ("pair/y", "decision"))
    assert graph.run_sync("q").answer == "y(x(a()))"
    # the pair's second node has no way to the decision, its first one has
    graph = SWARM.graph(flags(SWARM, ("a", "pair/x"), ("pair/x", "decision"), ("a", "pair/y")))
    assert graph.paths == ("a", "pair/x", "decision")
    assert graph.edges == (("a", "pair/x"), ("pair/x", "decision"))
    empty = SWARM.graph(np.zeros(7, bool))
    assert empty.paths == ("decision",)
    assert (empty.run_sync("q").answer, empty.run_sync("q").failures) == ("", {})
    assert SWARM.alone("pair").edges == (("pair/x", "pair/y"), ("pair/y", "decision"))
    assert SWARM.alone("a").run_sync("q").answer == "a()"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=7, max_size=7))
def test_graphs_agree_with_the_space_of_edges(wanted: list[bool]) -> None:
    space = SWARM.space
    graphs = space.graphs(np.array(wanted))
    graph = SWARM.graph(graphs.included)
    matters = space.matters(graphs.included)
    assert graph.paths == tuple(path for path, kept in zip(SWARM.paths, matters, strict=True) if kept)
    pairs = {(SWARM.paths[s], SWARM.paths[t]) for s, t in space.edges(graphs.included) if matters[t]}
    assert set(graph.edges) == pairs
    if graphs.included.tolist() != wanted:
        with pytest.raises(InputError, match="included must form no cycle, got "):
            SWARM.graph(wanted)


def test_a_distribution_stands_for_the_graph_to_deploy() -> None:
    optimizer = EdgeOptimizer(SWARM.space, 4, np.random.default_rng(0))
    optimizer.parameters[:7] = [3, -3, 3, -3, -3, -3, 3]
    assert SWARM.graph(optimizer.distribution).edges == SWARM.graph(optimizer.distribution.threshold()).edges


def test_a_swarm_may_have_more_nodes_than_a_word_has_bits() -> None:
    swarm = Swarm([told(str(index)) for index in range(70)], FirstAnswer())
    graph = swarm.graph(swarm.space.full())
    assert len(graph.edges) == 70 * 69 // 2 + 70
    assert graph.sources == ("0",)


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: Swarm([], FirstAnswer()), "agents must hold at least one, got none"),
    (lambda: Swarm([told("a"), told("a")], FirstAnswer()), "must be distinct, got 'a' more than once"),
    (lambda: Swarm([told("decision")], FirstAnswer()), "must be distinct, got 'decision' more than once"),
    (lambda: Swarm([told("a")], None), "function of node 'decision' must be callable, got None"),
    (lambda: Swarm([told("a")], FirstAnswer(), potential=[("a", "b")]), "join two of 'a', 'decision', got 'b'"),
    (lambda: Swarm([told("a")], FirstAnswer(), potential=[("a", "a")]), "must join two nodes, got 'a' -> 'a'"),
    (lambda: Swarm([told("a")], FirstAnswer(), potential=[("decision", "a")]), "must not leave the decision"),
    (lambda: Swarm([told("a")], FirstAnswer(), potential=[("a", "decision")] * 2), "'a' -> 'decision' twice"),
    (lambda: Swarm([told("a"), told("b")], FirstAnswer(), fixed=[("a", "b"), ("b", "a")]), "no cycle, got"),
    (lambda: SWARM.graph([True] * 6), "included must hold 7 flags, one per potential edge, got 6"),
    (lambda: SWARM.graph([0.3] * 7), "included must hold true or false for every edge, got 0.3"),
    (lambda: SWARM.by_edge([0.3]), "values must hold 7 numbers, one per potential edge, got 1"),
    (lambda: SWARM.alone("b"), "agent must be one of 'a', 'pair', got 'b'"),
    (
        lambda: run_sync(utilities(SWARM, ["q"], [[True]], float)),
        "[M, 7] or [1, M, 7], got shape [1, 1]",
    ),
    (lambda: run_sync(utilities(SWARM, ["q"], [True], float)), "[T, M, d], got shape [1]"),
    (
        lambda: run_sync(utilities(SWARM, ["q"], np.zeros((0, 7), bool), float)),
        "not be empty, got shape [1, 0, 7]",
    ),
    (lambda: run_sync(utilities(SWARM, ["q"], [[False] * 7], lambda t, a: np.nan)), "finite number, got nan"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input_is_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        make()
    assert "\n" not in str(refused.value)


# -- decisions --------------------------------------------------------------------------------------------------------


def test_the_majority_wins_and_ties_are_seeded() -> None:
    assert decide(MajorityVote(), "B", "A ", " A") == "A"
    assert decide(MajorityVote(), "B", "", "A", "A") == "A"
    assert decide(MajorityVote(), "", " ") == ""
    letter = re.compile(r"\(([A-D])\)")
    read = MajorityVote(lambda text: found[1] if (found := letter.search(text)) else None)
    assert decide(read, "The answer is (B).", "A nice one: (B)", "A", "(C)") == "B"
    draws = Counter(decide(MajorityVote(seed=7), "A", "B", task=f"q{index}") for index in range(400))
    assert min(draws["A"], draws["B"]) > 160
    for task in map(str, range(20)):
        assert decide(MajorityVote(), "B", "A", task=task) == decide(MajorityVote(), "A", "B", task=task)
    assert len({decide(MajorityVote(seed=seed), "A", "B", task="q1") for seed in range(20)}) == 2


def test_a_draw_does_not_depend_on_where_a_task_lies_in_memory() -> None:
    class Task:
        pass

    assert len({decide(RandomChoice(seed=3), *"ABCDEFGH", task=Task()) for _ in range(8)}) == 1


def test_first_and_random_choice() -> None:
    assert decide(FirstAnswer(), "x", "y") == "x"
    draws = Counter(decide(RandomChoice(seed=1), "x", "y", "y", task=f"q{index}") for index in range(600))
    assert abs(draws["x"] - 200) < 50


@pytest.mark.parametrize(
    "decision", [MajorityVote(), FirstAnswer(), RandomChoice(), SelectBest(FunctionModel("m", None))]
)
def test_a_decision_on_nothing_is_the_empty_text(decision: Any) -> None:
    assert decide(decision) == ""


@pytest.mark.parametrize("kind", [SelectBest, SelfConsistency])
def test_a_model_selects_one_of_the_answers(kind: Any) -> None:
    chats: list[Any] = []
    model = FunctionModel("m", lambda chat, sample: (chats.append(chat), "Of the 3, the second. Choice: 2")[1])
    assert decide(kind(model), "x", "`y`\n```", "Choice: 3") == "`y`\n```"
    assert unquoted(chats[0][1]["content"]) == tuple(
        Message(f"answer {n}", text) for n, text in enumerate(["x", "`y`\n```", "Choice: 3"], 1)
    )
    assert decide(kind(model), "alone") == "alone"
    assert model.calls == 1
    assert kind(model).prompt in chats[0][0]["content"]


def test_the_number_of_a_reply() -> None:
    assert chosen_number("Choice: 1 or Choice: **3**", 3) == 3
    assert chosen_number("Answer 2.", 3) == 2
    for reply in ("Choice: 4", "1 beats 2", "neither", "Choice: 0"):
        with pytest.raises(ValueError, match="must choose a number from 1 to 3"):
            chosen_number(reply, 3)


def test_references_reach_the_model() -> None:
    model = FunctionModel("m", lambda chat, sample: " / ".join(m.text for m in unquoted(chat[1]["content"])))
    assert decide(References(model), "x", "y") == "x / y"


# -- edges that carry messages, and utilities -------------------------------------------------------------------------


def test_removing_a_learned_edge_changes_a_prompt_and_the_answer() -> None:
    prompts: list[str] = []

    def respond(chat: Any, sample: int) -> str:
        prompts.append(json.dumps(chat))
        heard = [message.text for message in unquoted(chat[1]["content"])]
        return heard[0] if heard else ("Rome" if "guess" in chat[0]["content"] else "Paris")

    model = FunctionModel("m", respond)
    swarm = Swarm([model_node("a", model, "You guess."), model_node("b", model, "You know.")], FirstAnswer())
    joined = flags(swarm, ("b", "a"), ("a", "decision"))
    apart = flags(swarm, ("a", "decision"))
    assert swarm.graph(joined).run_sync("Capital?").answer == "Paris"
    assert any("message from b" in prompt and "Paris" in prompt for prompt in prompts)
    prompts.clear()
    assert swarm.graph(apart).run_sync("Capital?").answer == "Rome"
    assert len(prompts) == 1
    assert "message from" not in prompts[0]


def test_failures_are_not_votes() -> None:
    swarm = Swarm([breaks("a"), says("b", "B")], MajorityVote())
    both, only = flags(swarm, ("a", "decision"), ("b", "decision")), flags(swarm, ("a", "decision"))
    run = swarm.graph(both).run_sync("q")
    assert (run.answer, run.failures) == ("B", {"a": "ConnectionError: no line"})
    run = swarm.graph(only).run_sync("q")
    assert run.answer is None
    assert run.failures["decision"] == "no message: every predecessor failed ('a')"
    value = run_sync(utilities(swarm, ["q"], [both, only, [False] * 4], lambda task, answer: answer == "B"))
    np.testing.assert_array_equal(value, [[1.0, np.nan, 0.0]])
    with pytest.raises(RuntimeError, match="no run of 1 gave an answer; node 'a' failed first: ConnectionError: no li"):
        run_sync(utilities(swarm, ["q"], [only], float))


@dataclass(frozen=True)
class Sum:
    """A question whose answer is a number."""

    left: int
    right: int


def adders(counts: Counter[Any]) -> Swarm:
    """Two who add what they hear to their own guess: every edge changes a text."""

    def node(name: str, own: int) -> Node:
        async def add(task: Sum, messages: tuple[Message, ...]) -> str:
            await asyncio.sleep(0)
            key = (name, task, tuple(int(message.text) for message in messages))
            counts[key] += 1
            return str(own * task.left + task.right + sum(key[2]))

        return Node(name, add)

    return Swarm([node("a", 1), node("b", 10)], MajorityVote())


def test_many_graphs_of_a_question_share_the_calls_of_nodes() -> None:
    counts: Counter[Any] = Counter()
    swarm, tasks = adders(counts), [Sum(1, 2), Sum(3, 4), Sum(1, 2)]
    space = swarm.space
    graphs = np.concatenate(
        [space.enumerate().included, space.sample(np.zeros(4), 30, np.random.default_rng(0)).included]
    )
    alone = [[float(swarm.graph(row).run_sync(task).answer or -1) for row in graphs] for task in tasks]
    asked = set(counts)
    counts.clear()
    memo = Memo()

    def score(task: Sum, answer: str) -> float:
        return float(answer or -1)  # nobody decides in the empty graph

    done = run_sync(evaluate(swarm, tasks, graphs, score, memo))
    np.testing.assert_array_equal(done.utilities, alone)
    assert set(counts) == asked
    # the third task equals the first but is another object
    made = {key: 2 if key[1] == Sum(1, 2) else 1 for key in asked}
    assert counts == made
    runs = {id(run): run for row in done.runs for run in row}
    assert len(runs) == 3 * len(space.enumerate().included)
    assert sum(run.calls for run in runs.values()) == memo.calls
    again = run_sync(utilities(swarm, tasks, np.stack([graphs] * 3), score, memo))
    np.testing.assert_array_equal(again, alone)
    assert sum(counts.values()) == 2 * sum(key[1] == Sum(1, 2) for key in asked) + sum(
        key[1] != Sum(1, 2) for key in asked
    )


def test_a_score_may_be_awaited_and_is_asked_once_per_answer() -> None:
    swarm = Swarm([says("a", "A"), says("b", "B")], FirstAnswer())
    graphs = [flags(swarm, (name, "decision")) for name in "abab"]
    asked: list[str] = []

    async def score(task: str, answer: str) -> float:
        asked.append(answer)
        return {"A": 0.25, "B": 1.0}[answer]

    value = run_sync(utilities(swarm, ["q"], graphs, score))
    np.testing.assert_array_equal(value, [[0.25, 1.0, 0.25, 1.0]])
    assert asked == ["A", "B"]


@pytest.mark.parametrize("error_rate", [0.0, 0.05])
def test_edges_are_learned_with_models_that_fail_at_times(error_rate: float) -> None:
    rng = np.random.default_rng(5)
    calls = failed = 0

    def respond(chat: Any, sample: int) -> str:
        nonlocal calls, failed
        calls += 1
        if rng.random() < error_rate:
            failed += 1
            raise ConnectionError("no line")
        wrong = "lie" in chat[0]["content"]
        return str(int(chat[1]["content"].split()[1]) + wrong)

    model = FunctionModel("m", respond)
    honest = [model_node(f"honest {k}", model, "Answer.", sample=k) for k in range(2)]
    liars = [model_node(f"liar {k}", model, "Always lie.", sample=k) for k in range(2)]
    potential = [(f"{kind} {k}", "decision") for kind in ("honest", "liar") for k in range(2)]
    swarm = Swarm([*honest, *liars], MajorityVote(seed=1), potential=potential)
    tasks = [f"Say {number} please" for number in range(8)]
    settings = EdgeSettings(tasks=4, graphs=8, lr=0.4)
    optimizer = EdgeOptimizer(swarm.space, len(tasks), np.random.default_rng(0), settings)
    memo = Memo()
    run_sync(optimize_edges(swarm, tasks, lambda task, answer: answer == task.split()[1], optimizer, 25, memo))
    assert optimizer.step == 25
    assert swarm.by_edge(optimizer.distribution.threshold()) == dict(zip(potential, [1, 1, 0, 0], strict=True))
    assert calls == 8 * 4 + failed
    assert (failed > 0) == (error_rate > 0)


def test_nothing_is_worth_anything_where_nothing_answers() -> None:
    swarm = Swarm([breaks("a")], MajorityVote(), potential=[], fixed=[("a", "decision")])
    assert swarm.potential == ()
    with pytest.raises(RuntimeError, match="no run of 2 gave an answer"):
        run_sync(utilities(swarm, ["q", "r"], np.zeros((1, 0), bool), float))


def test_every_subset_of_voters_is_right_when_the_majority_is() -> None:
    swarm = Swarm([says(str(index), text) for index, text in enumerate("AAB")], MajorityVote())
    for chosen in itertools.product([False, True], repeat=3):
        graph = swarm.graph([False] * 6 + list(chosen))
        votes = Counter(text for text, there in zip("AAB", chosen, strict=True) if there)
        most = {text for text, count in votes.items() if count == max(votes.values())}
        assert (graph.run_sync("q").answer or "") in (most or {""})
