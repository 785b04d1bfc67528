"""Jensen gaps of log-partition functions, evaluated without cancellation: what Rényi divergences are made of.

For two members of an exponential family with log-partition F, natural parameters p and q, and m = α p + (1 - α) q,

    D_α(p || q) = [F(m) - α F(p) - (1 - α) F(q)] / (α - 1),

the Jensen gap of F. As written it loses all digits near α = 1 and near p = q. The functions here evaluate it for
F = -log and F = log Γ by first divided differences; where those are 0 / 0, by five Gauss-Legendre nodes for the
integral of the derivative over the same short interval (relative error 2e-16 at the radius `_NEAR`).
Source of the closed forms: Nielsen and Nock, "On Rényi and Tsallis entropies and divergences for exponential
families", 2011. Everything is elementwise; `inf` where the mixed parameter leaves the domain, with zero gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torch.autograd import Function

from mindworks.errors import require

_NEAR = 0.1
_NODES, _WEIGHTS = ((leggauss(5)[0] + 1) / 2).tolist(), (leggauss(5)[1] / 2).tolist()


def order(alpha: float | Tensor, like: Tensor) -> Tensor:
    """`alpha` as a tensor of the dtype and device of `like`; refuses what is negative or not a number."""
    tensor = torch.as_tensor(alpha, dtype=like.dtype, device=like.device)
    bad = ~(tensor.detach() >= 0)
    if bool(bad.any()):
        require(False, f"alpha must be at least 0, got {tensor.detach()[bad].flatten()[0].item()}")
    return tensor


def at_infinity(alpha: Tensor, finite: Callable[[Tensor], Tensor], supremum: Callable[[], Tensor]) -> Tensor:
    """`finite(alpha)`, with `supremum()` in its place where alpha is infinite; neither is evaluated for nothing."""
    infinite = torch.isinf(alpha)
    if not bool(infinite.any()):
        return finite(alpha)
    if bool(infinite.all()):
        return supremum() + torch.zeros_like(alpha)
    return torch.where(infinite, supremum(), finite(torch.where(infinite, 1.0, alpha)))


def total(each: Tensor, dims: int) -> Tensor:
    """The sum over the last `dims` dimensions; where it is infinite no gradient reaches any of the terms."""
    if dims == 0:
        return each
    flat = each.flatten(-dims)
    infinite = torch.isinf(flat).any(-1)
    return torch.where(infinite, math.inf, torch.where(infinite.unsqueeze(-1), 0.0, flat).sum(-1))


def at_least_zero(x: Tensor) -> Tensor:
    """`x` without the rounding errors below 0, its derivatives untouched."""
    return x - x.detach().clamp_max(0)


def skew(alpha: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where to swap p and q, the factor then due, and the order and 1 minus the order to go on with, at least 1/2.

    D_α(p || q) = α / (1 - α) D_{1-α}(q || p): the swapped side keeps relative precision down to α = 0.
    """
    swap, rest = alpha < 0.5, 1 - alpha
    factor = torch.where(swap, alpha / torch.where(swap, rest, 1.0), 1.0)
    return swap, factor, torch.where(swap, rest, alpha), torch.where(swap, alpha, rest)


def clamp_exponent(x: Tensor) -> Tensor:
    """`x` cut to where exp(x) and exp(-x) neither overflow nor underflow, with room for a product."""
    cap = 0.9 * math.log(torch.finfo(x.dtype).max)
    return x.clamp(-cap, cap)


