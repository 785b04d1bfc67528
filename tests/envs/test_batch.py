"""`make_batch` refuses what it cannot play, in one line that names the argument."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from env_helpers import Counter, idle
from gymnasium import spaces

from mindworks import errors
from mindworks.envs import make_batch, rollout
from mindworks.envs.cartpole import CartPoleEnv
from mindworks.envs.loop import LoopEnv
from mindworks.errors import InputError, MissingExtra

EVERY_BACKEND = (
    "CartPole-v1",
    "CartPoleContinuous-v0",
    "Acrobot-v1",
    "MountainCarContinuous-v0",
    "Swimmer-v5",
    "Pendulum-v1",
    "LQR-v0",
)


def spaced(observation=None, action=None):
    """A factory of counters with other spaces."""

    def make():
        env = Counter()
        env.observation_space = observation or env.observation_space
        env.action_space = action or env.action_space
        return env

    return make


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("CartPol-v1", {}, ["name", "CartPol-v1", "CartPole-v1"]),
        ("CartPole-v9", {}, ["name", "CartPole-v9", "CartPole-v"]),
        ("zzzzqqqq", {}, ["name", "zzzzqqqq"]),
        ("no_such_module_here:Env-v0", {}, ["name", "no_such_module_here"]),
        ("CartPole-v1", {"gravitas": 3}, ["kwargs", "gravitas"]),
        ("LQR-v0", {"gravitas": 3}, ["kwargs", "gravitas"]),
        ("CartPoleContinuous-v0", {"gravitas": 3}, ["kwargs", "gravitas"]),
        ("CartPoleContinuous-v1", {}, ["name", "CartPoleContinuous-v0"]),
        ("Acrobot-v1", {"gravitas": 3}, ["kwargs", "gravitas"]),
        ("MountainCarContinuous-v0", {"gravitas": 3}, ["kwargs", "gravitas"]),
        ("CartPole-v1", {"max_episode_steps": 0}, ["max_episode_steps", "0"]),
        ("FrozenLake-v1", {}, ["name", "FrozenLake", "Discrete(16)", "Box"]),
        ("Blackjack-v1", {}, ["name", "Blackjack", "Tuple", "Box"]),
        (Counter, {}, ["max_episode_steps", "Counter"]),
        (7, {}, ["name", "7"]),
        (Counter, {"life": 2}, ["kwargs", "life"]),
    ],
)
def test_bad_names_and_options(name, kwargs, words):
    with pytest.raises(InputError) as caught:
        make_batch(name, 2, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("num_envs", [0, -3, 2.0, "4", None, True])
def test_bad_counts(num_envs):
    with pytest.raises(InputError, match="num_envs"):
        make_batch("CartPole-v1", num_envs)


@pytest.mark.parametrize(
    ("observation", "action", "word"),
    [
        (spaces.Dict({"a": spaces.Box(0, 1, (2,))}), None, "Dict"),
        (spaces.Discrete(4), None, "one-hot"),
        (None, spaces.MultiDiscrete([2, 3]), "MultiDiscrete"),
        (None, spaces.Discrete(3, start=1), "start=1"),
        (None, spaces.Box(-1, 1, (2, 2)), "Box"),
    ],
)
def test_spaces_it_cannot_play(observation, action, word):
    with pytest.raises(InputError, match="name: ") as caught:
        make_batch(spaced(observation, action), 2, max_episode_steps=5)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_simulator_is_one_line(monkeypatch):
    def gone(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(errors, "import_module", gone)
    with pytest.raises(MissingExtra) as caught:
        make_batch("Swimmer-v5", 2)
    assert str(caught.value) == "mujoco is not installed: pip install 'mindworks[mujoco]'"


def test_torch_is_not_loaded():
    program = "import sys, mindworks.envs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_registered_environments_take_the_right_backend():
    gymnasium.register(
        "MindworksShortPole-v0", "gymnasium.envs.classic_control.cartpole:CartPoleEnv", max_episode_steps=7
    )
    gymnasium.register("MindworksCounter-v0", Counter, kwargs={"life": 4})
    try:
        env = make_batch("MindworksShortPole-v0", 3)
        assert isinstance(env, CartPoleEnv)
        assert env.max_episode_steps == 7
        with pytest.raises(InputError, match="max_episode_steps"):
            make_batch("MindworksCounter-v0", 2)
        env = make_batch("MindworksCounter-v0", 2, max_episode_steps=3, life=2)
        assert isinstance(env, LoopEnv)
        np.testing.assert_array_equal(rollout(env, idle(env), [0, 1]).lengths, 2)
    finally:
        del gymnasium.registry["MindworksShortPole-v0"], gymnasium.registry["MindworksCounter-v0"]


def test_the_time_limit_can_be_set():
    for name in EVERY_BACKEND:
        env = make_batch(name, 2, max_episode_steps=4)
        played = rollout(env, idle(env), [0, 1])
        np.testing.assert_array_equal(played.lengths, 4)
        np.testing.assert_array_equal(played.truncated, True)
        env.close()
    env = make_batch("Pendulum-v1", 1, max_episode_steps=300)
    assert rollout(env, idle(env), [0]).lengths[0] == 300


def test_observation_spaces_are_float32_boxes():
    for name in EVERY_BACKEND:
        env = make_batch(name, 2)
        assert env.single_observation_space.dtype == np.float32
        seen = env.reset([0, 1])
        assert seen.dtype == np.float32
        assert seen.shape == (2, *env.single_observation_space.shape)
