"""PSVF and PAVF: values of a state (and an action) and of the policy's parameters, learned by temporal differences.

V(s, theta) and Q(s, a, theta) estimate the discounted return of following policy theta. Faccio, Kirsch and Schmidhuber,
"Parameter-Based Value Functions", ICLR 2021, arXiv:2006.09226.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mindworks.core.policy import Actor, Categorical, Policy
from mindworks.envs.rollout import Trajectories
from mindworks.errors import require, require_at_least
from mindworks.policies.gradients import deterministic_objective, state_objective, stochastic_objective
from mindworks.policies.learner import Learner, LearnerConfig, learnable
from mindworks.policies.replay import Ring


@dataclass(frozen=True)
class TDConfig(LearnerConfig):
    """Hyperparameters of the PSVF and the PAVF."""

    discount: float = 0.99
    """discount factor, in [0, 1)"""
    update_every: int = 50
    """environment steps per round of updates"""
    critic_steps: int = 5
    """critic steps per round"""
    policy_steps: int = 1
    """policy steps per round, after the critic's"""
    policy_batch: int = 10_000
    """states per policy step"""
    capacity: int = 100_000
    """how many transitions the replay keeps"""
    reward_scale: float = 1.0
    """rewards are multiplied by this before the critic sees them"""
    stochastic: bool = False
    """whether behaviour samples its actions; the PAVF then uses the stochastic policy gradient"""
    importance: bool = True
    """whether the stochastic policy gradient is corrected by the ratio of policy to behaviour; without it new actions
    are drawn from the policy at the stored states"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.discount < 1, f"discount must be in [0, 1), got {self.discount}")
        require_at_least(self, 1, "update_every", "critic_steps", "policy_batch", "capacity")
        require_at_least(self, 0, "policy_steps")
        require(self.reward_scale > 0, f"reward_scale must be positive, got {self.reward_scale}")


class TDLearner(Learner):
    """The part PSVF and PAVF share: a replay of transitions with the policies that made them, and TD(0) regression."""

    config: TDConfig
    needs_record = True

    def __init__(self, policy: Policy, config: TDConfig, seeds: Sequence[int], critic_extra: int) -> None:
        super().__init__(policy, config, seeds, critic_extra=critic_extra)
        self.discrete = isinstance(policy.head, Categorical)
        sampled = self.discrete or policy.gaussian
        require(
            sampled or not config.stochastic,
            "stochastic needs a discrete or a gaussian policy, got a deterministic one",
        )
        width = policy.network.sizes[0]
        action = ((), torch.int64) if self.discrete else ((policy.action_size,), torch.float32)
        self.transitions = Ring(
            len(seeds),
            config.capacity,
            {
                "policy": ((), torch.int64),
                "obs": ((width,), torch.float32),
                "action": action,
                "log_prob": ((), torch.float32),
                "reward": ((), torch.float32),
                "next_obs": ((width,), torch.float32),
                "terminated": ((), torch.bool),
            },
        )
        self.steps_due = np.zeros(len(seeds), np.int64)

    def actor(self, theta: Tensor, *, stochastic: bool | None = None, policy: Policy | None = None) -> Actor:
        """The acting side of `theta[S, ..., P]`; it samples actions if the configuration says so."""
        sampled = self.config.stochastic if stochastic is None else stochastic
        return super().actor(theta, stochastic=sampled, policy=policy)

    def _normalize(self, obs: Tensor) -> Tensor:
        """Observations `[S, ..., D]` in units of the running mean and standard deviation."""
        if not self.config.normalize_observations:
            return obs
        shape = (obs.shape[0], *(1,) * (obs.ndim - 2), obs.shape[-1])
        mean, std = (torch.as_tensor(x, dtype=torch.float32).reshape(shape) for x in (self.norm.mean, self.norm.std))
        return (obs - mean) / std

    def _store(self, theta: Tensor, episodes: Trajectories, active: np.ndarray) -> None:
        seeds, count = theta.shape[:2]
        longest = episodes.actions.shape[1]
        obs = torch.from_numpy(episodes.observations).unflatten(0, (seeds, count))
        actions = torch.from_numpy(episodes.actions).unflatten(0, (seeds, count))
        log_prob = torch.zeros(seeds, count, longest)
        if self.config.stochastic:
            log_prob = self.policy.log_prob(theta, self._normalize(obs[:, :, :-1]), actions)
        ages = count - 1 - torch.arange(count).expand(seeds, count)
        slots = self.replay.policies.slots(ages).unsqueeze(-1).expand(seeds, count, longest)
        last = torch.arange(longest) == torch.from_numpy(episodes.lengths).reshape(seeds, count, 1) - 1
        terminated = last & torch.from_numpy(episodes.terminated).reshape(seeds, count, 1)
        reward = torch.from_numpy(episodes.rewards).unflatten(0, (seeds, count)) - self.config.survival_bonus
        fields = {
            "policy": slots,
            "obs": obs[:, :, :-1],
            "action": actions,
            "log_prob": log_prob,
            "reward": (reward * self.config.reward_scale).float(),
            "next_obs": obs[:, :, 1:],
            "terminated": terminated,
        }
        lengths = learnable(episodes).reshape(seeds, count)
        for n in range(count):  # episode by episode, so that padding is never stored
            self.transitions.add({k: v[:, n] for k, v in fields.items()}, np.where(active, lengths[:, n], 0))

    def _usable(self) -> np.ndarray:
        """How many of the newest transitions of each seed still have their policy in the replay, `[S]`."""
        stored = [int(self.replay.lengths(s).sum()) for s in range(len(self.streams))]
        return np.minimum(self.transitions.size, stored)

    def _sample(self, batch: int, active: np.ndarray) -> Tensor:
        """Slots `[S, batch]` of transitions, uniform with replacement; seeds that are not active draw nothing."""
        return self.transitions.draw(self.streams, (batch,), np.where(active, self._usable(), 0))

    def _act(self, theta: Tensor, obs: Tensor, active: np.ndarray) -> Tensor:
        """Actions of `theta[S, ..., P]` at `obs[S, ..., D]`; inactive seeds draw nothing and play the mode."""
        actions = self.policy.mode(theta, obs)
        if self.config.stochastic:
            for s in np.flatnonzero(active):
                actions[s] = self.policy.sample(theta[s], obs[s], self.streams.torch[s])
        return actions

    def _encode(self, actions: Tensor) -> Tensor:
        """Actions as the critic sees them: one-hot if discrete."""
        return one_hot(actions, self.policy.action_size).float() if self.discrete else actions

    @abstractmethod
    def _next_value(self, theta: Tensor, next_obs: Tensor, active: np.ndarray) -> Tensor:
        """The critic's value `[S, B]` of following `theta[S, B, P]` from `next_obs[S, B, D]`."""

    @abstractmethod
    def _prediction(self, theta: Tensor, obs: Tensor, actions: Tensor, parts: Any) -> Tensor:
        """The critic's value `[S, B]` at the start of the transitions of `theta[S, B, P]`."""

    @abstractmethod
    def _objective(self, slots: Tensor, active: np.ndarray) -> Tensor:
        """Per-state objective `[S, B]` of the current policy at the transitions in `slots[S, B]`."""

    def _critic_step(self, active: np.ndarray) -> None:
        slots = self._sample(self.config.batch, active)
        row = {name: self.transitions.gather(name, slots) for name in self.transitions.data}
        theta = self.replay.theta(row["policy"])
        with torch.no_grad():
            following = self._next_value(theta, self._normalize(row["next_obs"]), active)
            target = row["reward"] + self.config.discount * following.where(~row["terminated"], 0.0)
        leaves = self.critic.leaves(self.phi)
        prediction = self._prediction(theta, self._normalize(row["obs"]), row["action"], leaves)
        loss = (prediction - target).square().mean(-1).sum()
        self.critic_adam.step(self.critic.gradient(loss, leaves), active)

    def _learn(self, episodes: int, steps: np.ndarray, active: np.ndarray) -> None:
        self.steps_due += steps
        while (now := active & (self.steps_due >= self.config.update_every)).any():
            self.steps_due -= np.where(now, self.config.update_every, 0)
            self.learn_round(now)

    def learn_round(self, active: np.ndarray | None = None) -> None:
        """One round of critic steps and policy steps on the replay alone, as learning from fixed data asks."""
        active = (np.ones(len(self.streams), bool) if active is None else active) & (self._usable() > 0)
        if not active.any():
            return
        for _ in range(self.config.critic_steps):
            self._critic_step(active)
        for _ in range(self.config.policy_steps):
            slots = self._sample(self.config.policy_batch, active)
            self.theta.requires_grad_(True)
            self._ascend_policy(self._objective(slots, active).mean(-1).sum(), active)
            self.theta.requires_grad_(False)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "transitions": self.transitions.state(), "steps_due": self.steps_due}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.transitions.load(state["transitions"])
        self.steps_due = state["steps_due"].copy()


