"""The written-out gradient of the squared error against autograd, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mindworks.core.population import MLP
from mindworks.policies.regression import squared_error_gradient, squared_error_gradient_reference


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (5,), (7, 4)])
def test_gradient_equals_autograd(activation: str, hidden: tuple[int, ...]) -> None:
    network = MLP((3, *hidden, 1), activation)
    generator = torch.Generator().manual_seed(0)
    phi = network.init(4, generator=generator, dtype=torch.float64)
    x = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    expected = squared_error_gradient_reference(network, phi, x, target).numpy()
    fresh = squared_error_gradient(network, phi.numpy(), x.numpy(), target.numpy())
    np.testing.assert_allclose(fresh, expected, rtol=0, atol=1e-12)
    out = np.full_like(fresh, np.nan)
    assert squared_error_gradient(network, phi.numpy(), x.numpy(), target.numpy(), out) is out
    np.testing.assert_array_equal(out, fresh)
