"""POIS on one batch: what it says, promises and counts, discounts, settings, and that returns rise."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pois_helpers import OBSERVED, ActionCase, ParameterCase, cartpole, finish, normal, told_by_hand
from policy_helpers import assert_same, episodes_by_hand
from torch import Tensor

from mindworks.core.policy import Policy
from mindworks.envs import Trajectories, rollout
from mindworks.errors import InputError
from mindworks.policies.pois import POIS, POISConfig
from mindworks.policies.search import Search
from mindworks.policies.surrogates import Steps

MODES = pytest.mark.parametrize("mode", ["parameter", "action"])
METRICS = {"mean", "promised", "bound", "log_divergence", "ess", "steps", "evaluations", "rejected"}


# -- one batch ---------------------------------------------------------------------------------------------------------


@MODES
def test_a_batch_says_what_it_earned_promised_and_took(mode: str) -> None:
    search = cartpole(mode, [0, 1], delta=0.8, offline_steps=3)
    search.advance()
    first = search.metrics()
    search.advance()
    one, last = search.search, search.metrics()
    assert first.keys() == last.keys() == METRICS | {"return"}
    assert first["promised"] == [-torch.inf] * 2
    assert last["promised"] == first["bound"]
    assert last["mean"] == pytest.approx([curve[1] for curve in search.curves], rel=1e-14)
    bound, size = one.bound(one.rho), 6
    offset = torch.tensor(last["mean"], dtype=torch.float64) * (mode == "action")
    assert (bound.value[:, 0] + offset).tolist() == pytest.approx(last["bound"], rel=1e-12)
    assert bound.log_divergence[:, 0].tolist() == last["log_divergence"]
    assert bound.ess[:, 0].tolist() == last["ess"]
    assert all(1 <= ess <= size for ess in last["ess"])
    assert all(0 <= steps <= 3 for steps in last["steps"])
    assert all(steps < tries <= 1 + 30 * 3 for steps, tries in zip(last["steps"], last["evaluations"], strict=True))
    assert last["rejected"] == [False, False]
    climbed = bound.value[:, 0] > one.bound(one.accepted).value[:, 0]
    assert climbed.tolist() == [steps > 0 for steps in last["steps"]]
    assert climbed.any()


@MODES
def test_at_the_behaviour_the_bound_is_the_mean_minus_the_penalty(mode: str) -> None:
    search = cartpole(mode, [0, 1], delta=0.2)
    played = search.search.rho.clone()
    search.advance()
    bound = search.search.bound(played)
    episodes = search.search.batches[0]["returns"]
    centred = episodes - episodes.mean(1, keepdim=True) * (mode == "action")
    torch.testing.assert_close(bound.estimate[:, 0], centred.mean(1), rtol=1e-12, atol=1e-12)
    penalty = 2 * centred.abs().amax(1) / 6**0.5  # sqrt(0.8 / 0.2) = 2
    torch.testing.assert_close(bound.penalty[:, 0], penalty, rtol=1e-12, atol=0)


def test_the_policy_is_the_mean_of_the_hyperpolicy_or_what_acts() -> None:
    hyper, acting = (finish(cartpole(mode, [0, 1], batches=1)).search for mode in ("parameter", "action"))
    assert torch.equal(hyper.theta, hyper.rho[:, :4].float())
    assert torch.equal(acting.theta, acting.rho.float())
    assert torch.equal(acting.ask(), acting.theta.unsqueeze(1).expand(2, 6, 4))
    draws = hyper.ask()
    assert draws.shape == (2, 6, 4)
    assert draws.dtype == torch.float32
    assert len(draws.flatten().unique()) == draws.numel()
    obs = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    everyone = np.ones(12, bool)
    still = [hyper.actor(draws)(obs, everyone) for _ in range(5)]
    assert all((row == still[0]).all() for row in still)
    noisy = acting.actor(acting.ask())
    assert len({tuple(noisy(obs, everyone)) for _ in range(5)}) > 1
    greedy = acting.actor(acting.ask(), stochastic=False)(obs, everyone)
    expected = acting.policy.mode(acting.theta, torch.from_numpy(obs).view(2, 6, 4))
    assert greedy.tolist() == expected.flatten().tolist()


def test_searches_start_with_the_deviations_they_are_given() -> None:
    box = spaces.Box(-1, 1, (2,))
    policy = Policy.for_spaces(OBSERVED, box, (16, 16))
    hyper = POIS(policy, POISConfig(initial_std=0.5, initial_mean_std=0.2), [0, 1])
    mean, log_std = hyper.rho.chunk(2, -1)
    assert torch.allclose(log_std.exp(), torch.full((2, policy.num_parameters), 0.5).double())
    weights = torch.cat([weight.flatten(1) for weight, _ in policy.network.unflatten(mean)], 1)
    assert all((bias == 0).all() for _, bias in policy.network.unflatten(mean))
    assert weights.std().item() == pytest.approx(0.2, rel=0.1)
    gaussian = Policy.for_spaces(OBSERVED, box, gaussian=True, squash=False)
    acting = POIS(gaussian, POISConfig.action_based(initial_std=0.5), [0, 1])
    assert torch.allclose(gaussian.split(acting.rho)[1].exp(), torch.full((2, 2), 0.5).double())


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        *((mode, {"natural": False}) for mode in ("parameter", "action")),
        *((mode, {"line_search": "binary"}) for mode in ("parameter", "action")),
        *((mode, {"delta": 0.4}) for mode in ("parameter", "action")),
        ("parameter", {"offline_steps": 1}),
        ("parameter", {"search_evaluations": 1}),
        ("parameter", {"estimator": "regression"}),
        ("parameter", {"penalty": "ess"}),
        ("parameter", {"scale": "std"}),
        ("parameter", {"center": True}),
        ("parameter", {"discount": 0.5}),
        ("action", {"estimator": "per-decision"}),
        ("action", {"damping": 1.0}),
        ("action", {"cg_iterations": 1}),
    ],
)
def test_every_setting_reaches_the_climb(mode: str, changes: dict[str, Any]) -> None:
    common = {"delta": 0.8, "natural": True}
    usual, other = cartpole(mode, [0], **common), cartpole(mode, [0], **{**common, **changes})
    assert torch.equal(usual.search.rho, other.search.rho)
    usual.advance()
    other.advance()
    assert usual.curves == other.curves
    assert not torch.allclose(usual.search.rho, other.search.rho, rtol=1e-6, atol=0)


class Counting:
    """An environment that counts its resets and the steps of its living rows."""

    def __init__(self, env: Any) -> None:
        self.env, self.episodes, self.steps = env, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, seeds: Any) -> Any:
        self.episodes += len(seeds)
        return self.env.reset(seeds)

    def step(self, actions: Any, alive: np.ndarray) -> Any:
        self.steps += int(alive.sum())
        return self.env.step(actions, alive)


@MODES
def test_every_episode_and_step_that_is_simulated_is_counted(mode: str) -> None:
    search = cartpole(mode, [0, 1], adaptive=2, delta=0.9)
    search.env = counting = Counting(search.env)
    search.advance()
    one = search.search
    one.rho, one.promised = one.accepted + 0.1, torch.full((2,), torch.inf).double()  # the next one will be given up
    finish(search)
    assert search.history[1]["rejected"] == [True, True]
    assert one.episodes_told.tolist() == [3 * 6] * 2
    assert counting.episodes == one.episodes_told.sum()
    assert counting.steps == one.steps_told.sum()


# -- discounts ---------------------------------------------------------------------------------------------------------


def discounted(episodes: Trajectories, discount: float) -> Tensor:
    rows = zip(episodes.rewards.tolist(), episodes.lengths.tolist(), strict=True)
    returns = [sum(r * discount**t for t, r in enumerate(row[:length])) for row, length in rows]
    return torch.tensor(returns, dtype=torch.float64)


def play(search: Search) -> tuple[Tensor, Trajectories]:
    one = search.search
    theta = one.ask()
    return theta, rollout(search.env, one.actor(theta), one.episode_seeds())


def test_discounted_returns_of_parameters_equal_a_loop() -> None:
    search = cartpole("parameter", [0, 1], discount=0.9)
    one, played = search.search, search.search.rho.clone()
    theta, episodes = play(search)
    assert len(set(episodes.lengths)) > 2
    one.tell(theta, episodes)
    case = ParameterCase(4, 1, delta=0.4)
    case.theta, case.behaviors = theta.double().unsqueeze(1), played.unsqueeze(1)
    case.values, case.rho = discounted(episodes, 0.9).view(2, 6), one.rho
    assert one.metrics["mean"] == pytest.approx(case.values.mean(1).tolist(), rel=1e-12)
    for s in range(2):
        criterion = {"estimator": "self-normalized", "penalty": "divergence", "scale": "max", "center": False}
        assert one.metrics["bound"][s] == pytest.approx(case.by_hand(s, range(4), **criterion)["value"], rel=1e-9)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("estimator", ["plain", "per-decision", "self-normalized per-decision"])
def test_discounted_episodes_of_actions_equal_a_loop(estimator: str, continuous: bool) -> None:
    settings = {"discount": 0.9, "estimator": estimator, "episodes": 4, "delta": 0.9}
    search = cartpole("action", [0, 1], horizon=25, continuous=continuous, **settings)
    one, played = search.search, search.search.rho.clone()
    theta, episodes = play(search)
    one.tell(theta, episodes)
    case, shape, end = ActionCase("reference", 1, delta=0.9), (2, 1, 4), int(episodes.lengths.max())
    case.policy, case.behaviors, case.rho = one.policy, played.unsqueeze(1), played + 0.02 * normal(*played.shape)
    case.lengths = episodes.lengths.reshape(shape)
    case.mask = torch.from_numpy(episodes.mask[:, :end].reshape(*shape, end))
    obs = torch.from_numpy(episodes.observations[:, :end]).double().view(*shape, end, 4)
    actions = torch.from_numpy(episodes.actions[:, :end]).unflatten(0, shape)
    rewards = [[0.9**t * float(t < n) for t in range(end)] for n in episodes.lengths]
    case.steps = Steps(obs, actions, torch.tensor(rewards, dtype=torch.float64).view(*shape, end), case.mask)
    bound, mean = one.bound(case.rho), discounted(episodes, 0.9).view(2, 4).mean(1).tolist()
    assert one.metrics["mean"] == pytest.approx(mean, rel=1e-12)
    for s in range(2):
        expected = case.by_hand(s, estimator=estimator, penalty="divergence", scale="max", center=True)
        for name, value in expected.items():
            assert getattr(bound, name)[s, 0].item() == pytest.approx(value, rel=1e-9, abs=1e-9), name


# -- learning ----------------------------------------------------------------------------------------------------------


LEARNING = {"batches": 4, "episodes": 50, "offline_steps": 10}


def test_parameters_climb_cartpole() -> None:
    search = finish(cartpole("parameter", [0, 1], **LEARNING, horizon=500))
    for curve in search.curves:
        assert curve[-1] > 2 * curve[0]


def test_a_deep_policy_climbs_neuron_by_neuron_where_the_whole_hardly_moves() -> None:
    """The divergence of all 30 parameters at once forbids the steps that each neuron's own allows."""
    changes = {**LEARNING, "horizon": 500, "hidden": (6,)}
    whole, single = (finish(cartpole("parameter", [0, 1], per_neuron=flag, **changes)) for flag in (False, True))
    for together, each in zip(whole.curves, single.curves, strict=True):
        assert each[-1] > 1.5 * each[0]
        assert each[-1] > 1.5 * together[-1]


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_actions_climb_cartpole(continuous: bool) -> None:
    search = finish(cartpole("action", [0, 1], **LEARNING, horizon=200, continuous=continuous, delta=0.9))
    for curve in search.curves:
        assert curve[-1] > 1.5 * curve[0]


