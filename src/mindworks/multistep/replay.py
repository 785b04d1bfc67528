"""Replay of sequences of steps that stay inside one episode, uniform or prioritised, for stable-baselines3's learners.

B sequences, T steps, A actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from mindworks.errors import require
from mindworks.multistep.sum_tree import SumTree

Array = NDArray[Any]
_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "behavior")


@dataclass(frozen=True)
class Sequences:
    """B windows of T steps, as indices into the buffer and the numbers that targets need.

    `slot[B, T]` and `env[B, 1]` say where a step is stored; steps after a `cut` are other steps and count for nothing.
    """

    slot: Array
    env: Array
    reward: Array
    """r_t `[B, T]` float32"""
    terminated: Array
    """whether step t ended the episode for good `[B, T]`"""
    cut: Array
    """whether nothing known follows step t: an end, a truncation, the newest step, the end of the window `[B, T]`"""
    valid: Array
    """whether step t belongs to the trajectory of the first one `[B, T]`"""
    next_action: Array
    """the action of step t + 1 `[B, T]`; any number after a cut"""
    next_behavior: Array
    """the probability with which it was taken `[B, T]`"""
    weight: Array
    """importance weight of the sequence `[B]`, at most 1"""


class SequenceReplayBuffer(ReplayBuffer):
    """stable-baselines3's replay buffer, from which windows of `steps` successive steps of one episode are drawn.

    A window starts at any stored step, each alike, or with `prioritized` in proportion to (its error + 0.01) to the
    power `alpha`; `beta` is the power of the importance weights that make up for it (Schaul, Quan, Antonoglou and
    Silver, "Prioritized Experience Replay", arXiv:1511.05952, its proportional form with `beta` held constant). It ends
    with its episode, at a truncation, or at the newest step. Beside what the parent stores it keeps the probability of
    each action: `add` stores the ones it finds in `acting` `[n_envs]`, 1 unless set. `rng` draws; the parent's `sample`
    works too, and draws from numpy's global state.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        prioritized: bool = False,
        alpha: float = 0.6,
        beta: float = 0.4,
    ) -> None:
        require(not optimize_memory_usage, "optimize_memory_usage must be False: it loses the last step's observation")
        require(handle_timeout_termination, "handle_timeout_termination must be True: a time limit ends no episode")
        require(0 <= alpha <= 1, f"alpha must be in [0, 1], got {alpha}")
        require(0 <= beta <= 1, f"beta must be in [0, 1], got {beta}")
        require(isinstance(action_space, spaces.Discrete), f"action_space must be Discrete, got {action_space}")
        super().__init__(buffer_size, observation_space, action_space, device, n_envs)
        self.alpha, self.beta = alpha, beta
        self.behavior = np.ones((self.buffer_size, n_envs), np.float32)
        self.acting = np.ones(n_envs, np.float32)
        self.tree = SumTree(self.buffer_size * n_envs) if prioritized else None
        self.highest = 1.0  # the largest error so far: what a new step gets, so that each is drawn soon
        self.rng = np.random.default_rng()

    def add(self, obs: Array, next_obs: Array, action: Array, reward: Array, done: Array, infos: list[Any]) -> None:
        """Store one step of every environment, with the probabilities in `acting`."""
        slot = self.pos
        self.behavior[slot] = self.acting
        super().add(obs, next_obs, action, reward, done, infos)
        if self.tree is not None:
            self._prioritize(slot * self.n_envs + np.arange(self.n_envs), np.full(self.n_envs, self.highest))

    def interrupt(self) -> None:
        """Cut after the newest steps, as at a truncation: what comes next belongs to no stored episode."""
        if self.size() > 0:
            going = self.dones[self.pos - 1] == 0
            self.dones[self.pos - 1, going] = self.timeouts[self.pos - 1, going] = 1

    def sequences(self, count: int, steps: int) -> Sequences:
        """`count` windows of up to `steps` steps, with replacement."""
        stored = self.size()
        require(stored > 0, "sequences: the buffer is empty")
        if self.tree is None:
            start, env = self.rng.integers(stored, size=count), self.rng.integers(self.n_envs, size=count)
            weight = np.ones(count, np.float32)
        else:
            drawn = self.tree.draw(self.rng.random(count))
            start, env = drawn // self.n_envs, drawn % self.n_envs
            share = self.tree.weights[drawn] / self.tree.total * (stored * self.n_envs)
            rare = share**-self.beta
            weight = (rare / rare.max()).astype(np.float32)
        return self.window(start, env, steps, weight)

    def window(self, start: Array, env: Array, steps: int, weight: Array) -> Sequences:
        """The windows that begin at the slots `start[B]` of the environments `env[B]`."""
        size, env = self.buffer_size, env[:, None]
        ahead = (self.pos - 1 - start) % size  # steps stored after the first one
        slot = (start[:, None] + np.arange(steps)) % size
        done = self.dones[slot, env] > 0
        cut = done | (np.arange(steps) >= ahead[:, None])
        cut[:, -1] = True
        valid = np.ones_like(cut)
        valid[:, 1:] = ~np.logical_or.accumulate(cut, 1)[:, :-1]
        after = (slot + 1) % size
        return Sequences(
            slot=slot,
            env=env,
            reward=self.rewards[slot, env],
            terminated=done & (self.timeouts[slot, env] == 0),
            cut=cut,
            valid=valid,
            next_action=self.actions[after, env, 0].astype(np.int64, copy=False),
            next_behavior=self.behavior[after, env],
            weight=weight,
        )

    def set_errors(self, sequences: Sequences, error: Array) -> None:
        """Make sequences as likely as their errors `[B]` say; does nothing where all are alike."""
        if self.tree is not None:
            self.highest = max(self.highest, float(error.max()))
            self._prioritize(sequences.slot[:, 0] * self.n_envs + sequences.env[:, 0], error)

    def _prioritize(self, index: Array, error: Array) -> None:
        assert self.tree is not None
        self.tree.set(index, (error + 0.01) ** self.alpha)

    def observed(self, sequences: Sequences, env: VecNormalize | None = None) -> torch.Tensor:
        """The observations `[B, ...]` in which the sequences begin, on the buffer's device."""
        first = self.observations[sequences.slot[:, 0], sequences.env[:, 0]]
        return torch.as_tensor(self._normalize_obs(first, env), device=self.device)

    def state(self) -> dict[str, Any]:
        """All that is stored, and the generator."""
        used = self.buffer_size if self.full else self.pos
        return {
            "pos": self.pos,
            "full": self.full,
            "arrays": {name: getattr(self, name)[:used].copy() for name in _ARRAYS},
            "tree": None if self.tree is None else self.tree.nodes.copy(),
            "highest": self.highest,
            "rng": self.rng.bit_generator.state,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.pos, self.full, self.highest = state["pos"], state["full"], state["highest"]
        for name, array in state["arrays"].items():
            getattr(self, name)[: len(array)] = array
        if self.tree is not None:
            self.tree.nodes[:] = state["tree"]
        self.rng.bit_generator.state = state["rng"]
