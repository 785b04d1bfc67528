"""Importance sampling: closed forms, Monte Carlo identities, overflow, masks and the bound's coverage."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from mindworks.core import importance
from mindworks.errors import InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussians(dimensions: int = 3) -> tuple[Independent, Independent, Tensor]:
    """A target, a behaviour, and log d_2 of the two from the formula for one coordinate."""
    mean_p, std_p = torch.linspace(-0.3, 0.4, dimensions).double(), torch.linspace(0.8, 1.1, dimensions).double()
    mean_q, std_q = torch.zeros(dimensions).double(), torch.ones(dimensions).double()
    mixed = 2 * std_q**2 - std_p**2
    log_d2 = (mean_p - mean_q) ** 2 / mixed - 0.5 * (mixed * std_p**2 / std_q**4).log()
    return Independent(Normal(mean_p, std_p), 1), Independent(Normal(mean_q, std_q), 1), log_d2.sum()


def draw(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of the behaviour `[count, 3]`, their log weights, and log d_2."""
    p, q, log_d2 = gaussians()
    x = torch.randn(count, 3, generator=generator(seed), dtype=torch.float64)
    return x, p.log_prob(x) - q.log_prob(x), log_d2


def test_weights_have_mean_one_and_second_moment_d2() -> None:
    _, log_w, log_d2 = draw(400_000)
    ones = torch.ones_like(log_w)
    assert importance.mean_estimate(log_w, ones).item() == pytest.approx(1.0, abs=5e-3)
    assert importance.mean_estimate(2 * log_w, ones).log().item() == pytest.approx(log_d2.item(), abs=1e-2)
    assert importance.effective_sample_size(log_w).item() == pytest.approx(400_000 * (-log_d2).exp().item(), rel=1e-2)


@pytest.mark.parametrize(
    "estimate",
    [importance.mean_estimate, importance.self_normalized_estimate, importance.regression_estimate],
)
def test_estimators_find_the_mean_of_the_target(estimate) -> None:
    p, _, _ = gaussians()
    x, log_w, _ = draw(400_000)
    assert estimate(log_w, x[:, 2]).item() == pytest.approx(p.mean[2].item(), abs=1e-2)


def test_estimators_by_hand() -> None:
    log_w, values = torch.tensor([1.0, 2.0, 3.0]).double().log(), torch.tensor([4.0, -2.0, 1.0]).double()
    assert importance.mean_estimate(log_w, values).item() == pytest.approx(1.0)
    assert importance.self_normalized_estimate(log_w, values).item() == pytest.approx(0.5)
    # products 4, -4, 3; their covariance with the weights is -1, the weights' variance 2: beta = -1/2, mean - 1 = 1
    assert importance.regression_estimate(log_w, values).item() == pytest.approx(1.5)
    assert importance.effective_sample_size(log_w).item() == pytest.approx(36 / 14)


def test_regression_is_exact_for_a_constant() -> None:
    _, log_w, _ = draw(50)
    values = torch.full_like(log_w, 7.0)
    assert importance.regression_estimate(log_w, values).item() == pytest.approx(7.0, abs=1e-10)
    assert importance.mean_estimate(log_w, values).item() != pytest.approx(7.0, abs=1e-2)


def test_regression_without_spread_is_the_plain_mean() -> None:
    values = torch.tensor([1.0, 2.0, 6.0]).double().requires_grad_()
    log_w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    value = importance.regression_estimate(log_w, values)
    assert value.item() == pytest.approx(3.0)
    assert torch.isfinite(torch.autograd.grad(value, log_w)[0]).all()


def test_huge_weights_neither_overflow_nor_become_nan() -> None:
    log_w, values = torch.tensor([900.0, 899.0, -900.0]).double(), torch.tensor([1.0, -1.0, 5.0]).double()
    share = 1 / (1 + torch.tensor(-1.0).exp().item())
    assert importance.self_normalized_estimate(log_w, values).item() == pytest.approx(2 * share - 1)
    assert importance.mean_estimate(log_w, values).item() == torch.inf
    assert importance.mean_estimate(log_w, torch.zeros_like(values)).item() == 0.0
    assert importance.effective_sample_size(log_w).item() == pytest.approx(1 / (share**2 + (1 - share) ** 2))


