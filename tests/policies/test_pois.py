"""POIS: what a batch promises, what becomes of a broken promise, which batches speak, and that returns rise."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pois_helpers import ActionCase, ParameterCase, normal
from policy_helpers import assert_same, episodes_by_hand
from torch import Tensor

from mindworks.core.policy import Policy
from mindworks.envs import Trajectories, make_batch, rollout
from mindworks.errors import InputError
from mindworks.lab import checkpoint
from mindworks.policies.pois import POIS, POISConfig
from mindworks.policies.search import Search
from mindworks.policies.surrogates import Steps

MODES = pytest.mark.parametrize("mode", ["parameter", "action"])
OBSERVED = spaces.Box(-1, 1, (2,))
METRICS = {"mean", "promised", "bound", "log_divergence", "ess", "steps", "evaluations", "rejected"}


def config(mode: str, **changes: Any) -> POISConfig:
    return (POISConfig.action_based if mode == "action" else POISConfig)(**changes)


def cartpole(
    mode: str,
    seeds: list[int],
    *,
    batches: int = 3,
    horizon: int = 40,
    hidden: tuple[int, ...] = (),
    continuous: bool = False,
    **changes: Any,
) -> Search:
    settings = config(mode, **{"episodes": 6, "offline_steps": 3, "cg_iterations": 4, **changes})
    name = "CartPoleContinuous-v0" if continuous else "CartPole-v1"
    env = make_batch(name, len(seeds) * settings.episodes, max_episode_steps=horizon)
    head = {"gaussian": mode == "action", "squash": mode != "action"} if continuous else {"reference": True}
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space, hidden, bias=False, **head)
    return Search(POIS(policy, settings, seeds), env, batches=batches)


def finish(search: Search) -> Search:
    while not search.done:
        search.advance()
    return search


def told_by_hand(seeds: int = 2, **changes: Any) -> POIS:
    """P-POIS for a linear policy of three parameters, for batches that `earn` makes up."""
    policy = Policy.for_spaces(OBSERVED, spaces.Box(-1, 1, (1,)))
    return POIS(policy, POISConfig(**{"episodes": 6, "delta": 0.9, "offline_steps": 3, **changes}), list(range(seeds)))


def earn(search: POIS, bonus: float | list[float] = 0.0) -> tuple[Tensor, Tensor]:
    """One batch whose returns are linear in the parameters, plus what each seed gets on top; both are returned."""
    theta = search.ask()
    returns = theta.double() @ torch.tensor([3.0, -2.0, 1.0]).double() + torch.tensor(bonus).double().view(-1, 1)
    search.tell(theta, episodes_by_hand([[value] for value in returns.flatten().tolist()]))
    return theta, returns


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


# -- several batches ---------------------------------------------------------------------------------------------------


def test_a_distribution_that_breaks_its_promise_is_given_up_and_the_last_good_one_plays_again() -> None:
    search = told_by_hand(adaptive=3)
    start = search.rho.clone()
    rows = [earn(search)[1]]  # batch 1
    sizes, played = [], []
    for bonus in ([-1e3, 1e3], [0.0, 2e3], [-1e3, 3e3], [0.0, 4e3], [-1e3, 5e3]):
        played.append(search.rho.clone())
        rows.append(earn(search, bonus)[1])
        sizes.append(search._surrogate().returns.size.tolist())
        assert search.metrics["rejected"] == [bonus[0] < 0 and len(sizes) < 5, False]
    # the first seed plays its start at batches 1, 3 and 5, and something else in between
    assert [bool((rho[0] == start[0]).all()) for rho in played] == [False, True, False, True, False]
    assert [size[0] for size in sizes] == [6, 12, 12, 18, 6]
    # after three batches at one distribution the next is accepted, however little it earned
    assert torch.equal(search.accepted, played[-1])
    assert [size[1] for size in sizes] == [6] * 5
    assert len({tuple(rho[1].tolist()) for rho in played}) == 5


def test_batches_of_one_distribution_speak_together() -> None:
    search = told_by_hand(adaptive=2, delta=0.2)
    start = search.rho.clone()
    first = earn(search)[1]
    earn(search, [-1e3, 1e3])
    again = earn(search, [0.0, 2e3])[1]
    bound = search.bound(start)
    together = torch.cat([first[0], again[0]])
    assert bound.estimate[0, 0].item() == pytest.approx(together.mean().item(), rel=1e-12)
    assert bound.penalty[0, 0].item() == pytest.approx(2 * together.abs().max().item() / 12**0.5, rel=1e-12)
    assert bound.ess[0, 0].item() == pytest.approx(12, rel=1e-12)
    assert search.metrics["promised"][0] == -torch.inf


def test_with_one_try_every_distribution_is_accepted() -> None:
    search = told_by_hand(adaptive=1)
    for bonus in (0.0, -1e3, -2e3):
        played = search.rho.clone()
        earn(search, bonus)
        assert search.metrics["rejected"] == [False, False]
        assert torch.equal(search.accepted, played)


@pytest.mark.parametrize("memory", [1, 3])
def test_the_last_distributions_are_remembered_and_weigh_equally(memory: int) -> None:
    search = told_by_hand(memory=memory, delta=0.4)
    behaviors, thetas, returns = [], [], []
    for _ in range(5):
        behaviors.append(search.rho.clone())
        theta, values = earn(search)
        thetas.append(theta.double())
        returns.append(values)
    case = ParameterCase(3, memory, delta=0.4)
    case.valid[:] = True
    case.theta, case.behaviors = (torch.stack(rows[-memory:], 1) for rows in (thetas, behaviors))
    case.values, case.rho = torch.cat(returns[-memory:], 1), search.rho
    assert search._surrogate().returns.size.tolist() == [6 * memory] * 2
    bound = search.bound(search.rho)
    for s in range(2):
        criterion = {"estimator": "self-normalized", "penalty": "divergence", "scale": "max", "center": False}
        expected = case.by_hand(s, range(3), **criterion)
        for name, value in expected.items():
            assert getattr(bound, name)[s, 0].item() == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize(("memory", "adaptive"), [(1, 3), (2, 3), (2, 1)])
def test_which_batches_a_seed_uses_does_not_depend_on_the_others(memory: int, adaptive: int) -> None:
    """Seeds that keep and give up distributions at different times hold different batches at once."""
    bonuses = [[0, 0, 0], [-1e3, 1e3, 1e3], [0, -1e4, 2e3], [-1e3, 1e3, -1e4], [0, 2e3, 2e3], [-1e3, -1e4, 3e3]]
    together = told_by_hand(3, memory=memory, adaptive=adaptive)
    alone = []
    for seed in range(3):
        policy, settings = together.policy, together.config
        alone.append(POIS(policy, settings, [seed]))
    for bonus in bonuses:
        earn(together, [float(value) for value in bonus])
        for s, one in enumerate(alone):
            earn(one, [float(bonus[s])])
            size = together._surrogate().returns.size[s].item()
            assert size == one._surrogate().returns.size.item()
            assert size <= 6 * (memory + adaptive - 1)
            torch.testing.assert_close(together.rho[s], one.rho[0], rtol=1e-9, atol=1e-9)
            assert together.metrics["rejected"][s] == one.metrics["rejected"][0]
    if adaptive > 1:
        assert any(together.tries != 1)


@MODES
@pytest.mark.parametrize("changes", [{}, {"memory": 2, "adaptive": 3}], ids=["one batch", "several"])
def test_seeds_side_by_side_equal_each_alone(mode: str, changes: dict[str, Any]) -> None:
    """Episodes are padded to the longest of all seeds: sums then round otherwise, and a climb makes that grow."""
    tolerance = 1e-12 if mode == "parameter" else 1e-6
    together = finish(cartpole(mode, [3, 5, 8], **changes))
    for s, seed in enumerate([3, 5, 8]):
        alone = finish(cartpole(mode, [seed], **changes))
        assert alone.curves[0] == together.curves[s]
        torch.testing.assert_close(alone.search.rho[0], together.search.rho[s], rtol=tolerance, atol=tolerance)
    assert len({tuple(curve) for curve in together.curves}) == 3


@MODES
def test_a_search_resumes_bit_for_bit(mode: str, tmp_path: Path) -> None:
    changes = {"memory": 2, "adaptive": 3, "batches": 6, "delta": 0.9, "natural": True}
    whole = cartpole(mode, [0, 1], **changes)
    for _ in range(3):
        whole.advance()
    one = whole.search
    one.rho[0], one.promised[0], one.tries[0] = one.accepted[0] + 0.1, torch.inf, 1  # the fourth batch will be given up
    checkpoint.save(tmp_path, whole.state())
    resumed = cartpole(mode, [0, 1], **changes)
    resumed.load(checkpoint.load(tmp_path))
    assert_same(resumed.state(), whole.state())
    assert_same(finish(resumed).state(), finish(whole).state())
    assert whole.history[3]["rejected"][0]
    assert len(whole.search.batches) > 2


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
    usual = POISConfig(mode="action", estimator="plain", center=True, natural=False)
    assert POISConfig.action_based() == usual
    assert POISConfig.action_based(natural=True, delta=0.9) == replace(usual, natural=True, delta=0.9)
