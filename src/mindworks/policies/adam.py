"""Adam on plain tensors whose rows are independent learners: state one can checkpoint, and rows one can leave out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mindworks.errors import require


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
        self.count = torch.zeros(parameter.shape[0], dtype=torch.float64)

    @torch.no_grad()
    def step(self, gradient: Tensor, active: Tensor | None = None) -> None:
        """Descend along `gradient[S, ...]` in the rows where `active[S]` is true (all of them by default)."""
        if active is None or bool(active.all()):
            self._update(self.parameter, gradient, self.mean, self.square, self.count)
        elif bool(active.any()):
            tensors = (self.parameter, self.mean, self.square, self.count)
            parameter, mean, square, count = (tensor[active] for tensor in tensors)
            self._update(parameter, gradient[active], mean, square, count)
            for tensor, rows in zip(tensors, (parameter, mean, square, count), strict=True):
                tensor[active] = rows

    def _update(self, parameter: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, count: Tensor) -> None:
        beta1, beta2 = self.betas
        count += 1
        per_row = (-1, *(1,) * (parameter.ndim - 1))
        bias1, bias2 = ((1 - beta**count).to(parameter.dtype).reshape(per_row) for beta in (beta1, beta2))
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (square / bias2).sqrt_().add_(self.eps).mul_(bias1)
        parameter.addcdiv_(mean, denominator, value=-self.lr)

    def state(self) -> dict[str, Any]:
        """Moments and counters; the parameter is its owner's to save."""
        return {"mean": self.mean, "square": self.square, "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
