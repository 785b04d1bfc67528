"""Finite Markov decision processes as exact tensors: evaluation and occupancy by direct solves, batched.

S states, A actions, `...` any leading dimensions (seeds, processes). float64 throughout unless given otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mindworks.errors import require


@dataclass(frozen=True)
class FiniteMDP:
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
        require(0 <= self.discount < 1, f"discount must be in [0, 1), got {self.discount}")
        sums = self.transition.sum(-1)
        require(
            bool((self.transition >= 0).all()) and torch.allclose(sums, torch.ones_like(sums)),
            "transition must hold probabilities that sum to 1 over the last dimension",
        )

    def action_value(self, state_value: Tensor) -> Tensor:
        """Q `[..., S, A]` of acting once, then collecting `state_value[..., S]`: r + discount P V."""
        return self.reward + self.discount * (self.transition @ state_value[..., None, :, None]).squeeze(-1)

    def state_value(self, policy: Tensor) -> Tensor:
        """V `[..., S]` of the policy `pi[..., S, A]`, differentiable: the solution of V = r_pi + discount P_pi V."""
        reward = (policy * self.reward).sum(-1)
        return solve_value(self.induced(policy), reward, self.discount)

    def induced(self, policy: Tensor) -> Tensor:
        """The Markov chain `P_pi[..., S, S']` of the policy `pi[..., S, A]`."""
        return (policy.unsqueeze(-2) @ self.transition).squeeze(-2)

    def occupancy(self, policy: Tensor, start: Tensor) -> Tensor:
        """Discounted visits `[..., S]` from `start[..., S]`: sum over t of discount^t P(s_t = s)."""
        return solve_occupancy(self.induced(policy), start, self.discount)


def solve_value(chain: Tensor, reward: Tensor, discount: float) -> Tensor:
    """V `[..., S]` with V = reward + discount chain V, for a Markov chain `[..., S, S']` and rewards `[..., S]`."""
    system = torch.eye(chain.shape[-1], dtype=chain.dtype) - discount * chain
    return torch.linalg.solve(system, reward.unsqueeze(-1)).squeeze(-1)


def solve_occupancy(chain: Tensor, start: Tensor, discount: float) -> Tensor:
    """d `[..., S]` with d = start + discount chain^T d: discounted visits of a Markov chain `[..., S, S']`."""
    system = torch.eye(chain.shape[-1], dtype=chain.dtype) - discount * chain.mT
    return torch.linalg.solve(system, start.unsqueeze(-1)).squeeze(-1)


def garnet(
    count: int, states: int, actions: int, *, discount: float, seeds: Sequence[int], branching: int | None = None
) -> FiniteMDP:
    """Random processes `[seeds, count]`: each (s, a) leads to `branching` states (all by default), rewards N(0, 1).

    Transition probabilities are uniform on the simplex over the chosen successors. The Garnet family of Archibald,
    McKinnon and Thomas, "On the generation of Markov decision processes", J. Oper. Res. Soc. 46, 1995.
    """
    branching = states if branching is None else branching
    require(
        min(count, states, actions) >= 1, f"count, states and actions must be positive, got {count, states, actions}"
    )
    require(len(seeds) >= 1, "seeds must not be empty")
    require(1 <= branching <= states, f"branching must be in [1, {states}], got {branching}")
    transitions, rewards = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        shape = (count, states, actions, states)
        weights = -torch.rand(shape, generator=generator, dtype=torch.float64).clamp_min(1e-300).log()
        order = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(-1)
        weights = torch.where(order < branching, weights, 0.0)
        transitions.append(weights / weights.sum(-1, keepdim=True))
        rewards.append(torch.randn(shape[:-1], generator=generator, dtype=torch.float64))
    return FiniteMDP(torch.stack(transitions), torch.stack(rewards), discount)
