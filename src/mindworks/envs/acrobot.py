"""Acrobot for a population: the living rows' Runge-Kutta step in numpy."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.acrobot import AcrobotEnv as Reference
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from mindworks.envs.rows import RowEnv, RowOutcome
from mindworks.envs.seeding import uniform_rows

_ENTRY = "gymnasium.envs.classic_control.acrobot:AcrobotEnv"
_GRAVITY = 9.8
_TORQUES = np.array(Reference.AVAIL_TORQUE)
_DT, _SPEED_1, _SPEED_2 = Reference.dt, Reference.MAX_VEL_1, Reference.MAX_VEL_2
_M1, _M2, _L1 = Reference.LINK_MASS_1, Reference.LINK_MASS_2, Reference.LINK_LENGTH_1
_C1, _C2, _INERTIA = Reference.LINK_COM_POS_1, Reference.LINK_COM_POS_2, Reference.LINK_MOI

Floats = NDArray[np.float64]


def supports(spec: EnvSpec, kwargs: dict[str, Any]) -> bool:
    """Say whether `spec` is Gymnasium's Acrobot with the book's dynamics and nothing wrapped around it."""
    ours = Reference.book_or_nips == "book" and Reference.torque_noise_max == 0
    return ours and spec.entry_point == _ENTRY and not (spec.additional_wrappers or spec.kwargs or kwargs)


class AcrobotEnv(RowEnv):
    """Two links that swing up (Sutton 1996): row i is `gymnasium.make("Acrobot-v1").reset(seed=seeds[i])`.

    Actions 0, 1, 2 are torques -1, 0, 1; the reward is -1 a step and 0 for the step that brings the tip up. The state
    is angles and angular velocities `[4, N]`, observed as cosines and sines of the angles, and the velocities. The
    arithmetic is Gymnasium's, operation by operation, so episodes are equal bit for bit.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, max_episode_steps: int) -> None:
        reference = Reference()
        observed, acted = reference.observation_space, reference.action_space
        assert isinstance(observed, spaces.Box)
        assert isinstance(acted, spaces.Discrete)
        super().__init__(spec.id, num_envs, observed, acted, max_episode_steps)
        self._state = np.zeros((4, num_envs), np.float64)

    def _reset_rows(self, seeds: list[int]) -> NDArray[Any]:
        # Gymnasium's first state is float32, and its cosines and sines are those of a float32; later ones are float64.
        start = uniform_rows(seeds, -0.1, 0.1, 4).T.astype(np.float32)
        self._state = start.astype(np.float64)
        return _observed(start)

    def _step_rows(self, rows: NDArray[np.intp], actions: NDArray[Any]) -> RowOutcome:
        where: Any = slice(None) if len(rows) == self.num_envs else rows
        state = _runge_kutta(self._state[:, where], _TORQUES[actions])
        state[:2] = _wrapped(state[:2])
        np.clip(state[2], -_SPEED_1, _SPEED_1, out=state[2])
        np.clip(state[3], -_SPEED_2, _SPEED_2, out=state[3])
        self._state[:, where] = state
        terminated = -np.cos(state[0]) - np.cos(state[1] + state[0]) > 1.0
        return _observed(state), np.where(terminated, 0.0, -1.0), terminated, None


def _observed(state: NDArray[Any]) -> NDArray[Any]:
    cos, sin = np.cos(state[:2]), np.sin(state[:2])
    return np.stack([cos[0], sin[0], cos[1], sin[1], state[2], state[3]], axis=1)


def _wrapped(angles: Floats) -> Floats:
    """Angles brought back into [-pi, pi] by whole turns, one turn at a time as in Gymnasium."""
    while np.count_nonzero(high := angles > pi):
        angles = np.where(high, angles - (pi - -pi), angles)
    while np.count_nonzero(low := angles < -pi):
        angles = np.where(low, angles + (pi - -pi), angles)
    return angles


def _runge_kutta(state: Floats, torque: Floats) -> Floats:
    """The state `[4, n]` after one step of the classical fourth-order method under a constant torque `[n]`."""
    half = _DT / 2.0
    k1 = _rates(state, torque)
    k2 = _rates(state + half * k1, torque)
    k3 = _rates(state + half * k2, torque)
    k4 = _rates(state + _DT * k3, torque)
    return state + _DT / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)


def _rates(state: Floats, torque: Floats) -> Floats:
    """Time derivatives `[4, n]` of the state (Sutton and Barto's form of the equations of motion)."""
    angle_1, angle_2, speed_1, speed_2 = state
    cos_2, sin_2 = np.cos(angle_2), np.sin(angle_2)
    d1 = _M1 * _C1**2 + _M2 * (_L1**2 + _C2**2 + 2 * _L1 * _C2 * cos_2) + _INERTIA + _INERTIA
    d2 = _M2 * (_C2**2 + _L1 * _C2 * cos_2) + _INERTIA
    phi2 = _M2 * _C2 * _GRAVITY * np.cos(angle_1 + angle_2 - pi / 2.0)
    phi1 = (
        -_M2 * _L1 * _C2 * _squared(speed_2) * sin_2
        - 2 * _M2 * _L1 * _C2 * speed_2 * speed_1 * sin_2
        + (_M1 * _C1 + _M2 * _L1) * _GRAVITY * np.cos(angle_1 - pi / 2)
        + phi2
    )
    acceleration_2 = (torque + d2 / d1 * phi1 - _M2 * _L1 * _C2 * _squared(speed_1) * sin_2 - phi2) / (
        _M2 * _C2**2 + _INERTIA - _squared(d2) / d1
    )
    acceleration_1 = -(d2 * acceleration_2 + phi1) / d1
    return np.array((speed_1, speed_2, acceleration_1, acceleration_2))


def _squared(x: Floats) -> Floats:
    """`x**2` as a numpy scalar computes it: the C library's `pow`.

    `np.square` and `x**2` of an array multiply instead, which rounds one of 1,300 squares otherwise, and `np.power` of
    two arrays has an approximation of its own, one of 40 (AVX-512, numpy 2.4, 2026-11-23).
    """
    return np.float_power(x, 2.0)
