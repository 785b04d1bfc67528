"""Environments, learners and plain loops that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from mindworks.multistep import HighwayDQN, RowVecEnv, SequenceReplayBuffer, Target


class Corridor:
    """N rows of a corridor: 0 goes left, 1 right, a step may slip; the last cell pays 1 and ends, `limit` truncates.

    Observes the cell, one-hot `[length]` float32, or with `grid` as a boolean `[2, 4, length]`.
    """

    name = "corridor"

    def __init__(self, num_envs: int, length: int = 5, limit: int = 9, slip: float = 0.2, grid: bool = False) -> None:
        self.num_envs, self.length, self.max_episode_steps, self.slip, self.grid = num_envs, length, limit, slip, grid
        shape, dtype = ((2, 4, length), np.bool_) if grid else ((length,), np.float32)
        self.single_observation_space = spaces.Box(0, 1, shape, dtype)
        self.single_action_space = spaces.Discrete(2)
        self.cells, self.elapsed = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.dice = [np.random.default_rng(0) for _ in range(num_envs)]
        self.starts: list[int] = []
        self.open = False
        # handed out at every step and written over by the next, as an environment may do
        self.seen = np.zeros((num_envs, *shape), dtype)

    def _draw(self) -> np.ndarray:
        self.seen[:] = 0
        for row, cell in enumerate(self.cells):
            self.seen[row, ..., cell] = 1
        return self.seen

    def _start(self, row: int) -> None:
        self.cells[row], self.elapsed[row] = self.dice[row].integers(2), 0
        self.starts.append(row)

    def reset(self, seeds) -> np.ndarray:
        self.dice = [np.random.default_rng(seed) for seed in seeds]
        for row in range(self.num_envs):
            self._start(row)
        return self._draw()

    def restart(self, rows) -> np.ndarray:
        for row in rows:
            self._start(row)
        return self._draw()[rows].copy()

    def step(self, actions, alive):
        slips = np.array([dice.random() < self.slip for dice in self.dice])
        moved = np.clip(self.cells + np.where(slips, 0, 2 * actions - 1), 0, self.length - 1)
        self.cells, self.elapsed = np.where(alive, moved, self.cells), self.elapsed + alive
        terminated = self.cells == self.length - 1
        return self._draw(), terminated.astype(np.float64), terminated, self.elapsed >= self.max_episode_steps

    def state(self) -> dict[str, Any]:
        dice = [each.bit_generator.state for each in self.dice]
        return {"cells": self.cells.copy(), "elapsed": self.elapsed.copy(), "dice": dice}

    def load(self, state: dict[str, Any]) -> None:
        self.cells, self.elapsed = state["cells"].copy(), state["elapsed"].copy()
        for dice, saved in zip(self.dice, state["dice"], strict=True):
            dice.bit_generator.state = saved

    def close(self) -> None:
        self.open = False


class Endless(gymnasium.Env):
    """Shows random members of any space, pays the number of the step, ends every third episode after `life` steps.

    The others are truncated there.
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space | None = None, life=5) -> None:
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(3) if action_space is None else action_space
        self.life, self.steps, self.episodes = life, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps, self.episodes = 0, self.episodes + 1
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        over, for_good = self.steps == self.life, self.episodes % 3 == 0
        return self.observation_space.sample(), float(self.steps), over and for_good, over and not for_good, {}


VECTOR = spaces.Box(-1, 1, (3,), np.float32)
FAST: dict[str, Any] = {"learning_starts": 8, "batch_size": 8, "train_freq": 2, "buffer_size": 200, "device": "cpu"}


def learner(
    env: Any = None, kind: str = "highway", lookahead: int = 4, policy: str = "MlpPolicy", **given
) -> HighwayDQN:
    """A small learner, by default of three rows of the corridor."""
    env = RowVecEnv(Corridor(3)) if env is None else env
    shape = {} if policy == "CnnPolicy" else {"net_arch": [16]}
    settings = {"target_update_interval": 30, "seed": 0, "policy_kwargs": shape} | FAST | given
    return HighwayDQN(policy, env, target=Target(kind, lookahead=lookahead), **settings)


def parameters(one: HighwayDQN) -> dict[str, torch.Tensor]:
    """The weights of both networks, copied."""
    return {name: value.clone() for name, value in one.policy.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether all weights are the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def plain_target(target: Target, steps: list[tuple[float, float, np.ndarray, int, float]]) -> float:
    """The target of the first of `steps` (reward, discount, next values, next action, its probability), by recursion.

    The steps are those of one trajectory, as many as the lookahead allows; the last one bootstraps.
    """

    def value(q: np.ndarray) -> float:
        if target.kind in ("retrace", "tree_backup"):
            return target.epsilon * q.mean() + (1 - target.epsilon) * q.max()
        return q.max()

    def trace(q: np.ndarray, action: int, behavior: float) -> float:
        greedy = float(q[action] == q.max())
        if target.kind == "watkins":
            return target.lam * greedy
        chosen = target.epsilon / len(q) + (1 - target.epsilon) * greedy / (q == q.max()).sum()
        return target.lam * (min(1.0, chosen / behavior) if target.kind == "retrace" else chosen)

    reward, discount, q, action, behavior = steps[0]
    if len(steps) == 1 or target.kind == "one_step":
        return reward + discount * value(q)
    ahead = plain_target(target, steps[1:])
    if target.kind == "n_step":
        return reward + discount * ahead
    if target.kind == "peng":
        return reward + discount * ((1 - target.lam) * value(q) + target.lam * ahead)
    if target.kind == "highway":
        return reward + discount * max(value(q), ahead)
    if target.kind == "highway_soft":
        gate = 1 / (1 + np.exp(-target.sharpness * (ahead - value(q))))
        return reward + discount * ((1 - gate) * value(q) + gate * ahead)
    return reward + discount * (value(q) + trace(q, action, behavior) * (ahead - q[action]))


def stored_steps(buffer: SequenceReplayBuffer, slot: int, env: int, most: int) -> list[int]:
    """The slots of up to `most` successive steps of one trajectory from `slot` on, found one by one."""
    found = [slot]
    newest = (buffer.pos - 1) % buffer.buffer_size
    while len(found) < most and not buffer.dones[found[-1], env] and found[-1] != newest:
        found.append((found[-1] + 1) % buffer.buffer_size)
    return found
