"""A hard budget of calls, tokens and money, and the account of what was used.

A call reserves the most it can take before it is made. What it took is settled after it; a call that fails or is
cancelled gives its reservation back. Spent and reserved together never pass the limit, whatever runs at the same time,
in one event loop or in several threads.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from dataclasses import dataclass, field

from mindworks.agents.pricing import PICO, picodollars
from mindworks.errors import require


class BudgetExceeded(RuntimeError):
    """The budget cannot pay for another call: the message names the limit, what is spent and what was asked for."""


@dataclass(frozen=True)
class Amount:
    """Calls, tokens of prompt and answer together, and money in picodollars."""

    calls: int = 0
    tokens: int = 0
    pico: int = 0

    @property
    def usd(self) -> float:
        """The money in US dollars."""
        return self.pico / PICO

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.calls + other.calls, self.tokens + other.tokens, self.pico + other.pico)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.calls - other.calls, self.tokens - other.tokens, self.pico - other.pico)


_NOTHING = Amount()


@dataclass(frozen=True)
class Limit:
    """The most that may be used of each; None where there is no limit."""

    calls: int | None = None
    tokens: int | None = None
    pico: int | None = None

    def short(self, amount: Amount) -> str:
        """Return the name of the first limit that `amount` passes, or ""."""
        for name in ("calls", "tokens", "pico"):
            limit = getattr(self, name)
            if limit is not None and getattr(amount, name) > limit:
                return name
        return ""


@dataclass(eq=False)
class _Waiter:
    amount: Amount
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]
    granted: bool = False


class Reservation:
    """A part of a budget that one call holds until `settle`, `release` or `lose`; further ones change nothing."""

    def __init__(self, budget: Budget, amount: Amount) -> None:
        self.budget, self.amount, self.open = budget, amount, True

    def settle(self, used: Amount) -> None:
        """Count `used` as spent and give the rest back."""
        self._close(used)

    def release(self) -> None:
        """Give everything back: the call was not made, or was refused."""
        self._close(_NOTHING)

    def lose(self) -> None:
        """The call was sent and no answer came: give everything back, or count all of it if the budget says so."""
        self._close(self.amount if self.budget.charge_lost else _NOTHING, lost=self.amount)

    def _close(self, used: Amount, lost: Amount = _NOTHING) -> None:
        if self.open:
            self.open = False
            self.budget._return(self.amount, used, lost)


class Budget:
    """At most so many `calls`, `tokens` and US dollars (`usd`); None sets no limit.

    It holds as long as no answer takes more than was reserved for it, which is for the endpoint to keep: what an answer
    took beyond that is counted, and what follows is refused. Where no price is known, tokens are counted and dollars
    are not. With `charge_lost` a call that was sent and never answered stays charged in full, because its provider may
    bill it; without, it is counted in `lost` only.
    """

    def __init__(
        self,
        calls: int | None = None,
        tokens: int | None = None,
        usd: float | None = None,
        charge_lost: bool = False,
    ) -> None:
        for name, value in (("calls", calls), ("tokens", tokens), ("usd", usd)):
            fine = value is None or (math.isfinite(value) and value >= 0)
            require(fine, f"{name} must be at least 0, or None for no limit, got {value}")
        self.limit = Limit(calls, tokens, None if usd is None else picodollars(usd))
        self.charge_lost = charge_lost
        self.spent = self.reserved = self.lost = _NOTHING
        self._waiters: deque[_Waiter] = deque()
        self._lock = threading.RLock()

    @property
    def bounds_answers(self) -> bool:
        """Whether tokens or money are limited, so that the length of an answer has to be."""
        return self.limit.tokens is not None or self.limit.pico is not None

    async def reserve(self, amount: Amount) -> Reservation:
        """Hold `amount`, first come first served; wait while only what others hold stands in the way.

        Raises BudgetExceeded once what is spent leaves too little.
        """
        with self._lock:
            self._refuse(amount)
            if not self._waiters and self._fits(amount):
                self.reserved += amount
                return Reservation(self, amount)
            loop = asyncio.get_running_loop()
            waiter = _Waiter(amount, loop, loop.create_future())
            self._waiters.append(waiter)
        try:
            await waiter.future
        except BaseException:
            self._withdraw(waiter)
            raise
        return Reservation(self, amount)

    def _fits(self, amount: Amount) -> bool:
        return not self.limit.short(self.spent + self.reserved + amount)

    def _refuse(self, amount: Amount) -> None:
        short = self.limit.short(self.spent + amount)
        if not short:
            return
        values = (getattr(part, short) for part in (self.limit, self.spent, amount))
        limit, spent, asked = (f"{value / PICO:.6g} US dollars" if short == "pico" else f"{value}" for value in values)
        name = "usd" if short == "pico" else short
        raise BudgetExceeded(f"budget of {name}: the limit is {limit}, {spent} spent, the next call may take {asked}")

    def _return(self, amount: Amount, used: Amount, lost: Amount) -> None:
        with self._lock:
            self.reserved -= amount
            self.spent += used
            self.lost += lost
            self._serve()

    def _withdraw(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.granted:
                self.reserved -= waiter.amount
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            self._serve()

    def _serve(self) -> None:
        """Grant or refuse those who wait, in their order, up to the first who has to go on waiting."""
        while self._waiters:
            waiter, refusal = self._waiters[0], None
            try:
                self._refuse(waiter.amount)
            except BudgetExceeded as error:
                refusal = error
            if refusal is None and not self._fits(waiter.amount):
                return
            self._waiters.popleft()
            try:
                waiter.loop.call_soon_threadsafe(_finish, waiter.future, refusal)
            except RuntimeError:  # its loop is closed: nobody waits any more
                continue
            if refusal is None:
                waiter.granted = True
                self.reserved += waiter.amount


def _finish(future: asyncio.Future[None], refusal: BudgetExceeded | None) -> None:
    if future.done():
        return
    if refusal is None:
        future.set_result(None)
    else:
        future.set_exception(refusal)


@dataclass
class Account:
    """What one model was asked and what it took; `snapshot` for a record."""

    requests: int = 0
    """requests sent to the endpoint, repeated ones included"""
    answers: int = 0
    """answers that could be used"""
    spoiled: int = 0
    """answers that came, were paid for and could not be used: no text, no JSON, a stream that was cut"""
    cached: int = 0
    """answers that took no call"""
    retries: int = 0
    """requests that repeated a failed one"""
    lost: int = 0
    """requests that were sent and never answered: time-outs, cut connections, cancelled calls"""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    pico: int = 0
    """what the priced answers cost, in picodollars"""
    unpriced: int = 0
    """answers of a model without a known price"""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def usd(self) -> float:
        """What the priced answers cost, in US dollars."""
        return self.pico / PICO

    def add(self, **more: int) -> None:
        """Add to the fields named."""
        with self._lock:
            for name, value in more.items():
                setattr(self, name, getattr(self, name) + value)

    def snapshot(self) -> dict[str, int | float]:
        """Return the counts and the dollars as plain values."""
        with self._lock:
            plain = {name: value for name, value in vars(self).items() if name not in ("_lock", "pico")}
            return {**plain, "usd": self.usd}
