"""Rényi divergences at orders 0 and infinity, where they are infinite, in float32 and batches, and the registry."""

from __future__ import annotations

import math

import pytest
import torch
from divergence_cases import CASES, PAIRS, every_family, f64, leaves_of, multivariate
from torch import distributions as D

from mindworks.core import divergences
from mindworks.core.divergences import (
    exponentiated,
    register_renyi,
    renyi,
    renyi_categorical,
    renyi_diagonal_normal,
    renyi_normal,
)
from mindworks.errors import InputError

# -- limits: orders 0 and infinity -------------------------------------------------------------------------------------


def test_order_zero_sees_the_support_alone():
    p, q = f64([0.5, 0.5, 0.0], [0.2, 0.3, 0.5]), f64([0.2, 0.3, 0.5])
    found = renyi(D.Categorical(p), D.Categorical(q), 0.0)
    torch.testing.assert_close(found, f64(-math.log(0.5), 0.0), rtol=1e-15, atol=0)
    found = renyi(D.Bernoulli(f64(0.0, 1.0, 0.4)), D.Bernoulli(f64(0.3, 0.3, 0.3)), 0.0)
    torch.testing.assert_close(found, f64(-math.log(0.7), -math.log(0.3), 0.0), rtol=1e-15, atol=0)
    for p_each, q_each in PAIRS.values():
        if not isinstance(p_each, (D.Categorical, D.OneHotCategorical)):
            assert float(renyi(p_each, q_each, 0.0)) == 0


@pytest.mark.parametrize(
    "name",
    [
        "Normal",
        "Independent",
        "MultivariateNormal",
        "Categorical",
        "Bernoulli",
        "Exponential",
        "Gamma",
        "Beta",
        "Dirichlet",
    ],
)
def test_order_infinity_is_the_largest_log_ratio(name):
    p, q, make, _ = CASES[name]
    _, log_p, log_q = make()
    largest = float((log_p - log_q)[log_p > -600].max())  # beyond that the two densities are rounded to nothing
    found = float(renyi(p, q, math.inf))
    assert largest - 1e-9 <= found <= largest + 0.02
    assert float(renyi(p, q, 1e6)) == pytest.approx(found, abs=1e-4)
    assert float(renyi(p, q, 1e6)) <= found


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (D.Normal(f64(0.0), f64(1.1)), D.Normal(f64(0.0), f64(1.0))),
        (D.Normal(f64(0.1), f64(1.0)), D.Normal(f64(0.0), f64(1.0))),
        (
            D.MultivariateNormal(f64(0.1, 0.0), f64([[1.0, 0], [0, 0.5]])),
            D.MultivariateNormal(f64(0.0, 0.0), torch.eye(2).double()),
        ),
        (
            D.MultivariateNormal(f64(0.0, 0.0), f64([[1.1, 0], [0, 0.5]])),
            D.MultivariateNormal(f64(0.0, 0.0), torch.eye(2).double()),
        ),
        (D.Exponential(f64(0.9)), D.Exponential(f64(1.0))),
        (D.Gamma(f64(0.9), f64(2.0)), D.Gamma(f64(1.0), f64(1.0))),
        (D.Gamma(f64(2.0), f64(1.0)), D.Gamma(f64(1.0), f64(1.0))),
        (D.Gamma(f64(2.0), f64(0.9)), D.Gamma(f64(1.0), f64(1.0))),
        (D.Beta(f64(2.0), f64(0.9)), D.Beta(f64(1.0), f64(1.0))),
        (D.Dirichlet(f64(2.0, 0.9, 1.0)), D.Dirichlet(f64(1.0, 1.0, 1.0))),
        (D.Categorical(f64(0.5, 0.5)), D.Categorical(f64(1.0, 0.0))),
    ],
)
def test_order_infinity_without_a_largest_ratio_is_infinite(p, q):
    assert float(renyi(p, q, math.inf)) == math.inf


