"""Steps of a generator against autograd and `torch.optim.Adam` in float64, and what it learns from them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from generator_helpers import HIGH, LOW, POLICY, achieved, maker, practise, tell
from torch import Tensor
from torch.nn.functional import linear

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.policies import GoGePo

POLICIES = {
    "continuous": POLICY,
    "discrete": Policy(MLP((1, 3, 2), "relu"), Categorical(2)),
    "gaussian": Policy(MLP((1, 3, 1)), Box((-1.0,), (1.0,), gaussian=True)),
}
BOTH = np.array([True, True])


# -- steps against a reference ----------------------------------------------------------------------------------------


def before_and_after(kind: str, **config) -> tuple[GoGePo, GoGePo]:
    """A learner whose first learning is still to come but for the evaluators, and the same one after it."""
    settings = {"population": 2, "settling": 2, "warmup": 10, "critic_steps": 3, "policy_steps": 2, **config}
    one, before = maker(kind, **settings), maker(kind, **settings)
    practise(one, 5)
    before.load(deepcopy(one.state()))
    theta = one.ask()
    before.ask()
    before._learn = lambda *args: None  # store alone
    tell(before, theta)
    if kind == "gogepo":
        before.fit_critic(3 * 2, BOTH)
    assert torch.equal(before.rho, one.rho)
    tell(one, theta)
    return before, one


def judged(one: GoGePo, s: int, theta: Tensor) -> Tensor:
    """What each evaluator of seed s says of `theta[B, P]`, policy by policy and layer by layer: `[M, B]`."""
    predictions = []
    for phi in one.phi[s].double():
        states, layers = one.critic.probing.unflatten(phi)
        x = torch.stack([one.policy.features(each, states).flatten() for each in theta])
        for i, (weight, bias) in enumerate(layers):
            x = linear(torch.relu(x) if i else x, weight, bias)
        predictions.append(x.squeeze(-1))
    return torch.stack(predictions)


def made(one: GoGePo, rho: Tensor, commands: Tensor) -> Tensor:
    """Policies `[B, P]` of the generator `rho[R]` for `commands[B]`."""
    features = [torch.cos(torch.pi / 1.5 * k * (commands - LOW) / (HIGH - LOW)) for k in range(1, 9)]
    return one.generator.forward(rho, torch.stack(features, -1))


def descend(one: GoGePo, s: int, losses: list[Callable[[Tensor], Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """rho, its running mean and Adam's mean gradient after one step of torch's Adam for each loss."""
    rho = one.rho[s].double().requires_grad_()
    adam, mean = torch.optim.Adam([rho], lr=one.config.lr_policy), rho.detach().clone()
    for loss in losses:
        adam.zero_grad()
        loss(rho).backward()
        adam.step()
        if one.config.average:
            mean = one.config.average * mean + (1 - one.config.average) * rho.detach()
    return rho.detach(), mean, adam.state[rho]["exp_avg"]


def assert_descended(after: GoGePo, s: int, expected: tuple[Tensor, Tensor, Tensor]) -> None:
    rho, mean, gradient = expected
    scale = gradient.abs().max()
    torch.testing.assert_close(after.policy_adam.mean[s].double(), gradient, rtol=1e-3, atol=1e-5 * float(scale))
    clear = gradient.abs() > 1e-4 * scale  # elsewhere Adam turns rounding into steps
    assert clear.double().mean() > 0.5
    torch.testing.assert_close(after.rho[s][clear].double(), rho[clear], rtol=0, atol=1e-4)
    torch.testing.assert_close(after.mean_rho[s][clear].double(), mean[clear], rtol=0, atol=1e-5)
    assert (after.rho[s][clear] - mean[clear]).abs().max() > 1e-3
    assert after.policy_adam.count[s] == 4


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "config",
    [{}, {"ensemble": 1, "replayed": 1.0}, {"average": 0.0, "normalize_returns": False, "lr_policy": 1e-3}],
    ids=["recipe", "one evaluator", "plain"],
)
def test_generator_steps_follow_autograd_through_frozen_evaluators(policy, config):
    before, after = before_and_after("gogepo", policy=POLICIES[policy], **config)
    commands = before._training_commands(2 * 2, BOTH)
    assert torch.equal(after.phi, before.phi), "generator steps moved the evaluators"
    assert torch.equal(after.scale, before.scale)
    assert torch.equal(after.streams.torch[1].get_state(), before.streams.torch[1].get_state())
    if before.config.normalize_returns:
        for s in range(2):
            returns = before.replay.values(s)
            torch.testing.assert_close(before.center[s, 0], returns.mean())
            torch.testing.assert_close(before.scale[s, 0], returns.std(correction=0).clamp_min(1e-3))

    def error(rho: Tensor, s: int, c: Tensor) -> Tensor:
        target = (c - before.center[s]) / before.scale[s]
        return ((judged(before, s, made(before, rho, c)) - target) ** 2).mean()

    for s in range(2):
        expected = descend(before, s, [partial(error, s=s, c=c) for c in commands[s]])
        assert_descended(after, s, expected)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("buckets", [0, 3])
def test_without_an_evaluator_the_stored_policies_themselves_are_the_targets(policy, buckets):
    before, after = before_and_after("udrlpg", policy=POLICIES[policy], buckets=buckets)
    slots = before._draw((2 * 2, 6), BOTH)
    assert torch.equal(after.phi, before.phi)
    assert torch.equal(after.streams.torch[1].get_state(), before.streams.torch[1].get_state())
    stored = before.replay.policies.data

    def error(rho: Tensor, s: int, chosen: Tensor) -> Tensor:
        missed = made(before, rho, stored["value"][s, chosen]) - stored["theta"][s, chosen].double()
        return (missed**2).sum() / missed.numel()

    for s in range(2):
        expected = descend(before, s, [partial(error, s=s, chosen=row) for row in slots[s]])
        assert_descended(after, s, expected)


# -- what is learned --------------------------------------------------------------------------------------------------


def on_command(one: GoGePo) -> tuple[np.ndarray, np.ndarray]:
    """Of each seed: the correlation of commanded and achieved returns, and their mean distance in shares of the range.

    The commands are 13 over the range that random policies leave in every replay.
    """
    commands = torch.linspace(-36, 36, 13)
    returns = achieved(one.policy, one.generate(commands)).numpy()
    distance = np.abs(returns - commands.numpy()).mean(1) / 72
    return np.array([np.corrcoef(row, commands)[0, 1] for row in returns]), distance


@pytest.mark.parametrize("kind", ["gogepo", "udrlpg"])
def test_returns_are_achieved_on_command(kind):
    settings = {"population": 8, "settling": 0, "warmup": 32, "batch": 16, "generator_batch": 16, "lr_policy": 3e-3}
    one = maker(kind, seeds=range(4), critic_hidden=(16,), policy_steps=5, generator_hidden=(16, 16), **settings)
    untrained = on_command(one)
    practise(one, 25)
    correlation, distance = on_command(one)
    assert correlation.min() > 0.9
    assert distance.max() < 0.12
    assert untrained[0].mean() < 0.6
    assert untrained[1].min() > 0.2
