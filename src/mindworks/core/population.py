"""One architecture, N parameter vectors: initialise, flatten, unflatten, perturb, and run all N networks at once.

Shape legend: P parameters of one network, B inputs per network, `...` any leading dimensions (seeds, populations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from mindworks.errors import require

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}
_LAYERS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron as a shape; its weights are a flat vector `theta[..., P]`.

    The order inside `theta` is that of `nn.Sequential(nn.Linear, activation, ..., nn.Linear).parameters()`: for each
    layer the weight `[out, in]` row by row, then the bias `[out]`. Two sizes make a linear map. Without `bias` theta
    holds the weights alone.
    """

    sizes: tuple[int, ...]
    activation: str = "tanh"
    bias: bool = True

    def __post_init__(self) -> None:
        require(len(self.sizes) >= 2, f"sizes needs an input and an output size, got {self.sizes}")
        require(all(size >= 1 for size in self.sizes), f"sizes must be positive, got {self.sizes}")
        require(
            self.activation in ACTIVATIONS, f"activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}"
        )

    @property
    def num_parameters(self) -> int:
        """P, the length of one parameter vector."""
        return sum((fan_in + self.bias) * fan_out for fan_in, fan_out in pairwise(self.sizes))

    def init(self, *leading: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Fresh parameter vectors `[*leading, P]`: entries U(-b, b), b = 1 / sqrt(fan_in), as in `nn.Linear`."""
        theta = torch.rand(*leading, self.num_parameters, generator=generator, dtype=dtype) * 2 - 1
        for weight, bias in self.unflatten(theta):
            bound = weight.shape[-1] ** -0.5
            weight.mul_(bound)
            bias.mul_(bound)
        return theta

    def unflatten(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Views of `theta[..., P]` as one (weight `[..., out, in]`, bias `[..., out]`) per layer.

        A network without biases answers zeros in their place.
        """
        require(
            theta.shape[-1:] == (self.num_parameters,),
            f"theta must end in {self.num_parameters} parameters, got shape {tuple(theta.shape)}",
        )
        layers, start = [], 0
        for fan_in, fan_out in pairwise(self.sizes):
            middle, end = start + fan_in * fan_out, start + (fan_in + self.bias) * fan_out
            bias = theta[..., middle:end] if self.bias else theta.new_zeros((*theta.shape[:-1], fan_out))
            layers.append((theta[..., start:middle].unflatten(-1, (fan_out, fan_in)), bias))
            start = end
        return layers

    def flatten(self, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The inverse of `unflatten`; a network without biases leaves them out."""
        kept = 2 if self.bias else 1
        return torch.cat([part for weight, bias in layers for part in (weight.flatten(-2), bias)[:kept]], -1)

    def forward(self, theta: Tensor, *inputs: Tensor) -> Tensor:
        """Outputs `[..., B, out]` of the networks `theta[..., P]` at their inputs `[..., B, in]`.

        Several inputs stand for their concatenation along the last dimension, and may differ by broadcasting in the
        others: the first layer is linear, so each part meets its own columns of the weight and the parts are added.
        A thousand states beside one policy then cost one product with the policy, not a thousand.
        """
        return self.apply(self.unflatten(theta), *inputs)

    def apply(self, layers: Sequence[tuple[Tensor, Tensor]], *inputs: Tensor) -> Tensor:
        """`forward` of parameters that are already unflattened; gradients then meet no slices of a flat vector."""
        widths = [x.shape[-1] for x in inputs]
        require(sum(widths) == self.sizes[0], f"inputs must have {self.sizes[0]} features in all, got {widths}")
        activation = ACTIVATIONS[self.activation]
        (weight, bias), *rest = layers
        if len(inputs) == 1:
            hidden = _affine(weight, bias, inputs[0])
        else:
            parts = zip(inputs, weight.split(widths, -1), strict=True)
            hidden = sum((x @ columns.mT for x, columns in parts), start=bias.unsqueeze(-2))
        for weight, bias in rest:
            hidden = _affine(weight, bias, activation(hidden))
        return hidden

    def module(self, theta: Tensor) -> nn.Sequential:
        """One network `theta[P]` as an `nn.Sequential` that owns a copy of the parameters."""
        require(
            theta.shape == (self.num_parameters,),
            f"theta must be one vector [{self.num_parameters}], got {tuple(theta.shape)}",
        )
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(self.sizes):
            layer = nn.Linear(fan_in, fan_out, self.bias, dtype=theta.dtype, device=theta.device)
            layers += [layer, _LAYERS[self.activation]()]
        network = nn.Sequential(*layers[:-1])
        nn.utils.vector_to_parameters(theta.detach().clone(), network.parameters())
        return network


def leaves(layers: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """The same layers as leaves of autograd that share their memory: gradients meet no slices of a flat vector."""
    return [(weight.detach().requires_grad_(), bias.detach().requires_grad_()) for weight, bias in layers]


def _affine(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """x W^T + b for `weight[..., out, in]`, `bias[..., out]` and `x[..., B, in]`; one kernel where shapes allow it."""
    if weight.ndim == x.ndim == 3 and weight.shape[0] == x.shape[0]:
        return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)
    return x @ weight.mT + bias.unsqueeze(-2)


class Modules:
    """Any `nn.Module` as an architecture: flat vectors `theta[..., P]`, all networks run at once through `torch.func`.

    For networks that are no plain MLP: convolutions, and recurrences written as a loop over time (torch's fused nn.RNN,
    nn.GRU and nn.LSTM know no vmap). Buffers are shared by all networks and never
    updated, so layers that keep running statistics belong in `eval()` mode.
    """

    def __init__(self, template: nn.Module) -> None:
        self.template = template
        self.shapes = {name: parameter.shape for name, parameter in template.named_parameters()}
        require(bool(self.shapes), "template must have parameters")

    @property
    def num_parameters(self) -> int:
        """P, the length of one parameter vector."""
        return sum(prod(shape) for shape in self.shapes.values())

    def flatten(self, module: nn.Module) -> Tensor:
        """The parameters of a module of this architecture as one vector `[P]`."""
        shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        require(
            shapes == self.shapes,
            f"module must have the parameters {list(self.shapes)} of the template, got {list(shapes)}",
        )
        return nn.utils.parameters_to_vector(module.parameters()).detach().clone()

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Views of `theta[..., P]` as `{name: [..., *shape]}`, the names those of `named_parameters()`."""
        require(
            theta.shape[-1:] == (self.num_parameters,),
            f"theta must end in {self.num_parameters} parameters, got shape {tuple(theta.shape)}",
        )
        pieces = theta.split([prod(shape) for shape in self.shapes.values()], -1)
        return {
            name: piece.unflatten(-1, shape) if shape else piece.squeeze(-1)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs `[*leading, B, ...]` of the networks `theta[*leading, P]` at their inputs `x[*leading, B, ...]`."""

        def call(parameters: dict[str, Tensor], one_input: Tensor) -> Tensor:
            return torch.func.functional_call(self.template, parameters, (one_input,))

        for _ in theta.shape[:-1]:
            call = torch.vmap(call)
        return call(self.unflatten(theta), x)


def perturb(theta: Tensor, count: int, sigma: float, generator: torch.Generator) -> Tensor:
    """`count` neighbours `theta + sigma * epsilon`, epsilon ~ N(0, I): `[..., P]` to `[..., count, P]`."""
    require(count >= 1, f"count must be at least 1, got {count}")
    require(sigma >= 0, f"sigma must not be negative, got {sigma}")
    noise = torch.randn(*theta.shape[:-1], count, theta.shape[-1], generator=generator, dtype=theta.dtype)
    return theta.unsqueeze(-2) + sigma * noise