def test_a_shared_direction_does_not_make_the_largest_ratio_infinite():
    q = D.MultivariateNormal(f64(0.0, 0.0), torch.eye(2).double())
    p = D.MultivariateNormal(f64(0.0, 0.3), f64([[1.0, 0], [0, 0.5]]))
    each = renyi(D.Normal(f64(0.0, 0.3), f64(1.0, 0.5**0.5)), D.Normal(f64(0.0, 0.0), f64(1.0, 1.0)), math.inf)
    torch.testing.assert_close(renyi(p, q, math.inf), each.sum())
    torch.testing.assert_close(
        renyi(D.Gamma(f64(1.0), f64(3.0)), D.Gamma(f64(1.0), f64(2.0)), math.inf), f64(math.log(1.5))
    )


def test_a_tensor_of_orders_mixes_every_kind():
    alpha = f64(0.0, 0.5, 1.0, 2.0, math.inf)
    for p, q in PAIRS.values():
        found = renyi(p, q, alpha)
        assert found.shape == (5,)
        torch.testing.assert_close(found, torch.stack([renyi(p, q, float(each)) for each in alpha]), rtol=1e-14, atol=0)
        assert renyi(p, q, f64([math.inf] * 3)).shape == (3,)


# -- where it is infinite ----------------------------------------------------------------------------------------------


