"""Runs of highway value iteration and highway policy iteration: what they keep, when they stop, how far they get."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mindworks.core.finite_mdp import MDP, FiniteMDP, chain, four_rooms, garnet
from mindworks.errors import InputError
from mindworks.tabular.highway import (
    highway,
    highway_policy_iteration,
    highway_value_iteration,
    induce,
    n_step,
)

ROUNDING = 1e-11  # values are of order 10


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def forward(mdp: MDP, probability: float = 1.0) -> Tensor:
    """The set `[1, S, 2]` of the one policy on a chain that takes the action forward with this probability."""
    return torch.tensor([1 - probability, probability], dtype=torch.float64).expand(1, mdp.num_states, 2)


def one_of(mdp: FiniteMDP, *index: int) -> FiniteMDP:
    return FiniteMDP(mdp.transition[index], mdp.reward[index], mdp.discount)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


def below(low: Tensor, high: Tensor) -> bool:
    return bool((low <= high + ROUNDING).all())


def norm(value: Tensor) -> Tensor:
    return value.abs().amax(-1)


# -- value iteration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "lookahead"), [(20, 1), (20, 4), (50, 7), (50, 49)])
def test_along_a_good_policy_the_reward_travels_a_lookahead_per_sweep(length, lookahead):
    mdp = chain(length, discount=0.99)
    run = highway_value_iteration(mdp, forward(mdp), lookahead, sweeps=60, keep=True)
    errors = run.errors()
    needed = math.ceil((length - 1) / lookahead)  # the first state is length - 1 moves from the reward
    assert (errors[:needed] > 0.1).all()
    assert errors[needed] < 1e-14
    assert len(run.changes) == needed + 1  # the sweep that changes nothing is the last


def test_a_run_keeps_what_it_says():
    mdp = garnet(3, 5, 2, discount=0.9, seeds=[0, 1])
    policies = mdp.random_policy((2, 3, 2), torch.Generator().manual_seed(0))
    run = highway_value_iteration(mdp, policies, 3, sweeps=6, keep=True)
    assert run.values.shape == (7, 2, 3, 5)
    assert run.changes.shape == (6, 2, 3)
    assert torch.equal(run.values[3], highway(mdp, policies, run.values[2], 3))
    assert torch.equal(run.changes[2], norm(run.values[3] - run.values[2]))
    gap = run.values - mdp.optimal_value()
    assert torch.equal(run.errors(), norm(gap))
    assert torch.equal(run.bias(), gap.mean(-1))
    # what the docstring promises of the last error
    assert below(run.errors()[1:], 9 * run.changes)
    last = highway_value_iteration(mdp, induce(mdp, policies), 3, sweeps=6)
    assert torch.equal(last.values, run.values[-1:])
    assert torch.equal(last.value, run.value)
    still = highway_value_iteration(mdp, policies, 3, sweeps=0)
    assert torch.equal(still.value, torch.zeros(2, 3, 5, dtype=torch.float64))
    assert still.changes.shape == (0, 2, 3)


def test_each_process_stops_by_itself():
    mdp = garnet(4, 5, 2, discount=0.9, seeds=[3])
    policies = mdp.random_policy((1, 4, 2), torch.Generator().manual_seed(0))
    together = highway_value_iteration(mdp, policies, 3, tolerance=1e-3, keep=True)
    ends = (together.changes > 0).sum(0)[0]
    assert len(set(ends.tolist())) > 1
    for i in range(4):
        alone = highway_value_iteration(one_of(mdp, 0, i), policies[0, i], 3, tolerance=1e-3)
        close(alone.value, together.value[0, i])
        assert len(alone.changes) == ends[i]
        assert 0 < alone.changes[-1] <= 1e-3 < alone.changes[-2]
        assert alone.errors()[-1] <= 9e-3


# -- policy iteration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"memory": 3}, {"sweeps": 3}, {"memory": 0}])
def test_policy_iteration_ends_with_optimal_policies(options):
    mdp = garnet(5, 12, 3, discount=0.95, seeds=[0])
    policies = mdp.random_policy((1, 5, 1), torch.Generator().manual_seed(0))
    run = highway_policy_iteration(mdp, policies, 8, **options)
    assert (run.gaps[-1] == 0).all()
    close(mdp.state_value(run.policy), mdp.optimal_value())
    assert run.values.shape == (len(run.gaps), 1, 5, 12)
    assert (run.rounds() == (run.gaps > 0).sum(0)).all()
    assert run.rounds().max() == len(run.gaps) - 1


def test_policy_iteration_without_memory_is_value_iteration():
    mdp = garnet(2, 8, 3, discount=0.95, seeds=[5])
    policies = mdp.random_policy((1, 2, 2), torch.Generator().manual_seed(0))
    rounds = highway_policy_iteration(mdp, policies, 4, sweeps=2, memory=0, rounds=3).values
    sweeps = highway_value_iteration(mdp, policies, 4, sweeps=6, keep=True).values
    assert len(rounds) > 1
    assert torch.equal(rounds, sweeps[::2][: len(rounds)])


def test_the_lookahead_along_the_greedy_policy_evaluates_it():
    mdp = garnet(1, 8, 3, discount=0.9, seeds=[6])
    behavior = mdp.random_policy((1,), torch.Generator().manual_seed(0))
    start = normal(8, seed=1) - 20  # below its backup or not, below V* for sure
    run = highway_policy_iteration(mdp, behavior, 300, start=start, rounds=1)
    one_hot = torch.nn.functional.one_hot(mdp.action_value(start).argmax(-1), 3).double()
    assert below(mdp.state_value(one_hot) - 30 * 0.9**300, run.values[1])
    assert below(run.values[1], mdp.optimal_value())


@pytest.mark.parametrize("memory", [1, 2, 9])
def test_the_set_holds_the_behaviors_and_the_newest_greedy_policies(memory):
    mdp = one_of(garnet(1, 12, 4, discount=0.97, seeds=[0], branching=2), 0, 0)
    policies = mdp.random_policy((2,), torch.Generator().manual_seed(0))
    start = normal(12, seed=5) * 10
    run = highway_policy_iteration(mdp, policies, 3, memory=memory, sweeps=2, start=start)
    value, greedy = start, []
    for expected in run.values[1:]:
        greedy.append(torch.eye(4, dtype=torch.float64)[mdp.action_value(value).argmax(-1)].unsqueeze(0))
        group = torch.cat([policies, *greedy[-memory:]])
        for _ in range(2):
            value = highway(mdp, group, value, 3)
        close(value, expected)
    assert len(run.values) > 3


def test_policy_iteration_on_a_chain():
    mdp = chain(30, discount=0.95)
    # nothing is known at first and equal actions go back, so that only a greedy step carries the reward in each round
    assert int(highway_policy_iteration(mdp, forward(mdp, 0.0), 40).rounds()) == 28
    assert int(highway_policy_iteration(mdp, forward(mdp), 40).rounds()) == 1
    assert int(highway_policy_iteration(mdp, forward(mdp, 0.0), 40, rounds=5).rounds()) == -1


def test_processes_stop_as_they_would_alone():
    mdp = garnet(5, 12, 3, discount=0.95, seeds=[0])
    policies = mdp.random_policy((1, 5, 1), torch.Generator().manual_seed(0))
    together = highway_policy_iteration(mdp, policies, 8, memory=0)
    assert len(set(together.rounds()[0].tolist())) > 1
    for i in range(5):
        alone = highway_policy_iteration(one_of(mdp, 0, i), policies[0, i], 8, memory=0)
        assert alone.rounds() == together.rounds()[0, i]
        close(alone.values[-1], together.values[-1, 0, i])
        assert torch.equal(alone.policy, together.policy[0, i])


def test_nothing_to_do_takes_no_round():
    mdp = four_rooms()
    run = highway_policy_iteration(mdp, mdp.uniform_policy().unsqueeze(0), 4, start=mdp.optimal_value())
    assert run.values.shape == (1, 68)
    assert int(run.rounds()) == 0


# -- bad input --------------------------------------------------------------------------------------------------------

MDP3 = chain(3, discount=0.5)
PI, V0 = forward(MDP3), torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: highway_value_iteration(MDP3, PI, 4, operator=n_step), r"operator.*\[3\].*\[1, 3\].*over"),
        (lambda: highway_value_iteration(MDP3, PI, 4, sweeps=-1), "sweeps.*-1"),
        (lambda: highway_value_iteration(MDP3, PI, 4, tolerance=-0.5), "tolerance.*-0.5"),
        (lambda: highway_value_iteration(MDP3, PI, 4, start=V0 / 0), "start.*finite"),
        (lambda: highway_policy_iteration(MDP3, PI, 4, sweeps=0), "sweeps.*1.*0"),
        (lambda: highway_policy_iteration(MDP3, PI, 4, memory=-1), "memory.*-1"),
        (lambda: highway_policy_iteration(MDP3, PI, 4, rounds=-1), "rounds.*-1"),
    ],
)
def test_bad_input_is_refused_with_the_reason(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
