"""Multi-step returns: by hand, against their definitions in float64, the compiled kernel against the plain form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mindworks.core import returns
from mindworks.errors import InputError

NAN = math.nan
FAST = [True, False]


@pytest.fixture(params=FAST, ids=["kernel", "plain"], autouse=True)
def way(request, monkeypatch) -> bool:
    """Every test runs on the compiled kernel and on the plain form."""
    if request.param:
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(returns, "_kernels", lambda: None)
    return request.param


def row(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def flags(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.bool)


def close(found: Tensor, *wanted: float) -> None:
    torch.testing.assert_close(found, row(*wanted), rtol=1e-12, atol=1e-12, equal_nan=True)


# -- by hand -----------------------------------------------------------------------------------------------------------

REWARD, DISCOUNT, VALUE = row(1, 2, 3), row(0.5, 0.5, 0.5), row(10, 20, 4)


def test_one_step_by_hand() -> None:
    close(returns.one_step(REWARD, DISCOUNT, VALUE), 6, 12, 5)


def test_n_step_by_hand() -> None:
    close(returns.n_step(REWARD, DISCOUNT, VALUE), 1 + (2 + 5 / 2) / 2, 2 + 5 / 2, 5)
    close(returns.n_step(REWARD, DISCOUNT, VALUE, lookahead=2), 1 + 12 / 2, 2 + 5 / 2, 5)
    close(returns.n_step(REWARD, DISCOUNT, VALUE, lookahead=1), 6, 12, 5)


def test_peng_by_hand() -> None:
    # y_1 = 2 + (15 + 5 / 4) / 2, y_0 = 1 + (7.5 + y_1 / 4) / 2
    close(returns.peng(REWARD, DISCOUNT, VALUE, 0.25), 1 + (7.5 + 10.125 / 4) / 2, 10.125, 5)
    close(returns.peng(REWARD, DISCOUNT, VALUE, 0.25, lookahead=2), 1 + (7.5 + 12 / 4) / 2, 10.125, 5)


def test_traced_by_hand() -> None:
    taken, trace = row(8, 16, NAN), row(0.5, 0.25, NAN)
    # y_1 = 2 + (20 + (5 - 16) / 4) / 2, y_0 = 1 + (10 + (y_1 - 8) / 2) / 2
    close(returns.traced(REWARD, DISCOUNT, VALUE, taken, trace), 1 + (10 + 2.625 / 2) / 2, 10.625, 5)
    close(returns.traced(REWARD, DISCOUNT, VALUE, taken, trace, lookahead=2), 1 + (10 + 4 / 2) / 2, 10.625, 5)


def test_highway_by_hand() -> None:
    # the gate is closed at step 1 (20 > 5), and open at step 0 (12 > 10)
    close(returns.highway(REWARD, DISCOUNT, VALUE), 1 + 12 / 2, 12, 5)
    close(returns.highway(REWARD, DISCOUNT, row(10, 4.5, 4)), 6, 4.5, 5)
    close(returns.highway(row(0, 0, 8), row(1, 1, 1), row(0, 0, 0)), 8, 8, 8)
    close(returns.highway(row(0, 0, 8), row(1, 1, 1), row(0, 0, 0), lookahead=2), 0, 8, 8)


def test_highway_soft_by_hand() -> None:
    gate = 1 / (1 + math.exp(-2 * (5 - 20)))
    second = 2 + (20 + gate * (5 - 20)) / 2
    gate = 1 / (1 + math.exp(-2 * (second - 10)))
    close(returns.highway_soft(REWARD, DISCOUNT, VALUE, 2.0), 1 + (10 + gate * (second - 10)) / 2, second, 5)


# -- ends of trajectories ----------------------------------------------------------------------------------------------

Call = Callable[..., Tensor]


def _traced(r: Tensor, d: Tensor, v: Tensor, cut: Tensor | None = None, lookahead: int | None = None) -> Tensor:
    return returns.traced(r, d, v, 0.5 * v + 1, torch.full_like(r, 0.7), cut, lookahead)


def _peng(r: Tensor, d: Tensor, v: Tensor, cut: Tensor | None = None, lookahead: int | None = None) -> Tensor:
    return returns.peng(r, d, v, 0.6, cut, lookahead)


def _soft(r: Tensor, d: Tensor, v: Tensor, cut: Tensor | None = None, lookahead: int | None = None) -> Tensor:
    return returns.highway_soft(r, d, v, 1.5, cut, lookahead)


CALLS: dict[str, Call] = {
    "n_step": returns.n_step,
    "peng": _peng,
    "traced": _traced,
    "highway": returns.highway,
    "highway_soft": _soft,
}
each = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
looks = pytest.mark.parametrize("lookahead", [None, 1, 2, 3, 9])


@each
@looks
def test_a_terminated_step_is_worth_its_reward(call: Call, lookahead: int | None) -> None:
    d = row(0.9, 0, 0.9)
    far = call(row(1, 2, 100), d, row(3, NAN, 5), None, lookahead)
    near = call(row(1, 2), d[:2], row(3, 0), None, lookahead)
    assert far[1].item() == 2.0
    torch.testing.assert_close(far[:2], near, rtol=0, atol=0)


@each
@looks
def test_a_truncated_step_bootstraps_and_does_not_leak(call: Call, lookahead: int | None) -> None:
    r, d, v = row(1, 2, 100, 7), row(0.9, 0.8, 0.9, 0.5), row(3, 4, 5, 6)
    found = call(r, d, v, flags(0, 1, 0, 0), lookahead)
    assert found[1].item() == pytest.approx(2 + 0.8 * 4)
    torch.testing.assert_close(found[:2], call(r[:2], d[:2], v[:2], None, lookahead), rtol=0, atol=0)
    torch.testing.assert_close(found[2:], call(r[2:], d[2:], v[2:], None, lookahead), rtol=0, atol=0)


@each
@looks
def test_nan_after_a_cut_stays_there(call: Call, lookahead: int | None) -> None:
    r, d, v = row(1, 2, 3, NAN, NAN), row(0.9, 0.8, 0.7, NAN, NAN), row(3, 4, 5, NAN, NAN)
    parts = [part.requires_grad_() for part in (r, d, v)]
    found = call(*parts, flags(0, 0, 1, 0, 0), lookahead)
    short = call(*(part[:3].detach() for part in parts), None, lookahead)
    torch.testing.assert_close(found[:3].detach(), short, rtol=1e-12, atol=1e-12)
    assert found[3:].isnan().all()
    for gradient in torch.autograd.grad(found[:3].sum(), parts):
        assert gradient[:3].isfinite().all()


@each
def test_nan_within_a_trajectory_is_not_hidden(call: Call) -> None:
    d = row(0.9, 0.9, 0.9, 0.9)
    assert call(row(1, 2, NAN, 4), d, row(9, 9, 9, 9))[:3].isnan().all()
    assert call(row(1, 2, 3, 4), d, row(0, 0, 0, NAN))[3].isnan()
    if call is not returns.n_step:  # it does not read this one
        assert call(row(1, 2, 3, 4), d, row(0, NAN, 0, 0))[1].isnan()


@each
@looks
def test_a_single_step_is_one_step(call: Call, lookahead: int | None) -> None:
    close(call(row(2), row(0.5), row(8), None, lookahead), 6)


# -- definitions -------------------------------------------------------------------------------------------------------


def sum_of(r: list[float], d: list[float], v: list[float], t: int, k: int) -> float:
    """The return of k steps from t: k rewards and the value behind them."""
    total, weight = 0.0, 1.0
    for i in range(t, t + k):
        total += weight * r[i]
        weight *= d[i]
    return total + weight * v[t + k - 1]


def depth_of(d: list[float], cut: list[bool], t: int, lookahead: int | None) -> int:
    """How many steps a target at t may look ahead."""
    depth = 1
    while t + depth < len(d) and not cut[t + depth - 1] and d[t + depth - 1] != 0 and depth != lookahead:
        depth += 1
    return depth


def wanted(name: str, case: dict[str, list[Any]], t: int, lookahead: int | None) -> float:
    """The target from its definition as a sum, a mixture or a maximum over depths, in plain floats."""
    r, d, v = case["r"], case["d"], case["v"]
    depth = depth_of(d, case["cut"], t, lookahead)
    returned = [sum_of(r, d, v, t, k) for k in range(1, depth + 1)]
    if name == "n_step":
        return returned[-1]
    if name == "highway":
        return max(returned)
    if name == "peng":
        shares = [0.4 * 0.6 ** (k - 1) for k in range(1, depth)] + [0.6 ** (depth - 1)]
        return sum(share * one for share, one in zip(shares, returned, strict=True))
    if name == "traced":  # the value before, and all later errors of one step, discounted and traced
        total, weight = r[t] + d[t] * v[t], 1.0
        for i in range(t + 1, t + depth):
            weight *= d[i - 1] * 0.7
            total += weight * (r[i] + d[i] * v[i] - (0.5 * v[i - 1] + 1))
        return total
    y = r[t + depth - 1] + d[t + depth - 1] * v[t + depth - 1]
    for i in range(t + depth - 2, t - 1, -1):
        gate = 1 / (1 + math.exp(-1.5 * (y - v[i])))
        y = r[i] + d[i] * ((1 - gate) * v[i] + gate * y)
    return y


numbers = st.floats(-10, 10, allow_nan=False, width=32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[dict[str, list[Any]]], int | None]:
    """Up to three rows of up to eight steps, with a lookahead."""
    count, rows = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    of = {
        "r": numbers,
        "v": numbers,
        "d": st.sampled_from([0.0, 0.5, 0.9, 1.0]),
        "cut": st.sampled_from([False] * 3 + [True]),
    }
    found = [
        {name: draw(st.lists(kind, min_size=count, max_size=count)) for name, kind in of.items()} for _ in range(rows)
    ]
    return found, draw(st.one_of(st.none(), st.integers(1, 10)))


@given(drawn=cases())
@settings(max_examples=60, deadline=None)
def test_every_return_is_what_its_definition_says(drawn: tuple[list[dict[str, list[Any]]], int | None]) -> None:
    rows, lookahead = drawn
    r, d, v = (torch.tensor([one[name] for one in rows], dtype=torch.float64) for name in ("r", "d", "v"))
    cut = torch.tensor([one["cut"] for one in rows])
    for name, call in CALLS.items():
        found = call(r, d, v, cut, lookahead)
        truth = [[wanted(name, one, t, lookahead) for t in range(len(one["r"]))] for one in rows]
        torch.testing.assert_close(found, torch.tensor(truth, dtype=torch.float64), rtol=1e-9, atol=1e-9)


# -- relations between them --------------------------------------------------------------------------------------------


def steps(rows: int = 37, count: int = 23, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """Reward, discount, value and cut; some steps terminate, some are truncated."""
    g = torch.Generator().manual_seed(seed)
    reward, value = (torch.randn(rows, count, generator=g, dtype=torch.float64).to(dtype) for _ in range(2))
    over = torch.rand(rows, count, generator=g) < 0.05
    discount = torch.where(over, 0.0, 0.95).to(dtype)
    return [reward, discount, value, over | (torch.rand(rows, count, generator=g) < 0.05)]


@looks
def test_peng_ends_in_one_step_and_n_step(lookahead: int | None) -> None:
    r, d, v, cut = steps()
    torch.testing.assert_close(returns.peng(r, d, v, 0.0, cut, lookahead), returns.one_step(r, d, v))
    torch.testing.assert_close(returns.peng(r, d, v, 1.0, cut, lookahead), returns.n_step(r, d, v, cut, lookahead))


@looks
def test_a_full_trace_telescopes_to_the_return_of_the_data(lookahead: int | None) -> None:
    r, d, v, cut = steps()
    ones = torch.ones_like(r)
    found = returns.traced(r, d, v, v, ones, cut, lookahead)
    torch.testing.assert_close(found, returns.n_step(r, d, v, cut, lookahead))
    taken = torch.randn(v.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(returns.traced(r, d, v, taken, 0 * ones, cut, lookahead), returns.one_step(r, d, v))


@looks
def test_sharpness_runs_from_a_mixture_to_the_gate(lookahead: int | None) -> None:
    r, d, v, cut = steps()
    hard = returns.highway(r, d, v, cut, lookahead)
    half = returns.peng(r, d, v, 0.5, cut, lookahead)
    torch.testing.assert_close(returns.highway_soft(r, d, v, 0.0, cut, lookahead), half)
    assert torch.equal(returns.highway_soft(r, d, v, math.inf, cut, lookahead), hard)
    torch.testing.assert_close(returns.highway_soft(r, d, v, 1e7, cut, lookahead), hard, rtol=0, atol=1e-5)
    soft = returns.highway_soft(r, d, v, 3.0, cut, lookahead)
    assert (soft <= hard + 1e-12).all()
    assert (soft >= returns.one_step(r, d, v) - 0.279 * d / 3 - 1e-12).all()
    if lookahead != 1:
        assert (hard - soft).max() > 0.05


def test_highway_is_never_below_a_shorter_lookahead() -> None:
    r, d, v, cut = steps(dtype=torch.float32)
    before = returns.one_step(r, d, v)
    for lookahead in [*range(1, 25), None]:
        found = returns.highway(r, d, v, cut, lookahead)
        assert (found >= before).all()
        assert (found >= returns.n_step(r, d, v, cut, lookahead) - 1e-5).all()
        before = found
    assert (before > returns.one_step(r, d, v)).any()


def _deterministic(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Successors and rewards `[S, A]` of a deterministic MDP of 12 states, and its optimal Q at discount 0.9."""
    g = torch.Generator().manual_seed(seed)
    successor = torch.randint(12, (12, 3), generator=g)
    reward = torch.randn(12, 3, generator=g, dtype=torch.float64)
    q = torch.zeros_like(reward)
    for _ in range(400):
        q = reward + 0.9 * q.amax(-1)[successor]
    return successor, reward, q


