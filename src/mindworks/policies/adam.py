"""Adam on plain tensors whose rows are independent learners: state one can checkpoint, and rows one can leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindworks.errors import require

BLOCK = 1 << 16  # entries per block: four float32 vectors of this length stay inside a second-level cache


class Adam:
    """Kingma and Ba's Adam (arXiv:1412.6980) on one tensor `[S, ...]`, updated in place.

    The same numbers as `torch.optim.Adam`, and S step counters: a row that is not active keeps its parameters, moments
    and counter, which an optimiser over whole tensors cannot do.
    """

    def __init__(
        self, parameter: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        require(lr > 0, f"lr must be positive, got {lr}")
        self.parameter, self.lr, self.betas, self.eps = parameter, lr, betas, eps
        self.mean = torch.zeros_like(parameter)
        self.square = torch.zeros_like(parameter)
        self.count = torch.zeros(parameter.shape[0], dtype=torch.int64)

    @torch.no_grad()
    def step(self, gradient: Tensor, active: np.ndarray | Tensor | None = None) -> None:
        """Descend along `gradient[S, ...]` in the rows where `active[S]` is true (all of them by default)."""
        rows = np.ones(len(self.count), bool) if active is None else np.asarray(active)
        self.count += torch.from_numpy(rows)
        tensors = (self.parameter, gradient.contiguous(), self.mean, self.square)
        if rows.all() and (self.count == self.count[0]).all():
            self._update(int(self.count[0]), *(tensor.view(-1) for tensor in tensors))
            return
        for row in np.flatnonzero(rows):
            self._update(int(self.count[row]), *(tensor[row].view(-1) for tensor in tensors))

    def _update(self, count: int, *tensors: Tensor) -> None:
        beta1, beta2 = self.betas
        correction = (1 - beta2**count) ** 0.5
        rate = self.lr * correction / (1 - beta1**count)
        # block by block, so that the second and later passes over a long vector find it in the cache
        for parameter, gradient, mean, square in zip(*(tensor.split(BLOCK) for tensor in tensors), strict=True):
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            parameter.addcdiv_(mean, square.sqrt().add_(self.eps * correction), value=-rate)

    def state(self) -> dict[str, Any]:
        """Moments and counters; the parameter is its owner's to save."""
        return {"mean": self.mean, "square": self.square, "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.count.copy_(state["count"])
