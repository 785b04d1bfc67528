"""Quasi-Newton minimisation of many small problems at once: BFGS with a backtracking line search, batched.

Shape legend: B problems, P parameters of each. float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mindworks.errors import require

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
HALVINGS = 40
SUFFICIENT = 1e-4  # share of the decrease that the slope promises (Armijo)
FLOOR = 1e-17  # promised decrease, over the value or 1, below which a search ends: float64 could not show it
ROUNDING = 1e-14  # increase of the value, over it or 1, that counts as none


@dataclass(frozen=True)
class Minima:
    """Where each search ended: `x[B, P]`, its `value[B]`, largest derivative `slope[B]`, `steps[B]` taken."""

    x: Tensor
    value: Tensor
    slope: Tensor
    steps: Tensor


def minimise(function: Function, start: Tensor, *, steps: int = 200, tolerance: float = 1e-9) -> Minima:
    """Local minima from `start[B, P]`; parameters should be of order 1, as no first step is longer than 1 in any.

    `function(x[b, P], rows[b])` returns the values `[b]` and gradients `[b, P]` of the problems `rows`. A value of inf
    is a wall that no search crosses; every start must be finite. A search ends where no derivative is larger than
    `tolerance`, or where the value can no longer fall.
    """
    require(steps >= 1, f"steps must be at least 1, got {steps}")
    x, rows = start.clone(), torch.arange(start.shape[0])
    value, gradient = function(x, rows)
    require(bool(value.isfinite().all()), "start must have a finite value in every row")
    inverse = torch.eye(x.shape[1], dtype=x.dtype).repeat(x.shape[0], 1, 1)
    taken = torch.zeros(x.shape[0], dtype=torch.int64)
    rows = rows[gradient.abs().amax(-1) > tolerance]
    for _ in range(steps):
        if not len(rows):
            break
        direction = _downhill(inverse, gradient, rows)
        promised = -(direction * gradient[rows]).sum(-1)
        hopeful = promised > FLOOR * value[rows].abs().clamp_min(1)
        rows, direction = rows[hopeful], direction[hopeful]
        old_x, old_gradient = x[rows].clone(), gradient[rows].clone()
        moved = _line_search(function, x, value, gradient, rows, direction)
        taken[rows[moved]] += 1
        _update(inverse, rows[moved], (x[rows] - old_x)[moved], (gradient[rows] - old_gradient)[moved])
        rows = rows[moved & (gradient[rows].abs().amax(-1) > tolerance)]
    return Minima(x, value, gradient.abs().amax(-1), taken)


def _downhill(inverse: Tensor, gradient: Tensor, rows: Tensor) -> Tensor:
    """Directions `[b, P]` of descent; where the quasi-Newton one is none, the estimate starts anew."""
    slope = gradient[rows]
    direction = -(inverse[rows] @ slope.unsqueeze(-1)).squeeze(-1)
    lost = (direction * slope).sum(-1) >= 0
    inverse[rows[lost]] = torch.eye(slope.shape[1], dtype=slope.dtype)
    direction = torch.where(lost.unsqueeze(-1), -slope, direction)
    return direction / direction.abs().amax(-1, keepdim=True).clamp_min(1)


def _line_search(
    function: Function, x: Tensor, value: Tensor, gradient: Tensor, rows: Tensor, direction: Tensor
) -> Tensor:
    """Move `x`, `value` and `gradient` at `rows` in place; which rows moved, `[b]`."""
    promised = (direction * gradient[rows]).sum(-1)
    size, waiting = torch.ones_like(promised), torch.arange(len(rows))
    moved = torch.zeros(len(rows), dtype=torch.bool)
    start = x[rows].clone()
    for _ in range(HALVINGS):
        at = rows[waiting]
        trial = start[waiting] + size[waiting].unsqueeze(-1) * direction[waiting]
        new_value, new_gradient = function(trial, at)
        slack = SUFFICIENT * size[waiting] * promised[waiting] + ROUNDING * value[at].abs().clamp_min(1)
        good = (new_value <= value[at] + slack) & (trial != start[waiting]).any(-1)
        x[at[good]], value[at[good]], gradient[at[good]] = trial[good], new_value[good], new_gradient[good]
        moved[waiting[good]] = True
        waiting = waiting[~good]
        if not len(waiting):
            break
        size[waiting] /= 2
    return moved


def _update(inverse: Tensor, rows: Tensor, step: Tensor, change: Tensor) -> None:
    """The BFGS estimate of the inverse Hessian at `rows`, in place, where the curvature along the step is positive."""
    curvature = (step * change).sum(-1)
    sound = curvature > 1e-12 * step.norm(dim=-1) * change.norm(dim=-1)
    rows, step, change, curvature = rows[sound], step[sound], change[sound], curvature[sound]
    outer = step.unsqueeze(-1) * change.unsqueeze(-2) / curvature[:, None, None]
    keep = torch.eye(step.shape[-1], dtype=step.dtype) - outer
    inverse[rows] = keep @ inverse[rows] @ keep.mT + step.unsqueeze(-1) * step.unsqueeze(-2) / curvature[:, None, None]