@pytest.mark.parametrize("seed", range(3))
def test_highway_never_exceeds_the_optimum_of_a_deterministic_mdp(seed: int) -> None:
    successor, reward, optimum = _deterministic(seed)
    g = torch.Generator().manual_seed(seed)
    state, action = torch.zeros(16, 41, dtype=torch.long), torch.randint(3, (16, 40), generator=g)
    state[:, 0] = torch.randint(12, (16,), generator=g)
    for t in range(40):
        state[:, t + 1] = successor[state[:, t], action[:, t]]
    below = optimum.amax(-1) - 3 * torch.rand(12, generator=g, dtype=torch.float64)
    r, v = reward[state[:, :-1], action], below[state[:, 1:]]
    d = torch.full_like(r, 0.9)
    q = optimum[state[:, :-1], action]
    far, near = returns.highway(r, d, v), returns.one_step(r, d, v)
    assert (far <= q + 1e-9).all()
    assert ((q - far).mean() < 0.9 * (q - near).mean()).item()
    assert (returns.highway(r, d, v + 4) > q).any()


def test_highway_overestimates_where_rewards_are_random() -> None:
    g = torch.Generator().manual_seed(0)
    r = torch.randn(4000, 8, generator=g, dtype=torch.float64)  # of mean 0: every state is worth 0
    zeros, ones = torch.zeros_like(r), torch.ones_like(r)
    bias = [returns.highway(r, ones, zeros, None, n)[:, 0].mean().item() for n in (1, 2, 8)]
    assert abs(bias[0]) < 0.05
    assert bias[1] == pytest.approx(1 / math.sqrt(2 * math.pi), abs=0.05)  # E max(0, r) of the second reward
    assert bias[2] > 2 * bias[1]
    assert returns.highway_soft(r, ones, zeros, 1.0)[:, 0].mean().item() < 0.8 * bias[2]