def test_a_network_of_one_neuron_climbs_as_a_whole() -> None:
    whole, single = (finish(cartpole("parameter", [0, 1], per_neuron=flag)) for flag in (False, True))
    assert whole.curves == single.curves
    torch.testing.assert_close(whole.search.rho, single.search.rho, rtol=1e-9, atol=1e-9)


def constant(**changes: Any) -> POIS:
    """A search told that every policy earns 100."""
    search = told_by_hand(**changes)
    theta = search.ask()
    search.tell(theta, episodes_by_hand([[100.0]] * 12))
    return search


@pytest.mark.parametrize("estimator", ["plain", "self-normalized", "regression"])
def test_where_all_policies_earn_the_same_nothing_is_learned(estimator: str) -> None:
    search = constant(estimator=estimator, center=estimator == "plain")
    assert torch.equal(search.rho, search.accepted)
    assert search.metrics["steps"] == [0, 0]


def test_plain_weights_of_positive_returns_shrink_onto_a_few_policies() -> None:
    """They gain by their own sum, which is no news: what self-normalisation, and centring, take away."""
    search = constant(estimator="plain")
    assert (search.rho != search.accepted).any(1).all()
    plain, normalized = (
        finish(cartpole("parameter", [0, 1], estimator=estimator, delta=0.8, horizon=200, **LEARNING)).search
        for estimator in ("plain", "self-normalized")
    )
    deviation = [search.rho.chunk(2, -1)[1].mean(-1).exp() for search in (plain, normalized)]
    assert (deviation[0] < 0.05).all()
    assert (deviation[1] > 0.3).all()


