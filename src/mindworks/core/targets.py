"""One name per multi-step method: from the Q values of the next states to the target of every stored step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mindworks.core import returns
from mindworks.errors import InputError, require, require_at_least

Kind = Literal["one_step", "n_step", "peng", "retrace", "tree_backup", "watkins", "highway", "highway_soft"]
_TRACED = ("retrace", "tree_backup", "watkins")


@dataclass(frozen=True)
class Target:
    """A method and its settings; called on stored steps it gives their targets.

    `retrace` and `tree_backup` evaluate a target policy pi that is epsilon-greedy in Q, ties shared, and bootstrap with
    its expectation. With `epsilon` 0 and no ties, both are Watkins's Q(lambda) (`tree_backup` whatever the behaviour,
    `retrace` because a probability of the behaviour is at most 1). All others bootstrap with the maximum.
    """

    kind: Kind = "highway"
    """Which of the returns of `mindworks.core.returns`."""
    lookahead: int = 16
    """Rewards that a target uses at most; `one_step` uses one."""
    lam: float = 0.9
    """Decay of a trace per step, in [0, 1]: `peng`, `retrace`, `tree_backup`, `watkins`."""
    sharpness: float = 10.0
    """Of the gate of `highway_soft`, per unit of return; infinite is `highway`."""
    epsilon: float = 0.1
    """Share of even draws in the target policy of `retrace` and `tree_backup`."""

    def __post_init__(self) -> None:
        require(self.kind in get_args(Kind), f"kind must be one of {list(get_args(Kind))}, got {self.kind!r}")
        require_at_least(self, 1, "lookahead")
        require(0 <= self.lam <= 1, f"lam must be in [0, 1], got {self.lam}")
        require(self.sharpness >= 0, f"sharpness must be at least 0, got {self.sharpness}")
        require(0 <= self.epsilon <= 1, f"epsilon must be in [0, 1], got {self.epsilon}")

    @property
    def steps(self) -> int:
        """How many steps in a row a sequence must hold for its first target."""
        return 1 if self.kind == "one_step" else self.lookahead

    def __call__(
        self,
        reward: Tensor,
        discount: Tensor,
        next_q: Tensor,
        next_action: Tensor,
        next_behavior: Tensor | None = None,
        cut: Tensor | None = None,
    ) -> Tensor:
        """Targets `[..., T]` of steps as `mindworks.core.returns` describes them.

        reward, discount, cut: `[..., T]`; next_q: `[..., T, A]`, the values of all actions in s_{t+1}; next_action:
        `[..., T]`, int64, a_{t+1}; next_behavior: `[..., T]` in (0, 1], the probability with which a_{t+1} was drawn.
        Only methods with a trace read the action, and only `retrace` its probability; neither is read at a cut, where
        there is no next action. What stands in padding must be valid too, or NaN. Raises `InputError`.
        """
        self._require_shapes(reward, next_q, cut)
        best = next_q.amax(-1)
        if self.kind in _TRACED:
            read = torch.ones_like(reward, dtype=torch.bool) if cut is None else ~cut
            read[..., -1] = False
            return self._traced(reward, discount, next_q, best, next_action, next_behavior, cut, read)
        if self.kind == "one_step":
            return returns.one_step(reward, discount, best)
        if self.kind == "n_step":
            return returns.n_step(reward, discount, best, cut, self.lookahead)
        if self.kind == "peng":
            return returns.peng(reward, discount, best, self.lam, cut, self.lookahead)
        if self.kind == "highway_soft":
            return returns.highway_soft(reward, discount, best, self.sharpness, cut, self.lookahead)
        return returns.highway(reward, discount, best, cut, self.lookahead)

    def _require_shapes(self, reward: Tensor, next_q: Tensor, cut: Tensor | None) -> None:
        fits = next_q.ndim == reward.ndim + 1 and next_q.shape[:-1] == reward.shape and next_q.shape[-1] > 0
        require(fits, f"next_q must be reward's {tuple(reward.shape)} with actions behind, got {tuple(next_q.shape)}")
        require(next_q.dtype == reward.dtype, f"next_q must be {reward.dtype} as reward is, got {next_q.dtype}")
        if cut is not None:
            require(cut.dtype == torch.bool, f"cut must be {torch.bool}, got {cut.dtype}")
            require(
                cut.shape == reward.shape,
                f"cut must have the shape of reward {tuple(reward.shape)}, got {tuple(cut.shape)}",
            )

    def _traced(
        self,
        reward: Tensor,
        discount: Tensor,
        next_q: Tensor,
        best: Tensor,
        next_action: Tensor,
        next_behavior: Tensor | None,
        cut: Tensor | None,
        read: Tensor,
    ) -> Tensor:
        actions = next_q.shape[-1]
        action = _checked_action(next_action, read, actions)
        taken = next_q.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        greedy = (taken == best).to(next_q.dtype)
        if self.kind == "watkins":
            return returns.traced(reward, discount, best, taken, self.lam * greedy, cut, self.lookahead)
        ties = (next_q == best.unsqueeze(-1)).sum(-1).clamp_min(1)  # none where Q is NaN
        chosen = self.epsilon / actions + (1 - self.epsilon) * greedy / ties
        value = self.epsilon * next_q.mean(-1) + (1 - self.epsilon) * best
        if self.kind == "retrace":
            chosen = (chosen / _checked_behavior(next_behavior, read, reward)).clamp_max(1)
        return returns.traced(reward, discount, value, taken, self.lam * chosen, cut, self.lookahead)


def _checked_action(action: Tensor, read: Tensor, actions: int) -> Tensor:
    """The action taken next, 0 where it is not read."""
    require(action.dtype == torch.int64, f"next_action must be {torch.int64}, got {action.dtype}")
    require(
        action.shape == read.shape,
        f"next_action must have the shape of reward {tuple(read.shape)}, got {tuple(action.shape)}",
    )
    action = action.masked_fill(~read, 0)
    wrong = (action < 0) | (action >= actions)
    if wrong.any():
        require(False, f"next_action must be one of {actions} actions from 0 on, got {action[wrong][0].item()}")
    return action


def _checked_behavior(behavior: Tensor | None, read: Tensor, reward: Tensor) -> Tensor:
    """The probability of the action taken next, 1 where it is not read."""
    if behavior is None:
        raise InputError("next_behavior must be given for retrace, got None")
    require(
        behavior.shape == read.shape,
        f"next_behavior must have the shape of reward {tuple(read.shape)}, got {tuple(behavior.shape)}",
    )
    require(behavior.dtype == reward.dtype, f"next_behavior must be {reward.dtype}, got {behavior.dtype}")
    behavior = behavior.masked_fill(~read, 1)
    wrong = (behavior <= 0) | (behavior > 1)
    if wrong.any():
        require(False, f"next_behavior must be in (0, 1], got {behavior[wrong][0].item()}")
    return behavior
