"""The five MinAtar games, many rows at a time, against the package minatar, one game at a time.

Both sides play random actions over the same number of frames, observe every frame, and start anew where an episode
ends. The package's loop is the cheapest one it allows: `act`, `state`, and `reset` at an end. Both observe booleans, in
the last row float32. First both sides play with the same draws, and stop if a frame differs. The unit is one frame.
Run: `python benchmarks/vs_minatar.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import minatar
import numpy as np

import _bench
from mindworks.envs.minatar import GAMES, MinAtarEnv

SEED = 0
BAR = 10.0
FRAMES = 25_600
SIDE_BY_SIDE = (32, 256)
MASK = (1 << 64) - 1


class Draws:
    """What the package asks of its random generator, drawn from the stream of row `seed`."""

    def __init__(self, seed: int) -> None:
        self.word = self._mixed(seed)

    @staticmethod
    def _mixed(word: int) -> int:
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
        return word ^ (word >> 31)

    def rand(self, count: int | None = None) -> Any:
        """One float64 in [0, 1), or `count` of them."""
        if count is not None:
            return np.array([self.rand() for _ in range(count)])
        self.word = (self.word + 0x9E3779B97F4A7C15) & MASK
        return (self._mixed(self.word) >> 11) / 2**53

    def randint(self, low: int, high: int | None = None, size: int | None = None) -> Any:
        """An integer from `low` to `high - 1`, or from 0 to `low - 1`, or `size` of them."""
        low, high = (0, low) if high is None else (low, high)
        if size is not None:
            return np.array([self.randint(low, high) for _ in range(size)])
        return low + int(self.rand() * (high - low))


def check(game: str, steps: int = 1000) -> None:
    """Play one row and the package with the same draws; stop if they differ."""
    env, peer = MinAtarEnv(game, 1, minimal_actions=False), minatar.Environment(game)
    peer.random = peer.env.random = Draws(SEED)
    peer.reset()
    env.reset([SEED])
    for action in np.random.default_rng(SEED).integers(6, size=steps):
        frames, rewards, over, _ = env.step(np.array([action]), np.ones(1, bool))
        reward, ended = peer.act(action)
        same = (frames[0] == peer.state().transpose(2, 0, 1)).all()
        if not same or (rewards[0], over[0]) != (reward, ended):
            raise SystemExit(f"{game}: the sides differ")
        if ended:
            peer.reset()
            env.restart([0])


def package_loop(game: str, frames: int, dtype: Any) -> Callable[[], float]:
    """Return a function that plays the package for some frames and answers the sum of rewards."""
    env = minatar.Environment(game)
    env.seed(SEED)
    codes = env.minimal_action_set()
    tape = [codes[i] for i in np.random.default_rng(SEED).integers(len(codes), size=frames)]

    def play() -> float:
        total = 0.0
        env.reset()
        for action in tape:
            reward, over = env.act(action)
            total += reward
            if over:
                env.reset()
            seen = env.state()
            if dtype is not np.bool_:
                seen.astype(dtype)
        return total

    return play


def our_loop(game: str, frames: int, num_envs: int, dtype: Any) -> Callable[[], float]:
    """Return a function that plays our rows for as many frames together."""
    env, everyone = MinAtarEnv(game, num_envs, dtype=dtype), np.ones(num_envs, bool)
    tape = np.random.default_rng(SEED).integers(env.single_action_space.n, size=(frames // num_envs, num_envs))

    def play() -> float:
        total = 0.0
        env.reset(range(num_envs))
        for actions in tape:
            observations, rewards, terminated, truncated = env.step(actions, everyone)
            total += rewards.sum()
            over = terminated | truncated
            if over.any():
                observations[over] = env.restart(over)
        return total

    return play


def case(game: str, num_envs: int, dtype: Any = np.bool_) -> dict[str, Any]:
    """Time one game with some number of rows."""
    ours, peer = our_loop(game, FRAMES, num_envs, dtype), package_loop(game, FRAMES, dtype)
    ours_s, peer_s = _bench.compare(ours, peer, repeats=5)
    rates = {"ours_frames_per_s": round(FRAMES / ours_s), "peer_frames_per_s": round(FRAMES / peer_s)}
    return _bench.row(f"{game}, {num_envs} rows, {np.dtype(dtype)}", ours_s, peer_s, bar=BAR, per=FRAMES, **rates)


def main() -> int:
    """Run the cases; the status is 1 when a bar is missed."""
    rows = []
    for game in GAMES:
        check(game)
        rows += [case(game, num_envs) for num_envs in SIDE_BY_SIDE]
    rows.append(case("seaquest", 256, np.float32))
    return 0 if _bench.write("vs_minatar", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
