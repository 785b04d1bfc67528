"""The target network's values at stored observations: computed when first asked for, forgotten when it changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Index = NDArray[np.int64]


class TargetCache:
    """Q-values `[places, A]` of one fixed network, and which of them are up to date.

    A window of T steps asks for T values, and windows overlap: with a target network that stays for some hundred
    updates most values are asked for again before it changes.
    """

    def __init__(self, places: int, actions: int, device: torch.device) -> None:
        self.values = torch.zeros(places, actions, device=device)
        self.fresh = np.zeros(places, np.bool_)

    def forget(self, places: Index | None = None) -> None:
        """Values of `places`, or of all, are out of date."""
        self.fresh[slice(None) if places is None else places] = False

    def look_up(self, places: Index, needed: NDArray[np.bool_], compute: Callable[[Index], Tensor]) -> Tensor:
        """Values `[..., A]` at `places[...]`; where not `needed`, any numbers.

        `compute` gives the values `[N, A]` at N places, none of them twice.
        """
        wanted = places[needed]
        missing = np.unique(wanted[~self.fresh[wanted]])
        if len(missing):
            self.values[torch.from_numpy(missing)] = compute(missing)
            self.fresh[missing] = True
        return self.values[torch.from_numpy(places)]
