"""Both kinds of critics against modules run one by one, and what a fingerprint sees of a policy: its answers alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.errors import InputError
from mindworks.policies.critics import Critic, FingerprintCritic, ParameterCritic, answers, answers_of_all, make_critic

S, M, N = 2, 3, 5
BOX = ((-1.0, -2.0), (1.0, 0.5))
HEADS = {"discrete": Categorical(2), "continuous": Box(*BOX), "gaussian": Box(*BOX, gaussian=True)}
POLICIES = {name: Policy(MLP((3, 4, 2)), head) for name, head in HEADS.items()}
every_head = pytest.mark.parametrize("head", HEADS)
every_critic = pytest.mark.parametrize("probes", [0, 4], ids=["parameters", "fingerprint"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fresh(critic: Critic, *leading: int) -> Tensor:
    return critic.init(*leading, generator=torch.Generator().manual_seed(7)).double()


def run(theta: Tensor, sizes: tuple[int, ...], activation: type[nn.Module], x: Tensor) -> Tensor:
    """An nn.Sequential with the parameters `theta[P]` at x, differentiable in both."""
    pairs = [(nn.Linear(a, b, dtype=torch.float64), activation()) for a, b in pairwise(sizes)]
    network = nn.Sequential(*[module for pair in pairs for module in pair][:-1])
    pieces = theta.split([parameter.numel() for parameter in network.parameters()])
    named = {name: piece.view_as(p) for (name, p), piece in zip(network.named_parameters(), pieces, strict=True)}
    return functional_call(network, named, (x,))


def deed(policy: Policy, theta: Tensor, state: Tensor) -> Tensor:
    """What one policy does in one state, written out per head."""
    weights = policy.network.num_parameters
    activation = nn.Tanh if policy.network.activation == "tanh" else nn.ReLU
    output = run(theta[:weights], policy.network.sizes, activation, state)
    if isinstance(policy.head, Categorical):
        return output.exp() / output.exp().sum()
    low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (policy.head.low, policy.head.high))
    action = low + (high - low) * (torch.tanh(output) + 1) / 2
    return torch.cat([action, theta[weights:].exp()])


def plain(probes: int, policy: Policy, phi: Tensor, theta: Tensor, *extra: Tensor) -> Tensor:
    """The reference: one critic `phi[Q]` with hidden sizes (6, 5), one policy `theta[P]`, a number."""
    description, weights = [theta], phi
    if probes:
        states, weights = phi[: 3 * probes].view(probes, 3), phi[3 * probes :]
        description = [deed(policy, theta, state) for state in states]
    features = torch.cat([*extra, *description])
    return run(weights, (len(features), 6, 5, 1), nn.ReLU, features).squeeze(-1)


def each(probes: int, policy: Policy, phi: Tensor, theta: Tensor) -> Tensor:
    """`plain` of all critics `[S, M, Q]` and policies `[S, N, P]`: `[S, M, N]`."""
    return torch.stack(
        [
            torch.stack([torch.stack([plain(probes, policy, one, vector) for vector in group]) for one in members])
            for members, group in zip(phi, theta, strict=True)
        ]
    )


@every_critic
@every_head
@pytest.mark.parametrize("members", [1, M])
def test_values_of_an_ensemble_equal_a_loop_over_critics_and_policies(probes, head, members):
    policy = POLICIES[head]
    critic = make_critic(policy, (6, 5), probes)
    phi, theta = fresh(critic, S, members), normal(S, N, policy.num_parameters)
    values = critic.values(phi, theta)
    assert values.shape == (S, members, N)
    torch.testing.assert_close(values, each(probes, policy, phi, theta).detach(), rtol=0, atol=1e-12)
    for m in range(members):
        alone = critic.values(phi[:, m : m + 1], theta)
        torch.testing.assert_close(values[:, m : m + 1], alone, rtol=0, atol=1e-12)
    for s in range(S):
        torch.testing.assert_close(values[s : s + 1], critic.values(phi[s : s + 1], theta[s : s + 1]))


@every_critic
@every_head
def test_values_flow_back_into_the_policies_as_in_a_plain_loop(probes, head):
    policy = POLICIES[head]
    critic = make_critic(policy, (6, 5), probes)
    phi, theta = fresh(critic, S, M), normal(S, N, policy.num_parameters).requires_grad_()
    weights = normal(S, M, N, seed=1)
    ours, expected = (
        torch.autograd.grad((weights * values).sum(), theta)[0]
        for values in (critic.values(phi, theta), each(probes, policy, phi, theta))
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)
    assert (ours.abs().amax((0, 1)) > 0).all(), "part of theta does not matter, so it was not compared"


@every_critic
@every_head
@pytest.mark.parametrize("members", [1, M])
def test_regression_is_the_gradient_of_each_critics_own_squared_error(probes, head, members):
    policy = POLICIES[head]
    critic = make_critic(policy, (6, 5), probes)
    phi, theta, targets = fresh(critic, S, members), normal(S, N, policy.num_parameters), normal(S, N, seed=1)
    gradient = critic.regression(phi)
    for _ in range(2):  # it reads phi anew at every call, as it moves
        leaf = phi.clone().requires_grad_()
        errors = (each(probes, policy, leaf, theta) - targets.unsqueeze(1)).square().mean(-1)
        (expected,) = torch.autograd.grad(errors.sum(), leaf)
        ours = gradient(theta, targets)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)
        with torch.no_grad():
            phi.sub_(0.3 * ours)
    assert not phi.requires_grad


@every_critic
@every_head
@pytest.mark.parametrize("shared", [False, True], ids=["own policies", "one policy"])
def test_predictions_beside_states_and_their_gradient_equal_a_plain_loop(probes, head, shared):
    policy = POLICIES[head]
    critic = make_critic(policy, (6, 5), probes, extra=5)
    phi, theta = fresh(critic, S), normal(S, 1 if shared else N, policy.num_parameters)
    extra, weights = (normal(S, N, 3, seed=1), normal(S, N, 2, seed=2)), normal(S, N, seed=3)
    leaf = phi.clone().requires_grad_()
    all_of_them = theta.expand(S, N, -1)
    rows = [
        torch.stack([plain(probes, policy, leaf[s], all_of_them[s, b], *(x[s, b] for x in extra)) for b in range(N)])
        for s in range(S)
    ]
    expected = torch.stack(rows)
    predicted = critic.apply(critic.unflatten(phi), theta, *extra)
    assert predicted.shape == (S, N)
    torch.testing.assert_close(predicted, expected.detach(), rtol=0, atol=1e-12)
    leaves = critic.leaves(phi)
    ours = critic.gradient((weights * critic.apply(leaves, theta, *extra)).sum(), leaves)
    (reference,) = torch.autograd.grad((weights * expected).sum(), leaf)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-11)


def rectified(linear: Policy, theta: Tensor) -> tuple[Policy, Tensor]:
    """A deep policy that does what the linear ones `theta[..., P]` do where no observation is negative: W relu(s)."""
    (weight, bias), *_ = linear.network.unflatten(linear.split(theta)[0])
    deep = Policy(MLP((3, 3, 2), "relu"), linear.head)
    leading = theta.shape[:-1]
    identity = torch.eye(3, dtype=theta.dtype).expand(*leading, 3, 3)
    layers = [(identity, theta.new_zeros(*leading, 3)), (weight, bias)]
    return deep, torch.cat([deep.network.flatten(layers), linear.split(theta)[1]], -1)


@every_head
def test_policies_with_the_same_answers_have_the_same_value_whatever_their_architecture(head):
    linear = Policy(MLP((3, 2)), HEADS[head])
    theta = normal(S, N, linear.num_parameters)
    deep, deep_theta = rectified(linear, theta)
    assert deep_theta.shape[-1] == deep.num_parameters != linear.num_parameters
    elsewhere = normal(1, 1, 4, 3)
    assert not torch.allclose(deep.features(deep_theta, elsewhere), linear.features(theta, elsewhere))
    critic = FingerprintCritic(deep, (6, 5), 4)
    phi = fresh(critic, S, M)  # fresh probing states lie in [0, 1], where both do the same
    values = critic.values(phi, deep_theta)
    torch.testing.assert_close(critic.values(phi, theta, linear), values, rtol=0, atol=1e-12)
    assert values.std(-1).min() > 1e-4
    with torch.no_grad():
        critic.probes(phi).sub_(2)  # now they differ
    assert not torch.allclose(critic.values(phi, theta, linear), critic.values(phi, deep_theta))


def test_a_critic_of_deep_policies_gives_linear_ones_a_gradient_to_climb():
    deep, linear = POLICIES["continuous"], Policy(MLP((3, 2)), HEADS["continuous"])
    critic = FingerprintCritic(deep, (6, 5), 4)
    phi, theta = fresh(critic, S, M), normal(S, N, linear.num_parameters).requires_grad_()
    ours, expected = (
        torch.autograd.grad(values.sum(), theta)[0]
        for values in (critic.values(phi, theta, linear), each(4, linear, phi, theta))
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)


def test_a_critic_of_parameters_refuses_every_other_architecture():
    policy = POLICIES["continuous"]
    critic = ParameterCritic(policy, (6, 5))
    phi, theta = fresh(critic, S, M), normal(S, N, policy.num_parameters)
    twin = Policy(MLP((3, 4, 2)), Box(*BOX))
    assert torch.equal(critic.values(phi, theta, twin), critic.values(phi, theta))
    for other in (Policy(MLP((3, 2)), policy.head), Policy(MLP((3, 4, 2), "relu"), policy.head), POLICIES["discrete"]):
        with pytest.raises(InputError, match=r"policy.*probes") as caught:
            critic.values(phi, theta[..., : other.num_parameters], other)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (Policy(MLP((4, 2)), HEADS["continuous"]), "inputs.*4.*3"),
        (Policy(MLP((3, 2)), Categorical(2)), "policy.*actions.*Categorical"),
        (Policy(MLP((3, 2)), HEADS["gaussian"]), "policy.*actions.*gaussian=True"),
    ],
    ids=["observations", "actions", "gaussian"],
)
def test_a_fingerprint_refuses_other_observations_and_other_actions(other, names):
    critic = FingerprintCritic(POLICIES["continuous"], (6, 5), 4)
    with pytest.raises(InputError, match=names) as caught:
        critic.values(fresh(critic, S, M), normal(S, N, other.num_parameters), other)
    assert "\n" not in str(caught.value)


@every_head
def test_features_are_probabilities_actions_or_mean_and_deviation(head):
    policy = POLICIES[head]
    theta, states = normal(S, N, policy.num_parameters), normal(S, M, 4, 3, seed=1)
    ours = answers_of_all(policy, theta)(states)
    assert ours.shape == (S, M, N, 4, policy.num_features)
    assert policy.num_features == (4 if head == "gaussian" else 2)
    for s, m in ((0, 0), (1, 2)):
        torch.testing.assert_close(ours[s, m], answers(policy, theta[s])(states[s, m]), rtol=0, atol=1e-12)
        expected = torch.stack([torch.stack([deed(policy, vector, x) for x in states[s, m]]) for vector in theta[s]])
        torch.testing.assert_close(ours[s, m], expected.detach(), rtol=0, atol=1e-12)


@every_head
def test_a_configuration_with_probes_makes_a_fingerprint_and_one_without_reads_parameters(head):
    policy = POLICIES[head]
    raw, seen = make_critic(policy, (6, 5), 0, extra=2), make_critic(policy, (6, 5), 4, extra=2)
    assert isinstance(raw, ParameterCritic)
    assert isinstance(seen, FingerprintCritic)
    body = (6 * 5 + 5) + (5 + 1)
    assert raw.num_parameters == (2 + policy.num_parameters) * 6 + 6 + body
    assert seen.num_parameters == 4 * 3 + (2 + 4 * policy.num_features) * 6 + 6 + body
    for critic in (raw, seen):
        assert fresh(critic, S, M).shape == (S, M, critic.num_parameters)


def test_probing_states_are_the_first_entries_and_start_in_the_unit_cube():
    critic = FingerprintCritic(POLICIES["discrete"], (6,), 50)
    phi = critic.init(S, M, generator=torch.Generator().manual_seed(0))
    states = critic.probes(phi)
    assert torch.equal(states, phi[..., :150].view(S, M, 50, 3))
    assert states.min() >= 0
    assert states.max() <= 1
    assert states.std() == pytest.approx(12**-0.5, rel=0.05)
