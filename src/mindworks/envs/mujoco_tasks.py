"""MuJoCo locomotion for a population: one shared model, one `MjData` per row, observations and rewards in numpy.

The equations are those of Gymnasium's v5 environments and a row's episode equals `gymnasium.make(name)`'s bit for bit.
What is left out is `mj_rnePostConstraint`, whose contact forces these observations and rewards do not read.

CPU us per control step, 16 rows, one thread, MuJoCo 4.0, 2026-11-22, this loop / `mujoco.rollout` / `mj_step` alone:
Swimmer 44.3 / 44.3 / 37.8, InvertedPendulum 23.0 / 22.8 / 20.4, Hopper 76.8 / 77.1 / 77 to 82. Physics is the cost, so
the plain loop stays: `mujoco.rollout` is no cheaper, and it hides the solver's warm start and with it bit-equality.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from mindworks.envs.rows import RowEnv, RowOutcome, row_generator
from mindworks.errors import import_extra

Array = NDArray[Any]


@dataclass(frozen=True)
class Frame:
    """n rows around one control step: x before `[n]`, positions and velocities after it, actions, seconds, options.

    tip: `[n, 4]`, the x and height of the first site, the first constraint force and a zero; only for tasks with `tip`.
    """

    x_before: Array
    qpos: Array
    qvel: Array
    actions: Array
    dt: float
    options: dict[str, Any]
    tip: Array

    @property
    def forward(self) -> Array:
        """Weighted forward velocity."""
        return self.options["forward_reward_weight"] * ((self.qpos[:, 0] - self.x_before) / self.dt)

    @property
    def effort(self) -> Array:
        """Weighted squared action, in float32 like Gymnasium's."""
        return self.options["ctrl_cost_weight"] * np.sum(np.square(self.actions), axis=1)

    def within(self, name: str, values: Array) -> NDArray[np.bool_]:
        """Say per entry whether `values` lie strictly inside the option `name`."""
        low, high = self.options[name]
        return (low < values) & (values < high)


Score = Callable[[Frame], tuple[Array, NDArray[np.bool_]]]


@dataclass(frozen=True)
class Task:
    """One environment: its model file, physics steps per action, observation, reset noise, options and score.

    hidden: leading positions left out of the observation; clip: bound on observed velocities; normal: whether the
    velocity noise is normal instead of uniform; score: rewards and terminations of a `Frame`.
    """

    xml: str
    frame_skip: int
    options: dict[str, Any]
    score: Score
    hidden: int = 0
    clip: float | None = None
    normal: bool = False
    tip: bool = field(default=False, kw_only=True)


def _score_run(frame: Frame) -> tuple[Array, NDArray[np.bool_]]:
    return frame.forward - frame.effort, np.zeros(len(frame.qpos), np.bool_)


def _score_healthy(frame: Frame) -> tuple[Array, NDArray[np.bool_]]:
    healthy = frame.within("healthy_z_range", frame.qpos[:, 1]) & frame.within("healthy_angle_range", frame.qpos[:, 2])
    if "healthy_state_range" in frame.options:
        state = np.concatenate((frame.qpos, frame.qvel), axis=1)[:, 2:]
        healthy &= frame.within("healthy_state_range", state).all(axis=1)
    reward = (frame.forward + healthy * frame.options["healthy_reward"]) - frame.effort
    return reward, ~healthy & bool(frame.options["terminate_when_unhealthy"])


def _score_balance(frame: Frame) -> tuple[Array, NDArray[np.bool_]]:
    finite = np.isfinite(frame.qpos).all(axis=1) & np.isfinite(frame.qvel).all(axis=1)
    terminated = ~finite | (np.abs(frame.qpos[:, 1]) > 0.2)
    return (~terminated).astype(np.float64), terminated


def _score_double(frame: Frame) -> tuple[Array, NDArray[np.bool_]]:
    x, y = frame.tip[:, 0], frame.tip[:, 1]
    v1, v2 = frame.qvel[:, 1], frame.qvel[:, 2]
    terminated = y <= 1
    bonus = frame.options["healthy_reward"] * ~terminated
    return bonus - (0.01 * x**2 + (y - 2) ** 2) - (1e-3 * v1**2 + 5e-3 * v2**2), terminated


