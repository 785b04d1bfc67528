"""The market against settlements by hand: nothing is made, nothing is lost, nobody falls below the floor."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents.society import Democracy, Expert, Market, Question, Society, say, transfers
from mindworks.errors import InputError

LETTERS = tuple("ABCD")
QUESTION = Question("Which one?", LETTERS)


def society(**answers: tuple[str, float]) -> Society:
    """Members that always say the same, each as (answer, confidence)."""
    return Society([Expert(name, lambda question, said=said: say(*said)) for name, said in answers.items()])


def test_a_settlement_by_hand() -> None:
    market = Market(stake=0.1)
    society(x=("A", 0.95), y=("A", 0.5), z=("B", 0.75)).learn([QUESTION], ["A"], market)
    pot = 0.1 * 0.75
    assert market.wealth["z"] == pytest.approx(1 - pot)
    assert market.wealth["x"] == pytest.approx(1 + pot * 0.95 / 1.45)
    assert market.wealth["y"] == pytest.approx(1 + pot * 0.5 / 1.45)
    assert market.share(["x", "y"]) == pytest.approx((2 + pot) / 3)


def test_nobody_pays_where_all_or_none_were_right() -> None:
    for truth in ("A", "B"):
        market = Market()
        society(x=("A", 0.95), y=("A", 0.25)).learn([QUESTION], [truth], market)
        assert market.wealth == {"x": 1.0, "y": 1.0}


def test_who_says_nothing_stakes_nothing() -> None:
    market = Market(stake=1.0, floor=0.0)
    members = Society([*society(x=("A", 0.95)).members, Expert("mute", lambda question: "Hm.")])
    members.learn([QUESTION], ["B"], market)
    assert market.wealth == {"x": 1.0, "mute": 1.0}


def test_rich_members_outvote_poor_ones() -> None:
    members = society(x=("A", 0.5), y=("B", 0.5), z=("B", 0.5))
    market = Market(stake=0.2)
    assert members.ask(QUESTION, market).answer == "B"
    members.learn([QUESTION] * 20, ["A"] * 20, market)
    assert members.ask(QUESTION, market).answer == "A"
    assert members.ask(QUESTION, Democracy()).answer == "B"


def test_the_bankrupt_keep_the_floor_and_lose_their_say() -> None:
    members = society(x=("A", 0.95), y=("B", 0.95))
    market = Market(stake=0.5, floor=0.01)
    members.learn([QUESTION] * 50, ["A"] * 50, market)
    assert market.wealth["y"] == pytest.approx(0.01)
    assert market.wealth["x"] == pytest.approx(1.99)
    assert Society(members.members[1:]).ask(QUESTION, market).answer is None


def test_rounding_below_the_floor_is_no_negative_stake() -> None:
    market = Market(stake=1.0, floor=0.2)
    market.wealth = {"x": 0.2 - 5e-17, "y": 1.0}
    society(x=("A", 0.95), y=("B", 0.95)).learn([QUESTION], ["B"], market)
    assert market.wealth == {"x": 0.2 - 5e-17, "y": 1.0}


def test_wealth_too_small_for_ratios_still_settles() -> None:
    market = Market(stake=0.95, floor=0.0)
    society(x=("A", 0.95), y=("B", 0.95), z=("B", 0.5)).learn([QUESTION] * 600, ["B"] * 600, market)
    assert market.wealth["x"] < 1e-300
    assert math.fsum(market.wealth.values()) == pytest.approx(3)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(LETTERS), st.floats(0, 1)), min_size=1, max_size=8),
    st.lists(st.sampled_from(LETTERS), min_size=1, max_size=12),
    st.sampled_from([0.05, 0.5, 1.0]),
    st.sampled_from([0.0, 1e-3, 0.2]),
)
def test_wealth_is_neither_made_nor_lost(
    said: list[tuple[str, float]], truths: list[str], stake: float, floor: float
) -> None:
    market = Market(stake, floor)
    members = society(**{f"m{i}": one for i, one in enumerate(said)})
    transcripts = members.ask_all([QUESTION] * len(truths), market)
    for transcript, truth in zip(transcripts, truths, strict=True):
        market.feedback(transcript, truth)
        assert math.fsum(market.wealth.values()) == pytest.approx(len(said), rel=1e-12)
        assert min(market.wealth.values()) >= floor - 1e-12


def test_a_settlement_that_makes_wealth_is_refused() -> None:
    assert sum(transfers({"x": 1.0, "y": 2.0, "z": 3.0}, {"x", "y"}).values()) == 0
    assert transfers({"x": 1.0}, {"x"}) == {"x": 0.0}
    with pytest.raises(ArithmeticError, match="sum to zero"):
        transfers({"x": math.inf, "y": 1.0}, {"y"})


def test_wealth_of_strangers_and_of_nobody() -> None:
    assert Market().share(["x"]) == 0.0
    market = Market()
    society(x=("A", 0.5), y=("A", 0.5)).learn([QUESTION], ["A"], market)
    assert market.share(["x", "x", "stranger"]) == 0.5


@pytest.mark.parametrize(("name", "value"), [("stake", 0.0), ("stake", 1.5), ("floor", -0.1), ("floor", 1.0)])
def test_bad_markets_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be in .*got {value}"):
        Market(**{name: value})
