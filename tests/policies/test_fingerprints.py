"""Learners whose critics know a policy by its answers in probing states: the promises of all learners, and theirs."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from policy_helpers import KINDS, assert_same, environment, generation, learner, of_seed, play
from torch import Tensor

from mindworks.core.policy import Box, Policy
from mindworks.core.population import MLP
from mindworks.errors import InputError
from mindworks.policies import PSSVF, PSVF, PSSVFConfig, TDConfig, evaluate, zero_shot
from mindworks.policies.critics import FingerprintCritic
from mindworks.policies.learner import Learner

PROBES = 3
every_kind = pytest.mark.parametrize("kind", KINDS)
BOUNDS = Box((-1.0,), (1.0,))
LINEAR, DEEP = Policy(MLP((1, 1)), BOUNDS), Policy(MLP((1, 8, 8, 1)), BOUNDS)
# name: kind, task, configuration
TD_LEARNERS = {
    "psvf": ("psvf", "LQR-v0", {}),
    "psvf of discrete policies": ("psvf", "CartPole-v1", {}),
    "pavf, deterministic": ("pavf", "LQR-v0", {}),
    "pavf, gaussian": ("pavf", "LQR-v0", {"stochastic": True}),
    "pavf, discrete": ("pavf", "CartPole-v1", {}),
    "pavf, discrete, no importance": ("pavf", "CartPole-v1", {"importance": False}),
}
every_td = pytest.mark.parametrize(("kind", "task", "config"), TD_LEARNERS.values(), ids=TD_LEARNERS.keys())


def probing(kind: str, task: str = "LQR-v0", **config) -> Learner:
    one = learner(kind, task, **{"probes": PROBES, **config})
    assert isinstance(one.critic, FingerprintCritic)
    return one


@every_kind
@pytest.mark.parametrize("task", ["LQR-v0", "CartPole-v1"])
def test_the_same_seeds_give_the_same_numbers_bit_for_bit(kind, task):
    states = []
    for _ in range(2):
        torch.rand(3)  # the global generator plays no part
        one, env = probing(kind, task, seeds=[0, 1]), environment(task, 4)
        for _ in range(2):
            generation(one, env)
        states.append(one.state())
    assert_same(*states)
    assert not torch.equal(one.phi[0], one.phi[1])


@every_kind
@pytest.mark.parametrize("task", ["LQR-v0", "CartPole-v1"])
def test_a_seed_does_not_know_its_company(kind, task):
    together, alone = probing(kind, task), probing(kind, task, seeds=[1])
    (many, played), (one, single) = play(together, environment(task, 6)), play(alone, environment(task, 2))
    assert torch.equal(many[1], one[0])
    start = alone.theta.clone()
    together.tell(many, played)
    alone.tell(one, single)
    for name in ("theta", "phi"):
        torch.testing.assert_close(getattr(together, name)[1], getattr(alone, name)[0], rtol=0, atol=1e-5)
    assert (alone.theta - start).abs().max() > 1e-3, "no policy step was taken, so nothing was compared"


@every_kind
def test_a_saved_learner_goes_on_bit_for_bit(kind):
    config = {"seeds": [0, 1], "policy_capacity": 6, **({"recency": 1.1} if kind == "pssvf" else {})}
    one, env = probing(kind, **config), environment("LQR-v0", 4)
    generation(one, env)
    resumed = probing(kind, **config)
    resumed.load(deepcopy(one.state()))
    for _ in range(2):
        for each in (one, resumed):
            generation(each, env)
    assert_same(resumed.state(), one.state())


@every_kind
def test_inactive_seeds_are_left_exactly_as_they_are(kind):
    one, env = probing(kind), environment("LQR-v0", 6)
    generation(one, env)
    before = [of_seed(one, s) for s in range(3)]
    theta, episodes = play(one, env, np.array([True, False, True]))
    streams = deepcopy(one.streams.state()["torch"])
    one.tell(theta, episodes, np.array([True, False, True]))
    assert_same(of_seed(one, 1), before[1])
    assert torch.equal(one.streams.state()["torch"][1], streams[1])
    for s in (0, 2):
        assert not torch.equal(one.theta[s], before[s]["theta"])
        assert not torch.equal(one.phi[s], before[s]["phi"])


@every_kind
def test_critic_steps_move_every_probing_state(kind):
    one = probing(kind, "CartPole-v1", policy_steps=0, seeds=[0, 1], critic_steps=10)
    before, theta = one.critic.probes(one.phi).clone(), one.theta.clone()
    generation(one, environment("CartPole-v1", 4))
    states = one.critic.probes(one.phi)
    assert states.shape[-2:] == (PROBES, 4)
    assert (states != before).all()
    assert torch.equal(one.theta, theta)


def told(**config) -> tuple[PSSVF, Tensor, Tensor]:
    """A learner with 64 deep policies per seed, told how they act at 0.7, and both of them."""
    settings = {"population": 64, "policy_steps": 0, "critic_steps": 1, "critic_hidden": (32,), "batch": 32}
    one = PSSVF(DEEP, PSSVFConfig(**{**settings, "probes": 3, "lr_critic": 1e-2, **config}), [0, 1])
    theta = DEEP.init(2, 64, generator=torch.Generator().manual_seed(0)) * 2
    returns = 10 + 5 * DEEP.action(theta, torch.tensor([[0.7]])).flatten(1)
    one.replay.add(theta, returns.double(), torch.ones(2, 64), np.array([True, True]))
    return one, theta, returns


@pytest.mark.parametrize("ensemble", [1, 2])
def test_regression_learns_returns_of_deep_policies_and_judges_linear_ones(ensemble):
    one, theta, returns = told(ensemble=ensemble)
    before = (one.value(theta) - returns).square().mean(1).sqrt()
    assert one.value(theta).shape == (2, 64)
    one.fit_critic(300)
    after = (one.value(theta) - returns).square().mean(1).sqrt()
    assert (after < 0.1 * returns.std(1)).all()
    assert (after < 0.1 * before).all()
    linear = 0.5 * torch.randn(2, 20, 2, generator=torch.Generator().manual_seed(1))
    wanted = 10 + 5 * LINEAR.action(linear, torch.tensor([[0.7]])).flatten(1)
    predicted = one.value(linear, LINEAR)
    assert predicted.shape == (2, 20)
    for ours, theirs in zip(predicted, wanted, strict=True):
        assert np.corrcoef(ours.detach(), theirs)[0, 1] > 0.98


def test_fresh_linear_policies_climb_a_critic_of_deep_ones_and_are_played_as_linear_ones():
    one, _, _ = told()
    one.fit_critic(100)
    env = environment("LQR-v0", 2 * 3 * 2)
    before = deepcopy(one.state())
    still, climbed = (zero_shot(one, env, 3, steps=steps, lr=1e-2, policy=LINEAR) for steps in (0, 30))
    for row, higher in zip(still, climbed, strict=True):
        assert row["before"] == row["after"] == higher["before"]
        assert higher["predicted"] > row["predicted"]
        assert higher["after"] != row["after"]
    assert_same(one.state(), before)
    fresh = torch.stack([LINEAR.init(3, generator=torch.Generator().manual_seed(10**6 + seed)) for seed in (0, 1)])
    returns = evaluate(one, fresh, env, policy=LINEAR).mean(1)
    np.testing.assert_allclose([row["before"] for row in still], returns)
    np.testing.assert_allclose([row["predicted"] for row in still], one.value(fresh, LINEAR).mean(1).detach())


def test_a_critic_of_parameters_is_not_climbed_by_another_architecture():
    one, env = learner("pssvf", seeds=[0]), environment("LQR-v0", 2)
    generation(one, env)
    with pytest.raises(InputError, match=r"policy.*probes"):
        zero_shot(one, env, 1, steps=1, lr=1e-2, policy=DEEP)


@every_kind
def test_another_architecture_acts_with_the_normalisation_of_its_seed(kind):
    one, env = probing(kind, seeds=[0, 1]), environment("LQR-v0", 4)
    generation(one, env)
    theta = DEEP.init(2, generator=torch.Generator().manual_seed(0))
    obs = np.full((2, 1), 2.0, np.float32)
    scaled = torch.from_numpy(((obs - one.norm.mean) / one.norm.std).astype(np.float32)).unsqueeze(1)
    expected = DEEP.mode(theta, scaled).squeeze(1).numpy()
    act = one.actor(theta, policy=DEEP)
    np.testing.assert_allclose(act(obs, np.ones(2, bool)), expected, rtol=1e-5, atol=1e-6)


def test_evaluation_plays_the_architecture_it_is_given():
    # a deep policy that is constant plays as the linear one with that constant
    one, env = probing("pssvf", seeds=[0, 1]), environment("LQR-v0", 8)
    linear, deep = torch.tensor([[0.0, 0.3], [0.0, -0.4]]), torch.zeros(2, DEEP.num_parameters)
    deep[:, -1] = linear[:, -1]
    ours, theirs = evaluate(one, deep, env, policy=DEEP), evaluate(one, linear, env)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.std() > 0
    many = torch.stack([deep, torch.zeros_like(deep)], 1)
    np.testing.assert_array_equal(evaluate(one, many, env, policy=DEEP)[:, :2], theirs[:, :2])


# -- one critic step and one policy step, against autograd on one transition at a time --------------------------------


def filled(kind: str, task: str, config: dict) -> Learner:
    """A learner with a replay of two generations that has taken no step."""
    one = probing(kind, task, **{"seeds": [0, 1], "update_every": 10**6, "policy_batch": 6, **config})
    for _ in range(2):
        generation(one, environment(task, 4))
    assert (one.critic_adam.count == 0).all()
    with torch.no_grad():
        one.theta.add_(0.1)  # away from the policies in the replay
    return one


def value_of(one: Learner, phi: Tensor, theta: Tensor, obs: Tensor, action: Tensor | None) -> Tensor:
    """The critic `phi[Q]` of one policy `theta[P]` in one state: the fingerprint state by state, then one network."""
    width = obs.shape[-1]
    states, weights = phi[: PROBES * width].view(PROBES, width), phi[PROBES * width :]
    deeds = [one.policy.features(theta, state.unsqueeze(0)).squeeze(0) for state in states]
    extra = [obs]
    if one.__class__ is not PSVF:
        extra.append(torch.eye(one.policy.head.outputs)[action] if one.discrete else action)
    features = torch.cat([*extra, *deeds])
    hidden = weights[: 8 * len(features)].view(8, -1) @ features + weights[8 * len(features) :][:8]
    return weights[-9:-1] @ hidden.relu() + weights[-1]


def scaled(one: Learner, obs: Tensor, s: int) -> Tensor:
    mean, std = (torch.from_numpy(x[s]).float() for x in (one.norm.mean, one.norm.std))
    return (obs - mean) / std


def sampled(one: Learner, batch: int) -> tuple[dict[str, Tensor], list[torch.Generator]]:
    """The rows the next step will draw, and copies of the generators after that draw."""
    state = deepcopy(one.streams.state())
    slots = one._sample(batch, np.array([True, True]))
    generators = [torch.Generator().set_state(generator.get_state()) for generator in one.streams.torch]
    one.streams.load(state)
    return {name: one.transitions.gather(name, slots) for name in one.transitions.data}, generators


def acted(one: Learner, theta: Tensor, obs: Tensor, generator: torch.Generator) -> Tensor:
    return one.policy.sample(theta, obs, generator) if one.config.stochastic else one.policy.mode(theta, obs)


@every_td
def test_one_critic_step_follows_autograd_on_one_transition_at_a_time(kind, task, config):
    one = filled(kind, task, {**config, "critic_steps": 1, "policy_steps": 0, "batch": 8})
    one.transitions.data["terminated"][:, ::2] = True
    rows, generators = sampled(one, one.config.batch)
    assert 0 < rows["terminated"].sum() < 16
    thetas = one.replay.theta(rows["policy"])
    start = one.phi.clone()
    one.learn_round()
    for s, generator in enumerate(generators):
        phi = start[s].clone().requires_grad_()
        obs, following = (scaled(one, rows[name][s], s) for name in ("obs", "next_obs"))
        after = acted(one, thetas[s], following.unsqueeze(-2), generator)
        errors = []
        for b in range(one.config.batch):
            bootstrap = value_of(one, phi, thetas[s, b], following[b], after[b, 0]).detach()
            target = rows["reward"][s, b] + one.config.discount * bootstrap * (~rows["terminated"][s, b])
            errors.append(value_of(one, phi, thetas[s, b], obs[b], rows["action"][s, b]) - target)
        (expected,) = torch.autograd.grad(torch.stack(errors).square().mean(), phi)
        torch.testing.assert_close(one.critic_adam.mean[s] / 0.1, expected, rtol=1e-4, atol=1e-4)
        assert (expected[: PROBES * obs.shape[-1]] != 0).any()


@every_td
def test_one_policy_step_follows_autograd_through_the_answers_at_the_probing_states(kind, task, config):
    one = filled(kind, task, {**config, "policy_steps": 1})
    one._critic_step = lambda active: None  # the policy step alone
    rows, generators = sampled(one, one.config.policy_batch)
    start = one.theta.clone()
    one.learn_round()
    for s, generator in enumerate(generators):
        theta = start[s].clone().requires_grad_()
        obs = scaled(one, rows["obs"][s], s)
        actions, weight, log_prob = None, 1.0, None
        if kind == "pavf" and not one.config.stochastic:
            actions = one.policy.action(theta, obs)
        elif kind == "pavf":
            actions = rows["action"][s]
            if not one.config.importance:
                actions = one.policy.sample(theta.detach(), obs, generator)
            log_prob = one.policy.log_prob(theta, obs, actions)
            if one.config.importance:
                weight = (log_prob - rows["log_prob"][s]).detach().exp()
        values = [value_of(one, one.phi[s], theta, obs[b], None if actions is None else actions[b]) for b in range(6)]
        gain = torch.stack(values)
        if log_prob is not None:
            gain = weight * (gain.detach() * log_prob + gain)
        (expected,) = torch.autograd.grad(gain.mean(), theta)
        torch.testing.assert_close(-one.policy_adam.mean[s] / 0.1, expected, rtol=1e-4, atol=1e-5)
        assert (expected != 0).any()


@every_td
def test_values_equal_one_network_at_a_time_for_one_policy_or_many(kind, task, config):
    one = filled(kind, task, config)
    rows, _ = sampled(one, 5)
    theta = one.replay.theta(rows["policy"])
    extra = () if kind == "psvf" else (rows["action"],)
    for policies in (theta, theta[:, :1]):
        ours = one.value(policies, rows["obs"], *extra)
        assert ours.shape == (2, 5)
        for s in range(2):
            each = policies[s].expand(5, -1)
            expected = [value_of(one, one.phi[s], each[b], rows["obs"][s, b], rows["action"][s, b]) for b in range(5)]
            torch.testing.assert_close(ours[s], torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: PSSVFConfig(probes=-1), "probes.*-1"),
        (lambda: TDConfig(probes=-1), "probes.*-1"),
        (lambda: PSSVFConfig(recency=-1), "recency.*-1"),
        (lambda: PSSVFConfig(recency=float("nan")), "recency.*nan"),
        (lambda: PSSVF(LINEAR, PSSVFConfig(probes=2, critic_hidden=(0,))), r"hidden.*0"),
    ],
)
def test_bad_settings_are_refused_in_one_line_that_names_them(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
