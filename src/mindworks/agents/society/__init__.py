"""Societies: members that speak text only, and the protocols by which they come to an answer.

Zhuge et al., "Mindstorms in Natural Language-Based Societies of Mind", arXiv:2305.17066. The small networks, which
need torch, load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mindworks.agents.society.assembly import Deliberation, Hearing, Learning, Society
from mindworks.agents.society.democracy import Democracy
from mindworks.agents.society.lots import draw, lot, ranked
from mindworks.agents.society.market import Market, transfers
from mindworks.agents.society.members import Expert, Ignorant, Liar, Member, Person, Question, Speaker, prompt
from mindworks.agents.society.mindstorm import Mindstorm
from mindworks.agents.society.monarchy import Chief, Judge, Leader, Monarchy
from mindworks.agents.society.organiser import Candidate, pick_by_model, pick_by_words
from mindworks.agents.society.speech import CONFIDENCE, Statement, hear, heard_shortlist, say, shortlist
from mindworks.agents.society.transcript import Entry, Transcript
from mindworks.agents.society.votes import leading, tally, winner

if TYPE_CHECKING:
    from mindworks.agents.society.digits import Reader, Readers, ReadersConfig, Sight, train_readers

_WITH_TORCH = ("Reader", "Readers", "ReadersConfig", "Sight", "train_readers")

__all__ = [
    "CONFIDENCE",
    "Candidate",
    "Chief",
    "Deliberation",
    "Democracy",
    "Entry",
    "Expert",
    "Hearing",
    "Ignorant",
    "Judge",
    "Leader",
    "Learning",
    "Liar",
    "Market",
    "Member",
    "Mindstorm",
    "Monarchy",
    "Person",
    "Question",
    "Reader",
    "Readers",
    "ReadersConfig",
    "Sight",
    "Society",
    "Speaker",
    "Statement",
    "Transcript",
    "draw",
    "hear",
    "heard_shortlist",
    "leading",
    "lot",
    "pick_by_model",
    "pick_by_words",
    "prompt",
    "ranked",
    "say",
    "shortlist",
    "tally",
    "train_readers",
    "transfers",
    "winner",
]


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(import_module("mindworks.agents.society.digits"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
