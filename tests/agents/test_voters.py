"""Simulated voters: votes counted by hand, messages along a chain, and abilities as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from mindworks.agents.models import FunctionModel
from mindworks.agents.prompts import Example, Prompt
from mindworks.agents.voters import NearestDemonstration, Voters, mean_by_kind, simulated_voters, voter_space
from mindworks.errors import InputError

NO = np.zeros(3, bool)
ALL = np.ones(3, bool)


def voters(answers: list[int], hears: np.ndarray, right: int = 1) -> Voters:
    return Voters(np.array([answers]), np.array([right]), hears, np.array([[0, 1, 2, 3]]))


def graph(*pairs: tuple[int, int]) -> np.ndarray:
    space = voter_space(3)
    return np.array([tuple(pair) in pairs for pair in space.potential.tolist()])


@pytest.mark.parametrize("hears", [NO, ALL])
def test_the_plurality_decides_and_ties_go_by_preference(hears: np.ndarray) -> None:
    said = voters([1, 1, 2], hears)
    assert said.accuracy(graph((0, 3), (1, 3), (2, 3))) == 1
    assert said.accuracy(graph((0, 3), (2, 3))) == 0  # a tie, and option 2 is preferred to 1
    assert voters([1, 1, 0], hears).accuracy(graph((0, 3), (2, 3))) == 1
    assert voters([0, 0, 0], hears, right=0).accuracy(graph()) == 0  # nobody answers, and nothing wins by preference


def test_a_hearer_yields_to_two_but_not_to_one() -> None:
    said = voters([2, 1, 1], ALL)
    assert said.accuracy(graph((1, 0), (2, 0), (0, 3))) == 1
    assert said.accuracy(graph((1, 0), (0, 3))) == 0
    assert voters([2, 1, 1], NO).accuracy(graph((1, 0), (2, 0), (0, 3))) == 0
    deaf = np.array([False, True, True])
    assert voters([2, 1, 1], deaf).accuracy(graph((1, 0), (2, 0), (0, 3))) == 0


def test_messages_are_what_was_said_after_hearing() -> None:
    # 2 convinces nobody alone; 0 and 1 both say 1, so 2 says 1, and so it goes on along the chain 2 -> 3 -> 4
    answers, hears = np.array([[1, 1, 2, 0, 0, 0]]), np.array([False, False, True, True, True, False])
    space = voter_space(6)
    pairs = [(0, 2), (1, 2), (2, 3), (0, 3), (3, 4), (1, 4)]
    included = np.array([tuple(pair) in pairs for pair in space.potential.tolist()])
    found = Voters(answers, np.array([1]), hears, np.array([[0, 1, 2, 3]]))
    said = found.said(np.array([0]), space.adjacency(included)[None, None])
    assert said[0, 0].tolist() == [1, 1, 1, 1, 1, 0]


def test_many_graphs_are_one_after_the_other() -> None:
    made = simulated_voters(12, np.random.default_rng(0), hear=True, know=0.5, alike=False)
    included = made.space.sample(np.zeros(len(made.space)), (12, 5), np.random.default_rng(1)).included
    whole = made.utility(np.arange(12), included)
    for task in range(12):
        for k in range(5):
            one = made.questions(np.array([task])).accuracy(included[task, k])
            assert one == whole[task, k]


def test_whom_a_graph_has_to_ask() -> None:
    included = graph((0, 1), (1, 3))
    assert voters([1, 1, 1], NO).asked(included).tolist() == [False, True, False]
    assert voters([1, 1, 1], ALL).asked(included).tolist() == [True, True, False]


def test_abilities_are_as_asked_for() -> None:
    made = simulated_voters(20_000, np.random.default_rng(0), truthful=2, adversaries=2, ignorant=2, know=0.7)
    right = (made.answers == made.right[:, None]).mean(0)
    np.testing.assert_allclose(right, [0.7, 0.7, 0.1, 0.1, 0.25, 0.25], atol=0.015)
    assert (made.answers[:, 0] == made.answers[:, 1]).all()
    assert (made.answers[:, 2] == made.answers[:, 3]).all()
    assert (made.answers[:, 4] != made.answers[:, 5]).any()
    apart = simulated_voters(20_000, np.random.default_rng(0), know=0.7, alike=False).answers
    assert 0.4 < (apart[:, 0] == apart[:, 1]).mean() < 0.6


def test_means_by_kind_of_edge() -> None:
    # two truthful voters and one adversary: 0-1, 0-2, 1-0, 1-2, 2-0, 2-1, then each to the decision
    p = np.array([0.1, 0.9, 0.3, 0.9, 0.5, 0.7, 0.2, 0.4, 0.8])
    wanted = {"T to decision": 0.3, "A to decision": 0.8, "T to T": 0.2, "A to T": 0.6}
    assert mean_by_kind(voter_space(3), p, 2) == pytest.approx(wanted)
    assert mean_by_kind(voter_space(2), p[:4], 2)["A to T"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"know": 1.1}, "know must be in"),
        ({"lucky": -0.1}, "lucky must be in"),
        ({"truthful": -1}, "truthful must be at least 0, got -1"),
        ({"truthful": 0, "adversaries": 0}, "must not all be 0"),
    ],
)
def test_bad_voters_name_the_argument(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulated_voters(3, np.random.default_rng(0), **arguments)


async def told(prompt: Prompt, task: str) -> str:
    model = FunctionModel("nearest", NearestDemonstration(["x"], np.random.default_rng(0)))
    chat = [{"role": "system", "content": prompt.text()}, {"role": "user", "content": task}]
    return (await model.chat(chat)).text


def test_the_nearest_demonstration_in_the_prompt_answers() -> None:
    import asyncio

    prompt = Prompt("Say the name.", (Example("0 0", "low"), Example("9 9", "high")))
    assert asyncio.run(told(prompt, "1 2")) == "low"
    assert asyncio.run(told(prompt, "8 5")) == "high"
    assert asyncio.run(told(Prompt("Say the name."), "8 5")) == "x"
    # the text of the prompt is all it knows
    broken = Prompt("Say the name.", (Example("0 0", "high"), Example("9 9", "low")))
    assert asyncio.run(told(broken, "1 2")) == "high"
    with pytest.raises(InputError, match="labels must hold at least one"):
        NearestDemonstration([], np.random.default_rng(0))
