"""Play one episode per row, each row with its own policy, and keep what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mindworks.envs.batch import BatchEnv
from mindworks.errors import InputError, require

Bools = NDArray[np.bool_]
Tape = tuple[list[Any], list[Any], list[Any]]  # observations, actions, rewards, one entry per time
# act(observations [N, *shape], alive [N]) -> actions [N, A] floats or [N] integers; a dead row's may be any valid one.
Actor = Callable[[NDArray[np.float32], Bools], NDArray[Any]]
# callback(t, observations, alive): what the actor is about to see at time t.
Callback = Callable[[int, NDArray[np.float32], Bools], None]


@dataclass
class Trajectories:
    """N episodes, padded with zeros to the longest, T steps.

    observations `[N, T+1, *shape]` float32: entry t is seen before action t, entry `lengths` is the final observation.
    actions `[N, T, A]` float32 or `[N, T]` int64; rewards `[N, T]` float64; lengths `[N]` in steps; returns `[N]`
    undiscounted, float64; final_observations `[N, *shape]`. terminated `[N]`: the task ended, the value beyond is 0;
    truncated `[N]`: a time limit or `max_steps` cut the episode, the value beyond is not 0; both may hold at once.
    diverged `[N]`: the simulator or the policy answered with a number that is not finite; the episode stops there, the
    reward of that step counts as 0, its observation is the last finite one, and `truncated` holds unless the
    environment itself called the step terminal. Without `record`, observations, actions and rewards have T = 0.
    """

    observations: NDArray[np.float32]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    terminated: Bools
    truncated: Bools
    diverged: Bools
    final_observations: NDArray[np.float32]

    @property
    def steps(self) -> int:
        """Environment steps taken in living rows, all rows together."""
        return int(self.lengths.sum())

    @property
    def mask(self) -> Bools:
        """`[N, T]`: True where a step was taken."""
        return np.arange(self.rewards.shape[1]) < self.lengths[:, None]

    @property
    def next_observations(self) -> NDArray[np.float32]:
        """View `[N, T, *shape]`: what followed action t."""
        return self.observations[:, 1:]

    def transitions(self, act: Actor | None = None) -> dict[str, NDArray[Any]]:
        """Return all steps as flat arrays `[M, ...]`, row after row, each row in the order of time.

        Keys: `row` and `time` (int64), `observation`, `action`, `reward`, `next_observation`, `terminated` and
        `truncated` of that very step. Bootstrap wherever `terminated` is False, truncated steps included. With `act`,
        also `next_action`: the action that followed, and after the last step the answer of `act` to the final
        observations. The last step of a diverged row is left out. Raises `InputError` without a record.
        """
        require(self.rewards.shape[1] > 0, "record: transitions need a rollout with record=True")
        mask = self.mask
        stuck = np.flatnonzero(self.diverged)
        mask[stuck, self.lengths[stuck] - 1] = False
        rows, times = np.nonzero(mask)
        last = times == self.lengths[rows] - 1
        flat = {
            "row": rows,
            "time": times,
            "observation": self.observations[rows, times],
            "action": self.actions[rows, times],
            "reward": self.rewards[rows, times],
            "next_observation": self.observations[rows, times + 1],
            "terminated": last & self.terminated[rows],
            "truncated": last & self.truncated[rows],
        }
        if act is not None:
            ended = np.asarray(act(self.final_observations, np.ones(len(self.lengths), np.bool_)))
            following = self.actions[rows, np.minimum(times + 1, self.actions.shape[1] - 1)]
            following[last] = ended[rows[last]]
            flat["next_action"] = following
        return flat


def rollout(
    env: BatchEnv,
    act: Actor,
    seeds: Sequence[int] | NDArray[np.integer[Any]],
    *,
    max_steps: int | None = None,
    record: bool = True,
    callback: Callback | None = None,
    active: Bools | None = None,
) -> Trajectories:
    """Play one episode in every row of `env`, row i started from `seeds[i]`, until all rows have ended.

    act: maps observations `[N, *shape]` and alive `[N]` to actions, row i with policy i's parameters.
    max_steps: cuts rows still alive after that many steps, as truncated. record: False keeps returns, lengths, flags
    and final observations alone. callback: called with `(t, observations, alive)` before every step, e.g. to feed a
    `RunningNorm`. active: the rows `[N]` that play, all by default; the others have length 0. Raises `InputError` for
    actions, seeds or `active` of the wrong shape, for `max_steps` below 1, and for a start that is not finite.
    """
    require(max_steps is None or max_steps >= 1, f"max_steps: expected at least 1, got {max_steps}")
    observations = env.reset(seeds)
    require(bool(np.isfinite(observations).all()), f"env: {env.name} started with an observation that is not finite")
    n = env.num_envs
    alive = np.ones(n, np.bool_) if active is None else np.array(active, np.bool_)
    require(alive.shape == (n,), f"active: expected {n} booleans, got shape {alive.shape}")
    terminated, truncated, diverged = np.zeros((3, n), np.bool_)
    lengths, returns = np.zeros(n, np.int64), np.zeros(n, np.float64)
    tape: Tape = ([observations], [], [])
    horizon = env.max_episode_steps if max_steps is None else min(max_steps, env.max_episode_steps)
    for t in range(horizon):
        if not np.count_nonzero(alive):
            break
        if callback is not None:
            callback(t, observations, alive)
        actions, lost = _checked_actions(act(observations, alive), env, alive)
        seen, rewards, ended, cut = env.step(actions, alive if lost is None else alive & ~lost)
        bad = _not_finite(seen, rewards, lost)
        if bad is not None:
            seen = np.where(bad.reshape((n,) + (1,) * (seen.ndim - 1)), observations, seen)
            rewards = np.where(np.isfinite(rewards), rewards, 0.0)
            cut = cut | (bad & ~ended)
            diverged |= bad
        returns += rewards
        observations = seen
        if record:
            for kept, value in zip(tape, (seen, actions, rewards), strict=True):
                kept.append(value)
        over = alive & (ended | cut)  # a row that diverged may go on answering what is not finite
        if np.count_nonzero(over):
            lengths[over], terminated[over], truncated[over] = t + 1, ended[over], cut[over]
            alive = alive & ~over
    else:
        lengths[alive] = horizon
    truncated |= alive
    seen, actions, rewards = _stacked(tape, lengths, env)
    return Trajectories(
        seen, actions, rewards, lengths, returns, terminated, truncated, diverged, final_observations=observations
    )


def _checked_actions(raw: NDArray[Any], env: BatchEnv, alive: Bools) -> tuple[NDArray[Any], Bools | None]:
    """Return the actions in the environment's dtype, and the living rows whose action is not finite, if any."""
    actions = np.asarray(raw)
    space = env.single_action_space
    if isinstance(space, spaces.Discrete):
        if actions.shape != (env.num_envs,) or actions.dtype.kind not in "iu":
            raise InputError(f"act: expected integers [{env.num_envs}], got {actions.dtype} {list(actions.shape)}")
        return actions.astype(np.int64), None
    expected = (env.num_envs, *space.shape)
    if actions.shape != expected or actions.dtype.kind != "f":
        raise InputError(f"act: expected floats {list(expected)}, got {actions.dtype} {list(actions.shape)}")
    actions = np.array(actions, np.float32)
    if np.isfinite(actions).all():
        return actions, None
    odd = ~np.isfinite(actions).all(axis=1)
    actions[odd] = 0.0
    return actions, odd & alive


