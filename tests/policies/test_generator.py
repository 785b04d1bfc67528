"""Generators of policies: their phases and commands, and the promises that all learners make."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from math import cos, inf, nan, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from generator_helpers import GENERATORS, HIGH, LOW, POLICY, everything_of, maker, practise, tell, watched
from policy_helpers import assert_same, environment, generation, play
from scipy import stats

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.envs import rollout
from mindworks.errors import InputError
from mindworks.lab import checkpoint
from mindworks.policies import GoGePoConfig, Training, evaluate

DISCRETE, GAUSSIAN = Policy(MLP((1, 3, 2)), Categorical(2)), Policy(MLP((1, 3, 1)), Box((-1.0,), (1.0,), gaussian=True))
every_kind = pytest.mark.parametrize("kind", GENERATORS)


# -- what is generated ------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("policy", [POLICY, DISCRETE, GAUSSIAN], ids=["continuous", "discrete", "gaussian"])
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_policies_are_made_for_commands_of_each_seed_or_of_all(kind, policy, average):
    one = practise(maker(kind, policy=policy, average=average), 5)
    commands = torch.linspace(LOW, HIGH, 5)
    made = one.generate(commands)
    assert made.shape == (2, 5, policy.num_parameters)
    assert not made.requires_grad
    assert torch.equal(one.generate(commands.expand(2, 5)), made)
    torch.testing.assert_close(one.generate(commands[3:4]), made[:, 3:4])
    torch.testing.assert_close(one.generate(torch.stack([commands, commands.flip(0)]))[1], made[1].flip(0))
    scaled = (commands - LOW) / (HIGH - LOW)
    features = torch.tensor([[cos(pi / 1.5 * k * float(c)) for k in range(1, 9)] for c in scaled])
    rho = one.mean_rho if average else one.rho
    assert not torch.equal(one.rho, one.mean_rho)
    torch.testing.assert_close(made, one.generator.forward(rho, features), rtol=1e-5, atol=1e-5)
    assert all((a - b).abs().amax(-1).min() > 1e-4 for a, b in pairwise(made.unbind(1)))


def test_the_spread_of_a_gaussian_policy_is_generated_too():
    one = maker(policy=GAUSSIAN)
    assert one.generator.outputs == POLICY.num_parameters + 1 == GAUSSIAN.num_parameters
    spread = one.generate(torch.linspace(LOW, HIGH, 5))[..., -1]
    assert spread.std(1).min() > 1e-3
    before = one.rho.clone()
    practise(one, 4)
    last = slice(one.generator.num_parameters - 9, None)  # of the network of the extra parameters: 8 weights, a bias
    assert (one.rho[:, last] != before[:, last]).any(1).all()


@pytest.mark.parametrize("cosines", [1, 2, 8])
def test_no_two_commands_of_the_range_look_alike(cosines):
    features = maker(cosines=cosines)._features(torch.linspace(LOW, HIGH, 101).expand(2, 101))
    assert features.shape == (2, 101, cosines)
    assert (features[:, 1:, 0] < features[:, :-1, 0]).all()
    assert torch.pdist(features[0]).min() > 1e-4


def test_without_cosines_the_generator_sees_the_scaled_command():
    one = maker(cosines=0)
    commands = torch.tensor([[LOW, HIGH, 20.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 1.0, 0.75], [0.5, 41 / 80, 42 / 80]]).unsqueeze(-1)
    torch.testing.assert_close(one._features(commands), expected)
    assert one.generator.conditions == 1
    assert one.generate(commands).shape == (2, 3, POLICY.num_parameters)


@every_kind
def test_theta_is_the_policy_for_the_best_return_seen(kind):
    one = practise(maker(kind), 4)
    best = torch.stack([one.replay.values(s).max() for s in range(2)])
    assert torch.equal(one.theta, one.generate(best.float().unsqueeze(-1)).squeeze(1))
    torch.testing.assert_close(one.seen()[:, 1], best.float())
    torch.testing.assert_close(one.seen()[:, 0], torch.stack([one.replay.values(s).min() for s in range(2)]).float())


# -- phases -----------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(
    ("settling", "warmup"), [(4, 8), (8, 4), (0, 8), (4, 0), (0, 0), (5, 6), (0, 6), (3, 4)], ids=str
)
def test_nothing_is_learned_before_the_random_phases_end(kind, settling, warmup):
    one = maker(kind, settling=settling, warmup=warmup)
    settled, end = -(-settling // 4) * 4, settling + warmup
    commands = watched(one)
    for done in range(0, 24, 4):
        names = ("rho", "mean_rho", "phi", "theta")
        before = {name: getattr(one, name).clone() for name in names}
        commands.clear()
        theta = one.ask()
        assert bool(commands) == (done >= end), "policies are random until warm-up ends"
        tell(one, theta)
        assert (one.replay.size == done + 4 - (settled if done + 4 >= settled else 0)).all()
        learned = done + 4 >= end and done + 4 > settled
        for name in names:
            changes = learned and not (name == "phi" and kind == "udrlpg")
            assert torch.equal(getattr(one, name), before[name]) != changes, (done, name)


def test_settling_fits_the_normalisation_which_then_stays():
    one, env = maker(settling=8, warmup=4), environment("LQR-v0", 8)
    observed = [[], []]
    for n in range(4):
        episodes = generation(one, env)
        if n < 2:
            for s, rows in enumerate(np.split(np.arange(8), 2)):
                observed[s] += [episodes.observations[row, : episodes.lengths[row]] for row in rows]
        everything = [np.concatenate(rows) for rows in observed]
        np.testing.assert_allclose(one.norm.mean, [x.mean(0) for x in everything], rtol=1e-6)
        np.testing.assert_allclose(one.norm.variance, [x.var(0) for x in everything], rtol=1e-6)
        assert one.norm.frozen == (n >= 1)
        assert (one.replay.size == (4, 0, 4, 8)[n]).all()
    assert (one.episodes == 16).all()


def test_random_policies_are_normal_with_twice_the_usual_spread():
    policy = Policy(MLP((4, 16, 9, 2)), Box((-1.0,) * 2, (1.0,) * 2, gaussian=True))
    one = maker(policy=policy, seeds=[0], population=100, settling=100, warmup=100)
    for _ in range(2):
        theta = one.ask()
        weights, log_std = policy.split(theta)
        for (weight, bias), fan_in in zip(policy.network.unflatten(weights), (4, 16, 9), strict=True):
            for part in (weight, bias):
                assert stats.kstest(part.flatten(), "norm", (0, 2 / fan_in**0.5)).pvalue > 1e-3
        assert (log_std == -0.5).all()
        one.episodes += 100  # from settling to warm-up


# -- the promises of all learners -------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_what_is_stored_is_what_acted(kind, storage):
    one = maker(kind, storage=storage)
    for n in range(5):
        theta = one.ask()
        tell(one, theta)
        if n:
            ages = torch.arange(3, -1, -1).expand(2, 4)
            assert torch.equal(one.replay.theta(one.replay.policies.slots(ages)), theta)
            assert torch.equal(theta.half().float(), theta) == (storage == "float16")


@every_kind
def test_the_same_seeds_give_the_same_numbers_bit_for_bit(kind):
    states = []
    for _ in range(2):
        torch.rand(3)  # the global generator plays no part
        states.append(practise(maker(kind), 5).state())
    assert_same(*states)
    assert not torch.equal(states[0]["rho"][0], states[0]["rho"][1])


@every_kind
@pytest.mark.parametrize("buckets", [0, 3])
def test_a_seed_does_not_know_its_company(kind, buckets):
    together, alone = maker(kind, seeds=[0, 1, 2], buckets=buckets), maker(kind, seeds=[1], buckets=buckets)
    start = alone.rho.clone()
    assert torch.equal(together.rho[1], start[0])
    for _ in range(4):
        many, one = together.ask(), alone.ask()
        torch.testing.assert_close(many[1], one[0], rtol=1e-4, atol=1e-4)
        tell(together, many)
        tell(alone, one)
    assert torch.equal(together.streams.torch[1].get_state(), alone.streams.torch[0].get_state())
    for name in ("theta", "phi", "rho", "mean_rho"):
        torch.testing.assert_close(getattr(together, name)[1], getattr(alone, name)[0], rtol=0, atol=1e-3)
    assert (alone.rho - start).abs().max() > 1e-2, "no generator step was taken, so nothing was compared"


def training(kind: str, evaluate_every: int = 60) -> Training:
    one = maker(kind, return_low=-60, return_high=0, closing=230, policy_capacity=16)
    return Training(one, environment("LQR-v0", 8), environment("LQR-v0", 4), steps=300, evaluate_every=evaluate_every)


def finish(run: Training) -> Training:
    while not run.done:
        run.advance()
    return run


@every_kind
def test_a_run_resumes_bit_for_bit_in_every_phase(kind, tmp_path: Path):
    whole, phases = training(kind), []
    while not whole.done:
        phases.append(tmp_path / str(len(phases)))
        checkpoint.save(phases[-1], whole.state())
        closing = whole.learner.steps.min() >= 230
        whole.advance()
    assert len(phases) >= 6
    assert closing, "nothing was saved in the closing phase"
    for folder in phases:
        resumed = training(kind)
        resumed.load(checkpoint.load(folder))
        assert_same(finish(resumed).state(), whole.state(), f"after {folder.name} generations")


@every_kind
def test_watching_changes_nothing(kind):
    assert_same(finish(training(kind)).learner.state(), finish(training(kind, evaluate_every=10**9)).learner.state())


@every_kind
@pytest.mark.parametrize("generations", [1, 3, 5], ids=["warm-up", "the first learning", "learning"])
def test_inactive_seeds_are_left_exactly_as_they_are(kind, generations):
    one, active = practise(maker(kind, seeds=[0, 1, 2]), generations), np.array([True, False, True])
    theta = one.ask()
    before = [everything_of(one, s) for s in range(3)]
    tell(one, theta, active=active)
    assert_same(everything_of(one, 1), before[1])
    for s in (0, 2):
        after = everything_of(one, s)
        assert after["episodes"] == before[s]["episodes"] + 4
        if generations > 1:
            assert all((after[name] != before[s][name]).any() for name in ("rho", "mean_rho", "theta"))


@every_kind
def test_policies_that_are_tried_sample_their_actions_if_the_settings_say_so(kind):
    env = environment("CartPole-v1", 8)
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space, (3,))
    sampling, greedy = (maker(kind, policy=policy, stochastic=stochastic) for stochastic in (True, False))
    theta, obs, alive = sampling.ask(), np.full((8, 4), 0.1, np.float32), np.ones(8, bool)
    acts = {
        name: np.stack([one.actor(theta, **chosen)(obs, alive) for _ in range(200)])
        for name, one, chosen in [
            ("sampled", sampling, {}),
            ("sampled on demand", greedy, {"stochastic": True}),
            ("greedy", greedy, {}),
            ("greedy on demand", sampling, {"stochastic": False}),
        ]
    }
    logits = policy.outputs(theta.flatten(0, 1), torch.full((8, 1, 4), 0.1)).squeeze(1)
    for name, actions in acts.items():
        if "greedy" in name:
            assert (actions == logits.argmax(-1).numpy()).all()
        else:
            np.testing.assert_allclose(actions.mean(0), logits.softmax(-1)[:, 1], atol=0.15)
    for one in (sampling, greedy):
        for _ in range(4):
            generation(one, env)
    assert one.steps.min() > 0


def test_sampling_in_evaluation_uses_streams_of_its_own():
    env = environment("CartPole-v1", 8)
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space)
    one, alone = (maker(policy=policy, stochastic=True, seeds=seeds) for seeds in ([3, 5], [5]))
    before = deepcopy(one.state())
    sampled = evaluate(one, one.theta, env, round=3, stochastic=True)
    assert_same(one.state(), before)
    np.testing.assert_array_equal(evaluate(one, one.theta, env, round=3, stochastic=True), sampled)
    single = evaluate(alone, alone.theta, environment("CartPole-v1", 4), round=3, stochastic=True)
    np.testing.assert_array_equal(single[0], sampled[1])
    assert (evaluate(one, one.theta, env, round=3) != sampled).any()
    seeds = np.concatenate([np.random.default_rng((s, 7, 3)).integers(0, 2**62, 4) for s in (3, 5)])
    act = policy.actor(one.theta.repeat_interleave(4, 0), one.norm, [np.random.default_rng((s, 8, 3)) for s in (3, 5)])
    np.testing.assert_array_equal(rollout(env, act, seeds).returns.reshape(2, 4), sampled)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"probes": 0}, "probes.*0"),
        ({"population": 0}, "population.*0"),
        ({"generator_batch": 0}, "generator_batch.*0"),
        ({"tile": 0}, "tile.*0"),
        ({"embedding": 0}, "embedding.*0"),
        ({"generator_hidden": (0,)}, r"hidden.*\(0,\)"),
        ({"drive": -1.0}, r"drive.*-1"),
        ({"drive": nan}, "drive.*nan"),
        ({"settling": -1}, "settling.*-1"),
        ({"warmup": -1}, "warmup.*-1"),
        ({"buckets": -1}, "buckets.*-1"),
        ({"cosines": -1}, "cosines.*-1"),
        ({"closing": -1}, "closing.*-1"),
        ({"return_low": HIGH}, "return_low.*return_high.*40"),
        ({"return_low": nan}, "return_low.*nan"),
        ({"explore": 1.5}, r"explore.*1\.5"),
        ({"replayed": -0.5}, r"replayed.*-0\.5"),
        ({"average": 1.0}, r"average.*1\.0"),
        ({"noise": ()}, r"noise.*\(\)"),
        ({"noise": (0.1, -0.1)}, r"noise.*-0\.1"),
        ({"storage": "seed"}, "storage.*float32 or float16"),
        ({"log_returns": True}, "log_returns"),
        ({"ensemble": 0}, "ensemble.*0"),
        ({"lr_policy": 0.0}, r"lr_policy.*0\.0"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_in_one_line_that_names_them(settings, names):
    with pytest.raises(InputError, match=names) as caught:
        maker(**settings)
    assert "\n" not in str(caught.value)


def test_a_policy_that_cannot_sample_is_refused_when_it_should():
    one = maker(stochastic=True, policy=Policy(MLP((1, 1)), Box((-inf,), (inf,))))
    with pytest.raises(InputError, match="gaussian=True"):
        play(one, environment("LQR-v0", 8))


def test_the_generator_without_an_evaluator_has_no_values():
    one = maker("udrlpg")
    with pytest.raises(InputError, match=r"value.*UDRLPG"):
        one.value(one.ask())
    assert maker().value(maker().ask()).shape == (2, 4)
    assert GoGePoConfig().lr_policy == 3e-4
