"""Squared-error gradients of many small critics at once, written out, and the same by autograd to hold them against.

A regression step on a batch of 16 is mostly overhead, and autograd adds a zero-filled vector per slice of a flat phi:
for one critic of 10-64-64-1 the PSSVF's whole step took 764 us by autograd (one thread of a busy machine, 2026-11-22).
Autograd also keeps and copies more than a fingerprint's gradient needs, since the policies in a batch are data.
`benchmarks/vs_list_of_tensors.py` and `benchmarks/vs_list_of_probes.py` measure the written-out forms. R networks, Q
parameters each, B rows, I inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mindworks.core.policy import Policy
from mindworks.core.population import MLP
from mindworks.core.probing import Probing


class SquaredError:
    """Gradients of each network's mean squared error in `phi[R, Q]`, whose memory it reads at every call.

    `gradient[R, Q]` is where they are written, new memory by default. With `inputs`, every call also leaves the
    gradient `[R, B, I]` in the inputs in `input_gradient`.
    """

    def __init__(self, network: MLP, phi: Tensor, gradient: Tensor | None = None, *, inputs: bool = False) -> None:
        self.tanh, self.inputs = network.activation == "tanh", inputs
        self.gradient = torch.empty_like(phi) if gradient is None else gradient
        self.layers = [(weight.mT, weight, bias.unsqueeze(1)) for weight, bias in network.unflatten(phi)]
        self.slots = network.unflatten(self.gradient)
        self.input_gradient: Tensor | None = None

    @torch.no_grad()
    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """The gradient `[R, Q]` at inputs `x[R, B, I]` and `target[R, B]`; the next call overwrites it."""
        hidden = [x]
        for transposed, _, bias in self.layers[:-1]:
            hidden.append(_activate(torch.baddbmm(bias, hidden[-1], transposed), self.tanh))
        transposed, _, bias = self.layers[-1]
        delta = torch.baddbmm(bias, hidden[-1], transposed).sub_(target.unsqueeze(-1)).mul_(2 / x.shape[1])
        for (_, weight, _), slots, below in zip(self.layers[::-1], self.slots[::-1], hidden[::-1], strict=True):
            torch.bmm(delta.mT, below, out=slots[0])
            torch.sum(delta, 1, out=slots[1])
            if below is not x:
                delta = _through(torch.bmm(delta, weight), below, self.tanh)
            elif self.inputs:
                self.input_gradient = torch.bmm(delta, weight)
        return self.gradient


class FingerprintError:
    """Gradients of each fingerprint critic's mean squared error in `phi[S, M, Q]`, read at every call."""

    def __init__(self, policy: Policy, probing: Probing, phi: Tensor) -> None:
        self.policy, self.tanh = policy, policy.network.activation == "tanh"
        self.gradient = torch.empty_like(phi)
        self.probes, weights = probing.split(phi)
        self.slot, slots = probing.split(self.gradient)
        self.error = SquaredError(probing.evaluator, weights.flatten(0, 1), slots.flatten(0, 1), inputs=True)

    @torch.no_grad()
    def __call__(self, theta: Tensor, target: Tensor) -> Tensor:
        """The gradient `[S, M, Q]` at policies `theta[S, N, P]` and `target[S, N]`; the next call overwrites it."""
        (seeds, count), (members, probes, width) = theta.shape[:2], self.probes.shape[1:]
        flat = theta.flatten(0, 1)
        layers = self.policy.network.unflatten(self.policy.split(flat)[0])
        x = self.probes.flatten(1, 2).unsqueeze(1).expand(-1, count, -1, -1).flatten(0, 1)
        hidden = [x]
        for weight, bias in layers[:-1]:
            hidden.append(_activate(torch.baddbmm(bias.unsqueeze(1), hidden[-1], weight.mT), self.tanh))
        weight, bias = layers[-1]
        outputs = torch.baddbmm(bias.unsqueeze(1), hidden[-1], weight.mT)
        with torch.enable_grad():  # the head is cheap, and there are several kinds
            features = self.policy.features_of(flat, outputs.requires_grad_())
        # [S * N, M * K, F] to [S * M, N, K * F] and back
        answers = features.detach().view(seeds, count, members, probes, -1).transpose(1, 2)
        self.error(answers.reshape(seeds * members, count, -1), target.repeat_interleave(members, 0))
        assert self.error.input_gradient is not None
        answers = self.error.input_gradient.view(seeds, members, count, probes, -1).transpose(1, 2)
        (delta,) = torch.autograd.grad(features, outputs, answers.reshape(features.shape))
        for (weight, _), below in zip(layers[:0:-1], hidden[:0:-1], strict=True):
            delta = _through(torch.bmm(delta, weight), below, self.tanh)
        delta = torch.bmm(delta, layers[0][0]).view(seeds, count, members, probes, width)
        torch.sum(delta, 1, out=self.slot)
        return self.gradient


def _activate(before: Tensor, tanh: bool) -> Tensor:
    return before.tanh_() if tanh else before.clamp_min_(0)


def _through(delta: Tensor, activated: Tensor, tanh: bool) -> Tensor:
    """The gradient before an activation, from the one after it; both arguments are used up."""
    return delta.addcmul_(delta, activated.square_(), value=-1) if tanh else delta.mul_(activated > 0)


def squared_error_gradient(network: MLP, phi: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """The reference of `SquaredError`: the same gradient by autograd, on tensors of the same shapes.

    That of `FingerprintError` is `Probing.squared_error_gradient`.
    """
    phi = phi.detach().requires_grad_(True)
    error = (network.forward(phi, x).squeeze(-1) - target).square().mean(-1).sum()
    return torch.autograd.grad(error, phi)[0]
