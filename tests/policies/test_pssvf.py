"""The PSSVF learns returns as a function of parameters, in their own units, and climbs them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from policy_helpers import episodes_by_hand, generation, learner

from mindworks.core.policy import Box, Policy
from mindworks.core.population import MLP
from mindworks.envs import LQREnv, lqr_return, rollout
from mindworks.errors import InputError
from mindworks.policies import PSSVF, PSSVFConfig

LINEAR = Policy(MLP((1, 1)), Box((-torch.inf,), (torch.inf,)))
SLOPE = torch.tensor([3.0, -2.0])


def told(normalize_returns: bool = True, offset: float = 100.0) -> tuple[PSSVF, torch.Tensor, torch.Tensor]:
    """A learner with 64 policies per seed whose returns are linear in their parameters, and both of them."""
    config = {"population": 64, "policy_steps": 0, "critic_steps": 1, "critic_hidden": (32,), "batch": 32}
    one = learner("pssvf", seeds=[0, 1], sigma=1.0, normalize_returns=normalize_returns, **config)
    theta = torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(0))
    returns = theta @ SLOPE + offset
    one.tell(theta, episodes_by_hand([[value] for value in returns.flatten().tolist()]))
    return one, theta, returns


def members(one: PSSVF, theta: torch.Tensor) -> torch.Tensor:
    """Every critic's own output `[S, E, N]`, network by network."""
    networks = [[one.critic.network.module(vector.clone()) for vector in critics] for critics in one.phi]
    return torch.stack(
        [torch.stack([net(x).squeeze(-1) for net in row]) for row, x in zip(networks, theta, strict=True)]
    ).detach()


def test_the_critic_learns_returns_that_are_linear_in_the_parameters_in_their_own_units():
    one, theta, returns = told()
    assert one.value(theta).shape == (2, 64)
    one.fit_critic(600)
    assert (one.value(theta) - returns).square().mean().sqrt() < 0.1 * returns.std()
    fresh = 0.7 * torch.randn(2, 200, 2, generator=torch.Generator().manual_seed(1))
    assert (one.value(fresh) - (fresh @ SLOPE + 100)).square().mean().sqrt() < 0.15 * returns.std()


def test_units_are_the_mean_and_deviation_of_the_stored_returns():
    one, _, returns = told()
    torch.testing.assert_close(one.center.flatten(), returns.mean(1), rtol=1e-5, atol=0, check_dtype=False)
    torch.testing.assert_close(one.scale.flatten(), returns.std(1, correction=0), rtol=1e-5, atol=0, check_dtype=False)
    raw, theta, _ = told(normalize_returns=False)
    assert (raw.center == 0).all()
    assert (raw.scale == 1).all()
    torch.testing.assert_close(raw.value(theta), members(raw, theta).squeeze(1), check_dtype=False)


def test_a_shift_and_a_scale_of_all_returns_change_the_units_and_nothing_else():
    theta = torch.randn(1, 8, 2, generator=torch.Generator().manual_seed(0))
    parameters = []
    for shift, factor in ((0.0, 1.0), (512.0, 4.0)):  # powers of two, so that rounding agrees
        one = learner("pssvf", seeds=[0], population=8)
        returns = (theta @ SLOPE).mul(16).round() / 16 * factor + shift
        one.tell(theta, episodes_by_hand([[value] for value in returns.flatten().tolist()]))
        parameters.append((one.theta.clone(), one.phi.clone()))
    for first, second in zip(*parameters, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_returns_that_are_all_equal_are_no_division_by_zero():
    one = learner("pssvf", seeds=[0])
    for _ in range(3):
        one.tell(one.ask(), episodes_by_hand([[9.0], [9.0]]))
    assert one.phi.isfinite().all()
    assert one.value(one.ask()).isfinite().all()


def test_enormous_finite_returns_leave_finite_parameters():
    # an unstable gain on the unlimited regulator: the state grows by 3 per step, the return ends beyond float32
    one, env = PSSVF(LINEAR, PSSVFConfig(population=2), [0, 1]), LQREnv(4, horizon=50)
    theta = torch.tensor([[2.0, 0.0], [-0.5, 0.0]]).expand(2, 2, 2)
    for _ in range(2):
        episodes = rollout(env, one.policy.actor(theta), one.episode_seeds())
        assert episodes.returns.min() < -1e40
        assert not episodes.diverged.any()
        one.tell(theta, episodes)
    assert one.phi.isfinite().all()
    assert one.theta.isfinite().all()


def test_steps_are_counted_per_episode():
    one = learner("pssvf", seeds=[0], population=4, critic_steps=3, policy_steps=5)
    one.tell(one.ask(), episodes_by_hand([[1.0], [2.0], [3.0], [4.0]]))
    assert one.critic_adam.count.tolist() == [12]
    assert one.policy_adam.count.tolist() == [20]
    assert one.episodes.tolist() == [4]


def test_the_policy_moves_up_the_critic_and_the_critic_does_not_move_with_it():
    config = {"population": 64, "critic_steps": 10, "policy_steps": 0, "critic_hidden": (32,), "batch": 32}
    theta = torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(0))
    episodes = episodes_by_hand([[value] for value in (theta @ SLOPE).flatten().tolist()])
    still = learner("pssvf", seeds=[0], **config)
    climbing = learner("pssvf", seeds=[0], **{**config, "policy_steps": 2})
    start = climbing.theta.clone()
    for one in (still, climbing):
        one.tell(theta, episodes)
    assert torch.equal(still.theta, start)
    assert torch.equal(still.phi, climbing.phi)
    moved = (climbing.theta - start).squeeze(0)
    assert moved @ SLOPE > 0.5 * moved.norm() * SLOPE.norm()
    assert climbing.value(climbing.theta.unsqueeze(1)) > climbing.value(start.unsqueeze(1))


