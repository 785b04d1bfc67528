"""A market: members stake wealth on what they say, and who was wrong pays who was right.

The paper names an economy of minds without its formulas; the rules here are of our own design.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mindworks.agents.society.assembly import Hearing
from mindworks.agents.society.speech import Statement, hear
from mindworks.agents.society.transcript import Transcript
from mindworks.agents.society.votes import tally, winner
from mindworks.errors import require

START = 1.0  # what a member owns when it first speaks


class Market:
    """One round in which every vote counts as much as its stake.

    A member stakes `stake` times its claimed confidence of its wealth, and never more than what it owns above `floor`.
    At the floor it is bankrupt: it may speak, but counts for nothing. Feedback settles: the stakes of those who were
    wrong are shared among those who were right, in proportion to theirs. Where all or none were right, nobody pays.
    Wealth is neither made nor lost; a settlement that does not sum to zero raises `ArithmeticError`.
    """

    def __init__(self, stake: float = 0.05, floor: float = 1e-3, seed: int = 0) -> None:
        require(0 < stake <= 1, f"stake must be in (0, 1], got {stake}")
        require(0 <= floor < START, f"floor must be in [0, {START}), got {floor}")
        self.stake, self.floor, self.seed = stake, floor, seed
        self.wealth: dict[str, float] = {}

    async def hold(self, hearing: Hearing) -> str | None:
        """The answer with the greatest stakes behind it; None where everyone who named one is bankrupt."""
        await hearing.interview()
        return self.count(hearing.transcript)

    def count(self, transcript: Transcript) -> str | None:
        """The answer with the greatest stakes in the first round of any transcript."""
        scores = tally(transcript.messages(1), transcript.choices, transcript.choices, self.staked)
        return winner(scores, self.seed, transcript.key)

    def staked(self, sender: str, statement: Statement) -> float:
        """What `sender` puts on `statement`."""
        wealth = self.wealth.get(sender, START)
        # rounding may leave a bankrupt member a hair below the floor
        return max(0.0, min(self.stake * statement.confidence * wealth, wealth - self.floor))

    def feedback(self, transcript: Transcript, truth: str) -> None:
        """Settle the first round of `transcript`."""
        stakes: dict[str, float] = {}
        right: set[str] = set()
        for message in transcript.messages(1):
            statement = hear(message.text, transcript.choices)
            self.wealth.setdefault(message.sender, START)
            if statement.answer is not None:
                stakes[message.sender] = self.staked(message.sender, statement)
                right |= {message.sender} if statement.answer == truth else set()
        for name, paid in transfers(stakes, right).items():
            self.wealth[name] += paid

    def share(self, names: Iterable[str]) -> float:
        """The fraction of all wealth that the members `names` own; 0 before anybody spoke."""
        total = math.fsum(self.wealth.values())
        return math.fsum(self.wealth.get(name, 0.0) for name in set(names)) / total if total else 0.0


def transfers(stakes: dict[str, float], right: set[str]) -> dict[str, float]:
    """What each member that staked receives (positive) or pays; the sum is zero.

    Raises `ArithmeticError` if rounding, or a stake that is no finite number, leaves another sum.
    """
    pot = math.fsum(stake for name, stake in stakes.items() if name not in right)
    winning = math.fsum(stake for name, stake in stakes.items() if name in right)
    if pot == 0 or winning == 0:
        return dict.fromkeys(stakes, 0.0)
    paid = {name: pot * (stake / winning) if name in right else -stake for name, stake in stakes.items()}
    if not abs(sum(paid.values())) <= max(1e-9 * pot, 1e-300):  # written so that nan fails too
        raise ArithmeticError(f"a settlement must sum to zero, got {sum(paid.values())} of {pot}")
    return paid
