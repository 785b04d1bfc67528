"""A bandit agent that believes what maximises a Rényi bound and acts on draws from its beliefs.

Sajid, Faccio, Da Costa, Parr, Schmidhuber and Friston, "Bayesian Brains and the Rényi Divergence", Neural Computation
34(4), 2022, arXiv:2107.05438; the published rule and likelihood are those of the authors' code.

Shape legend: A orders alpha, R runs, K arms, n samples, T pulls. float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch import Tensor

from mindworks.errors import require, require_at_least
from mindworks.inference.beliefs import LIKELIHOODS, Likelihood, NormalMixture, Rewards, log_joint
from mindworks.inference.renyi_bound import tilt

RULES = ("published", "corrected")
GRADIENTS = ("samples", "quadrature")
BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class BanditConfig:
    """How the agent scores arms and updates a belief; the defaults are the published settings."""

    rule: str = "published"
    """`published`: a draw of the mean over the belief's variance; `corrected`: over a draw of the reward's variance"""
    likelihood: str = "published"
    """`published`: mean log density, scale = sample variance; `exact`: their sum, scale = sample standard deviation"""
    gradient: str = "samples"
    """`samples`: of the bound estimated from draws of q; `quadrature`: of the bound itself"""
    samples: int = 300
    """draws of q, or points of the quadrature, per update"""
    updates: int = 10
    """Adam updates of the pulled arm's belief per pull"""
    lr: float = 0.05
    """Adam step size"""
    memory: int = 1000
    """rewards per arm that count; older ones are forgotten"""
    start_mean: float = 25.0
    """mean of every belief at the start"""
    start_variance: float = 8e-7
    """variance of every belief at the start"""

    def __post_init__(self) -> None:
        require(self.rule in RULES, f"rule must be one of {', '.join(RULES)}, got {self.rule!r}")
        known = ", ".join(LIKELIHOODS)
        require(self.likelihood in LIKELIHOODS, f"likelihood must be one of {known}, got {self.likelihood!r}")
        require(self.gradient in GRADIENTS, f"gradient must be one of {', '.join(GRADIENTS)}, got {self.gradient!r}")
        require_at_least(self, 2, "samples", "memory")
        require_at_least(self, 1, "updates")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(self.start_variance > 0, f"start_variance must be positive, got {self.start_variance}")


def published_arms() -> tuple[NormalMixture, NormalMixture]:
    """Rewards and priors of the paper's three arms; the third has the largest mean over variance."""
    rewards = NormalMixture.of(
        [[0.97, 0.03], [1, 0], [0.97, 0.03]], [[10, 22], [16, 16], [18, 10]], [[1, 1], [3, 3], [1, 1]]
    )
    priors = NormalMixture.of([[0.5, 0.5]] * 3, [[13, 20], [16, 14], [10, 17]], [[1.5, 1.5]] * 3)
    return rewards, priors


def sample_gradient(
    mean: Tensor, log_var: Tensor, noise: Tensor, alpha: Tensor, prior: NormalMixture, likelihood: Likelihood
) -> tuple[Tensor, Tensor]:
    """Derivatives `[...]` of the Monte Carlo bound by q's mean and log variance, with draws mean + std `noise[..., n]`.

    With weights w = softmax((1 - alpha) log p/q) over the draws and g the score of the joint: sum w g for the mean,
    (std sum w g noise + 1) / 2 for the log variance. Nothing is divided by 1 - alpha, so alpha = 1 is no special case.
    """
    std = (0.5 * log_var).exp().unsqueeze(-1)
    log_ratio, score = log_joint(torch.addcmul(mean.unsqueeze(-1), std, noise), prior, likelihood)
    log_ratio.addcmul_(noise, noise, value=0.5)  # up to a constant, which softmax does not see
    weighted = log_ratio.mul_((1 - alpha).unsqueeze(-1)).softmax(-1).mul_(score)
    return weighted.sum(-1), 0.5 * (std.squeeze(-1) * (weighted * noise).sum(-1) + 1)


def quadrature_gradient(
    mean: Tensor, log_var: Tensor, points: Tensor, alpha: Tensor, prior: NormalMixture, likelihood: Likelihood
) -> tuple[Tensor, Tensor]:
    """Derivatives `[...]` of the exact bound over alpha by mean and log variance; they do not vanish as alpha -> 0.

    `points[..., n]` are in units of q's standard deviation, u = sinh(t) with evenly spaced t.
    """
    log_q = -0.5 * points.square()
    log_weight = torch.log_softmax(log_q + 0.5 * torch.log1p(points.square()), -1)  # du is in proportion to cosh(t)
    s = torch.addcmul(mean.unsqueeze(-1), (0.5 * log_var).exp().unsqueeze(-1), points)
    push = tilt(log_weight, log_joint(s, prior, likelihood)[0] - log_q, 1 - alpha)
    return (push * points).sum(-1) * (-0.5 * log_var).exp(), 0.5 * (push * (points.square() - 1)).sum(-1)


