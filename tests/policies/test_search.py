"""The loop of asking, playing and telling, hyperpolicies, and natural policy gradients with parameter exploration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from policy_helpers import assert_same, environment, episodes_by_hand
from scipy import stats
from torch import Tensor
from torch.autograd.functional import hessian
from torch.distributions import Independent, Normal, kl_divergence

from mindworks.core.policy import Policy
from mindworks.envs import rollout
from mindworks.errors import InputError
from mindworks.lab import checkpoint
from mindworks.policies.pois import POIS, POISConfig
from mindworks.policies.search import Hyperpolicy, NaturalPGPE, Search
from mindworks.policies.streams import Streams

POLICY = Policy.for_spaces(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)))  # three parameters


def pgpe(seeds: tuple[int, ...] = (0, 1), policy: Policy = POLICY, **fields: Any) -> NaturalPGPE:
    return NaturalPGPE(policy, list(seeds), **{"lr": 0.3, "episodes": 8, "initial_mean_std": 0.5, **fields})


def tell(search: NaturalPGPE, returns: Tensor) -> Tensor:
    """One batch with made-up returns `[S, N]`; the policies that were asked are returned."""
    theta = search.ask()
    search.tell(theta, episodes_by_hand([[value] for value in returns.flatten().tolist()]))
    return theta


def made_up(seeds: int = 2) -> Tensor:
    return 5 + 3 * torch.randn(seeds, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


# -- natural PGPE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardize", [True, False])
def test_a_step_is_the_inverse_of_the_dense_fisher_information_times_the_gradient(standardize: bool) -> None:
    search, returns = pgpe(standardize=standardize), made_up()
    before = search.rho.clone()
    theta = tell(search, returns).double()
    for s in range(2):
        gain = returns[s] - returns[s].mean()
        if standardize:
            gain = gain / returns[s].std(correction=0)

        def hyperpolicy(rho: Tensor) -> Independent:
            return Independent(Normal(rho[:3], rho[3:].exp()), 1)

        rho = before[s].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad((gain * hyperpolicy(rho).log_prob(theta[s])).mean(), rho)
        old = hyperpolicy(before[s])
        fisher = hessian(lambda r, p=old, q=hyperpolicy: kl_divergence(p, q(r)), before[s])
        expected = before[s] + 0.3 * torch.linalg.solve(fisher, gradient)
        torch.testing.assert_close(search.rho[s], expected, rtol=1e-11, atol=1e-11)
        assert (search.rho[s] != before[s]).all()


def test_standardised_steps_do_not_know_the_unit_of_the_return() -> None:
    steps = []
    for standardize in (True, False):
        for unit in (1.0, 10.0):
            search = pgpe(standardize=standardize)
            before = search.rho.clone()
            tell(search, unit * made_up() + unit)
            steps.append(search.rho - before)
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(steps[3], 10 * steps[2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("standardize", [True, False])
def test_equal_returns_change_nothing(standardize: bool) -> None:
    search = pgpe(standardize=standardize)
    before = search.rho.clone()
    tell(search, torch.full((2, 8), 100.0))
    assert torch.equal(search.rho, before)
    assert search.metrics["std"] == pytest.approx([1.0, 1.0])


def test_seeds_of_natural_pgpe_side_by_side_equal_each_alone() -> None:
    together = Search(pgpe((3, 5, 8), cartpole_policy()), environment("CartPole-v1", 24), batches=3)
    while not together.done:
        together.advance()
    for s, seed in enumerate((3, 5, 8)):
        alone = Search(pgpe((seed,), cartpole_policy()), environment("CartPole-v1", 8), batches=3)
        while not alone.done:
            alone.advance()
        assert alone.curves[0] == together.curves[s]
        torch.testing.assert_close(alone.search.rho[0], together.search.rho[s], rtol=1e-12, atol=1e-12)


def cartpole_policy(**fields: Any) -> Policy:
    env = environment("CartPole-v1", 1)
    return Policy.for_spaces(env.single_observation_space, env.single_action_space, **fields)


# -- hyperpolicies -----------------------------------------------------------------------------------------------------


def test_draws_of_a_hyperpolicy_have_its_mean_and_deviation() -> None:
    rho = torch.tensor([[1.0, -2.0, 0.0, 0.5], [0.0, 3.0, -1.0, 0.0]]).double()
    theta = Hyperpolicy.draw(rho, 4000, Streams([0, 1]))
    assert theta.shape == (2, 4000, 2)
    assert theta.dtype == torch.float32
    mean, log_std = rho.unsqueeze(1).chunk(2, -1)
    noise = (theta.double() - mean) / log_std.exp()
    for s in range(2):
        assert all(stats.kstest(noise[s, :, j].numpy(), "norm").pvalue > 1e-3 for j in range(2))
        assert abs(np.corrcoef(noise[s].T.numpy())[0, 1]) < 0.08
    assert torch.equal(Hyperpolicy.draw(rho[1:], 4000, Streams([1]))[0], theta[1])


def test_a_fresh_hyperpolicy_has_small_means_no_biases_and_one_deviation() -> None:
    policy = Policy.for_spaces(spaces.Box(-1, 1, (40,)), spaces.Box(-1, 1, (10,)))
    mean, log_std = Hyperpolicy.start(policy, Streams([0, 1]), mean_std=0.02, std=2.0).chunk(2, -1)
    assert (mean[:, 400:] == 0).all()
    assert stats.kstest(mean[:, :400].flatten().numpy() / 0.02, "norm").pvalue > 1e-3
    assert torch.allclose(log_std.exp(), torch.full((2, 410), 2.0).double())
    bare = Policy.for_spaces(spaces.Box(-1, 1, (40,)), spaces.Box(-1, 1, (10,)), bias=False)
    weights = Hyperpolicy.start(bare, Streams([0, 1]), mean_std=0.02, std=2.0).chunk(2, -1)[0]
    assert (weights != 0).all()
    assert weights.shape == (2, 400)


# -- the loop ----------------------------------------------------------------------------------------------------------


def search_for(kind: str, seeds: tuple[int, ...] = (0, 1), *, batches: int = 4) -> Search:
    policy = cartpole_policy(reference=kind == "action")
    one: NaturalPGPE | POIS
    if kind == "pgpe":
        one = pgpe(seeds, policy)
    elif kind == "parameter":
        one = POIS(policy, POISConfig(episodes=8), seeds)
    else:
        one = POIS(policy, POISConfig.action_based(episodes=8), seeds)
    return Search(one, environment("CartPole-v1", 8 * len(seeds)), batches=batches)


KINDS = pytest.mark.parametrize("kind", ["pgpe", "parameter", "action"])


@KINDS
def test_curves_are_the_mean_returns_of_each_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    search, played = search_for(kind), []

    def watched(*args: Any, **kwargs: Any) -> Any:
        played.append(rollout(*args, **kwargs))
        return played[-1]

    monkeypatch.setattr("mindworks.policies.search.rollout", watched)
    assert not search.done
    for batch in range(1, 5):
        search.advance()
        assert search.step == batch
        assert search.metrics()["return"] == [curve[-1] for curve in search.curves]
        assert search.history[-1] == search.search.metrics
    assert search.done
    assert len(played) == len(search.history) == 4
    for batch, episodes in enumerate(played):
        for s in range(2):
            mean = sum(episodes.returns[8 * s : 8 * s + 8].tolist()) / 8
            assert search.curves[s][batch] == pytest.approx(mean, rel=1e-14)
        # what was not asked for is not recorded
        assert (episodes.rewards.shape[1] > 0) == (kind == "action")
    assert search.search.episodes_told.tolist() == [32, 32]
    lengths = [sum(int(episodes.lengths[8 * s : 8 * s + 8].sum()) for episodes in played) for s in range(2)]
    assert search.search.steps_told.tolist() == lengths


@KINDS
def test_a_search_resumes_bit_for_bit_in_the_middle(kind: str, tmp_path: Path) -> None:
    whole = search_for(kind)
    whole.advance()
    whole.advance()
    checkpoint.save(tmp_path, whole.state())
    resumed = search_for(kind)
    resumed.load(checkpoint.load(tmp_path))
    assert resumed.step == 2
    assert_same(resumed.state(), whole.state())
    for search in (resumed, whole):
        while not search.done:
            search.advance()
    assert_same(resumed.state(), whole.state())
    assert resumed.curves == whole.curves
    assert whole.step == 4


@KINDS
def test_a_seed_gives_its_numbers_again_and_other_seeds_other_ones(kind: str) -> None:
    first, again, other = (search_for(kind, seeds, batches=2) for seeds in ((0, 1), (0, 1), (0, 2)))
    before = torch.get_rng_state()
    for search in (first, again, other):
        while not search.done:
            search.advance()
    assert_same(first.state(), again.state())
    assert first.curves[0] == other.curves[0]
    assert first.curves[1] != other.curves[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_stochastic_actor_draws_does_not_move_the_seeds_of_episodes() -> None:
    """Otherwise the seeds of the next batch would depend on how long the episodes of other seeds last."""
    one = search_for("action").search
    act = one.actor(one.ask())
    state = one.streams.state()
    for _ in range(7):
        act(np.zeros((16, 4), np.float32), np.ones(16, bool))
    assert_same(one.streams.state()["numpy"], state["numpy"])
    drawn = [one.actor(one.ask())(np.zeros((16, 4), np.float32), np.ones(16, bool)).tolist() for _ in range(4)]
    assert len(set(map(tuple, drawn))) > 1


def test_an_evaluation_of_the_mode_draws_nothing() -> None:
    one = search_for("action").search
    state = one.streams.state()
    one.actor(one.theta, stochastic=False)(np.zeros((2, 4), np.float32), np.ones(2, bool))
    assert_same(one.streams.state(), state)


# -- bad input ---------------------------------------------------------------------------------------------------------


def loaded() -> None:
    other = pgpe((0, 1, 2))
    pgpe().load(other.state())


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: pgpe(lr=0.0), "lr.*0.0"),
        (lambda: pgpe(lr=-1.0), "lr.*-1.0"),
        (lambda: pgpe(initial_std=0.0), "initial_std.*0.0"),
        (lambda: pgpe(initial_mean_std=-1.0), "initial_mean_std.*-1.0"),
        (lambda: pgpe(episodes=1), "episodes.*2.*1"),
        (lambda: pgpe(()), "seeds"),
        (lambda: pgpe((0, -3)), "seeds.*-3"),
        (lambda: Search(pgpe(policy=cartpole_policy()), environment("CartPole-v1", 15), batches=1), "env.*16.*15"),
        (lambda: Search(pgpe(policy=cartpole_policy()), environment("CartPole-v1", 16), batches=0), "batches.*0"),
        (lambda: pgpe().tell(torch.zeros(2, 8, 3), episodes_by_hand([[1.0]] * 15)), "episodes.*16.*15"),
        (loaded, r"rho.*\[2, 6\].*\[3, 6\]"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make: Any, names: str) -> None:
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
