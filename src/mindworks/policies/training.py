"""Learning in an environment, evaluation, and learning with no environment at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindworks.core.adam import Adam
from mindworks.core.policy import Policy
from mindworks.envs.batch import BatchEnv
from mindworks.envs.rollout import rollout
from mindworks.errors import require
from mindworks.policies.learner import Learner
from mindworks.policies.pssvf import PSSVF

FRESH_SEED = 10**6  # keeps the streams of fresh policies apart from those of training


class Training:
    """S learners in an environment until each has taken `steps` steps, evaluated every `evaluate_every` of its own.

    `env` has S * population rows. Evaluation plays the unperturbed policy for `episodes` episodes in rows of its own
    (`evaluation_env`, S * episodes rows); its steps are not counted and its random streams are its own, so evaluating
    changes nothing. `curves[s]` lists `(steps, mean return)` of seed s. `state` and `load` resume bit for bit.
    """

    def __init__(
        self, learner: Learner, env: BatchEnv, evaluation_env: BatchEnv, *, steps: int, evaluate_every: int
    ) -> None:
        seeds, population = len(learner.streams), learner.config.population
        require(env.num_envs == seeds * population, f"env must have {seeds * population} rows, got {env.num_envs}")
        require(
            evaluation_env.num_envs % seeds == 0,
            f"evaluation_env must have rows for {seeds} seeds, got {evaluation_env.num_envs}",
        )
        require(steps >= 1, f"steps must be at least 1, got {steps}")
        require(evaluate_every >= 1, f"evaluate_every must be at least 1, got {evaluate_every}")
        self.learner, self.env, self.evaluation_env = learner, env, evaluation_env
        self.steps, self.evaluate_every = steps, evaluate_every
        self.curves: list[list[tuple[int, float]]] = [[] for _ in range(seeds)]

    @property
    def active(self) -> np.ndarray:
        """Which seeds still learn, bool `[S]`."""
        return self.learner.steps < self.steps

    @property
    def done(self) -> bool:
        """Whether every seed has taken its steps."""
        return not self.active.any()

    @property
    def step(self) -> int:
        """Environment steps taken by the seed that has taken the fewest."""
        return int(self.learner.steps.min())

    def metrics(self) -> dict[str, Any]:
        """Steps per seed, and the latest evaluation of each seed that has one."""
        return {"steps": self.learner.steps, "evaluated": [curve[-1][1] for curve in self.curves if curve]}

    def advance(self) -> None:
        """One generation: ask, roll out, tell, and evaluate the seeds that are due."""
        learner = self.learner
        active = self.active
        before = learner.steps // self.evaluate_every
        theta = learner.ask()
        rows = np.repeat(active, learner.config.population)
        episodes = rollout(self.env, learner.actor(theta), learner.episode_seeds(), active=rows)
        learner.tell(theta, episodes, active)
        due = active & ((learner.steps // self.evaluate_every > before) | ~self.active)
        if due.any():
            self._evaluate(due)

    def _evaluate(self, due: np.ndarray) -> None:
        learner = self.learner
        returns = evaluate(learner, learner.theta, self.evaluation_env, round=int(learner.episodes.max()), active=due)
        for s in np.flatnonzero(due):
            self.curves[s].append((int(learner.steps[s]), float(returns[s].mean())))

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on exactly here."""
        return {"learner": self.learner.state(), "curves": [[list(point) for point in curve] for curve in self.curves]}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self.learner.load(state["learner"])
        self.curves = [[(int(step), float(value)) for step, value in curve] for curve in state["curves"]]


