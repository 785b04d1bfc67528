"""The written-out gradient of the squared error against autograd, in float64."""

from __future__ import annotations

import pytest
import torch

from mindworks.core.population import MLP
from mindworks.policies.regression import SquaredError, squared_error_gradient


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
