"""A population in an environment: our rollout against Gymnasium's SyncVectorEnv and one torch module per policy.

Both sides play the same episodes: the same parameters, the same seeds, one episode per policy. The peer is the usual
loop, made as cheap as that loop gets: `torch.no_grad`, and no forward pass for a row whose episode is over. The unit is
one environment step of a living row. Further rows leave the policies out: the same actions, decided beforehand, go to
our environment, to SyncVectorEnv and to Gymnasium's own CartPoleVectorEnv, and every row lives throughout.
Run: `python benchmarks/vs_sync_vector_env.py`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

import _bench
from mindworks.core.policy import Policy
from mindworks.envs import make_batch, rollout
from mindworks.envs.seeding import uniform_rows

SEED = 0
MOST_US = 1.0  # CPU us of one CartPole step at 1,000 rows and more
Played = tuple[np.ndarray, int]


def best_of(policy: Policy, name: str, num_envs: int, candidates: int) -> torch.Tensor:
    """Return the `num_envs` best of `candidates` standard normal parameter vectors by one episode each."""
    theta = torch.randn(candidates, policy.num_parameters, generator=torch.Generator().manual_seed(SEED))
    played = rollout(make_batch(name, candidates), policy.actor(theta), range(candidates), record=False)
    return theta[torch.from_numpy(np.argsort(-played.returns, kind="stable")[:num_envs].copy())]


def case(
    name: str,
    num_envs: int,
    hidden: tuple[int, ...],
    bar: float,
    *,
    max_steps: int | None = None,
    candidates: int = 0,
    record: bool = True,
    repeats: int = 7,
) -> dict[str, Any]:
    """Measure one environment: check that both sides collect the same returns, then time them in turns."""
    env = make_batch(name, num_envs)
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space, hidden=hidden)
    theta = policy.init(num_envs, generator=torch.Generator().manual_seed(SEED))
    if candidates:
        theta = best_of(policy, name, num_envs, candidates)
    seeds = list(range(SEED, SEED + num_envs))
    peer_env = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(name) for _ in range(num_envs)])
    modules = [policy.module(row) for row in theta]
    peer = sync_vector_loop(peer_env, modules, seeds, max_steps or env.max_episode_steps)

    def ours() -> Played:
        played = rollout(env, policy.actor(theta), seeds, max_steps=max_steps, record=record)
        return played.returns, played.steps

    (our_returns, steps), (peer_returns, peer_steps) = ours(), peer()
    gap = float(np.abs(our_returns - peer_returns).max())
    if steps != peer_steps or gap > 1e-3 * max(1.0, float(np.abs(peer_returns).max())):
        raise SystemExit(f"{name}: the sides differ: {steps} and {peer_steps} steps, returns apart by {gap}")
    ours_s, peer_s = _bench.compare(ours, peer, repeats=repeats)
    shape = "linear" if not hidden else "x".join(map(str, hidden))
    kind = f"best of {candidates}" if candidates else "fresh"
    title = f"{name}, {num_envs} {shape} policies, {kind}, {steps} steps{'' if record else ', not recorded'}"
    return with_limit(_bench.row(title, ours_s, peer_s, bar, per=steps), num_envs)


def with_limit(row: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """A row that has passed only if a step costs us no more than `MOST_US`, where there are rows enough."""
    if num_envs < 1000:
        return row
    title = f"{row['case']} (ours at most {MOST_US:g} µs)"
    return {**row, "case": title, "passed": row["passed"] and row["ours_us"] <= MOST_US}


def stepping(mode: str, num_envs: int, steps: int, repeats: int) -> dict[str, Any]:
    """CartPole alone, without policies, against a vector environment of Gymnasium: `sync` or its own `CartPole`."""
    how = {"sync": "sync", "CartPole": "vector_entry_point"}[mode]
    env, peer_env = make_batch("CartPole-v1", num_envs), gymnasium.make_vec("CartPole-v1", num_envs, how)
    seeds, everyone = list(range(num_envs)), np.ones(num_envs, bool)
    tape: list[np.ndarray] = []

    def balance(seen: np.ndarray, _: np.ndarray) -> np.ndarray:
        tape.append((seen @ np.array([0.1, 0.3, 3.0, 1.5]) > 0).astype(np.int64))
        return tape[-1]

    assert (rollout(env, balance, seeds, max_steps=steps).lengths == steps).all(), "a pole fell: take fewer steps"

    def ours() -> np.ndarray:
        env.reset(seeds)
        return [env.step(actions, everyone) for actions in tape][-1][0]

    def peer() -> np.ndarray:
        peer_env.reset(seed=0)
        if mode == "CartPole":  # it draws all rows from one generator, SyncVectorEnv row i from seed i
            peer_env.unwrapped.state = uniform_rows(seeds, -0.05, 0.05, 4).T.copy()
        return [peer_env.step(actions) for actions in tape][-1][0]

    np.testing.assert_array_equal(ours(), peer())
    ours_s, peer_s = _bench.compare(ours, peer, repeats=repeats)
    title = f"CartPole-v1, {num_envs} rows, resets and steps alone, {type(peer_env.unwrapped).__name__}"
    peer_env.close()
    return with_limit(_bench.row(title, ours_s, peer_s, bar=0.0, per=num_envs * steps), num_envs)


def sync_vector_loop(
    env: gymnasium.vector.SyncVectorEnv, modules: list[torch.nn.Sequential], seeds: list[int], limit: int
) -> Callable[[], Played]:
    """Return a function that plays one episode per row and answers the returns `[N]` and the living steps."""
    space = env.single_action_space
    discrete = isinstance(space, gymnasium.spaces.Discrete)
    if not discrete:
        assert isinstance(space, gymnasium.spaces.Box)
        assert np.allclose(space.high, -space.low)

    def play() -> Played:
        observations, _ = env.reset(seed=seeds)
        alive, returns, steps = np.ones(env.num_envs, bool), np.zeros(env.num_envs), 0
        actions = np.zeros(env.action_space.shape, env.action_space.dtype)
        for _ in range(limit):
            seen = torch.as_tensor(observations, dtype=torch.float32)
            with torch.no_grad():
                for row in np.flatnonzero(alive):
                    output = modules[row](seen[row])
                    actions[row] = output.argmax().item() if discrete else output.tanh().numpy() * space.high
            observations, rewards, terminated, truncated, _ = env.step(actions)
            returns[alive] += rewards[alive]
            steps += int(alive.sum())
            alive &= ~(terminated | truncated)
            if not alive.any():
                break
        return returns, steps

    return play


def main() -> int:
    """Run the cases; the status is 1 when a bar is missed."""
    torch.set_num_threads(1)
    try:
        import imageio  # noqa: F401
    except ModuleNotFoundError:  # Gymnasium's MuJoCo module imports it, and uses it to render only
        sys.modules["imageio"] = types.ModuleType("imageio")
    rows = [
        case("CartPole-v1", 64, (), bar=20.0, candidates=32768),
        case("CartPole-v1", 64, (), bar=20.0),
        case("CartPole-v1", 1000, (), bar=20.0, candidates=32768, record=False, repeats=3),
        case("Swimmer-v5", 16, (256, 256), bar=2.5, max_steps=200),
        stepping("sync", 1000, steps=50, repeats=3),
        stepping("CartPole", 100, steps=200, repeats=7),
        stepping("CartPole", 1000, steps=200, repeats=7),
        stepping("CartPole", 10_000, steps=200, repeats=3),
    ]
    return 0 if _bench.write("vs_sync_vector_env", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
