"""Multi-step Bellman operators of a set of behaviours on finite processes, exactly: highway and its rivals.

Wang, Strupl, Faccio, Wu, Liu, Grudzien, Tan and Schmidhuber, "Highway Reinforcement Learning", 2024, arXiv:2405.18289.

S states, A actions, M policies in a set, n the lookahead, `...` leading dimensions, in which processes, sets of
policies and values broadcast. With (B V)(s) = max_a [r + discount P V](s, a), and B^pi the same under the mean of pi,
depth k of a policy is y_k = (B^pi)^(k-1) B V: k - 1 steps of the policy, then a greedy one. Depths 1 to n cost n
backups per policy. An operator that follows all the way down to depth n inherits what the policy does wrong, so its
fixed point lies below V*; a `highway` leaves the lookahead wherever the greedy step alone gives more.

Every operator takes the process, the policies, the value and the lookahead. The policies are a tensor `[..., M, S, A]`,
or what `induce` makes of it, which spares a loop from making the Markov chains anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mindworks.core.finite_mdp import MDP, DeterministicMDP, FiniteMDP
from mindworks.errors import require

Over = Literal["max", "mean"]


@dataclass(frozen=True)
class Induced:
    """The backups B^pi of a set of policies, ready to be applied many times; made by `induce`."""

    reward: Tensor
    """r_pi, `[..., M, S]`"""
    discounted: Tensor | None
    """discount times P_pi, `[..., M, S, S']`; None in the index form, where products with chains cost more"""
    mdp: MDP
    """the process, with a dimension for the set"""
    policies: Tensor
    """pi, `[..., M, S, A]`"""

    def backup(self, values: Tensor) -> Tensor:
        """B^pi of one value per policy, `[..., M, S]`: r_pi + discount P_pi V."""
        if self.discounted is None:
            return self.reward + self.mdp.discount * (self.policies * self.mdp.expected_next(values)).sum(-1)
        return self.reward + (self.discounted @ values.unsqueeze(-1)).squeeze(-1)


Policies = Tensor | Induced
Operator = Callable[[MDP, Policies, Tensor, int], Tensor]


def induce(mdp: MDP, policies: Policies) -> Induced:
    """The backups of `policies[..., M, S, A]`; what is induced already is returned as it is.

    Raises InputError where the shape or the type does not fit the process, or a row is no distribution within 1e-9.
    """
    if isinstance(policies, Induced):
        return policies
    _require_policies(mdp, policies)
    beside = _with_set(mdp)
    reward = (policies * beside.reward).sum(-1)
    # Indexing took 0.9 of the time of the product with the chains at 20 states, 0.65 at 100, 0.1 at 500; in the dense
    # form the chains took a third of the product with P at 4 actions (2 policies, one thread, 2026-11-27).
    discounted = None if isinstance(mdp, DeterministicMDP) else mdp.discount * beside.induced(policies)
    return Induced(reward, discounted, beside, policies)


def optimality(mdp: MDP, value: Tensor) -> Tensor:
    """B V `[..., S]` of `value[..., S]`: the best of one step."""
    _require_value(mdp, value)
    return mdp.action_value(value).amax(-1)


def expectation(mdp: MDP, policy: Tensor, value: Tensor) -> Tensor:
    """B^pi V `[..., S]` of one `policy[..., S, A]` and `value[..., S]`."""
    _require_value(mdp, value)
    return (policy * mdp.action_value(value)).sum(-1)


def n_step(mdp: MDP, policies: Policies, value: Tensor, lookahead: int, *, over: Over | None = None) -> Tensor:
    """The deepest lookahead y_n = (B^pi)^(n-1) B V of every policy, `[..., M, S]`; `over` the set, `[..., S]`.

    As (B^pi)^(n-1) V* <= V*, the fixed point is never above V*. It is V* where the policy is optimal, or n = 1.
    """
    *_, (_, last) = _depths(mdp, policies, value, lookahead)
    return _over(last, over)


def mixture(
    mdp: MDP, policies: Policies, value: Tensor, lookahead: int, *, lam: float | None = None, over: Over | None = None
) -> Tensor:
    """The mean over depths of every policy, `[..., M, S]`; `over` the set, `[..., S]`.

    Uniform: sum_k y_k / n. With `lam` in [0, 1], as in Peng's method: sum_k (1 - lam) lam^(k-1) y_k, and what is left,
    lam^(n-1), on y_n. Its fixed point errs as that of `n_step` does.
    """
    require(lam is None or 0 <= lam <= 1, f"lam must be in [0, 1] or None, got {lam}")
    total = mdp.reward.new_zeros(())
    for k, ahead in _depths(mdp, policies, value, lookahead):
        weight = 1 / lookahead if lam is None else lam ** (k - 1) * (1 - lam if k < lookahead else 1)
        total = total + weight * ahead
    return _over(total, over)


def ungated(mdp: MDP, policies: Policies, value: Tensor, lookahead: int) -> Tensor:
    """The max over policies and depths 1 to n of (B^pi)^k V, `[..., S]`: no greedy step at the end, and no gate.

    Its fixed point is the same for every n: the value of choosing the best of the policies anew in every state.
    """
    _require_lookahead(lookahead)
    _require_value(mdp, value)
    induced = induce(mdp, policies)
    ahead = induced.backup(_spread(induced, value))
    best = ahead.amax(-2)
    for _ in range(lookahead - 1):
        ahead = induced.backup(ahead)
        best = torch.maximum(best, ahead.amax(-2))
    return best


def highway(
    mdp: MDP, policies: Policies, value: Tensor, lookahead: int, *, depths: Sequence[int] | None = None
) -> Tensor:
    """G V `[..., S]`: the max over policies and depths of max{y_k, B V}.

    The depths are 1 to n, or the given ones among them. G is monotone and contracts by the discount in the max norm,
    and G V* = V*, whatever the policies: y_k of V* is at most V*, and the gate makes up for what is missing. Where
    depth 1 is among the depths the gate changes nothing, since y_1 = B V. From a start with V <= B V (or only V <= G V)
    the values rise in every sweep; from any start below V* they stay below it.
    """
    chosen = _chosen(lookahead, depths)
    steps = _depths(mdp, policies, value, max(chosen))
    best = next(steps)[1].amax(-2)  # y_1 = B V: the gate
    for k, ahead in steps:
        if k in chosen:
            best = torch.maximum(best, ahead.amax(-2))
    return best


def soft_highway(
    mdp: MDP,
    policies: Policies,
    value: Tensor,
    lookahead: int,
    *,
    sharpness: float,
    depths: Sequence[int] | None = None,
) -> Tensor:
    """The mean `[..., S]` of the gated values g = max{y_k, B V} over policies and depths, weighted by
    softmax(sharpness g).

    `sharpness` is in 1 / (units of value): 0 is the plain mean, inf the hard `highway` G. Every g is at least B V and
    at most G V, so a mean of them is too:

        B V <= soft V <= G V.

    B and G contract towards V* by the discount. What lies between them is no farther from V* than one of them is:
    |soft V - V*| <= discount |V - V*| in the max norm. So V* is the only fixed point, and every start leads there,
    although a softmax mean is neither monotone nor a contraction between two arbitrary values.
    """
    require(sharpness >= 0, f"sharpness must be at least 0, got {sharpness}")
    if math.isinf(sharpness):
        return highway(mdp, policies, value, lookahead, depths=depths)
    chosen = _chosen(lookahead, depths)
    steps = _depths(mdp, policies, value, max(chosen))
    _, first = next(steps)
    floor = first[..., :1, :]  # B V
    gains = [torch.zeros_like(first)] if 1 in chosen else []
    gains += [(ahead - floor).clamp_min(0) for k, ahead in steps if k in chosen]
    gain = torch.stack(gains, -3).flatten(-3, -2)  # [..., depths M, S]
    # weights of g - B V are weights of g: softmax knows no offset
    return floor.squeeze(-2) + ((sharpness * gain).softmax(-2) * gain).sum(-2)


@dataclass(frozen=True)
class HighwayValueRun:
    """What sweeps of an operator leave; k counts sweeps, from 0, the start."""

    mdp: MDP
    values: Tensor
    """V after every sweep, `[k + 1, ..., S]`; the last alone, `[1, ..., S]`, where the run kept no others"""
    changes: Tensor
    """the largest change of a state's value in every sweep, `[k, ...]`; 0 in those a process no longer took"""

    @property
    def value(self) -> Tensor:
        """The last V `[..., S]`."""
        return self.values[-1]

    def errors(self) -> Tensor:
        """The largest |V - V*| over states, `[k + 1, ...]`."""
        return (self.values - self.mdp.optimal_value()).abs().amax(-1)

    def bias(self) -> Tensor:
        """The mean over states of V - V*, `[k + 1, ...]`: negative where V is too low."""
        return (self.values - self.mdp.optimal_value()).mean(-1)


