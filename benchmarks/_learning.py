"""Three ways to train one linear policy, each followed by the same evaluation at the same numbers of steps.

What counts: a step is one training interaction; the policy of a checkpoint is the one whose last update had seen at
most that many steps, so a method is not paid for a population that it has not finished. Evaluation plays the current
mean (centre) greedily in plain Gymnasium environments of its own, with the method's observation normalisation as it
stands; neither its steps nor its CPU seconds count. Episode seeds of an evaluation depend on the run's seed and the
checkpoint alone: they are the same for every method.
"""

from __future__ import annotations

import os
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from mindworks.core.policy import Policy
from mindworks.envs import make_batch
from mindworks.policies import PSSVF, PSSVFConfig, Training

CHECKPOINTS = 10


@dataclass(frozen=True)
class Task:
    """An environment, its budget of training interactions, and the episodes of one evaluation."""

    name: str
    steps: int
    episodes: int

    @property
    def checkpoints(self) -> list[int]:
        """Steps at which the current policy is evaluated: every tenth of the budget."""
        return [self.steps * i // CHECKPOINTS for i in range(1, CHECKPOINTS + 1)]


@dataclass(frozen=True)
class Linear:
    """A linear policy as it stands: `action = head(weight @ clip((obs - mean) / std) + bias)`.

    The head is the method's own: the argmax for discrete actions, else `squash` (tanh onto the bounds) or the clipping
    onto the bounds that sb3-contrib and EvoTorch apply.
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    squash: bool = False
    clip: float = np.inf

    def act(self, obs: np.ndarray, space: gymnasium.Space[Any]) -> Any:
        """The greedy action at one observation."""
        seen = np.clip((obs - self.mean) / self.std, -self.clip, self.clip)
        output = self.weight @ seen + self.bias
        if isinstance(space, gymnasium.spaces.Discrete):
            return int(output.argmax())
        assert isinstance(space, gymnasium.spaces.Box)
        if self.squash:
            centre, width = (space.high + space.low) / 2, (space.high - space.low) / 2
            return (centre + width * np.tanh(output)).astype(np.float32)
        return np.clip(output, space.low, space.high).astype(np.float32)


class Recorder:
    """The learning curve of one run: give it every policy with the steps it was made from, then `finish`."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.env = gymnasium.make(task.name)
        self.policy: Linear | None = None
        self.returns: list[float] = []
        self.cpu_s = 0.0

    def see(self, steps: int, policy: Linear) -> None:
        """`policy` is current from `steps` steps on; checkpoints before belong to the policy seen last."""
        while len(self.returns) < CHECKPOINTS and self.task.checkpoints[len(self.returns)] < steps:
            self._evaluate()
        self.policy = policy

    def finish(self) -> list[float]:
        """The mean returns at all checkpoints; those left belong to the last policy."""
        while len(self.returns) < CHECKPOINTS:
            self._evaluate()
        self.env.close()
        return self.returns

    def _evaluate(self) -> None:
        assert self.policy is not None, "a policy must be seen at 0 steps"
        start = time.process_time()
        seeds = np.random.default_rng((self.seed, 7, len(self.returns))).integers(0, 2**31, self.task.episodes)
        self.returns.append(float(np.mean([self._episode(self.policy, int(seed)) for seed in seeds])))
        self.cpu_s += time.process_time() - start

    def _episode(self, policy: Linear, seed: int) -> float:
        obs, _ = self.env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = self.env.step(policy.act(obs, self.env.action_space))
            total += float(reward)
            over = terminated or truncated
        return total


@dataclass(frozen=True)
class Result:
    """Curves `[seeds][checkpoints]`, and CPU seconds and steps of training, all seeds together."""

    returns: list[list[float]]
    cpu_s: float
    steps: int


def measured(recorders: Sequence[Recorder], train: Callable[[], int]) -> Result:
    """Run `train`, which answers the steps it took, and take the recorders' own CPU seconds from its time."""
    start = time.process_time()
    steps = train()
    spent = time.process_time() - start - sum(recorder.cpu_s for recorder in recorders)
    return Result([recorder.finish() for recorder in recorders], spent, steps)


def pssvf(task: Task, setting: dict[str, Any], seeds: Sequence[int]) -> Result:
    """The PSSVF of this library, all seeds in one learner."""
    env = make_batch(task.name, len(seeds) * setting["population"])
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space)
    learner = PSSVF(policy, PSSVFConfig(**setting), seeds)
    training = Training(
        learner, env, make_batch(task.name, len(seeds)), steps=task.steps, evaluate_every=task.steps * 1000
    )
    recorders = [Recorder(task, seed) for seed in seeds]

    def see() -> None:
        (weight, bias), *_ = policy.network.unflatten(learner.theta.detach())
        for s, recorder in enumerate(recorders):
            now = (x.copy() for x in (weight[s].numpy(), bias[s].numpy(), learner.norm.mean[s], learner.norm.std[s]))
            recorder.see(int(learner.steps[s]), Linear(*now, squash=True))

    def train() -> int:
        see()
        while not training.done:
            training.advance()
            see()
        return int(learner.steps.sum())

    return measured(recorders, train)


