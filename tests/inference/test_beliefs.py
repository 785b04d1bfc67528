"""Mixtures, the likelihood kept as sums, and the memory of rewards, each against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, MixtureSameFamily, Normal

from mindworks.errors import InputError
from mindworks.inference import Likelihood, NormalMixture, Rewards, log_joint


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MIXTURES = NormalMixture.of([[0.3, 0.7], [1, 0], [0.5, 0.5]], [[-2, 3], [1, 9], [0, 0]], [[0.5, 1], [2, 1], [1, 3]])


def as_torch(mixture: NormalMixture) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(mixture.weight), Normal(mixture.mean, mixture.std))


def test_density_score_and_moments_are_those_of_the_mixture() -> None:
    s = (4 * normal(3, 50)).requires_grad_(True)
    value, score = MIXTURES.log_density_and_score(s.detach())
    expected = as_torch(MIXTURES).log_prob(s.T).T
    torch.testing.assert_close(value, expected.detach(), rtol=1e-11, atol=1e-11)
    (slope,) = torch.autograd.grad(expected.sum(), s)
    torch.testing.assert_close(score, slope, rtol=0, atol=1e-10)
    mean, variance = MIXTURES.moments()
    torch.testing.assert_close(mean, as_torch(MIXTURES).mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(variance, as_torch(MIXTURES).variance, rtol=0, atol=1e-12)


def test_three_components_and_one_go_the_same_way() -> None:
    three = NormalMixture.of([[0.2, 0.3, 0.5]], [[-40, 0, 40]], [[1, 2, 3]])
    s = torch.tensor([[-41.0, 0.5, 200.0]], dtype=torch.float64)
    torch.testing.assert_close(three.log_density_and_score(s)[0], as_torch(three).log_prob(s), rtol=1e-12, atol=0)
    single = NormalMixture.of([[1.0]], [[2.0]], [[0.5]])
    value, score = single.log_density_and_score(s)
    torch.testing.assert_close(value, -0.5 * (2 * s - 4).square() - 0.5 * math.log(math.pi / 2), rtol=1e-12, atol=0)
    torch.testing.assert_close(score, (2 - s) / 0.25, rtol=1e-12, atol=0)


def test_draws_have_the_moments_and_choose_components_by_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (40_000, 3)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    drawn = MIXTURES.draw(uniform, torch.randn(shape, generator=generator, dtype=torch.float64))
    mean, variance = MIXTURES.moments()
    assert ((drawn.mean(0) - mean).abs() < 5 * (variance / 40_000).sqrt()).all()
    assert ((drawn.var(0) / variance - 1).abs() < 0.05).all()
    means = MIXTURES.draw(uniform, torch.zeros(shape, dtype=torch.float64))
    assert abs(float((means[:, 0] == -2).double().mean()) - 0.3) < 0.02
    assert (means[:, 1] == 1).all()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-30, 60), min_size=2, max_size=30, unique=True), st.floats(-10, 40))
def test_sums_give_the_likelihood_observation_by_observation(rewards: list[float], s: float) -> None:
    mean = math.fsum(rewards) / len(rewards)
    variance = math.fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)
    if variance < 1e-3:
        return
    each = torch.tensor(rewards, dtype=torch.float64)
    for kind, scale, reduce in (("published", variance, torch.mean), ("exact", math.sqrt(variance), torch.sum)):
        likelihood = Likelihood.of_rewards(each, kind)
        value, score = likelihood.value_and_score(torch.tensor([s], dtype=torch.float64))
        expected = reduce(Normal(each, scale).log_prob(torch.tensor(s, dtype=torch.float64)))
        assert float(value) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)
        slope = reduce((each - s) / scale**2)
        assert float(score) == pytest.approx(float(slope), rel=1e-9, abs=1e-9)


def test_the_joint_is_prior_times_likelihood() -> None:
    likelihood = Likelihood.of_rewards(normal(3, 20) + 1, "exact")
    s = normal(3, 7, seed=1)
    value, score = log_joint(s, MIXTURES, likelihood)
    prior, part = MIXTURES.log_density_and_score(s), likelihood.value_and_score(s)
    torch.testing.assert_close(value, prior[0] + part[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(score, prior[1] + part[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("memory", [2, 5, 1000])
def test_the_memory_is_a_list_that_forgets_its_first(memory: int) -> None:
    history = Rewards((2, 3), 4, memory)
    lists: dict[tuple[int, int, int], list[float]] = {}
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        arm = torch.randint(4, (2, 3), generator=generator)
        reward = 18 + torch.randn(2, 3, generator=generator, dtype=torch.float64)
        history.add(arm, reward)
        for a in range(2):
            for r in range(3):
                kept = lists.setdefault((a, r, int(arm[a, r])), [])
                kept.append(float(reward[a, r]))
                del kept[:-memory]
    count, mean, spread = history.moments()
    for (a, r, k), kept in lists.items():
        each = torch.tensor(kept, dtype=torch.float64)
        assert int(count[a, r, k]) == len(kept)
        assert float(mean[a, r, k]) == pytest.approx(float(each.mean()), rel=1e-12)
        assert float(spread[a, r, k]) == pytest.approx(float(each.var(unbiased=False)), abs=1e-9)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: NormalMixture.of([[0.5, 0.6]], [[0, 1]], [[1, 1]]), "weight.*0.6"),
        (lambda: NormalMixture.of([[1.5, -0.5]], [[0, 1]], [[1, 1]]), "weight.*1.5"),
        (lambda: NormalMixture.of([[1.0]], [[0, 1]], [[1, 1]]), "weight, mean and std"),
        (lambda: NormalMixture.of([[1.0]], [[0]], [[0]]), "std.*0"),
        (lambda: Likelihood.of_rewards(normal(3), "tempered"), "likelihood.*tempered"),
        (lambda: Likelihood.of_rewards(normal(1), "exact"), "count.*1"),
        (lambda: Likelihood.of_rewards(torch.ones(3, dtype=torch.float64), "exact"), "spread"),
        (lambda: Rewards((1,), 2, 1), "memory.*1"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names: str) -> None:
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