def test_an_even_number_of_wide_coordinates_is_infinite_too():
    # the logarithm of the product of mixed variances is finite there, as in the original code of POIS
    for ratio, known in ((2.1, 1.561), (2.3, 0.371), (2.4, 0.041)):
        log_std, zero = torch.full((2,), math.log(ratio) / 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        of_product = -0.5 * (math.log((2 - ratio) ** 2) + 2 * math.log(ratio))
        assert of_product == pytest.approx(known, abs=5e-4)
        assert float(renyi_diagonal_normal(zero, log_std, zero, zero, 2.0)) == math.inf
        wide = D.MultivariateNormal(zero, ratio * torch.eye(2).double())
        assert float(renyi(wide, D.MultivariateNormal(zero, torch.eye(2).double()), 2.0)) == math.inf


INFINITE = {
    "Normal": (D.Normal, [[0.3, 1.0], [1.5, 1.0]], [[0.1, 0.9], [1.0, 1.2]]),
    "Independent": (lambda m, s: D.Independent(D.Normal(m, s), 1), [[0.3, 1], [1.5, 1]], [[0.1, 0.9], [1.0, 1.2]]),
    "MultivariateNormal": (
        multivariate,
        [[0.3, -0.2], [[0.5, 0], [0.2, 0.6]]],
        [[0.1, 0.4], [[0.0, 0], [-0.3, 0.0]]],
    ),
    "Categorical": (D.Categorical, [[0.2, 0.5, 0.3]], [[0.4, 0.0, 0.6]]),
    "Categorical, logits": (lambda x: D.Categorical(logits=x), [[0.2, 0.5, 0.3]], [[0.4, -math.inf, 0.6]]),
    "Bernoulli": (D.Bernoulli, [[0.2, 0.9]], [[0.0, 0.1]]),
    "Exponential": (D.Exponential, [[0.4, 0.8]], [[1.5, 1.0]]),
    "Gamma": (D.Gamma, [[2.5, 1.5], [1.0, 2.0]], [[1.7, 2.0], [2.0, 1.4]]),
    "Beta": (D.Beta, [[0.5, 1.2], [3.0, 2.0]], [[1.0, 1.6], [2.2, 1.8]]),
    "Dirichlet": (D.Dirichlet, [[2.0, 0.4, 3.0]], [[1.0, 1.3, 2.5]]),
}


@pytest.mark.parametrize(("make", "p", "q"), INFINITE.values(), ids=INFINITE.keys())
def test_infinite_values_have_gradients_that_are_numbers(make, p, q):
    leaves, alpha = [*leaves_of(*p), *leaves_of(*q)], f64(2.0).requires_grad_(True)
    value = renyi(make(*leaves[: len(p)]), make(*leaves[len(p) :]), alpha)
    assert value.isinf().any()
    for result in (value, exponentiated(make(*leaves[: len(p)]), make(*leaves[len(p) :]), alpha), value.exp()):
        for grad in torch.autograd.grad(result.sum(), [*leaves, alpha], retain_graph=True):
            assert not grad.isnan().any()
    if value.ndim:
        assert value.isfinite().any()
        single = renyi(make(*(x[1] for x in leaves[: len(p)])), make(*(x[1] for x in leaves[len(p) :])), alpha)
        torch.testing.assert_close(value[1], single)
        (grad,) = torch.autograd.grad(value[0], leaves[0])
        assert (grad == 0).all()


@pytest.mark.parametrize(("make", "p", "q"), INFINITE.values(), ids=INFINITE.keys())
def test_below_order_one_only_disjoint_supports_are_infinite(make, p, q):
    value = renyi(make(*map(f64, p)), make(*map(f64, q)), f64([[0.0], [0.3], [0.999999]]))
    assert value.isfinite().all()
    for alpha in (0.0, 0.5, 1.0, 2.0, math.inf):
        assert float(renyi(D.Categorical(f64(1.0, 0.0)), D.Categorical(f64(0.0, 1.0)), alpha)) == math.inf
        assert float(renyi(D.Bernoulli(f64(1.0)), D.Bernoulli(f64(0.0)), alpha)) == math.inf


def test_zeros_that_torch_clamps_stay_zeros():
    p, q = D.Categorical(f64(0.5, 0.5)), D.Categorical(f64(1.0, 0.0))
    assert float(renyi(p, q, 2.0)) == math.inf
    q.logits  # noqa: B018  (read once, torch keeps the clamped logarithms, and an expanded copy has nothing else)
    assert float(renyi(p, q, 2.0)) == math.inf
    assert (renyi(p, q.expand((3,)), 2.0) == math.inf).all()
    b = D.Bernoulli(f64(0.0, 0.5))
    b.logits  # noqa: B018
    assert renyi(D.Bernoulli(f64(0.5)), b.expand((2, 2)), 2.0).isinf().tolist() == [[True, False]] * 2
    tiny = D.Categorical(logits=f64(0.0, -800.0))
    tiny.probs  # noqa: B018  (exp(-800) is 0 in float64, the outcome is possible all the same)
    assert float(renyi(p, tiny, 2.0)) == pytest.approx(800 + math.log(0.25))
    sure = D.Bernoulli(logits=f64(50.0))
    sure.probs  # noqa: B018  (1 - sigmoid(50) is 0 in float64 as well)
    assert float(renyi(D.Bernoulli(f64(0.5)), sure, 2.0)) == pytest.approx(50 + math.log(0.25))


def test_far_apart_is_large_and_not_infinite():
    far = renyi_normal(f64(0.0), f64(0.0), f64(1e150), f64(0.0), f64(0.5, 1.0, 2.0))
    torch.testing.assert_close(far, f64(0.25e300, 0.5e300, 1e300))
    wide = renyi_normal(f64(0.0), f64(500.0), f64(0.0), f64(0.0), f64(0.3, 0.6, 0.9))
    # log(1 - α + α e^-1000) + 1000 over 1 - α, less 1000, halved
    torch.testing.assert_close(
        wide, torch.tensor([(math.log(1 - a) + 1000 * a) / (1 - a) / 2 for a in (0.3, 0.6, 0.9)]).double()
    )
    p = torch.zeros(2, dtype=torch.float64)
    apart = renyi_categorical(f64(0.0, -2000.0), f64(-2000.0, 0.0), f64(0.5, 2.0))
    torch.testing.assert_close(apart, f64(2000 - 2 * math.log(2), 2000.0))
    assert (
        float(exponentiated(D.Categorical(logits=f64(0.0, -2000)), D.Categorical(logits=f64(-2000.0, 0)), 2.0))
        == math.inf
    )
    assert not renyi_categorical(p, f64(0.0, -1e308), f64(0.0, 0.5, 1.0, 1e6)).isnan().any()


# -- float32, batches, transforms --------------------------------------------------------------------------------------


@every_family
def test_single_precision_keeps_its_digits(make, p, q):
    for alpha in (0.0, 0.1, 0.5, 0.999999, 1.0, 1.0001, 2.0, math.inf):
        exact = renyi(make(*map(f64, p)), make(*map(f64, q)), alpha)
        found = renyi(make(*(f64(x).float() for x in p)), make(*(f64(x).float() for x in q)), alpha)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-7)


