"""Training per frame: HighwayDQN against stable-baselines3's DQN, in MinAtar's Breakout.

Both sides have the same network (one convolution, one layer of 128), environment, replay of 100,000 steps, batch of 32
and one update per four frames, and are driven by the same loop in turns of 1,000 frames, which is one life of a target
network. The replay is full from the start, with steps of random play, so that as few of the target network's values
are remembered ones as in a long run. Random play ends after some ten steps, and a window ends with its episode: the
rows of "200-step episodes" mark other ends in the same replay, for the cost of windows that are whole. The unit is one
frame. The record keeps how a frame's time divides, and the share of the values asked for that were remembered.
Run: `python benchmarks/vs_sb3_dqn.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN

import _bench
from mindworks.envs.minatar import MinAtarEnv, MinAtarGym
from mindworks.multistep import GridExtractor, HighwayDQN, RowVecEnv, Target, Training

REPLAY, PORTION, PLAYED = 100_000, 1000, 20_000
SETTINGS: dict[str, Any] = {
    "buffer_size": REPLAY,
    "batch_size": 32,
    "learning_starts": 100,
    "target_update_interval": PORTION,
    "exploration_initial_eps": 0.05,
    "exploration_final_eps": 0.05,
    "policy_kwargs": {"features_extractor_class": GridExtractor, "net_arch": []},
    "device": "cpu",
    "seed": 0,
}
ONE = {"train_freq": 4, "gradient_steps": 1}
EIGHT = {"train_freq": 1, "gradient_steps": 2}


def environment(rows: int) -> Any:
    """Breakout, as one Gymnasium environment or as rows."""
    if rows == 1:
        return MinAtarGym("breakout", dtype=np.uint8)
    return RowVecEnv(MinAtarEnv("breakout", rows))


def random_play() -> dict[str, np.ndarray]:
    """`PLAYED` steps of random play in one row, as a replay buffer stores them."""
    env, rng = MinAtarGym("breakout", dtype=np.uint8), np.random.default_rng(0)
    count = int(env.action_space.n)
    seen, _ = env.reset(seed=0)
    steps: list[tuple[Any, ...]] = []
    for action in rng.integers(count, size=PLAYED):
        after, reward, terminated, truncated, _ = env.step(action)
        steps.append((seen, after, action, reward, terminated or truncated, truncated, 1 / count))
        seen = env.reset()[0] if terminated or truncated else after
    names = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "behavior")
    return {name: np.array(column) for name, column in zip(names, zip(*steps, strict=True), strict=True)}


def fill(learner: DQN, steps: dict[str, np.ndarray], episode: int | None) -> None:
    """Fill the replay with `steps` over and over; with `episode` every episode-th step is an end, and no other."""
    buffer: Any = learner.replay_buffer
    slots = np.arange(buffer.buffer_size * buffer.n_envs).reshape(buffer.n_envs, -1).T % PLAYED
    for name, column in steps.items():
        if hasattr(buffer, name):
            stored = getattr(buffer, name)
            stored[:] = column[slots].reshape(stored.shape)
    if episode is not None:
        buffer.dones[:] = (np.arange(buffer.buffer_size) % episode == episode - 1)[:, None]
    buffer.full, buffer.pos = True, 0
    if getattr(buffer, "tree", None) is not None:
        buffer.tree.set(np.arange(REPLAY), np.full(REPLAY, (buffer.highest + 0.01) ** buffer.alpha))


def check(ours: HighwayDQN, peer: DQN) -> None:
    """Stop unless the targets of one step are those of the peer on the same stored steps and with the same network."""
    steps = ours.replay_buffer.window(np.arange(500), np.zeros(500, int), 1, np.ones(500))
    sample: Any = ours.replay_buffer._get_samples(np.arange(500)) if ours.n_envs == 1 else None
    for name, value in ours.q_net_target.state_dict().items():
        if not torch.equal(value, peer.q_net_target.state_dict()[name]):
            raise SystemExit(f"the sides start with different {name}")
    if sample is None or ours.target.kind != "one_step":
        return
    with torch.no_grad():
        best = peer.q_net_target(sample.next_observations).amax(1, keepdim=True)
        gap = (ours.targets(steps) - (sample.rewards + (1 - sample.dones) * peer.gamma * best)[:, 0]).abs().max()
    if gap > 1e-5:
        raise SystemExit(f"the targets of one step differ by {gap}")
    ours.cache.forget()


def split(run: Training) -> dict[str, Any]:
    """Microseconds of a frame by what they are spent on, over one more portion, and the share of values remembered."""
    learner: Any = run.learner
    spent: dict[str, float] = {}
    found: list[int] = [0, 0]

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = call(*args, **kwargs)
            spent[name] = spent.get(name, 0.0) + time.process_time() - start
            return result

        return wrapped

    def counted(places: np.ndarray, needed: np.ndarray, compute: Any) -> Any:
        wanted = places[needed]
        found[0] += int(learner.cache.fresh[wanted].sum())
        found[1] += wanted.size
        return look_up(places, needed, compute)

    buffer, cache, optimizer = learner.replay_buffer, learner.cache, learner.policy.optimizer
    look_up = cache.look_up
    cache.look_up = counted
    buffer.sequences, buffer.set_errors = timed("sampling", buffer.sequences), timed("sampling", buffer.set_errors)
    learner.next_values, learner.targets = timed("values", learner.next_values), timed("targets", learner.targets)
    optimizer.step, learner.train = timed("optimiser", optimizer.step), timed("train", learner.train)
    start = time.process_time()
    run.advance()
    whole = time.process_time() - start
    for owner, names in (
        (cache, ["look_up"]),
        (buffer, ["sequences", "set_errors"]),
        (learner, ["next_values", "targets", "train"]),
    ):
        for name in names:
            delattr(owner, name)
    parts = {
        "acting": whole - spent["train"],
        "sampling": spent["sampling"],
        "next_values": spent["values"],
        "returns": spent["targets"] - spent["values"],
        "optimiser": spent["optimiser"],
        "forward_backward": spent["train"] - spent["sampling"] - spent["targets"] - spent["optimiser"],
    }
    micro = {name: round(seconds / PORTION * 1e6, 1) for name, seconds in parts.items()}
    return {
        "split_us": micro,
        "remembered": round(found[0] / found[1], 3),
        "values_per_update": found[1] // (PORTION // 4),
    }


def case(
    steps: dict[str, np.ndarray],
    target: Target,
    bar: float = 0.0,
    *,
    rows: int = 1,
    prioritized: bool = False,
    episode: int | None = None,
    repeats: int = 5,
) -> dict[str, Any]:
    """Measure one target: both sides train in turns."""
    given = {**SETTINGS, **(ONE if rows == 1 else EIGHT)}
    ours = HighwayDQN("MlpPolicy", environment(rows), target=target, prioritized=prioritized, **given)
    peer = DQN("MlpPolicy", environment(rows), **given)
    for learner in (ours, peer):
        fill(learner, steps, episode)
    check(ours, peer)
    total = PORTION * (repeats + 10)
    runs = [Training(learner, total, portion=PORTION) for learner in (ours, peer)]  # type: ignore[arg-type]
    ours_s, peer_s = _bench.compare(runs[0].advance, runs[1].advance, repeats=repeats, warmup=2)
    name = target.kind + (f" {target.lookahead}" if target.steps > 1 else "")
    title = f"{name}{', prioritised' if prioritized else ''}, {rows} environment{'s' if rows > 1 else ''}"
    title += "" if episode is None else f", {episode}-step episodes"
    rates = {"ours_frames_per_s": round(PORTION / ours_s), "peer_frames_per_s": round(PORTION / peer_s)}
    return _bench.row(title, ours_s, peer_s, bar, per=PORTION, **rates, **split(runs[0]))


def main() -> int:
    """Run the cases; the status is 1 when a bar is missed."""
    torch.set_num_threads(1)
    measure = partial(case, random_play())
    rows = [
        measure(Target("one_step")),
        measure(Target("highway", lookahead=8), 0.9),
        measure(Target("highway", lookahead=16), 0.9),
        measure(Target("highway", lookahead=32)),
        measure(Target("retrace", lookahead=8)),
        measure(Target("highway", lookahead=8), prioritized=True),
        measure(Target("highway", lookahead=16), episode=200),
        measure(Target("highway", lookahead=32), episode=200),
        measure(Target("one_step"), rows=8),
        measure(Target("highway", lookahead=8), rows=8),
    ]
    return 0 if _bench.write("vs_sb3_dqn", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
