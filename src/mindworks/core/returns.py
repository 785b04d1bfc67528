"""Multi-step returns of stored trajectories: the targets that bootstrapping methods regress on.

Step t leads from (s_t, a_t) to s_{t+1}. T steps in a row, `...` any leading dimensions; all functions take `[..., T]`
and give `[..., T]`, differentiably, on any device:

- `reward`: r_t
- `discount`: d_t in [0, 1], the discount factor, and 0 where step t terminated
- `next_value`: v_t, what s_{t+1} is worth: the largest Q(s_{t+1}, .), or an expectation of it; not read where d_t is 0
- `cut`: True where nothing that follows belongs to the same trajectory: termination, truncation, the end of the data,
  the last step before padding. The last step of a row and a step of discount 0 are cuts without being marked
- `lookahead`: target t uses the rewards of at most that many steps, t included; None: up to the end of the trajectory

A target ends at a cut or at the end of its lookahead with y_t = r_t + d_t v_t. A truncated step so bootstraps, since
its discount is not 0. What stands after a cut, NaN included, reaches neither values nor gradients before it.

Wang, Strupl, Faccio, Wu, Liu, Grudzien, Tan and Schmidhuber, "Highway Reinforcement Learning", 2024, arXiv:2405.18289
(the gate); Peng and Williams, "Incremental multi-step Q-learning", 1996; Munos, Stepleton, Harutyunyan and Bellemare,
"Safe and efficient off-policy reinforcement learning", NeurIPS 2016, arXiv:1606.02647 (returns with traces).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mindworks.errors import require

_AFFINE, _GATE, _SOFT = 0, 1, 2


def one_step(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """y_t = r_t + d_t v_t, `[..., T]`: no lookahead beyond the next state."""
    return _Steps(reward, discount, next_value).targets(_AFFINE, 1)


def n_step(
    reward: Tensor, discount: Tensor, next_value: Tensor, cut: Tensor | None = None, lookahead: int | None = None
) -> Tensor:
    """y_t = r_t + d_t y_{t+1}, `[..., T]`: the rewards as they came, and the value of the state after the last.

    Nothing corrects for the actions on the way: the target is what the behaviour earns, which is at most the optimum,
    and the further below it the longer the lookahead.
    """
    return _Steps(reward, discount, next_value, cut).targets(_AFFINE, lookahead)


def peng(
    reward: Tensor,
    discount: Tensor,
    next_value: Tensor,
    lam: float,
    cut: Tensor | None = None,
    lookahead: int | None = None,
) -> Tensor:
    """y_t = r_t + d_t ((1 - lam) v_t + lam y_{t+1}), `[..., T]`: Peng's Q(lambda), a mixture of all depths.

    lam in [0, 1]: 0 is `one_step`, 1 is `n_step`.
    """
    require(0 <= lam <= 1, f"lam must be in [0, 1], got {lam}")
    return _Steps(reward, discount, next_value, cut, lam=lam).targets(_AFFINE, lookahead)


def traced(
    reward: Tensor,
    discount: Tensor,
    next_value: Tensor,
    next_taken: Tensor,
    next_trace: Tensor,
    cut: Tensor | None = None,
    lookahead: int | None = None,
) -> Tensor:
    """y_t = r_t + d_t (v_t + c_t (y_{t+1} - q_t)), `[..., T]`: expected values, corrected as far as the trace reaches.

    next_taken: q_t = Q(s_{t+1}, a_{t+1}) of the action that was taken; next_trace: c_t >= 0, the trace of that action.
    Retrace has c = lam min(1, pi / mu), tree backup lam pi, Watkins's Q(lambda) lam where the action is greedy, else 0.
    Neither is used at a cut, where there is no next action.
    """
    return _Steps(reward, discount, next_value, cut, next_taken, next_trace).targets(_AFFINE, lookahead)


def highway(
    reward: Tensor, discount: Tensor, next_value: Tensor, cut: Tensor | None = None, lookahead: int | None = None
) -> Tensor:
    """y_t = r_t + d_t max(v_t, y_{t+1}), `[..., T]`: what lies further ahead passes the gate where it is worth more.

    That is the largest of the returns of 1, 2, ..., `lookahead` steps, hence never below `one_step`. Where transitions
    and rewards are deterministic and no v_t is above the optimum, no target is: each of these returns is earned by some
    way to act. Where they are random, the largest of sampled returns picks the lucky ones and overestimates, and more
    so the longer the lookahead; `highway_soft` does so less.
    """
    return _Steps(reward, discount, next_value, cut).targets(_GATE, lookahead)


def highway_soft(
    reward: Tensor,
    discount: Tensor,
    next_value: Tensor,
    sharpness: float,
    cut: Tensor | None = None,
    lookahead: int | None = None,
) -> Tensor:
    """y_t = r_t + d_t ((1 - w) v_t + w y_{t+1}) with w = sigmoid(sharpness (y_{t+1} - v_t)), `[..., T]`.

    sharpness >= 0, per unit of return: infinite is `highway`, 0 is `peng` with lam 1/2. A target is at most
    that of `highway`, and at least `one_step` - 0.279 d / sharpness: such a gate never closes entirely.
    """
    require(sharpness >= 0, f"sharpness must be at least 0, got {sharpness}")
    if sharpness == math.inf:
        return highway(reward, discount, next_value, cut, lookahead)
    return _Steps(reward, discount, next_value, cut, sharpness=float(sharpness)).targets(_SOFT, lookahead)


@dataclass(slots=True)
class _Steps:
    """The steps of a call `[..., T]`; without `taken` the trace is `lam` and the action taken is worth the value."""

    reward: Tensor
    discount: Tensor
    value: Tensor
    cut: Tensor | None = None
    taken: Tensor | None = None
    trace: Tensor | None = None
    lam: float = 1.0
    sharpness: float = 0.0

    def targets(self, kind: int, lookahead: int | None) -> Tensor:
        """Check the steps and solve the recursion of this kind."""
        self._require_shapes()
        count = self.reward.shape[-1]
        if lookahead is not None:
            whole = isinstance(lookahead, int) and lookahead >= 1
            require(whole, f"lookahead must be a whole number of at least 1, got {lookahead}")
        passes = -1 if lookahead is None or lookahead >= count else lookahead - 1
        return self._fast(kind, passes) if self._suits_kernel() else self._plain(kind, passes)

    def _require_shapes(self) -> None:
        reward = self.reward
        require(reward.is_floating_point(), f"reward must hold floats, got {reward.dtype}")
        require(reward.ndim > 0 and reward.shape[-1] > 0, f"reward must have steps [..., T], got {tuple(reward.shape)}")
        parts = (self.discount, self.value, self.taken, self.trace)
        for name, part in zip(("discount", "next_value", "next_taken", "next_trace"), parts, strict=True):
            if part is not None:
                _require_alike(name, part, reward, reward.dtype)
        if self.cut is not None:
            _require_alike("cut", self.cut, reward, torch.bool)

    def _require_values(self) -> None:
        outside = (self.discount < 0) | (self.discount > 1)
        if outside.any():
            require(False, f"discount must be in [0, 1], got {self.discount[outside][0].item()}")
        if self.trace is not None and (self.trace < 0).any():
            require(False, f"next_trace must not be negative, got {self.trace[self.trace < 0][0].item()}")

    def _suits_kernel(self) -> bool:
        """Whether these are floats on the CPU of which no gradient is asked for, and there is numba."""
        plain = self.reward.device.type == "cpu" and self.reward.dtype in (torch.float32, torch.float64)
        parts = (self.reward, self.discount, self.value, self.taken, self.trace)
        wanted = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)
        return plain and not wanted and _kernels() is not None

    def _fast(self, kind: int, passes: int) -> Tensor:
        """The targets by the compiled kernel."""
        kernels = _kernels()
        assert kernels is not None
        parts = (self.reward, self.discount, self.value, self.taken, self.trace, self.cut)
        y, refused = kernels.run(kind, *map(_array, parts), self.lam, self.sharpness, passes)
        if refused:
            self._require_values()
        return torch.from_numpy(y)

    def _plain(self, kind: int, passes: int) -> Tensor:
        """The targets by tensor operations, one per step of the recursion."""
        self._require_values()
        reward, discount = self.reward, self.discount
        over = discount == 0
        ends = over.clone() if self.cut is None else self.cut | over
        ends[..., -1] = True
        trace = torch.full_like(reward, self.lam) if self.trace is None else self.trace
        value = self.value.masked_fill(over, 0)
        one = reward + discount * value
        if kind == _AFFINE:
            taken = (value if self.taken is None else self.taken).masked_fill(ends, 0)
            fixed = torch.where(ends, one, reward + discount * (value - trace.masked_fill(ends, 0) * taken))
        else:
            fixed = torch.where(ends, one, reward) if kind == _GATE else value
        factor = (discount * trace).masked_fill(ends, 0)

        if passes >= 0:
            y = one
            for _ in range(passes):
                y = self._update(kind, y.roll(-1, -1), ends, one, fixed, factor)
            return y
        steps = list(zip(*(part.unbind(-1) for part in (ends, one, fixed, factor)), strict=True))
        found = [steps[-1][1]]
        for step in steps[-2::-1]:
            found.append(self._update(kind, found[-1], *step))
        return torch.stack(found[::-1], -1)

    def _update(self, kind: int, ahead: Tensor, ends: Tensor, one: Tensor, fixed: Tensor, factor: Tensor) -> Tensor:
        """y_t from y_{t+1}."""
        ahead = ahead.masked_fill(ends, 0)  # not the outcome: so NaN behind an end stays out of the gradient too
        if kind == _SOFT:
            gain = ahead - fixed
            return one + factor * (gain * torch.sigmoid(self.sharpness * gain))
        far = fixed + factor * ahead
        return torch.maximum(one, far) if kind == _GATE else far


def _require_alike(name: str, part: Tensor, reward: Tensor, dtype: torch.dtype) -> None:
    if part.shape == reward.shape and part.dtype == dtype and part.device == reward.device:
        return  # before the messages: to write them takes longer than to check
    require(
        part.shape == reward.shape,
        f"{name} must have the shape of reward {tuple(reward.shape)}, got {tuple(part.shape)}",
    )
    require(part.dtype == dtype, f"{name} must be {dtype}, got {part.dtype}")
    require(part.device == reward.device, f"{name} must be on {reward.device}, got {part.device}")


def _array(part: Tensor | None) -> NDArray[Any] | None:
    return None if part is None else (part.detach() if part.requires_grad else part).numpy()


@cache
def _kernels() -> ModuleType | None:
    try:
        return import_module("mindworks.core._return_kernels")
    except ImportError:
        return None
