"""Rényi divergences of every order in closed form, batched, differentiable, and infinite exactly where they are.

D_α(p || q) = log ∫ p^α q^(1-α) / (α - 1), in nats: the Kullback-Leibler divergence at α = 1, -log q(p > 0) at α = 0,
log ess sup p / q at α = inf. All results are logarithms; `exponentiated` takes the exponential.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Distribution,
    Exponential,
    Gamma,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
)
from torch.nn.functional import logsigmoid

from mindworks.core._exponential_families import (
    at_infinity,
    at_least_zero,
    categorical,
    clamp_exponent,
    lgamma_gap,
    log_det_gap,
    log_gap,
    log_ratio,
    order,
    total,
)
from mindworks.errors import InputError, require


def renyi_normal(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor, alpha: float | Tensor) -> Tensor:
    """D_α between normals, elementwise `[...]`; `inf` where α var_q + (1 - α) var_p <= 0, with zero gradients there.

    With r = var_p / var_q and u = (mean_p - mean_q) / std_q:
    D = α u² / (2 (α + (1 - α) r)) + [log(α + (1 - α) r) / (1 - α) - log r] / 2   (Gil, Alajaji and Linder, 2013).
    """
    scaled = (mean_p - mean_q) * (-log_std_q).exp()
    return _renyi_normal(scaled.square(), 2 * (log_std_p - log_std_q), alpha)


def _renyi_normal(distance: Tensor, log_spread: Tensor, alpha: float | Tensor) -> Tensor:
    """`renyi_normal` from u² and log r."""

    def finite(alpha: Tensor) -> Tensor:
        gap = log_gap(log_spread, alpha)
        mixed = alpha + (1 - alpha) * clamp_exponent(log_spread).exp()
        infinite = torch.isinf(gap) | (mixed <= 0)
        shift = alpha * distance / torch.where(infinite, 1.0, mixed)
        return torch.where(infinite, math.inf, 0.5 * (shift + gap))

    def supremum() -> Tensor:
        narrower = log_spread < 0
        room = -torch.where(narrower, log_spread, -1.0).expm1()
        peak = 0.5 * (torch.where(narrower, distance, 0.0) / room - log_spread)
        return torch.where(narrower | ((log_spread == 0) & (distance == 0)), peak, math.inf)

    return at_infinity(order(alpha, log_spread + distance), finite, supremum)


def renyi_diagonal_normal(
    mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor, alpha: float | Tensor
) -> Tensor:
    """D_α `[...]` between normals with diagonal covariance over the last dimension `[..., D]`; `alpha[...]`."""
    alpha = order(alpha, mean_p + log_std_p + mean_q + log_std_q)
    return total(renyi_normal(mean_p, log_std_p, mean_q, log_std_q, alpha.unsqueeze(-1)), 1)


def renyi_categorical(log_p: Tensor, log_q: Tensor, alpha: float | Tensor) -> Tensor:
    """D_α `[...]` between the log-probabilities `log_p[..., K]` and `log_q[..., K]`, or logits; `alpha[...]`.

    They are normalised here, and -inf marks an outcome that cannot happen. `inf` where the supports are disjoint, and
    for α >= 1 where q misses an outcome of p.
    """
    require(log_p.shape[-1:] == log_q.shape[-1:], f"log_q must have {log_p.shape[-1]} outcomes, got {log_q.shape[-1]}")

    def supremum() -> Tensor:
        ratio = torch.where(log_p > -math.inf, log_p.log_softmax(-1) - log_q.log_softmax(-1), -math.inf)
        return ratio.amax(-1)

    return at_infinity(order(alpha, log_p + log_q), lambda finite: categorical(log_p, log_q, finite), supremum)


Rule = Callable[[Any, Any, float | Tensor], Tensor]
_RULES: dict[tuple[type, type], Rule] = {}


def register_renyi(type_p: type, type_q: type) -> Callable[[Rule], Rule]:
    """Decorator that makes `rule(p, q, alpha)` the divergence of every `type_p` from every `type_q`, subclasses too.

    `alpha` comes as the caller gave it, a float or a tensor, and is at least 0; the rule answers for 0, 1 and inf.
    A rule of a nearer class goes first, that of p before that of q; a second rule for the same pair replaces the first.
    """
    for name, kind in (("type_p", type_p), ("type_q", type_q)):
        good = isinstance(kind, type) and issubclass(kind, Distribution)
        require(good, f"{name} must be a subclass of torch.distributions.Distribution, got {kind!r}")

    def register(rule: Rule) -> Rule:
        _RULES[type_p, type_q] = rule
        return rule

    return register


def renyi(p: Distribution, q: Distribution, alpha: float | Tensor) -> Tensor:
    """D_α(p || q) in nats for two distributions of one family, differentiable in their parameters and in `alpha`.

    The result has the broadcast shape of `p.batch_shape`, `q.batch_shape` and `alpha`, any order in [0, inf]. It is
    `inf`, with finite gradients, where the integral diverges. Families: the rules of `register_renyi`.
    """
    rule = _rule(p, q)
    require(p.event_shape == q.event_shape, f"q must have events {list(p.event_shape)}, got {list(q.event_shape)}")
    order(alpha, torch.empty((), dtype=torch.float64) if not isinstance(alpha, Tensor) else alpha)
    shapes = [p.batch_shape, q.batch_shape, getattr(alpha, "shape", torch.Size())]
    try:
        torch.broadcast_shapes(*shapes)
    except RuntimeError:
        names = "batch shapes of p and q and shape of alpha"
        require(False, f"{names} must broadcast, got {[list(shape) for shape in shapes]}")
    return rule(p, q, alpha)


def kl(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of p from q, `renyi` of order 1: ∫ p log(p / q), in nats."""
    return renyi(p, q, 1.0)


