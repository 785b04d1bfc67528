"""The closed forms: each holds for the iteration, and each says so when the iteration is wrong."""

from __future__ import annotations

import itertools

import pytest
import torch

from mindworks.core.finite_mdp import DeterministicMDP
from mindworks.errors import InputError
from mindworks.tabular import RewardWeightedRegression, rwr, rwr_laws
from mindworks.tabular.rwr_laws import (
    PEAK,
    PLATEAU,
    TWO_PEAKS,
    bandit_errors,
    bandit_policy,
    bandits,
    seeded_policies,
    tie_errors,
    tree,
    tree_limit,
)

SEEDS = [100, 101, 102]


def test_the_bandits_are_what_they_say():
    mdp, action, width = bandits(1001, SEEDS)
    reward = mdp.reward[:, :, 0]
    assert reward.shape == (3, 3, 1001)
    assert float(action[1] - action[0]) == pytest.approx(0.001)
    assert (width >= 0.05).all()
    assert (width <= 0.08).all()
    assert ((reward == 1)[:, PLATEAU].double().mean(-1) - 0.2).abs().max() < 0.002
    at_quarter = torch.exp(-((action[300] - 0.25) ** 2) / (2 * width[:, 2] ** 2))
    torch.testing.assert_close(reward[:, TWO_PEAKS, 300], at_quarter, rtol=1e-12, atol=0)
    spread = reward[:, PEAK].sum(-1) * 0.001
    torch.testing.assert_close(spread, width[:, 0] * (2 * torch.pi) ** 0.5, rtol=1e-3, atol=0)


def test_the_power_law_is_n_products():
    reward = torch.tensor([0.5, 1.0, 0.25], dtype=torch.float64)
    policy = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    wanted = policy * reward * reward * reward
    torch.testing.assert_close(bandit_policy(policy, reward, 3), wanted / wanted.sum(), rtol=1e-14, atol=0)


def test_rwr_keeps_every_law():
    for name, error in bandit_errors(1001, 150, SEEDS).items():
        assert (name == "gap" and error.shape == (3, 151)) or error.max() <= 1e-9, name
    for name, error in tie_errors(200, SEEDS).items():
        assert error.shape == (3,)
        assert error.abs().max() <= 1e-9, name


def test_another_iteration_breaks_the_laws(monkeypatch):
    def greedier(mdp, policy):
        value = mdp.state_value(policy)
        q = mdp.action_value(value)
        new = policy * torch.where(q > 0, q, 1e-300) ** 1.01
        return new / new.sum(-1, keepdim=True), value

    monkeypatch.setattr(rwr, "rwr_step", greedier)
    bandit, ties = bandit_errors(1001, 150, SEEDS), tie_errors(200, SEEDS)
    assert bandit["density"].min() > 1e-3
    assert bandit["value"].min() > 1e-6
    assert ties["root"].min() > 1e-6


def test_uniform_probabilities_would_break_what_depends_on_the_start():
    mdp = tree(SEEDS)
    first = seeded_policies(mdp, SEEDS)
    ends = [RewardWeightedRegression(mdp).run(policy, 200) for policy in (first, mdp.uniform_policy())]
    assert (ends[0].policy[:, 0] - ends[1].policy[:, 0]).abs().amax() > 0.05
    for end in ends:
        torch.testing.assert_close(end.values[-1, :, 0], mdp.optimal_value()[:, 0], rtol=0, atol=1e-12)


def test_the_limit_of_a_tree_is_counted_path_by_path():
    mdp = tree([7])
    first = seeded_policies(mdp, [7])
    root, arms = tree_limit(mdp, first)
    mass = torch.zeros(4, 4, dtype=torch.float64)
    for a, b in itertools.product(range(4), range(4)):
        if mdp.reward[0, 1 + a, b] == 1:
            mass[a, b] = first[0, 0, a] * first[0, 1 + a, b]
    mass /= mass.sum()
    torch.testing.assert_close(root[0], mass.sum(-1), rtol=1e-14, atol=0)
    for a in range(4):
        if mass[a].sum() > 0:
            torch.testing.assert_close(arms[0, a], mass[a] / mass[a].sum(), rtol=1e-14, atol=0)
        else:
            assert arms[0, a].isnan().all()


def test_trees_have_several_ways_to_the_optimum():
    mdp = tree(list(range(20)))
    assert isinstance(mdp, DeterministicMDP)
    assert (mdp.optimal_actions()[:, 0].sum(-1) >= 2).all()
    assert (mdp.optimal_value()[:, 0] == 0.9).all()
    assert (mdp.optimal_value()[:, -1] == 0).all()
    assert torch.equal(tree([5]).reward[0], mdp.reward[5])


def test_seeds_do_not_depend_on_company():
    together = bandit_errors(1001, 100, SEEDS)
    alone = bandit_errors(1001, 100, SEEDS[1:2])
    for name in ("density", "value", "share"):
        torch.testing.assert_close(alone[name][0], together[name][1], rtol=1e-6, atol=1e-18)
    mdp = tree(SEEDS)
    policies = seeded_policies(mdp, SEEDS, 2)
    assert torch.equal(seeded_policies(tree(SEEDS[2:]), SEEDS[2:], 2)[0], policies[2])


def test_too_few_iterations_are_refused():
    with pytest.raises(InputError, match=r"iterations.*99"):
        rwr_laws.bandit_errors(1001, 99, SEEDS)
