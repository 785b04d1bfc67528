"""Ways to train one policy for a number of episodes: POIS, PPO and TRPO, CEM and PGPE.

What counts is episodes: every episode that a method simulates is one, its return is the one it was played with (random
actions or parameters included), and there is no other evaluation. A curve is the mean return of each batch of episodes
in the order in which they ended. Seconds are CPU seconds of training.

PPO (stable-baselines3) and TRPO (sb3-contrib) step Gymnasium's environments, several side by side where the setting
says so; those still under way when the last counted episode ends are not counted. CEM and PGPE (EvoTorch) play their
populations with this library's rollouts, policies of the form that POIS in the space of parameters has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from mindworks.core.policy import Policy
from mindworks.envs import BatchEnv, make_batch, rollout
from mindworks.policies.pois import POIS, POISConfig
from mindworks.policies.search import Search

Setting = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """An environment cut at `horizon` steps, a budget of episodes, and the episodes of one point of a curve."""

    name: str
    horizon: int
    episodes: int
    batch: int

    def env(self, rows: int) -> BatchEnv:
        """A batch of it."""
        return make_batch(self.name, rows, max_episode_steps=self.horizon)

    def share(self, fraction: float) -> Task:
        """The same task with a part of the budget, in whole batches."""
        batches = round(self.episodes * fraction / self.batch)
        return Task(self.name, self.horizon, batches * self.batch, self.batch)


@dataclass(frozen=True)
class Run:
    """One seed: the returns of all counted episodes in order, CPU seconds of training and environment steps."""

    returns: list[float]
    cpu_s: float
    steps: int

    def curve(self, batch: int) -> list[float]:
        """Mean returns of consecutive batches of episodes."""
        return np.reshape(self.returns, (-1, batch)).mean(1).round(2).tolist()


def linear(env: BatchEnv, gaussian: bool = False) -> Policy:
    """The policy of the study: linear without biases, one logit for two actions, outputs that the task clips."""
    discrete = isinstance(env.single_action_space, gymnasium.spaces.Discrete)
    return Policy.for_spaces(
        env.single_observation_space,
        env.single_action_space,
        gaussian=gaussian and not discrete,
        bias=False,
        squash=False,
        reference=discrete,
    )


def pois(task: Task, setting: Setting, seed: int) -> Run:
    """POIS of this library; `setting` holds arguments of `POISConfig`."""
    settings = {"episodes": task.batch, **setting}
    config = POISConfig.action_based(**settings) if setting["mode"] == "action" else POISConfig(**settings)
    env = task.env(config.episodes)
    start = time.process_time()
    search = POIS(linear(env, gaussian=config.mode == "action"), config, [seed])
    loop = Search(search, env, batches=task.episodes // config.episodes)
    while not loop.done:
        loop.advance()
    spent = time.process_time() - start
    env.close()
    # a batch of POIS is a point of the curve, so its mean stands for each of its episodes
    return Run(np.repeat(loop.curves[0], config.episodes).tolist(), spent, int(search.steps_told[0]))


class OneRow(gymnasium.Env[np.ndarray, np.ndarray]):
    """A batched environment of one row as a Gymnasium environment, for tasks that Gymnasium does not have."""

    def __init__(self, env: BatchEnv) -> None:
        self.env, self.alive = env, np.ones(1, np.bool_)
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode, from the next number of the seed's stream."""
        super().reset(seed=seed)
        return self.env.reset([int(self.np_random.integers(2**31))])[0], {}

    def step(self, action: np.ndarray) -> Any:
        """Play one step."""
        seen, rewards, terminated, truncated = self.env.step(action[None], self.alive)
        return seen[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}


def _single(task: Task) -> gymnasium.Env[Any, Any]:
    if task.name in gymnasium.registry:
        return gymnasium.make(task.name, max_episode_steps=task.horizon)
    return OneRow(task.env(1))


def ppo(task: Task, setting: Setting, seed: int) -> Run:
    """PPO of stable-baselines3."""
    from stable_baselines3 import PPO

    return _baseline(PPO, task, dict(setting), seed)


def trpo(task: Task, setting: Setting, seed: int) -> Run:
    """TRPO of sb3-contrib."""
    from sb3_contrib import TRPO

    return _baseline(TRPO, task, dict(setting), seed)


def _baseline(algorithm: Any, task: Task, setting: Setting, seed: int) -> Run:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    returns: list[float] = []

    class Count(BaseCallback):
        def _on_step(self) -> bool:
            returns.extend(info["episode"]["r"] for info in self.locals["infos"] if "episode" in info)
            return len(returns) < task.episodes

    env = DummyVecEnv([lambda: Monitor(_single(task))] * setting.pop("n_envs"))
    arch = {"pi": setting.pop("policy"), "vf": setting.pop("value")}
    start = time.process_time()
    model = algorithm("MlpPolicy", env, seed=seed, device="cpu", policy_kwargs={"net_arch": arch}, **setting)
    model.learn(2 * task.episodes * task.horizon, callback=Count(), log_interval=10**9)
    spent = time.process_time() - start
    env.close()
    return Run(returns[: task.episodes], spent, int(model.num_timesteps))


def cem(task: Task, setting: Setting, seed: int) -> Run:
    """The cross-entropy method of EvoTorch."""
    from evotorch.algorithms import CEM

    return _evolved(CEM, task, setting, seed)


def pgpe(task: Task, setting: Setting, seed: int) -> Run:
    """Policy gradients with parameter-based exploration of EvoTorch."""
    from evotorch.algorithms import PGPE

    return _evolved(PGPE, task, setting, seed)


def _evolved(algorithm: Any, task: Task, setting: Setting, seed: int) -> Run:
    from evotorch import Problem

    assert task.episodes % setting["popsize"] == 0, f"popsize must divide {task.episodes}, got {setting['popsize']}"
    env = task.env(setting["popsize"])
    policy = linear(env)
    returns: list[float] = []
    taken: list[int] = []
    stream = np.random.default_rng(seed)

    def fitness(theta: torch.Tensor) -> torch.Tensor:
        seeds = stream.integers(2**31, size=len(theta))
        played = rollout(env, policy.actor(theta), seeds, record=False)
        returns.extend(played.returns.tolist())
        taken.append(played.steps)
        return torch.from_numpy(played.returns).float()

    start = time.process_time()
    size = policy.num_parameters
    problem = Problem("max", fitness, solution_length=size, initial_bounds=(0, 0), vectorized=True, seed=seed)
    searcher = algorithm(problem, center_init=torch.zeros(size), **setting)
    while len(returns) < task.episodes:
        searcher.step()
    spent = time.process_time() - start
    env.close()
    return Run(returns, spent, sum(taken))


METHODS: dict[str, Callable[[Task, Setting, int], Run]] = {
    "p_pois": pois,
    "a_pois": pois,
    "p_pois_tuned": pois,
    "a_pois_tuned": pois,
    "ppo": ppo,
    "ppo_64": ppo,
    "trpo": trpo,
    "trpo_64": trpo,
    "cem": cem,
    "pgpe": pgpe,
}
