"""Policy search in batches of episodes: ask for policies, play one episode with each, tell, and improve.

S seeds side by side, N episodes per batch, P parameters of one policy. Every episode that is played is counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindworks.core.policy import Actor, Policy
from mindworks.envs.batch import BatchEnv
from mindworks.envs.rollout import Trajectories, rollout
from mindworks.errors import require
from mindworks.policies.streams import Streams


class PolicySearch(ABC):
    """S searches side by side, each with its own random stream; `episodes_told[S]` counts what they have seen.

    `rho[S, R]` float64 is what is improved: the policy's parameters themselves, or those of a distribution over them.
    """

    needs_record = False
    acts_at_random = False
    rho: Tensor

    def __init__(self, policy: Policy, episodes: int, seeds: Sequence[int]) -> None:
        require(episodes >= 2, f"episodes must be at least 2 per batch, got {episodes}")
        self.policy, self.batch = policy, episodes
        self.streams = Streams(seeds)
        self.episodes_told = np.zeros(len(seeds), np.int64)
        self.steps_told = np.zeros(len(seeds), np.int64)

    @property
    @abstractmethod
    def theta(self) -> Tensor:
        """The policy `[S, P]` that the search stands for, float32."""

    @abstractmethod
    def ask(self) -> Tensor:
        """The policies of one batch, `[S, N, P]` float32, for one episode each."""

    @abstractmethod
    def _improve(self, theta: Tensor, episodes: Trajectories) -> None:
        """Change `rho` after a batch."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """What the last improvement did, lists with one entry per seed."""

    def actor(self, theta: Tensor, *, stochastic: bool | None = None) -> Actor:
        """The acting side of `theta[S, ..., P]`, by default as the search explores.

        A stochastic one draws from the search's own streams.
        """
        stochastic = self.acts_at_random if stochastic is None else stochastic
        return self.policy.actor(theta, None, self.streams.fresh() if stochastic else None)

    def episode_seeds(self) -> list[int]:
        """A fresh seed for every episode of one batch, `S * N` of them."""
        return self.streams.integers(self.batch).flatten().tolist()

    def tell(self, theta: Tensor, episodes: Trajectories) -> None:
        """Learn from one episode of each policy in `theta[S, N, P]`; row `s * N + n` of `episodes` is `theta[s, n]`'s.

        Raises `InputError` for another number of rows, and for episodes without a record where one is needed.
        """
        rows = len(self.streams) * self.batch
        require(len(episodes.lengths) == rows, f"episodes must have {rows} rows, got {len(episodes.lengths)}")
        recorded = episodes.rewards.shape[1] > 0 or not self.needs_record
        require(recorded, "episodes must be recorded: roll out with record=True")
        self.episodes_told += self.batch
        self.steps_told += episodes.lengths.reshape(-1, self.batch).sum(1)
        self._improve(theta, episodes)

    def state(self) -> dict[str, Any]:
        """Everything that decides what happens next, as nested dicts of tensors, arrays and plain values."""
        return {
            "rho": self.rho,
            "streams": self.streams.state(),
            "episodes": self.episodes_told,
            "steps": self.steps_told,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` of a search of the same shape returned."""
        ours, theirs = list(self.rho.shape), list(state["rho"].shape)
        require(ours == theirs, f"state must hold rho {ours}, got {theirs}")
        self.rho = state["rho"].clone()
        self.streams.load(state["streams"])
        self.episodes_told, self.steps_told = state["episodes"].copy(), state["steps"].copy()


