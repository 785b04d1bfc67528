"""Organisers: from an objective in words and the candidates' descriptions, who should sit in the society."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mindworks.agents.messages import Message, quoted
from mindworks.agents.society.lots import ranked
from mindworks.agents.society.members import Member
from mindworks.errors import require

if TYPE_CHECKING:
    from mindworks.agents.models import ChatModel

_WORD = re.compile(r"[^\W_]+")
_TOO_COMMON = frozenset(
    ("a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "the", "to")
)


@dataclass(frozen=True)
class Candidate:
    """A member and what it is good for, in words."""

    member: Member
    description: str

    @property
    def name(self) -> str:
        """The member's name."""
        return self.member.name


def pick_by_words(objective: str, candidates: Sequence[Candidate], count: int, seed: int = 0) -> list[Member]:
    """The `count` members whose descriptions share most words with `objective`, in the order of the candidates.

    A word that few candidates use counts for more: 1 / (how many use it). Equal scores are decided by lot.
    """
    _require_candidates(candidates)
    require(1 <= count <= len(candidates), f"count must be between 1 and {len(candidates)}, got {count}")
    words = {candidate.name: _words(candidate.description) for candidate in candidates}
    wanted = sorted(_words(objective))
    users = {word: max(1, sum(word in used for used in words.values())) for word in wanted}
    scores = {name: sum(1 / users[word] for word in wanted if word in used) for name, used in words.items()}
    chosen = set(ranked(scores, seed, objective)[:count])
    return [candidate.member for candidate in candidates if candidate.name in chosen]


async def pick_by_model(
    objective: str, candidates: Sequence[Candidate], model: ChatModel, count: int | None = None
) -> list[Member]:
    """The members that a language model names, one per line, in the order of the candidates; at most `count` of them.

    The descriptions reach the model as quoted data. A line that is no candidate's name, apart from a list's marks and
    case, is passed over; the first `count` lines count. Raises `InputError` where no line names a candidate.
    """
    _require_candidates(candidates)
    require(count is None or count >= 1, f"count must be at least 1, got {count}")
    limit = "" if count is None else f" Name at most {count}."
    listed = quoted([Message(candidate.name, candidate.description) for candidate in candidates])
    text = (
        f"Who of the following should work on this objective?\n\nObjective: {objective}\n\n{listed}\n\n"
        f"Answer with their names alone, one per line.{limit}"
    )
    reply = (await model.chat([{"role": "user", "content": text}])).text
    names = {candidate.name.lower(): candidate.name for candidate in candidates}
    lines = (re.sub(r"^\s*(?:[-*•]|\d+[.)])?\s*", "", line).rstrip(" .,").lower() for line in reply.splitlines())
    found = list(dict.fromkeys(names[line] for line in lines if line in names))[:count]
    require(bool(found), f"model must name one of the candidates, one per line, got {reply!r}")
    return [candidate.member for candidate in candidates if candidate.name in found]


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.lower()) if word not in _TOO_COMMON}


def _require_candidates(candidates: Sequence[Candidate]) -> None:
    names = [candidate.name for candidate in candidates]
    require(bool(names), "candidates must be at least one, got []")
    require(len({name.lower() for name in names}) == len(names), f"candidates must have different names, got {names}")
