"""Windows of stored steps: a plain loop over everything that was ever stored says what they must hold."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from gymnasium import spaces
from multistep_helpers import VECTOR, stored_steps

from mindworks.errors import InputError
from mindworks.lab import checkpoint
from mindworks.multistep import SequenceReplayBuffer

PAIR = spaces.Box(-np.inf, np.inf, (2,), np.float32)
ACTIONS = spaces.Discrete(5)


def filled(steps: int, envs: int = 3, size: int = 11, dtype: type = np.int64, **given):
    """A buffer after `steps` steps of every environment, and all of them: observations are [episode, time]."""
    buffer = SequenceReplayBuffer(size * envs, PAIR, spaces.Discrete(5, dtype=dtype), "cpu", envs, **given)
    buffer.rng = np.random.default_rng(1)
    rng = np.random.default_rng(0)
    episode, time, history = np.zeros(envs, int), np.zeros(envs, int), []
    for _ in range(steps):
        done = rng.random(envs) < 0.25
        late = done & (rng.random(envs) < 0.5)
        step = {
            "obs": np.stack([episode, time], 1).astype(np.float32),
            "next_obs": np.stack([episode, time + 1], 1).astype(np.float32),
            "action": rng.integers(5, size=envs),
            "reward": rng.standard_normal(envs),
            "done": done,
            "infos": [{"TimeLimit.truncated": bool(each)} for each in late],
        }
        buffer.acting = rng.uniform(0.1, 1, envs).astype(np.float32)
        buffer.add(**step)
        history.append({**step, "late": late, "acting": buffer.acting.copy()})
        episode, time = episode + done, np.where(done, 0, time + 1)
    return buffer, history


@pytest.mark.parametrize("steps", [1, 7, 11, 12, 29, 33])
@pytest.mark.parametrize("length", [1, 4, 20])
def test_windows_hold_the_steps_of_one_trajectory_and_no_others(steps: int, length: int) -> None:
    buffer, history = filled(steps)
    kept = history[-11:]
    assert buffer.size() == len(kept)
    ends = []
    for age, first in enumerate(kept):
        slot = (steps - len(kept) + age) % 11
        for env in range(3):
            got = buffer.window(np.array([slot]), np.array([env]), length, np.ones(1))
            for ahead in range(length):
                step = kept[age + ahead]
                place = got.slot[0, ahead], env
                assert got.valid[0, ahead]
                assert got.reward[0, ahead] == np.float32(step["reward"][env])
                np.testing.assert_array_equal(buffer.observations[place], first["obs"][env] + [0, ahead])
                np.testing.assert_array_equal(buffer.next_observations[place], first["obs"][env] + [0, ahead + 1])
                assert got.terminated[0, ahead] == (step["done"][env] and not step["late"][env])
                newest, last = age + ahead == len(kept) - 1, ahead == length - 1
                assert got.cut[0, ahead] == (step["done"][env] or newest or last)
                if got.cut[0, ahead]:
                    ends.append("end" if step["done"][env] else "newest" if newest else "window")
                    assert not got.valid[0, ahead + 1 :].any()
                    break
                following = kept[age + ahead + 1]
                assert got.next_action[0, ahead] == following["action"][env]
                assert got.next_behavior[0, ahead] == following["acting"][env]
    assert "newest" in ends
    assert length < 20 or steps < 7 or "end" in ends


def test_a_batch_of_windows_is_its_windows_one_by_one() -> None:
    buffer, _ = filled(29)
    whole = buffer.sequences(40, 5)
    assert whole.env.shape == (40, 1)
    for b in range(40):
        one = buffer.window(whole.slot[b, :1], whole.env[b], 5, whole.weight[b : b + 1])
        for name in ("slot", "reward", "terminated", "cut", "valid", "next_action", "next_behavior", "weight"):
            np.testing.assert_array_equal(getattr(whole, name)[b], getattr(one, name)[0], err_msg=name)
        most = stored_steps(buffer, whole.slot[b, 0], whole.env[b, 0], 5)
        assert whole.slot[b, whole.valid[b]].tolist() == most


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("steps", [4, 30])
def test_every_stored_step_can_be_the_first_and_no_other(prioritized: bool, steps: int) -> None:
    buffer, _ = filled(steps, prioritized=prioritized)
    drawn = buffer.sequences(3000, 3)
    count = np.zeros((11, 3))
    np.add.at(count, (drawn.slot[:, 0], drawn.env[:, 0]), 1)
    stored = min(steps, 11)
    assert (count[stored:] == 0).all()
    expected = 3000 / (3 * stored)
    assert (abs(count[:stored] - expected) < 5 * np.sqrt(expected)).all()
    assert (drawn.weight == 1).all()


def test_draws_are_in_proportion_to_errors_and_weights_make_up_for_it() -> None:
    buffer, _ = filled(30, envs=2, size=4, prioritized=True, alpha=0.7, beta=0.3)
    error = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 0.1, 7.0, 0.2])
    places = buffer.window(np.arange(8) // 2, np.arange(8) % 2, 1, np.ones(8))
    buffer.set_errors(places, error)
    share = (error + 0.01) ** 0.7 / ((error + 0.01) ** 0.7).sum()
    drawn = buffer.sequences(20_000, 2)
    index = drawn.slot[:, 0] * 2 + drawn.env[:, 0]
    count = np.bincount(index, minlength=8)
    assert (abs(count - 20_000 * share) < 5 * np.sqrt(20_000 * share) + 1).all()
    weight = (8 * share) ** -0.3
    np.testing.assert_allclose(drawn.weight, (weight / weight[np.unique(index)].max())[index], rtol=1e-6)
    assert drawn.weight.dtype == np.float32


def test_a_new_step_is_as_likely_as_the_largest_error_so_far() -> None:
    buffer, history = filled(6, envs=1, size=8, prioritized=True, alpha=1.0)
    np.testing.assert_allclose(buffer.tree.weights[:6], 1.01)
    assert (buffer.tree.weights[6:] == 0).all()
    buffer.set_errors(buffer.window(np.array([2]), np.array([0]), 1, np.ones(1)), np.array([4.0]))
    buffer.set_errors(buffer.window(np.array([2, 3]), np.array([0, 0]), 1, np.ones(2)), np.array([0.5, 0.25]))
    step = {name: history[0][name] for name in ("obs", "next_obs", "action", "reward", "done", "infos")}
    for _ in range(4):  # the last two of them over the oldest
        buffer.add(**step)
    np.testing.assert_allclose(buffer.tree.weights, [4.01, 4.01, 0.51, 0.26, 1.01, 1.01, 4.01, 4.01])


def test_errors_of_a_uniform_buffer_change_nothing() -> None:
    buffer, _ = filled(20)
    before = buffer.sequences(5, 2)
    buffer.set_errors(before, np.full(5, 9.0))
    assert buffer.tree is None
    assert buffer.highest == 1.0


def test_an_interruption_is_a_truncation_of_the_newest_steps() -> None:
    buffer, history = filled(14)
    while history[-1]["done"].all() or not (history[-1]["done"] & ~history[-1]["late"]).any():
        buffer, history = filled(len(history) + 1)
    newest, done, late = buffer.pos - 1, history[-1]["done"], history[-1]["late"]
    buffer.interrupt()
    np.testing.assert_array_equal(buffer.dones[newest], 1)
    np.testing.assert_array_equal(buffer.timeouts[newest], ~done | late)  # what terminated stays terminated
    step = {name: history[0][name] for name in ("obs", "next_obs", "action", "reward", "done", "infos")}
    buffer.add(**step)
    got = buffer.window(np.full(3, newest), np.arange(3), 4, np.ones(3))
    assert got.cut[:, 0].all()
    assert got.valid.sum(1).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(got.terminated[:, 0], done & ~late)
    SequenceReplayBuffer(5, PAIR, ACTIONS).interrupt()  # nothing is stored, nothing happens


def test_actions_of_a_narrow_type_come_out_as_int64() -> None:
    buffer, _ = filled(5, dtype=np.int32)
    assert buffer.actions.dtype == np.int32
    assert buffer.sequences(3, 2).next_action.dtype == np.int64


def test_the_sample_of_the_parent_works() -> None:
    buffer, history = filled(30)
    sample = buffer.sample(200)
    stored = {tuple(obs) for step in history[-11:] for obs in step["obs"]}
    assert {tuple(obs) for obs in sample.observations.numpy()} <= stored
    assert sample.dones.sum() > 0


def drawn_again(buffer: SequenceReplayBuffer) -> list[np.ndarray]:
    found = []
    for _ in range(3):
        got = buffer.sequences(6, 4)
        buffer.set_errors(got, np.linspace(0, 3, 6))
        found += [got.slot, got.env, got.reward, got.next_behavior, got.weight, buffer.observations[got.slot, got.env]]
    return found


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("steps", [5, 26])
def test_a_restored_buffer_draws_the_same_and_goes_on_alike(prioritized: bool, steps: int, tmp_path) -> None:
    buffer, history = filled(steps, prioritized=prioritized)
    drawn_again(buffer)
    checkpoint.save(tmp_path, buffer.state())
    other = SequenceReplayBuffer(33, PAIR, ACTIONS, "cpu", 3, prioritized=prioritized)
    other.load(checkpoint.load(tmp_path))
    assert buffer.highest == other.highest == (3 if prioritized else 1)
    for expected, got in zip(drawn_again(buffer), drawn_again(other), strict=True):
        np.testing.assert_array_equal(expected, got)
    for each in (buffer, other):
        each.acting = np.full(3, 0.5, np.float32)
        each.add(**{name: history[2][name] for name in ("obs", "next_obs", "action", "reward", "done", "infos")})
    assert buffer.pos == other.pos
    for expected, got in zip(drawn_again(buffer), drawn_again(other), strict=True):
        np.testing.assert_array_equal(expected, got)


def test_a_state_does_not_change_with_the_buffer() -> None:
    buffer, history = filled(8, prioritized=True)
    state = buffer.state()
    before = deepcopy(state)
    buffer.add(**{name: history[0][name] for name in ("obs", "next_obs", "action", "reward", "done", "infos")})
    buffer.set_errors(buffer.sequences(9, 1), np.ones(9))
    assert state["rng"] == before["rng"]
    np.testing.assert_array_equal(state["tree"], before["tree"])
    np.testing.assert_array_equal(state["arrays"]["rewards"], before["arrays"]["rewards"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"beta": -0.1}, r"beta must be in \[0, 1\], got -0.1"),
        ({"optimize_memory_usage": True}, "optimize_memory_usage must be False"),
        ({"handle_timeout_termination": False}, "handle_timeout_termination must be True"),
        ({"action_space": spaces.Box(-1, 1, (1,))}, "action_space must be Discrete, got Box"),
    ],
)
def test_bad_input_is_one_line(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SequenceReplayBuffer(10, VECTOR, **{"action_space": ACTIONS, **given})
    assert "\n" not in str(caught.value)


def test_nothing_is_drawn_from_an_empty_buffer() -> None:
    with pytest.raises(InputError, match="the buffer is empty"):
        SequenceReplayBuffer(10, VECTOR, ACTIONS).sequences(2, 2)
