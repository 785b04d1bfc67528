"""Highway value iteration networks: blocks in which every layer has a direct path to the block's output.

Wang, Li, Faccio, Wu and Schmidhuber, "Highway Value Iteration Networks", ICML 2024, arXiv:2406.03485. The abstract
names the parts (aggregate gate, value exploration, filter gate); how they are put together here follows from its
highway value iteration, `(G V)(s) = max over policies and depths of max{(B^pi)^(n-1) B V, B V}`.

Shape legend: that of `mindworks.planning.planner`; P parallel chains, M layers of a block.
"""

from __future__ import annotations

import math
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
      `softmax(sharp * value)` over them; it is learned from `sharp` on

    Without exploration (`explore=False`, or epsilon 0) chains follow the best action and one is all there is; without
    `filter_gate` chains enter as they are; without `aggregate_gate` a block gives the last layer of its best chain. A
    trained planner explores as it did in training. Without a `generator` the same actions are drawn in every call, and
    for every map.
    """

    def __init__(
        self,
        mechanism: str | Mechanism = "news",
        depth: int = 30,
        config: VINConfig | None = None,
        *,
        block: int = 10,
        chains: int = 3,
        epsilon: float = 0.1,
        explore: bool = True,
        filter_gate: bool = True,
        aggregate_gate: bool = True,
        sharp: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        require(block >= 2, f"block must be at least 2, got {block}")
        require(chains >= 1, f"chains must be at least 1, got {chains}")
        require(0 <= epsilon <= 1, f"epsilon must be in [0, 1], got {epsilon}")
        self.__dict__["block"] = block  # before the depth is checked against it
        super().__init__(mechanism, depth, config, generator=generator)
        require(
            self.config.latent_actions <= 127, f"latent_actions must be at most 127, got {self.config.latent_actions}"
        )
        self.epsilon = epsilon if explore else 0.0
        self.chains = chains if self.epsilon > 0 else 1  # without exploration they are all the same
        self.filter_gate, self.aggregate_gate = filter_gate, aggregate_gate
        require(sharp > 0, f"sharp must be positive, got {sharp}")
        self.sharp = sharp
        self.log_sharp = nn.Parameter(torch.tensor(math.log(sharp)))

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        super().reset(generator)
        self.log_sharp.fill_(math.log(self.sharp))

    def iterate(
        self,
        latent: LatentMDP,
        layers: int,
        *,
        keep: Sequence[int] | None = None,
        initial: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        kept = self.kept(keep, self.layers(layers))
        assert latent.bias is not None
        values = latent.bias.new_zeros(latent.shape) if initial is None else initial
        outputs = []
        same = torch.Generator(values.device).manual_seed(0) if generator is None else None
        for _ in range(layers // self.block):
            values = self.gates(self.explored(latent, values, generator or same, shared=same is not None))
            outputs.append(values)
        return torch.stack([outputs[layer // self.block - 1] for layer in kept])

    def explored(
        self, latent: LatentMDP, values: Tensor, generator: torch.Generator | None, *, shared: bool = False
    ) -> Tensor:
        """The layers of a block's chains, `[M, P, B, C, H, W]`; the first is V1 in all of them.

        With `shared`, all maps are given the same drawn actions, so that none depends on its company.
        """
        bias, chains = latent.bias, self.chains
        assert bias is not None
        start = values.expand(chains, *values.shape).flatten(0, 1)
        layers = value_iteration(
            latent.transition,
            None,
            self.block,
            bias=bias.expand(chains, *bias.shape).flatten(0, 1),
            initial=start,
            keep=range(1, self.block + 1),
            actions=self._actions(bias.shape[2], (chains, *values.shape), generator, shared),
        )
        return layers.unflatten(1, (chains, -1))

    def _actions(
        self, count: int, shape: tuple[int, ...], generator: torch.Generator | None, shared: bool
    ) -> Tensor | None:
        """The drawn actions of the chains, -1 where the best is followed, as everywhere in the first layer."""
        if self.epsilon == 0:
            return None
        device, (chains, batch, *state) = self.log_sharp.device, shape
        size = (self.block, chains, 1 if shared else batch, *state)
        drawn = torch.randint(count, size, dtype=torch.int8, device=device, generator=generator)
        if self.epsilon < 1:
            drawn[torch.rand(size, device=device, generator=generator) >= self.epsilon] = -1
        drawn[0] = -1
        return drawn.expand(-1, -1, batch, *state).flatten(1, 2)

    def gates(self, layers: Tensor) -> Tensor:
        """A block's output `[B, C, H, W]` from the layers of its chains `[M, P, B, C, H, W]`."""
        first, rest = layers[0, :1], layers[1:]
        if self.filter_gate:
            rest = torch.maximum(rest, first)
        if not self.aggregate_gate:
            return rest[-1].amax(0)
        every = torch.cat([first, rest.flatten(0, 1)])
        share = (self.log_sharp.exp() * every).softmax(0)
        return (share * every).sum(0)
