"""Rollouts: rows stand alone, endings are told apart, and nothing is stepped that has ended."""

from __future__ import annotations

import numpy as np
import pytest
from env_helpers import Counter, idle, linear_actor

from mindworks.envs import RunningNorm, make_batch, rollout
from mindworks.errors import InputError


def counters(lives, limit=10, **kwargs):
    """A batch of counters, row i living `lives[i]` steps."""
    queue = iter(lives)
    return make_batch(lambda: Counter(next(queue), **kwargs), len(lives), max_episode_steps=limit)


NUMPY = ["CartPole-v1", "CartPoleContinuous-v0", "Acrobot-v1", "MountainCarContinuous-v0", "LQR-v0"]


@pytest.mark.parametrize("name", [*NUMPY, "InvertedPendulum-v5", "Hopper-v5", "Pendulum-v1"])
def test_a_row_depends_on_its_seed_and_policy_only(name):
    seeds = [11, 5, 7, 0, 3, 5, 2]
    wide = make_batch(name, 7, max_episode_steps=60)
    act = linear_actor(wide, seed=1, scale=0.3)
    together = rollout(wide, act, seeds)
    again = rollout(wide, act, seeds)
    narrow = make_batch(name, 1, max_episode_steps=60)
    for row, seed in enumerate(seeds):

        def alone(observations, alive, row=row):
            return act(np.repeat(observations, 7, axis=0), np.ones(7, bool))[row : row + 1]

        single = rollout(narrow, alone, [seed])
        steps = single.lengths[0]
        assert steps == together.lengths[row] == again.lengths[row]
        for batch in (together, again):
            np.testing.assert_array_equal(single.observations[0], batch.observations[row, : steps + 1])
            np.testing.assert_array_equal(single.rewards[0], batch.rewards[row, :steps])
        assert single.returns[0] == together.returns[row]


@pytest.mark.parametrize("name", [*NUMPY, "Hopper-v5"])
def test_rows_may_take_turns(name):
    """Stepping rows in any interleaving gives each the episode it has alone."""
    rng = np.random.default_rng(0)
    env = make_batch(name, 3)
    act = linear_actor(env, seed=0, scale=0.1)
    straight = rollout(env, act, [4, 5, 6], max_steps=8)
    seen = env.reset([4, 5, 6])
    times = np.zeros(3, int)
    while (times < straight.lengths).any():
        alive = (rng.random(3) < 0.5) & (times < straight.lengths)
        seen, rewards, terminated, _ = env.step(act(seen, alive), alive)
        for row in np.flatnonzero(alive):
            assert rewards[row] == straight.rewards[row, times[row]]
            times[row] += 1
            assert terminated[row] == (straight.terminated[row] and times[row] == straight.lengths[row])
        np.testing.assert_array_equal(seen, straight.observations[range(3), times])


def test_ended_rows_are_not_stepped():
    env = counters([1, 4, 2])
    played = rollout(env, idle(env), [0, 1, 2])
    assert [inner.calls for inner in env.envs] == [1, 4, 2]
    assert [inner.resets for inner in env.envs] == [1, 1, 1]
    np.testing.assert_array_equal(played.lengths, [1, 4, 2])
    np.testing.assert_array_equal(played.returns, [1.0, 4.0, 2.0])
    assert played.rewards.dtype == np.float64
    np.testing.assert_array_equal(played.mask.sum(1), played.lengths)
    env.step(np.zeros((3, 1), np.float32), np.ones(3, bool))
    assert [inner.calls for inner in env.envs] == [1, 4, 2]


def test_rows_not_alive_answer_their_last_observation_and_zero():
    env = counters([5, 5])
    env.reset([8, 9])
    seen, rewards, terminated, truncated = env.step(np.zeros((2, 1), np.float32), np.array([True, False]))
    np.testing.assert_array_equal(seen, [[1, 8], [0, 9]])
    np.testing.assert_array_equal(rewards, [1.0, 0.0])
    assert not terminated.any()
    assert not truncated.any()


def test_termination_and_truncation_are_told_apart_and_may_coincide():
    env = counters([2, 3, 9], limit=3)
    played = rollout(env, idle(env), [0, 1, 2])
    np.testing.assert_array_equal(played.terminated, [True, True, False])
    np.testing.assert_array_equal(played.truncated, [False, True, True])


