"""How far eUDRL can be from optimal near a deterministic kernel: lower bounds, proved in the docstrings.

The question and the shape of the bounds are those of Štrupl et al., "On the Convergence and Stability of Upside-Down
Reinforcement Learning, Goal-Conditioned Supervised Learning, and Online Decision Transformers", 2025,
arXiv:2502.05672. The constants are derived here, and docs/papers/udrl.md compares them.

Throughout, kernels `lambda` are within `delta` of a deterministic kernel: the largest L1 distance of two rows. So a
step goes elsewhere than the deterministic one with probability delta/2 at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mindworks.errors import require
from mindworks.tabular.command_extension import CommandExtension


def kernel_distance(kernel: Tensor, other: Tensor) -> Tensor:
    """Largest L1 distance `[...]` of two rows of `[..., S, A, S']`: delta, between 0 and 2."""
    return (kernel - other).abs().sum(-1).amax((-2, -1))


def critical_states(ce: CommandExtension) -> Tensor:
    """Mask `[..., S, N, G]` of the states that a uniform policy visits and from which the goal can be reached.

    `ce` must have a deterministic kernel. Optimal actions lead from critical states to critical states.
    """
    kernel = ce.transition
    require(bool(((kernel == 0) | (kernel == 1)).all()), "ce must have a deterministic kernel, got other probabilities")
    return (ce.visits(ce.uniform_policy()) > 0) & (ce.optimum().value == 1)


def optimal_mass(ce: CommandExtension, policy: Tensor) -> Tensor:
    """Smallest probability `[...]` that `policy` gives to the optimal actions of a critical state of `ce`."""
    optimal = (policy * ce.optimum().actions).sum(-1)
    return torch.where(critical_states(ce), optimal, 1.0).amin((-3, -2, -1))


@dataclass(frozen=True)
class StabilityBound:
    """Lower bounds on what eUDRL tends to: `mass[..., N]` of `optimal_mass` by steps left, `objective[...]` of J."""

    mass: Tensor
    objective: Tensor


def stability_bound(ce: CommandExtension, delta: float | Tensor, epsilon: float = 0.0) -> StabilityBound:
    """Bounds for kernels within `delta[...]` of that of `ce`, which is deterministic, for any family of segments.

    They hold for the lower limit over iterations from any policy without zeros; with `epsilon` > 0 from any policy.

    Let O be the optimal actions of a critical state (s, h, g) and x the probability of O. To reach g in h steps after
    another action, the kernel must depart from the deterministic one: probability e_h = 1 - (1 - delta/2)^h at most.
    After an optimal action g is reached with probability q_h = (1 - delta/2) x_{h-1} q_{h-1} at least, where x_{h-1}
    bounds x one step later. Visits of (s, h, g) are at least v, those of levels from h up at most t_h together. So

        x' >= (1 - epsilon) x / (x + c) + epsilon |O| / A,    c = e_h t_h / (q_h v),

    and the right side, increasing in x, has one attracting fixed point: x_h. For epsilon = 0 it is max(1 - c, 0), with
    v the probability of starting in (s, h, g); otherwise v are the visits of a policy of epsilon/A everywhere.
    """
    require(0 <= epsilon < 1, f"epsilon must be in [0, 1), got {epsilon}")
    delta = _distances(delta)
    keep = (1 - delta / 2)[..., None, None]
    critical, optimum = critical_states(ce), ce.optimum()
    share = optimum.actions.sum(-1) / ce.actions
    floor = torch.full_like(ce.uniform_policy(), epsilon / ce.actions) * keep[..., None, None]
    visits, departs, late = ce.visits(floor), _departures(delta, ce.horizon), _late_visits(ce)
    mass, worth = [], torch.zeros((), dtype=torch.float64)
    reach = after = torch.ones_like(keep)
    for h in range(ce.horizon):
        reach = keep * after * reach  # q_h
        above = (departs[..., h] * late[..., h])[..., None, None]
        ratio = above / (reach * visits[..., h, :])  # c; 0/0 where nothing departs
        ratio = torch.where(above == 0, 0.0, ratio.nan_to_num(torch.inf, torch.inf))
        x = _fixed_point(ratio, share[..., h, :], epsilon)
        after = torch.where(critical[..., h, :], x, 1.0).amin((-2, -1), keepdim=True)
        mass.append(after[..., 0, 0])
        worth = worth + (ce.start[..., h, :] * critical[..., h, :] * after * reach).sum((-2, -1))
    return StabilityBound(torch.stack(mass, -1), worth)


def _fixed_point(ratio: Tensor, share: Tensor, epsilon: float) -> Tensor:
    """The attracting fixed point of x -> (1 - epsilon) x / (x + ratio) + epsilon share."""
    least = epsilon * share  # also the limit as the ratio grows
    middle = 1 - epsilon + least - ratio
    root = (middle + (middle.square() + 4 * ratio * least).sqrt()) / 2
    return torch.where(ratio.isinf(), least, root).clamp_min(0)


def unique_bound(ce: CommandExtension, delta: float | Tensor) -> tuple[Tensor, Tensor]:
    """(x_l, x_u), `[...]` each, where every critical state of `ce` has one optimal action, for any segments.

    From a policy whose `optimal_mass` is above x_l, its lower limit is at least x_u, wherever episodes start; nan
    where `delta[...]` is too large for a bound.

    Let x be the smallest probability of an optimal action. A critical state (s, h, g) lies on an optimal path from a
    start (s', h', g), so optimal actions reach g through it with probability m ((1 - delta/2) x)^{h'} at least, m the
    smallest positive probability of a start. With e_h and t_h as in `stability_bound`

        x' >= x^N / (x^N + b),    b = max over h of e_h t_h / (m (1 - delta/2)^N),

    whose fixed points solve b = x^{N-1} (1 - x): x_l and x_u, or none.
    """
    critical = critical_states(ce)
    count = torch.where(critical, ce.optimum().actions.sum(-1), 1)
    require(bool((count == 1).all()), f"ce must have one optimal action in critical states, got {int(count.max())}")
    delta, n = _distances(delta), ce.horizon
    least = torch.where(ce.start > 0, ce.start, torch.inf).amin((-3, -2, -1))
    b = (_departures(delta, n) * _late_visits(ce)).amax(-1) / (least * (1 - delta / 2) ** n)
    top = torch.full_like(b, (n - 1) / n)
    exists = b <= top ** (n - 1) * (1 - top)
    ends = (_solve(b, n, top, torch.zeros_like(b)), _solve(b, n, top, torch.ones_like(b)))
    return torch.where(exists, ends[0], torch.nan), torch.where(exists, ends[1], torch.nan)


def _solve(b: Tensor, n: int, above: Tensor, below: Tensor) -> Tensor:
    """The x between `above`, where x^(n - 1) (1 - x) exceeds b, and `below` with equality, by bisection."""
    for _ in range(200):  # float64 is exhausted after 60
        middle = (above + below) / 2
        higher = middle ** (n - 1) * (1 - middle) >= b
        above, below = torch.where(higher, middle, above), torch.where(higher, below, middle)
    return above


def _departures(delta: Tensor, horizon: int) -> Tensor:
    """e_h `[..., N]`: 1 - (1 - delta/2)^h without cancellation."""
    return -torch.expm1(torch.arange(1, horizon + 1) * torch.log1p(-delta / 2).unsqueeze(-1))


def _late_visits(ce: CommandExtension) -> Tensor:
    """t_h `[..., N]`: how many levels from h up an episode meets on average, the sum of P(H >= h') over h' >= h."""
    return ce.start.sum((-3, -1)).flip(-1).cumsum(-1).cumsum(-1).flip(-1)


def _distances(delta: float | Tensor) -> Tensor:
    distance = torch.as_tensor(delta, dtype=torch.float64)
    require(bool(((distance >= 0) & (distance <= 2)).all()), f"delta must be in [0, 2], got {distance.tolist()}")
    return distance
