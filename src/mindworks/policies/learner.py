"""What the learners of parameter-based value functions share: S seeds side by side, a critic, ask and tell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindworks.core.adam import Adam
from mindworks.core.policy import Actor, Policy
from mindworks.envs.normalizer import RunningNorm
from mindworks.envs.rollout import Trajectories
from mindworks.errors import require, require_at_least
from mindworks.policies.critics import make_critic
from mindworks.policies.replay import PolicyReplay, Storage
from mindworks.policies.streams import Streams


def learnable(episodes: Trajectories) -> np.ndarray:
    """Steps `[N]` of each episode that lead to a next observation: all but the last of one that diverged."""
    return episodes.lengths - episodes.diverged


@dataclass(frozen=True)
class LearnerConfig:
    """Hyperparameters that all parameter-based value functions have."""

    population: int = 1
    """policies tried per generation; 1 is the published algorithm, more learn from several episodes at a time"""
    sigma: float = 1.0
    """standard deviation of the Gaussian noise on the policy's parameters"""
    probes: int = 0
    """learned probing states by whose answers the critic knows a policy (fingerprint); 0: it reads the parameters"""
    critic_hidden: tuple[int, ...] = (64, 64)
    """hidden sizes of the critic"""
    lr_policy: float = 1e-3
    """Adam step size of the policy"""
    lr_critic: float = 1e-3
    """Adam step size of the critic"""
    batch: int = 16
    """rows per critic step"""
    policy_capacity: int = 10_000
    """how many policies the replay keeps"""
    storage: Storage = "float32"
    """how the replay keeps them: float32, float16, or the seed of each one's noise"""
    survival_bonus: float = 0.0
    """reward per step that training leaves out (1 for Hopper and Walker2d)"""
    normalize_observations: bool = True
    """whether policies and critics see observations in units of their running mean and standard deviation"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "population", "batch", "policy_capacity")
        require_at_least(self, 0, "probes")
        require(self.sigma >= 0, f"sigma must not be negative, got {self.sigma}")
        require(self.lr_policy > 0, f"lr_policy must be positive, got {self.lr_policy}")
        require(self.lr_critic > 0, f"lr_critic must be positive, got {self.lr_critic}")


class Learner(ABC):
    """S learners side by side: `ask` for policies to try, roll them out, `tell` the episodes, repeat.

    theta `[S, P]` are the current policies, phi `[S, *members, Q]` the critics, `steps[S]` the environment steps told.
    All seeds share one shape and one clock but no numbers: each has its own random stream.
    """

    needs_record = False

    def __init__(
        self,
        policy: Policy,
        config: LearnerConfig,
        seeds: Sequence[int],
        *members: int,
        critic_extra: int = 0,
        recency: float = 0.0,
    ) -> None:
        self.policy, self.config = policy, config
        self.streams = Streams(seeds)
        self.critic = make_critic(policy, config.critic_hidden, config.probes, critic_extra)
        self.theta = self.streams.draw(lambda g: policy.init(generator=g))
        self.phi = self.streams.draw(lambda g: self.critic.init(*members, generator=g))
        self.policy_adam = Adam(self.theta, config.lr_policy)
        self.critic_adam = Adam(self.phi, config.lr_critic)
        self.replay = PolicyReplay(
            len(seeds),
            policy.num_parameters,
            config.population,
            config.policy_capacity,
            config.sigma,
            config.storage,
            recency,
        )
        self.norm = RunningNorm((policy.network.sizes[0],), leading=(len(seeds),))
        self.steps = np.zeros(len(seeds), np.int64)
        self.episodes = np.zeros(len(seeds), np.int64)
        self._proposal: tuple[Tensor, Tensor, Tensor] | None = None

    def ask(self) -> Tensor:
        """`population` policies around the current one, per seed: `[S, N, P]`."""
        base = self.theta.clone()
        noise_seeds = torch.from_numpy(self.streams.integers(self.config.population))
        proposed = self.replay.propose(base, noise_seeds)
        self._proposal = (proposed, base, noise_seeds)
        return proposed

    def actor(self, theta: Tensor, *, stochastic: bool = False, policy: Policy | None = None) -> Actor:
        """The acting side of `theta[S, ..., P]`, with this learner's observation normalisation.

        `policy` is their architecture, the learner's own by default.
        """
        normalizer = self.norm if self.config.normalize_observations else None
        return (policy or self.policy).actor(theta, normalizer, self.streams.fresh() if stochastic else None)

    def episode_seeds(self) -> list[int]:
        """A fresh seed per episode for one generation, `S * population` of them."""
        return self.streams.integers(self.config.population).flatten().tolist()

    def tell(self, theta: Tensor, episodes: Trajectories, active: np.ndarray | None = None) -> None:
        """Learn from one episode of each policy in `theta[S, N, P]`; row `s * N + n` of `episodes` is `theta[s, n]`'s.

        Seeds that are not in `active[S]` (all by default) are left exactly as they are.
        """
        seeds, count = theta.shape[:2]
        active = np.ones(seeds, bool) if active is None else active
        require(
            len(episodes.lengths) == seeds * count,
            f"episodes must have {seeds * count} rows, got {len(episodes.lengths)}",
        )
        recorded = episodes.rewards.shape[1] > 0 or not (self.needs_record or self.config.normalize_observations)
        require(recorded, "episodes must be recorded: roll out with record=True")
        base, noise_seeds = None, None
        if self._proposal is not None and self._proposal[0] is theta:
            _, base, noise_seeds = self._proposal
        lengths = episodes.lengths.reshape(seeds, count)
        returns = episodes.returns.reshape(seeds, count) - self.config.survival_bonus * lengths
        self.replay.add(
            theta,
            torch.from_numpy(returns),
            torch.from_numpy(learnable(episodes).reshape(seeds, count)),
            active,
            base,
            noise_seeds,
        )
        self._store(theta, episodes, active)
        if self.config.normalize_observations:
            seen = episodes.mask & np.repeat(active, count)[:, None]
            obs = episodes.observations[:, :-1].reshape(seeds, -1, episodes.observations.shape[-1])
            self.norm.update(obs, mask=seen.reshape(seeds, -1))
        self.steps += np.where(active, lengths.sum(1), 0)
        self.episodes += np.where(active, count, 0)
        self._learn(count, np.where(active, lengths.sum(1), 0), active)

    @abstractmethod
    def _store(self, theta: Tensor, episodes: Trajectories, active: np.ndarray) -> None:
        """Keep what the critic learns from, beyond the policies and their returns."""

    @abstractmethod
    def _learn(self, episodes: int, steps: np.ndarray, active: np.ndarray) -> None:
        """Critic steps, then policy steps, for `episodes` new episodes and `steps[S]` new steps of each seed."""

    def _ascend_policy(self, objective: Tensor, active: np.ndarray) -> None:
        (gradient,) = torch.autograd.grad(objective, self.theta)
        self.policy_adam.step(-gradient, active)

    def state(self) -> dict[str, Any]:
        """Everything that decides what happens next, as nested dicts of tensors, arrays and plain values.

        Much of it is shared with the learner: save or copy it before going on.
        """
        return {
            "theta": self.theta.detach(),
            "phi": self.phi.detach(),
            "policy_adam": self.policy_adam.state(),
            "critic_adam": self.critic_adam.state(),
            "streams": self.streams.state(),
            "replay": self.replay.state(),
            "norm": self.norm.state(),
            "steps": self.steps,
            "episodes": self.episodes,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` of a learner of the same shape returned."""
        for name in ("theta", "phi"):
            ours, theirs = list(getattr(self, name).shape), list(state[name].shape)
            require(ours == theirs, f"state must hold {name} {ours}, got {theirs}")
        with torch.no_grad():
            self.theta.copy_(state["theta"])
            self.phi.copy_(state["phi"])
        self.policy_adam.load(state["policy_adam"])
        self.critic_adam.load(state["critic_adam"])
        self.streams.load(state["streams"])
        self.replay.load(state["replay"])
        self.norm = RunningNorm.from_state(state["norm"])
        self.steps, self.episodes = state["steps"].copy(), state["episodes"].copy()