def test_max_steps_cuts_as_truncation():
    env = counters([1, 2, 9])
    played = rollout(env, idle(env), [0, 1, 2], max_steps=2)
    np.testing.assert_array_equal(played.lengths, [1, 2, 2])
    np.testing.assert_array_equal(played.terminated, [True, True, False])
    np.testing.assert_array_equal(played.truncated, [False, False, True])
    assert played.rewards.shape == (3, 2)


def test_final_observation_is_the_entry_at_length():
    env = counters([1, 4, 2])
    played = rollout(env, idle(env), [5, 6, 7])
    np.testing.assert_array_equal(played.final_observations, [[1, 5], [4, 6], [2, 7]])
    np.testing.assert_array_equal(played.observations[range(3), played.lengths], played.final_observations)
    np.testing.assert_array_equal(played.observations[0, 2:], 0)
    np.testing.assert_array_equal(played.next_observations[1, :, 0], [1, 2, 3, 4])


@pytest.mark.parametrize("oddity", ["reward", "observation"])
def test_a_diverged_row_ends_finite_and_flagged(oddity):
    env = counters([2, 4], oddity=oddity)
    played = rollout(env, idle(env), [0, 1])
    np.testing.assert_array_equal(played.diverged, [True, True])
    np.testing.assert_array_equal(played.lengths, [2, 4])
    np.testing.assert_array_equal(played.returns, [1, 3] if oddity == "reward" else [2, 4])
    np.testing.assert_array_equal(played.terminated, False)
    np.testing.assert_array_equal(played.truncated, True)
    assert np.isfinite(played.observations).all()
    flat = played.transitions()
    np.testing.assert_array_equal(flat["row"], [0, 1, 1, 1])
    np.testing.assert_array_equal(flat["truncated"], False)


def test_a_row_that_terminates_with_nan_stays_terminated_while_others_go_on():
    env = counters([2, 4], oddity="ending")
    played = rollout(env, idle(env), [0, 1])
    np.testing.assert_array_equal(played.lengths, [2, 4])
    np.testing.assert_array_equal(played.terminated, [True, True])
    np.testing.assert_array_equal(played.truncated, [False, False])
    np.testing.assert_array_equal(played.diverged, [True, True])


def test_an_action_that_is_not_finite_ends_its_row_alone():
    env = counters([5, 5])

    def act(observations, alive):
        return np.where((observations[:, :1] == 2) & (observations[:, 1:] == 1), np.nan, 0.5).astype(np.float32)

    played = rollout(env, act, [0, 1])
    np.testing.assert_array_equal(played.diverged, [False, True])
    np.testing.assert_array_equal(played.lengths, [5, 3])
    assert env.envs[1].actions == [0.5, 0.5]
    assert np.isfinite(played.actions).all()


@pytest.mark.parametrize("when", [1, 2, 8])
def test_a_simulation_that_blows_up_is_flagged(when):
    env = make_batch("Hopper-v5", 2, terminate_when_unhealthy=False)

    def act(observations, alive):
        act.calls += 1
        if act.calls == when:
            env._data[1].qvel[:] = 1e9  # flies apart within the step
        return np.zeros((2, 3), np.float32)

    act.calls = 0
    played = rollout(env, act, [0, 1], max_steps=40)
    np.testing.assert_array_equal(played.diverged, [False, True])
    assert np.isfinite(played.returns).all()
    assert np.isfinite(played.observations).all()
    np.testing.assert_array_equal(played.lengths, [40, when])
    assert not rollout(env, idle(env), [0, 1], max_steps=5).diverged.any()


def test_without_record_the_summaries_are_the_same():
    env = make_batch("CartPole-v1", 5)
    act = linear_actor(env, seed=2)
    full, brief = rollout(env, act, range(5)), rollout(env, act, range(5), record=False)
    for name in ("lengths", "returns", "terminated", "truncated", "final_observations"):
        np.testing.assert_array_equal(getattr(full, name), getattr(brief, name))
    assert brief.rewards.shape == (5, 0)
    with pytest.raises(InputError, match="record"):
        brief.transitions()
    np.testing.assert_allclose(full.rewards.sum(1), full.returns)


