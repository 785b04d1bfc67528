"""Delayed rewards: the same episodes, the same sums, paid later; N rows are N single environments."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from env_helpers import Counter
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.envs import make_batch, rollout
from mindworks.envs.delayed import DelayedReward, DelayedRows
from mindworks.envs.minatar import MinAtarEnv, MinAtarGym
from mindworks.errors import InputError


class Paying(gymnasium.Env):
    """Pays the given rewards and then ends, terminated or truncated."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, rewards: list[float], ending: str = "terminated") -> None:
        self.rewards, self.ending, self.t = rewards, ending, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {"start": True}

    def step(self, action):
        reward, self.t = self.rewards[self.t], self.t + 1
        last = self.t == len(self.rewards)
        ended = last and self.ending == "terminated"
        return np.zeros(1, np.float32), reward, ended, last and not ended, {"t": self.t}


def paid_by(env: gymnasium.Env) -> tuple[list[float], list[float]]:
    """What one episode pays, and what its `info` calls the reward."""
    env.reset()
    paid, true, over = [], [], False
    while not over:
        _, reward, terminated, truncated, info = env.step(0)
        paid, true, over = [*paid, reward], [*true, info["reward"]], terminated or truncated
    return paid, true


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (None, [0, 0, 0, 0, 15]),
        (1, [1, 2, 3, 4, 5]),
        (2, [0, 3, 0, 7, 5]),
        (3, [0, 0, 6, 0, 9]),
        (5, [0, 0, 0, 0, 15]),
        (9, [0, 0, 0, 0, 15]),
    ],
)
def test_what_is_paid_when(period: int | None, expected: list[float], ending: str) -> None:
    env = DelayedReward(Paying([1, 2, 3, 4, 5], ending), period)
    assert paid_by(env) == (expected, [1, 2, 3, 4, 5])
    assert paid_by(env) == (expected, [1, 2, 3, 4, 5])


def test_a_reset_forgets_what_is_owed_and_infos_pass_through() -> None:
    env = DelayedReward(Paying([1, 2, 3, 4, 5]), 3)
    env.reset()
    env.step(0)
    env.step(0)
    assert env.reset()[1] == {"start": True}
    assert [env.step(0)[1] for _ in range(3)] == [0, 0, 6]
    assert env.step(0)[4] == {"t": 4, "reward": 4}


@given(rewards=st.lists(st.integers(-5, 5), min_size=1, max_size=12), period=st.none() | st.integers(1, 14))
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_or_paid_early(rewards: list[int], period: int | None) -> None:
    paid, true = paid_by(DelayedReward(Paying(rewards), period))
    assert true == rewards
    assert sum(paid) == sum(rewards)
    step = period or len(rewards)
    for t in range(len(rewards)):
        if (t + 1) % step == 0:
            assert sum(paid[: t + 1]) == sum(rewards[: t + 1])
        elif t + 1 < len(rewards):
            assert paid[t] == 0


@pytest.mark.parametrize("period", [None, 7])
def test_rows_pay_as_single_games_do(period: int | None) -> None:
    seeds, limit = [3, 4, 5, 6], 40
    rows = DelayedRows(MinAtarEnv("space_invaders", 4, max_episode_steps=limit), period)
    plain = MinAtarEnv("space_invaders", 4, max_episode_steps=limit)
    singles = [DelayedReward(MinAtarGym("space_invaders", max_episode_steps=limit), period) for _ in seeds]
    rows.reset(seeds)
    plain.reset(seeds)
    for env, seed in zip(singles, seeds, strict=True):
        env.reset(seed=seed)
    rng, earned = np.random.default_rng(0), 0.0
    for _ in range(120):
        actions = rng.choice([1, 2, 3, 3], size=4)
        frames, paid, terminated, truncated = rows.step(actions, np.ones(4, bool))
        np.testing.assert_array_equal(rows.earned, plain.step(actions, np.ones(4, bool))[1])
        answers = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        np.testing.assert_array_equal(paid, [answer[1] for answer in answers])
        np.testing.assert_array_equal(frames, [answer[0] for answer in answers])
        earned += rows.earned.sum()
        over = terminated | truncated
        rows.restart(over)
        plain.restart(np.flatnonzero(over))
        for i in np.flatnonzero(over):
            singles[i].reset()
    assert earned > 20


def test_rows_that_stand_still_owe_what_they_owed() -> None:
    one, other = (DelayedRows(MinAtarEnv("space_invaders", 2), 5) for _ in range(2))
    shoot, both = np.full(2, 3), np.ones(2, bool)
    for env in (one, other):
        env.reset([1, 2])
    for _ in range(12):
        one.step(shoot, np.array([True, False]))
    paid = [other.step(shoot, both)[1] for _ in range(12)]
    state, expected = one.state(), other.state()
    assert state["owed"][0] == expected["owed"][0]
    assert state["since"].tolist() == [2, 0]
    np.testing.assert_array_equal(np.array(paid)[[0, 1, 2, 3, 5, 6, 7, 8]], 0)


@pytest.mark.parametrize("period", [None, 6])
def test_a_loaded_state_pays_what_was_owed(period: int | None) -> None:
    env, fresh = (DelayedRows(MinAtarEnv("space_invaders", 4, max_episode_steps=50), period) for _ in range(2))

    def onward(env: DelayedRows, seed: int) -> np.ndarray:
        rng, tape = np.random.default_rng(seed), []
        for _ in range(70):
            _, paid, terminated, truncated = env.step(rng.choice([1, 2, 3, 3], size=4), np.ones(4, bool))
            env.restart(terminated | truncated)
            tape.append(paid)
        return np.array(tape)

    env.reset(range(4))
    onward(env, 0)
    state = env.state()
    assert state["since"].any()
    expected = onward(env, 1)
    fresh.load(state)
    np.testing.assert_array_equal(onward(fresh, 1), expected)
    assert expected.any()


def test_a_rollout_of_delayed_rows_has_the_returns_of_the_task() -> None:
    def act(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
        return (observations[:, 0] > 0).astype(np.int64)

    plain = rollout(make_batch("CartPole-v1", 3), act, [0, 1, 2])
    delayed = rollout(DelayedRows(make_batch("CartPole-v1", 3)), act, [0, 1, 2])
    np.testing.assert_array_equal(delayed.returns, plain.returns)
    assert (np.count_nonzero(delayed.rewards, axis=1) == 1).all()
    np.testing.assert_array_equal(delayed.rewards[np.arange(3), delayed.lengths - 1], plain.returns)


@pytest.mark.filterwarnings("error", "ignore:.*is different from the unwrapped version")
def test_gymnasium_accepts_a_delayed_game() -> None:
    check_env(DelayedReward(MinAtarGym("breakout"), 4), skip_render_check=True)


@pytest.mark.parametrize("period", [0, -1, 2.0, True, "end"])
def test_bad_periods(period) -> None:
    for make in (lambda: DelayedReward(Counter(), period), lambda: DelayedRows(MinAtarEnv("breakout", 1), period)):
        with pytest.raises(InputError, match=f"period.*{period!r}"):
            make()


def test_bad_states() -> None:
    env = DelayedRows(MinAtarEnv("breakout", 2))
    env.reset([0, 1])
    state = env.state()
    for change, words in (
        ({"owed": state["owed"][:1]}, "state: owed"),
        ({"since": state["owed"]}, r"state: since.*float64"),
        ({"more": 1}, r"state.*more"),
        ({"env": {}}, "state"),
    ):
        with pytest.raises(InputError, match=words):
            env.load({**state, **change})
    env.close()
