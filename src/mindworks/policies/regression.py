"""The squared-error gradient of many small MLPs at once, written out, and the same by autograd to hold it against.

A regression step on a batch of 16 is mostly overhead, and autograd adds a zero-filled vector per slice of a flat phi:
for one critic of 10-64-64-1 the PSSVF's whole step took 764 us by autograd (one thread of a busy machine, 2026-11-22);
`benchmarks/vs_list_of_tensors.py` measures the written-out form. R networks, Q parameters each, B rows, I inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mindworks.core.population import MLP


class SquaredError:
    """Gradients of each network's mean squared error in `phi[R, Q]`, whose memory it reads at every call."""

    def __init__(self, network: MLP, phi: Tensor) -> None:
        self.tanh = network.activation == "tanh"
        self.gradient = torch.empty_like(phi)
        self.layers = [(weight.mT, weight, bias.unsqueeze(1)) for weight, bias in network.unflatten(phi)]
        self.slots = network.unflatten(self.gradient)

    @torch.no_grad()
    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """The gradient `[R, Q]` at inputs `x[R, B, I]` and `target[R, B]`; the next call overwrites it."""
        hidden = [x]
        for transposed, _, bias in self.layers[:-1]:
            before = torch.baddbmm(bias, hidden[-1], transposed)
            hidden.append(before.tanh_() if self.tanh else before.clamp_min_(0))
        transposed, _, bias = self.layers[-1]
        delta = torch.baddbmm(bias, hidden[-1], transposed).sub_(target.unsqueeze(-1)).mul_(2 / x.shape[1])
        for (_, weight, _), slots, below in zip(self.layers[::-1], self.slots[::-1], hidden[::-1], strict=True):
            torch.bmm(delta.mT, below, out=slots[0])
            torch.sum(delta, 1, out=slots[1])
            if below is not x:
                slope = 1 - below.square_() if self.tanh else below > 0
                delta = torch.bmm(delta, weight).mul_(slope)
        return self.gradient


def squared_error_gradient(network: MLP, phi: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """The reference: the same gradient by autograd, on tensors of the same shapes."""
    phi = phi.detach().requires_grad_(True)
    error = (network.forward(phi, x).squeeze(-1) - target).square().mean(-1).sum()
    return torch.autograd.grad(error, phi)[0]
