"""One MinAtar game as a Gymnasium environment, for whoever expects one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from mindworks.envs.minatar.rows import MinAtarEnv
from mindworks.errors import require


class MinAtarGym(gymnasium.Env[NDArray[Any], np.int64]):
    """One row of `MinAtarEnv`, observed as `[C, 10, 10]`; takes its keyword arguments, and draws no pictures.

    `reset(seed=s)` starts what row i of `MinAtarEnv.reset(seeds)` does with `seeds[i] = s`; a reset without a seed goes
    on with the row's own dice. Raises `InputError` for an action outside the space, and for a step after the end.
    """

    metadata = {"render_modes": []}  # noqa: RUF012, as Gymnasium declares it

    def __init__(self, game: str, **arguments: Any) -> None:
        self._rows = MinAtarEnv(game, 1, **arguments)
        self._running = False
        self._seeded = False
        self.observation_space = self._rows.single_observation_space
        self.action_space: Any = self._rows.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode; `options` are ignored."""
        super().reset(seed=seed)
        if seed is None and self._seeded:
            observations = self._rows.restart([0])
        else:
            observations = self._rows.reset([int(self.np_random.integers(2**63)) if seed is None else seed])
        self._running = self._seeded = True
        return observations[0], {}

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Play one frame; truncated at the row's time limit."""
        require(self._running, "step: the episode is over, call reset first")
        observations, rewards, terminated, truncated = self._rows.step(np.array([action]), np.ones(1, np.bool_))
        self._running = not (terminated[0] or truncated[0])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the row's state, see `MinAtarEnv.state`."""
        return self._rows.state()

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state()`, bit for bit."""
        self._rows.load(state)
        self._running, self._seeded = bool(state["open"][0]), True