# -- bad input ---------------------------------------------------------------------------------------------------------


CHOICE = Policy.for_spaces(OBSERVED, spaces.Discrete(2))
BOX = Policy.for_spaces(OBSERVED, spaces.Box(-1, 1, (1,)))
NOISY = Policy.for_spaces(OBSERVED, spaces.Box(-1, 1, (1,)), gaussian=True)
STILL = Policy.for_spaces(OBSERVED, spaces.Box(-1, 1, (1,)), squash=False)
ACTS = POISConfig.action_based(episodes=2)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: POISConfig(mode="both"), "mode.*'both'"),
        (lambda: POISConfig(estimator="mean"), "estimator.*'mean'"),
        (lambda: POISConfig(penalty="kl"), "penalty.*'kl'"),
        (lambda: POISConfig(scale="min"), "scale.*'min'"),
        (lambda: POISConfig(line_search="wolfe"), "line_search.*'wolfe'"),
        (lambda: POISConfig(episodes=1), "episodes.*2.*1"),
        (lambda: POISConfig(offline_steps=0), "offline_steps.*0"),
        (lambda: POISConfig(search_evaluations=0), "search_evaluations.*0"),
        (lambda: POISConfig(memory=0), "memory.*0"),
        (lambda: POISConfig(adaptive=0), "adaptive.*0"),
        (lambda: POISConfig(cg_iterations=0), "cg_iterations.*0"),
        (lambda: POISConfig(delta=0.0), "delta.*0.0"),
        (lambda: POISConfig(delta=1.1), "delta.*1.1"),
        (lambda: POISConfig(delta=float("nan")), "delta.*nan"),
        (lambda: POISConfig(delta=(0.4, 1.5)), r"delta.*0\.4, 1\.5"),
        (lambda: POIS(BOX, POISConfig(delta=(0.4, 0.5)), [0]), "delta.* 1 seeds, got 2"),
        (lambda: POISConfig(discount=0.0), "discount.*0.0"),
        (lambda: POISConfig(discount=1.01), "discount.*1.01"),
        (lambda: POISConfig(initial_std=0.0), "initial_std.*0.0"),
        (lambda: POISConfig(initial_mean_std=-1.0), "initial_mean_std.*-1.0"),
        (lambda: POISConfig(damping=0.0), "damping.*0.0"),
        (lambda: POISConfig(estimator="per-decision"), "estimator.*'per-decision'"),
        (lambda: POISConfig(estimator="self-normalized per-decision"), "estimator.*per-decision"),
        (lambda: POISConfig.action_based(per_neuron=True), "per_neuron"),
        (lambda: POIS(NOISY, ACTS, [0]), "policy.*squash=False"),
        (lambda: POIS(STILL, ACTS, [0]), "policy.*gaussian=True"),
        (lambda: POIS(NOISY, POISConfig(), [0]), "policy.*gaussian"),
        (lambda: POIS(BOX, POISConfig(), []), "seeds"),
        (lambda: POIS(BOX, POISConfig(), [-1]), "seeds.*-1"),
        (lambda: POIS(BOX, POISConfig(), [0]).bound(torch.zeros(1, 6)), "bound"),
        (
            lambda: POIS(BOX, POISConfig(episodes=2), [0]).tell(torch.zeros(1, 2, 3), episodes_by_hand([[1.0]])),
            "episodes.*2.*1",
        ),
        (lambda: POIS(BOX, POISConfig(), [0]).load({"rho": normal(1, 4)}), r"rho \[1, 6\].*\[1, 4\]"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make: Any, names: str) -> None:
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("mode", "changes"), [("action", {}), ("parameter", {"discount": 0.9})])
def test_episodes_without_a_record_are_refused_where_steps_are_needed(mode: str, changes: dict[str, Any]) -> None:
    search = cartpole(mode, [0, 1], **changes)
    one = search.search
    theta = one.ask()
    episodes = rollout(search.env, one.actor(theta), one.episode_seeds(), record=False)
    before = deepcopy(one.state())
    with pytest.raises(InputError, match="record=True"):
        one.tell(theta, episodes)
    assert_same({**one.state(), "streams": 0}, {**before, "streams": 0})
    assert not cartpole("parameter", [0]).search.needs_record


def test_the_settings_of_acting_policies_can_be_changed_one_by_one() -> None:
    usual = POISConfig(mode="action", delta=0.9, estimator="plain", center=True, natural=False)
    assert POISConfig.action_based() == usual
    assert POISConfig.action_based(natural=True, delta=0.2) == replace(usual, natural=True, delta=0.2)
