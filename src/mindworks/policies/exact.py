"""Parameter-based value functions of finite processes, exactly: the oracle their gradients are held against.

Policies act on one-hot states, so `theta[..., P]` is a table of logits (or of actions) seen through the ordinary
`Policy`. Each function returns a pair: the gradient that `mindworks.policies.gradients` makes from an exact value
function, and the closed form of the policy gradient theorem, which never differentiates a value function in theta.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mindworks.core.finite_mdp import FiniteMDP, garnet, solve_occupancy, solve_value
from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.policies.gradients import deterministic_objective, state_objective, stochastic_objective

GradientPair = tuple[Tensor, Tensor]


def _gradient(objective: Tensor, theta: Tensor) -> Tensor:
    return torch.autograd.grad(objective.sum(), theta)[0]


def start_and_state_gradients(
    mdp: FiniteMDP, policy: Policy, theta: Tensor, start: Tensor, behavior: Tensor
) -> tuple[GradientPair, GradientPair]:
    """PSSVF gradient of V(theta) from `start[..., S]`, and PSVF gradient of E_{s~behavior}[V(s, theta)]."""
    states = torch.eye(mdp.reward.shape[-2], dtype=theta.dtype)
    theta = theta.detach().requires_grad_(True)

    def state_value(parameters: Tensor, states: Tensor) -> Tensor:
        return mdp.state_value(policy.features(parameters, states))

    of_start = _gradient((start * state_value(theta, states)).sum(-1), theta)
    of_states = _gradient((behavior * state_objective(state_value, theta, states)).sum(-1), theta)
    return (of_start, _theorem(mdp, policy, theta, start)), (of_states, _theorem(mdp, policy, theta, behavior))


def _theorem(mdp: FiniteMDP, policy: Policy, theta: Tensor, start: Tensor) -> Tensor:
    """Sutton's policy gradient theorem: sum_s d(s) sum_a grad pi(a|s) Q(s, a) with d the occupancy from `start`."""
    states = torch.eye(mdp.reward.shape[-2], dtype=theta.dtype)
    probabilities = policy.features(theta, states)
    with torch.no_grad():
        occupancy = mdp.occupancy(probabilities, start)
        q = mdp.action_value(mdp.state_value(probabilities))
    return _gradient((occupancy.unsqueeze(-1) * probabilities * q).sum((-2, -1)), theta)


def stochastic_action_gradient(
    mdp: FiniteMDP, policy: Policy, theta: Tensor, behavior: Tensor, behavior_policy: Tensor
) -> GradientPair:
    """PAVF gradient of E_{s~behavior}[V(s, theta)] from the behaviour's actions with importance weights, `[..., P]`.

    The expectation over `behavior[..., S]` and `behavior_policy[..., S, A]` is taken in full, action by action.
    """
    count = mdp.reward.shape[-1]
    states = torch.eye(mdp.reward.shape[-2], dtype=theta.dtype)
    theta = theta.detach().requires_grad_(True)

    def action_value(parameters: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        q = mdp.action_value(mdp.state_value(policy.features(parameters, states)))
        return q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    total = torch.zeros_like(behavior[..., 0])
    for a in range(count):
        actions = torch.full(behavior.shape, a)
        surrogate = stochastic_objective(action_value, policy, theta, states, actions, behavior_policy[..., a].log())
        total = total + (behavior * behavior_policy[..., a] * surrogate).sum(-1)
    return _gradient(total, theta), _theorem(mdp, policy, theta, behavior)


class SmoothActions:
    """Processes with one continuous action: P(s'|s, a) = softmax(base + slope a), r(s, a) = bonus - (a - target)^2."""

    def __init__(self, *leading: int, states: int, discount: float, generator: torch.Generator) -> None:
        def normal(*shape: int) -> Tensor:
            return torch.randn(*leading, *shape, generator=generator, dtype=torch.float64)

        self.base, self.slope = normal(states, states), normal(states, states)
        self.bonus, self.target, self.discount = normal(states), normal(states), discount

    def transition(self, actions: Tensor) -> Tensor:
        """P(s'|s, a_s) `[..., S, S']` for one action per state `[..., S]`."""
        return (self.base + self.slope * actions.unsqueeze(-1)).softmax(-1)

    def reward(self, actions: Tensor) -> Tensor:
        """r(s, a_s) `[..., S]`."""
        return self.bonus - (actions - self.target) ** 2

    def state_value(self, actions: Tensor) -> Tensor:
        """V `[..., S]` of always playing `actions[..., S]`."""
        return solve_value(self.transition(actions), self.reward(actions), self.discount)

    def action_value(self, actions: Tensor, state_value: Tensor) -> Tensor:
        """Q `[..., S]` of playing `actions[..., S]` once, then collecting `state_value[..., S]`."""
        return self.reward(actions) + self.discount * (self.transition(actions) @ state_value.unsqueeze(-1)).squeeze(-1)


def deterministic_action_gradient(mdp: SmoothActions, policy: Policy, theta: Tensor, behavior: Tensor) -> GradientPair:
    """PAVF gradient of E_{s~behavior}[V(s, theta)] for a deterministic policy, beside the theorem's closed form."""
    states = torch.eye(mdp.bonus.shape[-1], dtype=theta.dtype)
    theta = theta.detach().requires_grad_(True)

    def action_value(parameters: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        following = mdp.state_value(policy.action(parameters, states).squeeze(-1))
        return mdp.action_value(actions.squeeze(-1), following)

    objective = behavior * deterministic_objective(action_value, policy, theta, states)
    gradient = _gradient(objective.sum(-1), theta)
    actions = policy.action(theta, states).squeeze(-1)
    with torch.no_grad():
        value = mdp.state_value(actions)
        occupancy = solve_occupancy(mdp.transition(actions), behavior, mdp.discount)
    # Silver et al. 2014: sum_s d(s) grad_theta pi(s) grad_a Q(s, a) at a = pi(s), the value beyond held fixed
    return gradient, _gradient((occupancy * mdp.action_value(actions, value)).sum(-1), theta)


def largest_errors(count: int, seeds: Sequence[int], *, states: int = 8, actions: int = 3) -> dict[str, float]:
    """The largest difference between each gradient and its closed form over `count` random processes per seed."""
    shape = (len(seeds), count)
    generator = torch.Generator().manual_seed(seeds[0])

    def simplex(*size: int) -> Tensor:
        return torch.rand(*shape, *size, generator=generator, dtype=torch.float64).softmax(-1)

    mdp = garnet(count, states, actions, discount=0.9, seeds=seeds)
    softmax = Policy(MLP((states, actions)), Categorical(actions))
    theta = 3 * softmax.init(*shape, generator=generator, dtype=torch.float64)
    visited = simplex(states)
    pssvf, psvf = start_and_state_gradients(mdp, softmax, theta, simplex(states), visited)
    smooth = SmoothActions(*shape, states=states, discount=0.9, generator=generator)
    bounded = Policy(MLP((states, 1)), Box((-2.0,), (1.0,)))
    bounded_theta = 3 * bounded.init(*shape, generator=generator, dtype=torch.float64)
    pairs = {
        "PSSVF": pssvf,
        "PSVF": psvf,
        "PAVF stochastic": stochastic_action_gradient(mdp, softmax, theta, visited, simplex(states, actions)),
        "PAVF deterministic": deterministic_action_gradient(smooth, bounded, bounded_theta, visited),
    }
    return {name: float((gradient - theorem).abs().max()) for name, (gradient, theorem) in pairs.items()}
