"""The count: each member's text is heard once and adds its weight to one answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mindworks.agents.messages import Message
from mindworks.agents.society.lots import ranked
from mindworks.agents.society.speech import Statement, hear

Weight = Callable[[str, Statement], float]


def tally(
    messages: Iterable[Message], choices: tuple[str, ...], options: tuple[str, ...], weight: Weight | None = None
) -> dict[str, float]:
    """The weight behind each of `options`, of members that named one of them; empty where nobody did.

    A message is heard with all `choices` in mind. `weight(sender, statement)` is 1 by default; a member of weight 0
    has no say, and one of negative weight speaks against what it names.
    """
    scores = dict.fromkeys(options, 0.0)
    heard = False
    for message in messages:
        statement = hear(message.text, choices)
        if statement.answer in scores and statement.answer is not None:
            value = 1.0 if weight is None else weight(message.sender, statement)
            scores[statement.answer] += value
            heard = heard or value != 0
    return scores if heard else {}


def winner(scores: dict[str, float], seed: int, *words: str) -> str | None:
    """The answer with the greatest score, drawn by lot among equals; None where there are no scores."""
    return ranked(scores, seed, *words)[0] if scores else None


def leading(scores: dict[str, float], count: int, seed: int, *words: str) -> tuple[str, ...]:
    """The `count` answers with the greatest scores, in the order in which `scores` names them."""
    kept = set(ranked(scores, seed, *words)[:count])
    return tuple(answer for answer in scores if answer in kept)
