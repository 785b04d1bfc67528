"""The operators against a loop over states, policies and depths, their laws on random processes, and chains by hand."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mindworks.core.finite_mdp import MDP, DeterministicMDP, FiniteMDP, chain, garnet
from mindworks.errors import InputError
from mindworks.tabular.highway import (
    expectation,
    highway,
    highway_value_iteration,
    induce,
    mixture,
    n_step,
    optimality,
    soft_highway,
    ungated,
)

ROUNDING = 1e-11  # values are of order 10
examples = settings(max_examples=25, deadline=None)


def rows(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def forward(mdp: MDP, probability: float = 1.0) -> Tensor:
    """The set `[1, S, 2]` of the one policy on a chain that takes the action forward with this probability."""
    return rows(1 - probability, probability).expand(1, mdp.num_states, 2)


def one_of(mdp: FiniteMDP, *index: int) -> FiniteMDP:
    return FiniteMDP(mdp.transition[index], mdp.reward[index], mdp.discount)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


def below(low: Tensor, high: Tensor) -> bool:
    return bool((low <= high + ROUNDING).all())


def norm(value: Tensor) -> Tensor:
    return value.abs().amax(-1)


@st.composite
def cases(draw) -> tuple[FiniteMDP, Tensor, int]:
    """Random processes `[1, 2]`, policies `[1, 2, M, S, A]` of which the first is deterministic or not, a lookahead."""
    states, actions, count, seed = (draw(st.integers(low, high)) for low, high in ((2, 6), (1, 3), (1, 3), (0, 999)))
    discount = draw(st.sampled_from([0.0, 0.5, 0.9]))
    mdp = garnet(2, states, actions, discount=discount, seeds=[seed], branching=draw(st.integers(1, states)))
    policies = mdp.random_policy((1, 2, count), torch.Generator().manual_seed(seed))
    if draw(st.booleans()):
        sure = torch.nn.functional.one_hot(policies[:, :, 0].argmax(-1), actions).double()
        policies = torch.cat([sure.unsqueeze(2), policies[:, :, 1:]], 2)
    return mdp, policies, draw(st.integers(1, 6))


SOFT = [0.0, 0.3, 5.0, 1000.0, math.inf]


# -- the definitions --------------------------------------------------------------------------------------------------


def plain_depths(mdp: FiniteMDP, policies: Tensor, value: Tensor, lookahead: int) -> list[list[list[float]]]:
    """y_k of every policy and state, `[M][n][S]`, for one process, one number at a time."""
    P, r, states, actions = mdp.transition.tolist(), mdp.reward.tolist(), mdp.num_states, mdp.num_actions

    def q(v: list[float], s: int, a: int) -> float:
        return r[s][a] + mdp.discount * sum(P[s][a][t] * v[t] for t in range(states))

    found = []
    for pi in policies.tolist():
        v = [max(q(value.tolist(), s, a) for a in range(actions)) for s in range(states)]
        ahead = [v]
        for _ in range(lookahead - 1):
            v = [sum(pi[s][a] * q(v, s, a) for a in range(actions)) for s in range(states)]
            ahead.append(v)
        found.append(ahead)
    return found


def test_operators_are_what_a_loop_over_everything_gives():
    mdp = one_of(garnet(1, 4, 3, discount=0.9, seeds=[3]), 0, 0)
    policies, value, n = mdp.random_policy((2,), torch.Generator().manual_seed(1)), normal(4, seed=2), 4
    y = torch.tensor(plain_depths(mdp, policies, value, n), dtype=torch.float64)  # [M, n, S]
    greedy = y[0, 0]
    close(optimality(mdp, value), greedy)
    for m in range(2):
        close(expectation(mdp, policies[m], greedy), y[m, 1])
    close(n_step(mdp, policies, value, n), y[:, 3])
    close(n_step(mdp, policies, value, n, over="max"), y[:, 3].amax(0))
    close(n_step(mdp, policies, value, n, over="mean"), (y[0, 3] + y[1, 3]) / 2)
    close(mixture(mdp, policies, value, n), y.sum(1) / 4)
    weights = rows(0.3, 0.7 * 0.3, 0.49 * 0.3, 0.343)
    close(mixture(mdp, policies, value, n, lam=0.7), (weights[:, None] * y).sum(1))
    close(mixture(mdp, policies, value, n, lam=0.7, over="max"), (weights[:, None] * y).sum(1).amax(0))
    close(highway(mdp, policies, value, n), y.amax((0, 1)))
    close(highway(mdp, policies, value, n, depths=[4, 2]), torch.maximum(y[:, [1, 3]].amax((0, 1)), greedy))
    gated = torch.maximum(y, greedy).flatten(0, 1)
    assert (gated != y.flatten(0, 1)).any()  # the gate is at work
    mean = (gated * (2.0 * gated).exp()).sum(0) / (2.0 * gated).exp().sum(0)
    close(soft_highway(mdp, policies, value, n, sharpness=2.0), mean)
    some = torch.maximum(y[:, [1, 3]], greedy).flatten(0, 1)
    mean = (some * (2.0 * some).exp()).sum(0) / (2.0 * some).exp().sum(0)
    close(soft_highway(mdp, policies, value, n, sharpness=2.0, depths=(2, 4)), mean)
    power = [expectation(mdp, pi, value) for pi in policies]
    seen = list(power)
    for _ in range(n - 1):
        power = [expectation(mdp, pi, v) for pi, v in zip(policies, power, strict=True)]
        seen += power
    close(ungated(mdp, policies, value, n), torch.stack(seen).amax(0))


def test_a_chain_by_hand():
    mdp = chain(3, discount=0.5)  # V* = 1/2, 1, 0
    behavior, zero = forward(mdp, 0.8), rows(0, 0, 0)
    close(optimality(mdp, zero), rows(0, 1, 0))
    close(n_step(mdp, behavior, zero, 2)[0], rows(0.4, 0.8, 0))  # 0.5 x 0.8 x 1; 0.8 x 1 + 0.5 x 0.2 x 0
    close(highway(mdp, behavior, zero, 2), rows(0.4, 1, 0))
    close(highway(mdp, forward(mdp), zero, 2), rows(0.5, 1, 0))
    close(soft_highway(mdp, behavior, zero, 2, sharpness=0.0), rows(0.2, 1, 0))
    close(soft_highway(mdp, behavior, zero, 2, sharpness=1.0), rows(0.4 / (1 + math.exp(-0.4)), 1, 0))
    close(mixture(mdp, behavior, zero, 2)[0], rows(0.2, 0.9, 0))
    close(ungated(mdp, behavior, zero, 2), rows(0.32, 0.8, 0))  # B^pi 0 = 0, 0.8; 0.5 x 0.8 x 0.8
    # V1 = 0.8 + 0.2 x 0.5 x (0.5 V1), V0 = 0.5 (0.8 + 0.2 x 0.5 V1)
    last = highway_value_iteration(mdp, behavior, 2, operator=partial(n_step, over="max"), sweeps=200).value
    close(last, rows(0.4 + 0.05 * 0.8 / 0.95, 0.8 / 0.95, 0))
    # who always goes back never brings the reward further than one greedy step
    last = highway_value_iteration(mdp, forward(mdp, 0.0), 2, operator=partial(n_step, over="max"), sweeps=200).value
    close(last, zero)
    close(highway_value_iteration(mdp, forward(mdp, 0.0), 2).value, rows(0.5, 1, 0))


def test_depths_that_are_left_out_do_not_count():
    mdp, zero = chain(3, discount=0.5), rows(0, 0, 0)
    there_and_back = torch.stack([rows(0, 1), rows(1, 0), rows(1, 0)]).unsqueeze(0)
    # y_1 = 0, 1, 0; y_2 = 1/2, 0, 0; y_3 = 0, 1/4, 0
    close(highway(mdp, there_and_back, zero, 3), rows(0.5, 1, 0))
    close(highway(mdp, there_and_back, zero, 3, depths=[1, 3]), rows(0, 1, 0))
    close(highway(mdp, there_and_back, zero, 3, depths=[3]), rows(0, 1, 0))
    close(soft_highway(mdp, there_and_back, zero, 3, sharpness=0.0), rows(0.5 / 3, 1, 0))
    close(soft_highway(mdp, there_and_back, zero, 3, sharpness=0.0, depths=[2, 3]), rows(0.25, 1, 0))
    close(soft_highway(mdp, there_and_back, zero, 3, sharpness=0.0, depths=[1, 3]), rows(0, 1, 0))


# -- the laws of the highway ------------------------------------------------------------------------------------------


@examples
@given(cases(), st.integers(0, 99))
def test_the_highway_contracts_and_is_monotone(case, seed):
    mdp, policies, n = case
    first, second = normal(2, 1, 2, mdp.num_states, seed=seed) * 5
    apart = norm(highway(mdp, policies, first, n) - highway(mdp, policies, second, n))
    assert below(apart, mdp.discount * norm(first - second))
    higher = first + second.abs()
    assert below(highway(mdp, policies, first, n), highway(mdp, policies, higher, n))


@examples
@given(cases(), st.integers(0, 99), st.sampled_from(SOFT))
def test_hard_and_soft_lead_to_the_optimum(case, seed, sharpness):
    mdp, policies, n = case
    best, value = mdp.optimal_value(), normal(1, 2, mdp.num_states, seed=seed) * 5
    soft = soft_highway(mdp, policies, value, n, sharpness=sharpness)
    hard = highway(mdp, policies, value, n)
    assert below(optimality(mdp, value), soft)
    assert below(soft, hard)
    for operator in (highway, partial(soft_highway, sharpness=sharpness)):
        close(operator(mdp, policies, best, n), best)
        assert below(norm(operator(mdp, policies, value, n) - best), mdp.discount * norm(value - best))


@examples
@given(cases(), st.sets(st.integers(1, 6), min_size=1), st.sampled_from(SOFT))
def test_from_below_values_rise_past_value_iteration_and_never_above_the_optimum(case, depths, sharpness):
    mdp, policies, n = case
    depths = [k for k in depths if k <= n] or [n]
    low = mdp.reward.amin((-2, -1), keepdim=True).squeeze(-1) / (1 - mdp.discount)
    start = low.expand(1, 2, mdp.num_states)
    assert below(start, optimality(mdp, start))
    hard = highway_value_iteration(
        mdp, policies, n, operator=partial(highway, depths=depths), start=start, sweeps=8, keep=True
    ).values
    assert below(hard[:-1], hard[1:])
    soft = highway_value_iteration(
        mdp, policies, n, operator=partial(soft_highway, sharpness=sharpness), start=start, sweeps=8, keep=True
    ).values
    one = start
    for a, b in zip(hard, soft, strict=False):
        assert below(one, a)
        assert below(one, b)
        assert below(torch.maximum(a, b), mdp.optimal_value())
        one = optimality(mdp, one)


def test_a_start_below_the_optimum_may_fall_at_first_but_stays_below():
    mdp = chain(3, discount=0.5)
    start = rows(0.5, -5, 0)  # below V* = 1/2, 1, 0; but state 0 depended on itself: 0.5 x 0.5
    once = highway(mdp, forward(mdp, 0.0), start, 3)
    close(once, rows(0.25, 1, 0))
    run = highway_value_iteration(mdp, forward(mdp, 0.0), 3, start=start, keep=True)
    assert below(run.values, mdp.optimal_value())
    # V <= G V suffices, V <= B V is not needed: the way forward shows what a single greedy step does not
    start = rows(0.4, 0, 0)
    assert optimality(mdp, start)[0] < start[0]
    assert below(start, highway(mdp, forward(mdp), start, 2))


@examples
@given(cases(), st.integers(0, 99))
def test_one_step_of_lookahead_is_value_iteration(case, seed):
    mdp, policies, _ = case
    value = normal(1, 2, mdp.num_states, seed=seed)
    once = optimality(mdp, value)
    for found in (
        highway(mdp, policies, value, 1),
        soft_highway(mdp, policies, value, 1, sharpness=2.0),
        n_step(mdp, policies, value, 1, over="max"),
        mixture(mdp, policies, value, 1, over="mean"),
        mixture(mdp, policies, value, 1, lam=0.5, over="mean"),
        mixture(mdp, policies, value, 5, lam=0.0, over="max"),
    ):
        close(found, once)
    close(mixture(mdp, policies, value, 5, lam=1.0), n_step(mdp, policies, value, 5))


# -- the rivals -------------------------------------------------------------------------------------------------------

RIVALS = {
    "n_step": partial(n_step, over="max"),
    "n_step_mean": partial(n_step, over="mean"),
    "mixture": partial(mixture, over="max"),
    "peng": partial(mixture, lam=0.9, over="max"),
    "ungated": ungated,
}


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_end_below_the_optimum_unless_the_policies_are_optimal(name):
    mdp = garnet(4, 6, 3, discount=0.9, seeds=[0])
    policies = mdp.random_policy((1, 4, 2), torch.Generator().manual_seed(0))
    run = highway_value_iteration(mdp, policies, 5, operator=RIVALS[name], sweeps=2000, tolerance=1e-13)
    assert (run.bias()[-1] < -0.1).all()  # values are of order 10, and of both signs
    assert below(run.value, mdp.optimal_value())
    optimal = mdp.optimal_actions().double().unsqueeze(2)
    run = highway_value_iteration(mdp, optimal, 5, operator=RIVALS[name], sweeps=2000, tolerance=1e-13)
    close(run.value, mdp.optimal_value())


@examples
@given(cases())
def test_the_fixed_point_of_n_steps_is_never_above_the_optimum(case):
    mdp, policies, n = case
    run = highway_value_iteration(mdp, policies, n, operator=partial(n_step, over="max"), sweeps=400)
    assert below(run.value, mdp.optimal_value())
    close(n_step(mdp, policies, run.value, n, over="max"), run.value)


@pytest.mark.parametrize("lookahead", [1, 2, 9])
def test_without_greedy_steps_the_best_choice_among_the_policies_is_found_whatever_the_lookahead(lookahead):
    mdp = garnet(3, 5, 3, discount=0.8, seeds=[1])
    policies = mdp.random_policy((1, 3, 4), torch.Generator().manual_seed(2))
    induced = induce(mdp, policies)
    assert induced.discounted is not None
    choice = FiniteMDP(induced.discounted.transpose(-3, -2) / 0.8, induced.reward.mT.contiguous(), 0.8)
    run = highway_value_iteration(mdp, policies, lookahead, operator=ungated, tolerance=1e-14)
    close(run.value, choice.optimal_value())


# -- the softmax ------------------------------------------------------------------------------------------------------


def test_sharpness_leads_from_the_mean_to_the_highway():
    mdp = garnet(2, 5, 3, discount=0.9, seeds=[0])
    policies = mdp.random_policy((1, 2, 3), torch.Generator().manual_seed(0))
    value = normal(1, 2, 5)
    hard = highway(mdp, policies, value, 4)
    assert torch.equal(soft_highway(mdp, policies, value, 4, sharpness=math.inf), hard)
    close(soft_highway(mdp, policies, value, 4, sharpness=1e6), hard)
    depths = torch.stack([n_step(mdp, policies, value, k) for k in range(1, 5)], -3)
    gated = torch.maximum(depths, optimality(mdp, value)[..., None, None, :])
    close(soft_highway(mdp, policies, value, 4, sharpness=0.0), gated.mean((-3, -2)))
    softer = [soft_highway(mdp, policies, value, 4, sharpness=x) for x in (0.0, 0.5, 1.0, 2.0, 4.0)]
    for a, b in pairwise(softer):  # d/dx of a softmax mean is a variance
        assert below(a, b)
    moved = FiniteMDP(mdp.transition, mdp.reward + 50, 0.9)  # adds 50 / (1 - 0.9) to every value
    close(
        soft_highway(moved, policies, value + 500, 4, sharpness=2.0),
        soft_highway(mdp, policies, value, 4, sharpness=2.0) + 500,
    )


def test_a_softmax_mean_is_neither_monotone_nor_a_contraction_though_it_converges():
    mdp = chain(3, discount=0.9, reward=10.0)
    soft = partial(soft_highway, mdp, forward(mdp), lookahead=2, sharpness=1.0)
    low, high = soft(rows(0, 0, 0))[0], soft(rows(0, 1, 0))[0]  # means of {0, 9} and of {0.9, 9}
    assert float(low) == pytest.approx(9 / (1 + math.exp(-9)), abs=1e-12)
    assert float(high) == pytest.approx(0.9 + 8.1 / (1 + math.exp(-8.1)), abs=1e-12)
    assert high < low - 1e-3
    mdp = chain(3, discount=0.99)
    soft = partial(soft_highway, mdp, forward(mdp), lookahead=2, sharpness=1.0)
    first, second = ((x / 0.99 - 1) / 0.99 for x in (2.2, 2.6))  # x is the gain 0.99 (1 + 0.99 V2) in state 0
    apart = soft(rows(0, 0, second))[0] - soft(rows(0, 0, first))[0]
    assert float(apart) == pytest.approx(2.6 / (1 + math.exp(-2.6)) - 2.2 / (1 + math.exp(-2.2)), abs=1e-12)
    assert apart > 1.07 * (second - first)


# -- shapes -----------------------------------------------------------------------------------------------------------

OPERATORS = {
    **RIVALS,
    "highway": highway,
    "some depths": partial(highway, depths=[3]),
    "soft": partial(soft_highway, sharpness=2.0),
}


def random_index_form(*leading: int) -> DeterministicMDP:
    generator = torch.Generator().manual_seed(7)
    successor = torch.randint(5, (*leading, 5, 3), generator=generator)
    return DeterministicMDP(successor, normal(*leading, 5, 3), 0.9)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_the_index_form_equals_the_dense_form(name, leading):
    mdp = random_index_form(*leading)
    policies = mdp.random_policy((*leading, 2), torch.Generator().manual_seed(0))
    value = normal(*leading, 5, seed=1)
    close(OPERATORS[name](mdp, policies, value, 4), OPERATORS[name](mdp.dense(), policies, value, 4))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("index", [False, True])
def test_batches_equal_single_ones(name, index):
    # 2 values on 3 processes with 4 policies each; the process or the policies alone have leading dimensions, or both
    operator, mdp = OPERATORS[name], random_index_form(3)
    policies, value = mdp.random_policy((3, 4), torch.Generator().manual_seed(0)), normal(2, 3, 5, seed=1)

    def form(i: int | slice) -> MDP:
        part = DeterministicMDP(mdp.successor[i], mdp.reward[i], 0.9)
        return part if index else part.dense()

    everything = slice(None)
    for batch, own in ((everything, True), (0, True), (everything, False)):
        given = policies if own else policies[0]
        together = operator(form(batch), given, value, 3)
        assert together.shape == (2, 3, 5)
        prepared = operator(form(batch), induce(form(batch), given), value, 3)
        assert torch.equal(prepared, together)
        for i in range(2):
            for p in range(3):
                alone = operator(form(p if batch == everything else 0), policies[p if own else 0], value[i, p], 3)
                close(together[i, p], alone)
    wide = operator(form(everything), policies, value[0, 0], 3)  # one value for all
    close(wide[2], operator(form(2), policies[2], value[0, 0], 3))
    apart = torch.stack([operator(form(1), policies[1, m : m + 1], value[0, 0], 3) for m in range(4)])
    if name in ("n_step", "highway", "some depths", "mixture", "peng"):
        close(operator(form(1), policies[1], value[0, 0], 3), apart.amax(0))


# -- bad input --------------------------------------------------------------------------------------------------------

MDP3 = chain(3, discount=0.5)
PI, V0 = forward(MDP3), torch.zeros(3, dtype=torch.float64)
FIVE = random_index_form().uniform_policy().unsqueeze(0)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: highway(MDP3, PI, V0, 0), "lookahead.*1.*0"),
        (lambda: ungated(MDP3, PI, V0, 0), "lookahead.*1.*0"),
        (lambda: n_step(MDP3, PI, V0, -2), "lookahead.*-2"),
        (lambda: highway(MDP3, PI, V0, 4, depths=[]), r"depths.*1 to 4.*\[\]"),
        (lambda: highway(MDP3, PI, V0, 4, depths=[2, 5]), r"depths.*1 to 4.*\[2, 5\]"),
        (lambda: soft_highway(MDP3, PI, V0, 4, sharpness=1.0, depths=[0]), r"depths.*\[0\]"),
        (lambda: soft_highway(MDP3, PI, V0, 4, sharpness=-1.0), "sharpness.*-1"),
        (lambda: soft_highway(MDP3, PI, V0, 4, sharpness=math.nan), "sharpness.*nan"),
        (lambda: mixture(MDP3, PI, V0, 4, lam=1.5), "lam.*1.5"),
        (lambda: n_step(MDP3, PI, V0, 4, over="sum"), "over.*'sum'"),  # type: ignore[arg-type]
        (lambda: highway(MDP3, PI, V0[:2], 4), r"value.*3.*\[2\]"),
        (lambda: highway(MDP3, PI, V0.float(), 4), "value.*float64.*float32"),
        (lambda: highway(MDP3, PI[0], V0, 4), r"policies.*M, 3, 2.*\[3, 2\]"),
        (lambda: highway(MDP3, PI[:0], V0, 4), r"policies.*\[0, 3, 2\]"),
        (lambda: highway(MDP3, PI.float(), V0, 4), "policies.*float32"),
        (lambda: highway(MDP3, PI * 1.01, V0, 4), "policies.*sum to 1.*0.01"),
        (lambda: highway(MDP3, PI * torch.nan, V0, 4), "policies"),
        (lambda: highway(MDP3, 3 * PI - 1, V0, 4), "policies.*negative.*-1"),
        (lambda: highway(random_index_form(3), FIVE, normal(2, 5), 4), r"value.*\[3\].*\[2\]"),
        (lambda: induce(random_index_form(3), FIVE.expand(2, 1, 5, 3)), r"policies.*\[3\].*\[2\]"),
    ],
)
def test_bad_input_is_refused_with_the_reason(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
