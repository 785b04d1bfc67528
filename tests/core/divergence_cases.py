"""What the tests of divergences share: pairs of distributions, their densities written anew, and grids to sum over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.special import expit, gammaln, log_expit, logsumexp
from torch import distributions as D

ORDERS = [0.1, 0.5, 0.9, 0.999999, 1.0, 1.000001, 1.5, 2.0, 5.0]
NEAR_ONE = [1 + sign * gap for gap in (1e-9, 1e-6, 1e-4) for sign in (-1, 1)]


def f64(*values: object) -> torch.Tensor:
    """A float64 tensor of one value or several."""
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.float64)


@dataclass
class Grid:
    """Points with log-weights: sums of exp(log_weight + log density) over the first axis are integrals."""

    points: tuple[np.ndarray, ...]
    log_weight: np.ndarray

    def divergence(self, log_p: np.ndarray, log_q: np.ndarray, alpha: float) -> float:
        ratio, t = log_p - log_q, alpha - 1
        mass = np.exp(self.log_weight + log_p)
        if t == 0:
            return float((mass * ratio).sum())
        if abs(t) < 0.01:  # the plain logarithm has lost 6 digits here
            return float(np.log1p((mass * np.expm1(t * ratio)).sum()) / t)
        return float(logsumexp(self.log_weight + log_p + t * ratio) / t)


def unit_interval(reach: float = 250.0, step: float = 0.1) -> Grid:
    """log x and log(1 - x) for x = 1 / (1 + exp(-s)), s equidistant: the trapezoid converges exponentially."""
    s = np.arange(-reach, reach, step)
    log_x, log_rest = log_expit(s), log_expit(-s)
    return Grid((log_x, log_rest), log_x + log_rest + math.log(step))


def half_line() -> Grid:
    """log x for x = exp(s)."""
    s = np.arange(-250.0, 9.0, 0.01)
    return Grid((s,), s + math.log(0.01))


def plane(reach: float = 16.0, step: float = 0.1) -> Grid:
    x, y = (axis.ravel() for axis in np.meshgrid(*[np.arange(-reach, reach, step)] * 2))
    return Grid((x, y), np.full(x.shape, 2 * math.log(step)))


def triangle() -> Grid:
    """Logarithms of three proportions: x = u, y = (1 - u) v, the rest, both on grids of `unit_interval`."""
    line = unit_interval(80.0, 0.4)
    (log_u, log_not_u), weight = line.points, line.log_weight
    u, v = (axis.ravel() for axis in np.meshgrid(np.arange(len(weight)), np.arange(len(weight))))
    log_weight = weight[u] + weight[v] + log_not_u[u]
    return Grid((log_u[u], log_not_u[u] + log_u[v], log_not_u[u] + log_not_u[v]), log_weight)


def normal_density(x: np.ndarray, mean: float, std: float) -> np.ndarray:
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))


def gamma_density(log_x: np.ndarray, shape: float, rate: float) -> np.ndarray:
    return shape * math.log(rate) - gammaln(shape) + (shape - 1) * log_x - rate * np.exp(log_x)


def dirichlet_density(logs: tuple[np.ndarray, ...], *concentration: float) -> np.ndarray:
    a = np.array(concentration)
    return sum((c - 1) * log_x for c, log_x in zip(a, logs, strict=True)) + gammaln(a.sum()) - gammaln(a).sum()


def multivariate_density(x: np.ndarray, y: np.ndarray, mean: list[float], tril: list[list[float]]) -> np.ndarray:
    (a, _), (b, c) = tril
    u = (x - mean[0]) / a
    return -0.5 * (u**2 + ((y - mean[1] - b * u) / c) ** 2) - math.log(2 * math.pi * a * c)


LINE = Grid((np.arange(-60, 60, 0.01),), np.full(12000, math.log(0.01)))
MVN_P, MVN_Q = ([0.3, -0.2], [[0.8, 0.0], [0.3, 0.7]]), ([-0.1, 0.4], [[1.1, 0.0], [-0.2, 1.0]])
MVN_WIDE = ([0.3, -0.2], [[1.2, 0.0], [0.3, 0.7]])
PROBS_P, PROBS_Q = [0.2, 0.5, 0.0, 0.3], [0.4, 0.1, 0.2, 0.3]


def _log(probs: list[float]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(probs))


def _discrete(probs_p: list[float], probs_q: list[float]) -> tuple[Grid, np.ndarray, np.ndarray]:
    kept = [(p, q) for p, q in zip(probs_p, probs_q, strict=True) if p > 0]
    return Grid((), np.zeros(len(kept))), _log([p for p, _ in kept]), _log([q for _, q in kept])


def _gridded(grid: Grid, density, p: tuple, q: tuple) -> tuple[Grid, np.ndarray, np.ndarray]:
    return grid, density(*grid.points, *p), density(*grid.points, *q)


def _independent(mean: tuple[float, float], std: tuple[float, float]) -> D.Independent:
    return D.Independent(D.Normal(f64(mean), f64(std)), 1)


def _product(x: np.ndarray, y: np.ndarray, mean: tuple[float, float], std: tuple[float, float]) -> np.ndarray:
    return normal_density(x, mean[0], std[0]) + normal_density(y, mean[1], std[1])


def _dirichlets(*logs_and_concentration):
    logs, concentration = logs_and_concentration[:3], logs_and_concentration[3:]
    return dirichlet_density(logs, *concentration)


def _betas(log_x: np.ndarray, log_rest: np.ndarray, a: float, b: float) -> np.ndarray:
    return dirichlet_density((log_x, log_rest), a, b)


# name: (p, q, what to integrate, the order from which on the divergence is infinite)
CASES = {
    "Normal": (
        D.Normal(f64(0.3), f64(0.8)),
        D.Normal(f64(-0.2), f64(1.1)),
        lambda: _gridded(LINE, normal_density, (0.3, 0.8), (-0.2, 1.1)),
        math.inf,
    ),
    "Normal, wide": (
        D.Normal(f64(0.3), f64(1.2)),
        D.Normal(f64(-0.2), f64(1.0)),
        lambda: _gridded(LINE, normal_density, (0.3, 1.2), (-0.2, 1.0)),
        1.44 / 0.44,
    ),
    "Independent": (
        _independent((0.3, -1.0), (0.8, 1.2)),
        _independent((-0.2, -0.7), (1.1, 1.4)),
        lambda: _gridded(plane(), _product, ((0.3, -1.0), (0.8, 1.2)), ((-0.2, -0.7), (1.1, 1.4))),
        math.inf,
    ),
    "MultivariateNormal": (
        D.MultivariateNormal(f64(MVN_P[0]), scale_tril=f64(MVN_P[1])),
        D.MultivariateNormal(f64(MVN_Q[0]), scale_tril=f64(MVN_Q[1])),
        lambda: _gridded(plane(), multivariate_density, MVN_P, MVN_Q),
        math.inf,
    ),
    "MultivariateNormal, wide": (
        D.MultivariateNormal(f64(MVN_WIDE[0]), scale_tril=f64(MVN_WIDE[1])),
        D.MultivariateNormal(f64(MVN_Q[0]), scale_tril=f64(MVN_Q[1])),
        lambda: _gridded(plane(24.0, 0.12), multivariate_density, MVN_WIDE, MVN_Q),
        3.0,
    ),
    "Categorical": (
        D.Categorical(f64(PROBS_P)),
        D.Categorical(f64(PROBS_Q)),
        lambda: _discrete(PROBS_P, PROBS_Q),
        math.inf,
    ),
    "OneHotCategorical": (
        D.OneHotCategorical(f64(PROBS_P)),
        D.OneHotCategorical(f64(PROBS_Q)),
        lambda: _discrete(PROBS_P, PROBS_Q),
        math.inf,
    ),
    "Bernoulli": (
        D.Bernoulli(f64(0.03)),
        D.Bernoulli(logits=f64(0.7)),
        lambda: _discrete([0.03, 0.97], [float(expit(0.7)), float(expit(-0.7))]),
        math.inf,
    ),
    "Exponential": (
        D.Exponential(f64(2.0)),
        D.Exponential(f64(1.5)),
        lambda: _gridded(half_line(), gamma_density, (1.0, 2.0), (1.0, 1.5)),
        math.inf,
    ),
    "Exponential, slow": (
        D.Exponential(f64(1.0)),
        D.Exponential(f64(1.5)),
        lambda: _gridded(half_line(), gamma_density, (1.0, 1.0), (1.0, 1.5)),
        3.0,
    ),
    "Gamma": (
        D.Gamma(f64(2.5), f64(3.0)),
        D.Gamma(f64(1.7), f64(2.0)),
        lambda: _gridded(half_line(), gamma_density, (2.5, 3.0), (1.7, 2.0)),
        math.inf,
    ),
    "Gamma, slow": (
        D.Gamma(f64(1.5), f64(1.0)),
        D.Gamma(f64(2.0), f64(1.4)),
        lambda: _gridded(half_line(), gamma_density, (1.5, 1.0), (2.0, 1.4)),
        3.5,
    ),
    "Beta": (
        D.Beta(f64(2.0), f64(3.0)),
        D.Beta(f64(0.7), f64(2.2)),
        lambda: _gridded(unit_interval(), _betas, (2.0, 3.0), (0.7, 2.2)),
        math.inf,
    ),
    "Beta, near an end": (
        D.Beta(f64(1.2), f64(2.0)),
        D.Beta(f64(1.6), f64(1.8)),
        lambda: _gridded(unit_interval(), _betas, (1.2, 2.0), (1.6, 1.8)),
        4.0,
    ),
    "Dirichlet": (
        D.Dirichlet(f64(2.0, 0.9, 3.0)),
        D.Dirichlet(f64(1.0, 0.8, 2.5)),
        lambda: _gridded(triangle(), _dirichlets, (2.0, 0.9, 3.0), (1.0, 0.8, 2.5)),
        math.inf,
    ),
    "Dirichlet, near a side": (
        D.Dirichlet(f64(2.0, 0.9, 3.0)),
        D.Dirichlet(f64(1.0, 1.3, 2.5)),
        lambda: _gridded(triangle(), _dirichlets, (2.0, 0.9, 3.0), (1.0, 1.3, 2.5)),
        1.3 / 0.4,
    ),
}
PAIRS = {name: (p, q) for name, (p, q, _, _) in CASES.items()}
every_pair = pytest.mark.parametrize(("p", "q"), PAIRS.values(), ids=PAIRS.keys())


def leaves_of(*values: object) -> list[torch.Tensor]:
    return [f64(value).requires_grad_(True) for value in values]


def _tril(raw: torch.Tensor) -> torch.Tensor:
    return raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())


def multivariate(mean: torch.Tensor, raw: torch.Tensor) -> D.MultivariateNormal:
    return D.MultivariateNormal(mean, scale_tril=_tril(raw))


# name: (a distribution from its parameters, those of p, those of q); all finite up to order 2
FAMILIES = {
    "Normal": (D.Normal, [[0.3, -1.0], [0.8, 1.2]], [[-0.2, -0.7], [1.1, 1.0]]),
    "Independent": (lambda m, s: D.Independent(D.Normal(m, s), 1), [[0.3, -1], [0.8, 1.2]], [[-0.2, -0.7], [1.1, 1]]),
    "MultivariateNormal": (
        multivariate,
        [[0.3, -0.2, 1.0], [[-0.3, 0, 0], [0.2, 0.1, 0], [0.4, -0.3, -0.2]]],
        [[0.1, 0.4, 0.6], [[0.1, 0, 0], [-0.3, 0.2, 0], [0.1, 0.2, 0.3]]],
    ),
    "Categorical": (D.Categorical, [[0.2, 0.5, 0.3]], [[0.4, 0.2, 0.4]]),
    "Categorical, logits": (lambda x: D.Categorical(logits=x), [[0.2, 5.0, 0.3]], [[0.4, 0.1, -0.4]]),
    "OneHotCategorical": (D.OneHotCategorical, [[0.2, 0.5, 0.3]], [[0.4, 0.2, 0.4]]),
    "Bernoulli": (D.Bernoulli, [[0.2, 0.9]], [[0.3, 0.1]]),
    "Bernoulli, logits": (lambda x: D.Bernoulli(logits=x), [[0.2, -3.0]], [[-0.3, 2.0]]),
    "Exponential": (D.Exponential, [[2.0, 0.8]], [[1.5, 1.0]]),
    "Gamma": (D.Gamma, [[2.5, 1.5], [3.0, 1.0]], [[1.7, 2.0], [2.0, 1.4]]),
    "Beta": (D.Beta, [[2.0, 1.2], [3.0, 2.0]], [[0.7, 1.6], [2.2, 1.8]]),
    "Dirichlet": (D.Dirichlet, [[2.0, 0.9, 3.0]], [[1.0, 1.3, 2.5]]),
}
every_family = pytest.mark.parametrize(("make", "p", "q"), FAMILIES.values(), ids=FAMILIES.keys())
