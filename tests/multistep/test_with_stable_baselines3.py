"""Saving, callbacks, wrappers and spaces of stable-baselines3 work with the learner as they do with its own DQN."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from multistep_helpers import VECTOR, Corridor, Endless, learner, parameters, same
from stable_baselines3.common.callbacks import CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage

from mindworks.errors import MissingExtra
from mindworks.multistep import HighwayDQN, RowVecEnv, SumTree, Target


@pytest.mark.parametrize("prioritized", [False, True])
def test_saved_and_loaded_it_decides_the_same_and_learns_on(prioritized: bool, tmp_path: Path) -> None:
    given = {"replay_buffer_kwargs": {"alpha": 0.7, "beta": 0.2}, "learning_rate": 3e-3}
    one = learner(kind="retrace", lookahead=3, prioritized=prioritized, **given).learn(90)
    one.save(tmp_path / "one")
    two = HighwayDQN.load(tmp_path / "one", env=RowVecEnv(Corridor(3)))
    cells = np.eye(5, dtype=np.float32)
    assert same(parameters(one), parameters(two))
    np.testing.assert_array_equal(one.predict(cells, deterministic=True)[0], two.predict(cells, deterministic=True)[0])
    assert two.target == Target("retrace", lookahead=3)
    assert (two.replay_buffer.alpha, two.replay_buffer.beta, two.num_timesteps) == (0.7, 0.2, 90)
    assert isinstance(two.replay_buffer.tree, SumTree) == prioritized == two.prioritized
    assert two.policy.optimizer.param_groups[0]["fused"] is True
    torch.testing.assert_close(two.policy.optimizer.state_dict(), one.policy.optimizer.state_dict(), rtol=0, atol=0)
    two.learn(60, reset_num_timesteps=False)
    assert two.num_timesteps == 150
    assert not same(parameters(one), parameters(two))
    alone = HighwayDQN.load(tmp_path / "one", device="cpu")
    np.testing.assert_array_equal(
        alone.predict(cells, deterministic=True)[0], one.predict(cells, deterministic=True)[0]
    )


def test_a_model_may_be_loaded_for_another_number_of_environments(tmp_path: Path) -> None:
    learner().learn(60).save(tmp_path / "one")
    two = HighwayDQN.load(tmp_path / "one", env=RowVecEnv(Corridor(5)))
    two.learn(60, reset_num_timesteps=False)
    assert two.replay_buffer.n_envs == 5
    assert len(two.cache.fresh) == two.replay_buffer.buffer_size * 5 == 200


def test_a_loaded_replay_buffer_is_cut_at_its_end_and_values_of_the_old_one_are_forgotten(tmp_path: Path) -> None:
    one = learner().learn(120)
    one.save_replay_buffer(tmp_path / "buffer")
    one.replay_buffer.next_observations[:] = one.replay_buffer.next_observations[::-1].copy()
    one.cache.forget()
    drawn = one.replay_buffer.sequences(50, 4)
    other = one.targets(drawn)
    one.load_replay_buffer(tmp_path / "buffer")
    assert (one.replay_buffer.dones[one.replay_buffer.pos - 1] == 1).all()
    drawn = one.replay_buffer.window(drawn.slot[:, 0], drawn.env[:, 0], 4, drawn.weight)
    got = one.targets(drawn)
    one.cache.forget()
    torch.testing.assert_close(got, one.targets(drawn))
    assert not torch.allclose(got, other)
    one.learn(30, reset_num_timesteps=False)


def test_parameters_may_be_copied_from_another_learner() -> None:
    one, two = learner().learn(60), learner(seed=1).learn(60)
    assert two.cache.fresh.any()
    two.set_parameters(one.get_parameters())
    assert same(parameters(one), parameters(two))
    assert not two.cache.fresh.any()


def test_evaluation_and_checkpoints_are_callbacks(tmp_path: Path) -> None:
    evaluating = EvalCallback(
        make_vec_env("CartPole-v1", 2, seed=1), eval_freq=25, n_eval_episodes=2, log_path=str(tmp_path),
        best_model_save_path=str(tmp_path), verbose=0,
    )  # fmt: skip
    storing = CheckpointCallback(40, str(tmp_path), "step")
    one = learner(make_vec_env("CartPole-v1", 2, seed=0)).learn(100, callback=CallbackList([evaluating, storing]))
    assert one.num_timesteps == 100
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (2, 2)
    assert isinstance(HighwayDQN.load(tmp_path / "best_model.zip"), HighwayDQN)
    assert isinstance(HighwayDQN.load(tmp_path / "step_80_steps.zip").target, Target)


def test_returns_are_those_of_the_monitor_and_of_evaluate_policy() -> None:
    one = learner(Monitor(Endless(VECTOR))).learn(60)
    assert [(episode["r"], episode["l"]) for episode in one.ep_info_buffer] == [(15, 5)] * 12
    assert evaluate_policy(one, Monitor(Endless(VECTOR)), 3) == (15, 0)
    assert one.logger.name_to_value["train/target"] > 0


@pytest.mark.parametrize("prioritized", [False, True])
def test_observations_and_rewards_are_normalised(prioritized: bool) -> None:
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=0), gamma=0.9)
    one = learner(env, "n_step", 2, prioritized=prioritized, gamma=0.9).learn(120)
    buffer = one.replay_buffer
    assert buffer.rewards[: buffer.pos].max() == 1  # stored as they came
    drawn = buffer.window(np.arange(20), np.zeros(20, int), 2, np.ones(20))
    unit = 1 / np.sqrt(env.ret_rms.var + env.epsilon)
    with torch.no_grad():
        best = one.q_net_target(torch.as_tensor(env.normalize_obs(buffer.next_observations[:21, 0]))).amax(1).numpy()
    done = drawn.terminated[:, 0]
    later = unit + 0.9 * np.where(buffer.dones[1:21, 0] > 0, 0, best[1:21])
    expected = unit + 0.9 * np.where(done, 0, later)
    np.testing.assert_allclose(one.targets(drawn), expected, rtol=1e-5)
    seen = one.replay_buffer.observed(drawn, env).numpy()
    np.testing.assert_allclose(seen, env.normalize_obs(buffer.observations[:20, 0]), rtol=1e-6)


IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
SPACES = [
    (spaces.Discrete(4), "MlpPolicy"),
    (spaces.MultiDiscrete([3, 2]), "MlpPolicy"),
    (spaces.MultiBinary(4), "MlpPolicy"),
    (spaces.Box(-1, 1, (2, 3), np.float64), "MlpPolicy"),
    (IMAGE, "CnnPolicy"),
]


@pytest.mark.parametrize(("space", "policy"), SPACES, ids=lambda given: str(given)[:20])
def test_it_takes_every_space_but_dictionaries(space: spaces.Space, policy: str) -> None:
    env = DummyVecEnv([lambda: Endless(space)] * 2)
    one = learner(env, "highway", 4, policy, learning_starts=20, batch_size=4, train_freq=6)
    before = parameters(one)
    one.learn(40)
    assert not same(before, parameters(one))
    assert isinstance(one.env, VecTransposeImage) == (policy == "CnnPolicy")
    drawn = one.replay_buffer.sequences(10, 4)
    slot, env_index = drawn.slot[:, 0], drawn.env[:, 0]
    seen = torch.as_tensor(one.replay_buffer.next_observations[slot, env_index])
    one.target = Target("one_step")
    with torch.no_grad():
        best = one.q_net_target(seen).amax(1)
    wanted = torch.as_tensor(drawn.reward[:, 0]) + 0.99 * best * ~torch.as_tensor(drawn.terminated[:, 0])
    torch.testing.assert_close(one.targets(one.replay_buffer.window(slot, env_index, 1, drawn.weight)), wanted)
    action, _ = one.predict(space.sample(), deterministic=True)
    assert 0 <= int(action) < 3


def test_frozen_lake_by_name() -> None:
    one = learner("FrozenLake-v1", policy_kwargs={"net_arch": []}).learn(60)
    assert one.predict(3, deterministic=True)[0].shape == ()


def test_without_stable_baselines3_one_line_says_what_to_install(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mindworks.multistep")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(MissingExtra, match=r"^stable_baselines3 is not installed: pip install 'mindworks\[rl\]'$"):
        importlib.import_module("mindworks.multistep")
