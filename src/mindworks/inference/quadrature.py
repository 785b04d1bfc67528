"""Quadrature over all real numbers: points that lie dense where a function peaks and reach far beyond it.

Along each axis s = center + width sinh(t) with t evenly spaced: the trapezoid rule in t converges exponentially for
smooth integrands that decay, and a peak next to the center is resolved as well as one a thousand widths away.

Shape legend: n points per axis, N = n^d of all, d dimensions, `...` a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from mindworks.errors import require

POINTS = {1: 801, 2: 121, 3: 41}  # per axis
REACH = {1: 1e5, 2: 1e4, 3: 1e3}  # in deviations of q
NARROWEST = 1e-20  # width of a peak, in units of the reach
STAGES = 5  # the points are centred on q first, then on the peak that was found


@dataclass(frozen=True)
class Grid:
    """Points `s[N, ..., (d)]`, the logarithm of the volume of each `[N, ...]`, and which lie at the rim, `[N, ...]`."""

    s: Tensor
    log_volume: Tensor
    rim: Tensor


def adaptive_grid(
    log_integrand: Callable[[Tensor], Tensor], q: Distribution, batch: torch.Size, points: int | None = None
) -> Grid:
    """A grid for the integral of exp(`log_integrand`), one per element of `batch`, first around `q`, then its peak.

    `log_integrand` takes `s[N, ..., (d)]` and returns `[N, ...]`; it is called without gradients.
    """
    event = tuple(q.event_shape)
    dims = event[0] if event else 1
    require(len(event) <= 1 and dims <= 3, f"q must have at most 3 dimensions for quadrature, got shape {list(event)}")
    real = q.support is constraints.real or getattr(q.support, "base_constraint", q.support) is constraints.real
    require(bool(real), f"q must be a distribution over all real numbers for quadrature, got {type(q).__name__}")
    points = POINTS[dims] if points is None else points
    require(points >= 5 and points % 2 == 1, f"points must be odd and at least 5, got {points}")
    with torch.no_grad():
        shape = (*batch, dims)
        center = (q.mean if event else q.mean.unsqueeze(-1)).expand(shape)
        width = (q.stddev if event else q.stddev.unsqueeze(-1)).expand(shape)
        reach = REACH[dims] * width
        index = torch.cartesian_prod(*[torch.arange(points)] * dims).reshape(-1, dims)
        for stage in range(STAGES):
            axes, log_step = _axes(center, width, reach, points)
            s = torch.stack([axes[index[:, k], ..., k] for k in range(dims)], -1)
            if stage < STAGES - 1:
                value = log_integrand(s if event else s.squeeze(-1))
                center, width = _peak(value, axes, reach, index, center, width)
        log_volume = torch.stack([log_step[index[:, k], ..., k] for k in range(dims)], -1).sum(-1)
        rim = ((index == 0) | (index == points - 1)).any(-1)
        rim = rim.reshape(-1, *[1] * len(batch)).expand(log_volume.shape)
    return Grid(s if event else s.squeeze(-1), log_volume, rim)


def _axes(center: Tensor, width: Tensor, reach: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Points along each axis `[n, ..., d]`, and the logarithms of their steps."""
    t = torch.linspace(-1, 1, points, dtype=center.dtype).reshape(-1, *[1] * center.dim())
    span = torch.asinh(reach / width)
    log_step = (width * span * 2 / (points - 1)).log() + torch.cosh(span * t).log()
    return center + width * torch.sinh(span * t), log_step


def _peak(
    value: Tensor, axes: Tensor, reach: Tensor, index: Tensor, center: Tensor, width: Tensor
) -> tuple[Tensor, Tensor]:
    """Center and width `[..., d]` of the highest peak of `value[N, ...]`: of the parabola through it, axis by axis."""
    n, dims = axes.shape[0], axes.shape[-1]
    top = value.argmax(0)
    found, broad = [], []
    for k in range(dims):
        stride = n ** (dims - 1 - k)
        middle = index[top, k].clamp(1, n - 2)
        flat = top + (middle - index[top, k]) * stride
        near = [value.gather(0, (flat + shift * stride).unsqueeze(0)).squeeze(0) for shift in (-1, 0, 1)]
        x = [axes[..., k].gather(0, (middle + shift).unsqueeze(0)).squeeze(0) for shift in (-1, 0, 1)]
        left, right = (near[1] - near[0]) / (x[1] - x[0]), (near[2] - near[1]) / (x[2] - x[1])
        curvature = 2 * (right - left) / (x[2] - x[0])
        sound = (curvature < 0) & curvature.isfinite()
        curvature = torch.where(sound, curvature, -1.0)
        slope = (left * (x[2] - x[1]) + right * (x[1] - x[0])) / (x[2] - x[0])
        vertex = torch.minimum(torch.maximum(x[1] - slope / curvature, x[0]), x[2])
        scale = (-curvature).rsqrt().clamp(reach[..., k] * NARROWEST, reach[..., k] / 10)
        found.append(torch.where(sound, vertex, center[..., k]))
        broad.append(torch.where(sound, scale, width[..., k]))
    return torch.stack(found, -1), torch.stack(broad, -1)
