"""Mindstorm rounds without a leader: the answers with most votes go back to everyone, until few are left."""

from __future__ import annotations

from dataclasses import dataclass

from mindworks.agents.society.assembly import Hearing
from mindworks.agents.society.speech import shortlist
from mindworks.agents.society.votes import leading, tally, winner
from mindworks.errors import require


@dataclass(frozen=True)
class Mindstorm:
    """Rounds of one vote each: everyone is told what all said and asked again about the answers that lead.

    `keep` is how many answers stay after the first round, after the second, and so on. The last round's votes decide,
    equal counts by lot. With `share` off, members are asked again but not told what the others said.
    """

    keep: tuple[int, ...] = (3, 2)
    share: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        require_keep(self.keep)

    async def hold(self, hearing: Hearing) -> str | None:
        """The answer with the most votes of the last round."""
        question = hearing.question
        options = question.choices
        messages = await hearing.interview()
        for count in self.keep:
            scores = tally(messages, question.choices, options)
            if not scores:
                return None
            options = leading(scores, count, self.seed, question.key)
            messages = await hearing.interview(shortlist(question.text, options), messages if self.share else ())
        return winner(tally(messages, question.choices, options), self.seed, question.key)


def require_keep(keep: tuple[int, ...]) -> None:
    """Refuse numbers of answers to keep that leave no choice or that grow."""
    falling = all(count >= 2 for count in keep) and list(keep) == sorted(keep, reverse=True)
    require(falling, f"keep must be numbers of at least 2 that do not grow, got {keep}")