def ars(task: Task, setting: dict[str, Any], seeds: Sequence[int]) -> Result:
    """Augmented random search from sb3-contrib, one seed after the other."""
    return joined([_ars(task, dict(setting), seed) for seed in seeds])


def _ars(task: Task, setting: dict[str, Any], seed: int) -> Result:
    from sb3_contrib import ARS
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    recorder = Recorder(task, seed)
    env: Any = DummyVecEnv([lambda: gymnasium.make(task.name)])
    if setting.pop("normalize"):
        env = VecNormalize(env, norm_obs=True, norm_reward=False)
    model = ARS("LinearPolicy", env, seed=seed, **setting)
    outputs = (-1, int(np.prod(env.observation_space.shape)))

    def current() -> Linear:
        weight = model.weights.numpy().reshape(outputs).copy()
        zero = np.zeros(len(weight))
        if not isinstance(env, VecNormalize):
            return Linear(weight, zero, np.zeros(outputs[1]), np.ones(outputs[1]))
        mean, std = env.obs_rms.mean.copy(), np.sqrt(env.obs_rms.var + env.epsilon)
        return Linear(weight, zero, mean, std, clip=env.clip_obs)

    class Watch(BaseCallback):
        def _on_rollout_start(self) -> None:
            recorder.see(self.num_timesteps, current())

        def _on_step(self) -> bool:
            return True

        def _on_training_end(self) -> None:
            recorder.see(self.num_timesteps, current())

    def train() -> int:
        model.learn(task.steps, callback=Watch(), log_interval=None)
        return int(model.num_timesteps)

    return measured([recorder], train)


def pgpe(task: Task, setting: dict[str, Any], seeds: Sequence[int]) -> Result:
    """Policy gradients with parameter-based exploration (and ClipUp) from EvoTorch, one seed after the other."""
    return joined([_pgpe(task, dict(setting), seed) for seed in seeds])


class _Seeded(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Resets that name no seed get the next one of a stream: EvoTorch seeds no environment."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        super().__init__(env)
        self.stream = np.random.default_rng(seed)

    def reset(self, **kwargs: Any) -> Any:
        return self.env.reset(**{"seed": int(self.stream.integers(2**31)), **kwargs})


def _pgpe(task: Task, setting: dict[str, Any], seed: int) -> Result:
    from evotorch.algorithms import PGPE
    from evotorch.neuroevolution import GymNE

    recorder = Recorder(task, seed)
    problem = GymNE(
        lambda: _Seeded(gymnasium.make(task.name), seed),
        "Linear(obs_length, act_length)",
        observation_normalization=setting.pop("normalize"),
    )
    problem.manual_seed(seed)
    max_speed = setting.pop("max_speed")
    searcher = PGPE(
        problem,
        popsize=setting.pop("popsize"),
        center_learning_rate=setting.pop("learning_rate") * max_speed,
        stdev_learning_rate=0.1,
        stdev_max_change=0.2,
        radius_init=setting.pop("radius") * max_speed,
        optimizer="clipup",
        optimizer_config={"max_speed": max_speed, "momentum": 0.9},
    )
    assert not setting, f"unknown settings {setting}"
    width = len(recorder.env.observation_space.low)  # type: ignore[attr-defined]

    def current() -> Linear:
        center = np.array(searcher.status["center"], np.float64)
        outputs = len(center) // (width + 1)
        weight, bias = center[: outputs * width].reshape(outputs, width), center[outputs * width :]
        stats = problem.get_observation_stats() if problem.observation_normalization else None
        if stats is None or stats.count < 2:
            return Linear(weight, bias, np.zeros(width), np.ones(width))
        return Linear(weight, bias, np.array(stats.mean, np.float64), np.array(stats.stdev, np.float64))

    def train() -> int:
        recorder.see(0, current())
        while problem.interaction_count < task.steps:
            searcher.step()
            recorder.see(problem.interaction_count, current())
        return int(problem.interaction_count)

    return measured([recorder], train)


def joined(results: Sequence[Result]) -> Result:
    """Runs of one seed each as one result."""
    returns = [curve for result in results for curve in result.returns]
    return Result(returns, sum(r.cpu_s for r in results), sum(r.steps for r in results))


METHODS: dict[str, Callable[[Task, dict[str, Any], Sequence[int]], Result]] = {
    "pssvf": pssvf,
    "ars": ars,
    "pgpe": pgpe,
}


def quiet() -> None:
    """One thread, no warnings of other libraries, and Gymnasium's MuJoCo module without the renderer it imports."""
    torch.set_num_threads(1)
    os.environ.setdefault("EVOTORCH_VERBOSE_LEVEL", "0")
    warnings.filterwarnings("ignore", module="gymnasium|evotorch|stable_baselines3|sb3_contrib")
    try:
        import imageio  # noqa: F401
    except ModuleNotFoundError:
        sys.modules["imageio"] = types.ModuleType("imageio")
