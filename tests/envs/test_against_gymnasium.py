"""Every backend plays the very episodes of `gymnasium.make(name)`: same seeds, same actions, same numbers."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from mindworks.envs import make_batch, rollout
from mindworks.envs.acrobot import AcrobotEnv
from mindworks.envs.cartpole import CartPoleEnv
from mindworks.envs.loop import LoopEnv
from mindworks.envs.mountain_car import MountainCarContinuousEnv
from mindworks.envs.mujoco_tasks import MujocoEnv

# name, backend, seeds, scale of the actions in units of their bounds
CASES = [
    ("CartPole-v1", CartPoleEnv, 12, 1.0),
    ("CartPole-v0", CartPoleEnv, 3, 1.0),
    ("InvertedPendulum-v5", MujocoEnv, 4, 0.03),
    ("InvertedDoublePendulum-v5", MujocoEnv, 4, 0.3),
    ("Hopper-v5", MujocoEnv, 4, 1.0),
    ("Walker2d-v5", MujocoEnv, 4, 1.0),
    ("HalfCheetah-v5", MujocoEnv, 1, 1.0),
    ("Swimmer-v5", MujocoEnv, 2, 1.0),
    ("Swimmer-v4", MujocoEnv, 1, 1.0),
    ("Pendulum-v1", LoopEnv, 2, 1.0),
    ("MountainCarContinuous-v0", MountainCarContinuousEnv, 3, 1.0),
    ("MountainCarContinuous-v0", MountainCarContinuousEnv, 2, 3.0),
    ("Acrobot-v1", AcrobotEnv, 6, 1.0),
]


def random_actions(space, steps, rows, scale):
    rng = np.random.default_rng(7)
    if isinstance(space, spaces.Discrete):
        return rng.integers(0, space.n, (steps, rows))
    return (scale * rng.uniform(space.low, space.high, (steps, rows, space.shape[0]))).astype(np.float32)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "backend", "rows", "scale"), CASES)
def test_episodes_equal_gymnasium_bit_for_bit(name, backend, rows, scale):
    env = make_batch(name, rows)
    assert type(env) is backend
    actions = random_actions(env.single_action_space, env.max_episode_steps, rows, scale)
    tape = iter(actions)
    played = rollout(env, lambda observations, alive: next(tape), list(range(5, 5 + rows)))
    env.close()
    reference = gymnasium.make(name)
    assert env.single_observation_space.shape == reference.observation_space.shape
    np.testing.assert_array_equal(
        getattr(env.single_action_space, "high", 0), getattr(reference.action_space, "high", 0)
    )
    for row in range(rows):
        observation, _ = reference.reset(seed=5 + row)
        seen, rewards, terminated, truncated = [observation], [], False, False
        while not (terminated or truncated):
            action = actions[len(rewards), row]
            observation, reward, terminated, truncated, _ = reference.step(action)
            seen.append(observation)
            rewards.append(float(reward))
        length = len(rewards)
        assert played.lengths[row] == length
        np.testing.assert_array_equal(played.observations[row, : length + 1], np.asarray(seen, np.float32))
        np.testing.assert_array_equal(played.rewards[row, :length], rewards)
        np.testing.assert_array_equal(played.final_observations[row], np.float32(seen[-1]))
        assert (played.terminated[row], played.truncated[row]) == (terminated, truncated)
        assert not played.rewards[row, length:].any()
        assert not played.observations[row, length + 1 :].any()
    reference.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Hopper-v5", {"healthy_reward": 0.0, "terminate_when_unhealthy": False, "ctrl_cost_weight": 0.5}),
        ("Walker2d-v5", {"healthy_z_range": (1.2, 1.3), "reset_noise_scale": 0.05}),
        ("Swimmer-v5", {"forward_reward_weight": 3.0}),
    ],
)
def test_options_of_mujoco_tasks_equal_gymnasium(name, options):
    env = make_batch(name, 1, max_episode_steps=60, **options)
    assert isinstance(env, MujocoEnv)
    actions = random_actions(env.single_action_space, 60, 1, 1.0)
    tape = iter(actions)
    played = rollout(env, lambda observations, alive: next(tape), [3])
    reference = gymnasium.make(name, **options)
    reference.reset(seed=3)
    for t in range(played.lengths[0]):
        observation, reward, terminated, _, _ = reference.step(actions[t, 0])
        assert reward == played.rewards[0, t]
    assert terminated == played.terminated[0]
    np.testing.assert_array_equal(played.final_observations[0], np.float32(observation))


def test_an_option_beyond_the_table_takes_the_general_backend():
    env = make_batch("Swimmer-v5", 1, exclude_current_positions_from_observation=False)
    assert isinstance(env, LoopEnv)
    assert env.single_observation_space.shape == (10,)
    assert isinstance(make_batch("CartPole-v1", 1, sutton_barto_reward=True), LoopEnv)
    assert isinstance(make_batch("MountainCarContinuous-v0", 1, goal_velocity=0.01), LoopEnv)


def pumped(gains):
    """Forces that push where the car goes, so that it reaches the goal; gains above 1 are clipped by the task."""
    return lambda seen: (gains * np.where(seen[:, 1] < 0, -1, 1))[:, None].astype(np.float32)


def proportional(gains):
    """Forces between the bounds on many steps, beyond them on others."""
    return lambda seen: (60 * gains * seen[:, 1])[:, None].astype(np.float32)


def swung(gains):
    """Torques that push where the second link goes: the tip comes up at different times."""
    return lambda seen: 2 * (seen[:, 5] > 0).astype(int)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("MountainCarContinuous-v0", pumped), ("MountainCarContinuous-v0", proportional), ("Acrobot-v1", swung)],
)
def test_episodes_that_reach_the_goal_equal_gymnasium_bit_for_bit(name, rule):
    rows = 12
    act = rule(np.linspace(0.4, 2.0, rows))
    env, reference = make_batch(name, rows), gymnasium.make(name)
    played = rollout(env, lambda seen, alive: act(seen), range(1000, 1000 + rows))
    assert played.terminated.all()
    assert len(set(played.lengths)) > 5
    for row in range(rows):
        seen, rewards, over = [reference.reset(seed=1000 + row)[0]], [], False
        while not over:
            action = act(np.repeat(np.float32(seen[-1])[None], rows, 0))[row]
            observation, reward, terminated, truncated, _ = reference.step(action)
            seen.append(observation)
            rewards.append(reward)
            over = terminated or truncated
        np.testing.assert_array_equal(played.observations[row, : len(seen)], np.asarray(seen, np.float32))
        np.testing.assert_array_equal(played.rewards[row, : len(rewards)], rewards)
        assert (played.lengths[row], played.terminated[row]) == (len(rewards), terminated)


def test_continuous_cartpole_at_full_force_is_cartpole():
    rows = 24
    actions = random_actions(spaces.Discrete(2), 200, rows, 1.0)
    left_right, forces = (
        make_batch("CartPole-v1", rows, max_episode_steps=200),
        make_batch("CartPoleContinuous-v0", rows),
    )
    assert forces.max_episode_steps == 200
    assert forces.single_action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    pushes = iter(actions)
    expected = rollout(left_right, lambda seen, alive: next(pushes), range(rows))
    for bound in (1.0, 7.0):  # beyond the bounds the force stays 10 N
        pulls = iter(np.where(actions == 1, bound, -bound)[:, :, None].astype(np.float32))
        played = rollout(forces, lambda seen, alive, pulls=pulls: next(pulls), range(rows))
        for name in ("observations", "rewards", "lengths", "returns", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(played, name), getattr(expected, name))
    assert expected.terminated.all()


def test_half_the_force_is_half_the_force():
    """One step from a known state, by the equations of motion."""
    env = make_batch("CartPoleContinuous-v0", 1)
    x, x_dot, angle, angle_dot = env.reset([3])[0].astype(float)
    seen, reward, terminated, _ = env.step(np.array([[0.5]], np.float32), np.ones(1, bool))
    cos, sin = np.cos(angle), np.sin(angle)
    push = (5.0 + 0.05 * angle_dot**2 * sin) / 1.1
    turn = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    moved = [x + 0.02 * x_dot, x_dot + 0.02 * (push - 0.05 * turn * cos / 1.1), angle + 0.02 * angle_dot]
    np.testing.assert_allclose(seen[0], [*moved, angle_dot + 0.02 * turn], rtol=1e-6)
    assert reward[0] == 1.0
    assert not terminated[0]


def test_no_cartpole_episode_is_lost_or_counted_twice():
    """64 policies, one episode each: as many endings as rows, at the steps a single environment ends."""
    env, reference = make_batch("CartPole-v1", 64), gymnasium.make("CartPole-v1")
    gains = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    endings = np.zeros(64, int)
    observations, alive = env.reset(range(64)), np.ones(64, bool)
    for _ in range(500):
        observations, rewards, terminated, truncated = env.step(((observations * gains).sum(1) > 0).astype(int), alive)
        endings += terminated | truncated
        assert not rewards[~alive].any()
        alive &= ~(terminated | truncated)
    np.testing.assert_array_equal(endings, 1)
    played = rollout(env, lambda seen, alive: ((seen * gains).sum(1) > 0).astype(int), range(64))
    lengths = []
    for row in range(64):
        seen, _ = reference.reset(seed=row)
        steps, over = 0, False
        while not over:
            seen, _, terminated, truncated, _ = reference.step(int((seen * gains[row]).sum() > 0))
            steps, over = steps + 1, terminated or truncated
        lengths.append(steps)
    np.testing.assert_array_equal(played.lengths, lengths)
    np.testing.assert_array_equal(played.returns, lengths)
    assert played.steps == sum(lengths)
    assert len(set(lengths)) > 10
