"""PSSVF: a value function of the policy's parameters alone, learned from whole episodes.

V(theta) estimates the expected return of the policy theta from the start states. Faccio, Kirsch and Schmidhuber,
"Parameter-Based Value Functions", ICLR 2021, arXiv:2006.09226.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindworks.core.policy import Policy
from mindworks.envs.rollout import Trajectories
from mindworks.errors import InputError, require, require_at_least
from mindworks.policies.critics import FingerprintCritic
from mindworks.policies.learner import Learner, LearnerConfig


@dataclass(frozen=True)
class PSSVFConfig(LearnerConfig):
    """Hyperparameters of the PSSVF."""

    critic_steps: int = 10
    """critic steps per episode"""
    policy_steps: int = 10
    """policy steps per episode, after the critic's"""
    recency: float = 0.0
    """a policy of age a = 1, 2, ... is drawn with a probability in proportion to 1 / a^recency; 0 is uniform"""
    normalize_returns: bool = True
    """whether the critic predicts returns in units of the replay's mean and standard deviation"""
    log_returns: bool = False
    """whether the critic predicts log(1 + return); for returns that are never negative and span orders of magnitude"""
    ensemble: int = 1
    """critics per seed; the value is the least of their predictions. 1 is the published algorithm"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "critic_steps", "ensemble")
        require_at_least(self, 0, "policy_steps", "recency")


class PSSVF(Learner):
    """Learners with V(theta): try neighbours of the policy, regress their returns, climb the critic.

    With `population=1` this is the published algorithm: one episode, `critic_steps` of regression on uniform batches,
    `policy_steps` of Adam on V(theta). With N policies per generation the same number of steps per episode follow N
    episodes, so the policies that act are up to N episodes older than the critic's newest knowledge.
    """

    config: PSSVFConfig

    def __init__(self, policy: Policy, config: PSSVFConfig | None = None, seeds: Sequence[int] = (0,)) -> None:
        config = config or PSSVFConfig()
        super().__init__(policy, config, seeds, config.ensemble, recency=config.recency)
        # float64: returns of a policy that runs away can be finite and beyond float32
        self.center = torch.zeros(len(seeds), 1, dtype=torch.float64)
        self.scale = torch.ones(len(seeds), 1, dtype=torch.float64)

    def value(self, theta: Tensor, policy: Policy | None = None) -> Tensor:
        """Predicted returns `[S, N]` of `theta[S, N, P]`, in the reward's units (without the survival bonus).

        With probes, `policy` may be any architecture over the same observations and actions.
        """
        target = (self._predict(theta, policy) * self.scale + self.center).to(theta.dtype)
        return target.expm1() if self.config.log_returns else target

    @property
    def probes(self) -> Tensor:
        """The learned probing states `[S, M, K, D]` of the M critics of each seed, as normalised observations.

        Raises `InputError` for a learner without probes.
        """
        if not isinstance(self.critic, FingerprintCritic):
            raise InputError("probes must be above 0 in the configuration for a learner to have probing states")
        return self.critic.probes(self.phi).detach()

    def _predict(self, theta: Tensor, policy: Policy | None = None) -> Tensor:
        """The least prediction `[S, N]` of the seed's critics, in the units of the targets."""
        return self.critic.values(self.phi, theta, policy).amin(1)

    def _targets(self, returns: Tensor) -> Tensor:
        if not self.config.log_returns:
            return returns
        require(bool((returns >= 0).all()), f"log_returns needs returns that are not negative, got {returns.min():.3g}")
        return returns.log1p()

    def _store(self, theta: Tensor, episodes: Trajectories, active: np.ndarray) -> None:
        """Policies and their returns are all that the critic learns from."""

    def _learn(self, episodes: int, steps: np.ndarray, active: np.ndarray) -> None:
        self.fit_critic(self.config.critic_steps * episodes, active)
        self.theta.requires_grad_(True)
        active = active & (self.replay.size > 0)
        for _ in range(self.config.policy_steps * episodes):
            self._ascend_policy(self._predict(self.theta.unsqueeze(1)).sum(), active)
        self.theta.requires_grad_(False)

    def fit_critic(self, steps: int, active: np.ndarray | None = None) -> None:
        """Take `steps` of regression on the replay alone, as learning from a fixed set of policies asks."""
        active = (np.ones(len(self.streams), bool) if active is None else active) & (self.replay.size > 0)
        if not active.any():
            return
        if self.config.normalize_returns:
            for s in np.flatnonzero(active):
                values = self._targets(self.replay.values(int(s)))
                self.center[s], self.scale[s] = values.mean(), values.std(correction=0).clamp_min(1e-3)
        slots = self._draw((steps, self.config.batch), active)
        returns = self._targets(self.replay.policies.gather("value", slots))
        targets = ((returns - self.center.unsqueeze(-1)) / self.scale.unsqueeze(-1)).float()
        gradient = self.critic.regression(self.phi)
        for step in range(steps):
            theta = self.replay.theta(slots[:, step])
            self.critic_adam.step(gradient(theta, targets[:, step]), active)

    def _draw(self, shape: tuple[int, ...], active: np.ndarray | None = None) -> Tensor:
        """Slots `[S, *shape]` of the policies that the critic learns from."""
        return self.replay.draw(self.streams, shape, active)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "center": self.center, "scale": self.scale}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.center, self.scale = state["center"].clone(), state["scale"].clone()
