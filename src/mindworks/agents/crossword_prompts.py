"""What crossword members ask a language model, and the boards that they pass on; text both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mindworks.agents.crosswords import BLANK, CONFIDENCES, EMPTY, SIDE, SLOTS, board_text, words
from mindworks.agents.messages import Message, quoted

PROPOSE = "Propose words for this crossword."
VALUE = "Can this word still be completed?"
CHECK = "Is this word the answer to its clue?"
ADVISE = "Give advice for the next attempt at this crossword."

_STATE = re.compile(
    rf"^(?P<closed>closed )?board\n(?P<grid>(?:[A-Z{BLANK}]{{{SIDE}}}(?:\n|\Z)){{{SIDE}}})(?:advice: (?P<advice>.*))?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class State:
    """A board on its way from one member to the next."""

    board: str = EMPTY
    """25 letters or blanks"""
    advice: str = ""
    """one line for whoever goes on"""
    closed: bool = False
    """whether a word on it was found impossible; nobody builds on it"""


def state_text(states: Iterable[State]) -> str:
    """Return states as one text, which `read_states` reads."""
    return "\n\n".join(map(_written, states))


def _written(state: State) -> str:
    text = f"{'closed ' * state.closed}board\n{board_text(state.board)}"
    # Advice comes from a model: on one line it can forge no board.
    return f"{text}\nadvice: {_one_line(state.advice)}" if state.advice.strip() else text


def read_states(texts: Sequence[str]) -> tuple[State, ...]:
    """Return the distinct states in `texts` in their order; an empty board where there is none."""
    found = [
        State(match["grid"].replace("\n", ""), match["advice"] or "", bool(match["closed"]))
        for text in texts
        for match in _STATE.finditer(text)
    ]
    return tuple(dict.fromkeys(found)) or (State(),)


def propose_prompt(clues: Sequence[str], state: State) -> str:
    """Return the question for words that go on from a state."""
    triples = zip(SLOTS, clues, words(state.board), strict=True)
    lines = [f"{slot}. {_one_line(clue)}: {word}" for slot, clue, word in triples]
    form = (
        f"Each word has {SIDE} letters. One line per word, such as: h1. apple (certain). In brackets stands how sure "
        f"you are: {', '.join(CONFIDENCES)}. Several words for one place are welcome. Nothing else."
    )
    parts = [
        PROPOSE,
        f"The board ({BLANK} is a blank):\n{board_text(state.board)}",
        "Rows h1 to h5 and columns v1 to v5, each with its clue and its letters so far:\n" + "\n".join(lines),
        form,
    ]
    if state.advice:
        parts.append(quoted([Message("reflection", state.advice)]))
    return "\n\n".join(parts)


def value_prompt(clue: str, pattern: str) -> str:
    """Return the question whether a word with blanks can still be completed."""
    return f"{VALUE}\n\n{_one_line(clue)}: {pattern}\n\nAnswer with one word: sure, maybe or impossible."


def check_prompt(clue: str, word: str) -> str:
    """Return the question whether a full word is right."""
    return f"{CHECK}\n\n{_one_line(clue)}: {word}\n\nAnswer with one word: yes or no."


def advise_prompt(board: str, findings: Sequence[str]) -> str:
    """Return the question for advice, given a board and what was found about its words."""
    found = "\n".join(findings)
    return f"{ADVISE}\n\nThe last board:\n{board_text(board)}\n\nWhat was found:\n{found}\n\nTwo sentences at most."


def _one_line(text: str) -> str:
    return " ".join(text.split())