class Search:
    """A policy search in an environment for `batches` batches; `curves[s]` lists the mean return of each batch.

    `env` has S * N rows. `history` keeps the search's metrics after every batch. `state` and `load` resume bit for bit.
    """

    def __init__(self, search: PolicySearch, env: BatchEnv, *, batches: int) -> None:
        rows = len(search.streams) * search.batch
        require(env.num_envs == rows, f"env must have {rows} rows, got {env.num_envs}")
        require(batches >= 1, f"batches must be at least 1, got {batches}")
        self.search, self.env, self.batches = search, env, batches
        self.curves: list[list[float]] = [[] for _ in range(len(search.streams))]
        self.history: list[dict[str, Any]] = []

    @property
    def step(self) -> int:
        """Batches played."""
        return len(self.history)

    @property
    def done(self) -> bool:
        """Whether all batches have been played."""
        return self.step >= self.batches

    def metrics(self) -> dict[str, Any]:
        """The mean return of the last batch per seed, and what the improvement after it did."""
        return {"return": [curve[-1] for curve in self.curves], **self.history[-1]}

    def advance(self) -> None:
        """One batch: ask, play, tell."""
        theta = self.search.ask()
        episodes = rollout(
            self.env, self.search.actor(theta), self.search.episode_seeds(), record=self.search.needs_record
        )
        self.search.tell(theta, episodes)
        for curve, mean in zip(self.curves, episodes.returns.reshape(len(self.curves), -1).mean(1), strict=True):
            curve.append(float(mean))
        self.history.append(self.search.metrics)

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on exactly here."""
        return {"search": self.search.state(), "curves": self.curves, "history": self.history}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self.search.load(state["search"])
        self.curves = [[float(value) for value in curve] for curve in state["curves"]]
        self.history = [dict(entry) for entry in state["history"]]


class Hyperpolicy:
    """A Gaussian with diagonal covariance over policies: rho `[..., 2 P]` is P means, then P log standard deviations.

    The policy that it draws is deterministic, and the same throughout an episode.
    """

    @staticmethod
    def start(policy: Policy, streams: Streams, *, mean_std: float, std: float) -> Tensor:
        """rho `[S, 2 P]`: means from N(0, mean_std^2), 0 for biases, and one standard deviation for all."""
        size = policy.num_parameters
        mean = streams.draw(lambda g: torch.randn(size, generator=g, dtype=torch.float64)) * mean_std
        for _, bias in policy.network.unflatten(policy.split(mean)[0]):
            bias.zero_()
        return torch.cat([mean, torch.full_like(mean, std).log()], -1)

    @staticmethod
    def draw(rho: Tensor, count: int, streams: Streams) -> Tensor:
        """`count` policies per seed, `[S, N, P]` float32: what acts is what is later weighed."""
        size = rho.shape[-1] // 2
        noise = streams.draw(lambda g: torch.randn(count, size, generator=g, dtype=torch.float64))
        mean, log_std = rho.unsqueeze(1).chunk(2, -1)
        return (mean + log_std.exp() * noise).float()


class NaturalPGPE(PolicySearch):
    """Policy gradients with parameter-based exploration along the natural gradient, one step per batch.

    rho += lr F^-1 grad J with J the mean return under the hyperpolicy and the batch's mean as its baseline: what POIS
    is without the use of a batch for more than one step, and without a bound. Sehnke et al., "Parameter-exploring
    policy gradients", Neural Networks 23, 2010; Miyamae et al., "Natural policy gradient methods with parameter-based
    exploration for control tasks", NeurIPS 2010.
    """

    def __init__(
        self,
        policy: Policy,
        seeds: Sequence[int],
        *,
        lr: float,
        episodes: int = 100,
        standardize: bool = True,
        initial_std: float = 1.0,
        initial_mean_std: float = 0.01,
    ) -> None:
        super().__init__(policy, episodes, seeds)
        for name, value in (("lr", lr), ("initial_std", initial_std), ("initial_mean_std", initial_mean_std)):
            require(value > 0, f"{name} must be positive, got {value}")
        self.lr, self.standardize = lr, standardize
        self.rho = Hyperpolicy.start(policy, self.streams, mean_std=initial_mean_std, std=initial_std)
        self._last: dict[str, Any] = {}

    @property
    def theta(self) -> Tensor:
        """The mean of the hyperpolicy, `[S, P]` float32."""
        return self.rho.chunk(2, -1)[0].float()

    @property
    def metrics(self) -> dict[str, Any]:
        """The mean standard deviation of the hyperpolicy, per seed."""
        return dict(self._last)

    def ask(self) -> Tensor:
        """N draws of the hyperpolicy, `[S, N, P]`."""
        return Hyperpolicy.draw(self.rho, self.batch, self.streams)

    def _improve(self, theta: Tensor, episodes: Trajectories) -> None:
        returns = torch.from_numpy(episodes.returns).view(-1, self.batch, 1)
        gain = returns - returns.mean(1, keepdim=True)
        if self.standardize:
            gain = gain / gain.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
        mean, log_std = self.rho.unsqueeze(1).chunk(2, -1)
        away = theta.double() - mean
        # F^-1 grad log nu is theta - mean for the means, and ((theta - mean)^2 / var - 1) / 2 for the log deviations
        natural = torch.cat([gain * away, gain * ((away / log_std.exp()).square() - 1) / 2], -1).mean(1)
        self.rho = self.rho + self.lr * natural
        self._last = {"std": self.rho.chunk(2, -1)[1].exp().mean(-1).tolist()}
