"""Features of small grids for stable-baselines3's policies."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from mindworks.errors import InputError, require


class GridExtractor(BaseFeaturesExtractor):
    """One convolution of 3 x 3 and one layer, both followed by a ReLU: the network of MinAtar (arXiv:1903.03176).

    Observations are `[C, H, W]`, channels first; C is any number. Take it as
    `policy_kwargs={"features_extractor_class": GridExtractor, "net_arch": []}`. Raises `InputError` for observations
    that are no grid.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int = 128, channels: int = 16, kernel: int = 3
    ) -> None:
        shape = observation_space.shape or ()
        if len(shape) != 3:
            raise InputError(f"observation_space must be a grid [C, H, W], got shape {list(shape)}")
        require(min(shape[1:]) >= kernel, f"observation_space must be at least {kernel} wide, got {list(shape)}")
        super().__init__(observation_space, features_dim)
        inside = channels * (shape[1] - kernel + 1) * (shape[2] - kernel + 1)
        self.convolve = nn.Conv2d(shape[0], channels, kernel)
        self.linear = nn.Linear(inside, features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """Features `[B, features_dim]` of `observations[B, C, H, W]`."""
        hidden = torch.relu_(self.convolve(observations)).flatten(1)  # in place: no copy of the largest array
        return torch.relu_(self.linear(hidden))