# -- batches, types, gradients -----------------------------------------------------------------------------------------


@each
@looks
def test_a_batch_is_its_rows(call: Call, lookahead: int | None) -> None:
    parts = [part.reshape(37, 23) for part in steps()]
    found = call(*parts, lookahead)
    single = torch.stack([call(*(part[i] for part in parts), lookahead) for i in range(37)])
    torch.testing.assert_close(found, single, rtol=0, atol=1e-14)  # torch's own sigmoid depends on the place
    cubes = [torch.stack([part, part.flip(0)]).movedim(0, 1) for part in parts]  # two leading dimensions, strided
    torch.testing.assert_close(call(*cubes, lookahead)[:, 0], found, rtol=0, atol=1e-14)
    assert call(*(part[:0] for part in parts), lookahead).shape == (0, 23)


@each
@looks
def test_float32_follows_float64(call: Call, lookahead: int | None) -> None:
    found = call(*steps(dtype=torch.float32), lookahead)
    assert found.dtype == torch.float32
    exact = call(
        *(part.double() if part.is_floating_point() else part for part in steps(dtype=torch.float32)), lookahead
    )
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@each
@pytest.mark.parametrize("lookahead", [None, 2])
def test_gradients_are_those_of_finite_differences(call: Call, lookahead: int | None) -> None:
    r, d, v, cut = (part[:2, :5] for part in steps(seed=4))
    d = torch.where(d == 0, d, 0.8)  # away from the border of what is allowed
    d, v = d.clone(), v.clone().requires_grad_()
    r = r.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda r, v: call(r, d, v, cut, lookahead), (r, v))
    with torch.no_grad():
        assert not call(r, d, v, cut, lookahead).requires_grad


