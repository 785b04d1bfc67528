"""Continuous mountain car for a population, in numpy."""

from __future__ import annotations

from math import cos
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv as Reference
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from mindworks.envs.rows import RowEnv, RowOutcome
from mindworks.envs.seeding import uniform_rows

_ENTRY = "gymnasium.envs.classic_control.continuous_mountain_car:Continuous_MountainCarEnv"


def supports(spec: EnvSpec, kwargs: dict[str, Any]) -> bool:
    """Say whether `spec` is Gymnasium's continuous mountain car with its default goal and nothing wrapped around it."""
    return spec.entry_point == _ENTRY and not (spec.additional_wrappers or spec.kwargs or kwargs)


class MountainCarContinuousEnv(RowEnv):
    """Moore's car in a valley (1990): row i is `gymnasium.make(name).reset(seed=seeds[i])`, bit for bit.

    Actions `[N, 1]` are forces, clipped to [-1, 1]; the reward is `-0.1 a²` of the action as given, plus 100 at the
    goal. The state is position and velocity. Gymnasium keeps it in float64 at the first step of an episode and in
    float32 from then on, and computes in the state's own precision; so does this class.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, max_episode_steps: int) -> None:
        constants = Reference()
        observed, acted = constants.observation_space, constants.action_space
        assert isinstance(observed, spaces.Box)
        assert isinstance(acted, spaces.Box)
        super().__init__(spec.id, num_envs, observed, acted, max_episode_steps)
        self._constants = constants
        self._start = np.zeros((2, num_envs), np.float64)
        self._state = np.zeros((2, num_envs), np.float32)

    def _reset_rows(self, seeds: list[int]) -> NDArray[Any]:
        position = uniform_rows(seeds, -0.6, -0.4, 1)[:, 0]
        self._start = np.stack([position, np.zeros(self.num_envs)])
        return self._start.T

    def _step_rows(self, rows: NDArray[np.intp], actions: NDArray[Any]) -> RowOutcome:
        action = np.asarray(actions[:, 0], np.float32)
        first = self._elapsed[rows] == 0
        moved = np.empty((2, len(rows)), np.float32)
        terminated = np.empty(len(rows), np.bool_)
        for part, states in ((first, self._start), (~first, self._state)):
            if np.count_nonzero(part):
                moved[:, part], terminated[part] = self._moved(states[:, rows[part]], action[part])
        self._state[:, rows] = moved
        squares = np.square(action.astype(np.float64))  # exact for a float32, as is the C library's pow
        reward = np.where(terminated, 100.0, 0.0) - squares * 0.1
        return moved.T, reward, terminated, None

    def _moved(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The next states `[2, n]` in the precision of `state`, and which of them are at the goal."""
        c, (position, velocity) = self._constants, state
        # Gymnasium's cosine is the C library's; numpy's own differs from it where it is vectorised otherwise
        slope = 0.0025 * np.array([cos(x) for x in (3 * position).tolist()])
        # Within the bounds the force stays a float32 and takes the slope with it; a clipped one is a Python float.
        inside = action * c.power - slope.astype(action.dtype)
        clipped = np.clip(action.astype(np.float64), c.min_action, c.max_action) * c.power - slope
        within = (action >= c.min_action) & (action <= c.max_action)
        velocity = velocity + np.where(within, inside.astype(state.dtype), clipped.astype(state.dtype))
        velocity = np.clip(velocity, -c.max_speed, c.max_speed)
        position = np.clip(position + velocity, c.min_position, c.max_position)
        velocity = np.where((position == c.min_position) & (velocity < 0), 0, velocity)
        return np.stack([position, velocity]), (position >= c.goal_position) & (velocity >= c.goal_velocity)
