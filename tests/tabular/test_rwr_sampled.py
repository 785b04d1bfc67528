"""RWR from samples against its exact weights, and its fits against maximum likelihood."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mindworks.core.finite_mdp import DeterministicMDP, FiniteMDP, chain, garnet
from mindworks.errors import InputError
from mindworks.tabular import (
    LinearSoftmax,
    RewardWeightedRegression,
    SampledRWR,
    SoftmaxFit,
    rwr_step,
    rwr_weights,
    tabular_fit,
)

START = torch.full((5,), 0.2, dtype=torch.float64)


def process(*seeds: int, discount: float = 0.6) -> FiniteMDP:
    """Random processes `[seeds]` of 5 states and 3 actions with rewards |N(0, 1)|."""
    made = garnet(1, 5, 3, discount=discount, seeds=seeds, branching=2)
    return FiniteMDP(made.transition[:, 0], made.reward[:, 0].abs(), discount)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_weights_are_unbiased_but_for_the_truncation():
    mdp = process(0)
    policy = mdp.random_policy((1,), generators(1)[0])
    exact = rwr_weights(mdp, policy, START)
    method = SampledRWR(mdp, START, episodes=500, horizon=30)
    assert method.truncation < 1e-4
    found = torch.stack([method.weights(policy, generator) for generator in generators(*range(60))])
    error, deviation = found.mean(0) - exact, found.std(0) / 60**0.5
    assert (error.abs() <= 4.5 * deviation + method.truncation).all()
    assert ((error / deviation).square().mean() - 1).abs() < 0.9  # the spread is that of chance, not of a bug


def test_a_short_horizon_loses_no_more_than_it_says():
    mdp = process(2)
    policy = mdp.uniform_policy()
    exact = rwr_weights(mdp, policy, START).sum()
    method = SampledRWR(mdp, START, episodes=20_000, horizon=4)
    lost = float(exact - method.weights(policy, generators(0)[0]).sum())
    assert 0.05 < lost <= method.truncation
    shorter = SampledRWR(mdp, START, episodes=20_000, horizon=3)
    assert shorter.truncation > method.truncation


def test_the_default_horizon_follows_the_discount():
    assert SampledRWR(process(0), START, episodes=1).horizon == math.ceil(math.log(1e-6) / math.log(0.6))
    assert SampledRWR(process(0, discount=0.0), START, episodes=1).horizon == 1
    assert SampledRWR(process(0, discount=0.0), START, episodes=1).truncation == 0
    assert SampledRWR(process(0, discount=1e-9), START, episodes=1).horizon == 1


def test_one_step_nears_the_exact_one_like_the_root_of_the_episodes():
    mdp = process(0, 1, 2, 3)
    policy = mdp.random_policy((4,), generators(5)[0])
    exact, _ = rwr_step(mdp, policy)
    counts, errors = (200, 800, 3200), []
    for count in counts:
        method = SampledRWR(mdp, START, episodes=count)
        steps = torch.stack([method.step(policy, generator) for generator in generators(*range(8))])
        errors.append(float((steps - exact).square().mean().sqrt().log()))
    logs = torch.tensor(counts).double().log()
    centered = logs - logs.mean()
    slope = float((centered * torch.tensor(errors)).sum() / centered.square().sum())
    assert slope == pytest.approx(-0.5, abs=0.05)
    assert math.exp(errors[-1]) < 0.04


def test_a_run_stays_near_the_exact_one():
    mdp = process(0, 1)
    policy = mdp.random_policy((2,), generators(5)[0])
    exact = RewardWeightedRegression(mdp).run(policy, 10)
    found = SampledRWR(mdp, START, episodes=8000).run(policy, 10, generators(0)[0])
    assert found.values.shape == exact.values.shape == (11, 2, 5)
    assert torch.equal(found.values[0], exact.values[0])
    torch.testing.assert_close(found.values, exact.values, rtol=0, atol=0.05)
    torch.testing.assert_close(found.values[-1], mdp.state_value(found.policy), rtol=1e-14, atol=0)
    assert not torch.equal(found.policy, exact.policy)


def test_the_same_generators_give_the_same_numbers_alone_or_in_company():
    mdp, policy = process(0), process(0).random_policy((3,), generators(5)[0])
    method = SampledRWR(mdp, START, episodes=40)
    together = method.run(policy, 3, generators(7, 8, 9)).policy
    assert torch.equal(together, method.run(policy, 3, generators(7, 8, 9)).policy)
    alone = method.run(policy[1:2], 3, generators(8)).policy
    torch.testing.assert_close(alone[0], together[1], rtol=1e-12, atol=0)
    assert not torch.equal(together, method.run(policy, 3, generators(1, 8, 9)).policy)


def test_both_forms_of_a_process_give_the_same_samples():
    successor = torch.randint(5, (2, 5, 3), generator=generators(0)[0])
    index = DeterministicMDP(successor, torch.rand(2, 5, 3, dtype=torch.float64), 0.7)
    policy = index.uniform_policy()
    found = [SampledRWR(mdp, START, episodes=30).weights(policy, generators(4)[0]) for mdp in (index, index.dense())]
    assert torch.equal(found[0], found[1])


def test_what_was_not_visited_keeps_its_row_and_what_was_not_tried_is_lost():
    mdp = chain(6, discount=0.9)
    policy = mdp.uniform_policy()
    start = torch.tensor([0, 0, 0, 1.0, 0, 0], dtype=torch.float64)
    found = SampledRWR(mdp, start, episodes=60, horizon=2).step(policy, generators(0)[0])
    assert torch.equal(found[[0, 1, 2, 5]], policy[[0, 1, 2, 5]])
    assert found[3:5].tolist() == [[0.0, 1.0], [0.0, 1.0]]  # only the way forward was rewarded within the horizon


def test_a_table_is_its_weights_over_their_sum():
    weights = torch.tensor([[1.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    policy = torch.tensor([[0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
    assert tabular_fit(weights, policy).tolist() == [[0.25, 0.75], [0.2, 0.8]]


# -- function approximation -------------------------------------------------------------------------------------------


def test_one_hot_features_make_the_table():
    weights = torch.rand(4, 5, 3, generator=generators(0)[0], dtype=torch.float64) + 0.1
    fit = SoftmaxFit(LinearSoftmax(5, 3, leading=(4,)), torch.eye(5, dtype=torch.float64), steps=400)
    assert torch.equal(fit.policy(), torch.full((4, 5, 3), 1 / 3, dtype=torch.float64))
    found = fit(weights, fit.policy())
    torch.testing.assert_close(found, tabular_fit(weights, found), rtol=0, atol=1e-6)
    assert torch.equal(found, fit.policy())


def test_shared_features_fulfil_the_equations_of_maximum_likelihood():
    features = torch.randn(5, 2, generator=generators(1)[0], dtype=torch.float64)
    weights = torch.rand(2, 5, 3, generator=generators(0)[0], dtype=torch.float64)
    fit = SoftmaxFit(LinearSoftmax(2, 3, leading=(2,)), features, steps=400)
    found = fit(weights, fit.policy())
    # the gradient: sum_s x(s) (w(s, a) - w(s) pi(a|s)) = 0
    gradient = features.mT @ (weights - weights.sum(-1, keepdim=True) * found)
    assert gradient.abs().max() < 1e-6
    assert (features.mT @ (weights - weights.sum(-1, keepdim=True) / 3)).abs().max() > 0.05


def test_any_module_can_be_the_policy():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    mdp = process(0)
    single = FiniteMDP(mdp.transition[0], mdp.reward[0], 0.6)
    fit = SoftmaxFit(net, torch.eye(5, dtype=torch.float64), steps=60)
    found = SampledRWR(single, START, episodes=4000, fit=fit).run(fit.policy(), 15, generators(0)[0])
    assert torch.equal(found.policy, fit.policy())
    best, first, last = (float(value @ START) for value in (single.optimal_value(), found.values[0], found.values[-1]))
    assert last > first + 0.8 * (best - first)


def test_with_few_features_the_start_value_rises_though_states_may_fall():
    mdp = process(3)
    single = FiniteMDP(mdp.transition[0], mdp.reward[0], 0.6)
    features = torch.ones(5, 1, dtype=torch.float64)  # one row for all states
    fit = SoftmaxFit(LinearSoftmax(1, 3), features, steps=100)
    policy, values = fit.policy(), []
    for _ in range(60):
        values.append(single.state_value(policy))
        policy = fit(rwr_weights(single, policy, START), policy)
    value = torch.stack(values)
    assert (value[1:] @ START - value[:-1] @ START).min() >= -1e-10
    assert (value[:-1] - value[1:]).max() > 1e-3
    assert float(value[-1] @ START) < 0.99 * float(single.optimal_value() @ START)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: SampledRWR(process(0), START, episodes=0), "episodes.*0"),
        (lambda: SampledRWR(process(0), START, episodes=1, horizon=0), "horizon.*0"),
        (lambda: SampledRWR(process(0), START[:4], episodes=1), "start.*4"),
        (lambda: SampledRWR(process(0), START * 1.1, episodes=1), "start.*0.1"),
        (lambda: SampledRWR(garnet(1, 5, 3, discount=0.5, seeds=[0]), START, episodes=1), "reward.*negative"),
        (lambda: SoftmaxFit(nn.Linear(1, 1), START, steps=0), "steps.*0"),
        (
            lambda: SoftmaxFit(LinearSoftmax(1, 3), torch.ones(5, 1).double())(torch.ones(2, 5, 3), START),
            r"model.*\[2, 5, 3\].*\[5, 3\]",
        ),
        (
            lambda: SampledRWR(process(0, 1), START, episodes=1).step(process(0).uniform_policy(), generators(1)),
            "generator.*2.*1",
        ),
        (
            lambda: SampledRWR(process(0), START, episodes=1).run(process(0).uniform_policy(), -1, generators(1)),
            "iterations.*-1",
        ),
        (
            lambda: SampledRWR(process(0), START, episodes=1).run(torch.eye(5, 3).double(), 1, generators(1)),
            "policy.*support",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