def evaluate(
    learner: Learner,
    theta: Tensor,
    env: BatchEnv,
    *,
    round: int = 0,
    active: np.ndarray | None = None,
    policy: Policy | None = None,
    stochastic: bool = False,
) -> np.ndarray:
    """Full undiscounted returns `[S, episodes]` of `theta[S, P]`, or of M policies `theta[S, M, P]` in equal shares.

    The greedy policy is played, or with `stochastic` a sampling one, with the learner's observation normalisation.
    Episode seeds and action noise follow from the learners' seeds and `round` alone. `policy` is the architecture of
    theta, the learner's own by default.
    """
    seeds = len(learner.streams)
    require(env.num_envs % seeds == 0, f"env must have rows for {seeds} seeds, got {env.num_envs}")
    episodes = env.num_envs // seeds
    theta = theta.unsqueeze(1) if theta.ndim == 2 else theta
    require(
        episodes % theta.shape[1] == 0,
        f"theta must have a number of policies that divides {episodes} rows, got {theta.shape[1]}",
    )
    each = theta.repeat_interleave(episodes // theta.shape[1], 1)
    episode_seeds = np.concatenate(
        [np.random.default_rng((seed, 7, round)).integers(0, 2**62, episodes) for seed in learner.streams.seeds]
    )
    rows = np.repeat(np.ones(seeds, bool) if active is None else active, episodes)
    rngs = [np.random.default_rng((seed, 8, round)) for seed in learner.streams.seeds] if stochastic else None
    normalizer = learner.norm if learner.config.normalize_observations else None
    act = (policy or learner.policy).actor(each, normalizer, rngs)
    return rollout(env, act, episode_seeds.tolist(), record=False, active=rows).returns.reshape(seeds, episodes)


def ascend(
    value: Callable[[Tensor], Tensor],
    theta: Tensor,
    *,
    steps: int,
    lr: float,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Zero-shot learning: climb a frozen `value(theta) -> [...]` from `theta[..., P]`, meeting no environment.

    Every vector climbs by itself with Adam. `callback(step, theta, value)` sees each step before it is taken. Returns
    the final parameters; the input is left as it was.
    """
    require(steps >= 0, f"steps must not be negative, got {steps}")
    flat = theta.detach().clone().reshape(-1, theta.shape[-1])
    adam = Adam(flat, lr)
    for step in range(steps):
        flat.requires_grad_(True)
        predicted = value(flat.reshape(theta.shape))
        (gradient,) = torch.autograd.grad(predicted.sum(), flat)
        flat.requires_grad_(False)
        if callback is not None:
            callback(step, flat.reshape(theta.shape).clone(), predicted.detach())
        adam.step(-gradient)
    return flat.reshape(theta.shape)


def zero_shot(
    learner: PSSVF,
    env: BatchEnv,
    count: int,
    *,
    steps: int,
    lr: float,
    policy: Policy | None = None,
    within_data: bool = False,
) -> list[dict[str, Any]]:
    """Let `count` fresh random policies per seed climb the learner's frozen critic, and play them.

    `env` has S * count * episodes rows. Per seed, the mean full return of the fresh policies `before` and `after` the
    climb, the critic's mean prediction for them after it (`predicted`), and the best return the replay holds
    (`best_in_data`, one training episode); `median_before` and `median_after` are medians over the fresh policies. The
    critic never sees the fresh policies or their returns. With a critic that has probes they may be of another
    architecture, `policy`. `within_data` ends the climb of a policy for which the critic promises the best return in
    the data: beyond that it only extrapolates.
    """
    policy = policy or learner.policy
    seeds = learner.streams.seeds
    generators = [torch.Generator().manual_seed(seed + FRESH_SEED) for seed in seeds]
    fresh = torch.stack([policy.init(count, generator=generator) for generator in generators])
    most = torch.stack([learner.replay.values(s).max() for s in range(len(seeds))]).unsqueeze(-1)

    def value(theta: Tensor) -> Tensor:
        predicted = learner.value(theta, policy)
        return torch.minimum(predicted, most.to(predicted)) if within_data else predicted

    climbed = ascend(value, fresh, steps=steps, lr=lr)
    played = [
        evaluate(learner, theta, env, policy=policy).reshape(len(seeds), count, -1).mean(2)
        for theta in (fresh, climbed)
    ]
    predicted = learner.value(climbed, policy).mean(1)
    bonus = learner.config.survival_bonus
    best = [(learner.replay.values(s) + bonus * learner.replay.lengths(s)).max() for s in range(len(seeds))]
    columns = {
        "before": played[0].mean(1),
        "after": played[1].mean(1),
        "predicted": predicted.tolist(),
        "best_in_data": best,
        "median_before": np.median(played[0], 1),
        "median_after": np.median(played[1], 1),
    }
    return [{name: float(column[s]) for name, column in columns.items()} for s in range(len(seeds))]
