"""Which option a reply chooses, and whether that is right.

A reply that cannot be read is no answer. It counts as a failure, never as a guess, unless a caller asks for guesses.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mindworks.errors import require

if TYPE_CHECKING:
    import numpy as np

LETTERS = string.ascii_uppercase
_EMPHASIS = r"[\s*_`\"']*+"  # possessive: long runs of blanks are read once
_HEAD = re.compile(
    r"\b(?P<final>final\s+)?(?:answer|option|choice)\b[*_`]*"
    r"(?:\s+(?:is|was|would\s+be|should\s+be|must\s+be)\b\s*:?|\s*[:=])",
    re.IGNORECASE,
)
_NAMED = rf"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer)\b{_EMPHASIS})?"
_NOT_A_WORD = r"(?![\w'’]|-\w)"
_NO_ARTICLE = r"(?:[AI](?!\s+(?!(?:and|or|is|was)\b)\w)|[B-HJ-Z])"
_MARKED = r"[(\[{](?P<inner>[A-Za-z])[)\]}]|(?P<open>[A-Za-z])[)\]]"
_STATED = re.compile(
    rf"{_EMPHASIS}(?i:{_NAMED}){_EMPHASIS}(?:{_MARKED}"
    rf"|(?P<upper>[A-Z]){_NOT_A_WORD}|(?P<lower>[a-z])(?=[*_`\"']*(?:[.,:;!]?\s*$|[.,:;!]\s)))",
    re.MULTILINE,
)
_RIVAL = re.compile(
    rf"{_EMPHASIS}(?:,|/|&|\+|\band\b|\bor\b){_EMPHASIS}"
    rf"(?:[(\[]?(?P<marked>[A-Za-z])[)\]]|(?P<bare>{_NO_ARTICLE}){_NOT_A_WORD})"
)
_ALONE = re.compile(rf"{_EMPHASIS}(?:[Oo]ption\s+)?[(\[{{]?(?P<letter>[A-Za-z])[)\]}}]?[.,:;!]?{_EMPHASIS}")
_LEADING = re.compile(rf"{_EMPHASIS}(?:[(\[](?P<inner>[A-Za-z])[)\]]|(?P<open>[A-Za-z])[).:])(?=[\s*]|$)")
_NOT_DENIED = "".join(rf"(?<!{no} )(?<!{no} a )(?<!{no} the )(?<!{no} \()" for no in (r"\b(?i:not)", "n't", "n’t"))
_SENTENCE, _STATEMENTS = 500, 200  # characters of a statement that are read; statements that are read, from the last
_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*\(?(?P<letter>[A-Za-z])\)?\s*\}")


def read_choice(text: str, options: Sequence[str]) -> int | None:
    """Return the index of the option that `text` chooses; None if it chooses none or more than one.

    Letters come before option texts. The order: a letter that is all there is, or the last line; the last statement
    such as "The answer is (B).", final answers before others; an option's text in that statement; a letter that opens
    the reply; the one letter in brackets; the one option whose text occurs as whole words, where an option that is part
    of a longer one does not count; the one capital that stands alone. "a" and "A" before a word are articles where the
    word begins another option.
    """
    _require_options(options)
    for reader in (_alone, _statement, _opening, _brackets):
        found = reader(text, options)
        if found is not None:
            return found if found >= 0 else None
    said, lone = _option_texts(text, options), _capitals(text, options)
    both = said | lone
    return both.pop() if len(both) == 1 else None


def read_letter(text: str, count: int = 4) -> str | None:
    """Return the letter of the first `count` that `text` chooses; None as for `read_choice`. A reader of votes."""
    found = read_choice(text, ("",) * count)
    return None if found is None else LETTERS[found]


def read_choice_original(text: str, options: Sequence[str]) -> int | None:
    """Return the index that the code of the mindstorm experiments would read; None where it would guess.

    Kept for parity: the first option whose text is a substring wins, also inside a longer word or option, and letters
    come last. Zhuge et al., "Mindstorms in Natural Language-Based Societies of Mind", 2023, arXiv:2305.17066.
    """
    _require_options(options)
    low = text.lower()
    texts = [index for index, option in enumerate(options) if option.lower() in low]
    # "(a)" holds "a)", so one test does for both patterns.
    marks = [index for index in range(len(options)) if f"{LETTERS[index].lower()})" in low]
    return next(iter(texts + marks), None)


@dataclass(frozen=True)
class Verdict:
    """What one reply was worth."""

    right: bool
    """whether the option counted is the right one"""
    choice: int | None
    """the option that counts; None where none could be read and none was guessed"""
    failed: bool
    """whether no option could be read, guessed or not"""


def judge_choice(
    text: str | None,
    options: Sequence[str],
    answer: int,
    *,
    original: bool = False,
    guess: np.random.Generator | None = None,
) -> Verdict:
    """Judge a reply to a question with options; `answer` is the index of the right one.

    A reply of None and one that cannot be read are failures and wrong. For parity with the mindstorm experiments,
    `original` reads in their order, and `guess` draws an option for each failure, as they did.
    """
    _require_options(options)
    require(0 <= answer < len(options), f"answer must be from 0 to {len(options) - 1}, got {answer}")
    read = read_choice_original if original else read_choice
    choice = None if text is None else read(text, options)
    failed = choice is None
    if failed and guess is not None:
        choice = int(guess.integers(len(options)))
    # Options that read the same are the same; A-OKVQA has some.
    return Verdict(choice is not None and options[choice] == options[answer], choice, failed)


# -- readers of choices: each returns an index, None for nothing to read, or -1 for more than one ---------------------


def _require_options(options: Sequence[str]) -> None:
    listed = not isinstance(options, str) and 2 <= len(options) <= len(LETTERS)
    require(listed, f"options must be 2 to {len(LETTERS)} texts, got {options!r}")


def _index(letter: str | None, options: Sequence[str]) -> int | None:
    index = LETTERS.find(letter.upper()) if letter else -1
    return index if 0 <= index < len(options) else None


def _alone(text: str, options: Sequence[str]) -> int | None:
    """A letter that is the whole reply, or its last line; a boxed one is as good."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines[-1:]:
        match = _ALONE.fullmatch(line)
        if match:
            return _index(match["letter"], options)
    boxed = [_index(match["letter"], options) for match in _BOXED.finditer(text)]
    return boxed[-1] if boxed else None


