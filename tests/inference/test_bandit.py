"""The bandit against autograd, torch's Adam, a loop with lists as the published one, and its own single runs."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import invgamma, kstest
from torch.distributions import Categorical, MixtureSameFamily, Normal

from mindworks.errors import InputError
from mindworks.inference import (
    BanditConfig,
    Likelihood,
    NormalMixture,
    RenyiBandit,
    RenyiBound,
    behavior,
    fit_renyi,
    log_joint,
    published_arms,
)
from mindworks.inference.bandit import adam, quadrature_gradient, sample_gradient

ORDERS = [0.0, 1e-6, 0.5, 0.99999, 1.0, 2.0, 10.0, 1e9]
REWARDS, PRIORS = published_arms()


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def beliefs() -> tuple[torch.Tensor, torch.Tensor, NormalMixture, Likelihood]:
    """Mean and log variance `[3]` of three beliefs, with their priors and likelihoods."""
    rewards = REWARDS.draw(torch.full((3, 12), 0.2).double().T, normal(12, 3)).T
    return tensor(15.0, 17.0, 11.0), tensor(0.3, -0.8, 1.0), PRIORS, Likelihood.of_rewards(rewards, "published")


def test_the_arms_are_those_of_the_published_code() -> None:
    mean, variance = REWARDS.moments()
    assert mean.tolist() == pytest.approx([10.36, 16, 17.76])
    assert (mean / variance).tolist() == pytest.approx([2.0, 1.78, 6.2], abs=0.01)


@pytest.mark.parametrize("alpha", ORDERS)
def test_the_gradient_from_draws_is_autograd_of_the_estimated_bound(alpha: float) -> None:
    mean, log_var, prior, likelihood = beliefs()
    noise = normal(3, 40)
    found = sample_gradient(mean, log_var, noise, tensor(alpha), prior, likelihood)
    mean, log_var = mean.requires_grad_(True), log_var.requires_grad_(True)
    s = mean[:, None] + (0.5 * log_var).exp()[:, None] * noise
    log_q = Normal(mean, (0.5 * log_var).exp()).log_prob(s.T).T
    precision = (likelihood.count / likelihood.scale.square())[:, None]
    log_p = MixtureSameFamily(Categorical(prior.weight), Normal(prior.mean, prior.std)).log_prob(s.T).T
    bound = RenyiBound(alpha).of(log_p - 0.5 * precision * (s - likelihood.center[:, None]).square() - log_q)
    expected = torch.autograd.grad(bound.sum(), (mean, log_var))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.5, 0.9995, 1.0, 1.5])
def test_the_exact_gradient_is_that_of_the_divergence_over_alpha(alpha: float) -> None:
    mean, log_var, prior, likelihood = (
        part[0] if isinstance(part, (torch.Tensor, NormalMixture)) else part for part in beliefs()
    )
    likelihood = Likelihood(*(part[0] for part in vars(likelihood).values()))
    points = torch.sinh(torch.linspace(-5, 5, 401, dtype=torch.float64))
    found = quadrature_gradient(mean, log_var, points, tensor(alpha)[0], prior, likelihood)
    s = torch.linspace(-30, 60, 200_001, dtype=torch.float64)
    log_p = log_joint(s, prior, likelihood)[0]
    log_p = log_p - (log_p + math.log(s[1] - s[0])).logsumexp(0)

    def divergence(mean: float, log_var: float) -> float:
        """D_alpha over alpha by plain sums; its limits at 0 and 1 in their own forms."""
        log_q = Normal(tensor(mean)[0], tensor(math.exp(0.5 * log_var))[0]).log_prob(s)
        step = float(s[1] - s[0])
        if alpha < 1e-3:
            return float((log_p.exp() * (log_p - log_q)).sum() * step)
        if alpha == 1:
            return float((log_q.exp() * (log_q - log_p)).sum() * step)
        return float((alpha * log_q + (1 - alpha) * log_p).logsumexp(0) + math.log(step)) / (alpha - 1) / alpha

    at, h = (float(mean), float(log_var)), 1e-4
    for k, value in enumerate(found):
        up, down = (divergence(*(x + sign * h * (i == k) for i, x in enumerate(at))) for sign in (1, -1))
        assert float(value) == pytest.approx(-(up - down) / (2 * h), rel=1e-4, abs=1e-5)


def test_adam_is_torchs_adam() -> None:
    parameter = torch.nn.Parameter(normal(5))
    optimiser = torch.optim.Adam([parameter], lr=0.05, maximize=True)
    value = parameter.detach().clone()
    first, second = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for k in range(30):
        gradient = normal(5, seed=k) * 10 ** (k % 4)
        parameter.grad = gradient.clone()
        optimiser.step()
        first, second, step = adam(gradient, first, second, tensor(float(k + 1))[0], 0.05)
        value = value + step
    torch.testing.assert_close(value, parameter.detach(), rtol=0, atol=1e-12)


# -- the whole agent --------------------------------------------------------------------------------------------------


def published_loop(
    alpha: float, seed: int, pulls: int, samples: int, memory: int
) -> tuple[list[int], list[list[float]]]:
    """One agent as the published code has it: lists of rewards, autograd through every one of them, torch's Adam."""
    world = torch.Generator().manual_seed(seed)
    noise = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=world)))
    double = {"dtype": torch.float64}
    policies = [torch.tensor([25.0, math.log(8e-7)], **double, requires_grad=True) for _ in range(3)]
    optimisers = [torch.optim.Adam([policy], lr=0.05) for policy in policies]
    observed: list[list[float]] = [[], [], []]
    arms = []
    for pull in range(pulls):
        normals = torch.randn(2, 3, generator=world, **double)
        uniforms = torch.rand(2, 3, generator=world, **double)
        scores = [
            float((p.detach()[0] + (p.detach()[1] / 2).exp() * z) / p.detach()[1].exp())
            for p, z in zip(policies, normals[0], strict=True)
        ]
        arm = pull // 2 if pull < 6 else max(range(3), key=scores.__getitem__)
        which = int(uniforms[1, arm] > REWARDS.weight[arm, 0])
        observed[arm].append(float(REWARDS.mean[arm, which] + REWARDS.std[arm, which] * normals[1, arm]))
        del observed[arm][:-memory]
        arms.append(arm)
        if pull < 6:
            continue
        draws = torch.randn(10, samples, generator=noise, **double)
        rewards = torch.tensor(observed[arm], **double)
        prior = MixtureSameFamily(Categorical(PRIORS.weight[arm]), Normal(PRIORS.mean[arm], PRIORS.std[arm]))
        for z in draws:
            mean, log_var = policies[arm]
            s = mean + (log_var / 2).exp() * z
            log_ratio = prior.log_prob(s) - Normal(mean, (log_var / 2).exp()).log_prob(s)
            log_ratio = log_ratio + Normal(rewards, rewards.std() ** 2).log_prob(s[:, None]).mean(1)
            loss = (((1 - alpha) * log_ratio).logsumexp(0) - math.log(samples)) / (alpha - 1)
            optimisers[arm].zero_grad()
            loss.backward()
            optimisers[arm].step()
    return arms, [policy.detach().tolist() for policy in policies]


