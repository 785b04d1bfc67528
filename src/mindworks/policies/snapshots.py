"""Populations of classifiers whose accuracies are known: many short trainings side by side, and what to do with them.

Shape legend: S seeds, N networks, P parameters of one network, B images, `...` any leading dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mindworks.core.adam import Adam
from mindworks.core.population import leaves
from mindworks.errors import require
from mindworks.policies.convnet import ConvNet, Layers
from mindworks.policies.streams import Streams

_NUMBERS_AT_ONCE = 2**21  # numbers in the first convolution's output, so that measuring stays near the cache


def geometric_steps(first: int, last: int, count: int) -> list[int]:
    """At most `count` different whole steps from `first` to `last`, in equal ratios where there is room."""
    require(1 <= first <= last, f"first must be in [1, {last}], got {first}")
    return sorted({int(step) for step in np.geomspace(first, last, count).round()})


@dataclass(frozen=True)
class Trainings:
    """How networks are trained side by side: the batch, and the spread of their step sizes and data."""

    batch: int
    """images per step"""
    rates: tuple[float, float]
    """least and greatest step size; each network has its own, log-uniform"""
    least_images: int
    """two networks in three see only a part of the images, of log-uniform size from this many to all"""

    def run(
        self, network: ConvNet, images: Tensor, labels: Tensor, streams: Streams, count: int, keep: list[int]
    ) -> Tensor:
        """Train `count` networks per seed from fresh starts; returns them after each step in `keep`: `[S, N, P]`.

        N is `count` times the length of `keep`, step by step. `images[B, C, H, W]`, `labels[B]`; the loss is the
        cross-entropy of the labels.
        """
        start = streams.draw(lambda g: network.init(count, generator=g))
        low, high = self.rates
        rate = low * (high / low) ** streams.draw(lambda g: torch.rand(count, 1, generator=g))
        least = min(self.least_images, len(images))
        seen = least * (len(images) / least) ** streams.draw(lambda g: torch.rand(count, 1, generator=g))
        seen[:, ::3] = len(images)
        order = streams.draw(lambda g: torch.rand(count, len(images), generator=g)).argsort(-1)
        # Adam's steps do not depend on the scale of its gradient, so a step size of its own per network is a factor
        walked = torch.zeros_like(start)
        adam = Adam(walked, 1.0, (0.9, 0.99))
        kept = []
        for step in range(max(keep) + 1):
            theta = start + rate * walked
            if step in keep:
                kept.append(theta)
            draws = streams.draw(lambda g: torch.rand(count, self.batch, generator=g))
            chosen = order.gather(-1, (draws * seen).long())
            adam.step(cross_entropy_gradient(network, theta, images[chosen], labels[chosen]))
        return torch.cat(kept, 1)


def cross_entropy_gradient(network: ConvNet, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient `[..., P]` of each network's mean cross-entropy at `images[..., B, C, H, W]` and `labels[..., B]`."""
    layers = leaves(network.unflatten(theta))
    logits = network.apply(layers, images)
    loss = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum") / labels.shape[-1]
    return network.flatten(layer_gradients(loss, layers))


def layer_gradients(loss: Tensor, layers: Layers) -> Layers:
    """Gradients of a scalar in the (weight, bias) leaves it was made with, as such pairs."""
    parts = torch.autograd.grad(loss, [part for layer in layers for part in layer])
    return list(zip(parts[::2], parts[1::2], strict=True))


def add_noise(theta: Tensor, noise: float, streams: Streams) -> Tensor:
    """Every second network of `theta[S, N, P]` (by chance) with Gaussian noise on all parameters.

    The standard deviation is uniform in [0, `noise`] times that of the network's own parameters.
    """
    count, size = theta.shape[1:]
    draws = streams.draw(lambda g: torch.rand(count, 2, generator=g))
    sigma = noise * draws[..., :1] * (draws[..., 1:] < 0.5) * theta.std(-1, keepdim=True)
    return theta + sigma * streams.draw(lambda g: torch.randn(count, size, generator=g))


@torch.no_grad()
def confusion(network: ConvNet, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Fractions `[..., classes, classes]` of the images that are of class i and get the answer j from `theta[..., P]`.

    `images[B, C, H, W]`, `labels[B]`. The trace is the accuracy (see `accuracy`).
    """
    truth = functional.one_hot(labels, network.classes).mT.float() / len(labels)

    def fractions(part: Tensor) -> Tensor:
        answers = network.forward(part, images).argmax(-1)
        return truth @ functional.one_hot(answers, network.classes).float()

    size = max(1, _NUMBERS_AT_ONCE // (len(images) * prod(network.maps[1])))
    flat = theta.reshape(-1, theta.shape[-1])
    return torch.cat([fractions(part) for part in flat.split(size)]).unflatten(0, theta.shape[:-1])


def accuracy(network: ConvNet, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Fraction `[...]` of the images that the networks `theta[..., P]` classify as labelled."""
    return confusion(network, theta, images, labels).diagonal(dim1=-2, dim2=-1).sum(-1)


def random_orders(*leading: int, classes: int, untouched: float, generator: torch.Generator) -> Tensor:
    """Permutations `[*leading, classes]`, int64: of a random part of the classes, and of none for some networks.

    A fraction `untouched` are the identity; in the others each class is moved with a chance that is uniform in [0, 1].
    Networks whose outputs are so exchanged are as sure of their answers as before, and wrong.
    """
    chance = torch.rand(*leading, 1, generator=generator)
    chance *= torch.rand(*leading, 1, generator=generator) >= untouched
    moved = torch.rand(*leading, classes, generator=generator) < chance
    names = torch.arange(classes)
    # both sorts put the moved classes first and the others, in order, after them: once by name, once by chance
    places = torch.where(moved, names, names + classes).argsort(-1)
    shuffled = torch.where(moved, torch.rand(*leading, classes, generator=generator), names + 1.0).argsort(-1)
    return torch.empty(*leading, classes, dtype=torch.int64).scatter_(-1, places, shuffled)
