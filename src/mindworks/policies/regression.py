"""The squared-error gradient of many small MLPs at once, written out, and the same by autograd to hold it against.

A regression step on a batch of 16 is mostly overhead: for one critic of 10-64-64-1 the PSSVF's whole step took 237 us
in the written-out form and 764 us by autograd (one thread of a busy machine, 2026-11-22). R networks, Q parameters of each, B rows, I inputs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mindworks.core.population import MLP


def squared_error_gradient(
    network: MLP, phi: np.ndarray, x: np.ndarray, target: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Gradient `[R, Q]` of each network's mean squared error: `phi[R, Q]`, inputs `x[R, B, I]`, `target[R, B]`.

    `out[R, Q]` receives the gradient if given, which spares long vectors their page faults.
    """
    layers = network.unflatten(torch.from_numpy(phi))
    weights = [(weight.numpy(), bias.numpy()[:, None]) for weight, bias in layers]
    hidden = [x]
    for weight, bias in weights[:-1]:
        before = np.matmul(hidden[-1], weight.swapaxes(1, 2))
        before += bias
        hidden.append(np.tanh(before) if network.activation == "tanh" else np.maximum(before, 0, out=before))
    weight, bias = weights[-1]
    output = np.matmul(hidden[-1], weight.swapaxes(1, 2)) + bias
    delta = (output - target[..., None]) * (2 / x.shape[1])
    gradient = np.empty_like(phi) if out is None else out
    slots = [(weight.numpy(), bias.numpy()) for weight, bias in network.unflatten(torch.from_numpy(gradient))]
    for (weight, _), (weight_slot, bias_slot), below in zip(weights[::-1], slots[::-1], hidden[::-1], strict=True):
        np.matmul(delta.swapaxes(1, 2), below, out=weight_slot)
        delta.sum(1, out=bias_slot)
        if below is not x:
            slope = 1 - below**2 if network.activation == "tanh" else below > 0
            delta = np.matmul(delta, weight) * slope
    return gradient


def squared_error_gradient_reference(network: MLP, phi: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """The same by autograd on tensors of the same shapes."""
    phi = phi.detach().requires_grad_(True)
    error = (network.forward(phi, x).squeeze(-1) - target).square().mean(-1).sum()
    return torch.autograd.grad(error, phi)[0]
