"""A network that writes the weights of many other networks, tile by tile, from one condition vector each.

The shared-slice hypernetwork of Faccio, Herrmann, Ramesh, Kirsch and Schmidhuber, "Goal-Conditioned Generators of Deep
Policies", AAAI 2023, arXiv:2207.01570. Shape legend: Q parameters of the hypernetwork, C numbers in a condition, B
conditions (one target network each), P parameters of a target network, S all leading dimensions in one, T tiles of
one layer, H any size in `hidden`.

Gradients are autograd's: written out by hand they took 1.3 ms instead of 1.9 ms for five seeds of a 4-16-2 target and
56 ms instead of 63 ms for one of 11-256-256-3 (one thread, 2026-11-22), too little for a second copy of the algebra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from mindworks.core.population import MLP
from mindworks.errors import require, require_at_least


class _Layer(NamedTuple):
    """A layer of the target in tiles `rows` x `columns`, a grid of `down` x `across` of them."""

    kind: int
    rows: int
    columns: int
    down: int
    across: int
    scale: float


@dataclass(frozen=True)
class TiledHypernetwork:
    """A hypernetwork as a shape; its own weights are a flat vector `rho[..., Q]`.

    Every weight matrix `[out, in]` of `target` is cut into tiles: the first layer's are `tile` x in, the last layer's
    out x `tile`, all others' `tile` x `tile`; where `tile` does not divide a size, the tiles at the edge are cropped.
    A tile has its own learned embedding z of size `embedding`. Two ReLU networks with layers `hidden` see z and the
    condition: one makes the tile's weights, the other its piece of the bias; a bias is the mean of the pieces along
    its row of tiles. First, last and all other layers have their own pair of networks. Everything made for a layer is
    multiplied by 2 / sqrt(fan_in). The last `extra` parameters of P come, as they are, from the condition alone
    through a network with one hidden layer, hidden[0].
    """

    target: MLP
    conditions: int
    tile: int = 16
    embedding: int = 8
    hidden: tuple[int, ...] = (256, 256)
    extra: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, 1, "conditions", "tile", "embedding")
        require_at_least(self, 0, "extra")
        require(
            len(self.hidden) >= 1 and all(size >= 1 for size in self.hidden),
            f"hidden needs one or more positive sizes, got {self.hidden}",
        )

    @property
    def outputs(self) -> int:
        """P, the length of one made parameter vector."""
        return self.target.num_parameters + self.extra

    @property
    def num_parameters(self) -> int:
        """Q, the length of the hypernetwork's own parameter vector."""
        return sum(self._lengths)

    def init(self, *leading: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Fresh parameters `[*leading, Q]`: embeddings N(0, 1), the networks' weights as in `MLP.init`."""
        parts = []
        for shape, fan_in in self._parts:
            if fan_in:
                parts.append((torch.rand(*leading, *shape, generator=generator, dtype=dtype) * 2 - 1) * fan_in**-0.5)
            else:
                parts.append(torch.randn(*leading, *shape, generator=generator, dtype=dtype))
        return self.flatten(parts)

    def unflatten(self, rho: Tensor) -> list[Tensor]:
        """Views of `rho[..., Q]`: a list with one part for each set of embeddings, weight matrix and bias."""
        require(
            rho.shape[-1:] == (self.num_parameters,),
            f"rho must end in {self.num_parameters} parameters, got shape {tuple(rho.shape)}",
        )
        pieces = zip(rho.split(self._lengths, -1), self._parts, strict=True)
        return [piece.unflatten(-1, shape) for piece, (shape, _) in pieces]

    def leaves(self, rho: Tensor) -> list[Tensor]:
        """`unflatten` for gradients: each part is a leaf of its own, and shares the memory of `rho`."""
        return [part.requires_grad_(True) for part in self.unflatten(rho.detach())]

    def flatten(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `unflatten`, for parts `[..., *shape]` or gradients of that shape: `[..., Q]`."""
        return torch.cat([part.flatten(-len(shape)) for part, (shape, _) in zip(parts, self._parts, strict=True)], -1)

    def forward(self, rho: Tensor, condition: Tensor) -> Tensor:
        """Target parameters `theta[..., B, P]`, in the order of `MLP.flatten`, for conditions `[..., B, C]`.

        The leading dimensions of `condition` are those of `rho[..., Q]`, or broadcast to them.
        """
        return self.apply(self.unflatten(rho), condition)

    def apply(self, parts: Sequence[Tensor], condition: Tensor) -> Tensor:
        """`forward` of parameters that are already unflattened; gradients then meet no slices of a flat vector."""
        leading = parts[0].shape[:-2]
        theta = self._make([_merge(part, leading) for part in parts], self._rows(condition, leading))
        return theta.reshape(*leading, *theta.shape[1:])

    # -- shapes ------------------------------------------------------------------------------------------------------

    @cached_property
    def _layers(self) -> list[_Layer]:
        sizes, tile = self.target.sizes, self.tile
        layers = []
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            first, last = i == 0, i == len(sizes) - 2
            rows, columns = fan_out if last else tile, fan_in if first else tile
            kind = 0 if first else 1 if last else 2
            layers.append(_Layer(kind, rows, columns, -(-fan_out // rows), -(-fan_in // columns), 2 * fan_in**-0.5))
        return layers

    @cached_property
    def _parts(self) -> list[tuple[tuple[int, int], int]]:
        """(shape, fan_in) of each part of rho; fan_in 0 stands for embeddings.

        In order: the embeddings of each layer, the networks of each kind, the network of the extra parameters.
        """
        width, fan_in = 2 * self.hidden[0], self.embedding + self.conditions
        parts = [((layer.down * layer.across, self.embedding), 0) for layer in self._layers]

        def affine(*sizes: int) -> None:
            for below, above in pairwise(sizes):
                parts.extend([((above, below), below), ((1, above), below)])

        for _, rows, columns in sorted({layer[:3] for layer in self._layers}):
            # The first layer of both networks is one matrix, in two parts: its columns for z and for the condition.
            parts += [((width, self.embedding), fan_in), ((width, self.conditions), fan_in), ((1, width), fan_in)]
            affine(*self.hidden, rows * columns)
            affine(*self.hidden, rows)
        if self.extra:
            affine(self.conditions, self.hidden[0], self.extra)
        return parts

    @cached_property
    def _lengths(self) -> list[int]:
        return [prod(shape) for shape, _ in self._parts]

    @cached_property
    def _whole(self) -> MLP:
        """The target before its tiles are cropped."""
        return MLP((self.target.sizes[0], *(layer.rows * layer.down for layer in self._layers)))

    @cached_property
    def _kept(self) -> Tensor | None:
        """Where the target's parameters, and the extra ones, lie among those of whole tiles; None: everywhere."""
        whole, sizes = self._whole, self.target.sizes
        if whole.sizes == sizes and self.target.bias:
            return None
        places = torch.arange(whole.num_parameters + self.extra)
        cut = zip(whole.unflatten(places[: whole.num_parameters]), pairwise(sizes), strict=True)
        kept = self.target.flatten([(weight[:b, :a], bias[:b]) for (weight, bias), (a, b) in cut])
        return torch.cat([kept, places[whole.num_parameters :]])

    def _rows(self, condition: Tensor, leading: Sequence[int]) -> Tensor:
        """Conditions `[S, B, C]`."""
        require(
            condition.ndim >= 2 and condition.shape[-1] == self.conditions,
            f"condition must be [..., B, {self.conditions}], got shape {tuple(condition.shape)}",
        )
        given = condition.shape[:-2]
        fits = len(given) <= len(leading) and all(
            size in (1, own) for size, own in zip(given[::-1], leading[::-1], strict=False)
        )
        require(fits, f"condition's leading dimensions {tuple(given)} must broadcast to those of rho, {tuple(leading)}")
        return _merge(condition.expand(*leading, *condition.shape[-2:]), leading)

    def _networks(self, kind: int) -> slice:
        """The parts of a kind's networks: the first layer's three, then (weight, bias) of all further layers."""
        count = 3 + 4 * len(self.hidden)
        return slice(len(self._layers) + kind * count, len(self._layers) + (kind + 1) * count)

    def _make(self, parts: Sequence[Tensor], rows: Tensor) -> Tensor:
        """theta `[S, B, P]` from parts and conditions that have one leading dimension S."""
        pieces: list[Tensor] = []
        for layer, z in zip(self._layers, parts, strict=False):
            pieces += _make_layer(layer, z, parts[self._networks(layer.kind)], rows)
        if self.extra:
            weight, bias, last_weight, last_bias = parts[-4:]
            hidden = torch.baddbmm(bias, rows, weight.mT).relu_()
            pieces.append(torch.baddbmm(last_bias, hidden, last_weight.mT))
        theta, kept = torch.cat(pieces, -1), self._kept
        return theta if kept is None else theta.index_select(-1, kept.to(theta.device))


def _merge(tensor: Tensor, leading: Sequence[int]) -> Tensor:
    """The leading dimensions as one, S."""
    if len(leading) == 1:
        return tensor
    return tensor.flatten(0, len(leading) - 1) if leading else tensor.unsqueeze(0)


def _make_layer(layer: _Layer, z: Tensor, parts: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Weight `[S, B, out * in]` and bias `[S, B, out]` of a layer in whole tiles, from its embeddings `z[S, T, :]`."""
    of_z, of_condition, bias, *others = parts
    # The first layer is linear: embeddings and conditions meet their own columns once each, not once for each pair.
    both = torch.baddbmm(bias, z, of_z.mT).unsqueeze(1) + torch.bmm(rows, of_condition.mT).unsqueeze(2)
    for_weight, for_bias = both.relu_().flatten(1, 2).chunk(2, -1)
    half = len(others) // 2
    tiles = _through(others[:half], for_weight, layer.scale, 1)
    pieces = _through(others[half:], for_bias, layer.scale, layer.across)
    blocks = tiles.unflatten(2, (-1, layer.columns)).unflatten(1, (-1, layer.down, layer.across)).transpose(3, 4)
    return blocks.flatten(2), pieces.unflatten(1, (-1, layer.down)).flatten(2)


def _through(parts: Sequence[Tensor], x: Tensor, scale: float, across: int) -> Tensor:
    """The rest of a network on `x[S, n, H]`: `scale` times the mean of its outputs over groups of `across` rows."""
    *hidden, (weight, bias) = zip(parts[::2], parts[1::2], strict=True)
    for hidden_weight, hidden_bias in hidden:
        x = torch.baddbmm(hidden_bias, x, hidden_weight.mT).relu_()
    if across > 1:  # the last layer is linear too: the output at the mean is the mean output, from fewer rows
        x = x.unflatten(1, (-1, across)).mean(2)
    return torch.baddbmm(bias, x, weight.mT, beta=scale, alpha=scale)
