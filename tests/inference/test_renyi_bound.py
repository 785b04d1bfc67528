"""The bound against closed forms of every order, its limits, its infinities, and its estimate from draws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import (
    Categorical,
    Gamma,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
)

from mindworks.core.divergences import renyi, renyi_normal
from mindworks.errors import InputError
from mindworks.inference.renyi_bound import RenyiBound, exponential_mean, tilt

ORDERS = [0, 1e-9, 1e-6, 0.3, 0.5, 0.99999, 1 - 1e-9, 1, 1 + 1e-9, 1.00001, 2, 10, 100, 1e5, 1e9, math.inf]
EVIDENCE = -3.7


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(mean: float, std: float) -> Normal:
    return Normal(tensor(mean)[0], tensor(std)[0])


def closed_form(mean: float, std: float, alpha: torch.Tensor) -> torch.Tensor:
    """log evidence minus the divergence from the posterior N(0.4, 0.02^2)."""
    return EVIDENCE - renyi_normal(tensor(mean), tensor(std).log(), tensor(0.4), tensor(0.02).log(), alpha)


def log_joint(s: torch.Tensor) -> torch.Tensor:
    return EVIDENCE + normal(0.4, 0.02).log_prob(s)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.3, 0.01), (0.41, 0.0197), (0.4, 0.0199999), (0.4, 0.02), (0.4, 0.025), (0.35, 0.06), (2.0, 0.01), (0.4, 1e-5)],
)
def test_quadrature_equals_the_closed_form_at_every_order(mean: float, std: float) -> None:
    alpha = tensor(*ORDERS)
    bound, exact = RenyiBound(alpha)(log_joint, normal(mean, std)), closed_form(mean, std, alpha)
    assert torch.equal(bound.isinf(), exact.isinf())
    # where q is the posterior the ratio at the rim is rounding alone, and order infinity takes its smallest value
    same = (mean, std) == (0.4, 0.02)
    torch.testing.assert_close(bound[:-1], exact[:-1], rtol=1e-11, atol=1e-10)
    torch.testing.assert_close(bound[-1], exact[-1], rtol=1e-11, atol=1e-5 if same else 1e-10)


def test_at_zero_it_is_the_evidence_and_at_one_the_evidence_lower_bound() -> None:
    q = normal(0.3, 0.01)
    kl = torch.distributions.kl_divergence(q, normal(0.4, 0.02))
    torch.testing.assert_close(RenyiBound(0.0)(log_joint, q), tensor(EVIDENCE)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(RenyiBound(1.0)(log_joint, q), EVIDENCE - kl, rtol=0, atol=1e-12)
    lower, upper = (RenyiBound(1 + step)(log_joint, q) for step in (-1e-7, 1e-7))
    assert 0 < float(lower - upper) < 1e-4


@settings(deadline=None, max_examples=10)
@given(st.floats(-3, 3), st.floats(0.2, 3), st.floats(0.05, 0.95), st.integers(0, 10**6))
def test_it_falls_with_alpha_and_stays_below_the_evidence(mean: float, std: float, weight: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    place = 4 * torch.randn(2, generator=generator, dtype=torch.float64)
    p = MixtureSameFamily(Categorical(tensor(weight, 1 - weight)), Normal(place, tensor(0.7, 1.4)))
    alpha = tensor(-1, -0.2, 0, 1e-6, 0.2, 0.5, 0.9, 1, 1.5, 3, 30, 1e9, math.inf)
    bound = RenyiBound(alpha)(p.log_prob, normal(mean, std))
    assert not bound.isnan().any()
    assert (bound[1:] <= bound[:-1] + 1e-9).all()
    assert abs(float(bound[2])) < 1e-9
    assert (bound[:2] >= -1e-9).all()


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.3, 0.99999, 1.0, 2.0, 1e4])
def test_it_equals_an_integral_over_a_fine_even_grid(alpha: float) -> None:
    p = MixtureSameFamily(Categorical(tensor(0.6, 0.4)), Normal(tensor(-2.0, 3.0), tensor(0.8, 1.0)))
    q = normal(1.0, 0.6)
    s = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    log_p, log_q = p.log_prob(s), q.log_prob(s)
    if alpha == 1:
        exact = (log_q.exp() * (log_p - log_q)).sum() * 2e-4
    else:
        exact = (alpha * log_q + (1 - alpha) * log_p + math.log(2e-4)).logsumexp(0) / (1 - alpha)
    # the even grid itself loses digits where it divides by 1 - alpha
    torch.testing.assert_close(RenyiBound(alpha)(p.log_prob, q), exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dims", "correlation", "tolerance"), [(2, 0.3, 1e-9), (2, 0.9, 1e-6), (3, 0.3, 1e-4)])
def test_quadrature_in_several_dimensions(dims: int, correlation: float, tolerance: float) -> None:
    covariance = correlation + (1 - correlation) * torch.eye(dims, dtype=torch.float64)
    p = MultivariateNormal(torch.arange(dims, dtype=torch.float64) * 0.3, covariance)
    q = Independent(Normal(torch.ones(dims, dtype=torch.float64), tensor(0.85).expand(dims)), 1)
    full = MultivariateNormal(q.mean, torch.diag(q.variance))
    alpha = tensor(0, 1e-6, 0.5, 1, 40, 100)
    bound, exact = RenyiBound(alpha)(p.log_prob, q), -renyi(full, p, alpha)
    assert exact.isinf().tolist() == [False] * 4 + [True] * 2
    assert torch.equal(bound.isinf(), exact.isinf())
    torch.testing.assert_close(bound, exact, rtol=0, atol=tolerance)


def test_a_divergence_that_is_infinite_along_a_diagonal_only_is_found() -> None:
    p = MultivariateNormal(torch.zeros(2, dtype=torch.float64), tensor(1, 0.9, 0.9, 1).reshape(2, 2))
    # along the axes the precision of p is 1 / 0.19, along (1, -1) it is 1 / 0.1: v = 0.15 is too wide there for alpha 4
    q = Independent(Normal(torch.zeros(2, dtype=torch.float64), tensor(0.15, 0.15).sqrt()), 1)
    bound = RenyiBound(tensor(2.9, 3.1))(p.log_prob, q)
    assert bound.isfinite().tolist() == [True, False]  # finite below 0.15 / (0.15 - 0.1) = 3
    assert float(bound[1]) == -math.inf


def test_heavy_tails_keep_every_order_finite_and_light_tails_do_not() -> None:
    alpha = tensor(0.5, 1, 2, 50, math.inf)
    q = normal(0.0, 1.0)
    heavy = StudentT(tensor(2.0)[0], tensor(0.0)[0], tensor(1.0)[0])
    assert RenyiBound(alpha)(heavy.log_prob, q).isfinite().all()
    assert RenyiBound(alpha)(Laplace(tensor(0.0)[0], tensor(0.1)[0]).log_prob, q).isfinite().all()
    quartic = RenyiBound(alpha)(lambda s: -(s**4), q)
    assert quartic.isfinite().tolist() == [True, True, False, False, False]
    assert (quartic[2:] == -math.inf).all()


def test_where_the_joint_is_zero_orders_from_one_on_are_minus_infinity() -> None:
    q, alpha = normal(0.0, 1.0), tensor(0, 0.5, 0.99, 1, 2, math.inf)
    inside = RenyiBound(alpha)(lambda s: torch.where(s.abs() < 2, 0.0, -math.inf), q, points=4001)
    assert inside.isfinite().tolist() == [True, True, True, False, False, False]
    assert not inside.isnan().any()
    torch.testing.assert_close(inside[0], tensor(4.0).log()[0], rtol=0, atol=1e-2)  # a step, not a smooth integrand
    nowhere = RenyiBound(alpha)(lambda s: torch.full_like(s, -math.inf), q)
    assert (nowhere == -math.inf).all()


def test_below_zero_it_is_an_upper_bound_and_infinite_where_q_is_too_narrow() -> None:
    alpha = tensor(-0.1, -0.5)
    bound = RenyiBound(alpha)(log_joint, normal(0.41, 0.015))
    assert float(bound[0]) > EVIDENCE
    # alpha / 0.015^2 + (1 - alpha) / 0.02^2 = 0 at alpha = -9 / 7
    assert RenyiBound(tensor(-1.2, -1.4))(log_joint, normal(0.4, 0.015)).isfinite().tolist() == [True, False]
    assert float(RenyiBound(-1.4)(log_joint, normal(0.4, 0.015))) == math.inf


def test_q_may_be_a_mixture() -> None:
    q = MixtureSameFamily(Categorical(tensor(0.6, 0.4)), Normal(tensor(-2.0, 3.0), tensor(0.8, 1.0)))
    p = MixtureSameFamily(Categorical(tensor(0.3, 0.7)), Normal(tensor(-2.0, 3.0), tensor(0.8, 1.0)))
    alpha = tensor(0, 0.5, 1, 2, 40)
    torch.testing.assert_close(RenyiBound(alpha)(q.log_prob, q), torch.zeros(5).double(), rtol=0, atol=1e-9)
    s = torch.linspace(-12, 14, 100_001, dtype=torch.float64)
    for order, bound in zip((0.5, 2.0, 40.0), RenyiBound(tensor(0.5, 2, 40))(p.log_prob, q), strict=True):
        exact = (order * q.log_prob(s) + (1 - order) * p.log_prob(s) + math.log(26e-5)).logsumexp(0) / (1 - order)
        assert float(bound) == pytest.approx(float(exact), abs=1e-8)


def test_batches_of_orders_and_of_q_equal_single_ones() -> None:
    alpha, mean, std = tensor(0.2, 1, 3), tensor(0.3, 0.42), tensor(0.01, 0.015)
    batch = RenyiBound(alpha[:, None])(log_joint, Normal(mean, std))
    assert batch.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            single = RenyiBound(float(alpha[i]))(log_joint, Normal(mean[j], std[j]))
            torch.testing.assert_close(batch[i, j], single, rtol=0, atol=1e-12)


def test_gradients_of_the_bound_are_those_of_the_closed_form() -> None:
    alpha = tensor(0.1, 0.9999999, 1, 1.0001, 2, 20)
    for i in range(len(alpha)):
        found, wanted = [], []
        for gradient, of in ((found, "bound"), (wanted, "closed form")):
            mean, log_std = tensor(0.37).requires_grad_(True), tensor(0.012).log().requires_grad_(True)
            if of == "bound":
                value = RenyiBound(alpha[i])(log_joint, Normal(mean, log_std.exp()))
            else:
                value = EVIDENCE - renyi_normal(mean, log_std, tensor(0.4), tensor(0.02).log(), alpha[i])
            value.sum().backward()
            gradient += [mean.grad, log_std.grad]
        torch.testing.assert_close(torch.cat(found), torch.cat(wanted), rtol=1e-8, atol=1e-8)


# -- Monte Carlo ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.5])
def test_draws_converge_to_quadrature(alpha: float) -> None:
    q = normal(0.38, 0.015)
    generator = torch.Generator().manual_seed(1)
    drawn = RenyiBound(alpha)(log_joint, q, samples=400_000, generator=generator)
    exact = RenyiBound(alpha)(log_joint, q)
    assert abs(float(drawn - exact)) < 0.02
    assert float(drawn) != float(exact)


def test_the_estimate_is_too_low_below_one_and_too_high_above() -> None:
    q, generator = normal(0.36, 0.015), torch.Generator().manual_seed(0)
    s = q.loc + q.scale * torch.randn(20_000, 8, generator=generator, dtype=torch.float64)
    alpha = tensor(0.0, 0.5, 1.0, 2.0)
    ratio = (log_joint(s) - q.log_prob(s)).expand(4, -1, -1)
    mean = RenyiBound(alpha[:, None]).of(ratio).mean(1)
    bias = mean - RenyiBound(alpha)(log_joint, q)
    assert (bias[:2] < -0.05).all()
    assert abs(float(bias[2])) < 0.02
    assert float(bias[3]) > 0.05


def test_the_same_generator_gives_the_same_draws_and_mixtures_are_drawn_too() -> None:
    mixture = MixtureSameFamily(Categorical(tensor(0.6, 0.4)), Normal(tensor(-2.0, 3.0), tensor(0.8, 1.0)))
    draw = [
        RenyiBound(0.5)(mixture.log_prob, mixture, samples=50, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert torch.equal(*draw)
    assert abs(float(draw[0])) < 1e-12  # p = q: every log ratio is 0
    flat = Independent(Normal(torch.zeros(4, 3, dtype=torch.float64), tensor(1.0)), 1)
    whole = MultivariateNormal(torch.zeros(4, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    for q in (flat, whole):
        value = RenyiBound(2.0)(lambda s: -(s**2).sum(-1), q, samples=20, generator=torch.Generator().manual_seed(0))
        assert value.shape == (4,)


# -- the two formulas behind it ---------------------------------------------------------------------------------------


def exact_mean(value: torch.Tensor, order: float) -> float:
    """A loop of its own, with exactly rounded sums."""
    top = max(order * x for x in value.tolist())
    return (top + math.log(math.fsum(math.exp(order * x - top) for x in value.tolist()) / len(value))) / order


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.sampled_from([-30.0, -1.0, -0.011, 0.011, 0.5, 7.0]))
def test_the_exponential_mean_lies_between_smallest_and_largest(values: list[float], order: float) -> None:
    value = tensor(*values)
    log_weight = torch.full_like(value, -math.log(len(values)))
    found = float(exponential_mean(value, log_weight, order))
    assert min(values) - 1e-9 <= found <= max(values) + 1e-9
    assert found == pytest.approx(exact_mean(value, order), abs=1e-9)


def test_the_exponential_mean_loses_no_digits_near_order_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    value = 20 * torch.randn(500, generator=generator, dtype=torch.float64) - 1000
    log_weight = torch.full_like(value, -math.log(500))
    mean, variance = value.mean(), value.var(unbiased=False)
    for order in (0.0, 1e-12, 1e-9, -1e-9, 1e-6):
        expected = mean + 0.5 * order * variance  # the next term is of size order^2 * 8000
        torch.testing.assert_close(exponential_mean(value, log_weight, order), expected, rtol=0, atol=1e-8)
    edge = [exponential_mean(value, log_weight, order) for order in (0.0099999, 0.0100001)]
    assert abs(float(edge[1] - edge[0])) < 1e-4  # the two forms meet
    assert float(exponential_mean(value, log_weight, math.inf)) == float(value.max())
    assert float(exponential_mean(value, log_weight, -math.inf)) == float(value.min())


def test_float32_noise_of_the_original_at_0_99999_is_gone() -> None:
    """The published form, a difference over 1e-5 in float32, is off by far more than float64 with the stable form."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(300, generator=generator, dtype=torch.float64) - 300
    exact = value.mean() + 0.5e-5 * value.var(unbiased=False)
    single = value.float()
    published = (torch.logsumexp(1e-5 * single, 0) + torch.log(torch.tensor(1 / 300))) / 1e-5
    ours = RenyiBound(0.99999).of(value)
    assert abs(float(published) - float(exact)) > 1e-3
    assert abs(float(ours) - float(exact)) < 1e-8


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.9995, 1.0, 1 + 1e-8, 1.002, 3.0])
def test_the_tilt_is_the_gradient_of_the_bound_over_alpha(alpha: float) -> None:
    s = torch.linspace(-12, 12, 2001, dtype=torch.float64)
    log_p = Normal(tensor(0.5), tensor(1.3)).log_prob(s)
    mean = tensor(0.1).requires_grad_(True)
    log_q = Normal(mean, tensor(0.9)).log_prob(s)
    push = tilt((log_q + math.log(0.012)).detach(), (log_p - log_q).detach(), tensor(1 - alpha)[0])
    assert abs(float(push.sum())) < 1e-12
    (found,) = torch.autograd.grad((push * log_q).sum(), mean)
    # D_alpha = alpha (mean difference)^2 / (2 ((1 - alpha) 0.81 + alpha 1.69)) + what does not depend on the mean
    expected = 0.4 / ((1 - alpha) * 0.81 + alpha * 1.69)
    assert float(found) == pytest.approx(expected, rel=1e-9)


