"""Policy gradients of parameter-based value functions, as surrogates whose gradient in theta is the theorem's.

Faccio, Kirsch and Schmidhuber, "Parameter-Based Value Functions", ICLR 2021, arXiv:2006.09226. A value function that
takes the policy's parameters as input can be differentiated in them, so each gradient has a term that Off-PAC and DPG
drop. Value functions are callables that return `[..., B]`; theta is `[..., P]`, states `[..., B, D]`, actions
`[..., B, A]` or `[..., B]`. Maximise the mean of what is returned over the behaviour's state distribution.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mindworks.core.policy import Policy

StateValue = Callable[[Tensor, Tensor], Tensor]
ActionValue = Callable[[Tensor, Tensor, Tensor], Tensor]


def state_objective(value: StateValue, theta: Tensor, states: Tensor) -> Tensor:
    """V(s, theta) per state `[..., B]`; its gradient E_{s~d_b}[grad_theta V(s, theta)] is the PSVF's."""
    return value(theta, states)


def deterministic_objective(action_value: ActionValue, policy: Policy, theta: Tensor, states: Tensor) -> Tensor:
    """Q(s, pi_theta(s), theta) per state `[..., B]`: theta acts through the action and as the critic's input.

    Its gradient is E_{s~d_b}[grad_a Q grad_theta pi_theta(s) + grad_theta Q(s, a, theta) at a = pi_theta(s)].
    """
    return action_value(theta, states, policy.action(theta, states))


def stochastic_objective(
    action_value: ActionValue,
    policy: Policy,
    theta: Tensor,
    states: Tensor,
    actions: Tensor,
    behavior_log_prob: Tensor | None = None,
) -> Tensor:
    """Surrogate per sample `[..., B]` with gradient w (Q grad log pi_theta(a|s) + grad_theta Q(s, a, theta)).

    With `behavior_log_prob` `[..., B]`, the actions came from the behaviour policy and w = pi_theta(a|s) / pi_b(a|s).
    Without it w = 1: exact for actions drawn from pi_theta at these states, biased for actions of another policy.
    """
    log_prob = policy.log_prob(theta, states, actions)
    q = action_value(theta, states, actions)
    surrogate = q.detach() * log_prob + q
    if behavior_log_prob is None:
        return surrogate
    return (log_prob - behavior_log_prob).detach().exp() * surrogate
