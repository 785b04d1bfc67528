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
from mindworks.planning.planner import CHUNK, LatentMDP, Plan, Planner, convolution
from mindworks.planning.value_iteration import value_iteration
from mindworks.planning.vin import VIN, VINConfig

CONNECTIONS = ("residual", "dense", "highway")


class ConnectedVIN(VIN):
    """A VIN whose layers form blocks of `block` layers, joined by `connection`:

    - `residual`: `V' = (V + block(V)) / 2`
    - `dense`: a block starts from a learned average of what all blocks before it gave
    - `highway`: `V' = t * block(V) + (1 - t) * V`, with a gate `t` for every state: the sigmoid of a 1 x 1 convolution
      of the rewards of its actions
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
        self.__dict__["block"] = block  # before the depth is checked against it
        super().__init__(mechanism, depth, config, generator=generator)
        self.connection = connection
        if connection == "dense":
            self.mixture = nn.Parameter(torch.empty(depth // block, depth // block))
        elif connection == "highway":
            latent = self.mechanism.orientations * self.config.latent_actions
            self.gate = convolution(latent, self.mechanism.orientations, 1)
        self._reset_connection()

    def layers(self, depth: int | None) -> int:
        depth = super().layers(depth)
        most = self.mixture.shape[0] * self.block if "mixture" in self._parameters else depth
        require(depth <= most, f"depth must be at most {most} with dense connections, got {depth}")
        return depth

    def reset(self, generator: torch.Generator | None = None) -> None:
        super().reset(generator)
        self._reset_connection()

    @torch.no_grad()
    def _reset_connection(self) -> None:
        """At first a block starts close to what the one before it gave, and a gate lets most through the layers."""
        if self.connection == "dense":
            self.mixture.copy_(3.0 * torch.eye(len(self.mixture)))
        elif self.connection == "highway":
            self.gate.weight.zero_()
            self.gate.bias.fill_(2.0)  # type: ignore[union-attr]

    def plan(self, free: Tensor, goal: Sequence[int], *, depth: int | None = None, chunk: int = CHUNK) -> Plan:
        require(chunk >= 1, f"chunk must be at least 1, got {chunk}")
        if self.connection == "dense":  # a block needs all blocks before it: no stops on the way
            return Planner.plan(self, free, goal, depth=depth)
        return super().plan(free, goal, depth=depth, chunk=chunk)

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
        require(initial is None or self.connection != "dense", "initial must be None with dense connections")
        outputs = [latent.bias.new_zeros(latent.shape) if initial is None else initial]
        for _ in range(layers // self.block):
            values = self._enter(outputs)
            through = value_iteration(latent.transition, None, self.block, bias=latent.bias, initial=values)[0]
            outputs.append(self._leave(latent, values, through))
        return torch.stack([outputs[layer // self.block] for layer in kept])

    def _enter(self, outputs: list[Tensor]) -> Tensor:
        """What a block starts from."""
        if self.connection != "dense":
            return outputs[-1]
        count = len(outputs)
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
