"""Small learners, episodes made by hand, and comparison of nested states, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mindworks.core.policy import Policy
from mindworks.envs import BatchEnv, Trajectories, make_batch, rollout
from mindworks.policies import PAVF, PSSVF, PSVF, PSSVFConfig, TDConfig
from mindworks.policies.learner import Learner

KINDS = {"pssvf": PSSVF, "psvf": PSVF, "pavf": PAVF}
TASKS = ["LQR-v0", "CartPole-v1"]
TD = {"update_every": 5, "critic_steps": 2, "policy_batch": 32, "capacity": 500}
PSS = {"critic_steps": 3, "policy_steps": 3}


def environment(name: str, rows: int) -> BatchEnv:
    limits = {"action_limit": 1.0, "state_limit": 3.0} if name == "LQR-v0" else {}
    return make_batch(name, rows, max_episode_steps=12, **limits)


def learner(kind: str, task: str = "LQR-v0", seeds: Sequence[int] = (0, 1, 2), **config: Any) -> Learner:
    """A tiny learner; the stochastic kinds act by sampling, as the PAVF must where actions are discrete."""
    env = environment(task, 1)
    stochastic = config.get("stochastic", kind == "pavf" and task == "CartPole-v1")
    gaussian = stochastic and task == "LQR-v0"
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space, gaussian=gaussian)
    shared = {"population": 2, "sigma": 0.5, "critic_hidden": (8,), "lr_policy": 1e-2, "lr_critic": 1e-2, "batch": 4}
    if kind == "pssvf":
        return PSSVF(policy, PSSVFConfig(**{**shared, **PSS, **config}), seeds)
    return KINDS[kind](policy, TDConfig(**{**shared, **TD, "stochastic": stochastic, **config}), seeds)


def play(one: Learner, env: BatchEnv, active: np.ndarray | None = None) -> tuple[torch.Tensor, Trajectories]:
    """Ask and roll out, as a generation of `Training` does."""
    theta = one.ask()
    rows = None if active is None else np.repeat(active, one.config.population)
    return theta, rollout(env, one.actor(theta), one.episode_seeds(), active=rows)


def generation(one: Learner, env: BatchEnv, active: np.ndarray | None = None) -> Trajectories:
    theta, episodes = play(one, env, active)
    one.tell(theta, episodes, active)
    return episodes


def episodes_by_hand(
    rewards: Sequence[Sequence[float]],
    observations: Sequence[Sequence[float]] | None = None,
    actions: Sequence[Sequence[float]] | None = None,
    terminated: Sequence[bool] | None = None,
    diverged: Sequence[bool] | None = None,
) -> Trajectories:
    """Episodes of one-dimensional observations and actions: row i has `rewards[i]` and one more observation.

    They end by truncation where they are not said to terminate, and see zeros where nothing else is said.
    """
    n, longest = len(rewards), max(map(len, rewards))
    lengths = np.array([len(row) for row in rewards])
    seen, done, paid = np.zeros((n, longest + 1, 1)), np.zeros((n, longest, 1)), np.zeros((n, longest))
    for i, row in enumerate(rewards):
        paid[i, : len(row)] = row
        if observations is not None:
            seen[i, : len(row) + 1, 0] = observations[i]
        if actions is not None:
            done[i, : len(row), 0] = actions[i]
    ended = np.zeros(n, bool) if terminated is None else np.array(terminated)
    odd = np.zeros(n, bool) if diverged is None else np.array(diverged)
    return Trajectories(
        observations=seen.astype(np.float32),
        actions=done.astype(np.float32),
        rewards=paid,
        lengths=lengths,
        returns=paid.sum(1),
        terminated=ended,
        truncated=~ended,
        diverged=odd,
        final_observations=seen[np.arange(n), lengths].astype(np.float32),
    )


def assert_same(ours: Any, theirs: Any, where: str = "state") -> None:
    """Nested states of tensors, arrays and plain values are equal bit for bit."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    elif isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, where
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, np.ndarray):
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
    else:
        assert ours == theirs, where


def of_seed(one: Learner, s: int) -> dict[str, Any]:
    """Copies of everything seed s of a learner owns, its random streams aside."""
    adams = {name: getattr(one, name).state() for name in ("policy_adam", "critic_adam")}
    rings = {
        "policies": one.replay.policies,
        "bases": one.replay.bases,
        "transitions": getattr(one, "transitions", None),
    }
    return {
        "theta": one.theta[s].detach().clone(),
        "phi": one.phi[s].detach().clone(),
        **{name: {key: moment[s].clone() for key, moment in state.items()} for name, state in adams.items()},
        **{
            name: {key: rows[s, : int(ring.size[s])].clone() for key, rows in ring.data.items()}
            for name, ring in rings.items()
            if ring is not None
        },
        "norm": {key: np.array(getattr(one.norm, key)[s]) for key in ("count", "mean", "m2")},
        "steps": int(one.steps[s]),
        "episodes": int(one.episodes[s]),
        "rounds_due": float(one.rounds_due[s]) if hasattr(one, "rounds_due") else 0.0,
        "units": [one.center[s].clone(), one.scale[s].clone()] if hasattr(one, "center") else [],
    }