def test_the_plain_form_is_chosen_by_gradients_and_by_types() -> None:
    r, d, v, cut = steps()
    half = returns.n_step(r.bfloat16(), d.bfloat16(), v.bfloat16(), cut)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), returns.n_step(r, d, v, cut), rtol=0.1, atol=0.2)


def test_nothing_given_is_changed() -> None:
    given_ = steps()
    kept = [part.clone() for part in given_]
    for call, lookahead in itertools.product(CALLS.values(), (None, 3)):
        call(*given_, lookahead)
    assert all(torch.equal(now, before) for now, before in zip(given_, kept, strict=True))


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD = [
    ("discount must be in [0, 1], got 1.5", {"discount": row(0.5, 1.5, 0.5)}),
    ("discount must be in [0, 1], got -0.5", {"discount": row(-0.5, 0.5, 0.5)}),
    ("discount must have the shape of reward (3,), got (2,)", {"discount": row(0.5, 0.5)}),
    ("next_value must be torch.float64, got torch.float32", {"next_value": VALUE.float()}),
    ("next_value must have the shape of reward (3,), got (1, 3)", {"next_value": VALUE.unsqueeze(0)}),
    ("cut must be torch.bool, got torch.int64", {"cut": torch.zeros(3, dtype=torch.int64)}),
    ("cut must have the shape of reward (3,), got (4,)", {"cut": flags(0, 0, 0, 0)}),
    ("lookahead must be a whole number of at least 1, got 0", {"lookahead": 0}),
    ("lookahead must be a whole number of at least 1, got 2.5", {"lookahead": 2.5}),
    ("reward must hold floats, got torch.int64", {"reward": torch.ones(3, dtype=torch.int64)}),
    ("reward must have steps [..., T], got (0,)", {"reward": row()}),
    ("reward must have steps [..., T], got ()", {"reward": row(1)[0]}),
]


