"""Democracy: every member says what it thinks, each has one vote."""

from __future__ import annotations

from dataclasses import dataclass

from mindworks.agents.society.assembly import Hearing
from mindworks.agents.society.speech import Statement
from mindworks.agents.society.transcript import Transcript
from mindworks.agents.society.votes import tally, winner


@dataclass(frozen=True)
class Democracy:
    """One round, one vote each, equal counts decided by lot.

    `by_confidence` weighs a vote by the confidence that its speaker claims. It is off by default for a reason: whoever
    claims to be certain then counts most, true or not.
    """

    by_confidence: bool = False
    seed: int = 0

    async def hold(self, hearing: Hearing) -> str | None:
        """The answer with the most votes."""
        await hearing.interview()
        return self.count(hearing.transcript)

    def count(self, transcript: Transcript) -> str | None:
        """The answer with the most votes in the first round of any transcript."""
        weight, choices = _claimed if self.by_confidence else None, transcript.choices
        return winner(tally(transcript.messages(1), choices, choices, weight), self.seed, transcript.key)


def _claimed(sender: str, statement: Statement) -> float:
    return statement.confidence
