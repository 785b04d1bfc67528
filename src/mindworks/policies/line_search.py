"""Climbing a surrogate objective offline: natural gradient steps whose length a line search finds.

Everything is batched over S seeds and G groups of parameters (one group, or one per neuron): each pair has its own
step length and its own end. rho `[S, R]` are the parameters that are climbed, `group[R]` says whose they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

LineSearch = Literal["parabolic", "binary"]
TOLERANCE = 1e-4  # a gain below this, in units of the return, counts as none


class Objective(Protocol):
    """What `climb` needs of a surrogate."""

    group: Tensor

    def value(self, rho: Tensor) -> Tensor:
        """What is climbed, `[S, G]`, for `rho[S, R]`: differentiable, -inf where it is not defined."""
        ...

    def natural(self, rho: Tensor, gradient: Tensor) -> Tensor:
        """The Fisher information's inverse times `gradient[S, R]`."""
        ...


@dataclass
class Climb:
    """The end of a climb: the parameters `[S, R]`, the gain `[S, G]`, and what it took of each seed, `[S]`."""

    rho: Tensor
    gain: Tensor
    steps: Tensor
    evaluations: Tensor


@torch.no_grad()
def climb(
    objective: Objective,
    rho: Tensor,
    *,
    steps: int,
    evaluations: int,
    natural: bool = True,
    search: LineSearch = "parabolic",
) -> Climb:
    """Climb `objective` from `rho[S, R]` until no group of a seed gains any more, at most `steps` times.

    Each step goes along d = F^-1 g (or g) by a length of epsilon / (g . d), so that epsilon is the gain the slope
    promises; `evaluations` bounds the tries of one line search.
    """
    rho, value = rho.clone(), objective.value(rho)
    first, active = value, torch.isfinite(value)
    taken = torch.zeros(len(rho), dtype=torch.int64)
    tried = torch.ones(len(rho), dtype=torch.int64)
    for _ in range(steps):
        gradient = _gradient(objective, rho)
        direction = objective.natural(rho, gradient) if natural else gradient
        slope = _per_group(gradient * direction, objective.group, value.shape[1])
        active = active & (slope > TOLERANCE**2) & torch.isfinite(slope)
        if not active.any():
            break
        unit = torch.where(active, 1 / torch.where(active, slope, 1.0), 0.0)[:, objective.group] * direction
        unit = torch.where(active[:, objective.group], unit, 0.0)
        epsilon, gain, used = SEARCHES[search](_gain(objective, rho, unit, value), active, evaluations)
        active = active & (gain > TOLERANCE)
        rho = rho + torch.where(active, epsilon, 0.0)[:, objective.group] * unit
        value = objective.value(rho)
        taken += active.any(1)
        tried += used
    return Climb(rho, value - first, taken, tried)


def _gradient(objective: Objective, rho: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = rho.detach().requires_grad_()
        value = objective.value(leaf)
        (gradient,) = torch.autograd.grad(value[torch.isfinite(value)].sum(), leaf)
    return gradient


def _per_group(terms: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sums `[S, G]` of `terms[S, R]` over each group's parameters."""
    return torch.zeros(len(terms), groups, dtype=terms.dtype).index_add_(1, group, terms)


def _gain(objective: Objective, rho: Tensor, unit: Tensor, value: Tensor) -> Callable[[Tensor], Tensor]:
    def gain(epsilon: Tensor) -> Tensor:
        gained = objective.value(rho + epsilon[:, objective.group] * unit) - value
        return torch.where(torch.isfinite(gained), gained, -torch.inf)

    return gain


Rule = Callable[[Callable[[Tensor], Tensor], Tensor, int], tuple[Tensor, Tensor, Tensor]]


def parabolic(gain: Callable[[Tensor], Tensor], active: Tensor, evaluations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths and gains `[S, G]` of the best tries, and tries `[S]`: the vertex of a parabola of slope 1, or twice.

    A try that gains more than 3/4 of what the slope promises is doubled; after any other comes the vertex of the
    parabola through it, epsilon^2 / (2 (epsilon - gain)), and after one that is not defined a quarter of it. The search
    ends when a try gains less than the one before it. As in the authors' code, but for the quarter, and for a floor: a
    disastrous try, whose vertex is next to nothing, is followed by a hundredth of it.
    """
    epsilon, best, top = torch.ones_like(active, dtype=torch.float64), *_start(active)
    searching, used = active.clone(), torch.zeros(len(active), dtype=torch.int64)
    for _ in range(evaluations):
        used += searching.any(1)
        gained = gain(torch.where(searching, epsilon, best))
        defined = gained > -torch.inf
        better = searching & defined & (gained > top + TOLERANCE)
        best, top = torch.where(better, epsilon, best), torch.where(better, gained, top)
        searching = better | (searching & ~defined & (top == -torch.inf))
        if not searching.any():
            break
        vertex = torch.maximum(epsilon.square() / (2 * (epsilon - gained)), epsilon / 100)
        further = torch.where(gained > 0.75 * epsilon, 2 * epsilon, vertex)
        epsilon = torch.where(searching, torch.where(defined, further, epsilon / 4), epsilon)
    return torch.where(top > 0, best, 0.0), top.clamp_min(0.0), used


def binary(gain: Callable[[Tensor], Tensor], active: Tensor, evaluations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths and gains `[S, G]` of the best tries, and tries `[S]`: doubled while the gain grows, then halved in."""
    epsilon, best, top = torch.ones_like(active, dtype=torch.float64), *_start(active)
    top = torch.where(active, 0.0, top)
    low, high = torch.zeros_like(epsilon), torch.full_like(epsilon, torch.inf)
    searching, used = active.clone(), torch.zeros(len(active), dtype=torch.int64)
    for _ in range(evaluations):
        used += searching.any(1)
        gained = gain(torch.where(searching, epsilon, best))
        better = searching & (gained > top)
        best, top = torch.where(better, epsilon, best), torch.where(better, gained, top)
        low, high = torch.where(better, epsilon, low), torch.where(searching & ~better, epsilon, high)
        searching = searching & (high - low > 1e-6 * high.clamp_max(1e300))
        if not searching.any():
            break
        epsilon = torch.where(searching, torch.where(high < torch.inf, (low + high) / 2, 2 * epsilon), epsilon)
    return best, top.clamp_min(0.0), used


def _start(active: Tensor) -> tuple[Tensor, Tensor]:
    """Length 0 and the gain that any defined try beats."""
    zero = torch.zeros_like(active, dtype=torch.float64)
    return zero, zero - torch.inf


SEARCHES: dict[str, Rule] = {"parabolic": parabolic, "binary": binary}
