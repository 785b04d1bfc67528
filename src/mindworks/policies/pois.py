"""Policy optimisation via importance sampling (POIS), in the space of parameters and in the space of actions.

Metelli, Papini, Faccio and Restelli, "Policy Optimization via Importance Sampling", NeurIPS 2018, arXiv:1809.06098.
Per-decision weights and several behaviours at once follow the journal version, "Importance Sampling Techniques for
Policy Optimization", JMLR 21(141), 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mindworks.core.policy import Policy
from mindworks.envs.rollout import Trajectories
from mindworks.errors import require, require_at_least
from mindworks.policies.line_search import LineSearch, climb
from mindworks.policies.search import Hyperpolicy, PolicySearch
from mindworks.policies.surrogates import (
    ActionSurrogate,
    Bound,
    Criterion,
    Estimator,
    ParameterSurrogate,
    Penalty,
    Returns,
    Scale,
    Steps,
)

Mode = Literal["parameter", "action"]


@dataclass(frozen=True)
class POISConfig:
    """Hyperparameters of POIS; the defaults suit mode `parameter`, `action_based()` suits mode `action`."""

    mode: Mode = "parameter"
    """what is random: the parameters of a deterministic policy, once per episode, or the action, at every step"""
    episodes: int = 100
    """episodes per batch (N)"""
    delta: float | tuple[float, ...] = 0.4
    """1 - the confidence of the bound, in (0, 1]: smaller is more careful, 1 has no penalty; a tuple: one per seed"""
    estimator: Estimator = "self-normalized"
    """how weighted returns become an estimate"""
    penalty: Penalty = "divergence"
    """what the penalty grows with: the Renyi divergence d_2, the effective sample size, or there is none"""
    scale: Scale = "max"
    """what the penalty is measured in: the largest absolute return of the batch, or the returns' standard deviation"""
    center: bool = False
    """whether the batch's mean is taken off the returns"""
    natural: bool = True
    """whether steps go along the natural gradient"""
    line_search: LineSearch = "parabolic"
    """how the length of a step is found"""
    offline_steps: int = 10
    """most steps on one batch"""
    search_evaluations: int = 30
    """most tries of one line search"""
    per_neuron: bool = False
    """whether every neuron has weights, a divergence and steps of its own (mode `parameter`, for deep policies)"""
    memory: int = 1
    """batches that are used together, by the balance heuristic"""
    adaptive: int = 1
    """most batches at one distribution: if its mean return is below the promised bound, it is given up, and the last
    good one plays another batch; 1 accepts every distribution"""
    discount: float = 1.0
    """discount factor, in (0, 1]"""
    initial_std: float = 1.0
    """first standard deviation, of every parameter or of every action"""
    initial_mean_std: float = 0.01
    """standard deviation of the hyperpolicy's first means (mode `parameter`)"""
    damping: float = 0.01
    """what is added to the Fisher information of an episode (mode `action`)"""
    cg_iterations: int = 10
    """most conjugate gradient iterations per step (mode `action`)"""

    def __post_init__(self) -> None:
        for name, kind in (
            ("mode", Mode),
            ("estimator", Estimator),
            ("penalty", Penalty),
            ("scale", Scale),
            ("line_search", LineSearch),
        ):
            value, known = getattr(self, name), get_args(kind)
            require(value in known, f"{name} must be one of {', '.join(known)}, got {value!r}")
        require_at_least(self, 2, "episodes")
        require_at_least(self, 1, "offline_steps", "search_evaluations", "memory", "adaptive", "cg_iterations")
        deltas = self.delta if isinstance(self.delta, tuple) else (self.delta,)
        require(all(0 < delta <= 1 for delta in deltas), f"delta must be in (0, 1], got {self.delta}")
        require(0 < self.discount <= 1, f"discount must be in (0, 1], got {self.discount}")
        for name in ("initial_std", "initial_mean_std", "damping"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        acts = self.mode == "action"
        require(acts or "per-decision" not in self.estimator, f"estimator {self.estimator!r} needs mode 'action'")
        require(not (acts and self.per_neuron), "per_neuron needs mode 'parameter'")

    @classmethod
    def action_based(cls, **changes: Any) -> POISConfig:
        """The settings of mode `action`: plain weights, centred returns and plain gradients, and a larger `delta`."""
        settings = {"mode": "action", "delta": 0.9, "estimator": "plain", "center": True, "natural": False}
        return cls(**{**settings, **changes})


class POIS(PolicySearch):
    """S searches that climb a lower bound of the return, again and again on each batch of episodes.

    `rho` `[S, 2 P]` are the hyperpolicy's means and log standard deviations in mode `parameter`, the policy's
    parameters `[S, P]` in mode `action`. `metrics` says of the last batch: its mean return, the bound reached and the
    one promised for it, the divergence and effective sample size at the end of the climb, steps and evaluations.

    >>> search = POIS(policy, POISConfig(delta=0.4), seeds=[0])
    >>> theta = search.ask()
    >>> search.tell(theta, rollout(env, search.actor(theta), search.episode_seeds()))
    """

    def __init__(self, policy: Policy, config: POISConfig, seeds: Sequence[int]) -> None:
        super().__init__(policy, config.episodes, seeds)
        self.config = config
        self.criterion = Criterion(config.estimator, config.penalty, _per_seed(config.delta, len(seeds)))
        self.acts_at_random = acts = config.mode == "action"
        if acts:
            require(
                not policy.squashes, "policy must not squash its actions in mode 'action': build it with squash=False"
            )
            stochastic = policy.gaussian or not policy.continuous
            require(stochastic, "policy must be stochastic in mode 'action': build it with gaussian=True")
            self.rho = self.streams.draw(lambda g: policy.init(generator=g, dtype=torch.float64))
            policy.split(self.rho)[1].fill_(float(np.log(config.initial_std)))
        else:
            require(not policy.gaussian, "policy must be deterministic in mode 'parameter': leave gaussian out")
            self.rho = Hyperpolicy.start(policy, self.streams, mean_std=config.initial_mean_std, std=config.initial_std)
        self.needs_record = acts or config.discount < 1
        # the last batches, newest last: what was played, under which rho, and which seeds still use it
        self.batches: list[dict[str, Tensor]] = []
        self.accepted = self.rho.clone()
        self.promised = torch.full((len(seeds),), -torch.inf, dtype=torch.float64)
        self.tries = torch.ones(len(seeds), dtype=torch.int64)
        self._last: dict[str, Any] = {}

    @property
    def theta(self) -> Tensor:
        """The policy `[S, P]` float32: the hyperpolicy's mean in mode `parameter`."""
        acts = self.config.mode == "action"
        return (self.rho if acts else self.rho.chunk(2, -1)[0]).float()

    @property
    def metrics(self) -> dict[str, Any]:
        """What happened on the last batch, lists with one entry per seed."""
        return dict(self._last)

    def ask(self) -> Tensor:
        """The policies of one batch `[S, N, P]`: draws of the hyperpolicy, or N times the same stochastic policy."""
        if self.config.mode == "parameter":
            return Hyperpolicy.draw(self.rho, self.batch, self.streams)
        return self.theta.unsqueeze(1).expand(-1, self.batch, -1)

    def bound(self, rho: Tensor) -> Bound:
        """The bound at `rho`, judged by the batches in use; raises `InputError` before the first batch."""
        require(bool(self.batches), "bound needs episodes: tell a batch first")
        with torch.no_grad():
            return self._surrogate().bound(rho)

    def _improve(self, theta: Tensor, episodes: Trajectories) -> None:
        batch = self._batch(theta, episodes)
        mean = batch["returns"].mean(1)
        promised = self.promised
        kept = self._judge(mean)
        self._remember(batch, kept)
        climbed = climb(
            surrogate := self._surrogate(),
            self.accepted,
            steps=self.config.offline_steps,
            evaluations=self.config.search_evaluations,
            natural=self.config.natural,
            search=self.config.line_search,
        )
        with torch.no_grad():
            bound = surrogate.bound(climbed.rho)
        # a seed that gave up its distribution plays another batch of the last good one before it climbs on
        again = ~kept
        self.rho = torch.where(again.unsqueeze(-1), self.accepted, climbed.rho)
        self.promised = torch.where(again, -torch.inf, bound.value.mean(1) + surrogate.returns.offset)
        self._last = {
            "mean": mean.tolist(),
            "promised": promised.tolist(),
            "bound": (bound.value.mean(1) + surrogate.returns.offset).tolist(),
            "log_divergence": bound.log_divergence.mean(1).tolist(),
            "ess": bound.ess.mean(1).tolist(),
            "steps": climbed.steps.tolist(),
            "evaluations": climbed.evaluations.tolist(),
            "rejected": again.tolist(),
        }

    def _judge(self, mean: Tensor) -> Tensor:
        """Which seeds `[S]` keep the distribution they just played."""
        same = (self.rho == self.accepted).all(-1)
        kept = same | (mean >= self.promised) | (self.tries >= self.config.adaptive)
        self.tries = torch.where(same, self.tries, torch.where(kept, 1, self.tries + 1))
        self.accepted = torch.where(kept.unsqueeze(-1), self.rho, self.accepted)
        return kept

    def _batch(self, theta: Tensor, episodes: Trajectories) -> dict[str, Tensor]:
        """One batch as tensors `[S, N, ...]`, with the rho that it was drawn from."""
        shape = (len(self.streams), self.batch)
        rewards = torch.from_numpy(episodes.rewards).view(*shape, -1)
        returns = torch.from_numpy(episodes.returns).view(shape)
        if self.config.discount < 1:
            rewards = rewards * self.config.discount ** torch.arange(rewards.shape[-1], dtype=rewards.dtype)
            returns = rewards.sum(-1)
        batch = {"rho": self.rho.clone(), "returns": returns}
        if self.config.mode == "parameter":
            return {**batch, "theta": theta.double()}
        end = int(episodes.lengths.max())
        actions = torch.from_numpy(episodes.actions[:, :end])
        return {
            **batch,
            "observations": torch.from_numpy(episodes.observations[:, :end]).double().unflatten(0, shape),
            "actions": (actions.double() if self.policy.continuous else actions).unflatten(0, shape),
            "rewards": rewards[..., :end].clone(),
            "mask": torch.from_numpy(episodes.mask[:, :end].copy()).unflatten(0, shape),
        }

    def _remember(self, batch: dict[str, Tensor], kept: Tensor) -> None:
        """Add a batch; a seed uses its last `memory` distributions, and every batch of the newest of them."""
        self.batches = [*self.batches, {**batch, "valid": kept}]
        most = self.config.memory + self.config.adaptive - 1
        used, held = torch.zeros((2, len(kept)), dtype=torch.int64)
        last = torch.full_like(self.accepted, torch.nan)
        for old in reversed(self.batches):
            fresh = (old["rho"] != last).any(-1) & old["valid"]
            used = used + fresh
            held = held + old["valid"]
            old["valid"] = old["valid"] & (used <= self.config.memory) & (held <= most)
            last = torch.where(fresh.unsqueeze(-1), old["rho"], last)
        self.batches = [old for old in self.batches if bool(old["valid"].any())]

    def _surrogate(self) -> ParameterSurrogate | ActionSurrogate:
        valid = torch.stack([batch["valid"] for batch in self.batches], 1)
        behaviors = torch.stack([batch["rho"] for batch in self.batches], 1)
        values = torch.cat([batch["returns"] for batch in self.batches], 1)
        takes_part = valid.repeat_interleave(self.batch, 1)
        returns = Returns(values, takes_part, self.config.center, self.config.scale)
        if self.config.mode == "parameter":
            theta = torch.stack([batch["theta"] for batch in self.batches], 1)
            network = self.policy.network if self.config.per_neuron else None
            return ParameterSurrogate(theta, behaviors, valid, returns, self.criterion, network)
        return ActionSurrogate(
            self.policy,
            self._steps(),
            behaviors,
            valid,
            returns,
            self.criterion,
            damping=self.config.damping,
            iterations=self.config.cg_iterations,
        )

    def _steps(self) -> Steps:
        """The steps of the batches in use, padded to the longest of them."""
        end = max(batch["mask"].shape[2] for batch in self.batches)
        padded = {}
        for name in ("observations", "actions", "rewards", "mask"):
            parts = [batch[name] for batch in self.batches]
            filled = [
                torch.cat([part, part.new_zeros((*part.shape[:2], end - part.shape[2], *part.shape[3:]))], 2)
                for part in parts
            ]
            padded[name] = torch.stack(filled, 1)
        return Steps(**padded)

    def state(self) -> dict[str, Any]:
        """As every search, with the batches in use and what was promised."""
        return {
            **super().state(),
            "batches": [dict(batch) for batch in self.batches],
            "accepted": self.accepted,
            "promised": self.promised,
            "tries": self.tries,
            "last": self._last,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` of a search of the same shape returned."""
        super().load(state)
        self.batches = [dict(batch) for batch in state["batches"]]
        self.accepted, self.promised, self.tries = state["accepted"], state["promised"], state["tries"]
        self._last = dict(state["last"])


def _per_seed(delta: float | tuple[float, ...], seeds: int) -> float | Tensor:
    """One delta for all seeds as it is, or one per seed as `[S, 1]`."""
    if not isinstance(delta, tuple):
        return delta
    require(len(delta) == seeds, f"delta must be one number or one for each of {seeds} seeds, got {len(delta)}")
    return torch.tensor(delta, dtype=torch.float64).unsqueeze(-1)
