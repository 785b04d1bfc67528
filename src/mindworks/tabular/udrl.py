"""Episodic upside-down reinforcement learning (eUDRL) as an exact recursion on policies.

Štrupl et al., "Upside-Down Reinforcement Learning Can Diverge in Stochastic Environments With Episodic Resets", 2022,
arXiv:2205.06595, and "On the Convergence and Stability of Upside-Down Reinforcement Learning, Goal-Conditioned
Supervised Learning, and Online Decision Transformers", 2025, arXiv:2502.05672.

S states, A actions, G goals, N the longest horizon, `...` any leading dimensions (kernels, initial policies). Tensors
go in and come out; inside, numpy took less time than torch for the same operations at every size that was tried, from
one policy in 2 states to 200 policies on a grid (one thread, 2026-11-23).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mindworks.errors import require
from mindworks.tabular.command_extension import CommandExtension

SEGMENTS = ("all", "trailing", "diagonal")
CACHE = 2**18  # numbers in the largest array of a step; larger batches are split
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Iterates:
    """What a run leaves: `objective[..., n + 1]` of the policies 0 to n, the last `policy`, and all `policies`.

    `policies[n + 1, ..., S, N, G, A]` holds the last one alone where the run kept no others.
    """

    objective: Tensor
    policies: Tensor

    @property
    def policy(self) -> Tensor:
        """The last policy `[..., S, N, G, A]`."""
        return self.policies[-1]


class EUDRL:
    """The recursion that fits a policy to the segments of its own episodes, in the limit of infinitely many of them.

    A segment is a piece of an episode: it starts in (s, h', g') with action a, takes h steps, and ends in a state of
    goal g. Then a is taken as the answer to the command (h, g) in s. `segments` says which are used: `all`; `trailing`
    ones, which end with the episode (h = h'); `diagonal` ones, trailing and successful (g = g' too), which is
    reward-weighted regression. Each new policy is mixed with the uniform one: (1 - `epsilon`) pi + `epsilon` / A.
    """

    def __init__(self, ce: CommandExtension, segments: str = "all", epsilon: float = 0.0) -> None:
        require(segments in SEGMENTS, f"segments must be one of {', '.join(SEGMENTS)}, got {segments!r}")
        require(0 <= epsilon <= 1, f"epsilon must be in [0, 1], got {epsilon}")
        require(ce.transition.device.type == "cpu", f"ce must be on the processor, got {ce.transition.device}")
        self.ce, self.segments, self.epsilon = ce, segments, epsilon
        self._kernel = ce.transition.numpy()
        self._moves = self._kernel.reshape(*self._kernel.shape[:-3], -1, ce.states)  # [..., S A, S']
        self._next = self._kernel[..., None, :]  # [..., S, A, 1, S']
        self._hits = ce.hits.numpy()
        self._paid = np.ascontiguousarray(ce.hit_probability.mT.numpy())  # [..., S, G, A]
        self._paid_first = np.ascontiguousarray(self._paid.swapaxes(-3, -2))  # [..., G, S, A]
        self._start = np.ascontiguousarray(ce.start.movedim(-3, -1).numpy())  # [..., N, G, S]
        self._first = ce.start.numpy()[..., :1, :]  # [..., S, 1, G]: starts with one step left
        self._worth = self._first.swapaxes(-1, -2) * self._paid  # [..., S, G, A]

    def segment_counts(self, policy: Tensor) -> Tensor:
        """Expected segments per episode `[..., S, N, G, A]` that start in s with a, take h steps and end in goal g."""
        return torch.from_numpy(self._counts(self._given(policy))[0])

    def step(self, policy: Tensor) -> Tensor:
        """The next policy `[..., S, N, G, A]`; uniform where no segment answers the command, decided exactly."""
        return torch.from_numpy(self._run(self._given(policy), 1, keep=False)[1][-1])

    def run(self, policy: Tensor | None = None, iterations: int = 1, keep: bool = True) -> Iterates:
        """Iterate from `policy[..., S, N, G, A]`, uniform by default; `keep` every policy, or the last one alone."""
        require(iterations >= 0, f"iterations must be at least 0, got {iterations}")
        now = self._given(self.ce.uniform_policy() if policy is None else policy)
        objective, policies = self._run(now, iterations, keep)
        return Iterates(torch.from_numpy(objective), torch.from_numpy(policies))

    def _run(self, policy: Floats, iterations: int, keep: bool) -> tuple[Floats, Floats]:
        """Objectives `[..., n + 1]` and policies `[n + 1 or 1, ...]`, in parts that the cache holds."""
        leading, half = policy.ndim - 4, len(policy) // 2
        largest = math.prod(policy.shape[:leading]) * self.ce.states**2 * self.ce.actions * self.ce.goals
        if leading and half and largest > CACHE:
            halves = (slice(half), slice(half, None))
            parts = [self._rows(rows, leading)._run(policy[rows], iterations, keep) for rows in halves]
            return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts], 1)
        objective = np.empty((*policy.shape[:-4], iterations + 1))
        policies = np.empty((iterations + 1 if keep else 1, *policy.shape))
        policies[0] = policy
        for n in range(iterations):
            counts, objective[..., n] = self._counts(policy)
            policy = fit(counts, self.epsilon)
            policies[n + 1 if keep else 0] = policy
        objective[..., -1] = self._one_step(policy)[1] if self.ce.horizon == 1 else self._flow(policy)[1]
        return objective, policies

    def _rows(self, rows: slice, leading: int) -> EUDRL:
        """The recursion on some rows of the first of `leading` dimensions."""

        def cut(given: Tensor) -> Tensor:
            return given[rows] if given.dim() == leading + 3 and len(given) > 1 else given

        ce = CommandExtension(cut(self.ce.transition), self.ce.goal_map, self.ce.horizon, cut(self.ce.start))
        return EUDRL(ce, self.segments, self.epsilon)

    def _given(self, policy: Tensor) -> Floats:
        """The policy as an array with all leading dimensions."""
        self.ce.check_policy(policy)
        batch = np.broadcast_shapes(self.ce.batch, policy.shape[:-4])
        return policy.detach().expand(*batch, *policy.shape[-4:]).numpy()

    def _flow(self, policy: Floats) -> tuple[Floats, Floats]:
        """Expected visits of actions `[..., N, G, S, A]` under `policy[..., S, N, G, A]`, and its objective `[...]`."""
        acts = policy.swapaxes(-4, -3).swapaxes(-3, -2)
        *batch, horizon, goals, states, actions = acts.shape
        flow = np.empty(acts.shape)
        visits = self._start[..., -1, :, :]
        for h in range(horizon - 1, -1, -1):
            np.multiply(visits[..., None], acts[..., h, :, :, :], out=flow[..., h, :, :, :])
            if h:
                visits = flow[..., h, :, :, :].reshape(*batch, goals, states * actions) @ self._moves
                visits += self._start[..., h - 1, :, :]
        return flow, (flow[..., 0, :, :, :] * self._paid_first).sum((-3, -2, -1))

    def _counts(self, policy: Floats) -> tuple[Floats, Floats]:
        """Expected segments `[..., S, N, G, A]` of an episode of `policy`, and its objective `[...]`.

        counts(s, h, g, a) = sum over h' >= h and g' of visits(s, h', g') policy(a | s, h', g')
        P(S_h maps to g | S_0 = s, A_0 = a, H_0 = h', G_0 = g'): the recursive rewrite of arXiv:2205.06595.
        """
        if self.ce.horizon == 1:
            return self._one_step(policy)
        flow, objective = self._flow(policy)
        if self.segments == "diagonal":
            return self._successes(policy, flow), objective
        trailing = self.segments == "trailing"
        *batch, states, horizon, goals, actions = policy.shape
        meant = flow.reshape(*batch, horizon * goals, states * actions)  # by command, one step left first
        counts = np.empty(policy.shape)
        first = (meant[..., :goals, :] if trailing else meant).sum(-2).reshape(*batch, states, 1, actions)
        np.multiply(first, self._paid, out=counts[..., 0, :, :])
        chain = policy[..., :-1, :, :].reshape(*batch, states, -1, actions) @ self._kernel  # [..., S, (N - 1) G, S']
        chain = chain.reshape(*batch, states, horizon - 1, goals, states).swapaxes(-4, -3).swapaxes(-3, -2)
        reach = self._hits  # [..., h', g', s', g]: P(goal g, h steps later)
        for h in range(1, horizon):
            last = h if trailing else horizon - 1
            reach = chain[..., h - 1 : last, :, :, :] @ (reach if h == 1 else reach[..., : last - h + 1, :, :, :])
            rows = meant[..., h * goals : (last + 1) * goals, :].swapaxes(-1, -2)
            joint = rows @ reach.reshape(*batch, -1, states * goals)  # by (s, a) and (s', g)
            summed = self._next @ joint.reshape(*batch, states, actions, states, goals)
            counts[..., h, :, :] = summed[..., 0, :].swapaxes(-1, -2)
        return counts, objective

    def _one_step(self, policy: Floats) -> tuple[Floats, Floats]:
        """`_counts` for N = 1 in fewer operations: every segment is trailing, and counts are linear in the policy."""
        acts = policy[..., 0, :, :]
        successes = acts * self._worth
        flow = self._first @ acts  # visits of (s, a) whatever was meant: [..., S, 1, A]
        counts = successes if self.segments == "diagonal" else flow * self._paid
        return counts[..., None, :, :], successes.sum((-3, -2, -1))

    def _successes(self, policy: Floats, flow: Floats) -> Floats:
        """Expected successful visits `[..., S, N, G, A]`: visits policy Q."""
        counts, q = np.empty(policy.shape), self._paid
        for h in range(policy.shape[-3]):
            np.multiply(flow[..., h, :, :, :].swapaxes(-3, -2), q, out=counts[..., h, :, :])
            value = (policy[..., h, :, :] * q).sum(-1)
            q = (self._kernel @ value[..., None, :, :]).swapaxes(-1, -2)
        return counts


def fit(counts: Floats, epsilon: float = 0.0) -> Floats:
    """The most likely policy `[..., A]` for counted actions `[..., A]`; uniform exactly where nothing was counted.

    Any threshold above zero would move the discontinuities of the recursion.
    """
    total = counts.sum(-1, keepdims=True)
    policy = np.empty(counts.shape)
    policy.fill(1 / counts.shape[-1])
    np.divide(counts, total, out=policy, where=total > 0)
    return (1 - epsilon) * policy + epsilon / counts.shape[-1] if epsilon else policy