def highway_value_iteration(
    mdp: MDP,
    policies: Policies,
    lookahead: int,
    *,
    operator: Operator = highway,
    start: Tensor | None = None,
    sweeps: int = 1000,
    tolerance: float = 0.0,
    keep: bool = False,
) -> HighwayValueRun:
    """Apply an `operator` again and again: `sweeps` times, or until no value changes by more than `tolerance`.

    `operator` is one of this module's that leave one value `[..., S]`: `highway`, `ungated`, or, with their options
    bound by `functools.partial`, `soft_highway`, `n_step` and `mixture`. `start[..., S]` is zero unless given;
    min r / (1 - discount) in all states is at most its own backup, so that from there a highway rises. `tolerance` has
    the units of value. For `highway` and `soft_highway` the last error is at most discount / (1 - discount) times the
    last change. Each process stops by itself; `keep` keeps the value of every sweep.
    """
    require(sweeps >= 0, f"sweeps must be at least 0, got {sweeps}")
    require(tolerance >= 0, f"tolerance must be at least 0, got {tolerance}")
    induced = induce(mdp, policies)
    value = _start(mdp, induced, start)
    values, changes = [value], []
    going = torch.ones_like(value[..., 0], dtype=torch.bool)
    for _ in range(sweeps):
        new = operator(mdp, induced, value, lookahead)
        fits = new.shape == value.shape
        require(fits, f"operator must leave {list(value.shape)}, got {list(new.shape)}; `over` reduces a set")
        new = torch.where(going.unsqueeze(-1), new, value)
        changes.append((new - value).abs().amax(-1))
        value = new
        if not keep:
            values.clear()
        values.append(value)
        going = changes[-1] > tolerance
        if not going.any():
            break
    kept = torch.stack(changes) if changes else value.new_zeros(0, *value.shape[:-1])
    return HighwayValueRun(mdp, torch.stack(values), kept)