_RUN = {"forward_reward_weight": 1.0, "ctrl_cost_weight": 1e-4, "reset_noise_scale": 0.1}
_HEALTHY = {
    "forward_reward_weight": 1.0,
    "ctrl_cost_weight": 1e-3,
    "reset_noise_scale": 5e-3,
    "healthy_reward": 1.0,
    "terminate_when_unhealthy": True,
}
_HOPPER = {
    "healthy_state_range": (-100.0, 100.0),
    "healthy_z_range": (0.7, np.inf),
    "healthy_angle_range": (-0.2, 0.2),
}
_WALKER = {"healthy_z_range": (0.8, 2.0), "healthy_angle_range": (-1.0, 1.0)}
_SWIMMER_TASK = Task("swimmer.xml", 4, _RUN, _score_run, hidden=2)
# By entry point and not by id: an id registered anew for the same class, with another time limit, is served as well.
TASKS = {
    "swimmer_v5:SwimmerEnv": _SWIMMER_TASK,
    "swimmer_v4:SwimmerEnv": _SWIMMER_TASK,
    "half_cheetah_v5:HalfCheetahEnv": Task(
        "half_cheetah.xml", 5, _RUN | {"ctrl_cost_weight": 0.1}, _score_run, hidden=1, normal=True
    ),
    "hopper_v5:HopperEnv": Task("hopper.xml", 4, _HEALTHY | _HOPPER, _score_healthy, hidden=1, clip=10.0),
    "walker2d_v5:Walker2dEnv": Task("walker2d_v5.xml", 4, _HEALTHY | _WALKER, _score_healthy, hidden=1, clip=10.0),
    "inverted_pendulum_v5:InvertedPendulumEnv": Task(
        "inverted_pendulum.xml", 2, {"reset_noise_scale": 0.01}, _score_balance
    ),
    "inverted_double_pendulum_v5:InvertedDoublePendulumEnv": Task(
        "inverted_double_pendulum.xml",
        5,
        {"healthy_reward": 10.0, "reset_noise_scale": 0.1},
        _score_double,
        clip=10.0,
        normal=True,
        tip=True,
    ),
}
ARENA = 1 << 20  # bytes of simulator scratch memory
_PREFIX = "gymnasium.envs.mujoco."


def is_mujoco(spec: EnvSpec) -> bool:
    """Say whether `spec` is one of Gymnasium's MuJoCo environments, served here or not."""
    return isinstance(spec.entry_point, str) and spec.entry_point.startswith(_PREFIX)


def supports(spec: EnvSpec, kwargs: dict[str, Any]) -> bool:
    """Say whether `spec` is a task of this file, with no wrapper and no option beyond the task's own."""
    if not is_mujoco(spec) or spec.additional_wrappers:
        return False
    task = TASKS.get(str(spec.entry_point).removeprefix(_PREFIX))
    return task is not None and set(spec.kwargs | kwargs) <= set(task.options)


def _may_collide(model: Any) -> bool:
    """Say whether any two geoms may touch by their contact bits, or are paired by name.

    Where none may, the search for contacts and for islands of them is skipped: the episodes stay the same bit for bit,
    and a step costs less, 38.5 instead of 43.1 us for Swimmer, 33.6 instead of 44.1 for InvertedPendulum (2026-11-22).
    """
    return bool(model.npair or (model.geom_contype[:, None] & model.geom_conaffinity[None, :]).any())


