"""A batched environment as a vector environment: each row's episodes one after another, as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest
from multistep_helpers import Corridor, learner
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from mindworks.envs import make_batch
from mindworks.envs.minatar import MinAtarEnv
from mindworks.errors import InputError
from mindworks.lab import checkpoint
from mindworks.multistep import RowVecEnv


def played(env: RowVecEnv, actions: np.ndarray) -> list:
    """What every step answered; observations as they are after all steps, so that a buffer in use again shows."""
    return [env.step(row) for row in actions]


@pytest.mark.parametrize("grid", [False, True])
def test_rows_play_their_episodes_one_after_another(grid: bool) -> None:
    env, actions = RowVecEnv(Corridor(3, grid=grid), seed=7), np.random.default_rng(0).integers(2, size=(60, 3))
    first = env.reset()
    rows = played(env, actions)
    assert first.dtype == (np.uint8 if grid else np.float32)
    for row in range(3):
        alone = Corridor(1, grid=grid)
        seen = alone.reset([7 + row])[0].astype(first.dtype)
        np.testing.assert_array_equal(first[row], seen)
        total, length, episodes = 0.0, 0, 0
        for step, (observed, reward, done, infos) in enumerate(rows):
            answer = alone.step(actions[step, row : row + 1], np.ones(1, bool))
            last, total, length = answer[0][0].copy(), total + answer[1][0], length + 1
            assert reward[row] == answer[1][0]
            assert done[row] == (answer[2][0] or answer[3][0])
            if done[row]:
                episodes += 1
                np.testing.assert_array_equal(infos[row]["terminal_observation"], last)
                assert infos[row]["TimeLimit.truncated"] == (answer[3][0] and not answer[2][0])
                assert infos[row]["episode"] == {"r": total, "l": length}
                total, length, last = 0.0, 0, alone.restart([0])[0]
            else:
                assert infos[row] == {}
            np.testing.assert_array_equal(observed[row], last)
        assert episodes > 5
    ends = [info["TimeLimit.truncated"] for *_, infos in rows for info in infos if info]
    assert set(ends) == {False, True}


def test_a_row_that_ends_at_its_time_limit_at_the_goal_has_terminated() -> None:
    env = RowVecEnv(Corridor(1, length=3, limit=2, slip=0.0), seed=1)  # seed 1 starts in cell 0
    assert env.reset()[0].argmax() == 0
    *_, done, infos = [env.step(np.array([1])) for _ in range(2)][-1]
    assert done[0]
    assert infos[0]["TimeLimit.truncated"] is False


def test_the_first_reset_takes_the_seeds_and_a_later_one_goes_on() -> None:
    def starts(env: RowVecEnv, resets: int = 8) -> list[list[int]]:
        return [env.reset().argmax(1).tolist() for _ in range(resets)]

    once = starts(RowVecEnv(Corridor(4), seed=3))
    assert once == starts(RowVecEnv(Corridor(4), seed=3))
    assert len({tuple(row) for row in once}) > 1, "a later reset must not start the same episodes again"
    env = RowVecEnv(Corridor(4))
    starts(env)
    env.seed(3)
    assert starts(env) == once
    assert env.seed(None) == [None] * 4


def test_it_goes_on_from_its_state_bit_for_bit(tmp_path) -> None:
    actions = np.random.default_rng(0).integers(2, size=(30, 3))
    env = RowVecEnv(Corridor(3))
    env.reset()
    played(env, actions[:13])
    checkpoint.save(tmp_path, env.state())
    other = RowVecEnv(Corridor(3), seed=99)
    other.reset()
    other.load(checkpoint.load(tmp_path))
    for one, two in zip(played(env, actions[13:]), played(other, actions[13:]), strict=True):
        for left, right in zip(one[:3], two[:3], strict=True):
            np.testing.assert_array_equal(left, right)
        assert [info.get("episode") for info in one[3]] == [info.get("episode") for info in two[3]]


def test_stable_baselines3_evaluates_in_it() -> None:
    one, env = learner(RowVecEnv(Corridor(2))), RowVecEnv(Corridor(2, slip=0.0), seed=5)
    with pytest.warns(UserWarning, match="not wrapped with a"):
        returns, lengths = evaluate_policy(one, env, 6, return_episode_rewards=True)
    assert len(returns) == len(lengths) == 6
    assert evaluate_policy(one, VecMonitor(env), 4)[0] in (0, 0.25, 0.5, 0.75, 1)


def test_attributes_are_those_of_the_batch() -> None:
    env = RowVecEnv(Corridor(3))
    assert env.get_attr("length", [0, 2]) == [5, 5]
    assert env.env_method("state")[0].keys() == {"cells", "elapsed", "dice"}
    env.set_attr("slip", 0.5)
    assert env.env.slip == 0.5
    assert env.env_is_wrapped(VecMonitor) == [False] * 3
    assert not env.has_attr("nothing")
    for call in (lambda: env.set_attr("slip", 0, [1]), lambda: env.env_method("state", indices=[1])):
        with pytest.raises(InputError, match=r"indices must be None.*got \[1\]"):
            call()
    env.close()


def test_games_are_stored_as_bytes_and_floats_as_they_are() -> None:
    assert RowVecEnv(MinAtarEnv("freeway", 2)).reset().dtype == np.uint8
    env = RowVecEnv(MinAtarEnv("freeway", 2, dtype=np.float32))
    assert env.reset().dtype == env.observation_space.dtype == np.float32


def test_an_environment_whose_rows_cannot_start_again_is_refused() -> None:
    with pytest.raises(InputError, match=r"env must have restart\(\), got CartPoleEnv"):
        RowVecEnv(make_batch("CartPole-v1", 2))