@pytest.mark.parametrize(("message", "changed"), BAD, ids=[message for message, _ in BAD])
def test_bad_input_is_refused_in_one_line(message: str, changed: dict[str, Any]) -> None:
    good: dict[str, Any] = {"reward": REWARD, "discount": DISCOUNT, "next_value": VALUE}
    with pytest.raises(InputError) as caught:
        returns.highway(**{**good, **changed})
    assert str(caught.value) == message


def test_bad_settings_are_refused_in_one_line() -> None:
    steps_ = (REWARD, DISCOUNT, VALUE)
    for lam in (-0.1, 1.1, NAN):
        with pytest.raises(InputError, match=rf"^lam must be in \[0, 1\], got {lam}$"):
            returns.peng(*steps_, lam)
    for sharpness in (-1.0, NAN):
        with pytest.raises(InputError, match=rf"^sharpness must be at least 0, got {sharpness}$"):
            returns.highway_soft(*steps_, sharpness)
    with pytest.raises(InputError, match=r"^next_trace must not be negative, got -0\.5$"):
        returns.traced(*steps_, VALUE, row(1, -0.5, 1))
    with pytest.raises(InputError, match=r"^next_taken must have the shape of reward \(3,\), got \(2,\)$"):
        returns.traced(*steps_, row(1, 1), row(1, 1, 1))


# -- the kernel --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 16, 37])
def test_the_kernel_gives_the_bits_of_the_plain_form(monkeypatch, dtype: torch.dtype, rows: int) -> None:
    pytest.importorskip("numba")
    monkeypatch.undo()
    for call, lookahead in itertools.product(CALLS.values(), (None, 1, 2, 7, 40)):
        parts = steps(rows, dtype=dtype)
        fast = call(*parts, lookahead)
        with monkeypatch.context() as without:
            without.setattr(returns, "_kernels", lambda: None)
            plain = call(*parts, lookahead)
        if call is _soft:  # its sigmoid is a series of its own
            torch.testing.assert_close(fast, plain, rtol=0, atol=2e-6 if dtype == torch.float32 else 2e-14)
        else:
            assert torch.equal(fast, plain)


@pytest.mark.parametrize("sharpness", [1e-3, 1.0, 50.0, 1e30])
def test_the_gate_of_the_kernel_is_a_sigmoid_everywhere(sharpness: float) -> None:
    ahead = torch.linspace(-60, 60, 1001, dtype=torch.float64) / min(sharpness, 1e3)
    r = torch.stack([torch.zeros_like(ahead), ahead], -1)
    d = torch.tensor([1.0, 0.0], dtype=torch.float64).expand_as(r)
    found = returns.highway_soft(r, d, torch.zeros_like(r), sharpness)[:, 0]
    torch.testing.assert_close(found, ahead * torch.sigmoid(sharpness * ahead), rtol=0, atol=1e-13 * ahead.max().item())
