"""Finite Markov decision processes: evaluation, occupancy and the optimum by direct solves, batched.

S states, A actions, `...` any leading dimensions (seeds, processes, policies); those of a process and of a policy
broadcast. float64 throughout unless given otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mindworks.core.categorical import CategoricalRows
from mindworks.core.mdp_solve import SPARSE_FROM, solve, solve_indexed, system
from mindworks.errors import require


class MDP(ABC):
    """What both forms of a process share: rewards `r[..., S, A]`, a discount in [0, 1), values and optimum."""

    reward: Tensor
    discount: float

    @abstractmethod
    def expected_next(self, state_value: Tensor) -> Tensor:
        """P V `[..., S, A]`: the expectation of `state_value[..., S]` after one action."""

    @abstractmethod
    def induced(self, policy: Tensor) -> Tensor:
        """The Markov chain `P_pi[..., S, S']` of the policy `pi[..., S, A]`."""

    @abstractmethod
    def draw_next(self, state: Tensor, action: Tensor, uniform: Tensor) -> Tensor:
        """Next states `[..., N]` of states and actions `[..., N]`, given `uniform[..., N]` in [0, 1)."""

    @property
    def num_states(self) -> int:
        """S."""
        return int(self.reward.shape[-2])

    @property
    def num_actions(self) -> int:
        """A."""
        return int(self.reward.shape[-1])

    def action_value(self, state_value: Tensor) -> Tensor:
        """Q `[..., S, A]` of acting once, then collecting `state_value[..., S]`: r + discount P V."""
        return self.reward + self.discount * self.expected_next(state_value)

    def state_value(self, policy: Tensor) -> Tensor:
        """V `[..., S]` of the policy `pi[..., S, A]`, differentiable: the solution of V = r_pi + discount P_pi V."""
        return self._solve(policy, (policy * self.reward).sum(-1))

    def occupancy(self, policy: Tensor, start: Tensor) -> Tensor:
        """Discounted visits `[..., S]` from `start[..., S]`: sum over t of discount^t P(s_t = s)."""
        return self._solve(policy, start, transposed=True)

    def uniform_policy(self) -> Tensor:
        """The policy `[..., S, A]` that takes every action with the same probability."""
        return torch.full_like(self.reward, 1 / self.num_actions)

    def random_policy(self, leading: Sequence[int], generator: torch.Generator) -> Tensor:
        """Policies `[*leading, S, A]` of full support: uniform random weights, divided by their sum."""
        shape = (*leading, *self.reward.shape[-2:])
        weights = 1 - torch.rand(shape, generator=generator, dtype=self.reward.dtype)  # in (0, 1]
        return weights / weights.sum(-1, keepdim=True)

    def optimal_value(self) -> Tensor:
        """V* `[..., S]`: the value of the policy at which policy iteration stops."""
        return self._optimal_value

    def optimal_action_value(self) -> Tensor:
        """Q* `[..., S, A]`."""
        return self.action_value(self.optimal_value())

    def optimal_actions(self, tolerance: float = 1e-9) -> Tensor:
        """Which actions are optimal, bool `[..., S, A]`: Q* within `tolerance` times the largest |Q*| of the best."""
        q = self.optimal_action_value()
        scale = q.abs().amax((-2, -1), keepdim=True)
        return q >= q.amax(-1, keepdim=True) - tolerance * scale

    def value_gap(self, policy: Tensor, tolerance: float = 1e-9) -> Tensor:
        """V* - V `[..., S]` of the policy `pi[..., S, A]`, accurate relative to itself however small it is.

        The difference of the values ends in rounding; this one sums what is lost, V* - Q*, over the actions taken in
        the states visited, so nothing is subtracted from nearly the same. Optimal actions (`tolerance`) lose nothing.
        """
        q = self.optimal_action_value()
        lost = torch.where(self.optimal_actions(tolerance), 0.0, q.amax(-1, keepdim=True) - q)
        return self._solve(policy, (policy * lost).sum(-1))

    @cached_property
    def _optimal_value(self) -> Tensor:
        """Howard's policy iteration for all processes at once.

        A state changes its action only for a gain above rounding, so that ties rarely make it switch; and a process
        whose summed value does not rise goes no further. The second rule is what ends the loop: floating-point sums
        cannot rise without end.
        """
        with torch.no_grad():
            action = self.reward.argmax(-1)
            value = self.state_value(self._deterministic(action))
            rising = torch.ones_like(value[..., :1], dtype=torch.bool)
            noise = 8 * torch.finfo(value.dtype).eps
            while True:
                q = self.action_value(value)
                best, greedy = q.max(-1)
                gain = best - q.gather(-1, action.unsqueeze(-1)).squeeze(-1)
                switch = rising & (gain > noise * q.abs().amax((-2, -1)).unsqueeze(-1))
                if not switch.any():
                    return value
                action = torch.where(switch, greedy, action)
                new = self.state_value(self._deterministic(action))
                rising = new.sum(-1, keepdim=True) > value.sum(-1, keepdim=True)
                value = torch.where(rising, new, value)

    def _deterministic(self, action: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(action, self.num_actions).to(self.reward.dtype)

    def _solve(self, policy: Tensor, right: Tensor, *, transposed: bool = False) -> Tensor:
        """x `[..., S]` with x = b + discount P_pi x, or with P_pi^T where `transposed`."""
        return solve(system(self.induced(policy), self.discount), right, transposed=transposed)

    def _check(self) -> None:
        require(
            0 <= self.discount < 1,
            f"discount must be in [0, 1), got {self.discount} (at 1 a chain that never ends has no finite value)",
        )


@dataclass(frozen=True)
class FiniteMDP(MDP):
    """Transitions `P[..., S, A, S']` (rows sum to 1), expected rewards `r[..., S, A]` and a discount in [0, 1)."""

    transition: Tensor
    reward: Tensor
    discount: float

    def __post_init__(self) -> None:
        shape = tuple(self.transition.shape)
        require(len(shape) >= 3 and shape[-1] == shape[-3], f"transition must be [..., S, A, S], got shape {shape}")
        require(
            self.reward.shape == self.transition.shape[:-1],
            f"reward must be [..., S, A] = {list(shape[:-1])}, got {list(self.reward.shape)}",
        )
        self._check()
        sums = self.transition.sum(-1)
        require(
            bool((self.transition >= 0).all()) and torch.allclose(sums, torch.ones_like(sums)),
            "transition must hold probabilities that sum to 1 over the last dimension",
        )

    def expected_next(self, state_value: Tensor) -> Tensor:
        # one product with P as a [S A, S'] matrix: values of many policies on one process are a single matrix product
        flat = state_value.unsqueeze(-2) @ self.transition.flatten(-3, -2).mT
        return flat.squeeze(-2).unflatten(-1, self.reward.shape[-2:])

    def induced(self, policy: Tensor) -> Tensor:
        return torch.einsum("...sa,...sat->...st", policy, self.transition)

    def draw_next(self, state: Tensor, action: Tensor, uniform: Tensor) -> Tensor:
        return self._rows.draw(state * self.num_actions + action, uniform)

    @cached_property
    def _rows(self) -> CategoricalRows:
        return CategoricalRows(self.transition.flatten(-3, -2))


@dataclass(frozen=True)
class DeterministicMDP(MDP):
    """The index form: `successor[..., S, A]` holds the state that follows for sure; rewards and discount as ever.

    Q costs a gather instead of a product with P. From 500 states on, values and visits come from a sparse
    factorisation, one process after the other.
    """

    successor: Tensor
    reward: Tensor
    discount: float

    def __post_init__(self) -> None:
        shape = tuple(self.successor.shape)
        require(
            len(shape) >= 2 and not self.successor.is_floating_point() and self.successor.dtype != torch.bool,
            f"successor must be whole numbers [..., S, A], got {self.successor.dtype} of shape {shape}",
        )
        require(
            self.reward.shape == self.successor.shape,
            f"reward must be [..., S, A] = {list(shape)}, got {list(self.reward.shape)}",
        )
        self._check()
        low, high = int(self.successor.min()), int(self.successor.max())
        require(0 <= low <= high < shape[-2], f"successor must be states in [0, {shape[-2]}), got {low} to {high}")

    def dense(self) -> FiniteMDP:
        """The same process with its transitions as a tensor of zeros and ones."""
        ones = torch.nn.functional.one_hot(self.successor.long(), self.num_states)
        return FiniteMDP(ones.to(self.reward.dtype), self.reward, self.discount)

    def expected_next(self, state_value: Tensor) -> Tensor:
        if self.successor.ndim == 2:  # one process: half the operations
            return state_value[..., self._index]
        values, flat = _broadcast(state_value, self._index.flatten(-2), keep=1)
        return values.gather(-1, flat).unflatten(-1, self.reward.shape[-2:])

    def induced(self, policy: Tensor) -> Tensor:
        weights, successor = _broadcast(policy, self._index, keep=2)
        empty = weights.new_zeros(*weights.shape[:-1], self.num_states)
        return empty.scatter_add(-1, successor, weights)

    def draw_next(self, state: Tensor, action: Tensor, uniform: Tensor) -> Tensor:
        values, pair = _broadcast(self._index.flatten(-2), state * self.num_actions + action, keep=1)
        return values.gather(-1, pair)

    def _solve(self, policy: Tensor, right: Tensor, *, transposed: bool = False) -> Tensor:
        if self.num_states >= SPARSE_FROM:
            return solve_indexed(policy, self.successor, right, self.discount, transposed=transposed)
        weights, successor = _broadcast(-self.discount * policy, self._index, keep=2)
        ones = self._identity.expand(*weights.shape[:-1], self.num_states)
        return solve(ones.scatter_add(-1, successor, weights), right, transposed=transposed)

    @cached_property
    def _index(self) -> Tensor:
        return self.successor.long()

    @cached_property
    def _identity(self) -> Tensor:
        return torch.eye(self.num_states, dtype=self.reward.dtype, device=self.reward.device)


def _broadcast(first: Tensor, second: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Both tensors with common leading dimensions; the last `keep` of each stay as they are."""
    if first.shape[:-keep] == second.shape[:-keep]:
        return first, second
    leading = torch.broadcast_shapes(first.shape[:-keep], second.shape[:-keep])
    return first.expand(*leading, *first.shape[-keep:]), second.expand(*leading, *second.shape[-keep:])
