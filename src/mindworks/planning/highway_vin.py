"""Highway value iteration networks: blocks in which every layer has a direct path to the block's output.

Wang, Li, Faccio, Wu and Schmidhuber, "Highway Value Iteration Networks", ICML 2024, arXiv:2406.03485. The abstract
names the parts (aggregate gate, value exploration, filter gate); how they are put together here follows from its
highway value iteration, `(G V)(s) = max over policies and depths of max{(B^pi)^(n-1) B V, B V}`.

Shape legend: that of `mindworks.planning.planner`; P parallel chains, M layers of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mindworks.errors import require
from mindworks.planning.mechanisms import Mechanism
from mindworks.planning.planner import LatentMDP
from mindworks.planning.value_iteration import value_iteration
from mindworks.planning.vin import VIN, VINConfig


class HighwayVIN(VIN):
    """A VIN whose layers form blocks of `block` layers. With `V1 = max_a Q_a(V)`, the first layer of a block:

    - value exploration: `chains` chains of `block - 1` layers go on from V1; in each layer and state a chain follows
      the best action, or with probability `epsilon` one drawn evenly
    - filter gate: `max(chain, V1)`, so that exploring never lowers a value
    - aggregate gate: the block's output is the average of V1 and all layers of all chains, weighted by
      `softmax(sharp * value)` over them; `sharp` is learned

    Without exploration (`explore=False`) the chains follow the best action and one chain is all there is; without
    `filter_gate` chains enter as they are; without `aggregate_gate` a block gives the last layer of its best chain.
    A policy explores as it did in training. Without a `generator` the same actions are drawn in every call.
    """

    def __init__(
        self,
        mechanism: str | Mechanism = "news",
        depth: int = 30,
        config: VINConfig | None = None,
        *,
        block: int = 10,
        chains: int = 3,
        epsilon: float = 1.0,
        explore: bool = True,
        filter_gate: bool = True,
        aggregate_gate: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        require(block >= 2, f"block must be at least 2, got {block}")
        require(depth % block == 0, f"depth must be a multiple of block {block}, got {depth}")
        require(chains >= 1, f"chains must be at least 1, got {chains}")
        require(0 <= epsilon <= 1, f"epsilon must be in [0, 1], got {epsilon}")
        super().__init__(mechanism, depth, config, generator=generator)
        self.block, self.chains, self.epsilon = block, chains if explore else 1, epsilon if explore else 0.0
        self.filter_gate, self.aggregate_gate = filter_gate, aggregate_gate
        self.log_sharp = nn.Parameter(torch.zeros(()))

    def iterate(
        self,
        latent: LatentMDP,
        layers: int,
        *,
        keep: Sequence[int] | None = None,
        initial: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        kept = [layers] if keep is None else list(keep)
        require(layers % self.block == 0, f"depth must be a multiple of block {self.block}, got {layers}")
        wrong = [layer for layer in kept if layer % self.block]
        require(not wrong, f"keep must hold multiples of block {self.block}, got {wrong}")
        assert latent.bias is not None
        values = latent.bias.new_zeros(latent.shape) if initial is None else initial
        if generator is None:
            generator = torch.Generator(values.device).manual_seed(0)
        outputs = []
        for _ in range(layers // self.block):
            values = self.gates(*self.explored(latent, values, generator))
            outputs.append(values)
        return torch.stack([outputs[layer // self.block - 1] for layer in kept])

    def explored(self, latent: LatentMDP, values: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The first layer of a block `[B, C, H, W]`, and the layers of its chains `[M - 1, P, B, C, H, W]`."""
        bias, chains = latent.bias, self.chains
        assert bias is not None
        first = value_iteration(latent.transition, None, 1, bias=bias, initial=values)[0]
        repeated = bias.expand(chains, *bias.shape).flatten(0, 1)
        start = first.expand(chains, *first.shape).flatten(0, 1)
        actions = self._actions(bias, (self.block - 1, *start.shape), generator)
        layers = value_iteration(
            latent.transition,
            None,
            self.block - 1,
            bias=repeated,
            initial=start,
            keep=range(1, self.block),
            actions=actions,
        )
        return first, layers.unflatten(1, (chains, -1))

    def _actions(self, bias: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor | None:
        """The drawn actions of the chains, -1 where the best is followed."""
        if self.epsilon == 0:
            return None
        drawn = torch.randint(bias.shape[2], shape, dtype=torch.int8, device=bias.device, generator=generator)
        if self.epsilon < 1:
            best = torch.rand(shape, device=bias.device, generator=generator) >= self.epsilon
            drawn = drawn.masked_fill(best, -1)
        return drawn

    def gates(self, first: Tensor, layers: Tensor) -> Tensor:
        """A block's output `[B, C, H, W]` from its first layer and the layers of its chains."""
        if self.filter_gate:
            layers = torch.maximum(layers, first)
        if not self.aggregate_gate:
            return layers[-1].amax(0)
        every = torch.cat([first[None], layers.flatten(0, 1)])
        share = (self.log_sharp.exp() * every).softmax(0)
        return (share * every).sum(0)
