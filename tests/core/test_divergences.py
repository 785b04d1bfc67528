"""Rényi divergences against quadrature, against 90-digit arithmetic, and what holds for all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from divergence_cases import CASES, LINE, NEAR_ONE, ORDERS, every_family, every_pair, f64, leaves_of, normal_density
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import distributions as D

from mindworks.core.divergences import exponentiated, kl, renyi, renyi_categorical, renyi_diagonal_normal


@pytest.mark.parametrize(("p", "q", "make", "limit"), CASES.values(), ids=CASES.keys())
def test_every_family_agrees_with_quadrature(p, q, make, limit):
    grid, log_p, log_q = make()
    for alpha in ORDERS + NEAR_ONE:
        got = float(renyi(p, q, alpha))
        if alpha >= limit:
            assert got == math.inf, alpha
        else:
            assert got == pytest.approx(grid.divergence(log_p, log_q, alpha), rel=1e-10, abs=1e-10), alpha


@every_pair
def test_order_one_is_the_kl_divergence_of_torch(p, q):
    torch.testing.assert_close(kl(p, q), D.kl_divergence(p, q), rtol=1e-12, atol=1e-13)


@every_pair
def test_swapping_the_arguments_swaps_the_order(p, q):
    for alpha in (0.05, 0.3, 0.5, 0.7, 0.999):
        if p.__class__ is D.Categorical or p.__class__ is D.OneHotCategorical:
            q = p.__class__(f64(0.4, 0.1, 0.0, 0.5))
        swapped = alpha / (1 - alpha) * renyi(q, p, 1 - alpha)
        torch.testing.assert_close(renyi(p, q, alpha), swapped, rtol=1e-12, atol=1e-14)


@every_pair
def test_a_distribution_is_at_no_distance_from_itself_and_at_some_from_another(p, q):
    for alpha in (0.0, 1e-6, 0.5, *NEAR_ONE, 1.0, 2.0, 50.0, math.inf):
        assert float(renyi(p, p, alpha)) == pytest.approx(0, abs=1e-14)
        assert float(renyi(p, p, alpha)) >= 0
        assert float(renyi(p, q, alpha)) > (-1 if alpha == 0 else 0)


@every_family
def test_gradients_agree_with_finite_differences(make, p, q):
    leaves = [*leaves_of(*p), *leaves_of(*q)]

    def divergence(*inputs: torch.Tensor) -> torch.Tensor:
        return renyi(make(*inputs[: len(p)]), make(*inputs[len(p) : -1]), inputs[-1])

    for alpha in (0.2, 0.5, 1.0, 2.0):
        assert torch.autograd.gradcheck(divergence, [*leaves, f64(alpha).requires_grad_(True)])
    assert torch.autograd.gradgradcheck(divergence, [*leaves, f64(1.5).requires_grad_(True)])


@every_family
def test_gradients_of_a_distribution_against_itself_vanish(make, p, q):
    for alpha in (0.0, 0.5, 1.0, 2.0):
        first, second = leaves_of(*p), leaves_of(*p)
        renyi(make(*first), make(*second), alpha).sum().backward()
        for leaf in first + second:
            assert leaf.grad.abs().max() < 1e-13


@every_family
def test_curvature_at_equality_is_the_order_times_the_fisher_information(make, p, q):
    def curvature(f) -> torch.Tensor:
        blocks = torch.autograd.functional.hessian(f, tuple(map(f64, p)))
        return torch.cat([block.flatten() for row in blocks for block in row])

    information = curvature(lambda *leaves: D.kl_divergence(make(*leaves), make(*map(f64, p))).sum())
    assert information.abs().max() > 0.01
    for alpha in (0.3, 1.0, 2.0):
        found = curvature(lambda *leaves, a=alpha: renyi(make(*leaves), make(*map(f64, p)), a).sum())
        torch.testing.assert_close(found, alpha * information, rtol=1e-8, atol=1e-9)


@every_family
def test_orders_around_one_are_smooth_in_value_and_gradient(make, p, q):
    leaves, alpha = [*leaves_of(*p), *leaves_of(*q)], f64(1.0).requires_grad_(True)
    at_one = D.kl_divergence(make(*leaves[: len(p)]), make(*leaves[len(p) :]))
    expected = torch.autograd.grad(at_one.sum(), leaves)
    slope = torch.autograd.grad(renyi(make(*leaves[: len(p)]), make(*leaves[len(p) :]), alpha).sum(), alpha)[0]
    peer = 1e-9 if make in (D.Gamma, D.Beta, D.Dirichlet) else 1e-12  # torch's own slope of digamma is off by 5e-10
    for order in (1.0, *NEAR_ONE):
        gap, alpha = abs(order - 1), f64(order).requires_grad_(True)
        value = renyi(make(*leaves[: len(p)]), make(*leaves[len(p) :]), alpha)
        *found, found_slope = torch.autograd.grad(value.sum(), [*leaves, alpha])
        linear = at_one.detach().sum() + (order - 1) * slope
        assert float((value.detach().sum() - linear).abs()) < 1e-13 + 20 * gap**2
        assert float((found_slope - slope).abs()) < 1e-11 + 50 * gap
        for left, right in zip(found, expected, strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=peer + 50 * gap)


@pytest.mark.parametrize("name", ["Normal", "Gamma, slow", "Beta", "Categorical"])
def test_the_slope_at_one_is_half_the_variance_of_the_log_ratio(name):
    p, q, make, _ = CASES[name]
    grid, log_p, log_q = make()
    mass, ratio = np.exp(grid.log_weight + log_p), log_p - log_q
    variance = (mass * ratio**2).sum() - (mass * ratio).sum() ** 2
    alpha = f64(1.0).requires_grad_(True)
    renyi(p, q, alpha).backward()
    assert float(alpha.grad) == pytest.approx(variance / 2, rel=1e-9)


# -- closed forms in 90 digits -----------------------------------------------------------------------------------------


def _jensen(mp, log_partition, a: list[float], b: list[float], alpha: float):
    """The Jensen gap of a log-partition function as it is written, in 90 digits; order 1 by a step of 1e-30."""
    a, b, alpha = [mp.mpf(x) for x in a], [mp.mpf(x) for x in b], mp.mpf(alpha)
    alpha = alpha + mp.mpf(10) ** -30 if alpha == 1 else alpha
    mixed = log_partition([alpha * x + (1 - alpha) * y for x, y in zip(a, b, strict=True)])
    return float((mixed - alpha * log_partition(a) - (1 - alpha) * log_partition(b)) / (alpha - 1))


@given(
    size=st.floats(-8, 0.3),
    values=st.lists(st.floats(-2, 2), min_size=6, max_size=6),
    alpha=st.sampled_from([0.0, 1e-9, 1e-3, 0.1, 0.4999, 0.5, 0.9, *NEAR_ONE, 1.0, 1.5, 2.0, 5.0]),
)
@settings(max_examples=150, deadline=None)
def test_digits_survive_between_close_neighbours_and_far_apart(size, values, alpha):
    mp = pytest.importorskip("mpmath")
    near = [x + 10**size * y for x, y in zip(values[:3], values[3:], strict=True)]
    with mp.workdps(90):
        rate_p, rate_q = math.exp(values[0]), math.exp(near[0])
        if alpha * rate_p + (1 - alpha) * rate_q > 1e-3 * rate_q:
            got = float(renyi(D.Exponential(f64(rate_p)), D.Exponential(f64(rate_q)), alpha))
            want = _jensen(mp, lambda x: -mp.log(x[0]), [rate_p], [rate_q], alpha)
            assert got == pytest.approx(want, rel=1e-10, abs=1e-30)
        exps_p, exps_q = [[mp.exp(mp.mpf(x)) for x in each] for each in (values[:3], near)]
        logs_p, logs_q = [[mp.log(x / sum(each)) for x in each] for each in (exps_p, exps_q)]
        got = float(renyi_categorical(f64(values[:3]), f64(near), alpha))
        want = _jensen(mp, lambda x: mp.log(sum(mp.exp(each) for each in x)), logs_p, logs_q, alpha)
        # the normalisation of inputs this close costs the digits of their difference
        assert got == pytest.approx(want, rel=1e-6, abs=1e-17 * 10**size * max(alpha, 1))
        conc_p, conc_q = [[math.exp(x) for x in each] for each in (values[:3], near)]
        if min(alpha * a + (1 - alpha) * b for a, b in zip(conc_p, conc_q, strict=True)) > 1e-3:
            got = float(renyi(D.Dirichlet(f64(conc_p)), D.Dirichlet(f64(conc_q)), alpha))
            want = _jensen(mp, lambda x: sum(map(mp.loggamma, x)) - mp.loggamma(sum(x)), conc_p, conc_q, alpha)
            assert got == pytest.approx(want, rel=1e-11, abs=1e-14)


# -- properties --------------------------------------------------------------------------------------------------------

positive = st.floats(0.05, 20)
reals = st.floats(-5, 5)


@given(a=st.tuples(reals, positive, reals, positive), more=st.lists(positive, min_size=4, max_size=4))
@settings(max_examples=100, deadline=None)
def test_it_grows_with_the_order_and_is_never_negative(a, more):
    alpha = f64(0.0, 1e-6, 0.3, 0.5, 0.9, 0.999999, 1.0, 1.000001, 1.2, 2.0, 3.0, 10.0, 1e3, math.inf)
    pairs = [
        (D.Normal(f64(a[0]), f64(a[1])), D.Normal(f64(a[2]), f64(a[3]))),
        (D.Exponential(f64(a[1])), D.Exponential(f64(a[3]))),
        (D.Gamma(f64(more[0]), f64(more[1])), D.Gamma(f64(more[2]), f64(more[3]))),
        (D.Beta(f64(more[0]), f64(more[1])), D.Beta(f64(more[2]), f64(more[3]))),
        (D.Categorical(f64([*more[:2], a[1]])), D.Categorical(f64([*more[2:], a[3]]))),
    ]
    for p, q in pairs:
        values = renyi(p, q, alpha)
        assert not values.isnan().any()
        assert (values >= 0).all()
        finite = values[values.isfinite()]
        assert (finite.diff() >= -1e-11 * (1 + finite[1:])).all()
        assert values.isfinite().diff().sum() <= 1  # once infinite, infinite ever after


def test_coordinates_of_independent_distributions_add_up():
    base_p, base_q = D.Gamma(f64([[2.5, 1.5], [3, 1]]), f64(2.0)), D.Gamma(f64([1.7, 2.0]), f64(1.5))
    each = renyi(base_p, D.Gamma(f64([[1.7, 2.0]] * 2), f64(1.5)), 1.7)
    assert each.shape == (2, 2)
    joint = renyi(D.Independent(base_p, 1), D.Independent(base_q, 1), 1.7)
    torch.testing.assert_close(joint, each.sum(-1))
    both = D.Independent(base_p, 2), D.Independent(base_q.expand((2, 2)), 2)
    torch.testing.assert_close(renyi(*both, 1.7), each.sum())
    flat = D.Independent(base_p, 0), D.Independent(base_q.expand((2, 2)), 0)
    torch.testing.assert_close(renyi(*flat, 1.7), each)


def test_one_infinite_coordinate_makes_the_sum_infinite():
    p = D.Independent(D.Normal(f64(0.0, 0.0), f64(1.0, 3.0)), 1)
    q = D.Independent(D.Normal(f64(0.0, 5.0), f64(1.0, 1.0)), 1)
    assert float(renyi(p, q, 2.0)) == math.inf


def test_a_diagonal_covariance_is_independent_normals():
    mean_p, mean_q = f64([[0.3, -1.0, 2.0]]), f64([[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]])
    std_p, std_q = f64([[0.8, 1.2, 0.5]]), f64([[1.1, 0.9, 0.5], [1.0, 1.3, 2.0]])
    for alpha in (0.0, 0.3, 1.0, 1.9, 2.5, 9.0):
        full = renyi(
            D.MultivariateNormal(mean_p, torch.diag_embed(std_p**2)),
            D.MultivariateNormal(mean_q, torch.diag_embed(std_q**2)),
            alpha,
        )
        each = renyi(D.Independent(D.Normal(mean_p, std_p), 1), D.Independent(D.Normal(mean_q, std_q), 1), alpha)
        torch.testing.assert_close(full, each, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(
            renyi_diagonal_normal(mean_p, std_p.log(), mean_q, std_q.log(), alpha), each, rtol=1e-12, atol=1e-13
        )


def test_an_affine_map_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    mean_p, mean_q, shift = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    tril_p, tril_q, stretch = 0.3 * torch.randn(3, 4, 4, generator=generator, dtype=torch.float64) + torch.eye(
        4, dtype=torch.float64
    )
    covariances = tril_p @ tril_p.T / 2, tril_q @ tril_q.T + torch.eye(4, dtype=torch.float64)
    mapped = [stretch @ each @ stretch.T for each in covariances]
    for alpha in (0.2, 1.0, 1.3, 2.0):
        before = renyi(*(D.MultivariateNormal(m, c) for m, c in zip((mean_p, mean_q), covariances, strict=True)), alpha)
        means = stretch @ mean_p + shift, stretch @ mean_q + shift
        after = renyi(*(D.MultivariateNormal(m, c) for m, c in zip(means, mapped, strict=True)), alpha)
        assert before.isfinite()
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-12)


def test_order_two_is_the_second_moment_of_importance_weights():
    p, q = D.Normal(f64(0.3), f64(1.2)), D.Normal(f64(-0.2), f64(1.0))
    x = LINE.points[0]
    log_w = normal_density(x, 0.3, 1.2) - normal_density(x, -0.2, 1.0)
    second = float(logsumexp(LINE.log_weight + normal_density(x, -0.2, 1.0) + 2 * log_w))
    assert float(renyi(p, q, 2.0)) == pytest.approx(second, abs=1e-12)
    assert float(exponentiated(p, q, 2.0)) == pytest.approx(math.exp(second), rel=1e-12)
    third = float(logsumexp(LINE.log_weight + normal_density(x, -0.2, 1.0) + 3 * log_w))
    assert 2 * float(renyi(p, q, 3.0)) == pytest.approx(third, abs=1e-11)
