"""Judging networks by what they do: learned probe inputs, the answers of any networks to them, an MLP on the answers.

Networks are never read as lists of weights, so one evaluator serves every architecture whose answers have the same
shape. Harb, Schaul, Precup and Bacon, "Policy Evaluation Networks", arXiv:2002.11833; with learned probes for deep
policies Faccio et al., "General Policy Evaluation and Improvement by Learning to Identify Few But Crucial States",
arXiv:2207.01566.

Shape legend: K probes, A numbers in one answer, N networks, Q parameters of a probing, `...` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from mindworks.core.population import MLP, leaves
from mindworks.errors import require, require_at_least

Answer = Callable[[Tensor], Tensor]
Parts = tuple[Tensor, list[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Probing:
    """K probe inputs with an evaluator as a shape; its parameters are a flat vector `phi[..., Q]`.

    `probe_shape` is the shape of one input: `(D,)` for a vector, `(channels, height, width)` for an image, `(T, D)` for
    a sequence. `answer_size` is A, the numbers in a network's answer to one input, all dimensions together. `extra`
    more features can stand beside the answers. Inside `phi` the probes come first, then the evaluator, an MLP with
    `hidden` ReLU layers from `K * A + extra` features to `outputs`. Fresh probes are uniform in [low, high].
    """

    probe_shape: tuple[int, ...]
    count: int
    answer_size: int
    hidden: tuple[int, ...] = (64, 64)
    outputs: int = 1
    extra: int = 0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        require(
            len(self.probe_shape) >= 1 and min(self.probe_shape) >= 1,
            f"probe_shape must be positive sizes, got {self.probe_shape}",
        )
        require_at_least(self, 1, "count", "answer_size", "outputs")
        require_at_least(self, 0, "extra")
        require(all(size >= 1 for size in self.hidden), f"hidden must be positive sizes, got {self.hidden}")
        require(self.low <= self.high, f"low must not be above high, got {self.low} and {self.high}")

    @property
    def embedding_size(self) -> int:
        """Numbers in the embedding of one network: K * A."""
        return self.count * self.answer_size

    @property
    def evaluator(self) -> MLP:
        """The MLP on the embedding and the extra features."""
        return MLP((self.embedding_size + self.extra, *self.hidden, self.outputs), "relu")

    @property
    def num_parameters(self) -> int:
        """Q: the probes' entries and the evaluator's weights."""
        return self._entries + self.evaluator.num_parameters

    @property
    def _entries(self) -> int:
        return self.count * prod(self.probe_shape)

    def init(self, *leading: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Fresh parameters `[*leading, Q]`: probes uniform in [low, high], the evaluator as `MLP.init`."""
        probes = torch.rand(*leading, self._entries, generator=generator, dtype=dtype)
        weights = self.evaluator.init(*leading, generator=generator, dtype=dtype)
        return torch.cat([self.low + (self.high - self.low) * probes, weights], -1)

    def split(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Views of `phi[..., Q]`: the probes `[..., K, *probe_shape]` and the evaluator's weights `[..., Q - ...]`."""
        require(
            phi.shape[-1:] == (self.num_parameters,),
            f"phi must end in {self.num_parameters} parameters, got shape {tuple(phi.shape)}",
        )
        return phi[..., : self._entries].unflatten(-1, (self.count, *self.probe_shape)), phi[..., self._entries :]

    def probes(self, phi: Tensor) -> Tensor:
        """The probe inputs `[..., K, *probe_shape]`, a view of `phi[..., Q]`."""
        return self.split(phi)[0]

    def unflatten(self, phi: Tensor) -> Parts:
        """Views of `phi[..., Q]`: the probes, and the evaluator's layers as (weight, bias) pairs."""
        probes, weights = self.split(phi)
        return probes, self.evaluator.unflatten(weights)

    def leaves(self, phi: Tensor) -> Parts:
        """`unflatten` as leaves that share the memory of phi: their gradients meet no slices of a flat vector."""
        probes, layers = self.unflatten(phi)
        return probes.detach().requires_grad_(), leaves(layers)

    def flatten(self, probes: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """`phi[..., Q]` from probes `[..., K, *probe_shape]` and the evaluator's (weight, bias) pairs."""
        return torch.cat([probes.flatten(-1 - len(self.probe_shape)), self.evaluator.flatten(layers)], -1)

    def embed(self, probes: Tensor, answer: Answer) -> Tensor:
        """Embeddings `[..., N, K * A]` of the networks behind `answer`, differentiable in their parameters.

        `answer` takes the probes `[..., K, *probe_shape]` and returns `[..., N, K, *a]`, the numbers in `a` being A.
        """
        answers = answer(probes)
        keep = probes.ndim - len(self.probe_shape)  # the leading dimensions and N
        require(
            answers.shape[keep : keep + 1] == (self.count,) and answers.shape[keep:].numel() == self.embedding_size,
            f"answer must return [..., N, {self.count}, {self.answer_size}], got shape {tuple(answers.shape)}",
        )
        return answers.flatten(keep)

    def forward(self, phi: Tensor, answer: Answer, *extra: Tensor) -> Tensor:
        """Outputs `[..., N, outputs]` for the networks behind `answer` (see `embed`) and `extra[..., N, *]`."""
        return self.apply(self.unflatten(phi), answer, *extra)

    def apply(self, parts: Parts, answer: Answer, *extra: Tensor) -> Tensor:
        """`forward` of parameters that are already unflattened."""
        probes, layers = parts
        return self.evaluator.apply(layers, *extra, self.embed(probes, answer))

    def squared_error_gradient(self, phi: Tensor, answer: Answer, target: Tensor, *extra: Tensor) -> Tensor:
        """Gradient `[..., Q]` of the mean squared error to `target[..., N]`, or `[..., N, outputs]` if outputs > 1.

        The mean is over N and the outputs; leading dimensions are problems of their own.
        """
        leaves = self.leaves(phi)
        output = self.apply(leaves, answer, *extra)
        output = output.squeeze(-1) if self.outputs == 1 else output
        require(
            target.shape == output.shape, f"target must have shape {tuple(output.shape)}, got {tuple(target.shape)}"
        )
        dims = tuple(range(phi.ndim - 1, target.ndim))
        return self.gradient((output - target).square().mean(dims).sum(), leaves)

    def gradient(self, loss: Tensor, leaves: Parts) -> Tensor:
        """Gradient `[..., Q]` of a scalar made with `apply(leaves, ...)`."""
        probes, layers = leaves
        first, *rest = torch.autograd.grad(loss, [probes, *(part for layer in layers for part in layer)])
        return self.flatten(first, list(zip(rest[::2], rest[1::2], strict=True)))
