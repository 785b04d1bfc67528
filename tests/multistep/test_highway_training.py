"""Training makes the updates of `learn`, resumes bit for bit, and learns a corridor with a reward at its end."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from multistep_helpers import VECTOR, Corridor, Endless, learner, parameters, same
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mindworks.envs.minatar import MinAtarEnv
from mindworks.errors import InputError
from mindworks.lab import checkpoint
from mindworks.multistep import GridExtractor, RowVecEnv, Training

GRID = {"policy_kwargs": {"features_extractor_class": GridExtractor, "net_arch": []}}


def corridor(**given):
    return learner(**given)


def grid(**given):
    return learner(RowVecEnv(Corridor(2, grid=True)), "highway_soft", **GRID | given)


def minatar(**given):
    return learner(RowVecEnv(MinAtarEnv("breakout", 2)), "retrace", **GRID | given)


MAKERS = [corridor, grid, minatar]


def finish(run: Training) -> Training:
    while not run.done:
        run.advance()
    return run


@pytest.mark.parametrize("given", [{}, {"prioritized": True}, {"gradient_steps": -1, "train_freq": 3}])
@pytest.mark.parametrize("portion", [1, 7, 500])
def test_it_makes_the_updates_of_learn(given: dict, portion: int) -> None:
    learned = learner(**given).learn(130)
    run = finish(Training(learner(**given), 130, portion=portion))
    assert same(parameters(learned), parameters(run.learner))
    assert run.step == learned.num_timesteps
    assert run.learner._n_updates == learned._n_updates > 10
    assert run.learner.exploration_rate == learned.exploration_rate
    np.testing.assert_array_equal(run.learner.replay_buffer.behavior, learned.replay_buffer.behavior)


def test_episodes_of_one_environment_set_the_pace_as_in_learn() -> None:
    given = {"train_freq": (1, "episode"), "gradient_steps": -1}

    def make():
        return learner(RowVecEnv(Corridor(1)), **given)

    assert same(parameters(make().learn(80)), parameters(finish(Training(make(), 80, portion=30)).learner))


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("make", MAKERS)
def test_a_run_resumes_bit_for_bit(make: Callable, prioritized: bool, tmp_path: Path) -> None:
    def start() -> Training:
        return Training(make(prioritized=prioritized, buffer_size=60), 120, portion=25)

    whole = start()
    for _ in range(3):
        whole.advance()
    assert whole.learner.cache.fresh.any()
    checkpoint.save(tmp_path, whole.state())
    resumed = start()
    resumed.load(checkpoint.load(tmp_path))
    assert resumed.step == whole.step
    assert same(parameters(resumed.learner), parameters(whole.learner))
    before = parameters(whole.learner)
    finish(resumed)
    finish(whole)
    assert same(parameters(resumed.learner), parameters(whole.learner))
    assert not same(before, parameters(whole.learner))
    assert resumed.episodes == whole.episodes != []
    assert resumed.metrics() == whole.metrics()
    buffers = resumed.learner.replay_buffer, whole.learner.replay_buffer
    np.testing.assert_array_equal(*(buffer.next_observations for buffer in buffers))
    np.testing.assert_array_equal(*(buffer.rewards for buffer in buffers))


def test_a_state_does_not_change_with_the_run() -> None:
    run = Training(learner(), 90, portion=40)
    run.advance()
    state = run.state()
    before = deepcopy(state)
    finish(run)
    assert same(state["policy"], before["policy"])
    torch.testing.assert_close(state["optimizer"]["state"], before["optimizer"]["state"], rtol=0, atol=0)
    torch.testing.assert_close(state["cache"]["values"], before["cache"]["values"], rtol=0, atol=0)
    np.testing.assert_array_equal(state["cache"]["fresh"], before["cache"]["fresh"])
    assert state["episodes"] == before["episodes"]


def test_episodes_are_those_the_environment_played_and_metrics_sum_them_up() -> None:
    run = finish(Training(learner(buffer_size=300), 200, portion=60))
    buffer = run.learner.replay_buffer
    ends = [(slot, env) for slot in range(buffer.pos) for env in range(3) if buffer.dones[slot, env]]
    assert len(run.episodes) == len(ends) > 10
    for (steps, total, length), (slot, env) in zip(run.episodes, ends, strict=True):
        assert steps == 3 * (slot + 1)
        assert total == buffer.rewards[slot, env]
        assert (buffer.timeouts[slot, env] == 1) == (total == 0)
        assert length == 9 or total == 1
    metrics = run.metrics()
    assert metrics["step"] == run.step == 204  # the first multiple of three rows times two steps from 200 on
    assert metrics["episodes"] == len(ends)
    assert metrics["return"] == pytest.approx(np.mean([row[1] for row in run.episodes[-100:]]))
    assert metrics["exploration"] == 0.05
    assert metrics["loss"] > 0
    assert Training(learner(), 9).metrics()["return"] is None


@pytest.mark.parametrize("several", [False, True])
def test_callbacks_come_along_and_may_stop_it(several: bool) -> None:
    class Counting(BaseCallback):
        calls = ends = 0

        def _on_step(self) -> bool:
            self.calls += 1
            return True

        def _on_training_end(self) -> None:
            self.ends += 1

    counting, stopping = Counting(), StopTrainingOnMaxEpisodes(2)
    run = Training(learner(), 10_000, portion=50, callback=[counting, stopping] if several else counting)
    if several:
        finish(run)
        assert 5 <= len(run.episodes) < 20
        assert counting.calls == run.step / 3
        assert counting.ends == 1
        with pytest.raises(InputError, match="step must be below 10000"):
            run.advance()
    else:
        run.advance()
        assert (counting.calls, counting.ends, run.done) == (18, 0, False)


def test_windows_do_not_run_from_one_call_of_learn_into_the_next() -> None:
    one = learner(DummyVecEnv([lambda: Endless(VECTOR, life=50)]))
    one.learn(20)
    one.learn(20, reset_num_timesteps=False)
    buffer = one.replay_buffer
    assert buffer.dones[:40].sum() == 0
    one.learn(20)  # the parent resets the environment
    assert np.flatnonzero(buffer.dones[:60]).tolist() == [39]
    assert np.flatnonzero(buffer.timeouts[:60]).tolist() == [39]
    got = buffer.window(np.array([37]), np.array([0]), 8, np.ones(1))
    assert got.valid[0].tolist() == [True] * 3 + [False] * 5
    assert not got.terminated[0, :3].any()


def test_it_learns_a_corridor_with_a_reward_at_its_end() -> None:
    env = Corridor(2, length=12, limit=60, slip=0.0)
    one = learner(
        RowVecEnv(env), "highway", 12, gamma=0.9, learning_rate=3e-3, batch_size=32, buffer_size=5000, seed=3,
        target_update_interval=100, exploration_fraction=0.6, exploration_final_eps=0.1, learning_starts=100,
    )  # fmt: skip
    finish(Training(one, 2500, portion=2500))
    cells = np.eye(12, dtype=np.float32)[:11]
    assert one.predict(cells, deterministic=True)[0].tolist() == [1] * 11
    with torch.no_grad():
        values = one.q_net(torch.as_tensor(cells)).amax(1).numpy()
    np.testing.assert_allclose(values, 0.9 ** np.arange(10, -1, -1), atol=0.02)


def test_what_cannot_be_resumed_says_so() -> None:
    for env in (DummyVecEnv([lambda: Endless(VECTOR)]), VecNormalize(RowVecEnv(Corridor(3)))):
        run = finish(Training(learner(env), 30))
        with pytest.raises(InputError, match=rf"env must have state\(\) and load\(\) .*, got {type(env).__name__}"):
            run.state()


@pytest.mark.parametrize(
    ("given", "message"),
    [({"steps": 0}, "steps must be at least 1, got 0"), ({"portion": 0}, "portion must be at least 1, got 0")],
)
def test_bad_input_is_one_line(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Training(learner(), **{"steps": 5, **given})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 1, (5,)), r"must be a grid \[C, H, W\], got shape \[5\]"),
        (spaces.Discrete(5), r"must be a grid \[C, H, W\], got shape \[\]"),
        (spaces.Box(0, 1, (2, 2, 9)), r"must be at least 3 wide, got \[2, 2, 9\]"),
    ],
)
def test_the_extractor_refuses_what_is_no_grid(space: spaces.Space, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GridExtractor(space)


def test_the_extractor_is_one_convolution_and_one_layer() -> None:
    extractor = GridExtractor(spaces.Box(0, 1, (6, 10, 7), np.uint8), features_dim=9, channels=5)
    assert extractor.features_dim == 9
    assert sum(parameter.numel() for parameter in extractor.parameters()) == 5 * 6 * 9 + 5 + 5 * 8 * 5 * 9 + 9
    seen = torch.rand(3, 6, 10, 7)
    weight, bias = extractor.convolve.weight, extractor.convolve.bias
    hidden = torch.stack(
        [
            torch.stack([(seen[:, None, :, i : i + 3, j : j + 3] * weight).sum((2, 3, 4)) + bias for j in range(5)], -1)
            for i in range(8)
        ],
        -2,
    ).relu()
    expected = (hidden.flatten(1) @ extractor.linear.weight.T + extractor.linear.bias).relu()
    torch.testing.assert_close(extractor(seen), expected)
    assert (expected == 0).any()
