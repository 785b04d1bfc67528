"""Actors and environments the tests of this folder share."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces


class Counter(gymnasium.Env):
    """Counts its steps: observes [steps, seed], pays an int 1, terminates after `life` steps, notes every call.

    `oddity` is what step `life` answers: "reward" or "observation" make that one not finite instead of terminating,
    "ending" makes the observation not finite and terminates.
    """

    def __init__(self, life: int = 3, oddity: str = "", shape: tuple[int, ...] = (2,)) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, shape, np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.life, self.oddity, self.calls, self.resets, self.seed = life, oddity, 0, 0, 0
        self.actions: list[float] = []

    def _seen(self) -> np.ndarray:
        seen = np.zeros(self.observation_space.shape)
        seen.flat[0], seen.flat[1] = self.calls, self.seed
        return seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.calls, self.seed, self.resets = 0, seed or 0, self.resets + 1
        return self._seen(), {}

    def step(self, action):
        self.calls += 1
        self.actions.append(float(action[0]))
        seen, last = self._seen(), self.calls == self.life
        if last and self.oddity in ("observation", "ending"):
            seen.flat[0] = np.nan
        reward = -np.inf if last and self.oddity == "reward" else 1
        return seen, reward, last and self.oddity in ("", "ending"), False, {}


def linear_actor(env, seed: int, scale: float = 1.0):
    """A different linear policy per row: argmax of two scores, or tanh onto the bounds."""
    rng = np.random.default_rng(seed)
    width = int(np.prod(env.single_observation_space.shape))
    space = env.single_action_space
    outputs = int(space.n) if isinstance(space, spaces.Discrete) else space.shape[0]
    bound = None if isinstance(space, spaces.Discrete) else np.where(np.isfinite(space.high), space.high, 1)
    weights = (scale * rng.standard_normal((env.num_envs, outputs, width))).astype(np.float32)

    def act(observations, alive):
        scores = np.einsum("nod,nd->no", weights, observations.reshape(len(observations), -1))
        return scores.argmax(1) if isinstance(space, spaces.Discrete) else np.tanh(scores) * bound

    return act


def idle(env):
    """An actor that always answers zeros."""
    shape = () if isinstance(env.single_action_space, spaces.Discrete) else env.single_action_space.shape
    zeros = np.zeros((env.num_envs, *shape), np.float32 if shape else np.int64)
    return lambda observations, alive: zeros
