"""Every backend plays the very episodes of `gymnasium.make(name)`: same seeds, same actions, same numbers."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from mindworks.envs import make_batch, rollout
from mindworks.envs.cartpole import CartPoleEnv
from mindworks.envs.loop import LoopEnv
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
    ("MountainCarContinuous-v0", LoopEnv, 1, 1.0),
    ("Acrobot-v1", LoopEnv, 1, 1.0),
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