def test_close_neighbours_keep_their_digits_in_single_precision():
    generator = torch.Generator().manual_seed(3)
    for size in (1e-1, 1e-2, 1e-3, 1e-4):
        mean, log_std, step, stretch = torch.randn(4, 1000, generator=generator) * torch.tensor(
            [[1], [1], [size], [size]]
        )
        pair = (mean, log_std, mean + step, log_std + stretch)
        for alpha in (0.1, 0.5, 1.0, 2.0):
            exact = renyi_normal(*(x.double() for x in pair), alpha)
            # the difference of the inputs is exact, what is lost is lost here
            torch.testing.assert_close(renyi_normal(*pair, alpha).double(), exact, rtol=1e-5, atol=0)
        logits = torch.randn(1000, 5, generator=generator)
        other = logits + size * torch.randn(1000, 5, generator=generator)
        exact = renyi_categorical(logits.double(), other.double(), 2.0)
        error = (renyi_categorical(logits, other, 2.0).double() - exact).abs()
        assert (error <= 1e-5 * exact + 1e-6 * exact.sqrt()).all()


def test_two_hundred_dimensions_do_not_underflow():
    generator = torch.Generator().manual_seed(0)
    mean_p, mean_q = 0.1 * torch.randn(2, 200, generator=generator)
    log_p = math.log(0.3) + 0.05 * torch.randn(200, generator=generator)
    log_q = torch.full((200,), math.log(0.3))
    assert float((2 * (2 * log_q).exp() - (2 * log_p).exp()).prod()) == 0  # what a product of variances comes to
    for alpha in (0.5, 1.0, 2.0):
        found = renyi_diagonal_normal(mean_p, log_p, mean_q, log_q, alpha)
        exact = renyi_diagonal_normal(*(x.double() for x in (mean_p, log_p, mean_q, log_q)), alpha)
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(float(exact), rel=1e-5)


@every_family
def test_a_batch_is_its_members_one_by_one(make, p, q):
    scale = f64(1.0, 1.01, 0.99)
    p_batch = [scale.view(3, 1, *[1] * f64(x).ndim) * f64(x) for x in p]
    alpha = f64(0.3, 2.0).view(1, 2, *[1] * len(make(*map(f64, p)).batch_shape))
    found = renyi(make(*p_batch), make(*map(f64, q)), alpha)
    assert found.shape[:2] == (3, 2)
    for i in range(3):
        for j, order in enumerate((0.3, 2.0)):
            single = renyi(make(*(x[i, 0] for x in p_batch)), make(*map(f64, q)), order)
            torch.testing.assert_close(found[i, j], single, rtol=1e-13, atol=1e-15)


def test_transforms_of_torch_func_see_through():
    inputs = [f64(0.3, -1.0), f64(-0.2, 0.2), f64(-0.2, -0.7), f64(0.1, 0.0)]
    logits = [f64(0.2, 0.5, -1.0), f64(0.0, 0.1, 0.3)]
    for f, args in ((renyi_diagonal_normal, inputs), (renyi_categorical, logits)):
        stacked = [torch.stack([x, 1.1 * x]) for x in args]
        torch.testing.assert_close(torch.func.vmap(lambda *x, f=f: f(*x, 2.0))(*stacked), f(*stacked, 2.0))
        leaf = args[0].clone().requires_grad_(True)
        (grad,) = torch.autograd.grad(f(leaf, *args[1:], 2.0), leaf)
        torch.testing.assert_close(torch.func.grad(lambda x, f=f, args=args: f(x, *args[1:], 2.0))(args[0]), grad)
        forward = torch.func.jacfwd(lambda x, f=f, args=args: f(x, *args[1:], 2.0))(args[0])
        torch.testing.assert_close(forward, grad)
        curve = torch.func.hessian(lambda x, f=f, args=args: f(x, *args[1:], 2.0))(args[0])
        torch.testing.assert_close(
            curve, torch.autograd.functional.hessian(lambda x, f=f, args=args: f(x, *args[1:], 2.0), args[0])
        )
        slope = torch.func.jacfwd(lambda a, f=f, args=args: f(*args, a))(f64(1.0))
        torch.testing.assert_close(slope, torch.func.grad(lambda a, f=f, args=args: f(*args, a))(f64(1.0)))