def exponentiated(p: Distribution, q: Distribution, alpha: float | Tensor) -> Tensor:
    """d_α = exp D_α(p || q); at α = 2 the second moment under q of the importance weight p / q.

    `inf` with zero gradients where D_α is infinite or its exponential exceeds the dtype.
    """
    divergence = renyi(p, q, alpha)
    overflow = divergence > math.log(torch.finfo(divergence.dtype).max)
    return torch.where(overflow, math.inf, torch.where(overflow, 0.0, divergence).exp())


def _rule(p: Distribution, q: Distribution) -> Rule:
    """The rule of the nearest classes of p and q."""
    for kind_p in type(p).__mro__:
        for kind_q in type(q).__mro__:
            if (kind_p, kind_q) in _RULES:
                return _RULES[kind_p, kind_q]
    known = sorted({kind.__name__ for pair in _RULES for kind in pair})
    for name, each in (("p", p), ("q", q)):
        found = any(issubclass(type(each), kind) for pair in _RULES for kind in pair)
        require(found, f"{name} must be of a registered family ({', '.join(known)}), got {type(each).__name__}")
    raise InputError(f"q must be of the family of p, {type(p).__name__}, got {type(q).__name__}")


@register_renyi(Independent, Independent)
def _independent(p: Independent, q: Independent, alpha: float | Tensor) -> Tensor:
    events = p.reinterpreted_batch_ndims
    given = q.reinterpreted_batch_ndims
    require(events == given, f"q must reinterpret {events} batch dimensions, got {given}")
    if isinstance(alpha, Tensor) and alpha.ndim:
        alpha = alpha.reshape(alpha.shape + (1,) * events)
    return total(renyi(p.base_dist, q.base_dist, alpha), events)


@register_renyi(Normal, Normal)
def _normal(p: Normal, q: Normal, alpha: float | Tensor) -> Tensor:
    return _renyi_normal(((p.loc - q.loc) / q.scale).square(), 2 * log_ratio(p.scale, q.scale), alpha)