@pytest.mark.parametrize("alpha", [1e-6, 0.5, 2.0])
def test_it_is_the_published_loop(alpha: float) -> None:
    arms, policies = published_loop(alpha, 3, 60, 20, memory=8)
    agent = RenyiBandit(REWARDS, PRIORS, alpha, [3], BanditConfig(samples=20, memory=8))
    history = agent.run(60)
    assert history["arm"][0, 0].tolist() == arms
    # the loop divides by alpha - 1 and reads 1e-6 as a rounded difference from 1, and 540 steps of Adam follow
    for k, (mean, log_var) in enumerate(policies):
        assert float(agent.mean[0, 0, k]) == pytest.approx(mean, abs=1e-5)
        assert float(agent.log_var[0, 0, k]) == pytest.approx(log_var, abs=1e-5)


@pytest.mark.parametrize("change", [{}, {"rule": "corrected", "likelihood": "exact"}, {"gradient": "quadrature"}])
def test_runs_and_orders_together_are_as_alone(change: dict) -> None:
    config = BanditConfig(samples=41, **change)
    together = RenyiBandit(REWARDS, PRIORS, [1e-6, 1.0, 1e9], [4, 7], config).run(25)
    assert together["std"].shape == (3, 2, 3, 25)
    for a, alpha in enumerate((1e-6, 1.0, 1e9)):
        for r, seed in enumerate((4, 7)):
            alone = RenyiBandit(REWARDS, PRIORS, alpha, [seed], config).run(25)
            for name, value in alone.items():
                torch.testing.assert_close(value[0, 0], together[name][a, r], rtol=1e-9, atol=1e-9)


def test_going_on_is_the_same_as_going_through() -> None:
    halves = RenyiBandit(REWARDS, PRIORS, [0.5], [0], BanditConfig(samples=10))
    parts = [halves.run(11), halves.run(9)]
    whole = RenyiBandit(REWARDS, PRIORS, [0.5], [0], BanditConfig(samples=10)).run(20)
    for name, value in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts], -1), value)


def test_every_arm_is_pulled_twice_before_a_belief_moves() -> None:
    agent = RenyiBandit(REWARDS, PRIORS, [0.5, 2.0], [0, 1], BanditConfig(samples=10))
    history = agent.run(6)
    assert history["arm"].unique(dim=0).tolist() == [[[0, 0, 1, 1, 2, 2]] * 2]
    assert (history["mean"] == 25).all()
    moved = agent.run(1)["mean"][..., 0] != 25
    assert (moved.sum(-1) == 1).all()


