"""The one-dimensional linear-quadratic regulator, as a batched environment and as an exact return."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from mindworks.envs.rows import RowEnv, RowOutcome, row_generator
from mindworks.errors import require


class LQREnv(RowEnv):
    """`s' = drift s + control a`, reward `-(state_cost s² + action_cost a²)` of the state before the step.

    Starts at `s0 ~ N(initial_mean, initial_std²)`; `initial_std=0` starts every row at `initial_mean`. Episodes are
    truncated after `horizon` steps and never terminate. The state is float64, observed as float32 `[N, 1]`.
    action_limit, state_limit: clip `a` and `s'` to `[-limit, limit]`; None leaves the system linear, and then
    `lqr_return` is its expected return. Without limits a policy with `|drift + control gain| > 1` may overflow, which
    a rollout reports as a diverged row.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        horizon: int = 50,
        drift: float = 1.0,
        control: float = 1.0,
        state_cost: float = 1.0,
        action_cost: float = 1.0,
        initial_mean: float = 0.0,
        initial_std: float = 1.0,
        action_limit: float | None = None,
        state_limit: float | None = None,
    ) -> None:
        require(initial_std >= 0, f"initial_std: expected at least 0, got {initial_std}")
        for name, limit in (("action_limit", action_limit), ("state_limit", state_limit)):
            require(limit is None or limit > 0, f"{name}: expected a positive number or None, got {limit}")
        self._drift, self._control = drift, control
        self._costs = state_cost, action_cost
        self._initial = initial_mean, initial_std
        self._action_limit = np.inf if action_limit is None else action_limit
        self._state_limit = np.inf if state_limit is None else state_limit
        observed = spaces.Box(-self._state_limit, self._state_limit, (1,), np.float32)
        acted = spaces.Box(-self._action_limit, self._action_limit, (1,), np.float32)
        super().__init__("LQR-v0", num_envs, observed, acted, horizon)
        self._states = np.zeros(num_envs, np.float64)

    def _reset_rows(self, seeds: list[int]) -> NDArray[Any]:
        mean, std = self._initial
        draws = np.array([mean + std * row_generator(seed).standard_normal() for seed in seeds])
        self._states = np.clip(draws, -self._state_limit, self._state_limit)
        return self._states[:, None]

    def _step_rows(self, rows: NDArray[np.intp], actions: NDArray[Any]) -> RowOutcome:
        state = self._states[rows]
        action = np.clip(actions[:, 0].astype(np.float64), -self._action_limit, self._action_limit)
        with np.errstate(over="ignore", invalid="ignore"):
            reward = -(self._costs[0] * state**2 + self._costs[1] * action**2)
            moved = np.clip(self._drift * state + self._control * action, -self._state_limit, self._state_limit)
            self._states[rows] = moved
            observed = moved[:, None].astype(np.float32)
        return observed, reward, np.zeros(len(rows), np.bool_), None


def lqr_return(
    gain: ArrayLike,
    bias: ArrayLike = 0.0,
    *,
    horizon: int = 50,
    discount: float = 1.0,
    drift: float = 1.0,
    control: float = 1.0,
    state_cost: float = 1.0,
    action_cost: float = 1.0,
    initial_mean: float = 0.0,
    initial_std: float = 1.0,
) -> NDArray[np.float64]:
    """Return the expected return of the policy `a = gain s + bias` in the unlimited `LQREnv`, exactly, in float64.

    gain, bias: arrays of any shapes that broadcast; the result has the broadcast shape. With mean m and variance v of
    the state, `E[r] = -(q (v + m²) + c (g² v + (g m + b)²))`, then `m <- drift m + control (g m + b)` and
    `v <- (drift + control g)² v`; only the initial state is random, so v starts at `initial_std²`. A policy whose
    return exceeds float64 gets -inf. Raises `InputError` for a negative horizon or `initial_std`.
    """
    require(horizon >= 0, f"horizon: expected at least 0, got {horizon}")
    require(initial_std >= 0, f"initial_std: expected at least 0, got {initial_std}")
    g, b = np.broadcast_arrays(np.asarray(gain, np.float64), np.asarray(bias, np.float64))
    mean = np.full(g.shape, float(initial_mean))
    variance = np.full(g.shape, float(initial_std) ** 2)
    total = np.zeros(g.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(horizon):
            action = g * mean + b
            cost = state_cost * (variance + mean**2) + action_cost * (g**2 * variance + action**2)
            total -= discount**t * cost
            mean = drift * mean + control * action
            variance = (drift + control * g) ** 2 * variance
    return np.where(np.isnan(total), -np.inf, total)
