"""The variational Rényi bound of every order, by quadrature or Monte Carlo, exact at alpha = 1 and smooth around it.

L_alpha = log E_q[(p(s, o) / q(s))^(1 - alpha)] / (1 - alpha) = log p(o) - D_alpha(q || p(s | o)). It falls with alpha:
log p(o) at 0, the evidence lower bound at 1, the worst log ratio at infinity; below 0 it is an upper bound. Li and
Turner, "Rényi Divergence Variational Inference", 2016, arXiv:1602.02311; Sajid et al., arXiv:2107.05438.

Shape legend: n points or samples, d dimensions of s, `...` any leading dimensions. float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from mindworks.errors import require
from mindworks.inference.quadrature import Grid, adaptive_grid
from mindworks.inference.sampling import draw

LogJoint = Callable[[Tensor], Tensor]
SMALL = 1e-2  # |order| below which a logarithm over the order would lose digits
SHARPEST = 1e12  # the order that stands for an infinite one where points are placed
ROUNDING = 1e-13  # relative error of a log density at the rim; where q = p the ratio is nothing else
OVERFLOW = 500.0  # exponents above go through logsumexp; exp(709) is the largest float64
NEAR_ONE = 1e-3  # |1 - alpha| below which a difference of weights over 1 - alpha would lose digits


def exponential_mean(value: Tensor, log_weight: Tensor, order: float | Tensor) -> Tensor:
    """log(sum_i w_i exp(order x_i)) / order over the last dimension of `value[..., n]`; `order[...]` of any sign.

    `log_weight[..., n]` are logarithms of weights that sum to 1. At order 0 it is the mean, at +-inf the largest or
    smallest value of a point with weight. A value may be -inf; then the result is -inf for every order <= 0.
    For a small order, with m the mean, it is m + log(1 + sum_i w_i expm1(order (x_i - m))) / order: by Jensen the sum
    is never negative, so nothing cancels as order -> 0. The weights are then normalised, against the errors of a sum.
    """
    value, log_weight = torch.broadcast_tensors(value, log_weight)
    order = torch.as_tensor(order, dtype=value.dtype)
    live = log_weight > -math.inf
    lost = (live & (value == -math.inf)).any(-1)
    kept = live & (value > -math.inf)
    value, log_weight = torch.where(kept, value, 0.0), torch.where(kept, log_weight, -math.inf)
    some = kept.any(-1)
    normalised = log_weight - torch.where(some.unsqueeze(-1), log_weight, 0.0).logsumexp(-1, keepdim=True)
    weight = torch.where(kept, normalised, -math.inf).exp()
    mean = (weight * value).sum(-1)
    power = torch.where(order.isfinite(), order, 0.0).unsqueeze(-1)
    x = power * (value - mean.unsqueeze(-1))
    near = (order.abs() < SMALL) & ~lost & ((normalised + x).amax(-1) < OVERFLOW)
    divisor = torch.where(power == 0, 1.0, power).squeeze(-1)
    close = mean + _log_mean_exp(torch.where(near.unsqueeze(-1), x, 0.0), normalised, weight) / divisor
    exponent = log_weight + power * value
    far = torch.where((near | ~some).unsqueeze(-1), 0.0, exponent).logsumexp(-1) / divisor
    largest = torch.where(kept, value, -math.inf).amax(-1)
    smallest = torch.where(kept, value, math.inf).amin(-1)
    result = torch.where(order == math.inf, largest, torch.where(order == -math.inf, smallest, far))
    result = torch.where(near, close, result)
    return torch.where(some & ~(lost & (order <= 0)), result, -math.inf)


def _log_mean_exp(x: Tensor, log_weight: Tensor, weight: Tensor) -> Tensor:
    """log sum w exp(x) for values x of mean 0."""
    small = x.abs() < 1
    excess = torch.where(
        small,
        weight * torch.expm1(torch.where(small, x, 0.0)),
        (log_weight + torch.where(small, 0.0, x)).exp() - weight,
    )
    return torch.log1p(excess.sum(-1).clamp_min(0))


def tilt(log_weight: Tensor, log_ratio: Tensor, order: Tensor) -> Tensor:
    """Numbers t `[..., n]` with sum 0 that make the gradient of L_alpha / alpha: sum_i t_i grad log q(s_i).

    t = w (r / sum w r - 1) / order with r = exp(order log p/q) and order = 1 - alpha, `[...]`. As alpha -> 0 this is
    the gradient of -KL(p || q), and as alpha -> 1 that of the evidence lower bound: neither vanishes nor divides by 0.
    """
    order, weight = order.unsqueeze(-1), log_weight.exp()
    near = order.abs() < NEAR_ONE
    far = (torch.softmax(log_weight + order * log_ratio, -1) - weight) / torch.where(near, 1.0, order)
    seen = near & (weight > 0)
    centered = torch.where(seen, log_ratio - (weight * torch.where(seen, log_ratio, 0.0)).sum(-1, keepdim=True), 0.0)
    x = order * centered
    slope = centered * torch.where(x == 0, 1.0, torch.expm1(x) / torch.where(x == 0, 1.0, x))
    excess = (weight * slope).sum(-1, keepdim=True)
    return torch.where(near, weight * (slope - excess) / (1 + order * excess), far)


@dataclass(frozen=True)
class RenyiBound:
    """L_alpha of a log joint and a q: `RenyiBound(0.5)(log_joint, q)`; alpha is a number or a tensor of any shape.

    Where the divergence is infinite the bound is -inf (+inf where alpha < 0), never NaN: see `__call__`.
    """

    alpha: float | Tensor

    def __post_init__(self) -> None:
        alpha = torch.as_tensor(self.alpha, dtype=torch.float64)
        require(not bool(alpha.isnan().any()), f"alpha must be numbers, got {self.alpha}")
        object.__setattr__(self, "alpha", alpha)

    @property
    def order(self) -> Tensor:
        """1 - alpha, the power of the ratio."""
        return 1 - torch.as_tensor(self.alpha)

    def of(self, log_ratio: Tensor, log_weight: Tensor | None = None) -> Tensor:
        """L_alpha `[...]` of log ratios p(s, o) / q(s), `[..., n]`: of n draws of q, or of points with log weights.

        From draws it is an estimate, consistent but biased: too low for alpha < 1, too high for alpha > 1, and the
        more so the fewer they are. alpha = 0 and n draws is the bound of importance-weighted autoencoders.
        """
        require(log_ratio.shape[-1] >= 1, f"log_ratio must be [..., n] with n >= 1, got {list(log_ratio.shape)}")
        good = ~log_ratio.isnan() & (log_ratio < math.inf)
        require(bool(good.all()), "log_ratio must be finite or -inf, got nan or inf")
        if log_weight is None:
            log_weight = torch.full_like(log_ratio, -math.log(log_ratio.shape[-1]))
        return exponential_mean(log_ratio, log_weight, self.order)

    def __call__(
        self,
        log_joint: LogJoint,
        q: Distribution,
        *,
        samples: int | None = None,
        generator: torch.Generator | None = None,
        points: int | None = None,
    ) -> Tensor:
        """L_alpha `[...]`, the shape of alpha broadcast against q's batch: by quadrature, or from `samples` draws of q.

        `log_joint` takes `[n, ...]`, or `[n, ..., d]` where q is over vectors, and returns `[n, ...]`: natural
        logarithms, -inf where the density is 0. Quadrature serves up to three dimensions, with `points` per dimension,
        and q over all real numbers. It moves its points to where q^alpha p^(1 - alpha) lies, and calls the divergence
        infinite where that is largest at the rim, 1e5 deviations of q away (1e4 in two dimensions, 1e3 in three).
        """
        if samples is not None:
            require(samples >= 1, f"samples must be at least 1, got {samples}")
            s = draw(q, samples, generator)
            log_q = q.log_prob(s)
            return self.of((_values(log_joint, s, log_q.shape) - log_q).movedim(0, -1))
        order = self.order
        sharp = order.clamp(-SHARPEST, SHARPEST)
        batch = torch.broadcast_shapes(order.shape, q.batch_shape)

        def log_integrand(s: Tensor) -> Tensor:
            log_q = q.log_prob(s)
            log_p = _values(log_joint, s, log_q.shape)
            possible = log_p > -math.inf
            ratio = torch.where(possible, log_p, log_q) - log_q
            return torch.where(possible, log_q + sharp * ratio, -math.inf)

        grid = adaptive_grid(log_integrand, q, batch, points)
        log_q = q.log_prob(grid.s)
        log_ratio, log_weight = _values(log_joint, grid.s, log_q.shape) - log_q, log_q + grid.log_volume
        value = self.of(log_ratio.movedim(0, -1), log_weight.movedim(0, -1))
        with torch.no_grad():
            rounding = ROUNDING * log_q.abs().amax(0) * sharp.abs().clamp_min(1)
            endless = _rises_to_the_rim(log_integrand(grid.s), grid, rounding)
        return torch.where(endless & (order != 0), order.sign() * math.inf, value)


def _rises_to_the_rim(value: Tensor, grid: Grid, rounding: Tensor) -> Tensor:
    inside = torch.where(grid.rim, -math.inf, value).amax(0)
    return torch.where(grid.rim, value, -math.inf).amax(0) > inside + rounding


def _values(log_joint: LogJoint, s: Tensor, shape: torch.Size) -> Tensor:
    value = log_joint(s)
    require(value.shape == shape, f"log_joint must return {list(shape)} for s {list(s.shape)}, got {list(value.shape)}")
    good = ~value.isnan() & (value < math.inf)
    require(bool(good.all()), "log_joint must be finite or -inf at every point, got nan or inf")
    return value
