"""What every batched environment shares: seeds per row, the time limit, and rows that end and stay ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray

from mindworks.errors import InputError, require

Observations = NDArray[np.float32]
Outcome = tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
RowOutcome = tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_] | None]


def checked_seeds(seeds: Sequence[int] | NDArray[np.integer[Any]], num_envs: int) -> list[int]:
    """Return `seeds` as ints, or raise `InputError` unless they are `num_envs` integers >= 0."""
    values = np.asarray(seeds)
    require(
        values.shape == (num_envs,) and values.dtype.kind in "iu",
        f"seeds: expected {num_envs} integers, got {values.dtype} of shape {values.shape}",
    )
    require(bool((values >= 0).all()), f"seeds: expected integers >= 0, got {values.min()}")
    return [int(value) for value in values]


def row_generator(seed: int) -> np.random.Generator:
    """Return the generator a Gymnasium environment draws from after `reset(seed=seed)`."""
    return seeding.np_random(seed)[0]


def observation_box(space: Space[Any], name: str) -> spaces.Box:
    """Return the float32 twin of an environment's observation space; only `Box` of rank >= 1 is supported."""
    if not isinstance(space, spaces.Box) or not space.shape:
        hint = "; encode it, e.g. one-hot, with a gymnasium ObservationWrapper" if space.shape == () else ""
        raise InputError(f"name: {name} observes {_short(space)}; a Box of rank >= 1 is needed{hint}")
    return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def action_space(space: Space[Any], name: str) -> spaces.Box | spaces.Discrete:
    """Return an environment's action space; only `Discrete` starting at 0 and `Box` of rank 1 are supported."""
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return space
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f":
        return space
    raise InputError(f"name: {name} acts in {_short(space)}; Discrete from 0 or a float Box of rank 1 is needed")


def _short(space: Space[Any]) -> str:
    return " ".join(str(space).split())[:80]


class RowEnv(ABC):
    """N independent episodes, one per row; subclasses say how rows start and how the given rows move one step.

    A row that has terminated or been truncated is never stepped again before the next `reset`, whatever `alive` says:
    there is no automatic reset. Raises `InputError` for a `num_envs` or a `max_episode_steps` below 1.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        single_observation_space: spaces.Box,
        single_action_space: spaces.Box | spaces.Discrete,
        max_episode_steps: int,
    ) -> None:
        require(num_envs >= 1, f"num_envs: expected at least 1, got {num_envs}")
        require(max_episode_steps >= 1, f"max_episode_steps: expected at least 1, got {max_episode_steps}")
        self.name = name
        self.num_envs = num_envs
        self.single_observation_space = single_observation_space
        self.single_action_space = single_action_space
        self.max_episode_steps = max_episode_steps
        self._observations: Observations | None = None
        self._elapsed = np.zeros(num_envs, np.int64)
        self._open = np.zeros(num_envs, np.bool_)

    def reset(self, seeds: Sequence[int] | NDArray[np.integer[Any]]) -> Observations:
        """Start an episode in every row, row i from `seeds[i]` alone, and return the observations `[N, *shape]`."""
        # in C order, whatever the order of the states: every step copies it
        observations = np.array(self._reset_rows(checked_seeds(seeds, self.num_envs)), np.float32, order="C")
        self._observations = observations
        self._elapsed[:] = 0
        self._open[:] = True
        return observations.copy()

    def step(self, actions: NDArray[Any], alive: NDArray[np.bool_]) -> Outcome:
        """Move the living rows one step.

        actions: `[N, A]` floats or `[N]` integers, passed on as given (nothing is clipped); alive: `[N]` booleans.
        Returns observations `[N, *shape]` float32, rewards `[N]` float64, terminated `[N]` and truncated `[N]`. Rows
        that are not stepped answer their last observation, reward 0, False and False. A row whose simulator gave up
        answers NaN. Raises `InputError` for actions of another shape, or outside a discrete space.
        """
        if self._observations is None:
            raise InputError("step: call reset(seeds) first")
        actions = np.asarray(actions)
        self._check_actions(actions)
        rows = (alive & self._open).nonzero()[0]
        where: Any = slice(None) if len(rows) == self.num_envs else rows  # a slice spares the copies of an index
        observed, reward, ended, cut = self._step_rows(rows, actions[where])
        self._elapsed[where] += 1
        late = self._elapsed[where] >= self.max_episode_steps
        cut = late if cut is None else late | cut
        rewards = np.zeros(self.num_envs, np.float64)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        self._observations[where], rewards[where] = observed, reward
        over = ended | cut
        if np.count_nonzero(over):  # most steps end no row
            terminated[where], truncated[where], self._open[where] = ended, cut, ~over
        return self._observations.copy(), rewards, terminated, truncated

    def close(self) -> None:  # noqa: B027, most backends hold nothing to release
        """Release what the environment holds."""

    def _check_actions(self, actions: NDArray[Any]) -> None:
        space = self.single_action_space
        shape, kind = (self.num_envs, *(space.shape or ())), "iu" if isinstance(space, spaces.Discrete) else "f"
        if actions.dtype.kind not in kind or actions.shape != shape:
            expected = f"{'integers' if kind == 'iu' else 'floats'} {list(shape)}"
            raise InputError(f"actions: expected {expected}, got {actions.dtype} {list(actions.shape)}")
        if isinstance(space, spaces.Discrete):
            low, high = np.minimum.reduce(actions), np.maximum.reduce(actions)
            if not 0 <= low <= high < space.n:
                raise InputError(f"actions: expected 0 to {space.n - 1}, got {low} to {high}")

    @abstractmethod
    def _reset_rows(self, seeds: list[int]) -> NDArray[Any]:
        """Start every row and return the observations `[N, *shape]`."""

    @abstractmethod
    def _step_rows(self, rows: NDArray[np.intp], actions: NDArray[Any]) -> RowOutcome:
        """Move the n given rows with their n actions; return n observations, rewards, terminations and truncations.

        Truncations beyond the time limit, which the base class keeps, are rare: None stands for there are none.
        """
