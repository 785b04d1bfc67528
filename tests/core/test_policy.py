"""Heads of policies: greedy actions, log probabilities and samples against closed forms and torch's distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats
from torch import distributions as td

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.errors import InputError

INF = math.inf
OBSERVED = spaces.Box(-1, 1, (3,))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def gaussian(low: tuple[float, ...], high: tuple[float, ...], hidden: tuple[int, ...] = ()) -> Policy:
    return Policy(MLP((3, *hidden, len(low))), Box(low, high, gaussian=True))


def constant(
    mean: list[float], log_std: list[float], low: list[float], high: list[float]
) -> tuple[Policy, torch.Tensor]:
    """A Gaussian policy of one input whose weights are 0, so that the mean before squashing is its bias."""
    policy = Policy(MLP((1, len(mean))), Box(tuple(low), tuple(high), gaussian=True))
    return policy, torch.tensor([0.0] * len(mean) + mean + log_std, dtype=torch.float64)


def test_squashing_is_tanh_onto_each_finite_interval_and_nothing_elsewhere():
    policy = Policy(MLP((1, 5)), Box((-1.0, -3.0, -INF, 0.0, -INF), (2.0, 0.5, INF, INF, 2.0)))
    raw = torch.tensor([[0.3, -0.7, 5.0, -6.0, 7.0], [0.0] * 5, [40.0, -40.0, 40.0, 40.0, 40.0]], dtype=torch.float64)
    squashed = policy.squash(raw)
    t = torch.tanh(raw)
    torch.testing.assert_close(squashed[:, 0], 0.5 + 1.5 * t[:, 0], rtol=0, atol=1e-14)
    torch.testing.assert_close(squashed[:, 1], -1.25 + 1.75 * t[:, 1], rtol=0, atol=1e-14)
    assert torch.equal(squashed[:, 2:], raw[:, 2:])
    assert squashed[2, :2].tolist() == [2.0, -3.0]


@pytest.mark.parametrize("hidden", [(), (6,)], ids=["linear", "deep"])
def test_modes_are_the_squashed_network_or_the_largest_logit(hidden):
    x = normal(4, 2, 5, 3)
    for head in (Categorical(4), Box((-1.0, 0.0), (1.0, 4.0)), Box((-1.0, 0.0), (1.0, 4.0), gaussian=True)):
        policy = Policy(MLP((3, *hidden, head.outputs)), head)
        theta = policy.init(4, 2, generator=generator(1), dtype=torch.float64)
        for s in range(4):
            for n in range(2):
                outputs = policy.module(theta[s, n])(x[s, n]).detach()
                expected = outputs.argmax(-1) if head == Categorical(4) else policy.squash(outputs)
                torch.testing.assert_close(policy.mode(theta, x)[s, n], expected, rtol=0, atol=1e-12)


def test_fresh_gaussian_policies_start_at_log_std_minus_a_half():
    policy = gaussian((-1.0, -1.0), (1.0, 1.0), (4,))
    theta = policy.init(2, 3, generator=generator())
    weights, log_std = policy.split(theta)
    assert theta.shape == (2, 3, policy.num_parameters) == (2, 3, 3 * 4 + 4 + 4 * 2 + 2 + 2)
    assert torch.equal(log_std, torch.full((2, 3, 2), -0.5))
    assert torch.equal(weights, policy.network.init(2, 3, generator=generator()))


def test_log_probabilities_equal_torch_distributions():
    low, high = (-0.5, -2.0, -INF, 0.0), (1.5, 2.0, INF, INF)
    policy = gaussian(low, high, (5,))
    theta = policy.init(2, 3, generator=generator(), dtype=torch.float64) + 0.3 * normal(2, 3, policy.num_parameters)
    x = normal(2, 3, 7, 3, seed=1)
    actions = policy.sample(theta, x, generator(2))
    outputs = policy.network.forward(theta[..., :-4], x)
    base = td.Normal(outputs, theta[..., None, -4:].exp())
    expected = torch.zeros(2, 3, 7, dtype=torch.float64)
    for j, (a, b) in enumerate(zip(low, high, strict=True)):
        one = td.Normal(base.loc[..., j], base.scale[..., j].expand_as(outputs[..., j]))
        if math.isfinite(a) and math.isfinite(b):
            affine = td.AffineTransform((a + b) / 2, (b - a) / 2)
            one = td.TransformedDistribution(one, [td.TanhTransform(), affine], validate_args=False)
        expected += one.log_prob(actions[..., j])
    torch.testing.assert_close(policy.log_prob(theta, x, actions), expected, rtol=1e-10, atol=1e-10)


def test_gradients_of_log_probabilities_equal_torch_distributions():
    policy = gaussian((-1.0,), (3.0,))
    theta = policy.init(generator=generator(), dtype=torch.float64).requires_grad_(True)
    x = normal(7, 3, seed=1)
    actions = policy.sample(theta.detach(), x, generator(2))
    chain = [td.TanhTransform(), td.AffineTransform(1.0, 2.0)]
    outputs = policy.network.forward(theta[:-1], x).squeeze(-1)
    reference = td.TransformedDistribution(td.Normal(outputs, theta[-1].exp()), chain).log_prob(actions.squeeze(-1))
    (expected,) = torch.autograd.grad(reference.sum(), theta)
    (ours,) = torch.autograd.grad(policy.log_prob(theta, x, actions).sum(), theta)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("raw", [-7.0, -3.0, 0.0, 5.0, 7.0])
def test_log_density_far_in_the_tails_keeps_its_precision(raw):
    policy, theta = constant([raw], [0.0], [-1.0], [1.0])
    action = torch.tensor([[math.tanh(raw)]], dtype=torch.float64)
    expected = -0.5 * math.log(2 * math.pi) + 2 * math.log(math.cosh(raw))
    assert float(policy.log_prob(theta, torch.zeros(1, 1).double(), action)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("edge", [-1.0, 1.0])
def test_actions_rounded_onto_a_bound_have_a_finite_log_probability_and_gradient(edge):
    policy, theta = constant([edge * 9], [0.0], [-1.0], [1.0])
    theta = theta.float().requires_grad_(True)
    log_prob = policy.log_prob(theta, torch.ones(1, 1), torch.tensor([[edge]]))
    (gradient,) = torch.autograd.grad(log_prob.sum(), theta)
    assert log_prob.isfinite().all()
    assert gradient.isfinite().all()


def test_densities_integrate_to_one():
    policy, theta = constant([0.4], [-0.5], [-0.5], [1.5])
    nodes, weights = np.polynomial.legendre.leggauss(400)
    actions = torch.from_numpy(0.5 + nodes).unsqueeze(-1)
    density = policy.log_prob(theta, torch.zeros(400, 1).double(), actions).exp().numpy()
    assert weights @ density == pytest.approx(1, abs=1e-8)

    policy, theta = constant([0.4, -1.0], [-0.5, 0.2], [-0.5, -INF], [1.5, INF])
    line = np.linspace(-12, 10, 400)
    grid = np.stack(np.meshgrid(0.5 + nodes, line, indexing="ij"), -1).reshape(-1, 2)
    density = policy.log_prob(theta, torch.zeros(len(grid), 1).double(), torch.from_numpy(grid)).exp().numpy()
    assert weights @ density.reshape(400, 400).sum(1) * (line[1] - line[0]) == pytest.approx(1, abs=1e-6)


def test_categorical_log_probabilities_and_sample_frequencies():
    policy = Policy(MLP((3, 4)), Categorical(4))
    theta = policy.init(2, generator=generator(), dtype=torch.float64)
    x = normal(2, 5, 3)
    actions = torch.tensor([[0, 1, 2, 3, 0], [3, 2, 1, 0, 3]])
    reference = td.Categorical(logits=policy.network.forward(theta, x))
    torch.testing.assert_close(policy.log_prob(theta, x, actions), reference.log_prob(actions), rtol=0, atol=1e-12)

    count = 20_000
    drawn = policy.sample(theta, x[:, :1].expand(2, count, 3), generator(3))
    assert drawn.shape == (2, count)
    assert drawn.dtype == torch.int64
    for s in range(2):
        observed = torch.bincount(drawn[s], minlength=4).numpy()
        assert stats.chisquare(observed, count * reference.probs[s, 0].numpy()).pvalue > 1e-3


def test_gaussian_samples_have_the_moments_of_their_noise_before_squashing():
    policy, theta = constant([0.4, -1.0, 0.1], [-0.5, 0.2, 0.0], [-0.5, -INF, -1.0], [1.5, INF, 1.0])
    count = 20_000
    actions = policy.sample(theta, torch.zeros(count, 1).double(), generator(1))
    raw = torch.stack([torch.atanh(actions[:, 0] - 0.5), actions[:, 1], torch.atanh(actions[:, 2])], -1)
    mean, std = theta[3:6], theta[6:].exp()
    scaled = (raw - mean) / std
    assert scaled.mean(0).abs().max() < 5 / count**0.5
    assert (scaled.T @ scaled / count - torch.eye(3).double()).abs().max() < 5 * (2 / count) ** 0.5
    assert all(stats.kstest(scaled[:, j].numpy(), "norm").pvalue > 1e-3 for j in range(3))


def test_samples_follow_their_generator():
    for policy in (gaussian((-1.0,), (1.0,)), Policy(MLP((3, 2)), Categorical(2))):
        theta, x = policy.init(2, generator=generator()), normal(2, 50, 3).float()
        first, again, other = (policy.sample(theta, x, generator(s)) for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_features_are_probabilities_or_actions_with_their_deviations():
    x = normal(2, 5, 3)
    discrete = Policy(MLP((3, 4)), Categorical(4))
    theta = discrete.init(2, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(
        discrete.features(theta, x), discrete.outputs(theta, x).exp() / discrete.outputs(theta, x).exp().sum(-1, True)
    )
    box = Policy(MLP((3, 2)), Box((-1.0, 0.0), (1.0, 4.0)))
    theta = box.init(2, generator=generator(), dtype=torch.float64)
    assert torch.equal(box.features(theta, x), box.action(theta, x))
    noisy = gaussian((-1.0, 0.0), (1.0, 4.0))
    wide = torch.cat([theta, torch.tensor([[0.0, 1.0], [2.0, 3.0]]).double()], -1).requires_grad_(True)
    features = noisy.features(wide, x)
    torch.testing.assert_close(features[..., :2], box.action(theta, x))
    torch.testing.assert_close(features[..., 2:], wide[:, None, -2:].exp().expand(2, 5, 2))
    (gradient,) = torch.autograd.grad(features.sum(), wide)
    torch.testing.assert_close(gradient[:, -2:], 5 * wide.detach()[:, -2:].exp())
    assert (gradient[:, :-2] != 0).all()


def test_policies_fit_the_spaces_they_are_made_for():
    discrete = Policy.for_spaces(OBSERVED, spaces.Discrete(4), (8,), activation="relu")
    assert (discrete.network, discrete.head) == (MLP((3, 8, 4), "relu"), Categorical(4))
    low, high = np.array([-1, -INF], np.float32), np.array([2, INF], np.float32)
    box = Policy.for_spaces(OBSERVED, spaces.Box(low, high), gaussian=True)
    assert (box.network, box.head) == (MLP((3, 2)), Box((-1.0, -INF), (2.0, INF), True))
    assert box.num_parameters == 3 * 2 + 2 + 2


def test_policies_without_biases_squashing_or_the_first_logit_are_asked_for_by_name():
    low, high = np.array([-1, 0], np.float32), np.array([2, 1], np.float32)
    raw = Policy.for_spaces(OBSERVED, spaces.Box(low, high), (8,), gaussian=True, bias=False, squash=False)
    assert (raw.network, raw.head) == (MLP((3, 8, 2), bias=False), Box((-INF, -INF), (INF, INF), True))
    assert raw.num_parameters == 3 * 8 + 8 * 2 + 2
    choice = Policy.for_spaces(OBSERVED, spaces.Discrete(4), reference=True)
    assert (choice.network, choice.head) == (MLP((3, 3)), Categorical(4, reference=True))
    squashed = Policy.for_spaces(OBSERVED, spaces.Box(low, high), gaussian=True)
    assert [policy.continuous for policy in (raw, choice, squashed)] == [True, False, True]
    assert [policy.squashes for policy in (raw, choice, squashed)] == [False, False, True]
    assert Policy(MLP((3, 2)), Box((-INF, 0.0), (INF, 1.0))).squashes


def test_actions_that_are_not_squashed_are_the_outputs_and_their_noise():
    policy = Policy.for_spaces(OBSERVED, spaces.Box(-0.1, 0.1, (2,)), (5,), gaussian=True, squash=False)
    theta = policy.init(2, generator=generator(), dtype=torch.float64)
    policy.split(theta)[1][:] = torch.tensor([[0.3, -1.0], [0.0, 0.5]])
    x = normal(2, 5000, 3)
    outputs, log_std = policy.outputs(theta, x), policy.split(theta)[1]
    assert torch.equal(policy.mode(theta, x), outputs)
    assert torch.equal(policy.squash(10 * outputs), 10 * outputs)
    actions = policy.sample(theta, x, generator(1))
    assert actions.abs().max() > 0.5
    scaled = (actions - outputs) / log_std.exp().unsqueeze(1)
    for s in range(2):
        assert all(stats.kstest(scaled[s, :, j].numpy(), "norm").pvalue > 1e-3 for j in range(2))
    leaf = theta.clone().requires_grad_(True)
    reference = td.Independent(td.Normal(policy.outputs(leaf, x), policy.split(leaf)[1].exp().unsqueeze(1)), 1)
    ours = policy.log_prob(leaf, x, actions)
    torch.testing.assert_close(ours, reference.log_prob(actions), rtol=1e-12, atol=1e-12)
    (slope,), (expected,) = (torch.autograd.grad(v.sum(), leaf) for v in (ours, reference.log_prob(actions)))
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("hidden", [(), (6,)], ids=["linear", "deep"])
@pytest.mark.parametrize("count", [2, 4])
def test_a_reference_action_is_a_logit_whose_row_of_weights_is_0(count, hidden, bias):
    short = Policy(MLP((3, *hidden, count - 1), bias=bias), Categorical(count, reference=True))
    full = Policy(MLP((3, *hidden, count), bias=bias), Categorical(count))
    theta = 2 * short.init(2, generator=generator(), dtype=torch.float64)
    *body, (weight, last) = short.network.unflatten(theta)
    rows = (torch.cat([torch.zeros_like(part[:, :1]), part], 1) for part in (weight, last))
    long = full.network.flatten([*body, tuple(rows)])
    x, actions = normal(2, 50, 3), torch.randint(count, (2, 50), generator=generator(1))
    assert short.num_parameters < full.num_parameters == long.shape[-1]
    assert torch.equal(short.mode(theta, x), full.mode(long, x))
    assert len(short.mode(theta, x).unique()) > 1
    torch.testing.assert_close(short.features(theta, x), full.features(long, x), rtol=0, atol=1e-12)
    for policy, parameters in ((short, theta), (full, long)):
        reference = td.Categorical(logits=full.outputs(long, x))
        log_prob = policy.log_prob(parameters, x, actions)
        torch.testing.assert_close(log_prob, reference.log_prob(actions), rtol=0, atol=1e-12)
        logits = policy.logits(policy.outputs(parameters, x))
        torch.testing.assert_close(logits, full.outputs(long, x), rtol=0, atol=1e-12)
    assert torch.equal(short.sample(theta, x, generator(2)), full.sample(long, x, generator(2)))


def test_samples_of_a_reference_policy_have_its_frequencies():
    policy = Policy(MLP((3, 2)), Categorical(3, reference=True))
    theta, x = policy.init(generator=generator(4), dtype=torch.float64), normal(1, 3)
    drawn = policy.sample(theta, x.expand(20_000, 3), generator(3))
    logits = np.array([0.0, *policy.outputs(theta, x)[0].tolist()])
    p = np.exp(logits) / np.exp(logits).sum()
    assert stats.chisquare(np.bincount(drawn.numpy(), minlength=3), 20_000 * p).pvalue > 1e-3


@pytest.mark.parametrize(
    ("head", "count"),
    [
        (Categorical(4), 4),
        (Categorical(4, reference=True), 4),
        (Box((-1.0, 0.0), (1.0, 4.0)), 2),
        (Box((-1.0, 0.0), (1.0, 4.0), gaussian=True), 4),
    ],
)
def test_features_are_as_many_as_the_policy_says_and_follow_from_outputs(head, count):
    policy = Policy(MLP((3, head.outputs)), head)
    theta, x = policy.init(2, generator=generator()), normal(2, 5, 3).float()
    features = policy.features(theta, x)
    assert features.shape == (2, 5, policy.num_features) == (2, 5, count)
    outputs = policy.outputs(theta, x)
    assert torch.equal(features, policy.features_of(theta, outputs))
    if not policy.continuous or policy.gaussian:
        actions = policy.sample(theta, x, generator(1))
        assert torch.equal(policy.log_prob(theta, x, actions), policy.log_prob_of(theta, outputs, actions))


@pytest.mark.parametrize(
    ("observed", "acted", "names"),
    [
        (spaces.Dict({"a": OBSERVED}), spaces.Discrete(2), "observation_space"),
        (spaces.Discrete(5), spaces.Discrete(2), "observation_space"),
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), spaces.Discrete(2), "observation_space"),
        (OBSERVED, spaces.Discrete(2, start=1), "action_space"),
        (OBSERVED, spaces.Dict({"a": OBSERVED}), "action_space"),
        (OBSERVED, spaces.Box(-1, 1, (2, 2)), "action_space"),
        (OBSERVED, spaces.MultiDiscrete([2, 3]), "action_space"),
        (OBSERVED, spaces.MultiBinary(3), "action_space"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_spaces_that_do_not_fit_are_refused(observed, acted, names):
    with pytest.raises(InputError, match=names):
        Policy.for_spaces(observed, acted)


LINEAR = Policy(MLP((3, 1)), Box((-1.0,), (1.0,)))
CHOICE = Policy(MLP((3, 2)), Categorical(2))


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: Policy.for_spaces(OBSERVED, spaces.Discrete(2), gaussian=True), "gaussian"),
        (lambda: Policy.for_spaces(OBSERVED, spaces.Discrete(2), activation="elu"), "activation.*'elu'"),
        (lambda: Policy.for_spaces(OBSERVED, spaces.Discrete(2), (0,)), "sizes"),
        (lambda: Policy.for_spaces(OBSERVED, spaces.Box(-1, 1, (1,)), reference=True), "reference"),
        (lambda: Categorical(1, reference=True), "reference.*2.*1"),
        (lambda: Policy(MLP((3, 3)), Categorical(3, reference=True)), "network.*2.*3"),
        (lambda: Policy(MLP((3, 3)), Categorical(2)), "network.*2.*3"),
        (lambda: Box((), ()), "low"),
        (lambda: Box((0.0,), (1.0, 2.0)), "low"),
        (lambda: Box((1.0,), (1.0,)), "low"),
        (lambda: Box((math.nan,), (1.0,)), "low"),
        (lambda: CHOICE.action(torch.zeros(8), torch.zeros(1, 3)), "action"),
        (lambda: LINEAR.mode(torch.zeros(5), torch.zeros(1, 3)), "theta.*4.*5"),
        (lambda: LINEAR.mode(torch.zeros(4), torch.zeros(1, 2)), "inputs.*3.*2"),
        (lambda: LINEAR.sample(torch.zeros(4), torch.zeros(1, 3), generator()), "gaussian=True"),
        (lambda: LINEAR.log_prob(torch.zeros(4), torch.zeros(1, 3), torch.zeros(1, 1)), "gaussian=True"),
        (lambda: LINEAR.actor(torch.zeros(2, 4), rngs=[np.random.default_rng(0)]), "gaussian=True"),
        (lambda: CHOICE.actor(torch.zeros(3, 8), rngs=[np.random.default_rng(i) for i in range(2)]), "rngs.*3.*2"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(call, names):
    with pytest.raises(InputError, match=names) as caught:
        call()
    assert "\n" not in str(caught.value)
