"""Replies as models write them, and the option that each chooses; the order of the mindstorm experiments beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindworks.agents.choices import LETTERS, Verdict, judge_choice, read_choice, read_choice_original, read_letter
from mindworks.errors import InputError

ANIMALS = ("cat", "dog", "horse", "sea horse")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is (B).", 1),
        ("the answer is (b)", 1),
        ("B", 1),
        ("(b)", 1),
        ("b)", 1),
        ("**B**", 1),
        ("B.", 1),
        (" B\n", 1),
        ("Option B", 1),
        ("B. A dog barks, (A) does not.", 1),
        ("(B) dog", 1),
        ("Answer: B", 1),
        ("**Answer:** B", 1),
        ("Answer:\n\n**(B)**", 1),
        ("The correct option is B because (A) meows.", 1),
        ("The correct answer would be option B", 1),
        ("The answer is: the letter B.", 1),
        (r"So \boxed{B}", 1),
        (r"So \boxed{\text{(B)}}, not A", 1),
        ("(A) is wrong, (C) is wrong.\nB", 1),
        ("At first I thought the answer is A. But the answer is B.", 1),
        ("Final answer: B. Some say the answer is C.", 1),
        ("A is wrong. The answer is not A. The answer is B.", 1),
        ("It must be B, I think.", 1),
        ("The answer is B, I think.", 1),
        ("A is correct", 0),
        ("Answer: A because it meows", 0),
        ("answer is a", 0),
        ("Answer: a.", 0),
        ("The answer is a dog.", 1),
        ("Answer: A dog", 1),
        ("The answer is dog", 1),
        ("dog", 1),
        ("It is a DOG!", 1),
        ("a sea horse", 3),
        ("The answer is a sea   horse", 3),
        ("The answer is (A), the dog", 0),
    ],
)
def test_a_reply_is_read_as_a_person_would(text: str, expected: int) -> None:
    assert read_choice(text, ANIMALS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "A or B",
        "Both A and B",
        "The answer is A or B.",
        "The answer is (A) and (B)",
        "The answer is A/B",
        "(A) or (B)",
        "cat or dog",
        "The answer is not (B)",
        "It is not B",
        "It is not the dog.",
        "It isn't a dog.",
        "Answer: E",
        "Z",
        "A) cat: no\nB) dog: yes",
        "dogma and catalogue",
        "They are animals.",
    ],
)
def test_an_unclear_reply_is_none(text: str) -> None:
    assert read_choice(text, ANIMALS) is None


def test_a_reply_is_not_scored_by_its_first_letter() -> None:
    options = tuple(f"option text {letter}" for letter in LETTERS)
    assert read_choice("The answer is (B).", options) == 1
    assert read_choice("Thus (C).", options) == 2


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("The answer is 5.", ("15", "5", "5.2", "-5"), 1),
        ("The answer is 5.2.", ("15", "5", "5.2", "-5"), 2),
        ("The answer is -5", ("15", "5", "5.2", "-5"), 3),
        ("It is not a cat, it is a dog", ANIMALS, 1),
        ("It is 15", ("15", "5", "5.2", "-5"), 0),
        ("The answer is none of the above.", ("one", "none of the above"), 1),
        ("It is the road.", ("air", "water", "road", "road"), 2),
        ("Vitamin C is in an orange", ("lemon", "lime", "tree", "orange"), None),
        ("new york city", ("new york", "york city"), None),
        ("It is $x^2$ (of course)", ("$x^2$", "$x$"), 0),
        ("anything", ("", "x"), None),
        ("The answer is I", tuple("123456789"), 8),
        ("The answer is I think 3", tuple("123456789"), 8),
    ],
)
def test_options_of_other_kinds(text: str, options: tuple[str, ...], expected: int | None) -> None:
    assert read_choice(text, options) == expected


FRAMES = ["{}", "({})", "{}.", "The answer is {}.", "The answer is ({}).", "Answer: **{}**", "Hm.\n\nFinal answer: {}"]


@given(st.data(), st.sampled_from(FRAMES), st.integers(2, 26))
def test_every_letter_is_read_in_every_frame(data: st.DataObject, frame: str, count: int) -> None:
    index = data.draw(st.integers(0, count - 1))
    options = [f"thing {number}" for number in range(count)]
    assert read_choice(frame.format(LETTERS[index]), options) == index
    if "(" in frame:
        assert read_choice(frame.format(LETTERS[index].lower()), options) == index


@given(st.text(alphabet=" \n()ABCab.:*answer is`dogcat\\boxed{}", max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert read_choice(text, ANIMALS) in (None, 0, 1, 2, 3)
    assert read_choice_original(text, ANIMALS) in (None, 0, 1, 2, 3)


def test_a_vote_is_read_without_the_options() -> None:
    assert read_letter("The answer is (B).") == "B"
    assert read_letter("It is E") is None
    assert read_letter("It is E", 5) == "E"
    assert read_letter("A cat") is None
    assert read_letter("A or B") is None


def test_long_runs_of_blanks_are_read_in_one_pass() -> None:
    # Quadratic patterns would take minutes here.
    for filling in (" ", "*", "answer is ", "a ", "(", "option: "):
        assert read_choice("answer is " + filling * 20_000 + "?", ("x", "y")) in (None, 0)


def test_the_original_reads_option_texts_first_and_anywhere() -> None:
    options = ("cat", "category", "dog")
    assert read_choice_original("(b) category", options) == 0  # "cat" is a part of it
    assert read_choice("(b) category", options) == 1
    assert read_choice_original("(c), not the cat", options) == 0
    assert read_choice("The answer is (c), not the cat", options) == 2
    assert read_choice_original("(B)", options) == 1
    assert read_choice_original("b)", options) == 1
    assert read_choice_original("B", options) is None
    assert read_choice_original("(a) or (b)", options) == 0


def test_what_cannot_be_read_is_a_failure_and_no_guess() -> None:
    assert judge_choice("The answer is (B).", ANIMALS, 1) == Verdict(True, 1, False)
    assert judge_choice("The answer is (B).", ANIMALS, 0) == Verdict(False, 1, False)
    assert judge_choice("no idea", ANIMALS, 0) == Verdict(False, None, True)
    assert judge_choice(None, ANIMALS, 0) == Verdict(False, None, True)
    assert judge_choice("B", ("dog", "dog", "cat"), 0) == Verdict(True, 1, False)


def test_guesses_are_drawn_when_asked_for() -> None:
    def guesses(seed: int) -> list[Verdict]:
        rng = np.random.default_rng(seed)
        return [judge_choice("no idea", ANIMALS, 1, original=True, guess=rng) for _ in range(200)]

    drawn = guesses(0)
    assert drawn == guesses(0)
    assert all(verdict.failed for verdict in drawn)
    assert {verdict.choice for verdict in drawn} == {0, 1, 2, 3}
    assert 20 < sum(verdict.right for verdict in drawn) < 80
    assert judge_choice("dog", ANIMALS, 1, original=True, guess=np.random.default_rng(0)) == Verdict(True, 1, False)


def test_bad_input_is_refused() -> None:
    for options in ((), ("one",), "text", tuple("ab") * 14):
        with pytest.raises(InputError, match="options must be 2 to 26"):
            read_choice("A", options)
    with pytest.raises(InputError, match="answer must be from 0 to 3, got 4"):
        judge_choice("A", ANIMALS, 4)
