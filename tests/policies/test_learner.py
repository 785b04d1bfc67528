"""What all learners of parameter-based value functions promise: seeds, company, activity, saving, bad input."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_helpers import KINDS, TASKS, assert_same, environment, episodes_by_hand, generation, learner, of_seed, play

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.envs import make_batch, rollout
from mindworks.errors import InputError
from mindworks.lab import checkpoint
from mindworks.policies import PAVF, PSSVF, PSSVFConfig, TDConfig
from mindworks.policies.learner import LearnerConfig

every_kind = pytest.mark.parametrize("kind", KINDS)
every_task = pytest.mark.parametrize("task", TASKS)


@every_kind
@every_task
def test_the_same_seeds_give_the_same_numbers_bit_for_bit(kind, task):
    states = []
    for _ in range(2):
        torch.rand(3)  # the global generator plays no part
        one, env = learner(kind, task), environment(task, 6)
        for _ in range(3):
            generation(one, env)
        states.append(one.state())
    assert_same(*states)
    assert not torch.equal(one.theta[0], one.theta[1])


@every_kind
@every_task
def test_a_seed_does_not_know_its_company(kind, task):
    together, alone = learner(kind, task), learner(kind, task, seeds=[1])
    (many, played), (one, single) = play(together, environment(task, 6)), play(alone, environment(task, 2))
    assert torch.equal(many[1], one[0])
    np.testing.assert_array_equal(played.lengths[2:4], single.lengths)
    together.tell(many, played)
    alone.tell(one, single)
    for name in ("theta", "phi"):
        torch.testing.assert_close(getattr(together, name)[1], getattr(alone, name)[0], rtol=0, atol=1e-5)
    moved = (alone.theta - one.mean(1)).abs().max()
    assert moved > 1e-3, "no policy step was taken, so nothing was compared"


@every_kind
def test_a_seeds_random_numbers_do_not_depend_on_how_long_the_others_live(kind):
    # seed 0 plays 4 steps, seed 1 plays 20: four times as many rounds of updates
    together, alone = learner(kind, population=1, seeds=[0, 1]), learner(kind, population=1, seeds=[0])
    for one, lives in ((together, [5, 20]), (alone, [5])):
        for _ in range(2):
            one.tell(one.ask(), episodes_by_hand([np.linspace(0, 1, life) for life in lives]))
    assert torch.equal(together.streams.torch[0].get_state(), alone.streams.torch[0].get_state())
    torch.testing.assert_close(together.theta[0], alone.theta[0], rtol=0, atol=1e-6)


def test_sampled_episodes_do_not_depend_on_how_long_the_others_live():
    together, alone = (learner("pavf", "CartPole-v1", seeds=seeds) for seeds in ([0, 1, 2], [0]))
    for _ in range(3):
        played = []
        for one in (together, alone):
            theta, episodes = play(one, make_batch("CartPole-v1", 2 * len(one.streams)))
            one.tell(theta, episodes)
            played.append(episodes)
        np.testing.assert_array_equal(played[0].actions[:2, : played[1].actions.shape[1]], played[1].actions)


@every_kind
@pytest.mark.parametrize("storage", ["float32", "seed"])
def test_inactive_seeds_are_left_exactly_as_they_are(kind, storage):
    one, env = learner(kind, storage=storage), environment("LQR-v0", 6)
    generation(one, env)
    before = [of_seed(one, s) for s in range(3)]
    for _ in range(2):
        generation(one, env, np.array([True, False, True]))
    assert_same(of_seed(one, 1), before[1])
    for s in (0, 2):
        assert not torch.equal(one.theta[s], before[s]["theta"])
        assert not torch.equal(one.phi[s], before[s]["phi"])
        assert one.steps[s] == 3 * before[s]["steps"]
    generation(one, env)
    assert not torch.equal(one.theta[1], before[1]["theta"])


@every_kind
def test_telling_draws_nothing_from_inactive_seeds(kind):
    one, env = learner(kind), environment("LQR-v0", 6)
    generation(one, env)
    active = np.array([True, False, True])
    theta, episodes = play(one, env, active)
    before = deepcopy(one.streams.state())
    one.tell(theta, episodes, active)
    after = one.streams.state()
    assert torch.equal(after["torch"][1], before["torch"][1])
    assert after["numpy"][1] == before["numpy"][1]
    assert not torch.equal(after["torch"][0], before["torch"][0])


@every_kind
@pytest.mark.parametrize("storage", ["float32", "seed"])
def test_a_seed_may_sit_out_the_first_generation(kind, storage):
    one, env = learner(kind, storage=storage, seeds=[0, 1]), environment("LQR-v0", 4)
    before = of_seed(one, 1)
    generation(one, env, np.array([True, False]))
    assert_same(of_seed(one, 1), before)
    assert one.replay.size.tolist() == [2, 0]


@every_kind
@pytest.mark.parametrize("storage", ["float32", "float16", "seed"])
def test_a_saved_learner_goes_on_bit_for_bit(kind, storage, tmp_path: Path):
    config = {"storage": storage, "policy_capacity": 6}
    one, env = learner(kind, **config), environment("LQR-v0", 6)
    for _ in range(2):
        generation(one, env)
    checkpoint.save(tmp_path, one.state())
    resumed = learner(kind, **config)
    resumed.load(checkpoint.load(tmp_path))
    for _ in range(3):
        for each in (one, resumed):
            generation(each, env)
    assert_same(resumed.state(), one.state())


@every_kind
def test_stochastic_discrete_learners_resume_bit_for_bit(kind):
    one, env = learner(kind, "CartPole-v1", seeds=[0, 1]), environment("CartPole-v1", 4)
    generation(one, env)
    resumed = learner(kind, "CartPole-v1", seeds=[0, 1])
    resumed.load(deepcopy(one.state()))
    for _ in range(2):
        for each in (one, resumed):
            generation(each, env)
    assert_same(resumed.state(), one.state())


@every_kind
def test_a_loaded_learner_shares_no_memory_with_the_one_it_came_from(kind):
    one, env = learner(kind), environment("LQR-v0", 6)
    generation(one, env)
    resumed = learner(kind)
    resumed.load(one.state())
    before = deepcopy(resumed.state())
    generation(one, env)
    assert_same(resumed.state(), before)


@every_kind
def test_proposals_scatter_around_the_current_policy_by_sigma(kind):
    one = learner(kind, population=4000, policy_capacity=4000, sigma=0.3, seeds=[0, 1])
    noise = (one.ask() - one.theta.unsqueeze(1)) / 0.3
    assert noise.shape == (2, 4000, 2)
    assert noise.mean(1).abs().max() < 5 / 4000**0.5
    assert (noise.std(1) - 1).abs().max() < 5 / 8000**0.5
    assert not torch.equal(noise[0], noise[1])
    again = one.ask()
    assert not torch.equal(again[0, 0], one.ask()[0, 0])


def test_episode_seeds_are_fresh_and_belong_to_their_learner():
    together, alone = learner("pssvf"), learner("pssvf", seeds=[2])
    first, second = together.episode_seeds(), together.episode_seeds()
    assert len({*first, *second}) == 12
    assert first[4:] == alone.episode_seeds()


@every_kind
def test_observations_of_active_seeds_feed_their_normaliser(kind):
    one, env = learner(kind), environment("LQR-v0", 6)
    seen: list[list[np.ndarray]] = [[], [], []]
    for active in (np.array([True, True, True]), np.array([True, False, True])):
        theta, episodes = play(one, env)
        one.tell(theta, episodes, active)
        for s in np.flatnonzero(active):
            rows = slice(2 * s, 2 * s + 2)
            seen[s].append(episodes.observations[rows, :-1][episodes.mask[rows]].astype(np.float64))
    for s in range(3):
        values = np.concatenate(seen[s])
        assert one.norm.mean[s] == pytest.approx(values.mean(0))
        assert one.norm.variance[s] == pytest.approx(values.var(0))
    assert one.norm.count.tolist() == [48, 24, 48]
    assert one.steps.tolist() == [48, 24, 48]
    assert one.episodes.tolist() == [4, 2, 4]


@every_kind
def test_without_normalisation_policies_see_raw_observations(kind):
    one, env = learner(kind, normalize_observations=False), environment("LQR-v0", 6)
    generation(one, env)
    assert (one.norm.count == 0).all()
    obs = np.full((3, 1), 2.0, np.float32)
    expected = one.policy.mode(one.theta, torch.full((3, 1, 1), 2.0)).squeeze(1).numpy()
    np.testing.assert_allclose(one.actor(one.theta)(obs, np.ones(3, bool)), expected, rtol=1e-5)


@every_kind
def test_the_actor_normalises_by_what_its_own_seed_has_seen(kind):
    one, env = learner(kind), environment("LQR-v0", 6)
    generation(one, env)
    obs = np.full((3, 1), 2.0, np.float32)
    scaled = torch.from_numpy(((obs - one.norm.mean) / one.norm.std).astype(np.float32))
    expected = one.policy.mode(one.theta, scaled.unsqueeze(1)).squeeze(1).numpy()
    np.testing.assert_allclose(one.actor(one.theta)(obs, np.ones(3, bool)), expected, rtol=1e-5, atol=1e-6)


@every_kind
def test_the_survival_bonus_leaves_training_and_nothing_else(kind):
    one = learner(kind, survival_bonus=1.5, population=2, seeds=[0])
    episodes = episodes_by_hand([[1.0, 2.0, 4.0], [5.0]])
    one.tell(one.ask(), episodes)
    assert one.replay.policies.data["value"][0, :2].tolist() == [7 - 3 * 1.5, 5 - 1.5]
    assert episodes.returns.tolist() == [7, 5]
    if kind != "pssvf":
        assert one.transitions.data["reward"][0, :4].tolist() == [-0.5, 0.5, 2.5, 3.5]


@every_kind
@pytest.mark.parametrize("storage", ["float32", "seed"])
def test_diverged_episodes_leave_finite_parameters(kind, storage):
    rounds = {} if kind == "pssvf" else {"update_every": 2}
    one = learner(kind, population=2, seeds=[0, 1], storage=storage, **rounds)
    start = of_seed(one, 1)
    diverged = [True, False, True, True]
    rewards = [[1.0, 0.0], [1.0, 2.0, 3.0], [0.0], [0.0]]  # all of seed 1 diverges at its first step
    for _ in range(3):
        one.tell(one.ask(), episodes_by_hand(rewards, diverged=diverged))
    assert one.theta.isfinite().all()
    assert one.phi.isfinite().all()
    assert one.steps.tolist() == [15, 6]
    if kind != "pssvf":  # no transition, so nothing to learn from
        assert torch.equal(one.phi[1], start["phi"])
        assert torch.equal(one.theta[1], start["theta"])


@every_kind
def test_a_first_generation_that_diverges_at_once_is_survived(kind):
    rounds = {} if kind == "pssvf" else {"update_every": 1}
    one = learner(kind, population=2, seeds=[0], **rounds)
    one.tell(one.ask(), episodes_by_hand([[0.0], [0.0]], diverged=[True, True]))
    one.tell(one.ask(), episodes_by_hand([[1.0, 2.0], [3.0, 4.0]]))
    assert one.theta.isfinite().all()
    assert one.phi.isfinite().all()


@every_kind
def test_only_proposed_policies_fit_in_seeds(kind):
    one, env = learner(kind, storage="seed"), environment("LQR-v0", 6)
    theta, episodes = play(one, env)
    before = [of_seed(one, s) for s in range(3)]
    with pytest.raises(InputError, match="storage='seed'"):
        one.tell(theta.clone(), episodes)
    assert_same([of_seed(one, s) for s in range(3)], before)
    one.tell(theta, episodes)


@every_kind
def test_other_policies_may_be_told_too(kind):
    one, env = learner(kind), environment("LQR-v0", 6)
    theta = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    one.tell(theta, rollout(env, one.actor(theta), one.episode_seeds()))
    assert torch.equal(one.replay.theta(torch.tensor([[0, 1]] * 3)), theta)


@every_kind
def test_episodes_that_do_not_fit_the_policies_are_refused(kind):
    one = learner(kind)
    with pytest.raises(InputError, match=r"episodes.*6.*2"):
        one.tell(one.ask(), episodes_by_hand([[1.0], [2.0]]))


@pytest.mark.parametrize("kind", ["psvf", "pavf"])
def test_episodes_without_a_record_are_refused(kind):
    one, env = learner(kind), environment("LQR-v0", 6)
    theta = one.ask()
    episodes = rollout(env, one.actor(theta), one.episode_seeds(), record=False)
    with pytest.raises(InputError, match="record"):
        one.tell(theta, episodes)


CONTINUOUS = Policy(MLP((1, 1)), Box((-1.0,), (1.0,)))
DISCRETE = Policy(MLP((1, 2)), Categorical(2))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: LearnerConfig(population=0), "population.*0"),
        (lambda: LearnerConfig(sigma=-1.0), "sigma.*-1"),
        (lambda: LearnerConfig(lr_policy=0.0), "lr_policy"),
        (lambda: LearnerConfig(lr_critic=-1e-3), "lr_critic"),
        (lambda: LearnerConfig(batch=0), "batch.*0"),
        (lambda: PSSVFConfig(critic_steps=0), "critic_steps"),
        (lambda: PSSVFConfig(policy_steps=-1), "policy_steps"),
        (lambda: TDConfig(discount=1.0), "discount.*1.0"),
        (lambda: TDConfig(update_every=0), "update_every"),
        (lambda: TDConfig(critic_steps=0), "critic_steps"),
        (lambda: TDConfig(policy_steps=-1), "policy_steps"),
        (lambda: TDConfig(policy_batch=0), "policy_batch"),
        (lambda: TDConfig(reward_scale=0.0), "reward_scale"),
        (lambda: PSSVF(CONTINUOUS, PSSVFConfig(storage="zip")), "storage.*'zip'"),
        (lambda: PSSVF(CONTINUOUS, PSSVFConfig(population=4, policy_capacity=3)), "capacity.*4.*3"),
        (lambda: PSSVF(CONTINUOUS, seeds=[]), "seeds"),
        (lambda: PAVF(CONTINUOUS, TDConfig(capacity=0)), "capacity"),
        (lambda: PAVF(DISCRETE), "stochastic"),
        (lambda: PAVF(CONTINUOUS, TDConfig(stochastic=True)).actor(torch.zeros(1, 2)), "stochastic|gaussian"),
    ],
)
def test_bad_settings_are_refused_in_one_line_that_names_them(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
