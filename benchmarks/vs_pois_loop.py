"""P-POIS: our batched iteration against a plain loop of the published kind, and what of a run is offline.

The loop plays one episode after another in a Gymnasium environment, one seed after another, and climbs the bound in
numpy with gradients written out; it has the same draws, the same line search, and ends at the same hyperpolicy, which
is checked. Run: `python benchmarks/vs_pois_loop.py`.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import torch

import _bench
from mindworks.envs import make_batch, rollout
from mindworks.policies import POIS, POISConfig, Policy

SEEDS, EPISODES, DELTA = list(range(8)), 100, 0.4
CONFIG = POISConfig(delta=DELTA, episodes=EPISODES)


class Loop:
    """The offline part for one seed: theta `[N, P]`, returns `[N]`, and the hyperpolicy they were drawn from."""

    def __init__(self, theta: np.ndarray, returns: np.ndarray, mean: np.ndarray, log_std: np.ndarray) -> None:
        self.theta, self.returns, self.mean0, self.log_std0 = theta, returns, mean, log_std
        self.log_q = self.density(mean, log_std)
        self.factor = np.abs(returns).max() * math.sqrt((1 - DELTA) / DELTA / len(returns))

    def density(self, mean: np.ndarray, log_std: np.ndarray) -> np.ndarray:
        return (-0.5 * ((self.theta - mean) / np.exp(log_std)) ** 2 - log_std).sum(1)

    def bound(self, mean: np.ndarray, log_std: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, float]:
        mixed = 2 * np.exp(2 * self.log_std0) - np.exp(2 * log_std)
        if (mixed <= 0).any():
            return -math.inf, np.zeros(0), mixed, math.inf
        log_w = self.density(mean, log_std) - self.log_q
        weights = np.exp(log_w - log_w.max())
        weights /= weights.sum()
        shift = (mean - self.mean0) ** 2
        log_d2 = (shift / mixed - np.log(mixed) / 2 - log_std + 2 * self.log_std0).sum()
        penalty = self.factor * math.exp(log_d2 / 2)
        return float(weights @ self.returns) - penalty, weights, mixed, penalty

    def gradient(self, mean: np.ndarray, log_std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, weights, mixed, penalty = self.bound(mean, log_std)
        pull = weights * (self.returns - weights @ self.returns)
        away, variance = self.theta - mean, np.exp(2 * log_std)
        on_mean = pull @ away / variance - penalty * (mean - self.mean0) / mixed
        on_variance = (mean - self.mean0) ** 2 / mixed**2 * 2 * variance + variance / mixed - 1
        return on_mean, pull @ (away**2 / variance - 1) - penalty / 2 * on_variance

    def climb(self, steps: int = 10, tries: int = 30) -> tuple[np.ndarray, np.ndarray]:
        mean, log_std = self.mean0.copy(), self.log_std0.copy()
        value = self.bound(mean, log_std)[0]
        for _ in range(steps):
            on_mean, on_log_std = self.gradient(mean, log_std)
            along = on_mean * np.exp(2 * log_std), on_log_std / 2
            slope = on_mean @ along[0] + on_log_std @ along[1]
            if slope <= 1e-8:
                break
            epsilon, best, top = 1.0, 0.0, -math.inf
            for _ in range(tries):
                gained = self.bound(mean + epsilon / slope * along[0], log_std + epsilon / slope * along[1])[0] - value
                if gained == -math.inf and top == -math.inf:
                    epsilon /= 4
                    continue
                if gained <= top + 1e-4:
                    break
                best, top = epsilon, gained
                if gained > 0.75 * epsilon:
                    epsilon *= 2
                else:
                    epsilon = max(epsilon**2 / (2 * (epsilon - gained)), epsilon / 100)
            if top <= 1e-4:
                break
            mean, log_std = mean + best / slope * along[0], log_std + best / slope * along[1]
            value = self.bound(mean, log_std)[0]
        return mean, log_std


def play(env: gymnasium.Env[Any, Any], weights: np.ndarray, seed: int) -> float:
    """The return of one episode of one linear policy."""
    observation, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(int(weights @ observation > 0))
        total, over = total + float(reward), terminated or truncated
    return total


def searched() -> POIS:
    """P-POIS in CartPole-v1 after two batches, when episodes are of many lengths."""
    search = POIS(policy_of("CartPole-v1"), CONFIG, SEEDS)
    env = make_batch("CartPole-v1", len(SEEDS) * EPISODES)
    for _ in range(2):
        theta = search.ask()
        search.tell(theta, rollout(env, search.actor(theta), search.episode_seeds(), record=False))
    return search


def policy_of(name: str) -> Policy:
    """The linear policy of the study."""
    env = make_batch(name, 1)
    discrete = isinstance(env.single_action_space, gymnasium.spaces.Discrete)
    spaces = env.single_observation_space, env.single_action_space
    return Policy.for_spaces(*spaces, bias=False, squash=False, reference=discrete)


def iteration() -> list[dict[str, Any]]:
    """One batch of eight seeds, episodes and climb, and the climb alone."""
    search = searched()
    state, theta, episode_seeds = search.state(), search.ask(), search.episode_seeds()
    env, alone = make_batch("CartPole-v1", len(theta) * EPISODES), gymnasium.make("CartPole-v1")
    told = rollout(env, search.actor(theta), episode_seeds, record=False)
    start = search.rho.clone()

    def ours_offline() -> torch.Tensor:
        search.load(state)
        search.tell(theta, told)
        return search.rho

    def peer_offline(returns: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        rows = zip(theta.double().numpy(), returns, *(half.numpy() for half in start.chunk(2, -1)), strict=True)
        return [Loop(*row).climb() for row in rows]

    def ours() -> torch.Tensor:
        search.load(state)
        search.tell(theta, rollout(env, search.actor(theta), episode_seeds, record=False))
        return search.rho

    def peer() -> list[tuple[np.ndarray, np.ndarray]]:
        flat = theta.flatten(0, 1).numpy()
        returns = np.array([play(alone, row, seed) for row, seed in zip(flat, episode_seeds, strict=True)])
        return peer_offline(returns.reshape(len(SEEDS), EPISODES))

    ended = np.stack([np.concatenate(pair) for pair in peer()])
    gap = float(np.abs(ours().numpy() - ended).max())
    if gap > 1e-6:
        raise SystemExit(f"the sides end apart, by {gap}")
    returns = told.returns.reshape(len(SEEDS), EPISODES)
    whole = _bench.compare(ours, peer, repeats=3)
    offline = _bench.compare(ours_offline, lambda: peer_offline(returns), repeats=7)
    title = f"CartPole-v1, {len(SEEDS)} seeds x {EPISODES} episodes, {told.steps} steps"
    return [
        _bench.row(f"one iteration, {title}", *whole, bar=20.0),
        _bench.row("its climb alone (the peer: one seed after another in numpy)", *offline, bar=0.0),
    ]


def share() -> dict[str, Any]:
    """A whole run in InvertedPendulum-v5, 12 batches of 50 episodes, over its offline part."""
    search = POIS(policy_of("InvertedPendulum-v5"), POISConfig(delta=DELTA, episodes=50), SEEDS)
    env = make_batch("InvertedPendulum-v5", len(SEEDS) * 50, max_episode_steps=300)
    offline, begin = 0.0, time.process_time()
    for _ in range(12):
        theta = search.ask()
        told = rollout(env, search.actor(theta), search.episode_seeds(), record=False)
        start = time.process_time()
        search.tell(theta, told)
        offline += time.process_time() - start
    whole = time.process_time() - begin
    title = f"offline part (ours) of a whole run (peer), InvertedPendulum-v5, {len(SEEDS)} seeds x 600 episodes"
    return _bench.row(title, offline, whole, bar=20.0)


def main() -> int:
    """Run the cases; the status is 1 when a bar is missed."""
    torch.set_num_threads(1)
    return 0 if _bench.write("vs_pois_loop", [*iteration(), share()]) else 1


if __name__ == "__main__":
    sys.exit(main())
