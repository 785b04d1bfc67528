"""Gated path planning networks: the layers are steps of an LSTM in every cell.

Lee, Parisotto, Chaplot, Xing and Salakhutdinov, "Gated Path Planning Networks", ICML 2018, arXiv:1806.06408.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mindworks.errors import require, require_at_least
from mindworks.planning.mechanisms import Mechanism
from mindworks.planning.planner import Planner, convolution, draw


@dataclass(frozen=True)
class GPPNConfig:
    """Sizes of a GPPN."""

    hidden: int = 150
    """size of the state of every cell"""
    window: int = 11
    """height and width of the convolution that gathers the states around a cell"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden")
        require(self.window >= 1 and self.window % 2 == 1, f"window must be odd and at least 1, got {self.window}")


class GPPN(Planner):
    """`h, c = LSTM(conv(h), (h, c))` in every cell, and logits from the last `h` by a 1 x 1 convolution.

    The published code takes `depth - 1` steps where its option says `depth`; so does this, so that a depth means the
    same. The states before the first step count as layer 1.
    """

    def __init__(
        self,
        mechanism: str | Mechanism = "news",
        depth: int = 20,
        config: GPPNConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(mechanism, depth)
        self.config = config = GPPNConfig() if config is None else config
        orientations, actions, hidden = self.mechanism.orientations, self.mechanism.actions, config.hidden
        self.hidden = convolution(1 + orientations, hidden, 3)
        self.start = convolution(hidden, hidden, 3)
        self.memory = convolution(hidden, hidden, 3)
        self.gather = convolution(hidden, 1, config.window)
        self.cell = nn.utils.skip_init(nn.LSTMCell, 1, hidden)
        self.policy = convolution(hidden, orientations * actions, 1, bias=False)
        self.reset(generator)

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew."""
        draw([self.hidden, self.start, self.memory, self.gather, self.policy], generator)
        bound = self.config.hidden**-0.5
        for parameter in self.cell.parameters():
            parameter.uniform_(-bound, bound, generator=generator)

    def logits(
        self,
        inputs: Tensor,
        *,
        depth: int | None = None,
        keep: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        self.check_inputs(inputs)
        layers = self.layers(depth)
        kept = self.kept(keep, layers)
        batch, _, height, width = inputs.shape
        features = self.hidden(inputs)
        state, memory = (self._cells(part(features)) for part in (self.start, self.memory))
        found = {1: state}
        for layer in range(2, layers + 1):
            around = self.gather(state.view(batch, height, width, -1).permute(0, 3, 1, 2))
            state, memory = self.cell(self._cells(around), (state, memory))
            found[layer] = state
            found = {step: value for step, value in found.items() if step in kept or step == layer}
        states = torch.stack([found[layer] for layer in kept]).view(len(kept) * batch, height, width, -1)
        out = self.policy(states.permute(0, 3, 1, 2))
        shape = (self.mechanism.orientations, self.mechanism.actions)
        return out.unflatten(0, (len(kept), batch)).unflatten(2, shape).transpose(2, 3)

    @staticmethod
    def _cells(maps: Tensor) -> Tensor:
        """`[B * H * W, channels]` from `[B, channels, H, W]`."""
        return maps.permute(0, 2, 3, 1).flatten(0, 2)