# -- the registry and bad input ----------------------------------------------------------------------------------------


def test_users_add_families_and_subclasses_find_their_parents():
    class Shifted(D.Normal):
        """A subclass without a rule of its own."""

    p, q = Shifted(f64(0.0), f64(1.0)), D.Normal(f64(0.5), f64(1.2))
    torch.testing.assert_close(renyi(p, q, 1.5), renyi(D.Normal(f64(0.0), f64(1.0)), q, 1.5))
    chi_square = D.Chi2(f64(3.0))
    assert float(renyi(chi_square, D.Gamma(f64(1.5), f64(0.5)), 2.0)) == 0

    logs = D.LogNormal(f64(0.0), f64(1.0)), D.LogNormal(f64(0.5), f64(1.2))
    with pytest.raises(InputError, match="LogNormal"):
        renyi(*logs, 1.5)
    rules = dict(divergences._RULES)
    try:

        @register_renyi(D.LogNormal, D.LogNormal)
        def _(p, q, alpha):
            return renyi(p.base_dist, q.base_dist, alpha)

        torch.testing.assert_close(renyi(*logs, 1.5), renyi(D.Normal(f64(0.0), f64(1.0)), q, 1.5))
        register_renyi(Shifted, D.Normal)(lambda p, q, alpha: f64(7.0))
        assert float(renyi(p, q, 1.5)) == 7
        assert float(renyi(q, p, 1.5)) != 7
    finally:
        divergences._RULES.clear()
        divergences._RULES.update(rules)


NORMAL, GAMMA = D.Normal(f64(0.0), f64(1.0)), D.Gamma(f64(1.0), f64(1.0))


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: renyi(NORMAL, NORMAL, -0.5), "alpha.*-0.5"),
        (lambda: renyi(NORMAL, NORMAL, math.nan), "alpha.*nan"),
        (lambda: renyi(NORMAL, NORMAL, f64(0.5, -1.0)), "alpha.*-1.0"),
        (lambda: renyi(NORMAL, GAMMA, 2.0), "q must be of the family of p, Normal, got Gamma"),
        (lambda: renyi(D.Laplace(f64(0.0), f64(1.0)), NORMAL, 2.0), "p must be .*Normal.*got Laplace"),
        (lambda: renyi(NORMAL, D.Laplace(f64(0.0), f64(1.0)), 2.0), "q must be .*Normal.*got Laplace"),
        (lambda: renyi(NORMAL, 3.0, 2.0), "q must be .*got float"),
        (
            lambda: renyi(
                D.Independent(D.Normal(torch.zeros(2, 3), torch.ones(2, 3)), 1),
                D.Independent(D.Normal(torch.zeros(2, 3), torch.ones(2, 3)), 2),
                2.0,
            ),
            "q must .*",
        ),
        (lambda: renyi(D.Categorical(f64([0.5] * 2)), D.Categorical(f64([0.2] * 5)), 2.0), "log_q must have 2.*5"),
        (lambda: renyi(D.Dirichlet(f64([0.5] * 2)), D.Dirichlet(f64([0.2] * 5)), 2.0), r"q must have events \[2\]"),
        (lambda: renyi(NORMAL.expand((2,)), NORMAL.expand((3,)), 2.0), "must broadcast"),
        (lambda: renyi(NORMAL.expand((2,)), NORMAL, torch.ones(3)), "must broadcast"),
        (lambda: renyi_categorical(f64([0.0] * 2), f64([0.0] * 3), 2.0), "log_q must have 2 outcomes, got 3"),
        (lambda: renyi_normal(f64(0.0), f64(0.0), f64(0.0), f64(0.0), -1.0), "alpha.*-1.0"),
        (lambda: renyi_diagonal_normal(*[torch.zeros(2)] * 4, -1.0), "alpha.*-1.0"),
        (lambda: register_renyi(int, D.Normal), "type_p.*int"),
        (lambda: register_renyi(D.Normal, "Normal"), "type_q.*Normal"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(call, names):
    with pytest.raises(InputError, match=names) as caught:
        call()
    assert "\n" not in str(caught.value)