@dataclass(frozen=True)
class HighwayPolicyRun:
    """What rounds of highway policy iteration leave; i counts rounds, from 0, the start."""

    values: Tensor
    """V after every round, `[i + 1, ..., S]`"""
    gaps: Tensor
    """how much V* is above the value of the policy that is greedy in V, at most, `[i + 1, ...]`; 0 is optimal"""
    policy: Tensor
    """the last greedy policy, `[..., S, A]`"""

    def rounds(self) -> Tensor:
        """The rounds `[...]` after which the greedy policy was first optimal; -1 where it never was."""
        optimal = self.gaps == 0
        return torch.where(optimal.any(0), optimal.int().argmax(0), -1)


def highway_policy_iteration(
    mdp: MDP,
    policies: Tensor,
    lookahead: int,
    *,
    operator: Operator = highway,
    start: Tensor | None = None,
    sweeps: int = 1,
    memory: int = 1,
    rounds: int = 1000,
) -> HighwayPolicyRun:
    """Look ahead along the behaviours `policies[..., M, S, A]` and the greedy policies of the last `memory` rounds.

    A round takes the policy that is greedy in the value, the first action among equals, into the set, then makes
    `sweeps` sweeps of the `operator` from that value (see `highway_value_iteration`). A process stops when its greedy
    policy is optimal, as `MDP.value_gap` has it, or after `rounds`: going on might lose the policy again, while values
    are far from V*. With `memory` 0 the set is the behaviours alone. The lookahead along the newest greedy policy is n
    backups by it, (B^pi)^n V, as in modified policy iteration.
    """
    for name, count, least in (("sweeps", sweeps, 1), ("memory", memory, 0), ("rounds", rounds, 0)):
        require(count >= least, f"{name} must be at least {least}, got {count}")
    induced = induce(mdp, policies)
    value = _start(mdp, induced, start)
    behaviors = policies.expand(*value.shape[:-1], *policies.shape[-3:])
    recent: list[Tensor] = []
    values, gaps = [value], []
    while True:
        greedy = _greedy(mdp, value)
        gaps.append(mdp.value_gap(greedy).amax(-1))
        going = gaps[-1] > 0
        if len(gaps) > rounds or not going.any():
            return HighwayPolicyRun(torch.stack(values), torch.stack(gaps), greedy)
        if memory:
            recent = [*recent, greedy.unsqueeze(-3)][-memory:]
            induced = induce(mdp, torch.cat([behaviors, *recent], -3))
        new = value
        for _ in range(sweeps):
            new = operator(mdp, induced, new, lookahead)
        value = torch.where(going.unsqueeze(-1), new, value)
        values.append(value)