class PSVF(TDLearner):
    """Learners with V(s, theta): TD(0) on transitions of many policies, then ascent on E_{s~d_b}[V(s, theta)]."""

    def __init__(self, policy: Policy, config: TDConfig | None = None, seeds: Sequence[int] = (0,)) -> None:
        super().__init__(policy, config or TDConfig(), seeds, policy.network.sizes[0])

    def value(self, theta: Tensor, obs: Tensor, parts: Any = None) -> Tensor:
        """V(s, theta) `[S, B]` for normalised `obs[S, B, D]` and `theta[S, B, P]`, or `[S, 1, P]` for all."""
        return self.critic.apply(self.critic.unflatten(self.phi) if parts is None else parts, theta, obs)

    def _next_value(self, theta: Tensor, next_obs: Tensor, active: np.ndarray) -> Tensor:
        return self.value(theta, next_obs)

    def _prediction(self, theta: Tensor, obs: Tensor, actions: Tensor, parts: Any) -> Tensor:
        return self.value(theta, obs, parts)

    def _objective(self, slots: Tensor, active: np.ndarray) -> Tensor:
        obs = self._normalize(self.transitions.gather("obs", slots))
        return state_objective(lambda theta, states: self.value(theta.unsqueeze(-2), states), self.theta, obs)


