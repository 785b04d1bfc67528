"""A budget is never overshot, whatever runs at once; prices are exact sums."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents.budget import Account, Amount, Budget, BudgetExceeded
from mindworks.agents.pricing import PICO, Price, picodollars, price_of
from mindworks.errors import InputError


def test_a_reservation_is_held_settled_and_given_back_once() -> None:
    async def main() -> None:
        budget = Budget(calls=3, tokens=100, usd=1e-6)
        first = await budget.reserve(Amount(1, 60, 400_000))
        assert budget.reserved == Amount(1, 60, 400_000)
        first.settle(Amount(1, 20, 100_000))
        first.settle(Amount(1, 20, 100_000))
        first.release()
        assert (budget.spent, budget.reserved) == (Amount(1, 20, 100_000), Amount())
        second = await budget.reserve(Amount(1, 80, 0))
        second.release()
        assert (budget.spent, budget.reserved) == (Amount(1, 20, 100_000), Amount())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("limits", "amount", "words"),
    [
        ({"calls": 2}, Amount(3), "budget of calls: the limit is 2, 0 spent, the next call may take 3"),
        ({"tokens": 9}, Amount(1, 10), "budget of tokens: the limit is 9, 0 spent, the next call may take 10"),
        (
            {"usd": 0.5},
            Amount(1, 0, PICO),
            "usd: the limit is 0.5 US dollars, 0 US dollars spent, .* 1 US dollars",
        ),
    ],
)
def test_what_cannot_be_paid_is_refused_at_once(limits: dict, amount: Amount, words: str) -> None:
    budget = Budget(**limits)
    with pytest.raises(BudgetExceeded, match=words):
        asyncio.run(budget.reserve(amount))
    assert budget.reserved == Amount()


def test_a_call_waits_for_what_others_hold_in_turn() -> None:
    async def main() -> list[str]:
        budget, said = Budget(tokens=10), []

        async def ask(name: str, tokens: int) -> None:
            try:
                (await budget.reserve(Amount(0, tokens))).settle(Amount(0, 1))
                said.append(name)
            except BudgetExceeded:
                said.append(f"{name} refused")

        held = await budget.reserve(Amount(0, 8))
        tasks = [asyncio.create_task(ask(name, tokens)) for name, tokens in (("big", 6), ("small", 1), ("huge", 9))]
        await asyncio.sleep(0)
        assert said == []
        assert budget.reserved == Amount(0, 8)
        held.settle(Amount(0, 2))
        await asyncio.gather(*tasks)
        assert (budget.spent, budget.reserved) == (Amount(0, 4), Amount())
        return said

    assert asyncio.run(main()) == ["big", "small", "huge refused"]


def test_one_who_waits_and_is_cancelled_holds_nothing_and_blocks_nobody() -> None:
    async def main() -> None:
        budget = Budget(calls=1)
        held = await budget.reserve(Amount(1))
        waiting = [asyncio.create_task(budget.reserve(Amount(1))) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        held.release()  # grants the second, which is cancelled before it runs
        await asyncio.sleep(0)
        waiting[1].cancel()
        reservation = await asyncio.wait_for(waiting[2], 1)
        assert budget.reserved == Amount(1)
        reservation.release()
        assert (budget.reserved, budget.spent) == (Amount(), Amount())

    asyncio.run(main())


def test_a_lost_call_is_counted_and_charged_only_where_asked() -> None:
    async def lose(budget: Budget) -> Budget:
        (await budget.reserve(Amount(1, 50))).lose()
        return budget

    mild, strict = asyncio.run(lose(Budget(calls=9))), asyncio.run(lose(Budget(calls=9, charge_lost=True)))
    assert mild.lost == strict.lost == Amount(1, 50)
    assert (mild.spent, strict.spent) == (Amount(), Amount(1, 50))


@settings(max_examples=60, deadline=None)
@given(
    limits=st.tuples(*(st.none() | st.integers(0, top) for top in (8, 60, 50))),
    calls=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 4), st.sampled_from(["ok", "fail", "cancel"])),
        max_size=25,
    ),
)
def test_spent_and_held_never_pass_the_limit(limits: tuple, calls: list) -> None:
    """Each of many calls at once reserves, waits, then settles at most what it held, fails, or is cancelled."""
    top_calls, tokens, micro = limits
    budget = Budget(top_calls, tokens, None if micro is None else micro / 1e6)
    paid: list[Amount] = []
    over: list[Amount] = []

    def look() -> None:
        total = budget.spent + budget.reserved
        over.extend([total] if budget.limit.short(total) or min(vars(budget.reserved).values()) < 0 else [])

    async def call(tokens: int, micro: int, steps: int, end: str) -> None:
        held = await budget.reserve(Amount(1, tokens, micro * 10**6))
        look()
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
                look()
            if end == "fail":
                raise OSError
            used = Amount(1, tokens // 2, micro * 10**6)
            held.settle(used)
            paid.append(used)
        finally:
            held.release()
            look()

    async def main() -> list:
        tasks = [asyncio.create_task(call(*words)) for words in calls]
        await asyncio.sleep(0)
        for task, words in zip(tasks, calls, strict=True):
            if words[-1] == "cancel":
                await asyncio.sleep(0)
                task.cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    ends = asyncio.run(main())
    assert over == []
    assert budget.reserved == Amount()
    assert budget.spent == sum(paid, Amount())
    for end, words in zip(ends, calls, strict=True):
        refused = isinstance(end, BudgetExceeded)
        assert end is None or refused or words[-1] != "ok"
        assert not refused or any(limit is not None for limit in limits)


def test_loops_in_several_threads_share_one_budget() -> None:
    budget, done, most = Budget(calls=40), [], []

    async def ask(rng: random.Random) -> None:
        held = await budget.reserve(Amount(1))
        most.append((budget.spent + budget.reserved).calls)
        await asyncio.sleep(rng.random() / 1000)
        if rng.random() < 0.3:
            held.release()
        else:
            held.settle(Amount(1))
            done.append(1)

    async def many(seed: int) -> None:
        rng = random.Random(seed)
        await asyncio.gather(*(ask(rng) for _ in range(30)), return_exceptions=True)

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(many(seed))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert max(most) <= 40
    assert budget.spent == Amount(calls=len(done))
    assert len(done) == 40
    assert budget.reserved == Amount()


def test_prices_are_exact_integers() -> None:
    price = Price(0.15, 0.6)
    assert price.cost(1, 0) == 150_000
    assert price.cost(0, 1) == 600_000
    assert price.cost(1_000_000, 1_000_000) == 750_000_000_000
    assert sum(price.cost(1, 1) for _ in range(1000)) == price.cost(1000, 1000)
    assert Price(1e-7, 0).cost(1, 0) == 1  # rounded up
    assert picodollars(0.1) == PICO // 10
    assert picodollars(0.3) == 3 * PICO // 10


def test_dated_names_have_the_price_of_their_model_and_unknown_ones_none() -> None:
    assert price_of("gpt-4o-2024-08-06") == price_of("gpt-4o") == Price(2.5, 10.0)
    assert price_of("gpt-4o-mini") == Price(0.15, 0.6)
    assert price_of("gpt-4o-audio") is None
    assert price_of("qwen3") is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Budget(calls=-1), "calls must be at least 0, or None for no limit, got -1"),
        (lambda: Budget(usd=float("nan")), "usd must be at least 0, or None for no limit, got nan"),
        (lambda: Price(-1, 0), "prompt must be a price of at least 0, got -1"),
        (lambda: Price(0, float("inf")), "completion must be a price of at least 0, got inf"),
    ],
)
def test_bad_limits_and_prices_are_refused(make, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_an_account_is_plain_values() -> None:
    account = Account()
    account.add(requests=2, answers=1, pico=PICO // 4)
    assert account.snapshot()["usd"] == 0.25
    assert account.snapshot()["requests"] == 2
    assert "pico" not in account.snapshot()
