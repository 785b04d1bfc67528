"""The q of a family that is closest to a density by Rényi divergence, from many starts and for many alphas at once.

Minimised is D_alpha(q || p) / min(alpha, 1), p normalised: with alpha -> 0 the divergence vanishes, and every q would
be optimal; its slope does not, KL(p || q). The density is evaluated once, on a grid.

Shape legend: A orders alpha, R restarts, d dimensions of s, P parameters of q, N points. float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from mindworks.errors import require
from mindworks.inference.bfgs import minimise
from mindworks.inference.families import FAMILIES, MeanField
from mindworks.inference.renyi_bound import exponential_mean, tilt

POINTS = {1: 2001, 2: 161, 3: 41}  # per axis
NEGLIGIBLE = -25.0  # log of what a density may be at the rim of the grid, next to its largest value
NARROWINGS = 20  # by exp(-1/4) each: from the widest start to under a hundredth of it
LOST = 1e-9  # mass of q that may lie beyond the grid or between its points
SETTLED = 1e-5  # largest derivative, per unit of alpha, of a search that has ended in an optimum
SAME = 1e-3  # relative difference of two optima that count as one


def mean_field_variance(alpha: float, correlation: float) -> float:
    """The v of the best N(0, v I), by D_alpha(q || p), for two standard normals p of a `correlation` in (-1, 1).

    It solves (1 - alpha) v^2 - (1 - 2 alpha) v - alpha (1 - correlation^2) = 0: 1 as alpha -> 0, then falling to
    1 - correlation^2 at alpha = 1 and 1 - |correlation| as alpha -> inf.
    """
    require(math.isfinite(alpha) and alpha >= 0, f"alpha must be finite and >= 0, got {alpha}")
    require(-1 < correlation < 1, f"correlation must be in (-1, 1), got {correlation}")
    left, free = 1 - 2 * alpha, 1 - correlation**2
    root = math.sqrt(left**2 + 4 * (1 - alpha) * alpha * free)
    return (left + root) / (2 * (1 - alpha)) if alpha < 0.5 else 2 * alpha * free / (root - left)


@dataclass(frozen=True)
class RenyiFit:
    """Every local optimum found: `theta[A, R, P]` of `family`, its D_alpha(q || p) `divergence[A, R]`.

    `log_evidence` is log of the density's integral, so the bound is `log_evidence - divergence`. `slope[A, R]`
    is the largest derivative left; a search that ended at a wall shows a large one. `points` are those of an axis.
    """

    alpha: Tensor
    family: MeanField
    theta: Tensor
    divergence: Tensor
    slope: Tensor
    log_evidence: Tensor
    points: int

    @property
    def best(self) -> Tensor:
        """The restart with the smallest divergence, `[A]`."""
        return self.divergence.argmin(-1)

    @property
    def bound(self) -> Tensor:
        """The Rényi bound of the best q, `[A]`."""
        return self.log_evidence - self.divergence.amin(-1)

    def all(self) -> Distribution:
        """Every optimum, a distribution with batch `[A, R]`."""
        return self.family.distribution(self.theta)

    def q(self) -> Distribution:
        """The best q for each alpha, a distribution with batch `[A]`."""
        index = self.best.reshape(-1, 1, 1).expand(-1, 1, self.theta.shape[-1])
        return self.family.distribution(self.theta.gather(1, index).squeeze(1))

    def optima(self, index: int = 0) -> list[dict]:
        """Different local optima for alpha number `index`, best first: `mean`, `std`, `divergence`, how many `starts`.

        Searches that ended before their slope vanished, at a wall of infinite divergence, count for none.
        """
        found: list[dict] = []
        every = self.all()
        settled = self.slope[index] <= SETTLED * self.alpha[index].clamp_min(1)
        for r in self.divergence[index].argsort().tolist():
            if not settled[r]:
                continue
            mean, std = every.mean[index, r], every.stddev[index, r]
            known = [row for row in found if _same(row["mean"], mean, std) and _same(row["std"], std, std)]
            if known:
                known[0]["starts"] += 1
            else:
                found.append({"mean": mean, "std": std, "divergence": float(self.divergence[index, r]), "starts": 1})
        return found


def _same(one: Tensor, other: Tensor, scale: Tensor) -> bool:
    return bool(((one - other).abs() <= SAME * scale).all())


class _Target:
    """The density on its grid, and the objective of every family of q."""

    def __init__(self, log_density: Callable[[Tensor], Tensor], support: Tensor, points: int) -> None:
        dims = support.shape[0]
        axes = [torch.linspace(float(low), float(high), points, dtype=torch.float64) for low, high in support]
        self.s = torch.cartesian_prod(*axes).reshape(-1, dims)
        self.points, self.spacing = points, (support[:, 1] - support[:, 0]) / (points - 1)
        self.log_volume = float(self.spacing.log().sum())
        value = log_density(self.s if dims > 1 else self.s.squeeze(-1))
        require(value.shape == self.s.shape[:1], f"log_density must return [{len(self.s)}], got {list(value.shape)}")
        require(not bool((value.isnan() | (value == math.inf)).any()), "log_density must be finite or -inf")
        index = torch.cartesian_prod(*[torch.arange(points)] * dims).reshape(-1, dims)
        self.rim = ((index == 0) | (index == points - 1)).any(-1)
        edge = float(value[self.rim].amax() - value.amax())
        require(edge < NEGLIGIBLE, f"support must hold all of the density, got exp({edge:.1f}) of its peak at the rim")
        self.log_evidence = (value + self.log_volume).logsumexp(0)
        self.log_p = value - self.log_evidence
        self.log_weight = self.log_p + self.log_volume
        weight = self.log_weight.exp().unsqueeze(-1)
        self.mean = (weight * self.s).sum(0)
        self.std = (weight * (self.s - self.mean).square()).sum(0).sqrt()

    def divergence(self, log_q: Tensor, alpha: Tensor) -> Tensor:
        """D_alpha(q || p) / min(alpha, 1) `[...]` for `log_q[..., N]`; inf where the integrand reaches the rim.

        And inf where the grid does not hold all of q: where q is wider than the support or narrower than the spacing.

        Near 0 it is the skew form D_alpha(q || p) / alpha = -log E_p[(q/p)^alpha] / (alpha (1 - alpha)), which is
        KL(p || q) at alpha = 0; elsewhere -log E_q[(p/q)^(1 - alpha)] / (1 - alpha), the other KL at alpha = 1.
        """
        near_0 = alpha < 0.5
        order, value, log_ratio = 1 - alpha, torch.empty_like(alpha), self.log_p - log_q
        skew = exponential_mean(-log_ratio[near_0], self.log_weight, alpha[near_0])
        value[near_0] = -skew / order[near_0]
        plain = exponential_mean(log_ratio[~near_0], log_q[~near_0] + self.log_volume, order[~near_0])
        value[~near_0] = -plain / alpha[~near_0].clamp_max(1)
        integrand = torch.addcmul(log_q, order.unsqueeze(-1), log_ratio)
        endless = integrand[..., self.rim].amax(-1) - integrand.amax(-1) > NEGLIGIBLE
        lost = (log_q + self.log_volume).logsumexp(-1).abs() > LOST
        return torch.where(endless | lost, math.inf, value)

    def objective(self, family: MeanField, alpha: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Value and gradient of the objective for rows of parameters `[b, P]` whose orders are `alpha[rows]`."""

        def function(theta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            theta, order = theta.detach().requires_grad_(True), alpha[rows]
            log_q = family.log_prob(theta, self.s)
            with torch.no_grad():
                value = self.divergence(log_q, order)
                push = tilt(log_q + self.log_volume, self.log_p - log_q, 1 - order) * order.clamp_min(1).unsqueeze(-1)
            (gradient,) = torch.autograd.grad(-(push * log_q).sum(), theta)
            return value, gradient

        return function


def fit_renyi(
    log_density: Callable[[Tensor], Tensor],
    support: Sequence[float] | Sequence[Sequence[float]],
    alpha: float | Sequence[float] | Tensor,
    *,
    family: str = "normal",
    components: int = 2,
    restarts: int = 8,
    generator: torch.Generator | None = None,
    points: int | None = None,
    steps: int = 300,
) -> RenyiFit:
    """Minimise D_alpha(q || p) for every alpha from `restarts` starts: the best q and all local optima.

    `log_density` is an unnormalised log density of p, as a log joint is: it takes `[N]`, or `[N, d]` for d of 2 or 3,
    and returns `[N]`. `support`, (low, high) or one such pair per dimension, must hold all of p; `points` per axis.
    `family`: `normal` (any covariance), `mean_field`, `mixture` (of `components` mean-field normals). The first start
    has p's moments, the others means drawn from p and random widths. A q too wide for its alpha starts narrower.
    """
    orders = torch.atleast_1d(torch.as_tensor(alpha, dtype=torch.float64))
    require(bool((orders.isfinite() & (orders >= 0)).all()), f"alpha must be finite and >= 0 for a fit, got {alpha}")
    require(family in FAMILIES, f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    for name, value, least in (("restarts", restarts, 1), ("components", components, 1), ("points", points or 11, 11)):
        require(value >= least, f"{name} must be at least {least}, got {value}")
    box = torch.atleast_2d(torch.as_tensor(support, dtype=torch.float64))
    good = box.dim() == 2 and box.shape[1] == 2 and 1 <= len(box) <= 3 and bool((box[:, 0] < box[:, 1]).all())
    require(good, f"support must be (low, high), or 2 or 3 such pairs, got {support}")
    target = _Target(log_density, box, POINTS[len(box)] if points is None else points)
    kind = FAMILIES[family]
    q = kind(target.mean, target.std, components) if family == "mixture" else kind(target.mean, target.std)
    return _fit(target, q, orders, _starts(target, q, restarts, generator), steps)


def switch_point(
    log_density: Callable[[Tensor], Tensor],
    support: Sequence[float] | Sequence[Sequence[float]],
    low: float,
    high: float,
    *,
    family: str = "normal",
    restarts: int = 8,
    generator: torch.Generator | None = None,
    points: int | None = None,
    tolerance: float = 1e-6,
) -> RenyiFit:
    """The alpha between `low` and `high` at which the best q jumps from one local optimum to another.

    Two optima are followed, the best at `low` and the best at `high`, and the alpha where they are equally good is
    bisected to `tolerance`. The answer is the fit there, `theta[1, 2, P]`: the first row is the branch that is best
    below. Other arguments are those of `fit_renyi`.
    """
    require(0 <= low < high, f"low must be in [0, high), got {low} and {high}")
    require(0 < tolerance < high - low, f"tolerance must be positive and below high - low, got {tolerance}")
    ends = fit_renyi(
        log_density, support, [low, high], family=family, restarts=restarts, generator=generator, points=points
    )
    target = _Target(log_density, torch.atleast_2d(torch.as_tensor(support, dtype=torch.float64)), ends.points)
    branches = ends.theta[torch.arange(2), ends.best]
    while high - low > tolerance:
        middle = torch.tensor([(low + high) / 2], dtype=torch.float64)
        fit = _fit(target, ends.family, middle, branches, 300)
        branches = fit.theta[0]
        first, second = fit.divergence[0].tolist()
        low, high = (float(middle), high) if first < second else (low, float(middle))
    return fit


def _fit(target: _Target, q: MeanField, orders: Tensor, first: Tensor, steps: int) -> RenyiFit:
    """Fits for every order from every start `first[R, P]`."""
    each = orders.repeat_interleave(len(first))
    objective = target.objective(q, each)
    minima = minimise(objective, _inside(objective, q, first.repeat(len(orders), 1), len(first)), steps=steps)
    shape = (len(orders), len(first))
    divergence = (minima.value * each.clamp_max(1)).reshape(shape)
    theta, slope = minima.x.reshape(*shape, -1), minima.slope.reshape(shape)
    fit = RenyiFit(orders, q, theta, divergence, slope, target.log_evidence, target.points)
    narrowest = float((fit.q().stddev.reshape(len(orders), -1) / target.spacing).amin())
    require(narrowest > 1.5, f"points must be more: the narrowest q is {narrowest:.2f} of their spacings")
    return fit


def _starts(target: _Target, family: MeanField, restarts: int, generator: torch.Generator | None) -> Tensor:
    """Parameters `[R, P]`: of p's moments, then of random components."""
    shape = (restarts, family.components)
    place = torch.rand(shape, generator=generator, dtype=torch.float64)
    cumulative = target.log_weight.exp().cumsum(0)
    mean = target.s[torch.searchsorted(cumulative, place).clamp_max(len(cumulative) - 1)]
    width = 0.1 * 8 ** torch.rand((*shape, 1), generator=generator, dtype=torch.float64)  # 0.1 to 0.8, log-uniform
    std = width * target.std
    if family.components == 1:
        mean[0], std[0] = target.mean, target.std
    return family.start(mean, std)


def _inside(
    objective: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], family: MeanField, theta: Tensor, restarts: int
) -> Tensor:
    """`theta` with every q that is too wide for its order made narrower until its divergence is finite.

    Where the grid has no such q around a random mean, the order's first start takes its place.
    """
    rows, given = torch.arange(len(theta)), theta.clone()
    for _ in range(NARROWINGS):
        value, _ = objective(theta[rows], rows)
        rows = rows[value == math.inf]
        if not len(rows):
            break
        theta[rows] = family.narrower(theta[rows], 0.25)
    changed = (theta != given).any(-1).nonzero().squeeze(-1)
    deeper = family.narrower(theta[changed], 0.75)  # away from the wall, or the first step may lead along it
    finite = objective(deeper, changed)[0].isfinite()
    theta[changed[finite]] = deeper[finite]
    leaders = rows - rows % restarts
    hopeless = "points must be more, or support wider: no q of finite divergence fits the grid"
    require(not bool(torch.isin(leaders, rows).any()), hopeless)
    theta[rows] = theta[leaders]
    return theta