def test_transitions_keep_time_limits_apart_from_endings():
    env = counters([1, 3, 9], limit=3)
    actions = iter(np.arange(9, dtype=np.float32).reshape(3, 3, 1))
    played = rollout(env, lambda seen, alive: next(actions), [5, 6, 7])
    flat = played.transitions(lambda seen, alive: -seen[:, :1])
    np.testing.assert_array_equal(flat["row"], [0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(flat["time"], [0, 0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(flat["observation"][:, 0], [0, 0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(flat["next_observation"][:, 0], [1, 1, 2, 3, 1, 2, 3])
    np.testing.assert_array_equal(flat["action"][:, 0], [0, 1, 4, 7, 2, 5, 8])
    np.testing.assert_array_equal(flat["next_action"][:, 0], [-1, 4, 7, -3, 5, 8, -3])
    np.testing.assert_array_equal(flat["terminated"], [True, False, False, True, False, False, False])
    np.testing.assert_array_equal(flat["truncated"], [False, False, False, True, False, False, True])
    assert "next_action" not in played.transitions()


def test_images_are_observed_whole():
    env = counters([2, 3], shape=(4, 3, 2))
    played = rollout(env, idle(env), [1, 2])
    assert played.observations.shape == (2, 4, 4, 3, 2)
    assert played.observations.dtype == np.float32
    np.testing.assert_array_equal(played.final_observations[:, 0, 0], [[2, 1], [3, 2]])


def test_callback_feeds_a_normaliser_with_living_rows():
    env = counters([1, 3])
    norm, times = RunningNorm((2,)), []

    def callback(t, observations, alive):
        times.append(t)
        norm.update(observations, alive)

    rollout(env, idle(env), [0, 0], record=False, callback=callback)
    assert times == [0, 1, 2]
    assert norm.count == 4
    np.testing.assert_allclose(norm.mean, [np.mean([0, 0, 1, 2]), 0])


def test_rows_that_do_not_play_have_no_length():
    env = counters([2, 3])
    played = rollout(env, idle(env), [0, 1], active=np.array([False, True]))
    np.testing.assert_array_equal(played.lengths, [0, 3])
    np.testing.assert_array_equal(played.terminated, [False, True])
    np.testing.assert_array_equal(played.transitions()["row"], [1, 1, 1])
    nobody = rollout(env, idle(env), [0, 1], active=np.zeros(2, bool))
    assert nobody.steps == 0
    assert env.envs[0].calls == 0


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda seen, alive: np.zeros(3), "act: expected floats [3, 1]"),
        (lambda seen, alive: np.zeros((3, 1), int), "act: expected floats [3, 1]"),
        (lambda seen, alive: np.zeros((2, 1)), "act: expected floats [3, 1]"),
    ],
)
def test_bad_actions_are_named(act, words):
    with pytest.raises(InputError) as caught:
        rollout(counters([2, 2, 2]), act, [0, 1, 2])
    assert words in str(caught.value)


def test_bad_discrete_actions_are_named():
    env = make_batch("CartPole-v1", 2)
    for bad in (np.zeros(2), np.zeros((2, 1), int), np.array([0, 2]), np.array([-1, 0])):
        with pytest.raises(InputError, match="act"):
            rollout(env, lambda seen, alive, bad=bad: bad, [0, 1])


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2], [0.5, 1.0], [0, -1], 3])
def test_bad_seeds_are_named(seeds):
    env = make_batch("CartPole-v1", 2)
    with pytest.raises(InputError, match="seeds"):
        env.reset(seeds)


def test_bad_calls_are_named():
    env = make_batch("CartPole-v1", 2)
    with pytest.raises(InputError, match="max_steps"):
        rollout(env, idle(env), [0, 1], max_steps=0)
    with pytest.raises(InputError, match="active"):
        rollout(env, idle(env), [0, 1], active=np.ones(3, bool))
    with pytest.raises(InputError, match="reset"):
        make_batch("CartPole-v1", 2).step(np.zeros(2, int), np.ones(2, bool))
