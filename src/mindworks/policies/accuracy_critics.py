"""Critics of classifiers: functions of a network's answers, or of its parameters, that predict its accuracy.

Shape legend: S seeds, N networks, P parameters of one network, Q parameters of a critic, `...` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from mindworks.core.population import MLP, leaves
from mindworks.core.probing import Probing
from mindworks.policies.convnet import ConvNet
from mindworks.policies.snapshots import layer_gradients


class Critic(Protocol):
    """A value function of classifiers: the logit of the accuracy, differentiable in their parameters."""

    phi: Tensor

    def logit(self, theta: Tensor) -> Tensor:
        """Predicted accuracies of `theta[S, N, P]` as logits `[S, N]`."""

    def gradient(self, theta: Tensor, target: Tensor) -> Tensor:
        """Gradient in `phi[S, Q]` of the cross-entropy of the prediction, the mean over N, at accuracies `[S, N]`."""


class ProbingCritic:
    """Sees a classifier's answers to K probing images; images and evaluator `phi[S, Q]` are learned together."""

    def __init__(self, network: ConvNet, probing: Probing, phi: Tensor) -> None:
        self.network, self.probing, self.phi = network, probing, phi

    def logit(self, theta: Tensor) -> Tensor:
        """Predicted accuracies of `theta[S, N, P]` as logits `[S, N]`."""
        return self.probing.forward(self.phi, self._answer(theta)).squeeze(-1)

    def gradient(self, theta: Tensor, target: Tensor) -> Tensor:
        """Gradient of the cross-entropy, see `Critic`."""
        parts = self.probing.leaves(self.phi)
        logit = self.probing.apply(parts, self._answer(theta)).squeeze(-1)
        return self.probing.gradient(_cross_entropy(logit, target), parts)

    def _answer(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda probes: probabilities(self.network, theta, probes.unsqueeze(-5))


class FixedCritic:
    """An MLP `phi[S, Q]` on features of a classifier that are not learned: `features(theta[S, N, P]) -> [S, N, D]`.

    The parameters themselves make the critic of the first parameter-based value functions (arXiv:2006.09226); answers
    to random images make a trained evaluator whose probes stay as they were drawn.
    """

    def __init__(self, evaluator: MLP, phi: Tensor, features: Callable[[Tensor], Tensor]) -> None:
        self.evaluator, self.phi, self.features = evaluator, phi, features

    def logit(self, theta: Tensor) -> Tensor:
        """Predicted accuracies of `theta[S, N, P]` as logits `[S, N]`."""
        return self.evaluator.forward(self.phi, self.features(theta)).squeeze(-1)

    def gradient(self, theta: Tensor, target: Tensor) -> Tensor:
        """Gradient of the cross-entropy, see `Critic`."""
        layers = leaves(self.evaluator.unflatten(self.phi))
        logit = self.evaluator.apply(layers, self.features(theta)).squeeze(-1)
        return self.evaluator.flatten(layer_gradients(_cross_entropy(logit, target), layers))


def probabilities(network: ConvNet, theta: Tensor, images: Tensor) -> Tensor:
    """Class probabilities `[..., B, classes]` of `theta[..., P]` at `images[..., B, C, H, W]`."""
    logits = network.forward(theta, images)
    # torch's softmax over ten numbers takes five times as long (310 against 76 us for 1,600 rows, 2026-11-22)
    return (logits - logits.logsumexp(-1, keepdim=True)).exp()


def _cross_entropy(logit: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of accuracies, the mean over N and the sum over S: each seed is a problem of its own."""
    return functional.binary_cross_entropy_with_logits(logit, target, reduction="sum") / target.shape[-1]


@dataclass
class Measured:
    """Classifiers `theta[S, N, P]` and their confusion `[S, N, classes, classes]` on the images for values."""

    theta: Tensor
    confusion: Tensor

    def draw(self, network: ConvNet, index: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Classifiers `[S, B, P]` at `index[S, B]` with outputs in `order[S, B, classes]`, and their accuracies.

        The confusion of a classifier gives the exact accuracies of all its reorderings.
        """
        seeds = torch.arange(len(index)).unsqueeze(-1)
        hits = self.confusion[seeds, index].gather(-1, order.unsqueeze(-1)).squeeze(-1)
        return network.reorder(self.theta[seeds, index], order), hits.sum(-1)

    def extend(self, theta: Tensor, confusion: Tensor) -> None:
        """Add classifiers."""
        self.theta = torch.cat([self.theta, theta], 1)
        self.confusion = torch.cat([self.confusion, confusion], 1)
