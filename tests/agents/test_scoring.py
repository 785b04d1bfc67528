"""Answers matched after normalisation, programs judged by their tests, captions by their embeddings."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mindworks.agents.scoring import code_in, code_program, exact_match, final_answer, gaia_match, passes, similarity
from mindworks.errors import InputError

PROMPT = '''from typing import List


def twice(x: int) -> int:
    return 2 * x


def add_twice(numbers: List[int]) -> int:
    """Twice the sum.
    >>> add_twice([1, 2])
    6
    """
'''
TEST = "def check(candidate):\n    assert candidate([1, 2]) == 6\n    assert candidate([]) == 0\n"
BODY = "    return twice(sum(numbers))\n"
WHOLE = "def add_twice(numbers: List[int]) -> int:\n    return twice(sum(numbers))\n"


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        ("17", "17", True),
        ("17.0", "17", True),
        ("$1,700", "1700", True),
        ("17 %", "17", True),
        ("17 apples", "17", False),
        ("18", "17", False),
        ("1e3", "1000", True),
        ("nonsense", "inf", False),
        ("nan", "nan", True),  # as words
        ("1_7", "17", False),
        ("a, b", "a,b", True),
        ("A; B", "a, b", True),
        ("a, b", "b, a", False),
        ("a", "a, b", False),
        ("1.0, $2", "1, 2", True),
        ("1.5, b", "1, b", False),
        ("a., b", "a, b", False),  # elements keep their punctuation
        ("Sea gull.", "seagull", True),
        ("The Rock", "rock", False),
        ("", "rock", False),
        ("!", "?", False),
        ("?", "?", True),
        ("", "?", False),
    ],
)
def test_gaia_answers_are_normalised(answer: str, expected: str, same: bool) -> None:
    assert gaia_match(answer, expected) is same


@example("0\x1f", "a")  # white space that float() does not know
@given(st.text(max_size=30), st.text("abcxyz", min_size=1, max_size=9))
def test_an_answer_matches_itself(text: str, word: str) -> None:
    assert gaia_match(text, text)
    assert exact_match(f" {word.upper()}.\n", word)
    assert not exact_match(f"{word}{word}", word)


def test_exact_means_apart_from_case_blanks_and_the_full_stop() -> None:
    assert exact_match(" Paris.\n", "paris")
    assert exact_match("New   York", "new york")
    assert not exact_match("Paris, France", "Paris")
    assert not exact_match("", "")
    assert not exact_match("Paris", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thinking.\nFINAL ANSWER: 17", "17"),
        ("FINAL ANSWER: 3\nNo.\nFinal answer: **17**\nDone.", "17"),
        ("Final answer:\n17", "17"),
        ("The final answer is 17", "17"),
        (" 17 ", "17"),
        ("FINAL ANSWER:", ""),
    ],
)
def test_the_final_answer_is_found(text: str, expected: str) -> None:
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (BODY, BODY),
        (f"Here:\n```python\n{WHOLE}```\nDone.", WHOLE),
        (f"~~~\n{WHOLE}~~~", WHOLE),
        (f"```\n{WHOLE}", WHOLE),
        (f"```python\n{WHOLE}```\nUse it:\n```python\nprint(add_twice([1]))\n```", WHOLE),
        ("```\nx = 1\n```\n```\nx = 2\n```", "x = 2\n"),
        (f"````\n{WHOLE}```\n````", f"{WHOLE}```\n"),
    ],
)
def test_code_is_taken_out_of_its_fence(reply: str, code: str) -> None:
    assert code_in(reply, "add_twice") == code


def test_imports_and_helpers_stay_above_a_whole_function() -> None:
    for reply in (BODY, WHOLE, f"```python\n{WHOLE}```"):
        program = code_program(reply, PROMPT, TEST, "add_twice")
        names: dict[str, object] = {}
        exec(program, names)  # raises where the test fails
        assert program.count("def add_twice(") == 1
    with pytest.raises(InputError, match="prompt must define other"):
        code_program(BODY, PROMPT, TEST, "other")


@dataclass(frozen=True)
class Ended:
    """What a run leaves."""

    ok: bool
    stdout: str


async def run_here(program: str) -> Ended:
    ended = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    return Ended(ended.returncode == 0, ended.stdout)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        (BODY, True),
        (f"```python\n{WHOLE}```", True),
        (f"```python\nprint('so', end='')\nprint()\n{WHOLE}```", True),
        ("    return 0\n", False),
        ("    return (\n", False),
        ("    raise SystemExit(0)\n", False),
        ("    print('passed ' + '0' * 64)\n    raise SystemExit(0)\n", False),
    ],
)
def test_a_program_passes_only_if_its_test_ends(reply: str, right: bool) -> None:
    assert asyncio.run(passes(reply, PROMPT, TEST, "add_twice", run_here)) is right


def test_a_run_that_ends_badly_has_not_passed() -> None:
    async def killed(program: str) -> Ended:
        ended = await run_here(program)
        return Ended(False, ended.stdout)

    assert asyncio.run(passes(BODY, PROMPT, TEST, "add_twice", killed)) is False


def test_captions_are_compared_by_the_cosine() -> None:
    vectors = {"a": [3.0, 4.0], "b": [4.0, 3.0], "c": [-3.0, -4.0], "long": [1.0, 2.0, 3.0], "zero": [0.0, 0.0]}
    assert similarity("a", "b", vectors.__getitem__) == pytest.approx(96)
    assert similarity("a", "a", vectors.__getitem__) == pytest.approx(100)
    assert similarity("a", "c", vectors.__getitem__) == pytest.approx(-100)
    with pytest.raises(InputError, match="embed must keep its length, got 2 and 3"):
        similarity("a", "long", vectors.__getitem__)
    with pytest.raises(InputError, match="embed must give finite vectors"):
        similarity("a", "zero", vectors.__getitem__)
