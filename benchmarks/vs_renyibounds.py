"""A pull of the Rényi bandit: sums, analytic gradients and one tensor of runs against the form of the published code.

The peer is that form written plainly (ucbtns/renyibounds, `common/simulations.py` and `common/utils.py`): one agent, a
list of rewards per arm, and after each pull ten Adam steps whose loss evaluates every remembered reward at each of 300
samples and goes through autograd, in float32. Ours is float64. Both do whole pulls: choose, reward, remember, update.
Asserted first, in float64: on the same samples both give the same bound and the same gradient. The unit is one pull of
one run. Rows with bar 0 are information. Run: `python benchmarks/vs_renyibounds.py`.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from mindworks.inference import BanditConfig, Likelihood, RenyiBandit, RenyiBound, log_joint, published_arms
from mindworks.inference.bandit import sample_gradient

ALPHAS = (1e-6, 0.5, 0.99999, 2.0, 10.0, 1e9)
SAMPLES, UPDATES, MEMORY = 300, 10, 1000
REWARDS, PRIORS = published_arms()


class ListOfRewards:
    """One agent whose rewards are lists and whose gradients come from autograd: the peer."""

    def __init__(self, alpha: float, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self.alpha, self.dtype = alpha, dtype
        self.generator = torch.Generator().manual_seed(seed)
        start = torch.tensor([25.0, math.log(8e-7)], dtype=dtype)
        self.beliefs = [nn.Parameter(start.clone()) for _ in range(3)]
        self.optimisers = [torch.optim.Adam([belief], lr=0.05) for belief in self.beliefs]
        self.rewards: list[list[float]] = [[], [], []]

    def fill(self, count: int) -> None:
        """Remember `count` rewards of every arm."""
        for arm in range(3):
            self.rewards[arm] = [self.reward(arm) for _ in range(count)]

    def reward(self, arm: int) -> float:
        """A reward of `arm`."""
        uniform = torch.rand((), generator=self.generator, dtype=torch.float64)
        normal = torch.randn((), generator=self.generator, dtype=torch.float64)
        return float(REWARDS[arm].draw(uniform, normal))

    def choose(self) -> int:
        """The arm with the largest draw of the mean over the belief's variance."""
        scores = []
        with torch.no_grad():
            for mean, log_var in self.beliefs:
                draw = torch.randn(1, generator=self.generator, dtype=self.dtype) * (log_var / 2).exp() + mean
                scores.append(float(draw / log_var.exp()))
        return max(range(3), key=scores.__getitem__)

    def bound(self, arm: int, noise: Tensor) -> Tensor:
        """The bound estimated from standard normal `noise[n]`, with every remembered reward in its graph."""
        mean, log_var = self.beliefs[arm]
        s = mean + (log_var / 2).exp() * noise
        prior = MixtureSameFamily(
            Categorical(PRIORS.weight[arm].to(self.dtype)),
            Normal(PRIORS.mean[arm].to(self.dtype), PRIORS.std[arm].to(self.dtype)),
        )
        rewards = torch.tensor(self.rewards[arm], dtype=self.dtype)
        log_likelihood = Normal(rewards, rewards.std() ** 2).log_prob(s.reshape(-1, 1)).mean(1)
        log_q = -0.5 * (2 * math.pi * log_var.exp()).log() - 0.5 * (s - mean) ** 2 / log_var.exp()
        log_ratio = (1 - self.alpha) * (prior.log_prob(s) + log_likelihood - log_q)
        return (torch.logsumexp(log_ratio, 0) - math.log(len(noise))) / (1 - self.alpha)

    def pull(self) -> None:
        """Choose, receive, remember, and take ten steps."""
        arm = self.choose()
        self.rewards[arm].append(self.reward(arm))
        if len(self.rewards[arm]) > MEMORY:
            del self.rewards[arm][0]
        for _ in range(UPDATES):
            self.optimisers[arm].zero_grad()
            noise = torch.randn(SAMPLES, generator=self.generator, dtype=self.dtype)
            (-self.bound(arm, noise)).backward()
            self.optimisers[arm].step()


def same_bound() -> float:
    """The largest relative difference of the two sides' bounds and gradients on the same samples, in float64."""
    worst = 0.0
    for alpha in (1e-6, 0.5, 2.0, 10.0, 1e9):
        peer = ListOfRewards(alpha, 0, torch.float64)
        peer.fill(50)
        noise = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        for arm in range(3):
            with torch.no_grad():
                peer.beliefs[arm].copy_(torch.tensor([14.0 + arm, 0.4], dtype=torch.float64))
            theirs = peer.bound(arm, noise)
            (slope,) = torch.autograd.grad(theirs, peer.beliefs[arm])
            rewards = torch.tensor(peer.rewards[arm], dtype=torch.float64)
            likelihood = Likelihood.of_rewards(rewards, "published")
            mean, log_var = peer.beliefs[arm].detach()
            s = mean + (0.5 * log_var).exp() * noise
            log_q = Normal(mean, (0.5 * log_var).exp()).log_prob(s)
            ours = RenyiBound(alpha).of(log_joint(s, PRIORS[arm], likelihood)[0] - log_q)
            order = torch.tensor(alpha, dtype=torch.float64)
            gradient = torch.stack(sample_gradient(mean, log_var, noise, order, PRIORS[arm], likelihood))
            worst = max(worst, float((ours / theirs.detach() - 1).abs()), float((gradient / slope - 1).abs().max()))
    return worst


def agents(runs: int, alphas: tuple[float, ...], remembered: int) -> RenyiBandit:
    """Our agents with `remembered` rewards of every arm, past the pulls that every arm gets first."""
    agent = RenyiBandit(REWARDS, PRIORS, alphas, range(runs), BanditConfig())
    agent.run(6)
    generator = torch.Generator().manual_seed(0)
    shape = (remembered, len(alphas), runs)
    for arm in range(3):
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        for reward in REWARDS[arm].draw(uniform, normal):
            agent.history.add(torch.full(shape[1:], arm), reward)
    return agent


def case(remembered: int, runs: int, alphas: tuple[float, ...], bar: float) -> dict[str, Any]:
    """Microseconds per pull and run with `remembered` rewards per arm."""
    ours, peer = agents(runs, alphas, remembered), ListOfRewards(0.5, 0)
    peer.fill(remembered)
    together, pulls = runs * len(alphas), 3
    ours_s, peer_s = _bench.compare(lambda: ours.run(pulls), lambda: [peer.pull() for _ in range(pulls)])
    title = f"{together} run{'s as one tensor' if together > 1 else ' alone'}, {remembered} rewards per arm"
    return _bench.row(title, ours_s / together, peer_s, bar, per=pulls)


def main() -> int:
    """Check that both sides agree, then run the cases; the status is 1 when a bar is missed."""
    torch.set_num_threads(1)
    difference = same_bound()
    if difference > 1e-6:
        print(f"vs_renyibounds: bounds or gradients differ by {difference:.1e}", file=sys.stderr)
        return 1
    rows = [case(count, 20, ALPHAS, 20.0) for count in (10, 100, 1000)]
    rows += [case(count, 1, (0.5,), 0.0) for count in (10, 100, 1000)]
    for row in rows:
        row["largest_difference"] = difference
    return 0 if _bench.write("vs_renyibounds", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
