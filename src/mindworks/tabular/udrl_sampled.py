"""Episodic upside-down reinforcement learning from sampled episodes: a policy fitted by counting segments.

The most likely table is the table of relative counts, so nothing is optimised: episodes are drawn, their segments are
counted, the counts are normalised. All episodes of all seeds and kernels are drawn at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mindworks.errors import require
from mindworks.tabular.command_extension import CommandExtension
from mindworks.tabular.udrl import SEGMENTS, Iterates, fit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class SampledEUDRL:
    """eUDRL with `trajectories` episodes per iteration; `segments` and `epsilon` as in `EUDRL`."""

    def __init__(
        self, ce: CommandExtension, trajectories: int = 10_000, segments: str = "all", epsilon: float = 0.0
    ) -> None:
        require(segments in SEGMENTS, f"segments must be one of {', '.join(SEGMENTS)}, got {segments!r}")
        require(0 <= epsilon <= 1, f"epsilon must be in [0, 1], got {epsilon}")
        require(trajectories >= 1, f"trajectories must be at least 1, got {trajectories}")
        self.ce, self.segments, self.epsilon, self.trajectories = ce, segments, epsilon, trajectories

    def segment_counts(self, policy: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Segments counted `[R, ..., S, N, G, A]` in the episodes of `policy[R, ..., S, N, G, A]`, a generator per R.

        They start in s with a, take h steps and end in goal g. A generator gives the same episodes in any company.
        """
        require(
            policy.dim() >= 5 and policy.shape[0] == len(generators) >= 1,
            f"policy must be [R, ...] with R = {len(generators)} generators, got shape {tuple(policy.shape)}",
        )
        self.ce.check_policy(policy)
        batch = np.broadcast_shapes(self.ce.batch, policy.shape[1:-4])
        each = policy.shape[-4:]
        flat = policy.reshape(len(generators), *(1,) * (len(batch) + 5 - policy.dim()), *policy.shape[1:])
        flat = flat.expand(len(generators), *batch, *each).reshape(-1, *each)
        draws = (2 * self.ce.horizon + 1, int(np.prod(batch)), self.trajectories)
        uniforms = np.concatenate([generator.random(draws) for generator in generators], 1)
        process = [
            given.expand(len(generators), *batch, *given.shape[-3:]).reshape(-1, *given.shape[-3:]).numpy()
            for given in (self.ce.start, self.ce.transition)
        ]
        counts = self._count(*self._episodes(flat.numpy(), uniforms, *process))
        return torch.from_numpy(counts.reshape(len(generators), *batch, *each))

    def step(self, policy: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """The next policy `[R, ..., S, N, G, A]`; uniform where no segment answers the command."""
        counts = self.segment_counts(policy, generators).double()
        return torch.from_numpy(fit(counts.numpy(), self.epsilon))

    def run(self, seeds: Sequence[int], iterations: int, policy: Tensor | None = None) -> Iterates:
        """Iterate once per seed, `seeds` as the first dimension, from `policy[..., S, N, G, A]`, uniform by default.

        The objectives of the policies are exact; only the fitting is sampled.
        """
        require(len(seeds) >= 1, "seeds must not be empty")
        require(iterations >= 0, f"iterations must be at least 0, got {iterations}")
        policy = self.ce.uniform_policy() if policy is None else policy
        batch = np.broadcast_shapes(self.ce.batch, policy.shape[:-4])
        policies = [policy.expand(len(seeds), *batch, *policy.shape[-4:])]
        generators = [np.random.default_rng(seed) for seed in seeds]
        for _ in range(iterations):
            policies.append(self.step(policies[-1], generators))
        stacked = torch.stack(policies)
        return Iterates(self.ce.objective(stacked).movedim(0, -1), stacked)

    def _episodes(
        self, policy: Floats, uniforms: Floats, start: Floats, transition: Floats
    ) -> tuple[Ints, Ints, Ints, Ints]:
        """States `[N + 1, B, T]`, actions `[N, B, T]`, horizons `[B, T]` and goals `[B, T]` of T episodes each.

        `policy[B, S, N, G, A]`, `uniforms[2 N + 1, B, T]`, `start[B, S, N, G]`, `transition[B, S, A, S']`. What comes
        after the end of an episode is not counted.
        """
        ce = self.ce
        horizon, goals, count = ce.horizon, ce.goals, len(policy)
        first = np.stack([_draw_shared(row.ravel(), u) for row, u in zip(start, uniforms[0], strict=True)])
        state, command = np.divmod(first, horizon * goals)
        left, goal = np.divmod(command, goals)  # one less than the steps left
        acts = np.cumsum(policy, -1).reshape(-1, ce.actions)
        moves = np.cumsum(transition, -1).reshape(-1, ce.states)
        states, actions = [state], []
        offset = np.arange(count)[:, None] * ce.states
        for t in range(horizon):
            here = offset + states[-1]
            level = np.maximum(left - t, 0)
            actions.append(_draw(acts, (here * horizon + level) * goals + goal, uniforms[2 * t + 1]))
            states.append(_draw(moves, here * ce.actions + actions[-1], uniforms[2 * t + 2]))
        return np.stack(states), np.stack(actions), left + 1, goal

    def _count(self, states: Ints, actions: Ints, horizons: Ints, goals: Ints) -> Ints:
        """Segments `[B, S, N, G, A]` of the episodes."""
        ce, count = self.ce, states.shape[1]
        reached = ce.goal_map.numpy()[states]
        size = ce.states * ce.horizon * ce.goals * ce.actions
        offset = np.arange(count)[:, None] * ce.states
        total = np.zeros(count * size, np.int64)
        for t in range(ce.horizon):
            for end in range(t + 1, ce.horizon + 1):
                used = horizons >= end if self.segments == "all" else horizons == end
                if self.segments == "diagonal":
                    used = used & (reached[end] == goals)
                cell = (((offset + states[t]) * ce.horizon + end - t - 1) * ce.goals + reached[end]) * ce.actions
                total += np.bincount((cell + actions[t])[used], minlength=len(total))
        return total.reshape(count, ce.states, ce.horizon, ce.goals, ce.actions)


def _draw(cumulative: Floats, row: Ints, uniform: Floats) -> Ints:
    """One category for every entry of `row` and `uniform`: never one of probability 0, whatever was rounded."""
    rows = cumulative[row]
    return (rows <= (uniform * rows[..., -1])[..., None]).sum(-1)


def _draw_shared(probabilities: Floats, uniform: Floats) -> Ints:
    """Categories of one distribution, a binary search each."""
    cumulative = np.cumsum(probabilities)
    return np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