def integral(integrand: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The integral of `integrand` over [0, 1] by five nodes, which come in front of the dimensions of `like`."""
    shape = (len(_NODES),) + (1,) * like.ndim
    nodes, weights = (torch.tensor(x, dtype=like.dtype, device=like.device).view(shape) for x in (_NODES, _WEIGHTS))
    return (weights * integrand(nodes)).sum(0)


def log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """log(a / b) of positive numbers, to relative precision also where they are close."""
    step = (a - b) / b
    near = step.abs() < 0.5
    return torch.where(near, torch.where(near, step, 0.0).log1p(), a.log() - b.log())


def log_gap(log_ratio: Tensor, alpha: Tensor) -> Tensor:
    """Jensen gap of F = -log between a and b from log(b / a): the Rényi divergence of exponentials of rates a and b.

    With y = b / a - 1 it is log(1 + (1 - α) y) / (1 - α) - log(1 + y) >= 0, and `inf` where 1 + (1 - α) y <= 0.
    """
    return _LogGap.apply(*torch.broadcast_tensors(log_ratio, alpha))


class _Closed(Function):
    """A function `[...]` with closed-form derivatives: `slope(which, *inputs, output)` has the shape of that input.

    The slopes are differentiable themselves, so second derivatives and torch.func transforms work. Where the output is
    infinite the gradient is 0 whatever comes in: what follows an infinite value cannot turn it into 0 * inf.
    """

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @classmethod
    def product(cls, ctx: Any, which: int, other: Tensor) -> Tensor:
        """The slope in one input times `other`, `[...]` or of the shape of that input."""
        slope, infinite = cls.slope(which, *ctx.saved_tensors), torch.isinf(ctx.saved_tensors[-1])
        other, infinite = (x.reshape(x.shape + (1,) * (slope.ndim - x.ndim)) for x in (other, infinite))
        return torch.where(infinite, 0.0, slope * other)

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        needed = enumerate(ctx.needs_input_grad)
        return tuple(cls.product(ctx, which, grad) if needs else None for which, needs in needed)

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Tensor | None) -> Any:
        moved = [cls.product(ctx, which, x) for which, x in enumerate(tangents) if x is not None]
        ndim = ctx.saved_tensors[-1].ndim
        return sum(x.flatten(ndim).sum(-1) if x.ndim > ndim else x for x in moved)

    @staticmethod
    def slope(which: int, *saved: Tensor) -> Tensor:
        raise TypeError(f"no slope in input {which} of {len(saved) - 1}")


class _LogGap(_Closed):
    """`log_gap` with the slopes α y / (1 + z) and y² (log(1 + z) - z / (1 + z)) / z², z = (1 - α) y."""

    @staticmethod
    def forward(log_ratio: Tensor, alpha: Tensor) -> Tensor:
        swap, factor, alpha, rest = skew(alpha)
        log_ratio = torch.where(swap, -log_ratio, log_ratio)
        cut = clamp_exponent(log_ratio)
        y = cut.expm1()
        z = rest * y
        infinite = (z <= -1) | ((z.abs() < _NEAR) & (log_ratio > cut))
        close = torch.maximum(y.abs(), z.abs()) < _NEAR
        y_close, z_close = (torch.where(close, x, 0.0) for x in (y, z))
        closest = alpha * y.square() * integral(lambda s: s / ((1 + z_close * s) * (1 + y_close * s)), y)
        beyond = (log_ratio - cut).clamp_min(0)
        mean = torch.where(rest == 0, y, (z.log1p() + beyond) / torch.where(rest == 0, 1.0, rest))
        value = factor * torch.where(close, closest, mean - log_ratio)
        return torch.where(infinite & (factor > 0), math.inf, value)

    @staticmethod
    def slope(which: int, *saved: Tensor) -> Tensor:
        log_ratio, alpha, value = saved
        cut = clamp_exponent(log_ratio)
        y, mixed = cut.expm1(), alpha + (1 - alpha) * cut.exp()
        finite = ~torch.isinf(value)
        mixed = torch.where(finite, mixed, 1.0)
        if which == 0:
            return torch.where(finite, alpha * y / mixed, 0.0)
        z = torch.where(finite, (1 - alpha) * y, 0.0)
        near = z.abs() < _NEAR
        z_near = torch.where(near, z, 0.0)
        nearby = y.square() * integral(lambda s: s / (1 + z_near * s).square(), z)
        apart = (torch.where(near, 1.0, mixed).log() - z / mixed) / torch.where(near, 1.0, 1 - alpha).square()
        return torch.where(finite, torch.where(near, nearby, apart), 0.0)


def log_det_gap(root: Tensor, alpha: Tensor) -> Tensor:
    """The sum of `log_gap` over the logarithms of the eigenvalues of R R^T, for R = `root[..., D, D]`; `alpha[...]`."""
    batch = torch.broadcast_shapes(root.shape[:-2], alpha.shape)
    return _LogDetGap.apply(root.expand(*batch, *root.shape[-2:]), alpha.expand(batch))


class _LogDetGap(_Closed):
    """`log_det_gap` with the slope 2 α (α I + (1 - α) R R^T)^-1 (R - R^-T), which equal eigenvalues do not upset."""

    @staticmethod
    def forward(root: Tensor, alpha: Tensor) -> Tensor:
        return log_gap(2 * torch.linalg.svdvals(root).log(), alpha.unsqueeze(-1)).sum(-1)

    @staticmethod
    def slope(which: int, *saved: Tensor) -> Tensor:
        root, alpha, value = saved
        if which == 1:
            logs, each = torch.broadcast_tensors(2 * torch.linalg.svdvals(root).log(), alpha.unsqueeze(-1))
            return _LogGap.slope(1, logs, each, log_gap(logs, each).detach()).sum(-1)
        eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
        weight = alpha[..., None, None]
        mixed = torch.where(torch.isinf(value)[..., None, None], eye, weight * eye + (1 - weight) * root @ root.mT)
        return 2 * weight * torch.linalg.solve(mixed, root - torch.linalg.inv(root).mT)


class _Digamma(_Closed):
    """digamma with ζ(2, x) as its slope: that of torch.digamma is off by up to 5e-10 (torch 2.13, 2026-11-23)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.digamma(x)

    @staticmethod
    def slope(which: int, *saved: Tensor) -> Tensor:
        return torch.special.zeta(2.0, saved[0])


def mean_digamma(a: Tensor, step: Tensor) -> Tensor:
    """(log Γ(a + step) - log Γ(a)) / step, smooth through step = 0; `a` and `a + step` must be positive."""
    near = step.abs() < _NEAR * a
    short, long = torch.where(near, step, 0.0), torch.where(near, 1.0, step)
    integrated = integral(lambda s: _Digamma.apply(a + s * short), a)
    return torch.where(near, integrated, ((a + long).lgamma() - a.lgamma()) / long)


def lgamma_gap(a: Tensor, b: Tensor, alpha: Tensor) -> Tensor:
    """Jensen gap of F = log Γ between `a` and `b`; `inf` where α a + (1 - α) b <= 0."""
    swap, factor, alpha, rest = skew(alpha)
    a, b = torch.where(swap, b, a), torch.where(swap, a, b)
    infinite = alpha * a + rest * b <= 0
    step = torch.where(infinite, 0.0, b - a)
    value = factor * step * (mean_digamma(a, step) - mean_digamma(a, rest * step))
    return torch.where(infinite, math.inf, value)


def categorical(logits_p: Tensor, logits_q: Tensor, alpha: Tensor) -> Tensor:
    """D_α `[...]` between softmax(logits_p) and softmax(logits_q), `[..., K]`, for finite `alpha[...]`."""
    logits_p, logits_q, spread = torch.broadcast_tensors(logits_p, logits_q, alpha.unsqueeze(-1))
    return _Categorical.apply(logits_p, logits_q, spread[..., 0])


class _Categorical(_Closed):
    """`categorical`, with w ~ p^α q^(1-α), t = α - 1, l = log p / q, δ = l - D and E(z) = (exp(z) - 1) / z.

    Slopes: α (w - p) / t = α p δ E(t δ) in the logits of p, q - w in those of q, and KL(w || p) / t² in α.
    """

    @staticmethod
    def forward(logits_p: Tensor, logits_q: Tensor, alpha: Tensor) -> Tensor:
        log_p, log_q, both, only_p, only_q = _supports(logits_p, logits_q)
        t, each = alpha - 1, alpha.unsqueeze(-1)
        step = torch.where(t == 0, 1.0, t)
        log_sum = torch.where(both, log_p + (each - 1) * (log_p - log_q), -math.inf).logsumexp(-1)
        # Σ p^α q^(1-α) = 1 + t S, S a sum of terms >= 0: close to 1 the logarithm of the sum itself loses digits.
        shared = torch.where(both, _categorical_excess(log_p, log_q, each), 0.0)
        lone = torch.where(only_p, each * log_p.exp() / torch.where(each < 1, 1 - each, 1.0), 0.0)
        excess = (shared + lone + torch.where(only_q, log_q.exp(), 0.0)).sum(-1)
        close = torch.where(t == 0, excess, (t * excess).log1p() / step)
        value = torch.where(log_sum.abs() < 0.5, close, log_sum / step)
        return torch.where(~both.any(-1) | (only_p.any(-1) & (alpha >= 1)), math.inf, value)

    @staticmethod
    def slope(which: int, *saved: Tensor) -> Tensor:
        logits_p, logits_q, alpha, value = saved
        log_p, log_q, both, only_p, only_q = _supports(logits_p, logits_q)
        finite = ~torch.isinf(value).unsqueeze(-1)
        both, only_p, only_q = both & finite, only_p & finite, only_q & finite
        alpha, value = alpha.unsqueeze(-1), torch.where(finite, value.unsqueeze(-1), 0.0)
        p, t = log_p.exp(), alpha - 1
        delta = torch.where(both, log_p - log_q - value, 0.0)
        if which == 1:
            return torch.where(both, -_rise(log_q, torch.where(both, alpha * delta + value, 0.0)), only_q * log_q.exp())
        x = t * delta
        near = x.abs() < _NEAR
        x_near, step = torch.where(near, x, 0.0), torch.where(near & ~only_p, 1.0, t)
        if which == 0:
            per_alpha = torch.where(near, p * delta * integral(lambda s: (s * x_near).exp(), p), _rise(log_p, x) / step)
            return alpha * torch.where(both, per_alpha, torch.where(only_p, -p / step, 0.0))
        nearby = p * delta.square() * integral(lambda s: s * (s * x_near).exp(), p)
        apart = (x * (log_p + x).exp() - _rise(log_p, x)) / step.square()
        each = torch.where(both, torch.where(near, nearby, apart), torch.where(only_p, p / step.square(), 0.0))
        return each.sum(-1)


def _supports(logits_p: Tensor, logits_q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities of p and q, 0 in place of -inf, and which outcomes both, only p and only q can have."""
    in_p, in_q = logits_p > -math.inf, logits_q > -math.inf
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    log_p, log_q = torch.where(in_p, log_p, 0.0), torch.where(in_q, log_q, 0.0)
    return log_p, log_q, in_p & in_q, in_p & ~in_q, in_q & ~in_p


def _rise(log_base: Tensor, x: Tensor) -> Tensor:
    """exp(log_base + x) - exp(log_base) without cancellation at small and overflow at large x."""
    small = x.abs() < 1
    direct = (log_base + torch.where(small, 0.0, x)).exp() - log_base.exp()
    return torch.where(small, log_base.exp() * torch.where(small, x, 0.0).expm1(), direct)


def _categorical_excess(log_p: Tensor, log_q: Tensor, alpha: Tensor) -> Tensor:
    """p (e^(t l) - 1) / t + q - p >= 0 for l = log p / q and t = α - 1, elementwise.

    Its sum over outcomes is (Σ p^α q^(1-α) - 1) / t, since the q - p add up to nothing.
    """
    swap, factor, alpha, rest = skew(alpha)
    log_p, log_q = torch.where(swap, log_q, log_p), torch.where(swap, log_p, log_q)
    ratio, p = log_p - log_q, log_p.exp()
    close = torch.maximum(ratio.abs(), (rest * ratio).abs()) < _NEAR
    bent = torch.where(close, ratio, 0.0)
    closest = p * ratio * integral(lambda s: (-s * bent).exp() * (s * alpha * bent).expm1(), p)
    rise = _rise(log_p, -rest * ratio)
    tilted = torch.where(rest == 0, p * ratio, -rise / torch.where(rest == 0, 1.0, rest))
    return factor * torch.where(close, closest, tilted - _rise(log_q, ratio))