def test_samples_that_do_not_count_change_nothing() -> None:
    x, log_w, _ = draw(20)
    values, cut = x[:, 0], torch.arange(20) < 12
    hidden, size = torch.where(cut, log_w, -torch.inf), torch.tensor(12.0).double()
    for estimate in (importance.mean_estimate, importance.regression_estimate):
        assert estimate(hidden, values, size).item() == pytest.approx(estimate(log_w[:12], values[:12]).item())
    assert importance.self_normalized_estimate(hidden, values).item() == pytest.approx(
        importance.self_normalized_estimate(log_w[:12], values[:12]).item()
    )
    assert importance.effective_sample_size(hidden).item() == pytest.approx(
        importance.effective_sample_size(log_w[:12]).item()
    )


def test_gradient_at_equal_weights_is_that_of_the_mean() -> None:
    """With centred values the sum is exactly 0 there, and its slope must still be divided by N."""
    values = torch.tensor([-1.0, 1.0]).double()
    log_w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(importance.mean_estimate(log_w, values), log_w)
    assert torch.allclose(gradient, values / 2)


@pytest.mark.parametrize("name", ["mean_estimate", "self_normalized_estimate", "regression_estimate"])
def test_gradients(name: str) -> None:
    _, log_w, _ = draw(6)
    values = torch.linspace(-1, 2, 6).double()
    estimate = getattr(importance, name)
    assert torch.autograd.gradcheck(lambda w: estimate(w, values), log_w.requires_grad_())


def test_batched_equals_single() -> None:
    x, log_w, _ = draw(60)
    log_w, values = log_w.view(2, 3, 10), x[:, 0].view(2, 3, 10)
    for estimate in (
        importance.mean_estimate,
        importance.self_normalized_estimate,
        importance.regression_estimate,
        lambda w, _: importance.effective_sample_size(w),
    ):
        batched = estimate(log_w, values)
        for i in range(2):
            for j in range(3):
                assert batched[i, j].item() == pytest.approx(estimate(log_w[i, j], values[i, j]).item(), abs=1e-14)


def test_steps_after_the_end_do_not_count() -> None:
    log_p = torch.tensor([[0.1, 0.2, torch.nan], [0.3, 0.4, 0.5]]).double().requires_grad_()
    log_q = torch.tensor([[0.0, 0.1, 9.0], [0.1, 0.1, 0.1]]).double()
    mask = torch.tensor([[True, True, False], [True, True, True]])
    whole = importance.trajectory_log_weights(log_p, log_q, mask)
    assert whole.tolist() == pytest.approx([0.2, 0.9])
    assert torch.isfinite(torch.autograd.grad(whole.sum(), log_p)[0]).all()
    assert importance.decision_log_weights(log_p, log_q, mask)[0].tolist() == pytest.approx([0.1, 0.2, 0.2])


def test_per_decision_by_hand() -> None:
    log_w = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).double().log()
    rewards = torch.tensor([[1.0, 10.0], [2.0, 20.0]]).double()
    assert importance.per_decision_estimate(log_w, rewards).item() == pytest.approx((1 + 6 + 20 + 120) / 2)
    normalized = importance.per_decision_estimate(log_w, rewards, normalize=True).item()
    assert normalized == pytest.approx((1 + 6) / 4 + (20 + 120) / 8)


def test_per_decision_varies_less_than_whole_episodes() -> None:
    """Rewards of the first steps do not pay for the weights of the last."""
    shift, horizon = 0.3, 20
    noise = torch.randn(2_000, 50, horizon, generator=generator(), dtype=torch.float64)
    log_w = importance.decision_log_weights(-0.5 * (noise - shift) ** 2, -0.5 * noise**2)
    per_decision = importance.per_decision_estimate(log_w, noise)
    whole = importance.mean_estimate(log_w[..., -1], noise.sum(-1))
    assert per_decision.mean().item() == pytest.approx(shift * horizon, rel=0.05)
    assert whole.mean().item() == pytest.approx(shift * horizon, rel=0.1)
    assert per_decision.std() < 0.7 * whole.std()


def test_balance_heuristic_by_hand_and_its_mean() -> None:
    log_p = torch.tensor([0.5, 0.2]).double().log()
    log_q = torch.tensor([[0.5, 0.1], [0.1, 0.4]]).double().log()
    shares = torch.tensor([0.25, 0.75]).double()
    weights = importance.balance_log_weights(log_p, log_q, shares).exp()
    assert weights.tolist() == pytest.approx([0.5 / 0.2, 0.2 / 0.325])
    # over both behaviours together the weights have mean one: sum_k share_k E_{q_k} w = 1 on a two-point space
    q = torch.tensor([[0.3, 0.7], [0.9, 0.1]]).double()
    p = torch.tensor([0.6, 0.4]).double()
    weights = importance.balance_log_weights(p.log(), q.log(), shares).exp()
    assert (shares @ q @ weights).item() == pytest.approx(1.0)


