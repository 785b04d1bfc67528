"""Rewards paid late: the sum of an episode at its end, or of some steps at a time.

The delayed process is not Markov in the observation: what has been earned and not yet paid is not observed, nor is the
step of the next payment. Values of observations still exist, as averages over what is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from mindworks.envs.batch import BatchEnv
from mindworks.envs.rows import Outcome
from mindworks.errors import InputError, require


class DelayedReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Pays the sum of the rewards at the episode's end, terminated or truncated, and 0 before.

    period: pay every `period` steps of the episode as well; None only at the end. `info["reward"]` holds the reward of
    the environment. Raises `InputError` for a period below 1.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], period: int | None = None) -> None:
        RecordConstructorArgs.__init__(self, period=period)
        super().__init__(env)
        self._period = _checked(period)
        self._owed, self._since = 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; what the last one owed is forgotten."""
        self._owed, self._since = 0.0, 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and pay what is owed when a payment is due."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._owed += float(reward)
        self._since += 1
        paid = 0.0
        if terminated or truncated or self._since == self._period:
            paid, self._owed, self._since = self._owed, 0.0, 0
        return observation, paid, terminated, truncated, {**info, "reward": reward}


class Restartable(BatchEnv, Protocol):
    """A batched environment for learners that never stop, such as `MinAtarEnv`."""

    def restart(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Start a new episode in the given rows."""
        ...

    def state(self) -> dict[str, Any]:
        """Return arrays, perhaps in further dictionaries."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state()`."""
        ...


class DelayedRows:
    """`DelayedReward` for N rows: the same interface as the batched environment it wraps.

    env: any batched environment; `restart`, `state` and `load` need one that has them, such as `MinAtarEnv`.
    `earned` `[N]` holds the rewards of the environment in the last step. Raises `InputError` for a period below 1.
    """

    def __init__(self, env: BatchEnv | Restartable, period: int | None = None) -> None:
        self.env: Any = env
        self.name = f"{env.name}, delayed"
        self.num_envs, self.max_episode_steps = env.num_envs, env.max_episode_steps
        self.single_observation_space, self.single_action_space = env.single_observation_space, env.single_action_space
        self._period = _checked(period)
        self._owed = np.zeros(env.num_envs, np.float64)
        self._since = np.zeros(env.num_envs, np.int64)
        self._open = np.zeros(env.num_envs, np.bool_)
        self.earned = np.zeros(env.num_envs, np.float64)

    def reset(self, seeds: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Start an episode in every row, as the environment does; nothing is owed."""
        observations: NDArray[Any] = self.env.reset(seeds)
        self._forget(slice(None))
        return observations

    def step(self, actions: NDArray[Any], alive: NDArray[np.bool_]) -> Outcome:
        """Step the living rows, as the environment does, and pay those whose payment is due."""
        observations, self.earned, terminated, truncated = self.env.step(actions, alive)
        self._owed += self.earned
        self._since += alive & self._open
        over = terminated | truncated
        due = over if self._period is None else over | (self._since == self._period)
        paid = np.where(due, self._owed, 0.0)
        self._owed[due], self._since[due] = 0.0, 0
        self._open &= ~over
        return observations, paid, terminated, truncated

    def restart(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Start a new episode in the given rows, as the environment does; what they owed is forgotten."""
        observations: NDArray[Any] = self.env.restart(rows)
        self._forget(np.asarray(rows) if len(rows) else np.zeros(0, np.intp))
        return observations

    def state(self) -> dict[str, Any]:
        """Return all that the next steps depend on: the environment's state under "env", and what is owed."""
        return {"env": self.env.state(), **{key: value.copy() for key, value in self._saved().items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state()`; raises `InputError` for other keys and for arrays of another shape or dtype."""
        saved = self._saved()
        expected = {"env", *saved}
        require(set(state) == expected, f"state: expected the keys {sorted(expected)}, got {sorted(state)}")
        for key, own in saved.items():
            given = np.asarray(state[key])
            fits = (given.dtype, given.shape) == (own.dtype, own.shape)
            require(fits, f"state: {key} must be {own.dtype} {list(own.shape)}, got {given.dtype} {list(given.shape)}")
        self.env.load(state["env"])
        for key, own in saved.items():
            own[...] = state[key]

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _saved(self) -> dict[str, NDArray[Any]]:
        return {"owed": self._owed, "since": self._since, "open": self._open}

    def _forget(self, rows: Any) -> None:
        self._owed[rows], self._since[rows], self._open[rows] = 0.0, 0, True


def _checked(period: int | None) -> int | None:
    whole = isinstance(period, (int, np.integer)) and not isinstance(period, bool) and period >= 1
    if period is not None and not whole:
        raise InputError(f"period: expected at least 1 or None, got {period!r}")
    return period
