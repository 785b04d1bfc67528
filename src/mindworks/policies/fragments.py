"""Behaviour in fragments: a fresh random policy takes over every few steps, and each fragment is told as its own.

The offline data of Faccio, Kirsch and Schmidhuber, "Parameter-Based Value Functions", ICLR 2021, arXiv:2006.09226: no
policy is ever seen for a whole episode, yet PSVF and PAVF learn from it, because they bootstrap.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mindworks.core.policy import Actor
from mindworks.envs.batch import BatchEnv
from mindworks.envs.rollout import Trajectories, rollout
from mindworks.errors import require
from mindworks.policies.learner import Learner


def play_fragments(learner: Learner, env: BatchEnv, theta: Tensor, *, length: int) -> Trajectories:
    """One episode per row of `env` in which `theta[S, N, K, P]` take turns of `length` steps, cut into fragments.

    `env` has S * N rows; row s * N + n starts with `theta[s, n, 0]` and stops when the episode or the K policies end.
    The fragments come as `Trajectories` of S * N * K rows, in the order of `theta.flatten(1, 2)`, ready for `tell`. A
    fragment that ends with the episode keeps its flags, one that ends with its turn is truncated, and one whose turn
    never came has length 0.
    """
    require(length >= 1, f"length must be at least 1, got {length}")
    require(theta.ndim == 4, f"theta must be [S, N, K, P], got shape {tuple(theta.shape)}")
    rows, turns = theta.shape[0] * theta.shape[1], theta.shape[2]
    require(env.num_envs == rows, f"env must have {rows} rows, one per theta[s, n], got {env.num_envs}")
    actors = [learner.actor(theta[:, :, k]) for k in range(turns)]
    whole = rollout(
        env, _take_turns(actors, length), learner.streams.integers(theta.shape[1]).flatten(), max_steps=turns * length
    )
    return cut(whole, turns, length)


def _take_turns(actors: list[Actor], length: int) -> Actor:
    clock = iter(range(len(actors) * length))

    def act(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
        return actors[next(clock) // length](observations, alive)

    return act


def cut(whole: Trajectories, turns: int, length: int) -> Trajectories:
    """Cut each episode into `turns` fragments of at most `length` steps: N rows become N * turns."""
    padding = turns * length - whole.rewards.shape[1]

    def pad(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, 0), (0, padding), *[(0, 0)] * (array.ndim - 2)])

    observations, actions, rewards = pad(whole.observations), pad(whole.actions), pad(whole.rewards)
    begins = np.arange(turns) * length
    lengths = np.clip(whole.lengths[:, None] - begins, 0, length)
    last = (lengths > 0) & (whole.lengths[:, None] <= begins + length)
    inside = np.arange(length) < lengths[..., None]
    windows = np.stack([observations[:, begin : begin + length + 1] for begin in begins], 1)
    windows[np.arange(length + 1) > lengths[..., None]] = 0
    flat_rewards = np.where(inside, rewards.reshape(-1, turns, length), 0)
    ends = np.take_along_axis(windows, lengths.reshape(*lengths.shape, 1, 1), 2).squeeze(2)
    rows = lengths.size
    return Trajectories(
        observations=windows.reshape(rows, length + 1, -1),
        actions=actions.reshape(rows, length, *actions.shape[2:]),
        rewards=flat_rewards.reshape(rows, length),
        lengths=lengths.reshape(rows),
        returns=flat_rewards.sum(-1).reshape(rows),
        terminated=(last & whole.terminated[:, None]).reshape(rows),
        truncated=((lengths > 0) & ~(last & whole.terminated[:, None])).reshape(rows),
        diverged=(last & whole.diverged[:, None]).reshape(rows),
        final_observations=ends.reshape(rows, -1),
    )