def test_the_rules_score_by_the_beliefs_or_by_the_rewards_variance() -> None:
    agents = [
        RenyiBandit(REWARDS, PRIORS, [1.0], [0], BanditConfig(samples=10, rule=rule))
        for rule in ("published", "corrected")
    ]
    for agent in agents:
        agent.run(40)
        agent.log_var.fill_(-40.0)  # a belief of no width: the draw is its mean
    zeros, uniform = (
        torch.zeros(1, 3, dtype=torch.float64),
        torch.rand(20_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    torch.testing.assert_close(
        agents[0].scores(zeros, zeros)[0, 0], agents[0].mean[0, 0] * math.exp(40), rtol=1e-12, atol=0
    )
    corrected = agents[1]
    count, _, spread = (part[0, 0] for part in corrected.history.moments())
    variance = corrected.mean[0, 0] / corrected.scores(torch.zeros_like(uniform), uniform)[0]
    for k in range(3):
        posterior = invgamma(float(count[k] - 1) / 2, scale=float(count[k] * spread[k]) / 2)
        assert kstest(variance[:, k].numpy(), posterior.cdf).pvalue > 1e-3


def test_with_the_exact_bound_a_belief_settles_at_the_best_fit() -> None:
    config = BanditConfig(gradient="quadrature", samples=129, start_mean=16.0, start_variance=1.0)
    alpha = [1e-6, 0.5, 1.0, 2.0]
    agent = RenyiBandit(REWARDS, PRIORS, alpha, [0], config)
    history = agent.run(250)
    for a, order in enumerate(alpha):
        arm = int(history["arm"][a, 0].mode().values)
        likelihood = agent.likelihood().at(torch.full((len(alpha), 1, 1), arm))
        single = Likelihood(*(part[a, 0] for part in vars(likelihood).values()))
        fit = fit_renyi(
            lambda s, arm=arm, single=single: log_joint(s, PRIORS[arm], single)[0],
            (-20, 55),
            order,
            points=1501,
            restarts=2,
            generator=torch.Generator().manual_seed(0),
        )
        close = [row for row in fit.optima() if abs(float(row["mean"]) - float(agent.mean[a, 0, arm])) < 0.1]
        assert close, (order, fit.optima(), agent.mean[a, 0, arm])
        assert abs(float(close[0]["std"]) - math.exp(0.5 * float(agent.log_var[a, 0, arm]))) < 0.05


def test_behavior_of_a_history_made_by_hand() -> None:
    arm = torch.tensor([[[2, 0, 0, 1, 2]]])
    history = {
        "arm": arm,
        "reward": tensor(9, 1, 2, 3, 6).reshape(1, 1, 5),
        "std": torch.arange(15, dtype=torch.float64).reshape(1, 1, 3, 5),
        "mean": torch.zeros(1, 1, 3, 5, dtype=torch.float64),
    }
    found = behavior(history, REWARDS, first=1)
    assert found["fraction"][0, 0].tolist() == [0.5, 0.25, 0.25]
    assert float(found["entropy"]) == pytest.approx(1.5 * math.log(2))
    assert float(found["sharpe"]) == pytest.approx(3 / 3.5)
    assert float(found["regret"]) == pytest.approx(17.76 / 2.8624 - 3 / 3.5)
    assert float(found["width"]) == pytest.approx(7.5)
    assert float(found["pulled_width"]) == pytest.approx((1 + 2 + 8 + 14) / 4)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: BanditConfig(rule="greedy"), "rule.*greedy"),
        (lambda: BanditConfig(likelihood="none"), "likelihood.*none"),
        (lambda: BanditConfig(gradient="none"), "gradient.*none"),
        (lambda: BanditConfig(samples=1), "samples.*1"),
        (lambda: BanditConfig(updates=0), "updates.*0"),
        (lambda: BanditConfig(lr=0.0), "lr.*0"),
        (lambda: BanditConfig(memory=1), "memory.*1"),
        (lambda: BanditConfig(start_variance=0.0), "start_variance.*0"),
        (lambda: RenyiBandit(REWARDS, PRIORS, [math.inf], [0]), "alpha.*inf"),
        (lambda: RenyiBandit(REWARDS, PRIORS, [-1.0], [0]), "alpha.*-1"),
        (lambda: RenyiBandit(REWARDS, PRIORS, [1.0], []), "seeds"),
        (lambda: RenyiBandit(REWARDS, PRIORS[0], [1.0], [0]), "priors"),
        (lambda: RenyiBandit(REWARDS, PRIORS, [1.0], [0]).run(0), "pulls.*0"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names: str) -> None:
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
