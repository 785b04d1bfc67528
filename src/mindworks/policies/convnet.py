"""Small convolutional networks as flat parameter vectors, whole populations at once.

Shape legend: P parameters of one network, B images, C channels, H and W their height and width, `...` any leading
dimensions (seeds, populations).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from mindworks.core.population import ACTIVATIONS, MLP
from mindworks.errors import require, require_at_least

Layers = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ConvNet:
    """Convolutions without padding, then dense layers, as a shape; its weights are a flat vector `theta[..., P]`.

    `image` is (C, H, W). There is one convolution of `kernel` x `kernel` pixels and step `stride` per entry of
    `channels`, one dense layer per entry of `hidden`, and a dense layer of `classes` outputs. The order inside `theta`
    is that of `module(theta).parameters()`, a plain `nn.Sequential` of `Conv2d` and `Linear`.
    """

    image: tuple[int, int, int]
    channels: tuple[int, ...] = (8,)
    kernel: int = 3
    stride: int = 1
    hidden: tuple[int, ...] = ()
    classes: int = 10
    activation: str = "relu"

    def __post_init__(self) -> None:
        require(
            len(self.image) == 3 and min(self.image) >= 1,
            f"image must be positive channels, height and width, got {self.image}",
        )
        require(
            len(self.channels) >= 1 and min(self.channels) >= 1, f"channels must be positive sizes, got {self.channels}"
        )
        require_at_least(self, 1, "kernel", "stride", "classes")
        height, width = self.maps[-1][1:]
        require(
            min(height, width) >= 1,
            f"image must be large enough for {len(self.channels)} convolutions of kernel {self.kernel} and stride "
            f"{self.stride}, got {self.image}",
        )
        _ = self.head  # refuses bad hidden sizes and activations

    @cached_property
    def maps(self) -> list[tuple[int, int, int]]:
        """Channels, height and width of the image and of each convolution's output."""
        maps = [self.image]
        for channels in self.channels:
            height, width = ((size - self.kernel) // self.stride + 1 for size in maps[-1][1:])
            maps.append((channels, height, width))
        return maps

    @cached_property
    def head(self) -> MLP:
        """The dense layers, on the last convolution's output as one vector."""
        return MLP((prod(self.maps[-1]), *self.hidden, self.classes), self.activation)

    @property
    def num_parameters(self) -> int:
        """P, the length of one parameter vector."""
        return self._filters + self.head.num_parameters

    @property
    def _filters(self) -> int:
        return sum(prod(shape) + shape[0] for shape in self._filter_shapes())

    def _filter_shapes(self) -> Iterator[tuple[int, int, int, int]]:
        """The weight shapes `(out, in, kernel, kernel)` of the convolutions."""
        for before, after in pairwise(self.maps):
            yield after[0], before[0], self.kernel, self.kernel

    def init(self, *leading: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Fresh parameter vectors `[*leading, P]`: entries U(-b, b), b = 1 / sqrt(fan_in), as in torch's layers."""
        theta = torch.rand(*leading, self.num_parameters, generator=generator, dtype=dtype) * 2 - 1
        for weight, bias in self.unflatten(theta):
            bound = prod(weight.shape[theta.ndim :]) ** -0.5
            weight.mul_(bound)
            bias.mul_(bound)
        return theta

    def unflatten(self, theta: Tensor) -> Layers:
        """Views of `theta[..., P]` as one (weight, bias) per layer.

        Weights are `[..., out, in, kernel, kernel]` of the convolutions, then `[..., out, in]`; biases `[..., out]`.
        Raises `InputError` unless `theta` ends in P.
        """
        require(
            theta.shape[-1:] == (self.num_parameters,),
            f"theta must end in {self.num_parameters} parameters, got shape {tuple(theta.shape)}",
        )
        layers, start = [], 0
        for shape in self._filter_shapes():
            middle, end = start + prod(shape), start + prod(shape) + shape[0]
            layers.append((theta[..., start:middle].unflatten(-1, shape), theta[..., middle:end]))
            start = end
        return layers + self.head.unflatten(theta[..., start:])

    def flatten(self, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The inverse of `unflatten`."""
        parts = (part.flatten(bias.ndim - 1) for weight, bias in layers for part in (weight, bias))
        return torch.cat(list(parts), -1)

    def forward(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits `[..., B, classes]` of the networks `theta[..., P]` at `images[..., B, C, H, W]`.

        The leading dimensions broadcast: images that all networks of a population share have size 1 there, or none.
        Raises `InputError` if the images are not of the shape `image`.
        """
        return self.apply(self.unflatten(theta), images)

    def apply(self, layers: Layers, images: Tensor) -> Tensor:
        """`forward` of parameters that are already unflattened; gradients then meet no slices of a flat vector."""
        require(
            images.ndim >= 4 and images.shape[-3:] == self.image,
            f"images must end in B and {self.image}, got shape {tuple(images.shape)}",
        )
        convolutions = len(self.channels)
        # the images come last in memory: each convolution's output is then the next product's right side as it stands
        hidden = images.movedim(-4, -1)
        for weight, bias in layers[:convolutions]:
            pixels, shape = _patches(hidden, self.kernel, self.stride)
            hidden = _product(weight.flatten(-3), pixels) + bias.unsqueeze(-1)
            hidden = ACTIVATIONS[self.activation](hidden).unflatten(-1, shape)
        return self.head.apply(layers[convolutions:], hidden.flatten(-4, -2).mT)

    def reorder(self, theta: Tensor, order: Tensor) -> Tensor:
        """Networks `[..., P]` whose output j is the output `order[..., j]` of `theta[..., P]`; order is int64."""
        *layers, (weight, bias) = self.unflatten(theta)
        rows = order.unsqueeze(-1).expand_as(weight)
        return self.flatten([*layers, (weight.gather(-2, rows), bias.gather(-1, order))])

    def module(self, theta: Tensor) -> nn.Sequential:
        """One network `theta[P]` as an `nn.Sequential` that owns a copy of the parameters."""
        require(
            theta.shape == (self.num_parameters,),
            f"theta must be one vector [{self.num_parameters}], got {tuple(theta.shape)}",
        )
        layers: list[nn.Module] = []
        activation = nn.Tanh if self.activation == "tanh" else nn.ReLU
        for outputs, inputs, kernel, _ in self._filter_shapes():
            layers += [nn.Conv2d(inputs, outputs, kernel, self.stride), activation()]
        head = self.head.module(theta[self._filters :])
        network = nn.Sequential(*layers, nn.Flatten(), *head).to(theta)
        nn.utils.vector_to_parameters(theta.detach().clone(), network.parameters())
        return network


def _patches(maps: Tensor, kernel: int, stride: int) -> tuple[Tensor, tuple[int, int, int]]:
    """All patches `[..., C * k * k, h * w * B]` of `maps[..., C, H, W, B]`, and (h, w, B)."""
    patches = maps.unfold(-3, kernel, stride).unfold(-3, kernel, stride)  # [..., C, h, w, B, k, k]
    shape = patches.shape[-5:-2]
    lead = maps.ndim - 4
    patches = patches.permute(*range(lead), lead, lead + 4, lead + 5, lead + 1, lead + 2, lead + 3)
    return patches.flatten(-3).flatten(lead, lead + 2), (shape[0], shape[1], shape[2])


def _product(weight: Tensor, pixels: Tensor) -> Tensor:
    """`weight[..., N, O, F] @ pixels[..., N or 1, F, L]`: one tall product where N networks share their pixels."""
    if pixels.ndim == weight.ndim > 3 and pixels.shape[-3] == 1:
        return (weight.flatten(-3, -2) @ pixels.squeeze(-3)).unflatten(-2, weight.shape[-3:-1])
    return weight @ pixels
