"""Deep Q-learning from sequences of steps towards any multi-step target, on stable-baselines3's DQN.

What is ours is the replay of sequences and the targets; policies, callbacks, wrappers, evaluation, logging and saving
are stable-baselines3's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor

from mindworks.core.denormals import flushed
from mindworks.core.targets import Target
from mindworks.errors import require
from mindworks.multistep.replay import SequenceReplayBuffer, Sequences
from mindworks.multistep.target_cache import TargetCache

Array = NDArray[Any]


class HighwayDQN(DQN):
    """Highway DQN (arXiv:2405.18289), and with another `target` its rivals: `Target("retrace", lookahead=8)`.

    Takes the arguments of `stable_baselines3.DQN` and does what it does, with four differences. It draws `batch_size`
    windows of up to `target.lookahead` steps and moves Q at the first step of each towards its target. Every
    environment decides by itself whether it explores, with the probability of its action kept for targets that need
    it. Adam is fused, and updates take numbers below 1e-38 as zero. It draws from generators of its own, seeded with
    `seed`. `prioritized` draws windows by their errors: `replay_buffer_kwargs={"alpha": 0.6, "beta": 0.4}`.

    Observations are vectors, images or grids: a `Box`, `Discrete` or `MultiDiscrete` space. In an environment with
    random rewards or moves the highway target overestimates, more so with long lookaheads: `mindworks.core.returns`.
    Raises `InputError` for `n_steps` (a target's `lookahead` takes its place), dictionaries and memory-saving replay.
    """

    replay_buffer: SequenceReplayBuffer
    action_space: spaces.Discrete

    def __init__(
        self,
        policy: Any,
        env: Any,
        *args: Any,
        target: Target | None = None,
        prioritized: bool = False,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.target = Target("highway") if target is None else target
        self.prioritized = prioritized
        require(isinstance(self.target, Target), f"target must be a Target, got {self.target!r}")
        n = kwargs.get("n_steps", 1)
        require(n == 1, f"n_steps must be 1, got {n}: use target=Target('n_step', lookahead={n})")
        kwargs["replay_buffer_class"] = kwargs.get("replay_buffer_class") or SequenceReplayBuffer
        require(
            issubclass(kwargs["replay_buffer_class"], SequenceReplayBuffer),
            f"replay_buffer_class must be a SequenceReplayBuffer, got {kwargs['replay_buffer_class'].__name__}",
        )
        policy_kwargs = dict(policy_kwargs or {})
        if policy_kwargs.get("optimizer_class", torch.optim.Adam) is torch.optim.Adam:
            policy_kwargs["optimizer_kwargs"] = {"fused": True} | (policy_kwargs.get("optimizer_kwargs") or {})
        kwargs["policy_kwargs"] = policy_kwargs
        kwargs["replay_buffer_kwargs"] = {"prioritized": prioritized} | (replay_buffer_kwargs or {})
        super().__init__(policy, env, *args, **kwargs)

    def _setup_model(self) -> None:
        space = self.observation_space
        require(not isinstance(space, spaces.Dict), f"env must observe one array, got {type(space).__name__}")
        start = int(self.action_space.start)
        require(start == 0, f"env must count its actions from 0, got {start}")
        super()._setup_model()
        if self.seed is not None:  # the parent has seeded the global generators with it; these are our own
            self.replay_buffer.rng = np.random.default_rng([self.seed, 1])
        self.rng = np.random.default_rng(None if self.seed is None else [self.seed, 0])
        self._make_cache()

    def _setup_learn(
        self, total_timesteps: int, callback: Any = None, reset_num_timesteps: bool = True, *args: Any
    ) -> Any:
        if reset_num_timesteps or self._last_obs is None:  # when the parent starts new episodes
            self.replay_buffer.interrupt()
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args)

    def load_replay_buffer(self, *args: Any, **kwargs: Any) -> None:
        """As in stable-baselines3; the newest stored episode counts as truncated."""
        super().load_replay_buffer(*args, **kwargs)
        self.replay_buffer.interrupt()
        self._make_cache()

    def _make_cache(self) -> None:
        places = self.replay_buffer.buffer_size * self.n_envs
        self.cache = TargetCache(places, int(self.action_space.n), self.device)

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> tuple[Array, Array]:
        epsilon = 1.0 if self.num_timesteps < learning_starts else self.exploration_rate
        count = int(self.action_space.n)
        action = self.rng.integers(count, size=n_envs)
        greedy = np.full(n_envs, -1) if epsilon == 1 else self._greedy()
        action = np.where(self.rng.random(n_envs) < epsilon, action, greedy)
        self.replay_buffer.acting = (epsilon / count + (1 - epsilon) * (action == greedy)).astype(np.float32)
        return action, action

    def _greedy(self) -> Array:
        with torch.no_grad():
            values = self.q_net(torch.as_tensor(self._last_obs, device=self.device))
        return values.argmax(1).cpu().numpy()

    def _store_transition(self, replay_buffer: ReplayBuffer, *args: Any, **kwargs: Any) -> None:
        self.cache.forget(replay_buffer.pos * self.n_envs + np.arange(self.n_envs))
        super()._store_transition(replay_buffer, *args, **kwargs)

    def _on_step(self) -> None:
        super()._on_step()
        if self._n_calls % max(self.target_update_interval // self.n_envs, 1) == 0:  # when the parent updates it
            self.cache.forget()

    def set_parameters(self, *args: Any, **kwargs: Any) -> None:
        """As in stable-baselines3."""
        super().set_parameters(*args, **kwargs)
        if hasattr(self, "cache"):
            self.cache.forget()

    def next_values(self, sequences: Sequences) -> Tensor:
        """The target network's Q-values `[B, T, A]` after every step; any numbers after a cut."""
        buffer, env = self.replay_buffer, self._vec_normalize_env
        if env is not None:  # what is observed changes with the statistics
            self.cache.forget()

        def compute(places: Array) -> Tensor:
            following = buffer.next_observations[places // buffer.n_envs, places % buffer.n_envs]
            following = buffer._normalize_obs(following, env)
            return self.q_net_target(torch.as_tensor(following, device=self.device))

        with torch.no_grad():
            return self.cache.look_up(sequences.slot * buffer.n_envs + sequences.env, sequences.valid, compute)

    def targets(self, sequences: Sequences) -> Tensor:
        """What Q at the first step of each sequence moves towards, `[B]`."""
        reward = self.replay_buffer._normalize_reward(sequences.reward, self._vec_normalize_env).astype(np.float32)
        discount = np.where(sequences.terminated, np.float32(0), np.float32(self.gamma))
        rest = (reward, discount, sequences.next_action, sequences.next_behavior, sequences.cut)
        given = [torch.as_tensor(part, device=self.device) for part in rest]
        with torch.no_grad():
            return self.target(given[0], given[1], self.next_values(sequences), *given[2:])[..., 0]

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """`gradient_steps` updates on `batch_size` sequences each."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        with flushed():
            found = np.array([self._update(batch_size) for _ in range(gradient_steps)])
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", found[:, 0].mean())
        self.logger.record("train/target", found[:, 1].mean())

    def _update(self, batch_size: int) -> tuple[float, float]:
        buffer = self.replay_buffer
        sequences = buffer.sequences(batch_size, self.target.steps)
        wanted = self.targets(sequences)
        values = self.q_net(buffer.observed(sequences, self._vec_normalize_env))
        action = torch.as_tensor(buffer.actions[sequences.slot[:, 0], sequences.env[:, 0]], device=self.device)
        chosen = values.gather(1, action.long()).squeeze(1)
        loss = torch.nn.functional.smooth_l1_loss(chosen, wanted, reduction="none")
        if buffer.tree is not None:
            loss = loss * torch.as_tensor(sequences.weight, device=self.device)
            buffer.set_errors(sequences, (wanted - chosen).detach().abs().cpu().numpy().astype(np.float64))
        loss = loss.mean()
        self.policy.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.q_net.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return loss.item(), float(wanted.mean())

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "cache"]

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        """As in stable-baselines3; what stops and goes on with the same bits is `mindworks.multistep.Training`."""
        kwargs.setdefault("tb_log_name", "HighwayDQN")
        return super().learn(*args, **kwargs)
