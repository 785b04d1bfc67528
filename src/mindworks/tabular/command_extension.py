"""Command extension of a finite process: a state carries a goal and the number of steps left to reach it.

Štrupl, Faccio, Ashley, Schmidhuber and Srivastava, "Upside-Down Reinforcement Learning Can Diverge in Stochastic
Environments With Episodic Resets", 2022, arXiv:2205.06595.

S states, A actions, G goals, N the longest horizon; `...` any leading dimensions (kernels, initial policies). On an
axis of horizons, index h - 1 holds h steps left. float64 throughout: the claims are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mindworks.core.finite_mdp import FiniteMDP
from mindworks.errors import require


@dataclass(frozen=True)
class CommandExtension:
    """A process of states (s, h, g) that pays 1 if the state `s'` that it ends in, as h falls from 1 to 0, maps to g.

    `transition[..., S, A, S']` is the kernel beneath, `goal_map[S]` gives the goal of every state, `horizon` is N, and
    `start[..., S, N, G]` the probability of starting in (s, h, g). A step lowers h by one and keeps g; an episode ends
    at h = 0. A policy is `[..., S, N, G, A]`. Leading dimensions broadcast.
    """

    transition: Tensor
    goal_map: Tensor
    horizon: int
    start: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.transition.shape)
        require(len(shape) >= 3 and shape[-1] == shape[-3], f"transition must be [..., S, A, S], got shape {shape}")
        require(self.transition.dtype == torch.float64, f"transition must be float64, got {self.transition.dtype}")
        require(self.start.dtype == torch.float64, f"start must be float64, got {self.start.dtype}")
        require(self.horizon >= 1, f"horizon must be at least 1, got {self.horizon}")
        start = tuple(self.start.shape)
        require(
            len(start) >= 3 and start[-3:-1] == (shape[-1], self.horizon) and start[-1] >= 1,
            f"start must be [..., S, N, G] = [..., {shape[-1]}, {self.horizon}, G], got shape {start}",
        )
        goals = self.goal_map
        require(
            goals.shape == shape[-1:]
            and goals.dtype == torch.int64
            and bool(((goals >= 0) & (goals < start[-1])).all()),
            f"goal_map must hold {shape[-1]} integers in [0, {start[-1]}), got {goals.tolist()}",
        )
        for name, given, total in (("transition", self.transition, -1), ("start", self.start, (-3, -2, -1))):
            sums_to_one = ((given.sum(total) - 1).abs() <= 1e-9).all()
            require(bool((given >= 0).all() & sums_to_one), f"{name} must hold probabilities that sum to 1")

    @property
    def states(self) -> int:
        """S."""
        return self.transition.shape[-1]

    @property
    def actions(self) -> int:
        """A."""
        return self.transition.shape[-2]

    @property
    def goals(self) -> int:
        """G."""
        return self.start.shape[-1]

    @property
    def batch(self) -> tuple[int, ...]:
        """Leading dimensions of kernel and start together."""
        return np.broadcast_shapes(self.transition.shape[:-3], self.start.shape[:-3])

    @cached_property
    def hits(self) -> Tensor:
        """One row per state, `[S, G]`: 1 at the goal of the state."""
        return torch.nn.functional.one_hot(self.goal_map, self.goals).to(self.transition)

    @cached_property
    def hit_probability(self) -> Tensor:
        """Probability `[..., S, A, G]` that one step ends in a state of goal g."""
        return self.transition @ self.hits

    def uniform_policy(self) -> Tensor:
        """The policy `[S, N, G, A]` that draws every action with probability 1/A."""
        shape = (self.states, self.horizon, self.goals, self.actions)
        return torch.full(shape, 1 / self.actions, dtype=torch.float64, device=self.transition.device)

    def check_policy(self, policy: Tensor) -> None:
        """Refuse what is not a policy `[..., S, N, G, A]` of float64 probabilities over the last dimension."""
        shape = (self.states, self.horizon, self.goals, self.actions)
        require(
            policy.shape[-4:] == shape, f"policy must be [..., S, N, G, A] = [..., {shape}], got {tuple(policy.shape)}"
        )
        require(policy.dtype == torch.float64, f"policy must be float64, got {policy.dtype}")
        require(
            bool((policy >= 0).all() & ((policy.sum(-1) - 1).abs() <= 1e-9).all()),
            "policy must hold probabilities that sum to 1 over the last dimension",
        )

    def action_value(self, policy: Tensor) -> Tensor:
        """Q `[..., S, N, G, A]`: probability of reaching g in exactly h steps, acting with a and then with `policy`."""
        values = [self._first()]
        for h in range(1, self.horizon):
            value = (policy[..., h - 1, :, :] * values[-1]).sum(-1)
            values.append(self._backup(value))
        return torch.stack(torch.broadcast_tensors(*values), -3)

    def state_value(self, policy: Tensor) -> Tensor:
        """V `[..., S, N, G]`: probability that `policy` reaches g in exactly h steps."""
        return (policy * self.action_value(policy)).sum(-1)

    def objective(self, policy: Tensor) -> Tensor:
        """J `[...]`: probability that an episode ends in its goal."""
        return (self.start * self.state_value(policy)).sum((-3, -2, -1))

    def visits(self, policy: Tensor) -> Tensor:
        """Expected visits `[..., S, N, G]` of (s, h, g) in an episode; linear in the policy's numbers at every step."""
        now = self.start[..., -1, :]
        levels = [now]
        for h in range(self.horizon - 1, 0, -1):
            acted = now.unsqueeze(-1) * policy[..., h, :, :]  # [..., S, G, A]
            arrived = torch.einsum("...sga,...sat->...tg", acted, self.transition)
            now = self.start[..., h - 1, :] + arrived
            levels.append(now)
        return torch.stack(torch.broadcast_tensors(*levels[::-1]), -2)

    def optimum(self) -> Optimum:
        """The best values, actions and objective by backward induction; ties are decided exactly."""
        q = self._first()
        values: list[Tensor] = []
        actions: list[Tensor] = []
        for _ in range(self.horizon):
            values.append(q.amax(-1))
            actions.append(q == values[-1].unsqueeze(-1))
            q = self._backup(values[-1])
        value = torch.stack(values, -2)
        return Optimum((self.start * value).sum((-3, -2, -1)), value, torch.stack(actions, -3))

    def as_mdp(self, discount: float) -> FiniteMDP:
        """The same process with SNG + 1 plain states: (s, h, g) at index (s N + h - 1) G + g, and the end last.

        Its values are discount^(h - 1) V(s, h, g): the factor is the same for all actions of a state.
        """
        require(0 < discount < 1, f"discount must be in (0, 1), got {discount}")
        shape = (self.states, self.horizon, self.goals)
        batch, count = self.batch, self.states * self.horizon * self.goals
        transition = torch.zeros(*batch, *shape, self.actions, count + 1, dtype=torch.float64)
        inner = transition[..., :-1].unflatten(-1, shape)
        for h in range(1, self.horizon):
            for g in range(self.goals):
                inner[..., :, h, g, :, :, h - 1, g] = self.transition
        transition[..., :, 0, :, :, -1] = 1
        end = torch.zeros(*batch, 1, self.actions, count + 1, dtype=torch.float64)
        end[..., -1] = 1
        reward = torch.zeros(*batch, count + 1, self.actions, dtype=torch.float64)
        reward[..., :-1, :].unflatten(-2, shape)[..., 0, :, :] = self._first()
        return FiniteMDP(torch.cat([transition.flatten(-5, -3), end], -3), reward, discount)

    def _first(self) -> Tensor:
        """Q `[..., S, G, A]` with one step left."""
        return self.hit_probability.mT

    def _backup(self, value: Tensor) -> Tensor:
        """Q `[..., S, G, A]` of acting once and then collecting `value[..., S', G]`."""
        return (self.transition @ value.unsqueeze(-3)).mT


@dataclass(frozen=True)
class Optimum:
    """`objective[...]`, `value[..., S, N, G]` and the mask `actions[..., S, N, G, A]` of all optimal actions."""

    objective: Tensor
    value: Tensor
    actions: Tensor

    @property
    def policy(self) -> Tensor:
        """The optimal policy `[..., S, N, G, A]` that draws evenly among optimal actions."""
        return self.actions / self.actions.sum(-1, keepdim=True, dtype=torch.float64)
