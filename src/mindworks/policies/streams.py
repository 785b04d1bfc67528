"""Random streams, one per seed: what a seed draws does not depend on which other seeds run beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindworks.errors import require


class Streams:
    """S independent pairs of a torch and a numpy generator; every draw has a leading dimension S."""

    def __init__(self, seeds: Sequence[int]) -> None:
        require(len(seeds) >= 1, "seeds must not be empty")
        require(all(seed >= 0 for seed in seeds), f"seeds must not be negative, got {list(seeds)}")
        self.seeds = [int(seed) for seed in seeds]
        children = [np.random.SeedSequence(seed).spawn(2) for seed in self.seeds]
        self.numpy = [np.random.default_rng(child) for child, _ in children]
        self.torch = [
            torch.Generator().manual_seed(int(child.generate_state(1, np.uint64)[0] >> 1)) for _, child in children
        ]

    def __len__(self) -> int:
        return len(self.seeds)

    def draw(self, function: Callable[[torch.Generator], Tensor]) -> Tensor:
        """`function(generator)` of every seed, stacked: `[S, ...]`."""
        return torch.stack([function(generator) for generator in self.torch])

    def integers(self, *shape: int) -> np.ndarray:
        """Non-negative int64 seeds `[S, *shape]` for episodes and perturbations."""
        return np.stack([rng.integers(0, 2**62, size=shape) for rng in self.numpy])

    def fresh(self) -> list[np.random.Generator]:
        """A new numpy generator per seed, for the noise of a rollout: how often that is drawn from depends on how long
        the episodes of the other seeds last, and must not move this stream.
        """
        return [np.random.default_rng(seed) for seed in self.integers().tolist()]

    def state(self) -> dict[str, Any]:
        """Where every generator stands, as plain values and tensors."""
        return {
            "numpy": [rng.bit_generator.state for rng in self.numpy],
            "torch": [generator.get_state() for generator in self.torch],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        for rng, saved in zip(self.numpy, state["numpy"], strict=True):
            rng.bit_generator.state = saved
        for generator, saved in zip(self.torch, state["torch"], strict=True):
            generator.set_state(saved)
