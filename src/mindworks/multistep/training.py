"""Training as a job that can be stopped anywhere and goes on with the same bits."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from mindworks.errors import InputError, require
from mindworks.multistep.dqn import HighwayDQN

_COUNTERS = ("num_timesteps", "_n_updates", "_n_calls", "_episode_num", "exploration_rate")


class Episodes(BaseCallback):
    """Keeps (environment steps so far, return, length) of every episode that ends."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[float]] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if (episode := info.get("episode")) is not None:
                self.found.append([self.num_timesteps, float(episode["r"]), int(episode["l"])])
        return True


class Training:
    """`learner.learn(steps)` in portions of `portion` environment steps; a job that `RunLog.drive` can drive.

    It makes the same updates as `learn`. `episodes` lists (environment steps, return, length) of every episode that
    ended, in training and with its exploration. `state` and `load` need an environment that has them, such as
    `RowVecEnv`; they raise `InputError` for others. A callback of stable-baselines3 comes along as `callback`; what it
    keeps for itself is not part of the state.
    """

    def __init__(self, learner: HighwayDQN, steps: int, *, portion: int = 1000, callback: Any = None) -> None:
        require(steps >= 1, f"steps must be at least 1, got {steps}")
        require(portion >= 1, f"portion must be at least 1, got {portion}")
        self.learner, self.total, self.portion = learner, steps, portion
        self._episodes = Episodes()
        given = [self._episodes] if callback is None else [self._episodes, learner._init_callback(callback)]
        self._total, self._callback = learner._setup_learn(steps, given, True, "run", False)
        self._callback.on_training_start({"total_timesteps": self._total}, {})
        self._stopped = False

    @property
    def step(self) -> int:
        """Environment steps so far."""
        return int(self.learner.num_timesteps)

    @property
    def done(self) -> bool:
        """Whether all steps are taken, or a callback has stopped the training."""
        return self._stopped or self.step >= self._total

    @property
    def episodes(self) -> list[list[float]]:
        """(environment steps at its end, return, length) of every episode."""
        return self._episodes.found

    def advance(self) -> None:
        """Take `portion` environment steps, or what is left."""
        require(not self.done, f"step must be below {self._total}, got {self.step}")
        learner: Any = self.learner
        until = min(self._total, self.step + self.portion)
        while self.step < until and not self._stopped:
            rollout = learner.collect_rollouts(
                learner.env,
                train_freq=learner.train_freq,
                callback=self._callback,
                learning_starts=learner.learning_starts,
                replay_buffer=learner.replay_buffer,
                log_interval=None,
            )
            self._stopped = not rollout.continue_training
            if not self._stopped and self.step > learner.learning_starts:
                updates = learner.gradient_steps if learner.gradient_steps >= 0 else rollout.episode_timesteps
                if updates > 0:
                    learner.train(batch_size=learner.batch_size, gradient_steps=updates)
        if self.done:
            self._callback.on_training_end()

    def metrics(self) -> dict[str, Any]:
        """Environment steps, episodes, mean return of the last 100 episodes, exploration, loss and mean target."""
        recent = [row[1] for row in self.episodes[-100:]]
        values = self.learner.logger.name_to_value
        return {
            "step": self.step,
            "episodes": len(self.episodes),
            "return": float(np.mean(recent)) if recent else None,
            "exploration": float(self.learner.exploration_rate),
            "loss": values.get("train/loss"),
            "target": values.get("train/target"),
        }

    def state(self) -> dict[str, Any]:
        """Everything that decides what happens next."""
        learner = self.learner
        return {
            "counters": {name: getattr(learner, name) for name in _COUNTERS},
            "progress": learner._current_progress_remaining,
            "policy": deepcopy(learner.policy.state_dict()),
            "optimizer": deepcopy(learner.policy.optimizer.state_dict()),
            "replay": learner.replay_buffer.state(),
            "cache": {"values": learner.cache.values.clone(), "fresh": learner.cache.fresh.copy()},
            "rng": learner.rng.bit_generator.state,
            "observed": np.array(learner._last_obs),
            "env": self._env().state(),
            "episodes": [list(row) for row in self.episodes],
            "stopped": self._stopped,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken, with a learner made by the same arguments."""
        learner = self.learner
        self._env().load(state["env"])
        for name, value in state["counters"].items():
            setattr(learner, name, value)
        learner._current_progress_remaining = state["progress"]
        learner.policy.load_state_dict(state["policy"])
        learner.policy.optimizer.load_state_dict(state["optimizer"])
        learner.replay_buffer.load(state["replay"])
        learner.cache.values.copy_(state["cache"]["values"])
        learner.cache.fresh[:] = state["cache"]["fresh"]
        learner.rng.bit_generator.state = state["rng"]
        learner._last_obs = state["observed"]
        self._episodes.found = [list(row) for row in state["episodes"]]
        self._stopped = state["stopped"]

    def _env(self) -> Any:
        env = self.learner.env
        if not (hasattr(type(env), "state") and hasattr(type(env), "load")):  # not what a wrapper passes on
            raise InputError(f"env must have state() and load() to be resumed, got {type(env).__name__}")
        return env
