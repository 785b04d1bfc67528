"""Any other Gymnasium environment: one instance per row, stepped in a Python loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mindworks.envs.rows import RowEnv, RowOutcome, action_space, observation_box
from mindworks.errors import InputError


class LoopEnv(RowEnv):
    """A list of environments of which only the living rows are stepped.

    Gymnasium's `SyncVectorEnv` steps every row, ended or not, and restarts ended rows by itself: a population whose
    episodes differ in length would pay for steps nobody asked for, and start episodes nobody counts.

    make: builds one environment; max_episode_steps: the time limit, or None for the one in the environment's spec.
    Raises `InputError` when neither gives a limit, and for spaces other than those `make_batch` names.
    """

    def __init__(
        self, name: str, make: Callable[[], gymnasium.Env[Any, Any]], num_envs: int, max_episode_steps: int | None
    ) -> None:
        first = make()
        try:
            observed, acted = observation_box(first.observation_space, name), action_space(first.action_space, name)
            spec = first.spec
            limit = max_episode_steps or (spec.max_episode_steps if spec is not None else None)
            if limit is None:
                raise InputError(f"max_episode_steps: {name} has no time limit of its own, pass one")
            super().__init__(name, num_envs, observed, acted, limit)
        except InputError:
            first.close()
            raise
        self.envs = [first, *(make() for _ in range(num_envs - 1))]

    def _reset_rows(self, seeds: list[int]) -> NDArray[Any]:
        return np.stack([env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)])

    def _step_rows(self, rows: NDArray[np.intp], actions: NDArray[Any]) -> RowOutcome:
        observed = np.empty((len(rows), *self.single_observation_space.shape), np.float32)
        rewards = np.empty(len(rows), np.float64)
        flags = np.empty((2, len(rows)), np.bool_)
        discrete = isinstance(self.single_action_space, spaces.Discrete)
        for i, row in enumerate(rows):
            action = int(actions[i]) if discrete else actions[i].copy()
            observed[i], reward, flags[0, i], flags[1, i], _ = self.envs[row].step(action)
            rewards[i] = float(reward)
        return observed, rewards, flags[0], flags[1]

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()
