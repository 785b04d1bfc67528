"""Draws from the rows of a table of probabilities, many at a time."""

from __future__ import annotations

import torch
from torch import Tensor


class CategoricalRows:
    """Distributions `[..., R, K]`, ready to be drawn from by row; built once, O(log) per draw.

    All cumulative sums stand in one sorted line, row i of it between i and i + 1, so that one binary search finds row
    and entry. An entry of probability 0 is never drawn.
    """

    def __init__(self, probability: Tensor) -> None:
        rows, self._entries = probability.shape[-2:]
        leading = probability.shape[:-2]
        self._first = rows * torch.arange(leading.numel(), device=probability.device).reshape(*leading, 1)
        sums = probability.detach().double().cumsum(-1)
        sums = (sums / sums[..., -1:]).reshape(-1, self._entries)
        self._line = (sums + torch.arange(len(sums), device=sums.device).unsqueeze(-1)).flatten()

    def draw(self, row: Tensor, uniform: Tensor) -> Tensor:
        """Entries `[..., N]` of the rows `row[..., N]`, given `uniform[..., N]` in [0, 1)."""
        row = row + self._first
        end = (row + 1).to(self._line.dtype)
        point = (row + uniform).minimum(torch.nextafter(end, torch.zeros_like(end)))  # the sum may round up to the end
        return torch.searchsorted(self._line, point, right=True) - row * self._entries
