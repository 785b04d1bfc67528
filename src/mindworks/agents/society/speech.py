"""What members say and how it is heard: plain English sentences out, an answer and a confidence parsed back.

Nothing passes between members but these strings. What cannot be heard counts as no answer.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from mindworks.errors import require

CONFIDENCE = {"I am only guessing": 0.25, "I am not sure": 0.5, "I am fairly sure": 0.75, "I am certain": 0.95}
UNSTATED = 0.5  # what a member that names an answer and no confidence is taken to have
FORM = "I think it is X. I am fairly sure."
_PHRASES = list(CONFIDENCE)
_BETWEEN_LEVELS = [(low + high) / 2 for low, high in pairwise(CONFIDENCE.values())]
_BY_PHRASE = {phrase.lower(): value for phrase, value in CONFIDENCE.items()}
_SURE = re.compile("|".join(map(re.escape, CONFIDENCE)), re.IGNORECASE)
_SEPARATOR = " | "
_SHORTLIST = re.compile(r"It is one of these: (.+?)\. Which one is it\?")
_LEAD = r"(?<!n't think )(?<!not think )(?<!doubt )(?i:\bit is|\bit's|\banswer is|\banswer:|\bI choose|\bI vote for)"
_BETWEEN = r"(?i::?\s+(?:an? |the |probably |most likely |option )?|:?\s*)[\"'(\[*]*"


class Statement(NamedTuple):
    """An answer, None where none was heard, and how sure its speaker claims to be, in [0, 1]."""

    answer: str | None
    confidence: float


def say(answer: str, confidence: float) -> str:
    """A sentence that names `answer`, and the phrase of `CONFIDENCE` nearest to `confidence`, in [0, 1]."""
    return f"I think it is {answer}. {_PHRASES[bisect(_BETWEEN_LEVELS, confidence)]}."


def hear(text: str, choices: tuple[str, ...]) -> Statement:
    """What `text` says about a question with these possible answers.

    An answer counts after words such as "it is" or "the answer is"; else if the text is nothing but the answer; else
    if it stands in parentheses, as in "(B) because". Two different answers in one text are none. Answers of one letter
    keep their case ("a" is an article); for others case does not matter. The only or the agreeing phrases of
    `CONFIDENCE` give the confidence, `UNSTATED` where there is none or two contradict each other.
    """
    named, alone, bracketed = _patterns(choices)
    found = named.findall(text) or alone.findall(text) or bracketed.findall(text)
    if len(found) > 1 and len(set(map(str.lower, found))) > 1:
        found = []
    claims = {claim.lower() for claim in _SURE.findall(text)}
    sure = _BY_PHRASE[claims.pop()] if len(claims) == 1 else UNSTATED
    return Statement(_spelled(found[0], choices) if found else None, sure)


def shortlist(question: str, options: Sequence[str]) -> str:
    """`question` followed by a sentence that narrows it to `options`."""
    return f"{question} It is one of these: {_SEPARATOR.join(options)}. Which one is it?"


@lru_cache(maxsize=1024)  # one question goes to every member; the members' own texts are parsed one by one
def heard_shortlist(text: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The choices that the last such sentence of `text` names, in the order of `choices`; all where it names none."""
    found = _SHORTLIST.findall(text)
    named = set(found[-1].split(_SEPARATOR)) if found else set()
    return tuple(choice for choice in choices if choice in named) or choices


def require_choices(choices: Sequence[str]) -> None:
    """Refuse possible answers that could not be told apart in a sentence."""
    require(len(choices) >= 2, f"choices must be at least two answers, got {list(choices)}")
    for choice in choices:
        spoken = isinstance(choice, str) and choice == choice.strip() != "" and choice.isprintable()
        require(spoken and "|" not in choice, f"choices must be plain words without a bar, got {choice!r}")
    # letters keep their case, so "a" and "A" would differ where longer words do not
    folded = {choice.lower() for choice in choices}
    require(len(folded) == len(choices), f"choices must differ from each other, got {list(choices)}")


@lru_cache(maxsize=256)
def _patterns(choices: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    spelled = (re.escape(choice) for choice in sorted(choices, key=len, reverse=True))  # "New York" before "New"
    words = "|".join(word if len(word) == 1 else f"(?i:{word})" for word in spelled)
    answer = rf"({words})(?!\w|\.\d)"  # 3 is not heard in 35 nor in 3.5
    return (
        re.compile(_LEAD + _BETWEEN + answer),
        re.compile(rf"\A\W*{answer}\W*\Z"),
        re.compile(rf"\({answer}\)"),
    )


def _spelled(found: str, choices: tuple[str, ...]) -> str:
    if found in choices:
        return found
    return next(choice for choice in choices if choice.lower() == found.lower())