def test_fitting_moves_the_critic_of_active_seeds_alone():
    one, _, _ = told()
    theta, phi, units = one.theta.clone(), one.phi.clone(), one.center.clone()
    one.fit_critic(5, np.array([False, True]))
    assert torch.equal(one.theta, theta)
    assert torch.equal(one.phi[0], phi[0])
    assert torch.equal(one.center, units)
    assert not torch.equal(one.phi[1], phi[1])


def test_a_regulator_is_learned_to_near_its_best_return():
    config = PSSVFConfig(
        population=4, sigma=0.3, lr_policy=2e-2, lr_critic=1e-2, critic_hidden=(32,), normalize_observations=False
    )
    one, env = PSSVF(LINEAR, config, [0, 1, 2]), LQREnv(12, horizon=10, state_limit=5.0)
    with torch.no_grad():
        one.theta.zero_()
    for _ in range(40):
        generation(one, env)
    learned = lqr_return(one.theta[:, 0].numpy(), one.theta[:, 1].numpy(), horizon=10)
    best = lqr_return(np.linspace(-1, 0, 101), horizon=10).max()
    assert lqr_return(0.0, horizon=10) == pytest.approx(-10)
    assert best == pytest.approx(-1.61, abs=0.02)
    assert learned.min() > -5, learned


def test_the_value_of_an_ensemble_is_the_least_of_its_members():
    one = learner("pssvf", seeds=[0, 1], ensemble=3, population=8)
    theta = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(0))
    one.tell(theta, episodes_by_hand([[value] for value in (theta @ SLOPE + 10).flatten().tolist()]))
    each = members(one, theta)
    assert each.shape == (2, 3, 8)
    assert not torch.equal(each[:, 0], each[:, 1])
    expected = each.min(1).values * one.scale + one.center
    torch.testing.assert_close(one.value(theta), expected, check_dtype=False)
    assert (each.argmin(1).flatten().unique().numel()) > 1


def test_members_of_an_ensemble_learn_as_if_they_were_alone():
    # no policy steps and the same batches: a member knows nothing of the others
    theta = torch.randn(1, 8, 2, generator=torch.Generator().manual_seed(0))
    episodes = episodes_by_hand([[value] for value in (theta @ SLOPE).flatten().tolist()])
    three, one = (learner("pssvf", seeds=[0], population=8, policy_steps=0, ensemble=n) for n in (3, 1))
    with torch.no_grad():
        one.phi.copy_(three.phi[:, 1:2])
    one.streams.load(three.streams.state())
    for each in (three, one):
        each.tell(theta, episodes)
    torch.testing.assert_close(three.phi[:, 1:2], one.phi, rtol=0, atol=1e-6)
    assert not torch.equal(three.phi[:, 0], three.phi[:, 1])


def test_logarithmic_critics_answer_in_returns():
    config = {"population": 64, "policy_steps": 0, "critic_steps": 1, "critic_hidden": (32,), "batch": 32}
    one = learner("pssvf", seeds=[0, 1], log_returns=True, **config)
    theta = torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(0))
    returns = (theta @ SLOPE * 0.5 + 4).exp().clamp_max(1e4)  # over several orders of magnitude
    one.tell(theta, episodes_by_hand([[value] for value in returns.flatten().tolist()]))
    torch.testing.assert_close(one.center.flatten(), returns.log1p().mean(1), rtol=1e-5, atol=0, check_dtype=False)
    one.fit_critic(600)
    errors = (one.value(theta).clamp_min(0).log1p() - returns.log1p()).square().mean().sqrt()
    assert errors < 0.15 * returns.log1p().std()


def test_logarithms_of_negative_returns_are_refused():
    one = learner("pssvf", seeds=[0], log_returns=True)
    with pytest.raises(InputError, match=r"log_returns.*-1"):
        one.tell(one.ask(), episodes_by_hand([[-1.0], [2.0]]))
    with pytest.raises(InputError, match=r"ensemble.*0"):
        PSSVFConfig(ensemble=0)