def test_a_behaviour_of_share_zero_takes_no_part() -> None:
    log_p, log_q = torch.zeros(4).double(), torch.tensor([[-1.0] * 4, [torch.nan] * 4]).double()
    alone = importance.balance_log_weights(log_p, log_q, torch.tensor([1.0, 0.0]).double())
    assert alone.tolist() == pytest.approx([1.0] * 4)


def test_mixture_divergence_is_a_bound_and_tight_for_one() -> None:
    rows = torch.rand(200, 3, 5, generator=generator(3), dtype=torch.float64) + 0.02
    p, *q = (rows[:, i] / rows[:, i].sum(-1, keepdim=True) for i in range(3))
    q = torch.stack(q, 1)
    shares = torch.tensor([0.3, 0.7]).double()
    true = (p**2 / (shares @ q)).sum(-1).log()
    each = (p.unsqueeze(1) ** 2 / q).sum(-1).log()
    bound = importance.mixture_log_divergence(each, shares)
    assert bool((bound >= true - 1e-12).all())
    # no convex combination of the two divergences, and neither alone at its share, promises less
    assert bool((bound <= (each - shares.log()).amin(-1) + 1e-12).all())
    assert torch.allclose(importance.mixture_log_divergence(each[:, :1], torch.ones(1).double()), each[:, 0])
    infinite = torch.tensor([torch.inf, 0.5]).double()
    assert importance.mixture_log_divergence(infinite, shares).item() == pytest.approx(0.5 - shares[1].log().item())
    assert importance.mixture_log_divergence(torch.full((2,), torch.inf).double(), shares).item() == torch.inf


@pytest.mark.parametrize("delta", [0.2, 0.5])
def test_the_bound_holds_as_often_as_it_says(delta: float) -> None:
    p, q, log_d2 = gaussians()
    x = torch.randn(2_000, 100, 3, generator=generator(5), dtype=torch.float64)
    values = torch.sin(x.sum(-1))
    exact = torch.sin(p.mean.sum()) * (-0.5 * p.variance.sum()).exp()  # E sin of a Gaussian
    low = importance.lower_bound(p.log_prob(x) - q.log_prob(x), values, log_d2, largest=1.0, delta=delta)
    assert (low > exact).double().mean().item() <= delta


def test_penalty_by_hand() -> None:
    log_d2, size = torch.tensor(4.0).double().log(), torch.tensor(100.0).double()
    value = importance.penalty(log_d2, size=size, scale=torch.tensor(3.0).double(), delta=0.2)
    assert value.item() == pytest.approx(3 * 2 * 0.2)  # 3 * sqrt(0.8 / 0.2) * sqrt(4 / 100)
    infinite = torch.tensor(torch.inf).double()
    assert importance.penalty(infinite, size=size, scale=torch.tensor(3.0).double(), delta=0.2).item() == torch.inf
    assert importance.penalty(infinite, size=size, scale=torch.tensor(0.0).double(), delta=0.2).item() == 0.0
    assert importance.penalty(log_d2, size=size, scale=torch.tensor(3.0).double(), delta=1.0).item() == 0.0


def test_penalty_takes_a_delta_for_each_row() -> None:
    size, scale = torch.tensor([100.0, 50.0, 7.0]).double(), torch.tensor([3.0, 2.0, 1.0]).double()
    log_d2, deltas = torch.tensor([0.5, 0.1, 0.9]).double(), [0.2, 1.0, 0.37]
    rows = importance.penalty(log_d2, size=size, scale=scale, delta=torch.tensor(deltas, dtype=torch.float64))
    for row, delta in enumerate(deltas):
        alone = importance.penalty(log_d2[row], size=size[row], scale=scale[row], delta=delta)
        assert rows[row].item() == alone.item()
    each = torch.tensor(deltas, dtype=torch.float64)
    assert importance.penalty(log_d2.float(), size=size.float(), scale=scale.float(), delta=each).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: importance.penalty(x, size=x, scale=x, delta=0.0), "delta must be in"),
        (lambda x: importance.penalty(x, size=x, scale=x, delta=1.5), "delta must be in"),
        (lambda x: importance.penalty(x, size=x, scale=x, delta=torch.tensor([0.5, 0.0])), r"delta.*\[0\.5, 0\.0\]"),
        (lambda x: importance.log_ratio(x, x[:1]), "log_behavior must have"),
        (lambda x: importance.balance_log_weights(x, x.expand(2, -1), x), "shares must have 2 entries"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(torch.ones(3, dtype=torch.float64))