def _statement(text: str, options: Sequence[str]) -> int | None:
    """The last statement of an answer that can be read; final answers come before others."""
    heads = list(_HEAD.finditer(text))
    for finals in (True, False):
        for head in [head for head in heads if (head["final"] is not None) == finals][: -_STATEMENTS - 1 : -1]:
            found = _stated(text[head.end() : head.end() + _SENTENCE], options)
            if found is not None:
                return found
    return None


def _stated(rest: str, options: Sequence[str]) -> int | None:
    match = _STATED.match(rest)
    index = _index(_letter(match), options) if match else None
    if match and index is not None:
        rival = _RIVAL.match(rest, match.end())
        if rival and _index(_letter(rival), options) not in (None, index):
            return -1
        if match["upper"] in ("A", "I") and re.match(r"\s+\w", rest[match.end() :]):
            begun = _begun(rest, match.start("upper"), options)
            return index if begun is None else begun
        return index
    said = _option_texts(re.split(r"[\n.!?](?:\s|$)", rest.lstrip(), maxsplit=1)[0], options)
    if len(said) != 1:
        return None
    index = said.pop()
    negated = re.match(r"\s*(?:not|neither|none)\b", rest, re.IGNORECASE)
    return None if negated and not _begins(_plain(rest), _plain(options[index])) else index


def _letter(match: re.Match[str]) -> str | None:
    return next((letter for letter in match.groupdict().values() if letter), None)


def _begun(rest: str, at: int, options: Sequence[str]) -> int | None:
    """The one option that the words from `at` begin with, where the first may be an article."""
    words = _plain(rest[at:])
    starts = [words, words.partition(" ")[2]]
    begun = {index for index, option in enumerate(options) if any(_begins(start, _plain(option)) for start in starts)}
    return begun.pop() if len(begun) == 1 else None


def _begins(words: str, option: str) -> bool:
    return words.startswith(option) and not words[len(option) : len(option) + 1].isalnum()


def _opening(text: str, options: Sequence[str]) -> int | None:
    """A marked letter that opens the reply, unless other lines open with one too: then it lists the options."""
    lines = [match for line in text.splitlines() if (match := _LEADING.match(line))]
    opens = _LEADING.match(text)
    if not opens or len(lines) > 1:
        return None
    return -1 if _RIVAL.match(text, opens.end()) else _index(_letter(opens), options)


def _brackets(text: str, options: Sequence[str]) -> int | None:
    marks = re.finditer(rf"{_NOT_DENIED}(?:\(([A-Za-z])\)|\[([A-Za-z])\]|(?<![\w(\[])([A-Za-z])\))", text)
    found = {index for mark in marks if (index := _index(next(filter(None, mark.groups())), options)) is not None}
    return None if not found else found.pop() if len(found) == 1 else -1


def _capitals(text: str, options: Sequence[str]) -> set[int]:
    """Capitals that stand alone, but for A and I before a word."""
    letters = re.findall(rf"{_NOT_DENIED}(?<![\w'’.-]){_NO_ARTICLE}{_NOT_A_WORD}", text)
    return {index for letter in letters if (index := _index(letter, options)) is not None}


def _option_texts(text: str, options: Sequence[str]) -> set[int]:
    """Options whose texts occur as whole words, not only inside a longer one's text; the first of equal ones."""
    found: dict[tuple[int, int], int] = {}
    for index, option in enumerate(options):
        for start, end in _spans(text, option):
            found.setdefault((start, -end), index)
    said, reach = set(), -1
    for start, negative in sorted(found):
        if -negative > reach:
            said.add(found[start, negative])
            reach = -negative
    return said


def _spans(text: str, option: str) -> Iterator[tuple[int, int]]:
    if not option.strip():
        return
    words = r"\s+".join(map(re.escape, option.rstrip(" \t\r\n.").split())) or re.escape(option.strip())
    # "5" is neither in "15", "-5" nor "5.2".
    before = rf"{_NOT_DENIED}(?<!\w)(?<!\d[.,])" + (r"(?<!-)" if option.strip()[0].isdigit() else "")
    for match in re.finditer(rf"{before}{words}(?!\w|[.,]\d)", text, re.IGNORECASE):
        yield match.span()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").strip()