class RenyiBandit:
    """Agents of A orders in R runs on the same arms, all as one tensor: beliefs `mean[A, R, K]`, `log_var[A, R, K]`.

    `seeds` gives each run its own random numbers. The orders share them, draw by draw and arm by arm, and so do agents
    with other settings: differences between them are not differences of luck. A run is the same in any company.
    """

    def __init__(
        self,
        rewards: NormalMixture,
        priors: NormalMixture,
        alpha: float | Sequence[float],
        seeds: Sequence[int],
        config: BanditConfig | None = None,
    ) -> None:
        self.config = BanditConfig() if config is None else config
        self.rewards, self.priors = rewards, priors
        self.alpha = torch.atleast_1d(torch.as_tensor(alpha, dtype=torch.float64)).unsqueeze(-1)
        arms = rewards.weight.shape[0]
        require(bool(self.alpha.isfinite().all() and (self.alpha >= 0).all()), f"alpha must be >= 0, got {alpha}")
        require(len(seeds) >= 1, "seeds must not be empty")
        require(
            rewards.weight.dim() == priors.weight.dim() == 2 and priors.weight.shape[0] == arms,
            f"priors must be [K, J] with K = {arms}, got {list(priors.weight.shape)}",
        )
        batch = (self.alpha.shape[0], len(seeds))
        self.arms, self.pulls = arms, 0
        self._world = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._noise = [torch.Generator().manual_seed(_fresh_seed(world)) for world in self._world]
        self.history = Rewards(batch, arms, self.config.memory)
        self.mean = torch.full((*batch, arms), self.config.start_mean, dtype=torch.float64)
        self.log_var = torch.full_like(self.mean, math.log(self.config.start_variance))
        self._first = torch.zeros(*batch, arms, 2, dtype=torch.float64)  # Adam's moments, and its count of steps
        self._second, self._steps = torch.zeros_like(self._first), torch.zeros_like(self.mean)
        low, high = (priors.mean - 10 * priors.std).amin(), (priors.mean + 10 * priors.std).amax()
        self._reach = float(high - low)

    def scores(self, normal: Tensor, uniform: Tensor) -> Tensor:
        """What the agents choose by, `[A, R, K]`, from standard normal and uniform numbers `[R, K]`."""
        draw = torch.addcmul(self.mean, (0.5 * self.log_var).exp(), normal)
        if self.config.rule == "published":
            return draw / self.log_var.exp()
        # with the prior 1 / variance, (n - 1) sample variance / variance is chi-squared with n - 1 degrees of freedom
        count, _, spread = self.history.moments()
        half = 0.5 * (count - 1)
        chi_square = 2 * torch.from_numpy(gammaincinv(half.numpy(), uniform.numpy()))
        return draw * chi_square / (count * spread)

    def likelihood(self) -> Likelihood:
        """The likelihood of every arm's mean, `[A, R, K]`."""
        return Likelihood.of(*self.history.moments(), self.config.likelihood)

    def pull(self) -> tuple[Tensor, Tensor]:
        """One pull of every agent: the arms and rewards, `[A, R]`. Every arm is pulled twice before a belief moves."""
        normal = torch.stack([_normal((2, self.arms), world) for world in self._world], 1)
        uniform = torch.stack([_uniform((2, self.arms), world) for world in self._world], 1)
        warm = self.pulls >= 2 * self.arms
        if warm:
            arm = self.scores(normal[0], uniform[0]).argmax(-1)
        else:
            arm = torch.full(self.mean.shape[:-1], self.pulls // 2)
        drawn = self.rewards.draw(uniform[1], normal[1])
        reward = drawn.expand_as(self.mean).gather(-1, arm.unsqueeze(-1)).squeeze(-1)
        self.history.add(arm, reward)
        if warm:
            self._update(arm)
        self.pulls += 1
        return arm, reward

    def _update(self, arm: Tensor) -> None:
        """Adam ascends the bound in the belief of the arm that was pulled."""
        index = arm.unsqueeze(-1)
        pair = index.unsqueeze(-1).expand(*index.shape, 2)
        mean, log_var, steps = (x.gather(-1, index).squeeze(-1) for x in (self.mean, self.log_var, self._steps))
        first, second = (x.gather(-2, pair).squeeze(-2) for x in (self._first, self._second))
        prior, likelihood = self.priors[arm], self.likelihood().at(index)
        draws = self._draws() if self.config.gradient == "samples" else None
        for update in range(self.config.updates):
            if draws is not None:
                gradient = sample_gradient(mean, log_var, draws[:, update], self.alpha, prior, likelihood)
            else:
                gradient = self._natural_gradient(mean, log_var, prior, likelihood)
            steps = steps + 1
            first, second, step = adam(torch.stack(gradient, -1), first, second, steps, self.config.lr)
            mean, log_var = mean + step[..., 0], log_var + step[..., 1]
        for tensor, value in ((self.mean, mean), (self.log_var, log_var), (self._steps, steps)):
            tensor.scatter_(-1, index, value.unsqueeze(-1))
        for tensor, value in ((self._first, first), (self._second, second)):
            tensor.scatter_(-2, pair, value.unsqueeze(-2))

    def _draws(self) -> Tensor:
        shape = (self.config.updates, self.config.samples)
        return torch.stack([_normal(shape, generator) for generator in self._noise])

    def _natural_gradient(
        self, mean: Tensor, log_var: Tensor, prior: NormalMixture, likelihood: Likelihood
    ) -> tuple[Tensor, Tensor]:
        """Of the exact bound over min(alpha, 1), no larger than 1: Adam would remember for thousands of steps how
        steep the plain gradient is where q is as narrow as at the start."""
        span = torch.asinh(self._reach * (-0.5 * log_var).exp()).unsqueeze(-1)
        points = torch.sinh(span * torch.linspace(-1, 1, self.config.samples, dtype=torch.float64))
        by_mean, by_log_var = quadrature_gradient(mean, log_var, points, self.alpha, prior, likelihood)
        boost = self.alpha.clamp_min(1)
        return (boost * log_var.exp() * by_mean).clamp(-1, 1), (2 * boost * by_log_var).clamp(-1, 1)

    def run(self, pulls: int) -> dict[str, Tensor]:
        """The next T `pulls`: `arm` and `reward[A, R, T]`, and the beliefs after each, `mean` and `std[A, R, K, T]`."""
        require(pulls >= 1, f"pulls must be at least 1, got {pulls}")
        rows = []
        for _ in range(pulls):
            arm, reward = self.pull()
            rows.append((arm, reward, self.mean.clone(), (0.5 * self.log_var).exp()))
        names = ("arm", "reward", "mean", "std")
        return {name: torch.stack(part, -1) for name, part in zip(names, zip(*rows, strict=True), strict=True)}


def behavior(history: dict[str, Tensor], rewards: NormalMixture, first: int = 0) -> dict[str, Tensor]:
    """What agents did from pull `first` on, by what `run` returned; `[A, R]` each, but `fraction[A, R, K]` of the arms.

    `width`, the beliefs' mean standard deviation over arms and pulls, and `pulled_width`, that of the arm pulled;
    `entropy` of the fractions in nats; `sharpe`, mean over variance of the rewards, as the paper has it; `regret`, by
    how much it misses that of the best arm.
    """
    part = {name: value[..., first:] for name, value in history.items()}
    arms = torch.arange(rewards.weight.shape[0])
    fraction = (part["arm"].unsqueeze(-2) == arms.unsqueeze(-1)).to(torch.float64).mean(-1)
    mean, variance = rewards.moments()
    sharpe = part["reward"].mean(-1) / part["reward"].var(-1, unbiased=False)
    return {
        "width": part["std"].mean((-2, -1)),
        "pulled_width": part["std"].gather(-2, part["arm"].unsqueeze(-2)).mean((-2, -1)),
        "fraction": fraction,
        "entropy": torch.special.entr(fraction).sum(-1),
        "sharpe": sharpe,
        "regret": (mean / variance).amax() - sharpe,
    }


def adam(gradient: Tensor, first: Tensor, second: Tensor, steps: Tensor, lr: float) -> tuple[Tensor, Tensor, Tensor]:
    """New moments and the step upwards, `[..., P]`, of Adam (arXiv:1412.6980) at step number `steps[...]`."""
    first, second = torch.lerp(gradient, first, BETAS[0]), torch.lerp(gradient.square(), second, BETAS[1])
    corrections = (1 - beta ** steps.unsqueeze(-1) for beta in BETAS)
    mean, square = (moment / part for moment, part in zip((first, second), corrections, strict=True))
    return first, second, lr * mean / (square.sqrt() + EPS)


def _fresh_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)