@register_renyi(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: MultivariateNormal, q: MultivariateNormal, alpha: float | Tensor) -> Tensor:
    """Whitened by q: the covariance of p becomes W W^T, whose spectrum turns determinants into scalar gaps."""
    whitened = torch.linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False)
    shift = torch.linalg.solve_triangular(q.scale_tril, (p.loc - q.loc).unsqueeze(-1), upper=False)
    covariance = whitened @ whitened.mT
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)

    def distance(matrix: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(matrix)
        return torch.linalg.solve_triangular(factor, shift, upper=False).square().sum((-2, -1))

    def finite(alpha: Tensor) -> Tensor:
        gap, weight = log_det_gap(whitened, alpha), alpha[..., None, None]
        mixed = weight * eye + (1 - weight) * covariance
        infinite = torch.isinf(gap) | (torch.linalg.cholesky_ex(mixed.detach()).info > 0)
        value = 0.5 * (alpha * distance(torch.where(infinite[..., None, None], eye, mixed)) + gap)
        return torch.where(infinite, math.inf, value)

    def supremum() -> Tensor:
        # Directions in which p and q agree drop out; only those may have no room between the two covariances.
        room = eye - covariance
        values, vectors = torch.linalg.eigh(room.detach())
        tolerance = 10 * eye.shape[-1] * torch.finfo(room.dtype).eps
        equal = values.abs() <= tolerance
        projected = (vectors.mT @ shift.detach()).squeeze(-1)
        infinite = ((values < -tolerance) | (equal & (projected.abs() > tolerance))).any(-1)
        room = room + (vectors * equal.unsqueeze(-2)) @ vectors.mT
        log_det = whitened.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        value = 0.5 * distance(torch.where(infinite[..., None, None], eye, room)) - log_det
        return torch.where(infinite, math.inf, value)

    return at_infinity(order(alpha, whitened), finite, supremum)


@register_renyi(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical, alpha: float | Tensor) -> Tensor:
    return renyi_categorical(_log_probs(p), _log_probs(q), alpha)


@register_renyi(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical, alpha: float | Tensor) -> Tensor:
    return renyi(p._categorical, q._categorical, alpha)


@register_renyi(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli, alpha: float | Tensor) -> Tensor:
    return renyi_categorical(_log_probs(p), _log_probs(q), alpha)


def _log_probs(p: Categorical | Bernoulli) -> Tensor:
    """Log-probabilities `[..., K]`, -inf where a probability is 0: torch clamps probabilities before the logarithm."""
    binary = isinstance(p, Bernoulli)
    if "probs" not in vars(p):
        return torch.stack([logsigmoid(-p.logits), logsigmoid(p.logits)], -1) if binary else p.logits
    probs = torch.stack([1 - p.probs, p.probs], -1) if binary else p.probs
    if "logits" not in vars(p) or p._param is p.probs:
        zero, log_probs = probs == 0, torch.where(probs > 0, probs, 1.0).log()
    else:
        log_probs = torch.stack([logsigmoid(-p.logits), logsigmoid(p.logits)], -1) if binary else p.logits
        # An expanded copy keeps the clamped logits only; of given logits, a probability rounds to 0 below the clamp.
        zero = (probs == 0) & (log_probs > math.log(torch.finfo(probs.dtype).eps) - 0.5)
    return torch.where(zero, -math.inf, log_probs)


@register_renyi(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential, alpha: float | Tensor) -> Tensor:
    gap = log_ratio(q.rate, p.rate)
    return at_infinity(
        order(alpha, gap),
        lambda finite: log_gap(gap, finite),
        lambda: torch.where(gap <= 0, -gap, math.inf),
    )


@register_renyi(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma, alpha: float | Tensor) -> Tensor:
    """Shapes and rates mix apart; the rates weigh with the shape, which leaves a term in the difference of shapes."""
    dtype = torch.result_type(p.concentration + p.rate, q.concentration + q.rate)
    shape_p, rate_p, shape_q, rate_q = (x.double() for x in (p.concentration, p.rate, q.concentration, q.rate))
    log_rates, more = log_ratio(rate_q, rate_p), shape_p - shape_q

    def finite(alpha: Tensor) -> Tensor:
        shapes, rates = lgamma_gap(shape_p, shape_q, alpha), log_gap(log_rates, alpha)
        mixed = alpha * (-clamp_exponent(log_rates)).expm1()
        infinite = torch.isinf(shapes) | torch.isinf(rates) | (mixed <= -1)
        rates, mixed = torch.where(infinite, 0.0, rates), torch.where(infinite, 0.0, mixed)
        return torch.where(infinite, math.inf, at_least_zero(shapes + shape_p * rates - more * mixed.log1p()))

    def supremum() -> Tensor:
        faster = rate_p - rate_q
        infinite = (more < 0) | (faster < 0) | ((more > 0) & (faster == 0))
        inside = (more > 0) & ~infinite
        mode = torch.where(inside, more, 1.0) / torch.where(inside, faster, 1.0)
        scale = shape_p * rate_p.log() - shape_q * rate_q.log() - shape_p.lgamma() + shape_q.lgamma()
        return torch.where(infinite, math.inf, scale + torch.where(inside, more * (mode.log() - 1), 0.0))

    return at_infinity(order(alpha, log_rates), finite, supremum).to(dtype)


@register_renyi(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet, alpha: float | Tensor) -> Tensor:
    return _renyi_dirichlet(p.concentration, q.concentration, alpha)


@register_renyi(Beta, Beta)
def _beta(p: Beta, q: Beta, alpha: float | Tensor) -> Tensor:
    a = torch.stack([p.concentration1, p.concentration0], -1)
    return _renyi_dirichlet(a, torch.stack([q.concentration1, q.concentration0], -1), alpha)


def _renyi_dirichlet(a: Tensor, b: Tensor, alpha: float | Tensor) -> Tensor:
    """D_α `[...]` between Dirichlet distributions of concentrations `a[..., K]` and `b[..., K]`."""
    dtype, a, b = torch.result_type(a, b), a.double(), b.double()

    def finite(alpha: Tensor) -> Tensor:
        parts = total(lgamma_gap(a, b, alpha.unsqueeze(-1)), 1)
        whole = lgamma_gap(a.sum(-1), b.sum(-1), alpha)
        return torch.where(torch.isinf(parts), math.inf, at_least_zero(parts - whole))

    def supremum() -> Tensor:
        more = a - b
        infinite = (more < 0).any(-1)
        more = torch.where(infinite.unsqueeze(-1), 0.0, more)
        peak = _x_log_x(more).sum(-1) - _x_log_x(more.sum(-1))
        scale = (b.lgamma() - a.lgamma()).sum(-1) + a.sum(-1).lgamma() - b.sum(-1).lgamma()
        return torch.where(infinite, math.inf, peak + scale)

    return at_infinity(order(alpha, a), finite, supremum).to(dtype)


def _x_log_x(x: Tensor) -> Tensor:
    """x log x for x >= 0, 0 with zero gradient at 0."""
    return x * torch.where(x > 0, x, 1.0).log()
