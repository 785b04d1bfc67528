"""The linear Gaussian model y = x s + noise, and its Rényi bound in closed form.

Sajid et al., "Bayesian Brains and the Rényi Divergence", Neural Computation 34(4), 2022, arXiv:2107.05438, section on
the univariate system. Shape legend: n observations, `...` any leading dimensions. float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Gamma

from mindworks.core.divergences import renyi_normal
from mindworks.errors import require


class LinearGaussian:
    """One unknown s ~ N(0, prior_std^2) and observations `y[..., n]` of `x[n] * s` with normal noise.

    `noise` is its standard deviation, a number or `[n]`, or its covariance `[n, n]`. The posterior is normal: with
    S the covariance of the noise, precision = 1 / prior_std^2 + x' S^-1 x and mean = x' S^-1 y / precision.
    """

    def __init__(self, x: Tensor, y: Tensor, prior_std: float = 1.0, noise: float | Tensor = 1.0) -> None:
        self.x, self.y = (torch.as_tensor(part, dtype=torch.float64) for part in (x, y))
        n = self.x.shape[-1] if self.x.dim() else 0
        require(self.x.dim() == 1 and n >= 1, f"x must be [n] with n >= 1, got {list(self.x.shape)}")
        require(self.y.shape[-1:] == (n,), f"y must be [..., n] with n = {n}, got {list(self.y.shape)}")
        require(math.isfinite(prior_std) and prior_std > 0, f"prior_std must be positive, got {prior_std}")
        self.prior_variance = prior_std**2
        root = _root(torch.as_tensor(noise, dtype=torch.float64), n)  # lower, root @ root.T is the covariance
        white_x, white_y = (
            torch.linalg.solve_triangular(root, part.unsqueeze(-1), upper=False).squeeze(-1)
            for part in (self.x, self.y)
        )
        # |white_y - s white_x|^2 = rest + information (s - estimate)^2, the same for all s but for the square
        information, product = white_x.square().sum(), (white_y * white_x).sum(-1)
        self._estimate = product / torch.where(information > 0, information, 1.0)
        rest = (white_y - self._estimate.unsqueeze(-1) * white_x).square().sum(-1)
        self._information = information
        self._peak = -0.5 * (rest + n * math.log(2 * math.pi)) - root.diagonal().log().sum()
        self.precision = 1 / self.prior_variance + information
        self.posterior_mean, self.posterior_variance = product / self.precision, 1 / self.precision
        # log p(y) = log of prior times likelihood over posterior, at the posterior's mean
        self.log_evidence = self.log_joint(self.posterior_mean) + 0.5 * (2 * math.pi / self.precision).log()

    def log_joint(self, s: Tensor) -> Tensor:
        """log p(s) p(y | s) at `s[...]`, of the shape of `s` and the leading dimensions of y broadcast together."""
        prior = -0.5 * (s.square() / self.prior_variance + math.log(2 * math.pi * self.prior_variance))
        return prior + self._peak - 0.5 * self._information * (s - self._estimate).square()

    def renyi_bound(self, mean_q: float | Tensor, var_q: float | Tensor, alpha: float | Tensor) -> Tensor:
        """L_alpha `[...]` of q = N(mean_q, var_q): log p(y) - D_alpha(q || posterior), all broadcast together.

        -inf where alpha >= `alpha_limit(var_q)`, the evidence lower bound at alpha = 1; alpha >= 0.
        """
        mean_q, log_std_q = torch.as_tensor(mean_q, dtype=torch.float64), _log_std(var_q)
        log_std = -0.5 * self.precision.log()
        return self.log_evidence - renyi_normal(mean_q, log_std_q, self.posterior_mean, log_std, alpha)

    def alpha_limit(self, var_q: float | Tensor) -> Tensor:
        """The smallest alpha `[...]` whose bound is -inf: inf where q is no wider than the posterior.

        D_alpha is finite where alpha / var_q + (1 - alpha) precision > 0, so below var_q / (var_q - 1 / precision).
        """
        variance = (2 * _log_std(var_q)).exp()
        wider = variance > self.posterior_variance
        return torch.where(wider, variance / torch.where(wider, variance - self.posterior_variance, 1.0), math.inf)

    def gamma_elbo(
        self, mean_q: float | Tensor, var_q: float | Tensor, shape: float | Tensor, rate: float | Tensor
    ) -> Tensor:
        """Evidence lower bound `[...]` with a Gamma(shape, rate) prior on the prior's precision, at its value here.

        The added log Gamma(1 / prior_std^2; shape, rate) does not depend on q: it moves the bound, not its maximiser.
        """
        shape, rate = (torch.as_tensor(part, dtype=torch.float64) for part in (shape, rate))
        for name, part in (("shape", shape), ("rate", rate)):
            require(bool((part > 0).all()), f"{name} must be positive, got {part.min():g}")
        hyperprior = Gamma(shape, rate).log_prob(torch.tensor(1 / self.prior_variance, dtype=torch.float64))
        return self.renyi_bound(mean_q, var_q, 1.0) + hyperprior


def _log_std(variance: float | Tensor) -> Tensor:
    variance = torch.as_tensor(variance, dtype=torch.float64)
    require(bool((variance > 0).all()), f"var_q must be positive, got {variance.min():g}")
    return 0.5 * variance.log()


def _root(noise: Tensor, n: int) -> Tensor:
    if noise.dim() == 2:
        require(noise.shape == (n, n), f"noise must be a number, [n] or [n, n] with n = {n}, got {list(noise.shape)}")
        root, status = torch.linalg.cholesky_ex(noise)
        require(int(status) == 0, "noise must be a positive definite covariance")
        return root
    require(noise.shape in ((), (n,)), f"noise must be a number, [n] or [n, n] with n = {n}, got {list(noise.shape)}")
    require(bool((noise > 0).all()), f"noise must be positive, got {noise.min():g}")
    return torch.diag(noise.expand(n))
