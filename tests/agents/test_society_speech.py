"""What is said is heard again, and nothing is heard that was not said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents.society import CONFIDENCE, hear, heard_shortlist, lot, ranked, say, shortlist
from mindworks.agents.society.speech import UNSTATED, require_choices
from mindworks.errors import InputError

DIGITS, LETTERS, CITIES = tuple("0123456789"), tuple("ABCD"), ("York", "New York", "Bath")


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([DIGITS, LETTERS, CITIES]), st.integers(0, 9), st.sampled_from(list(CONFIDENCE.values())))
def test_what_is_said_is_heard(choices: tuple[str, ...], place: int, confidence: float) -> None:
    answer = choices[place % len(choices)]
    assert hear(say(answer, confidence), choices) == (answer, confidence)


@pytest.mark.parametrize(
    ("confidence", "phrase"), [(0.0, "guessing"), (0.4, "not sure"), (0.7, "fairly sure"), (0.9, "certain")]
)
def test_the_nearest_phrase_is_said(confidence: float, phrase: str) -> None:
    assert phrase in say("3", confidence)


@pytest.mark.parametrize(
    ("text", "choices", "answer"),
    [
        ("The answer is (B).", LETTERS, "B"),
        ("the answer is: B", LETTERS, "B"),
        ("All in all it is a 3.", DIGITS, "3"),
        ("B", LETTERS, "B"),
        ("(B) because A is wrong", LETTERS, "B"),
        ("I think it is new york. I am certain.", CITIES, "New York"),
        ("I think it is a trap.", LETTERS, None),  # "a" is an article
        ("A thing is what it is.", LETTERS, None),
        ("It is 35.", DIGITS, None),
        ("It is 3.5 at most.", DIGITS, None),
        ("I do not think it is B.", LETTERS, None),
        ("I don't think it is B. I think it is C.", LETTERS, "C"),
        ("It is not B.", LETTERS, None),
        ("I think it is B. I think it is C.", LETTERS, None),  # two answers are none
        ("I think it is B. Yes, it is B.", LETTERS, "B"),
        ("", LETTERS, None),
    ],
)
def test_answers_in_free_text(text: str, choices: tuple[str, ...], answer: str | None) -> None:
    assert hear(text, choices).answer == answer


def test_confidence_is_the_phrase_that_agrees_with_itself() -> None:
    assert hear("It is B. I am CERTAIN.", LETTERS).confidence == 0.95
    assert hear("It is B.", LETTERS).confidence == UNSTATED
    assert hear("It is B. I am certain. I am not sure.", LETTERS).confidence == UNSTATED


def test_one_text_is_one_vote_however_often_it_says_so() -> None:
    stuffed = "I think it is 3. I am certain.\nmessage from reader 2\nI think it is 3. I am certain."
    assert hear(stuffed, DIGITS) == ("3", 0.95)


def test_a_shortlist_is_heard_from_the_question_alone() -> None:
    asked = shortlist("Which digit is it?", ("8", "3"))
    assert heard_shortlist(asked, DIGITS) == ("3", "8")
    assert heard_shortlist("Which digit is it?", DIGITS) == DIGITS
    assert heard_shortlist(shortlist(asked, ("3", "5")), DIGITS) == ("3", "5")  # the last one counts
    assert heard_shortlist(shortlist("Which?", ("x",)), DIGITS) == DIGITS


@pytest.mark.parametrize("choices", [("A",), (), ("A", "a"), ("A", ""), ("A", " B"), ("A", "B|C"), ("A", "B\n")])
def test_choices_that_cannot_be_told_apart_are_refused(choices: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="choices must"):
        require_choices(choices)


def test_lots_depend_on_seed_and_words_alone() -> None:
    assert lot(0, "a", "b") == lot(0, "a", "b")
    assert len({lot(0, "ab", "c"), lot(0, "a", "bc"), lot(1, "ab", "c")}) == 3
    firsts = [ranked({"x": 1.0, "y": 1.0, "z": 0.0}, seed)[0] for seed in range(400)]
    assert set(firsts) == {"x", "y"}
    assert 140 < firsts.count("x") < 260  # six standard deviations of a fair coin
    assert ranked({"x": 1.0, "y": 3.0, "z": 2.0}, 0) == ["y", "z", "x"]
