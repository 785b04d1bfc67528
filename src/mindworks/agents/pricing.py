"""Prices of tokens: exact sums in whole 10^-12 US dollars, and a table of a few models.

A price of `p` dollars per million tokens is `p * 10^6` picodollars per token, so sums of costs are sums of integers:
they do not depend on the order in which answers arrive.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from mindworks.errors import require

PICO = 10**12
"""picodollars in a US dollar"""


def picodollars(usd: float) -> int:
    """Return `usd` dollars in whole picodollars, rounded down."""
    return math.floor(Fraction(str(usd)) * PICO)


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens; both at least 0."""

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        for name in ("prompt", "completion"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"{name} must be a price of at least 0, got {value}")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return what so many tokens cost, in picodollars; part of a picodollar counts as a whole one."""
        prompt, completion = Fraction(str(self.prompt)), Fraction(str(self.completion))
        return math.ceil((prompt * prompt_tokens + completion * completion_tokens) * 10**6)


# As several public price lists gave them on 2026-08-09. Prices change: pass your own where money matters.
PRICES = {
    "gpt-4.1": Price(2.0, 8.0),
    "gpt-4.1-mini": Price(0.4, 1.6),
    "gpt-4.1-nano": Price(0.1, 0.4),
    "gpt-4o": Price(2.5, 10.0),
    "gpt-4o-mini": Price(0.15, 0.6),
}
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def price_of(model: str) -> Price | None:
    """Return the price of `model` in `PRICES`, with or without the date at the end of its name; None if unknown."""
    return PRICES.get(_DATE.sub("", model))