class PAVF(TDLearner):
    """Learners with Q(s, a, theta): TD(0) with the behaviour's next action, then the policy gradient, both terms.

    Deterministic behaviour (continuous actions) uses the deterministic gradient, stochastic behaviour its own.
    """

    def __init__(self, policy: Policy, config: TDConfig | None = None, seeds: Sequence[int] = (0,)) -> None:
        config = config or TDConfig()
        discrete = isinstance(policy.head, Categorical)
        require(
            config.stochastic or not discrete, "stochastic must be True for discrete actions: argmax has no gradient"
        )
        super().__init__(policy, config, seeds, policy.network.sizes[0] + policy.action_size)

    def value(self, theta: Tensor, obs: Tensor, actions: Tensor, parts: Any = None) -> Tensor:
        """Q(s, a, theta) `[S, B]`, shapes as in `PSVF.value`; actions `[S, B, A]`, or `[S, B]` if discrete."""
        parts = self.critic.unflatten(self.phi) if parts is None else parts
        return self.critic.apply(parts, theta, obs, self._encode(actions))

    def _next_value(self, theta: Tensor, next_obs: Tensor, active: np.ndarray) -> Tensor:
        actions = self._act(theta, next_obs.unsqueeze(-2), active).squeeze(-1 if self.discrete else -2)
        return self.value(theta, next_obs, actions)

    def _prediction(self, theta: Tensor, obs: Tensor, actions: Tensor, parts: Any) -> Tensor:
        return self.value(theta, obs, actions, parts)

    def _objective(self, slots: Tensor, active: np.ndarray) -> Tensor:
        obs = self._normalize(self.transitions.gather("obs", slots))

        def action_value(theta: Tensor, states: Tensor, actions: Tensor) -> Tensor:
            return self.value(theta.unsqueeze(-2), states, actions)

        if not self.config.stochastic:
            return deterministic_objective(action_value, self.policy, self.theta, obs)
        if not self.config.importance:
            actions = self._act(self.theta.detach(), obs, active)
            return stochastic_objective(action_value, self.policy, self.theta, obs, actions)
        actions, log_prob = (self.transitions.gather(name, slots) for name in ("action", "log_prob"))
        return stochastic_objective(action_value, self.policy, self.theta, obs, actions, log_prob)
