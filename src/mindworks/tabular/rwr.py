"""Reward-weighted regression with exact expectations on finite processes.

Štrupl, Faccio, Ashley, Srivastava and Schmidhuber, "Reward-weighted regression converges to a global optimum",
AAAI 2022, arXiv:2107.09088. Shapes: S states, A actions, `...` leading dimensions, in which processes and policies
broadcast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mindworks.core.finite_mdp import MDP
from mindworks.errors import require


def rwr_step(mdp: MDP, policy: Tensor) -> tuple[Tensor, Tensor]:
    """The next policy `[..., S, A]`, and the value `[..., S]` of the one that was given.

    It maximises E[R log pi(a|s)] over states, actions and returns R of the policy given, without approximation. States
    of value 0 keep their row. Rewards must not be negative; rows must sum to 1. Nothing is normalised.
    """
    value = mdp.state_value(policy)
    # pi_{n+1}(a|s) = pi_n(a|s) Q_n(s, a) / V_n(s)
    ratio = mdp.action_value(value) / value.unsqueeze(-1)
    return policy * torch.where(value.unsqueeze(-1) > 0, ratio, 1.0), value


def rwr_weights(mdp: MDP, policy: Tensor, start: Tensor) -> Tensor:
    """The weight `[..., S, A]` of log pi(a|s) in the objective of RWR: discounted visits x pi(a|s) x Q(s, a).

    Visits are counted from `start[..., S]`. Normalised over actions these weights are the next policy.
    """
    q = mdp.action_value(mdp.state_value(policy))
    return mdp.occupancy(policy, start).unsqueeze(-1) * policy * q


def asymptotic_rate(mdp: MDP, tolerance: float = 1e-9) -> Tensor:
    """The factor `[...]` of RWR's error per iteration in the end: the largest Q*/V* of an action that is not optimal.

    0 where every action is optimal. Actions within `tolerance` (see `MDP.optimal_actions`) count as optimal.
    """
    value = mdp.optimal_value().unsqueeze(-1)
    counts = ~mdp.optimal_actions(tolerance) & (value > 0)
    ratio = mdp.action_value(value.squeeze(-1)) / torch.where(value > 0, value, 1.0)
    return torch.where(counts, ratio, 0.0).amax((-2, -1))


@dataclass(frozen=True)
class RWRRun:
    """What a run of RWR went through: n counts iterations, from 0, the policy it started with."""

    mdp: MDP
    values: Tensor
    """V of every policy, exactly, `[n + 1, ..., S]`"""
    policy: Tensor
    """the last policy, `[..., S, A]`"""
    earlier: Tensor
    """the policy a quarter of the run before, where `rate` starts to measure"""
    policies: Tensor | None = None
    """all of them, `[n + 1, ..., S, A]`, where they were kept"""

    def gaps(self) -> Tensor:
        """V* - V `[n + 1, ..., S]`."""
        return self.mdp.optimal_value() - self.values

    def errors(self) -> Tensor:
        """The largest gap over states, `[n + 1, ...]`."""
        return self.gaps().amax(-1)

    def rmsve(self) -> Tensor:
        """The root of the mean squared gap over states, `[n + 1, ...]`."""
        return self.gaps().square().mean(-1).sqrt()

    def largest_fall(self) -> Tensor:
        """By how much the value of any state fell in one iteration at most, `[...]`; negative where all rose."""
        return (self.values[:-1] - self.values[1:]).amax((0, -1))

    def rate(self) -> Tensor:
        """The factor `[...]` of the largest gap per iteration, measured over the last quarter of the run.

        Both ends are solved for by `MDP.value_gap`, so that rounding sets no floor. NaN where nothing is left to
        measure: no iteration was made, or the probabilities of all worse actions have become 0.
        """
        after, before = (self.mdp.value_gap(policy).amax(-1) for policy in (self.policy, self.earlier))
        iterations = len(self.values) - 1
        measurable = (after > 1e-250) & (iterations > 0)
        return torch.where(measurable, (after / before) ** (1 / _quarter(iterations)), torch.nan)

    @property
    def predicted_rate(self) -> Tensor:
        """The factor `[...]` that the process predicts: `asymptotic_rate(mdp)`."""
        return asymptotic_rate(self.mdp)


class RewardWeightedRegression:
    """RWR on a process or a batch of them: `run(policy, iterations)`."""

    def __init__(self, mdp: MDP) -> None:
        require_rewards(mdp)
        self.mdp = mdp

    def run(self, policy: Tensor, iterations: int, *, keep: bool = False) -> RWRRun:
        """Iterate from `policy[..., S, A]`, which must take every action; `keep` keeps all policies.

        Raises InputError where a probability is not positive, or a row does not sum to 1 within 1e-9.
        """
        require_policy(self.mdp, policy)
        return iterate(self.mdp, policy, iterations, lambda policy: rwr_step(self.mdp, policy), keep=keep)


def iterate(
    mdp: MDP, policy: Tensor, iterations: int, step: Callable[[Tensor], tuple[Tensor, Tensor]], *, keep: bool = False
) -> RWRRun:
    """The run of any `step` that turns a policy into the next one and the value of the one given."""
    require(iterations >= 0, f"iterations must be at least 0, got {iterations}")
    values, policies, earlier = [], [], policy
    for n in range(iterations):
        if n == iterations - _quarter(iterations):
            earlier = policy
        if keep:
            policies.append(policy)
        policy, value = step(policy)
        values.append(value)
    values.append(mdp.state_value(policy))
    kept = torch.stack([*policies, policy]) if keep else None
    return RWRRun(mdp, torch.stack(values), policy, earlier, kept)


def _quarter(iterations: int) -> int:
    """The iterations over which a rate is measured."""
    return max(1, iterations // 4)


def require_rewards(mdp: MDP) -> None:
    """Refuse rewards with which Q / V is no factor of a probability."""
    low = float(mdp.reward.min())
    require(
        low >= 0,
        f"reward must not be negative, got {low}: RWR multiplies probabilities by Q / V. "
        "Adding an offset is another algorithm with another rate",
    )


def require_policy(mdp: MDP, policy: Tensor) -> None:
    """Refuse policies that are none, or that RWR cannot lead everywhere."""
    shape = [mdp.num_states, mdp.num_actions]
    require(list(policy.shape[-2:]) == shape, f"policy must be [..., S, A] = [..., {shape}], got {list(policy.shape)}")
    require(policy.dtype == mdp.reward.dtype, f"policy must be {mdp.reward.dtype} as the rewards, got {policy.dtype}")
    low = float(policy.min())
    require(low > 0, f"policy must have full support, got a probability of {low}: RWR never revives an action at 0")
    off = float((policy.sum(-1) - 1).abs().max())
    require(off <= 1e-9, f"policy must sum to 1 over actions, got a row that is off by {off:.3g}")