# -- bad input --------------------------------------------------------------------------------------------------------

Q = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: RenyiBound(math.nan), "alpha.*nan"),
        (lambda: RenyiBound(0.5).of(tensor(1.0, math.nan)), "log_ratio"),
        (lambda: RenyiBound(0.5).of(tensor(1.0, math.inf)), "log_ratio"),
        (lambda: RenyiBound(0.5).of(torch.zeros(0)), "log_ratio"),
        (lambda: RenyiBound(0.5)(lambda s: s * math.nan, Q), "log_joint"),
        (lambda: RenyiBound(0.5)(lambda s: s * 0 + math.inf, Q, samples=3), "log_joint"),
        (lambda: RenyiBound(0.5)(lambda s: Q.log_prob(s).sum(), Q), r"log_joint.*\[801\]"),
        (lambda: RenyiBound(0.5)(lambda s: s[:-1], Q, samples=3), r"log_joint.*\[3\]"),
        (lambda: RenyiBound(0.5)(Q.log_prob, Q, samples=0), "samples.*0"),
        (lambda: RenyiBound(0.5)(Q.log_prob, Q, points=4), "points.*4"),
        (lambda: RenyiBound(0.5)(Q.log_prob, Gamma(tensor(1.0), tensor(1.0))), "q must.*Gamma"),
        (lambda: RenyiBound(0.5)(Q.log_prob, Gamma(tensor(1.0), tensor(1.0)), samples=2), "q must.*Gamma"),
        (lambda: RenyiBound(0.5)(lambda s: s.sum(-1), Independent(Normal(torch.zeros(4), 1.0), 1)), "q must.*4"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names: str) -> None:
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
