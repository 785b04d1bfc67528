"""The learner's targets, updates and actions against plain loops and against stable-baselines3's own."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest
import torch
from gymnasium import spaces
from multistep_helpers import (
    VECTOR,
    Corridor,
    Endless,
    learner,
    parameters,
    plain_target,
    same,
    stored_steps,
)
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mindworks.core.targets import Kind
from mindworks.errors import InputError
from mindworks.multistep import HighwayDQN, RowVecEnv, SequenceReplayBuffer, Target, target_cache

KINDS = get_args(Kind)


@pytest.fixture(scope="module")
def trained() -> HighwayDQN:
    """A learner whose buffer is full of ends and truncations, and whose two networks differ."""
    one = learner(buffer_size=120, target_update_interval=90, exploration_final_eps=0.8)
    one.learn(400)
    assert one.replay_buffer.full
    assert not torch.equal(one.q_net(torch.eye(5)), one.q_net_target(torch.eye(5)))
    return one


@pytest.mark.parametrize("lookahead", [1, 3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_targets_are_those_of_a_plain_loop(trained: HighwayDQN, kind: str, lookahead: int) -> None:
    buffer, trained.target = (
        trained.replay_buffer,
        Target(kind, lookahead=lookahead, lam=0.8, sharpness=3.0, epsilon=0.3),
    )
    count = 240 // trained.target.steps
    drawn = buffer.sequences(count, trained.target.steps)
    got = trained.targets(drawn).numpy()
    assert got.shape == (count,)
    ends: Counter[str] = Counter()
    for b in range(count):
        env, steps = drawn.env[b, 0], []
        for slot in stored_steps(buffer, drawn.slot[b, 0], env, trained.target.steps):
            late, after = bool(buffer.timeouts[slot, env]), (slot + 1) % buffer.buffer_size
            terminated = bool(buffer.dones[slot, env]) and not late
            with torch.no_grad():
                q = trained.q_net_target(torch.as_tensor(buffer.next_observations[slot, env])[None])[0].double().numpy()
            action, behavior = int(buffer.actions[after, env, 0]), float(buffer.behavior[after, env])
            steps.append((float(buffer.rewards[slot, env]), 0.0 if terminated else 0.99, q, action, behavior))
            ends["terminated" if terminated else "late" if late else "on"] += 1
        assert got[b] == pytest.approx(plain_target(trained.target, steps), abs=2e-6)
    assert min(ends["terminated"], ends["late"]) > 0


def test_where_an_episode_is_truncated_the_target_bootstraps_and_where_it_terminates_it_does_not() -> None:
    one = learner(DummyVecEnv([lambda: Endless(VECTOR)]), lookahead=9)
    one.learn(60)
    with torch.no_grad():
        for parameter in one.q_net_target.parameters():
            parameter.zero_()
        one.q_net_target.q_net[-1].bias.fill_(100.0)  # every state is worth 100
    one.cache.forget()
    last = np.flatnonzero(one.replay_buffer.dones[: one.replay_buffer.pos, 0])
    assert len(last) == 12
    drawn = one.replay_buffer.window(last, np.zeros(12, int), 9, np.ones(12))
    expected = [5.0 if drawn.terminated[i, 0] else 5 + 99 for i in range(12)]
    assert sorted(set(expected)) == [5, 104]
    np.testing.assert_allclose(one.targets(drawn), expected, rtol=1e-6)


def test_targets_of_one_step_and_the_update_are_those_of_stable_baselines3(monkeypatch) -> None:
    ours, theirs = (
        learner(make_vec_env("CartPole-v1", seed=0), "one_step", learning_rate=1e-2, learning_starts=200) for _ in "12"
    )
    for each in (ours, theirs):
        each.learn(100)
    assert same(parameters(ours), parameters(theirs))
    buffer = ours.replay_buffer
    drawn: list = []
    real = buffer.sequences

    def noted(count: int, steps: int):
        drawn.append(real(count, steps))
        return drawn[-1]

    monkeypatch.setattr(buffer, "sequences", noted)
    ours.train(3, 16)
    given = iter(drawn)
    monkeypatch.setattr(
        theirs.replay_buffer, "sample", lambda *_, **__: theirs.replay_buffer._get_samples(next(given).slot[:, 0])
    )
    DQN.train(theirs, 3, 16)
    for name, value in parameters(ours).items():
        torch.testing.assert_close(value, parameters(theirs)[name], rtol=0, atol=2e-6)
    every = buffer.window(np.arange(100), np.zeros(100, int), 1, np.ones(100))
    sample = buffer._get_samples(every.slot[:, 0])
    with torch.no_grad():
        best = ours.q_net_target(sample.next_observations).amax(1, keepdim=True)
    wanted = sample.rewards + (1 - sample.dones) * 0.99 * best
    assert sample.dones.sum() > 0
    torch.testing.assert_close(ours.targets(every), wanted[:, 0])
    assert not same(parameters(ours), parameters(learner(make_vec_env("CartPole-v1", seed=0), "one_step")))


@pytest.mark.filterwarnings("ignore:The number of environments used is greater")
@pytest.mark.parametrize(
    ("given", "normalize"),
    [
        ({"target_update_interval": 30}, False),
        ({"target_update_interval": 15, "tau": 0.5}, False),
        ({"target_update_interval": 40, "tau": 0.3, "buffer_size": 45}, False),
        ({"target_update_interval": 1, "buffer_size": 45}, False),  # fewer steps than environments
        ({"target_update_interval": 60}, True),
    ],
)
def test_remembered_values_are_those_computed_anew(given: dict, normalize: bool, monkeypatch) -> None:
    env = RowVecEnv(Corridor(3))
    one = learner(VecNormalize(env) if normalize else env, lookahead=5, **given)
    through_cache, hits = one.targets, []

    def compared(sequences):
        places = (sequences.slot * 3 + sequences.env)[sequences.valid]
        hits.append(one.cache.fresh[places].mean())
        got, kept = through_cache(sequences), one.cache
        one._make_cache()
        anew, one.cache = through_cache(sequences), kept
        torch.testing.assert_close(got, anew, rtol=0, atol=1e-5)
        return got

    monkeypatch.setattr(one, "targets", compared)
    one.learn(150)
    weights = {"policy": {name: value + 0.1 for name, value in parameters(one).items()}}
    one.set_parameters(weights, exact_match=False)
    one.learn(60, reset_num_timesteps=False)
    assert len(hits) > 30
    assert normalize or given["target_update_interval"] == 1 or max(hits) > 0.4


def test_a_cache_that_forgets_nothing_is_found_out(monkeypatch) -> None:
    monkeypatch.setattr(target_cache.TargetCache, "forget", lambda *_: None)
    with pytest.raises(AssertionError, match="not close"):
        test_remembered_values_are_those_computed_anew({"target_update_interval": 30}, False, monkeypatch)


def test_the_cache_computes_what_is_missing_once_and_only_where_it_is_needed() -> None:
    cache, asked = target_cache.TargetCache(6, 2, torch.device("cpu")), []

    def compute(places: np.ndarray) -> torch.Tensor:
        asked.append(places.tolist())
        return torch.from_numpy(np.stack([places, 10 * places], 1).astype(np.float32))

    places, needed = np.array([[3, 1], [1, 5]]), np.array([[True, True], [True, False]])
    got = cache.look_up(places, needed, compute)
    assert got[needed].tolist() == [[3, 30], [1, 10], [1, 10]]
    cache.look_up(places, ~needed, compute)
    cache.look_up(places, needed | True, compute)
    cache.forget(np.array([3]))
    cache.look_up(places, needed, compute)
    cache.forget()
    cache.look_up(places, needed, compute)
    assert asked == [[1, 3], [5], [3], [1, 3]]


def test_recorded_probabilities_are_the_frequencies_and_every_environment_explores_by_itself() -> None:
    one = learner(DummyVecEnv([lambda: Endless(VECTOR)]))
    one._setup_learn(1)
    count = 6000
    one._last_obs = np.repeat(one._last_obs, count, 0)
    best = int(one.q_net(torch.as_tensor(one._last_obs[:1])).argmax())
    one.num_timesteps, one.exploration_rate = 1, 0.3
    warm, stored = one._sample_action(learning_starts=2, n_envs=count)
    np.testing.assert_array_equal(warm, stored)
    np.testing.assert_array_equal(one.replay_buffer.acting, np.float32(1 / 3))
    assert (abs(np.bincount(warm) - count / 3) < 200).all()
    action, _ = one._sample_action(learning_starts=1, n_envs=count)
    expected = np.full(3, 0.1)
    expected[best] += 0.7
    np.testing.assert_allclose(one.replay_buffer.acting, expected[action], rtol=1e-6)
    # 5 standard deviations; were there one coin for all rows, all or none would be greedy
    assert (abs(np.bincount(action) / count - expected) < 5 * np.sqrt(expected * (1 - expected) / count)).all()


def test_the_stored_probabilities_are_those_of_the_stored_actions() -> None:
    one = learner(exploration_initial_eps=0.2, exploration_final_eps=0.2, learning_starts=30)
    one.learn(150)
    buffer = one.replay_buffer
    assert (buffer.behavior[:10] == 0.5).all()
    assert set(np.unique(buffer.behavior[10 : buffer.pos])) == {np.float32(0.1), np.float32(0.9)}
    rare = (buffer.behavior[10 : buffer.pos] == np.float32(0.1)).mean()
    assert rare == pytest.approx(0.1, abs=0.08)


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("kind", ["highway", "retrace"])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(kind: str, prioritized: bool) -> None:
    def run(seed: int) -> dict[str, torch.Tensor]:
        np.random.default_rng(0)
        np.random.seed(seed + 5)  # noqa: NPY002, the global state that must not matter
        one = learner(kind=kind, prioritized=prioritized, seed=seed)
        np.random.rand(seed + 3)  # noqa: NPY002
        return parameters(one.learn(120))

    first = run(0)
    np.random.rand(7)  # noqa: NPY002
    assert same(first, run(0))
    assert not same(first, run(1))


def test_prioritised_errors_are_those_of_the_drawn_windows() -> None:
    one = learner(prioritized=True, replay_buffer_kwargs={"alpha": 1.0, "beta": 0.5}, learning_rate=0.0)
    one.learn(90)
    buffer = one.replay_buffer
    drawn = buffer.sequences(25, 4)
    noted: list = []
    buffer.sequences = lambda *_: noted.append(drawn) or drawn  # type: ignore[method-assign]
    one.train(1, 25)
    with torch.no_grad():
        chosen = one.q_net(buffer.observed(drawn)).gather(
            1, torch.as_tensor(buffer.actions[drawn.slot[:, 0], drawn.env[:, 0]])
        )[:, 0]
        error = (one.targets(drawn) - chosen).abs().numpy()
    index = drawn.slot[:, 0] * 3 + drawn.env[:, 0]
    np.testing.assert_allclose(buffer.tree.weights[index], error + 0.01, rtol=1e-5)
    huber = np.where(error < 1, error**2 / 2, error - 0.5)
    assert one.logger.name_to_value["train/loss"] == pytest.approx((huber * drawn.weight).mean(), rel=1e-5)


def test_denormal_moments_are_flushed_within_an_update_only() -> None:
    one = learner(kind="one_step")
    one.learn(60)
    state = one.policy.optimizer.state[one.q_net.q_net[0].weight]
    state["exp_avg"].fill_(1.2e-38)
    one.train(1, 4)
    tiny = torch.finfo(torch.float32).tiny
    assert not ((state["exp_avg"] != 0) & (state["exp_avg"].abs() < tiny)).any()
    assert torch.tensor(1e-39) * 0.5 != 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_steps": 3}, "n_steps must be 1, got 3"),
        ({"optimize_memory_usage": True}, "optimize_memory_usage must be False"),
        ({"replay_buffer_class": ReplayBuffer}, "replay_buffer_class must be a SequenceReplayBuffer, got ReplayBuffer"),
        ({"replay_buffer_kwargs": {"alpha": 2}, "prioritized": True}, r"alpha must be in \[0, 1\], got 2"),
        (
            {"env": DummyVecEnv([lambda: Endless(spaces.Dict(a=VECTOR))]), "policy": "MultiInputPolicy"},
            "env must observe",
        ),
        ({"env": DummyVecEnv([lambda: Endless(VECTOR, spaces.Discrete(3, start=1))])}, "actions from 0, got 1"),
    ],
)
def test_bad_input_is_one_line_that_names_the_argument(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        learner(**given)
    assert "\n" not in str(caught.value)


def test_other_types_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="target must be a Target, got 'highway'"):
        HighwayDQN("MlpPolicy", "CartPole-v1", target="highway")
    with pytest.raises(AssertionError, match=r"Discrete.*as action spaces but Box"):
        learner("Pendulum-v1")
    assert isinstance(learner(replay_buffer_class=None).replay_buffer, SequenceReplayBuffer)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("prioritized", [False, True])
def test_a_gpu_computes_the_same_targets_and_the_same_update(prioritized: bool) -> None:
    cpu, gpu = (
        learner(kind="retrace", prioritized=prioritized, learning_starts=100, device=device)
        for device in ("cpu", "cuda")
    )
    for each in (cpu, gpu):
        each.learn(90)
    drawn = cpu.replay_buffer.sequences(20, 4)
    torch.testing.assert_close(gpu.targets(drawn).cpu(), cpu.targets(drawn), rtol=1e-4, atol=1e-5)
    for each in (cpu, gpu):
        each.replay_buffer.sequences = lambda *_: drawn  # type: ignore[method-assign]
        each.train(1, 20)
    for name, value in parameters(cpu).items():
        torch.testing.assert_close(parameters(gpu)[name].cpu(), value, rtol=1e-3, atol=1e-4)
