"""The linear Gaussian model against the formulas it is made of, quadrature, and the ends of its finite orders."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Gamma, MultivariateNormal, Normal

from mindworks.errors import InputError
from mindworks.inference import LinearGaussian, RenyiBound

X = torch.arange(0, 20, 1.1, dtype=torch.float64)


def observed(*seeds: int) -> torch.Tensor:
    """Observations `[seeds, 19]` of 0.4 x with unit noise."""
    noise = [torch.randn(19, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds]
    return 0.4 * X + torch.stack(noise)


def published_bound(alpha: float, mean: float, variance: float, system: LinearGaussian) -> float:
    """The closed form by completing the square, written with loops: prior and noise of variance 1."""
    precision = 1 + sum(x * x for x in X.tolist())
    xy = sum(x * y for x, y in zip(X.tolist(), system.y.tolist(), strict=True))
    yy = sum(y * y for y in system.y.tolist())
    tilted = 1 / ((1 - alpha) * precision + alpha / variance)
    tilted_mean = tilted * (alpha * mean / variance + (1 - alpha) * xy)
    value = 0.5 * math.log(variance) - 0.5 * len(X) * math.log(2 * math.pi)
    value += 0.5 / (alpha - 1) * math.log(variance / tilted)
    return value + 0.5 / (alpha - 1) * (alpha * mean**2 / variance + (1 - alpha) * yy - tilted_mean**2 / tilted)


@pytest.mark.parametrize("alpha", [0.01, 0.5, 0.99, 1.5, 2.0, 30.0])
@pytest.mark.parametrize(("mean", "variance"), [(0.33, 1e-4), (0.4, 3e-4), (0.45, 1e-5)])
def test_it_is_the_published_closed_form(alpha: float, mean: float, variance: float) -> None:
    system = LinearGaussian(X, observed(0)[0])
    expected = published_bound(alpha, mean, variance, system)
    assert float(system.renyi_bound(mean, variance, alpha)) == pytest.approx(expected, abs=1e-9)


def test_posterior_and_evidence_are_those_of_the_joint_normal() -> None:
    y = observed(0, 1)
    noise = 0.3 + 0.7 * torch.eye(19, dtype=torch.float64)
    system = LinearGaussian(X, y, prior_std=0.7, noise=noise)
    marginal = MultivariateNormal(torch.zeros(19, dtype=torch.float64), noise + 0.49 * X[:, None] * X)
    torch.testing.assert_close(system.log_evidence, marginal.log_prob(y), rtol=0, atol=1e-9)
    gain = 0.49 * X @ torch.linalg.inv(marginal.covariance_matrix)
    torch.testing.assert_close(system.posterior_mean, y @ gain, rtol=0, atol=1e-10)
    torch.testing.assert_close(system.posterior_variance, 0.49 - 0.49 * gain @ X, rtol=1e-8, atol=0)
    posterior = Normal(system.posterior_mean, system.posterior_variance.sqrt())
    s = torch.linspace(0.3, 0.5, 5, dtype=torch.float64)[:, None].expand(5, 2)
    torch.testing.assert_close(system.log_joint(s), system.log_evidence + posterior.log_prob(s), rtol=0, atol=1e-8)


def test_the_joint_is_that_of_every_observation() -> None:
    y, noise = observed(3)[0], torch.linspace(0.5, 2, 19, dtype=torch.float64)
    system = LinearGaussian(X, y, prior_std=2.0, noise=noise)
    for s in (-1.0, 0.0, 0.37):
        each = sum(float(Normal(s * x, scale).log_prob(o)) for x, scale, o in zip(X, noise, y, strict=True))
        value = system.log_joint(torch.tensor(s, dtype=torch.float64))
        prior = -0.5 * (s / 2) ** 2 - math.log(2 * math.sqrt(2 * math.pi))
        assert float(value) == pytest.approx(each + prior, rel=1e-12)
    blind = LinearGaussian(torch.zeros(19), y, prior_std=2.0)
    assert float(blind.posterior_mean) == 0
    assert float(blind.posterior_variance) == pytest.approx(4)
    assert float(blind.log_evidence) == pytest.approx(float(Normal(0.0, 1.0).log_prob(y).sum()))


def test_noise_is_a_number_one_per_observation_or_a_covariance() -> None:
    y = observed(2)[0]
    each = torch.full((19,), 0.6, dtype=torch.float64)
    forms = [LinearGaussian(X, y, noise=noise) for noise in (0.6, each, torch.diag(each.square()))]
    for other in forms[1:]:
        assert float(other.log_evidence) == pytest.approx(float(forms[0].log_evidence), abs=1e-10)
        assert float(other.precision) == pytest.approx(float(forms[0].precision), abs=1e-8)


def test_closed_form_equals_quadrature_for_all_data_at_once() -> None:
    system = LinearGaussian(X, observed(0, 1, 2))
    alpha = torch.tensor([0, 1e-6, 0.5, 0.99999, 1, 2, 10, 1e9, math.inf], dtype=torch.float64)
    q = Normal(torch.tensor([[0.35], [0.4], [0.43]], dtype=torch.float64), torch.tensor(1e-2, dtype=torch.float64))
    closed = system.renyi_bound(q.mean, q.variance, alpha[:, None, None])
    assert closed.shape == (9, 3, 3)
    quadrature = RenyiBound(alpha[:, None, None])(system.log_joint, Normal(q.mean.expand(3, 3), q.scale))
    torch.testing.assert_close(closed, quadrature, rtol=0, atol=1e-10)
    assert (closed[1:] <= closed[:-1] + 1e-9).all()
    torch.testing.assert_close(closed[0], system.log_evidence.expand(3, 3), rtol=0, atol=1e-12)


def test_the_bound_is_tight_at_the_posterior_for_every_order() -> None:
    system = LinearGaussian(X, observed(0)[0])
    alpha = torch.tensor([0, 0.5, 1, 7, math.inf], dtype=torch.float64)
    bound = system.renyi_bound(system.posterior_mean, system.posterior_variance, alpha)
    torch.testing.assert_close(bound, system.log_evidence.expand(5), rtol=0, atol=1e-9)


def test_orders_are_finite_up_to_the_limit() -> None:
    system = LinearGaussian(X, observed(0)[0])
    variance = torch.tensor([1e-5, 1 / 2600, 1e-3, 2e-3], dtype=torch.float64)
    limit = system.alpha_limit(variance)
    assert limit[:2].tolist() == [math.inf, math.inf]
    posterior = 1 / (1 + float((X**2).sum()))
    assert limit[2:].tolist() == pytest.approx([v / (v - posterior) for v in (1e-3, 2e-3)])
    inside, outside = (system.renyi_bound(0.4, variance[2:], limit[2:] * part) for part in (1 - 1e-9, 1 + 1e-9))
    assert inside.isfinite().all()
    assert (outside == -math.inf).all()


def test_a_gamma_prior_moves_the_bound_and_not_its_maximiser() -> None:
    system = LinearGaussian(X, observed(0)[0], prior_std=1.25)
    mean = torch.linspace(0.3, 0.5, 2001, dtype=torch.float64)
    shape = torch.tensor([0.1, 0.8, 4.0], dtype=torch.float64)[:, None]
    elbo = system.gamma_elbo(mean, 1e-4, shape, 0.8)
    assert len(set(elbo.argmax(1).tolist())) == 1
    moved = elbo - system.renyi_bound(mean, 1e-4, 1.0)
    expected = Gamma(shape, torch.tensor(0.8, dtype=torch.float64)).log_prob(torch.tensor(0.64, dtype=torch.float64))
    torch.testing.assert_close(moved, expected.expand_as(moved), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: LinearGaussian(X[None], X), "x must"),
        (lambda: LinearGaussian(torch.zeros(0), torch.zeros(0)), "x must"),
        (lambda: LinearGaussian(X, X[1:]), "y must.*19"),
        (lambda: LinearGaussian(X, X, prior_std=0.0), "prior_std.*0.0"),
        (lambda: LinearGaussian(X, X, noise=-1.0), "noise.*-1"),
        (lambda: LinearGaussian(X, X, noise=torch.ones(3)), "noise.*3"),
        (lambda: LinearGaussian(X, X, noise=torch.ones(19, 19)), "noise.*positive definite"),
        (lambda: LinearGaussian(X, X).renyi_bound(0.4, 0.0, 1.0), "var_q.*0"),
        (lambda: LinearGaussian(X, X).renyi_bound(0.4, 1.0, -1.0), "alpha.*-1"),
        (lambda: LinearGaussian(X, X).gamma_elbo(0.4, 1.0, 0.0, 1.0), "shape.*0"),
        (lambda: LinearGaussian(X, X).gamma_elbo(0.4, 1.0, 1.0, -2.0), "rate.*-2"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names: str) -> None:
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