def _not_finite(seen: NDArray[Any], rewards: NDArray[Any], lost: Bools | None) -> Bools | None:
    """Return the rows `[N]` that diverged in this step, or None."""
    if lost is None and isfinite(np.vdot(rewards, rewards) + np.vdot(seen, seen)):
        return None  # a sum of squares that is finite has finite terms, and costs a fifth of looking at each
    bad = ~np.isfinite(rewards) | ~np.isfinite(seen).reshape(len(seen), -1).all(axis=1)
    bad = bad if lost is None else bad | lost
    return bad if bad.any() else None


def _stacked(
    tape: Tape, lengths: NDArray[np.int64], env: BatchEnv
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float64]]:
    """Stack time into the second axis and zero everything past each row's end; without steps, T = 0."""
    if not tape[1]:
        n, space = env.num_envs, env.single_action_space
        shape = env.single_observation_space.shape
        none = np.zeros((n, 0), np.int64)
        actions = none if isinstance(space, spaces.Discrete) else np.zeros((n, 0, *space.shape), np.float32)
        return np.zeros((n, 0, *shape), np.float32), actions, none.astype(np.float64)
    observations, actions, rewards = [np.stack(kept, axis=1) for kept in tape]
    past = np.arange(observations.shape[1]) > lengths[:, None]
    observations[past] = 0.0
    actions[past[:, 1:]] = 0
    return observations, actions, rewards