class MujocoEnv(RowEnv):
    """N rows of one of `TASKS`: row i's episode is that of `gymnasium.make(name).reset(seed=seeds[i])`, bit for bit.

    MuJoCo restarts a simulation that blew up and goes on; such a row answers NaN instead.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, max_episode_steps: int, kwargs: dict[str, Any]) -> None:
        self._mujoco: Any = import_extra("mujoco", "mujoco")
        self._task = TASKS[str(spec.entry_point).removeprefix(_PREFIX)]
        self._options = self._task.options | spec.kwargs | kwargs
        assets = files(gymnasium) / "envs" / "mujoco" / "assets"
        description = self._mujoco.MjSpec.from_file(str(assets / self._task.xml))
        description.memory = ARENA  # per row; the default is 13 MB for Swimmer, of which it used 2.4 kB (2026-11-22)
        self._model: Any = description.compile()
        if not _may_collide(self._model):
            bits = self._mujoco.mjtDisableBit
            self._model.opt.disableflags |= int(bits.mjDSBL_CONTACT) | int(getattr(bits, "mjDSBL_ISLAND", 0))
        low, high = self._model.actuator_ctrlrange.astype(np.float32).T
        width = 9 if self._task.tip else self._model.nq - self._task.hidden + self._model.nv
        observed = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        super().__init__(spec.id, num_envs, observed, spaces.Box(low, high, dtype=np.float32), max_episode_steps)
        # Views into the simulator's memory: reading an MjData attribute costs more than copying its few numbers.
        self._data = [self._mujoco.MjData(self._model) for _ in range(num_envs)]
        self._controls = [data.ctrl for data in self._data]
        self._sites = [data.site_xpos for data in self._data]
        self._forces = [data.qfrc_constraint for data in self._data]
        warned = self._mujoco.mjtWarning
        self._unstable = (warned.mjWARN_BADQPOS, warned.mjWARN_BADQVEL, warned.mjWARN_BADQACC)
        kinds = self._mujoco.mjtState
        self._kind = int(kinds.mjSTATE_TIME | kinds.mjSTATE_QPOS | kinds.mjSTATE_QVEL)
        self._state = np.zeros((num_envs, 1 + self._model.nq + self._model.nv))
        self._slots = list(self._state)

    def _reset_rows(self, seeds: list[int]) -> Array:
        model, scale = self._model, self._options["reset_noise_scale"]
        for data, slot, seed in zip(self._data, self._slots, seeds, strict=True):
            rng = row_generator(seed)
            self._mujoco.mj_resetData(model, data)
            data.qpos[:] += rng.uniform(low=-scale, high=scale, size=model.nq)
            if self._task.normal:
                data.qvel[:] = scale * rng.standard_normal(model.nv)
            else:
                data.qvel[:] = rng.uniform(low=-scale, high=scale, size=model.nv)
            self._mujoco.mj_forward(model, data)
            self._mujoco.mj_getState(model, data, slot, self._kind)
        return self._observe(self._frame(np.arange(self.num_envs), self._state, np.zeros((self.num_envs, model.nu))))

    def _step_rows(self, rows: NDArray[np.intp], actions: Array) -> RowOutcome:
        actions = np.asarray(actions, np.float32)
        model, skip, kind = self._model, self._task.frame_skip, self._kind
        step, read = self._mujoco.mj_step, self._mujoco.mj_getState
        before = self._state[rows]
        for i, row in enumerate(rows.tolist()):
            self._controls[row][:] = actions[i]
            step(model, self._data[row], nstep=skip)
            read(model, self._data[row], self._slots[row], kind)
        frame = self._frame(rows, before, actions)
        observed = self._observe(frame)
        reward, terminated = self._task.score(frame)
        restarted = self._restarted(rows, before[:, 0])
        if restarted.any():
            observed[restarted], terminated = np.nan, terminated & ~restarted
            reward = np.where(restarted, np.nan, reward)
        return observed, reward, terminated, None

    def _restarted(self, rows: NDArray[np.intp], clock: Array) -> NDArray[np.bool_]:
        """Say which of `rows` MuJoCo restarted since `clock` `[n]`: their time fell behind, or they left a warning."""
        due = (self._task.frame_skip - 0.5) * self._model.opt.timestep
        restarted = self._state[rows, 0] < clock + due
        for i in (clock == 0).nonzero()[0]:  # a restart within the first physics step leaves the clock as it should be
            warnings = self._data[rows[i]].warning
            restarted[i] |= any(warnings[kind].number for kind in self._unstable)
        return restarted

    def _frame(self, rows: NDArray[np.intp], before: Array, actions: Array) -> Frame:
        state, nq = self._state[rows], self._model.nq
        tip = np.zeros((len(rows), 4))
        if self._task.tip:
            tip[:] = [(self._sites[i][0, 0], self._sites[i][0, 2], self._forces[i][0], 0.0) for i in rows]
        dt = self._model.opt.timestep * self._task.frame_skip
        return Frame(before[:, 1], state[:, 1 : 1 + nq], state[:, 1 + nq :], actions, dt, self._options, tip)

    def _observe(self, frame: Frame) -> Array:
        clip, angles = self._task.clip, frame.qpos[:, 1:]
        velocities = frame.qvel if clip is None else np.clip(frame.qvel, -clip, clip)
        if not self._task.tip:
            return np.concatenate((frame.qpos[:, self._task.hidden :], velocities), axis=1)
        force = np.clip(frame.tip[:, 2:3], -10, 10)
        return np.concatenate((frame.qpos[:, :1], np.sin(angles), np.cos(angles), velocities, force), axis=1)
