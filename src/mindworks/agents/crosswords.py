"""Crosswords of 5 x 5 letters without black cells: boards, words and what they score.

A board is a string of 25 capitals, row by row, with `_` for a blank. The slots h1 to h5 are its rows, v1 to v5 its
columns. As in "Language Agents as Optimizable Graphs", arXiv:2402.16823, which takes them from "Tree of Thoughts",
arXiv:2305.10601.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mindworks.errors import require

SIDE = 5
BLANK = "_"
EMPTY = BLANK * SIDE**2
SLOTS = (*(f"h{row + 1}" for row in range(SIDE)), *(f"v{column + 1}" for column in range(SIDE)))
CONFIDENCES = {"certain": 1.0, "high": 0.5, "medium": 0.2, "low": 0.1}
"""What a proposal counts, by the word that stands in brackets behind it."""

_BOARD = re.compile(rf"[A-Z{BLANK}]{{{SIDE**2}}}")
_WORD = re.compile(rf"[A-Z]{{{SIDE}}}")
_GRID = re.compile(rf"^(?:[A-Z{BLANK}]{{{SIDE}}}(?:\n|\Z)){{{SIDE}}}", re.MULTILINE)
_PROPOSAL = re.compile(rf"^\s*([hv][1-{SIDE}])\.\s*([A-Za-z]{{{SIDE}}})\s*\(({'|'.join(CONFIDENCES)})\)", re.MULTILINE)


@dataclass(frozen=True)
class Crossword:
    """One puzzle. Raises `InputError` for another number of clues or letters."""

    clues: tuple[str, ...]
    """ten, in the order of `SLOTS`"""
    solution: str
    """the full board; members never see it"""

    def __post_init__(self) -> None:
        require(len(self.clues) == len(SLOTS), f"clues must be {len(SLOTS)}, got {len(self.clues)}")
        _require_board("solution", self.solution)
        require(BLANK not in self.solution, f"solution must have no blank, got {self.solution!r}")


@dataclass(frozen=True)
class Proposal:
    """A word for a slot."""

    slot: str
    """one of `SLOTS`"""
    word: str
    """five capitals"""
    confidence: str
    """one of `CONFIDENCES`"""

    @property
    def score(self) -> float:
        """What the proposal counts."""
        return CONFIDENCES[self.confidence]


def cells(slot: str) -> slice:
    """Return where the letters of a slot stand on a board."""
    require(slot in SLOTS, f"slot must be one of {', '.join(SLOTS)}, got {slot!r}")
    at = int(slot[1]) - 1
    return slice(SIDE * at, SIDE * (at + 1)) if slot[0] == "h" else slice(at, None, SIDE)


def words(board: str) -> tuple[str, ...]:
    """Return the ten words of a board in the order of `SLOTS`, with blanks."""
    _require_board("board", board)
    return tuple(board[cells(slot)] for slot in SLOTS)


def fits(pattern: str, word: str) -> bool:
    """Whether `word` has the letters that `pattern` has, of one length."""
    return len(pattern) == len(word) and all(have in (BLANK, want) for have, want in zip(pattern, word, strict=True))


def placed(board: str, slot: str, word: str) -> str:
    """Return the board with a word written into a slot, over what stood there."""
    _require_board("board", board)
    require(_WORD.fullmatch(word) is not None, f"word must be {SIDE} capitals, got {word!r}")
    letters = list(board)
    letters[cells(slot)] = word
    return "".join(letters)


def word_accuracy(board: str, solution: str) -> float:
    """Return the share of the ten words that are right."""
    pairs = list(zip(words(board), words(solution), strict=True))
    return sum(one == other for one, other in pairs) / len(pairs)


def letter_accuracy(board: str, solution: str) -> float:
    """Return the share of the 25 letters that are right."""
    pairs = list(zip("".join(words(board)[:SIDE]), "".join(words(solution)[:SIDE]), strict=True))
    return sum(one == other for one, other in pairs) / len(pairs)


def best_word_accuracy(text: str | None, solution: str) -> float:
    """Return the highest word accuracy of the boards in `text`; 0 for none.

    The best board is found by the solution: the utility of arXiv:2402.16823, and more than a solver could know.
    """
    return max((word_accuracy(board, solution) for board in read_boards(text or "")), default=0.0)


def board_text(board: str) -> str:
    """Return a board as five lines."""
    return "\n".join(words(board)[:SIDE])


def read_boards(text: str) -> tuple[str, ...]:
    """Return the boards in `text`: every five lines in a row that hold five capitals or blanks each."""
    return tuple(match[0].replace("\n", "") for match in _GRID.finditer(text))


def read_proposals(text: str) -> tuple[Proposal, ...]:
    """Return the lines of the form `h1. apple (certain)`, the most confident first and else in their order."""
    found = [Proposal(slot, word.upper(), confidence) for slot, word, confidence in _PROPOSAL.findall(text)]
    return tuple(sorted(found, key=lambda proposal: -proposal.score))


def best_consistent(board: str, proposals: Iterable[Proposal]) -> str:
    """Return the board with the proposals whose scores add up to the most, of those that contradict nothing.

    Exact: rows are tried in every combination, and each column then takes its best word by itself, as columns share no
    cell. A word proposed twice counts once, with its higher score. Letters on the board stay.
    """
    _require_board("board", board)
    offers: dict[str, dict[str, float]] = {slot: {} for slot in SLOTS}
    for proposal in proposals:
        if fits(board[cells(proposal.slot)], proposal.word):
            known = offers[proposal.slot]
            known[proposal.word] = max(proposal.score, known.get(proposal.word, 0.0))
    return max(_fillings(board, offers), key=lambda filling: filling[0])[1]


def _fillings(board: str, offers: dict[str, dict[str, float]]) -> Iterator[tuple[float, str]]:
    """The value and the board of every combination of rows, each with its best columns."""
    for value, rows in _rows(board, offers, SLOTS[:SIDE]):
        filled = rows
        for slot in SLOTS[SIDE:]:
            open_ = [(score, word) for word, score in offers[slot].items() if fits(rows[cells(slot)], word)]
            if open_:
                score, word = max(open_, key=lambda offer: offer[0])
                value, filled = value + score, placed(filled, slot, word)
        yield value, filled


def _rows(board: str, offers: dict[str, dict[str, float]], slots: Sequence[str]) -> Iterator[tuple[float, str]]:
    if not slots:
        yield 0.0, board
        return
    for value, rest in _rows(board, offers, slots[1:]):
        for word, score in offers[slots[0]].items():
            yield value + score, placed(rest, slots[0], word)
        yield value, rest


def _require_board(name: str, board: str) -> None:
    require(_BOARD.fullmatch(board) is not None, f"{name} must be {SIDE**2} capitals or {BLANK}, got {board!r}")
