"""Batched environments of this library as vector environments of stable-baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from mindworks.envs.delayed import Restartable
from mindworks.errors import require

Array = NDArray[Any]


class RowVecEnv(VecEnv):
    """The rows of `env` as one vector environment: a row that ends starts again in the same step.

    The first `reset` starts row i from seed + i, a later one goes on with the dice of the row unless `seed` was called.
    Boolean observations become bytes. The `info` of a row's last step has `terminal_observation`,
    `TimeLimit.truncated` and `episode` with the return `r` and the length `l`.
    """

    def __init__(self, env: Restartable, seed: int = 0) -> None:
        for name in ("restart", "state", "load"):
            require(hasattr(env, name), f"env must have {name}(), got {type(env).__name__}")
        self.env, self.base_seed = env, seed
        space = env.single_observation_space
        if space.dtype == np.bool_:
            space = spaces.Box(0, 1, space.shape, np.uint8)
        self._started = False
        super().__init__(env.num_envs, space, env.single_action_space)
        self._alive = np.ones(env.num_envs, np.bool_)
        self._returns = np.zeros(env.num_envs, np.float64)
        self._lengths = np.zeros(env.num_envs, np.int64)
        self._actions = np.zeros(env.num_envs, np.int64)

    def _observed(self, observations: Array) -> Array:
        return observations.astype(self.observation_space.dtype)  # a copy: learners keep it over the next step

    def reset(self) -> Array:
        """Start every row."""
        if self._started and all(seed is None for seed in self._seeds):
            observed = self.env.restart(np.arange(self.num_envs))
        else:
            given = [self.base_seed + i if seed is None else seed for i, seed in enumerate(self._seeds)]
            observed = self.env.reset(given)
        self._reset_seeds()
        self._started = True
        self._returns[:], self._lengths[:] = 0, 0
        return self._observed(observed)

    def step_async(self, actions: Array) -> None:
        """Take note of the actions."""
        self._actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Move every row; rows that end start again."""
        observed, reward, terminated, truncated = self.env.step(self._actions, self._alive)
        observed = self._observed(observed)
        self._returns += reward
        self._lengths += 1
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = done.nonzero()[0]
        if len(ended):
            for row in ended.tolist():
                infos[row] = {
                    "terminal_observation": observed[row].copy(),
                    "TimeLimit.truncated": bool(truncated[row] and not terminated[row]),
                    "episode": {"r": float(self._returns[row]), "l": int(self._lengths[row])},
                }
            observed[ended] = self._observed(self.env.restart(ended))
            self._returns[ended], self._lengths[ended] = 0, 0
        return observed, reward.astype(np.float32), done, infos

    def state(self) -> dict[str, Any]:
        """Everything that decides what happens next."""
        return {"env": self.env.state(), "returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self.env.load(state["env"])
        self._started = True
        self._returns[:], self._lengths[:] = state["returns"], state["lengths"]

    def close(self) -> None:
        """Release what the environment holds."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the batch, once for every row asked for."""
        value = None if attr_name == "render_mode" else getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the batch; rows have none of their own."""
        require(indices is None, f"indices must be None, rows share their attributes, got {indices}")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the batch."""
        require(indices is None, f"indices must be None, rows share their methods, got {indices}")
        return [getattr(self.env, method_name)(*args, **kwargs)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """False: Gymnasium's wrappers wrap single environments."""
        return [False for _ in self._get_indices(indices)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset; None leaves the seeds as they are."""
        return self._seeds if seed is None else super().seed(seed)
