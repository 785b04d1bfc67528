"""The door to batched environments: `make_batch` picks the cheapest backend that plays the environment correctly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import error, spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from mindworks.envs import acrobot, cartpole, mountain_car, mujoco_tasks
from mindworks.envs.loop import LoopEnv
from mindworks.envs.lqr import LQREnv
from mindworks.envs.minatar.rows import tasks as minatar_tasks
from mindworks.envs.rows import Observations, Outcome, RowEnv
from mindworks.errors import InputError, MissingExtra, import_extra, require

# Gymnasium's tasks played in numpy: (does it play this spec with these arguments, class(spec, num_envs, time limit)).
NATIVE: tuple[tuple[Callable[[EnvSpec, dict[str, Any]], bool], Callable[[EnvSpec, int, int], RowEnv]], ...] = (
    (cartpole.supports, cartpole.CartPoleEnv),
    (acrobot.supports, acrobot.AcrobotEnv),
    (mountain_car.supports, mountain_car.MountainCarContinuousEnv),
)
# Tasks that Gymnasium does not have: id -> class(num_envs, horizon=..., **its own arguments).
OWN: dict[str, Callable[..., RowEnv]] = {
    "LQR-v0": LQREnv,
    "CartPoleContinuous-v0": cartpole.CartPoleContinuousEnv,
    **minatar_tasks(),
}


class BatchEnv(Protocol):
    """N episodes side by side, one per row; no row restarts by itself.

    `single_observation_space` is a float32 `Box` `shape`, `single_action_space` a `Discrete` or a `Box` `[A]`.
    """

    name: str
    num_envs: int
    single_observation_space: spaces.Box
    single_action_space: spaces.Box | spaces.Discrete
    max_episode_steps: int

    def reset(self, seeds: Sequence[int] | NDArray[np.integer[Any]]) -> Observations:
        """Start row i from `seeds[i]` alone; return observations `[N, *shape]` float32."""
        ...

    def step(self, actions: NDArray[Any], alive: NDArray[np.bool_]) -> Outcome:
        """Step the rows where `alive` `[N]`; return observations, rewards, terminated and truncated.

        Other rows answer their last observation, 0, False, False.
        """
        ...

    def close(self) -> None:
        """Release what the environment holds."""
        ...


def make_batch(
    name: str | Callable[[], gymnasium.Env[Any, Any]],
    num_envs: int,
    *,
    max_episode_steps: int | None = None,
    **kwargs: Any,
) -> BatchEnv:
    """Make `num_envs` rows of one environment.

    name: a Gymnasium id (`CartPole-v1`, `module:id`), a task of this library (`LQR-v0`, `CartPoleContinuous-v0`,
    `MinAtar/Breakout-v1`), or a callable that builds one environment. max_episode_steps: the time limit; None takes the
    environment's own. kwargs: the environment's own arguments. Backends: CartPole, Acrobot and MountainCarContinuous in
    numpy; the games of MinAtar by numba; MuJoCo tasks on one shared model; otherwise a loop over instances, stepping
    the living.
    Raises `InputError` (one line) for an unknown id, a missing time limit, a count below 1, arguments the environment
    does not take, and spaces other than a `Box` observation with a `Discrete` or rank-1 `Box` action; `MissingExtra`
    when a package the environment stands on is not installed.
    """
    for argument, count in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
        whole = isinstance(count, (int, np.integer)) and not isinstance(count, bool) and count >= 1
        require(whole or (count is None and argument != "num_envs"), f"{argument}: expected at least 1, got {count!r}")
    if not isinstance(name, str):
        require(callable(name), f"name: expected an environment id or a callable, got {name!r}")
        require(not kwargs, f"kwargs: a callable takes none here, bind them to it, got {sorted(kwargs)}")
        return LoopEnv(getattr(name, "__name__", "environment"), name, num_envs, max_episode_steps)
    try:
        if name in OWN:
            limit: dict[str, Any] = {} if max_episode_steps is None else {"horizon": max_episode_steps}
            return OWN[name](num_envs, **limit, **kwargs)
        return _make_registered(find_spec(name), num_envs, max_episode_steps, kwargs)
    except TypeError as problem:
        raise InputError(f"kwargs: {name} does not take {kwargs}: {_line(problem)}") from problem
    except (error.DependencyNotInstalled, ModuleNotFoundError) as problem:
        if isinstance(problem, MissingExtra):
            raise
        raise MissingExtra(f"{name} needs a package that is not installed: {_line(problem)}") from problem


def _make_registered(spec: EnvSpec, num_envs: int, max_episode_steps: int | None, kwargs: dict[str, Any]) -> BatchEnv:
    limit = max_episode_steps or spec.max_episode_steps
    if mujoco_tasks.is_mujoco(spec):
        import_extra("mujoco", "mujoco")
    for supports, native in NATIVE:
        if limit is not None and supports(spec, kwargs):
            return native(spec, num_envs, limit)
    if limit is not None and mujoco_tasks.supports(spec, kwargs):
        return mujoco_tasks.MujocoEnv(spec, num_envs, limit, kwargs)
    extra = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}

    def make() -> gymnasium.Env[Any, Any]:
        return gymnasium.make(spec, disable_env_checker=True, **extra, **kwargs)

    return LoopEnv(spec.id, make, num_envs, limit)


def find_spec(name: str) -> EnvSpec:
    """Return the registered spec of `name`, importing `module` first for `module:id`.

    Raises `InputError` with the nearest registered id when there is none.
    """
    module, _, env_id = name.rpartition(":")
    try:
        if module:
            import_module(module)
        return gymnasium.spec(env_id)
    except ModuleNotFoundError as problem:
        raise InputError(f"name: {name!r} needs the module {problem.name!r}, which is not installed") from problem
    except error.Error as problem:
        known = [*gymnasium.registry, *OWN]
        lowered = {known_id.lower(): known_id for known_id in known}
        near = get_close_matches(env_id.lower(), lowered, n=1, cutoff=0.5)
        hint = f"; the nearest is {lowered[near[0]]!r}" if near else ""
        raise InputError(f"name: unknown environment {name!r}{hint}") from problem


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]
