"""The written-out gradients of the squared error against autograd, in float64."""

from __future__ import annotations

from math import inf

import pytest
import torch

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.core.probing import Probing
from mindworks.policies.critics import answers_of_all
from mindworks.policies.regression import FingerprintError, SquaredError, squared_error_gradient

HEADS = {
    "discrete": Categorical(2),
    "bounded": Box((-1.0, -2.0), (1.0, 0.5)),
    "half-unbounded": Box((-1.0, -inf), (2.0, inf)),
    "gaussian": Box((-1.0, -inf), (2.0, inf), gaussian=True),
}


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (5,), (7, 4)])
def test_gradient_equals_autograd_and_follows_phi(activation: str, hidden: tuple[int, ...]) -> None:
    network = MLP((3, *hidden, 1), activation)
    generator = torch.Generator().manual_seed(0)
    phi = network.init(4, generator=generator, dtype=torch.float64)
    error = SquaredError(network, phi)
    for _ in range(2):
        x = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64)
        target = torch.randn(4, 6, generator=generator, dtype=torch.float64)
        kept = x.clone()
        expected = squared_error_gradient(network, phi, x, target)
        torch.testing.assert_close(error(x, target), expected, rtol=0, atol=1e-12)
        assert torch.equal(x, kept)
        phi += 0.1 * torch.randn(phi.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("hidden", [(), (5,), (7, 4)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gradient_in_the_inputs_and_memory_of_the_callers_choice(activation: str, hidden: tuple[int, ...]) -> None:
    network = MLP((3, *hidden, 1), activation)
    generator = torch.Generator().manual_seed(1)
    phi = network.init(4, generator=generator, dtype=torch.float64)
    around = torch.full((4, network.num_parameters + 2), 7.0, dtype=torch.float64)
    mine = around[:, 1:-1]
    error = SquaredError(network, phi, gradient=mine, inputs=True)
    assert error.input_gradient is None
    for _ in range(2):
        x = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64)
        target = torch.randn(4, 6, generator=generator, dtype=torch.float64)
        kept = x.clone(), target.clone(), phi.clone()
        assert error(x, target) is mine
        torch.testing.assert_close(mine, squared_error_gradient(network, phi, x, target), rtol=0, atol=1e-12)
        assert (around[:, [0, -1]] == 7).all()
        leaf = x.clone().requires_grad_()
        loss = (network.forward(phi, leaf).squeeze(-1) - target).square().mean(-1).sum()
        (expected,) = torch.autograd.grad(loss, leaf)
        assert error.input_gradient is not None
        assert error.input_gradient.shape == (4, 6, 3)
        torch.testing.assert_close(error.input_gradient, expected, rtol=0, atol=1e-12)
        assert torch.equal(x, kept[0])
        assert torch.equal(target, kept[1])
        assert torch.equal(phi, kept[2])


@pytest.mark.parametrize(("seeds", "members", "count"), [(1, 1, 1), (1, 3, 5), (2, 1, 4), (3, 2, 6)])
@pytest.mark.parametrize("hidden", [(), (5,), (6, 4)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("head", HEADS)
def test_fingerprint_gradient_equals_autograd_and_follows_phi(
    head: str, activation: str, hidden: tuple[int, ...], seeds: int, members: int, count: int
) -> None:
    policy = Policy(MLP((3, *hidden, 2), activation), HEADS[head])
    probing = Probing((3,), 4, policy.num_features, hidden[::-1], low=-1.0)
    generator = torch.Generator().manual_seed(seeds + 10 * members)
    phi = probing.init(seeds, members, generator=generator, dtype=torch.float64)
    error = FingerprintError(policy, probing, phi)
    for _ in range(2):
        theta = torch.randn(seeds, count, policy.num_parameters, generator=generator, dtype=torch.float64)
        target = torch.randn(seeds, count, generator=generator, dtype=torch.float64)
        kept = theta.clone(), target.clone(), phi.clone()
        each = target.unsqueeze(1).expand(-1, members, -1)
        expected = probing.squared_error_gradient(phi, answers_of_all(policy, theta), each)
        gradient = error(theta, target)
        assert gradient.shape == phi.shape
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-11)
        assert (probing.probes(expected) != 0).any()
        assert torch.equal(theta, kept[0])
        assert torch.equal(target, kept[1])
        assert torch.equal(phi, kept[2])
        assert not theta.requires_grad
        assert not phi.requires_grad
        phi += 0.1 * torch.randn(phi.shape, generator=generator, dtype=torch.float64)
