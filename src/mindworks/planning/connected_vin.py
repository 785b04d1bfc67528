"""Value iteration networks with the connections that make other networks deep, as rivals of the highway VIN.

The connections are those of residual networks (arXiv:1512.03385), densely connected networks (arXiv:1608.06993) and
highway networks (arXiv:1505.00387), laid around blocks of value iteration layers. Each takes averages, where the
originals add: value iteration has no scale of its own, and sums would double the values in every block.
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

CONNECTIONS = ("residual", "dense", "highway")


class ConnectedVIN(VIN):
    """A VIN whose layers form blocks of `block` layers, joined by `connection`:

    - `residual`: `V' = (V + block(V)) / 2`
    - `dense`: a block starts from a learned average of what all blocks before it gave
    - `highway`: `V' = t * block(V) + (1 - t) * V`, with a gate `t = sigmoid(conv(R))` for every state
    """

    def __init__(
        self,
        mechanism: str | Mechanism = "news",
        depth: int = 30,
        config: VINConfig | None = None,
        *,
        connection: str = "residual",
        block: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        require(connection in CONNECTIONS, f"connection must be one of {', '.join(CONNECTIONS)}, got {connection!r}")
        require(block >= 1, f"block must be at least 1, got {block}")
        require(depth % block == 0, f"depth must be a multiple of block {block}, got {depth}")
        super().__init__(mechanism, depth, config, generator=generator)
        self.connection, self.block = connection, block
        blocks = depth // block
        if connection == "dense":  # a block starts close to what the block before it gave
            self.mixture = nn.Parameter(3.0 * torch.eye(blocks + 1))
        elif connection == "highway":
            latent = self.mechanism.orientations * self.config.latent_actions
            self.gate = nn.Conv2d(latent, self.mechanism.orientations, 1)
            with torch.no_grad():  # at first mostly through the layers
                self.gate.weight.zero_()
                self.gate.bias.fill_(2.0)  # type: ignore[union-attr]

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
        start = latent.bias.new_zeros(latent.shape) if initial is None else initial  # type: ignore[union-attr]
        outputs = [start]
        for _ in range(layers // self.block):
            values = self._enter(outputs)
            through = value_iteration(latent.transition, None, self.block, bias=latent.bias, initial=values)[0]
            outputs.append(self._leave(latent, values, through))
        return torch.stack([outputs[layer // self.block] for layer in kept])

    def _enter(self, outputs: list[Tensor]) -> Tensor:
        """What a block starts from."""
        count = len(outputs)
        if self.connection != "dense" or count == 1:
            return outputs[-1]
        require(count < len(self.mixture), f"depth must be at most {self.depth} with dense connections")
        share = self.mixture[count - 1, :count].softmax(0)
        return (share.view(-1, 1, 1, 1, 1) * torch.stack(outputs)).sum(0)

    def _leave(self, latent: LatentMDP, values: Tensor, through: Tensor) -> Tensor:
        """What a block gives."""
        if self.connection == "residual":
            return (values + through) / 2
        if self.connection == "highway":
            open_ = self.gate(latent.bias.flatten(1, 2)).sigmoid()  # type: ignore[union-attr]
            return open_ * through + (1 - open_) * values
        return through