def _greedy(mdp: MDP, value: Tensor) -> Tensor:
    action = mdp.action_value(value).argmax(-1)
    return torch.nn.functional.one_hot(action, mdp.num_actions).to(value.dtype)


def _depths(mdp: MDP, policies: Policies, value: Tensor, lookahead: int) -> Iterator[tuple[int, Tensor]]:
    """k and y_k `[..., M, S]` for k = 1 to n."""
    _require_lookahead(lookahead)
    induced = induce(mdp, policies)
    ahead = _spread(induced, optimality(mdp, value))
    yield 1, ahead
    for k in range(2, lookahead + 1):
        # y_k = B^pi y_(k-1)
        ahead = induced.backup(ahead)
        yield k, ahead


def _spread(induced: Induced, value: Tensor) -> Tensor:
    """The same value `[..., S]` for every policy, `[..., M, S]`."""
    leading = _broadcast("value", value.shape[:-1], induced.reward.shape[:-2])
    return value.unsqueeze(-2).expand(*leading, *induced.reward.shape[-2:])


def _over(values: Tensor, over: Over | None) -> Tensor:
    require(over in (None, "max", "mean"), f"over must be 'max', 'mean' or None, got {over!r}")
    if over is None:
        return values
    return values.amax(-2) if over == "max" else values.mean(-2)


def _with_set(mdp: MDP) -> MDP:
    """The same process with a dimension of size 1 before the states, beside which policies of a set broadcast."""
    if mdp.reward.ndim == 2:
        return mdp
    if isinstance(mdp, DeterministicMDP):
        return DeterministicMDP(mdp.successor.unsqueeze(-3), mdp.reward.unsqueeze(-3), mdp.discount)
    assert isinstance(mdp, FiniteMDP)  # the only other form
    return FiniteMDP(mdp.transition.unsqueeze(-4), mdp.reward.unsqueeze(-3), mdp.discount)


def _start(mdp: MDP, induced: Induced, start: Tensor | None) -> Tensor:
    """The value to start with, in all leading dimensions of the run."""
    value = mdp.reward.new_zeros(mdp.num_states) if start is None else start
    _require_value(mdp, value)
    require(bool(value.isfinite().all()), "start must be finite")
    return _spread(induced, value)[..., 0, :]


def _chosen(lookahead: int, depths: Sequence[int] | None) -> frozenset[int]:
    _require_lookahead(lookahead)
    chosen = frozenset(range(1, lookahead + 1) if depths is None else depths)
    require(
        bool(chosen) and min(chosen) >= 1 and max(chosen) <= lookahead,
        f"depths must be some of 1 to {lookahead}, the lookahead, got {depths}",
    )
    return chosen


def _require_lookahead(lookahead: int) -> None:
    require(lookahead >= 1, f"lookahead must be at least 1, got {lookahead}")


def _require_value(mdp: MDP, value: Tensor) -> None:
    states = mdp.num_states
    require(
        value.ndim >= 1 and value.shape[-1] == states and value.dtype == mdp.reward.dtype,
        f"value must be {mdp.reward.dtype} [..., {states}], got {value.dtype} {list(value.shape)}",
    )
    _broadcast("value", value.shape[:-1], mdp.reward.shape[:-2])


def _require_policies(mdp: MDP, policies: Tensor) -> None:
    shape = [mdp.num_states, mdp.num_actions]
    require(
        policies.ndim >= 3 and list(policies.shape[-2:]) == shape and policies.shape[-3] >= 1,
        f"policies must be [..., M, S, A] = [..., M, {shape[0]}, {shape[1]}], got {list(policies.shape)}",
    )
    require(
        policies.dtype == mdp.reward.dtype, f"policies must be {mdp.reward.dtype} as the rewards, got {policies.dtype}"
    )
    _broadcast("policies", policies.shape[:-3], mdp.reward.shape[:-2])
    low, off = float(policies.min()), float((policies.sum(-1) - 1).abs().max())
    require(low >= 0, f"policies must not be negative, got a probability of {low}")
    require(off <= 1e-9, f"policies must sum to 1 over actions, got a row that is off by {off:.3g}")


def _broadcast(name: str, given: Sequence[int], others: Sequence[int]) -> tuple[int, ...]:
    """The common leading dimensions."""
    fits = all(a == b or 1 in (a, b) for a, b in zip(reversed(given), reversed(others), strict=False))
    require(fits, f"{name} must broadcast with the leading dimensions {list(others)}, got {list(given)}")
    return tuple(torch.broadcast_shapes(tuple(given), tuple(others)))
