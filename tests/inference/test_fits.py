"""Best fits against closed forms, moments, an exhaustive search, and the jump between two branches."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from mindworks.core.divergences import renyi
from mindworks.errors import InputError
from mindworks.inference import RenyiBound, RenyiFit, fit_renyi, mean_field_variance, switch_point
from mindworks.inference.families import FullNormal, MeanField, Mixture


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


MIXTURE = MixtureSameFamily(Categorical(tensor(0.6, 0.4)), Normal(tensor(-2.0, 3.0), tensor(0.8, 1.0)))
CORRELATED = MultivariateNormal(torch.zeros(2, dtype=torch.float64), tensor(1, 0.6, 0.6, 1).reshape(2, 2))


def log_joint(s: torch.Tensor) -> torch.Tensor:
    """The mixture times 5: an unnormalised density."""
    return MIXTURE.log_prob(s) + math.log(5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.6])
def test_mean_field_variances_follow_the_closed_form(correlation: float) -> None:
    covariance = tensor(1, correlation, correlation, 1).reshape(2, 2)
    target = MultivariateNormal(tensor(1.0, -0.5), covariance)
    alpha = [0.0, 0.001, 0.3, 0.5, 0.9, 1.0, 3.0]
    fit = fit_renyi(
        target.log_prob, [(-7, 9), (-8, 7)], alpha, family="mean_field", restarts=2, generator=generator(), points=91
    )
    law = tensor(*[mean_field_variance(a, correlation) for a in alpha])
    torch.testing.assert_close(fit.q().stddev.square(), law[:, None].expand(-1, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(fit.q().mean, tensor(1.0, -0.5).expand(7, 2), rtol=0, atol=1e-6)
    assert (fit.slope < 1e-6).all()


def test_the_closed_form_has_its_known_limits_and_solves_its_equation() -> None:
    known = {0.0: 1, 1e-9: 1, 1.0: 1 - 0.81, 0.5: math.sqrt(1 - 0.81), 1e9: 1 - 0.9}
    for alpha, v in known.items():
        assert mean_field_variance(alpha, 0.9) == pytest.approx(v, rel=1e-6)
    for alpha in (0.001, 0.3, 0.5, 0.7, 1.0, 2.0, 50.0):
        v = mean_field_variance(alpha, 0.9)
        assert (1 - alpha) * v * v - (1 - 2 * alpha) * v - alpha * 0.19 == pytest.approx(0, abs=1e-12)
        slope = []
        for step in (-1e-5, 1e-5):
            q = MultivariateNormal(torch.zeros(2, dtype=torch.float64), (v + step) * torch.eye(2, dtype=torch.float64))
            p = MultivariateNormal(torch.zeros(2, dtype=torch.float64), tensor(1, 0.9, 0.9, 1).reshape(2, 2))
            slope.append(float(renyi(q, p, alpha)))
        assert min(slope) >= float(renyi(MultivariateNormal(q.mean, v * torch.eye(2).double()), p, alpha)) - 1e-12


def test_near_zero_a_fit_has_the_moments_of_the_target_and_far_above_one_it_seeks_a_mode() -> None:
    fit = fit_renyi(log_joint, (-25, 25), [0.0, 1e-6, 0.001, 1.0, 2.0, 100.0], generator=generator())
    mean, std = fit.q().mean, fit.q().stddev
    torch.testing.assert_close(mean[:2], tensor(0.0, 0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(std[:2], MIXTURE.stddev.expand(2), rtol=0, atol=1e-5)
    assert ((mean[3:] + 2).abs() < 0.03).all()
    assert ((std[3:] > 0.8) & (std[3:] < 0.83)).all()
    assert float(fit.log_evidence) == pytest.approx(math.log(5), abs=1e-12)
    exact = torch.stack([RenyiBound(a)(log_joint, q) for a, q in zip(fit.alpha, _each(fit.q()), strict=True)])
    torch.testing.assert_close(fit.bound, exact, rtol=0, atol=1e-8)


def _each(q: Normal) -> list[Normal]:
    return [Normal(mean, std) for mean, std in zip(q.mean, q.stddev, strict=True)]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.49999, 0.50001, 1.0, 4.0])
def test_no_normal_of_an_exhaustive_search_is_closer(alpha: float) -> None:
    fit = fit_renyi(log_joint, (-25, 25), alpha, generator=generator())
    mean = torch.linspace(-3, 4, 57, dtype=torch.float64)[:, None]
    std = torch.linspace(0.6, 3.2, 53, dtype=torch.float64)
    search = RenyiBound(max(alpha, 1e-3))(log_joint, Normal(mean, std), points=201)
    order = max(alpha, 1e-3)
    found = RenyiBound(order)(log_joint, Normal(fit.q().mean[0], fit.q().stddev[0]))
    assert float(found) >= float(search.max()) - (1e-9 if alpha else 1e-6)
    best = divmod(int(search.argmax()), 53)
    assert abs(float(mean[best[0], 0]) - float(fit.q().mean[0])) < 0.13
    assert abs(float(std[best[1]]) - float(fit.q().stddev[0])) < 0.06


def test_all_local_optima_are_reported_best_first() -> None:
    fit = fit_renyi(log_joint, (-25, 25), [0.75, 0.8], restarts=12, generator=generator())
    wide, narrow = fit.optima(0), fit.optima(1)
    assert [round(float(row["std"]), 2) for row in wide[:2]] == [2.45, 0.84]
    assert [round(float(row["std"]), 2) for row in narrow[:2]] == [0.83, 2.43]
    for index, rows in enumerate((wide, narrow)):
        gaps = [row["divergence"] for row in rows]
        assert gaps == sorted(gaps)
        assert gaps[0] == pytest.approx(float(fit.divergence[index].min()))
        assert sum(row["starts"] for row in rows) <= 12


def test_the_switch_is_where_both_branches_are_equally_good() -> None:
    switch = switch_point(log_joint, (-25, 25), 0.75, 0.9, generator=generator(), tolerance=1e-5)
    alpha = float(switch.alpha)
    assert 0.78 < alpha < 0.795
    below, above = switch.divergence[0].tolist()
    assert abs(below - above) < 1e-4
    std = switch.all().stddev[0].tolist()
    assert std[0] > 2.4 > 0.9 > std[1]
    for step, branch in ((-0.003, 0), (0.003, 1)):
        best = fit_renyi(log_joint, (-25, 25), alpha + step, generator=generator(1)).q().stddev
        assert abs(float(best) - std[branch]) < 0.01


def test_a_family_that_holds_the_target_finds_it_for_every_order() -> None:
    alpha = [0.0, 0.5, 1.0, 3.0]
    full = fit_renyi(
        CORRELATED.log_prob, [(-7.5, 7.5)] * 2, alpha, family="normal", restarts=2, generator=generator(), points=61
    )
    torch.testing.assert_close(
        full.q().covariance_matrix, CORRELATED.covariance_matrix.expand(4, 2, 2), rtol=0, atol=1e-6
    )
    assert (full.divergence.amin(1) < 1e-12).all()
    mixed = fit_renyi(log_joint, (-25, 25), alpha, family="mixture", restarts=4, generator=generator(), points=801)
    assert (mixed.divergence.amin(1) < 1e-10).all()
    torch.testing.assert_close(mixed.q().mean, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-4)
    assert sorted(mixed.q().component_distribution.mean[1].tolist()) == pytest.approx([-2, 3], abs=1e-4)


def test_orders_together_are_as_alone_and_seeds_are_kept() -> None:
    def fit(alpha: list[float]) -> RenyiFit:
        return fit_renyi(log_joint, (-25, 25), alpha, generator=generator(5), restarts=3, points=801)

    together = fit([0.3, 1.5])
    assert torch.equal(together.theta, fit([0.3, 1.5]).theta)
    for i, alpha in enumerate((0.3, 1.5)):
        torch.testing.assert_close(fit([alpha]).theta[0], together.theta[i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [MeanField, FullNormal, Mixture])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_families_agree_with_torch_distributions(kind: type[MeanField], dims: int) -> None:
    center, scale = torch.arange(dims, dtype=torch.float64), torch.linspace(0.5, 2, dims, dtype=torch.float64)
    family = kind(center, scale)
    start = family.start(*(torch.ones(4, family.components, dims, dtype=torch.float64) * x for x in (0.3, 0.7)))
    theta = start + 0.2 * torch.randn(start.shape, generator=generator(), dtype=torch.float64)
    s = torch.randn(9, dims, generator=generator(1), dtype=torch.float64)
    points = s.squeeze(-1) if dims == 1 else s
    expected = family.distribution(theta).log_prob(points.unsqueeze(1)).T
    torch.testing.assert_close(family.log_prob(theta, s), expected, rtol=0, atol=1e-10)
    narrow = family.distribution(family.narrower(theta, 0.25))
    if kind is Mixture:
        narrow, whole = narrow.component_distribution, family.distribution(theta).component_distribution
    else:
        whole = family.distribution(theta)
    torch.testing.assert_close(narrow.stddev, whole.stddev * math.exp(-0.25), rtol=1e-10, atol=0)
    torch.testing.assert_close(narrow.mean, whole.mean, rtol=0, atol=1e-12)
    exact = family.distribution(start)
    torch.testing.assert_close(exact.mean, torch.full_like(exact.mean, 0.3), rtol=0, atol=1e-12)
    torch.testing.assert_close(exact.stddev, torch.full_like(exact.stddev, 0.7), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: fit_renyi(log_joint, (-25, 25), -0.1), "alpha.*-0.1"),
        (lambda: fit_renyi(log_joint, (-25, 25), math.inf), "alpha.*inf"),
        (lambda: fit_renyi(log_joint, (-25, 25), 0.5, family="cauchy"), "family.*cauchy"),
        (lambda: fit_renyi(log_joint, (-25, 25), 0.5, restarts=0), "restarts.*0"),
        (lambda: fit_renyi(log_joint, (-25, 25), 0.5, points=5), "points.*5"),
        (lambda: fit_renyi(log_joint, (-25, 25), 0.5, family="mixture", components=0), "components.*0"),
        (lambda: fit_renyi(log_joint, (25, -25), 0.5), "support.*25"),
        (lambda: fit_renyi(log_joint, (-4, 5), 0.5), "support.*rim"),
        (lambda: fit_renyi(log_joint, (-25, 25), 2.0, points=31), "points"),
        (lambda: fit_renyi(lambda s: s[:-1], (-25, 25), 0.5), "log_density.*2001"),
        (lambda: fit_renyi(lambda s: s * math.nan, (-25, 25), 0.5), "log_density"),
        (lambda: switch_point(log_joint, (-25, 25), 0.9, 0.75), "low.*0.9"),
        (lambda: switch_point(log_joint, (-25, 25), 0.1, 0.2, tolerance=0), "tolerance.*0"),
        (lambda: switch_point(log_joint, (-25, 25), 0.1, 0.2, tolerance=0.5), "tolerance.*0.5"),
        (lambda: mean_field_variance(-1.0, 0.5), "alpha.*-1"),
        (lambda: mean_field_variance(0.5, 1.0), "correlation.*1"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(call, names: str) -> None:
    with pytest.raises(InputError, match=names) as caught:
        call()
    assert "\n" not in str(caught.value)
