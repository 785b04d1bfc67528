"""Values and occupancies of finite processes against iteration, closed forms and a loop over single processes."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.core.finite_mdp import (
    DeterministicMDP,
    FiniteMDP,
    chain,
    four_rooms,
    garnet,
    grid_world,
    solve_occupancy,
    solve_value,
)
from mindworks.core.mdp_examples import FOUR_ROOMS, cells
from mindworks.core.mdp_solve import solve_indexed
from mindworks.errors import InputError


def random_policy(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random probabilities over the last dimension, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(-1)


@pytest.fixture(scope="module")
def processes() -> FiniteMDP:
    return garnet(3, 5, 2, discount=0.9, seeds=[0, 1], branching=2)


def test_values_are_the_fixed_point_of_the_bellman_operator(processes):
    policy = random_policy(2, 3, 5, 2)
    value = torch.zeros(2, 3, 5, dtype=torch.float64)
    for _ in range(400):
        expected_next = torch.einsum("znsat,znt->znsa", processes.transition, value)
        value = (policy * (processes.reward + 0.9 * expected_next)).sum(-1)
    torch.testing.assert_close(processes.state_value(policy), value, rtol=0, atol=1e-11)
    q = processes.action_value(value)
    torch.testing.assert_close((policy * q).sum(-1), value, rtol=0, atol=1e-11)


def test_occupancy_is_the_discounted_sum_of_powers_of_the_chain(processes):
    policy, start = random_policy(2, 3, 5, 2), random_policy(2, 3, 5, seed=1)
    chain = torch.einsum("znsa,znsat->znst", policy, processes.transition)
    torch.testing.assert_close(processes.induced(policy), chain, rtol=0, atol=1e-14)
    at_time, total = start, torch.zeros_like(start)
    for t in range(400):
        total = total + 0.9**t * at_time
        at_time = torch.einsum("zns,znst->znt", at_time, chain)
    occupancy = processes.occupancy(policy, start)
    torch.testing.assert_close(occupancy, total, rtol=0, atol=1e-11)
    torch.testing.assert_close(occupancy.sum(-1), torch.full((2, 3), 10.0, dtype=torch.float64), rtol=0, atol=1e-11)


def test_occupancy_and_value_are_two_ways_to_the_same_return(processes):
    policy, start = random_policy(2, 3, 5, 2), random_policy(5, seed=1)
    from_values = (start * processes.state_value(policy)).sum(-1)
    visits = processes.occupancy(policy, start)
    from_visits = (visits.unsqueeze(-1) * policy * processes.reward).sum((-2, -1))
    torch.testing.assert_close(from_visits, from_values, rtol=0, atol=1e-12)


def test_batched_processes_equal_single_ones(processes):
    policy, start = random_policy(2, 3, 5, 2), random_policy(2, 3, 5, seed=1)
    values, visits = processes.state_value(policy), processes.occupancy(policy, start)
    for s in range(2):
        for n in range(3):
            single = FiniteMDP(processes.transition[s, n], processes.reward[s, n], 0.9)
            torch.testing.assert_close(single.state_value(policy[s, n]), values[s, n], rtol=0, atol=1e-12)
            torch.testing.assert_close(single.occupancy(policy[s, n], start[s, n]), visits[s, n], rtol=0, atol=1e-12)


def test_one_policy_broadcasts_over_many_processes(processes):
    policy = random_policy(5, 2)
    torch.testing.assert_close(
        processes.state_value(policy), processes.state_value(policy.expand(2, 3, 5, 2)), rtol=0, atol=1e-12
    )


def test_a_two_state_chain_by_hand():
    # state 0 stays with probability 1/2 and pays 1, else falls into state 1, which keeps itself and pays 0
    transition = torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]], dtype=torch.float64)
    mdp = FiniteMDP(transition, torch.tensor([[1.0], [0.0]], dtype=torch.float64), 0.8)
    policy = torch.ones(2, 1, dtype=torch.float64)
    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    stay = 1 / (1 - 0.8 * 0.5)
    expected = torch.tensor([stay, 0.0], dtype=torch.float64)
    torch.testing.assert_close(mdp.state_value(policy), expected, rtol=0, atol=1e-14)
    visits = torch.tensor([stay, 1 / (1 - 0.8) - stay], dtype=torch.float64)
    torch.testing.assert_close(mdp.occupancy(policy, start), visits, rtol=0, atol=1e-14)


def test_without_a_future_value_is_the_reward_and_occupancy_the_start():
    mdp = garnet(1, 4, 3, discount=0.0, seeds=[2])
    policy, start = random_policy(1, 1, 4, 3), random_policy(1, 1, 4, seed=1)
    torch.testing.assert_close(mdp.state_value(policy), (policy * mdp.reward).sum(-1), rtol=0, atol=1e-14)
    torch.testing.assert_close(mdp.occupancy(policy, start), start, rtol=0, atol=1e-14)


def test_value_is_differentiable_in_the_policy(processes):
    policy = random_policy(2, 3, 5, 2).requires_grad_(True)
    assert torch.autograd.gradcheck(processes.state_value, policy)


def test_solvers_take_a_chain_and_rewards_directly():
    chain, reward = random_policy(4, 3, 3), random_policy(4, 3, seed=1)
    value, visits = solve_value(chain, reward, 0.7), solve_occupancy(chain, reward, 0.7)
    torch.testing.assert_close(value, reward + 0.7 * (chain @ value[..., None])[..., 0], rtol=0, atol=1e-13)
    torch.testing.assert_close(visits, reward + 0.7 * (chain.mT @ visits[..., None])[..., 0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("branching", [1, 2, 6, None])
def test_garnets_lead_to_as_many_states_as_asked_with_probabilities_that_sum_to_one(branching):
    mdp = garnet(4, 6, 3, discount=0.5, seeds=[0, 7], branching=branching)
    assert mdp.transition.shape == (2, 4, 6, 3, 6)
    assert mdp.transition.dtype == torch.float64
    torch.testing.assert_close(mdp.transition.sum(-1), torch.ones(2, 4, 6, 3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert ((mdp.transition > 0).sum(-1) == (branching or 6)).all()


def test_garnet_probabilities_are_uniform_on_the_simplex_and_successors_uniform():
    mdp = garnet(400, 5, 2, discount=0.5, seeds=[0], branching=3)
    chosen = (mdp.transition > 0).double()
    assert (chosen.mean((0, 1, 2, 3)) - 0.6).abs().max() < 5 * (0.24 / 4000) ** 0.5
    # of a uniform point on the simplex with 3 corners, E[p_i^2] = 2 / (3 * 4)
    assert abs(float(mdp.transition.square().sum(-1).mean()) - 0.5) < 0.02
    assert abs(float(mdp.reward.mean())) < 5 / 4000**0.5
    assert abs(float(mdp.reward.std()) - 1) < 5 / 8000**0.5


def test_a_seed_makes_the_same_process_in_any_company():
    together = garnet(2, 4, 2, discount=0.9, seeds=[3, 8], branching=2)
    alone = garnet(2, 4, 2, discount=0.9, seeds=[8], branching=2)
    assert torch.equal(together.transition[1], alone.transition[0])
    assert torch.equal(together.reward[1], alone.reward[0])
    assert not torch.equal(together.reward[0], together.reward[1])


GOOD = torch.full((2, 1, 2), 0.5)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: FiniteMDP(torch.full((2, 1, 3), 1 / 3), torch.zeros(2, 1), 0.9), "transition"),
        (lambda: FiniteMDP(torch.full((2, 2), 0.5), torch.zeros(2), 0.9), "transition"),
        (lambda: FiniteMDP(GOOD * 1.01, torch.zeros(2, 1), 0.9), "transition"),
        (lambda: FiniteMDP(torch.tensor([[[1.5, -0.5]], [[0.5, 0.5]]]), torch.zeros(2, 1), 0.9), "transition"),
        (lambda: FiniteMDP(GOOD * torch.nan, torch.zeros(2, 1), 0.9), "transition"),
        (lambda: FiniteMDP(GOOD, torch.zeros(2), 0.9), "reward"),
        (lambda: FiniteMDP(GOOD, torch.zeros(2, 1), 1.0), "discount.*1.0"),
        (lambda: FiniteMDP(GOOD, torch.zeros(2, 1), -0.1), "discount"),
        (lambda: FiniteMDP(GOOD, torch.zeros(2, 1), float("nan")), "discount"),
        (lambda: garnet(0, 2, 2, discount=0.9, seeds=[0]), "count"),
        (lambda: garnet(1, 0, 2, discount=0.9, seeds=[0]), "states"),
        (lambda: garnet(1, 3, 2, discount=0.9, seeds=[0], branching=4), "branching.*4"),
        (lambda: garnet(1, 3, 2, discount=0.9, seeds=[0], branching=0), "branching.*0"),
        (lambda: garnet(1, 3, 2, discount=0.9, seeds=[]), "seeds"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)


# -- exactness --------------------------------------------------------------------------------------------------------


def exact_values(chain: list[list[Fraction]], reward: list[Fraction], discount: Fraction) -> list[Fraction]:
    """Gauss-Jordan elimination in rational numbers: the oracle."""
    size = len(reward)
    rows = [[Fraction(int(i == j)) - discount * p for j, p in enumerate(chain[i])] + [reward[i]] for i in range(size)]
    for i in range(size):
        rows[i] = [entry / rows[i][i] for entry in rows[i]]
        for j in range(size):
            if j != i:
                rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[-1] for row in rows]


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.lists(st.sampled_from([0, 0, 1, 3, 1000]), min_size=5, max_size=5), min_size=5, max_size=5),
    rewards=st.lists(st.sampled_from([0.0, 0.0, 1e-40, 1.0, 7.0]), min_size=5, max_size=5),
    discount=st.sampled_from([0.0, 2.0**-40, 0.5, 0.9375]),
)
def test_every_entry_is_accurate_relative_to_itself_and_zero_where_it_should_be(weights, rewards, discount):
    for i, row in enumerate(weights):  # a row of zeros stays where it is; the others sum to a power of two, exactly
        row[i] += 1 if not any(row) else 0
        row[i] += 2 ** (sum(row) - 1).bit_length() - sum(row)
    chain = torch.tensor(weights, dtype=torch.float64)
    chain = chain / chain.sum(-1, keepdim=True)
    value = solve_value(chain, torch.tensor(rewards, dtype=torch.float64), discount)
    visits = solve_occupancy(chain, torch.tensor(rewards, dtype=torch.float64), discount)
    exact = [[Fraction(p) for p in row] for row in chain.tolist()]
    right = [Fraction(r) for r in rewards]
    for found, matrix in ((value, exact), (visits, None)):
        wanted = exact_values(matrix, right, Fraction(discount)) if matrix else exact_visits(exact, right, discount)
        for a, b in zip(found.tolist(), wanted, strict=True):
            assert abs(Fraction(a) - b) <= Fraction(1e-14) * b


def exact_visits(chain: list[list[Fraction]], start: list[Fraction], discount: float) -> list[Fraction]:
    """The visits, with the chain turned round."""
    turned = [list(column) for column in zip(*chain, strict=True)]
    size = len(start)
    rows = [[Fraction(int(i == j)) - Fraction(discount) * turned[i][j] for j in range(size)] for i in range(size)]
    minus = [[(Fraction(int(i == j)) - rows[i][j]) for j in range(size)] for i in range(size)]
    return exact_values(minus, start, Fraction(1))


def test_tiny_values_at_the_far_end_of_a_chain_keep_all_digits():
    line = chain(200, discount=0.5)
    forward = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(200, 2)
    wanted = 0.5 ** (198 - torch.arange(199, dtype=torch.float64))
    value = line.state_value(forward)
    torch.testing.assert_close(value[:-1], wanted, rtol=1e-14, atol=0)
    assert value[-1] == 0


# -- the optimum ------------------------------------------------------------------------------------------------------


def iterated(transition: torch.Tensor, reward: torch.Tensor, discount: float, sweeps: int = 3000) -> torch.Tensor:
    """V* of one process by value iteration with plain loops over vectors: the oracle."""
    value = np.zeros(reward.shape[0])
    for _ in range(sweeps):
        value = (reward.numpy() + discount * np.einsum("sat,t->sa", transition.numpy(), value)).max(1)
    return torch.from_numpy(value)


@pytest.mark.parametrize(("discount", "branching"), [(0.0, 3), (0.9, 2), (0.99, None)])
def test_the_optimum_is_what_value_iteration_finds(discount, branching):
    mdp = garnet(3, 6, 3, discount=discount, seeds=[0, 1], branching=branching)
    value, q = mdp.optimal_value(), mdp.optimal_action_value()
    for s in range(2):
        for n in range(3):
            wanted = iterated(mdp.transition[s, n], mdp.reward[s, n], discount)
            torch.testing.assert_close(value[s, n], wanted, rtol=0, atol=1e-10)
            single = FiniteMDP(mdp.transition[s, n], mdp.reward[s, n], discount)
            torch.testing.assert_close(single.optimal_value(), value[s, n], rtol=0, atol=1e-12)
    torch.testing.assert_close(q.amax(-1), value, rtol=0, atol=1e-12)
    assert ((q >= value.unsqueeze(-1) - 1e-9) == mdp.optimal_actions()).all()


@pytest.mark.parametrize("discount", [0.5, 0.99, 0.9999, 1 - 1e-7])
def test_the_optimum_satisfies_its_equation_to_rounding_for_patient_processes_too(discount):
    mdp = garnet(20, 10, 4, discount=discount, seeds=[0], branching=3)
    value = mdp.optimal_value()
    residual = (mdp.optimal_action_value().amax(-1) - value).abs() / value.abs().amax(-1, keepdim=True)
    assert residual.max() <= 1e-14


def test_ties_end_the_search_and_are_all_found():
    made = garnet(2, 6, 3, discount=0.95, seeds=[0], branching=2)
    doubled = FiniteMDP(made.transition.repeat(1, 1, 1, 2, 1), made.reward.repeat(1, 1, 1, 2), 0.95)
    torch.testing.assert_close(doubled.optimal_value(), made.optimal_value(), rtol=0, atol=1e-12)
    assert torch.equal(doubled.optimal_actions(), made.optimal_actions().repeat(1, 1, 1, 2))
    nothing = FiniteMDP(made.transition, torch.zeros_like(made.reward), 0.95)
    assert nothing.optimal_actions().all()
    assert (nothing.optimal_value() == 0).all()


def test_actions_worse_by_less_than_the_tolerance_count_as_optimal():
    mdp = DeterministicMDP(torch.zeros(1, 3).long(), torch.tensor([[1.0, 1 - 1e-6, 0.5]], dtype=torch.float64), 0.5)
    assert mdp.optimal_actions().tolist() == [[True, False, False]]
    assert mdp.optimal_actions(tolerance=1e-5).tolist() == [[True, True, False]]


def test_the_gap_to_the_optimum_keeps_its_digits_where_the_difference_of_values_has_none():
    mdp = garnet(2, 6, 3, discount=0.9, seeds=[0], branching=2)
    best, other = mdp.optimal_actions().double(), mdp.uniform_policy()
    rough = 0.5 * best + 0.5 * other
    torch.testing.assert_close(mdp.value_gap(rough), mdp.optimal_value() - mdp.state_value(rough), rtol=0, atol=1e-12)
    gaps = [mdp.value_gap((1 - share) * best + share * other) / share for share in (1e-12, 1e-20, 1e-100)]
    torch.testing.assert_close(gaps[0], gaps[2], rtol=1e-10, atol=0)
    torch.testing.assert_close(gaps[1], gaps[2], rtol=1e-13, atol=0)
    assert (mdp.value_gap(best) == 0).all()


# -- the index form ---------------------------------------------------------------------------------------------------


def random_index(*shape: int, discount: float = 0.9) -> DeterministicMDP:
    """Random successors and rewards `[*shape]`, shape ending in S, A."""
    generator = torch.Generator().manual_seed(3)
    successor = torch.randint(shape[-2], shape, generator=generator)
    return DeterministicMDP(successor, torch.randn(shape, generator=generator, dtype=torch.float64), discount)


@pytest.mark.parametrize("shape", [(7, 3), (2, 3, 7, 3), (500, 2), (2, 520, 2)])
def test_the_index_form_is_the_same_process_as_the_dense_one(shape):
    index = random_index(*shape)
    dense = index.dense()
    policy, start = random_policy(*shape), random_policy(*shape[:-1], seed=1)
    value = dense.state_value(policy)
    torch.testing.assert_close(index.state_value(policy), value, rtol=0, atol=1e-11)
    torch.testing.assert_close(index.action_value(value), dense.action_value(value), rtol=0, atol=1e-12)
    torch.testing.assert_close(index.induced(policy), dense.induced(policy), rtol=0, atol=1e-15)
    torch.testing.assert_close(index.occupancy(policy, start), dense.occupancy(policy, start), rtol=0, atol=1e-11)
    torch.testing.assert_close(index.optimal_value(), dense.optimal_value(), rtol=0, atol=1e-11)
    assert torch.equal(index.optimal_actions(), dense.optimal_actions())


@pytest.mark.parametrize("form", ["dense", "index"])
def test_many_policies_on_one_process_and_one_policy_on_many(form):
    one, many = random_index(5, 2), random_index(4, 5, 2)
    if form == "dense":
        one, many = one.dense(), many.dense()
    policies, policy = random_policy(4, 5, 2), random_policy(5, 2, seed=1)
    values = one.state_value(policies)
    assert one.action_value(values).shape == (4, 5, 2)
    kind, field = (FiniteMDP, "transition") if form == "dense" else (DeterministicMDP, "successor")
    for i in range(4):
        single = kind(getattr(many, field)[i], many.reward[i], 0.9)
        torch.testing.assert_close(one.state_value(policies[i]), values[i], rtol=0, atol=1e-13)
        torch.testing.assert_close(single.state_value(policy), many.state_value(policy)[i], rtol=0, atol=1e-13)
        torch.testing.assert_close(one.action_value(values[i]), one.action_value(values)[i], rtol=0, atol=1e-13)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_sparse_solve_and_its_gradient(transposed):
    index = random_index(2, 1, 6, 3)
    policy, right = random_policy(2, 2, 6, 3), random_policy(6, seed=1)
    solve = solve_occupancy if transposed else solve_value
    wanted = solve(index.induced(policy), right, 0.9)
    found = solve_indexed(policy, index.successor, right, 0.9, transposed=transposed)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    policy.requires_grad_(True)
    right.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda p, r: solve_indexed(p, index.successor, r, 0.9, transposed=transposed), (policy, right)
    )


def test_the_index_form_is_differentiable_too():
    assert torch.autograd.gradcheck(random_index(5, 2).state_value, random_policy(3, 5, 2).requires_grad_(True))


# -- draws ------------------------------------------------------------------------------------------------------------


def test_next_states_come_with_their_probabilities():
    mdp = garnet(1, 6, 2, discount=0.9, seeds=[4], branching=3)
    generator = torch.Generator().manual_seed(0)
    count = 20_000
    state = torch.arange(6).repeat_interleave(count).expand(1, 1, -1)
    action = torch.ones_like(state)
    found = mdp.draw_next(state, action, torch.rand(state.shape, generator=generator, dtype=torch.float64))
    share = torch.stack([torch.bincount(row, minlength=6) for row in found.reshape(6, count)]) / count
    wanted = mdp.transition[0, 0, :, 1]
    assert (share[wanted == 0] == 0).all()
    assert ((share - wanted).abs() <= 5 * (wanted * (1 - wanted) / count).sqrt()).all()


def test_both_forms_draw_the_same_next_states():
    index = random_index(3, 7, 2)
    state, action = torch.randint(7, (3, 50)), torch.randint(2, (3, 50))
    uniform = torch.rand(3, 50, dtype=torch.float64)
    drawn = index.draw_next(state, action, uniform)
    assert torch.equal(drawn, index.dense().draw_next(state, action, uniform))
    assert torch.equal(
        drawn[1], torch.stack([index.successor[1, s, a] for s, a in zip(state[1], action[1], strict=True)])
    )


# -- policies and examples --------------------------------------------------------------------------------------------


def test_uniform_and_random_policies():
    mdp = garnet(2, 5, 3, discount=0.9, seeds=[0])
    assert torch.equal(mdp.uniform_policy(), torch.full((1, 2, 5, 3), 1 / 3, dtype=torch.float64))
    drawn = mdp.random_policy((4, 2), torch.Generator().manual_seed(5))
    assert drawn.shape == (4, 2, 5, 3)
    assert torch.equal(drawn, mdp.random_policy((4, 2), torch.Generator().manual_seed(5)))
    assert drawn.min() > 0
    torch.testing.assert_close(drawn.sum(-1), torch.ones(4, 2, 5, dtype=torch.float64), rtol=0, atol=1e-15)
    # of u / (u + v) with u, v uniform, the mean square is 1 - log 2
    many = FiniteMDP(torch.ones(1, 2, 1), torch.zeros(1, 2, dtype=torch.float64), 0.5)
    squares = many.random_policy((200_000,), torch.Generator().manual_seed(0))[..., 0].square().mean()
    assert abs(float(squares) - (1 - math.log(2))) < 2e-3


def test_four_rooms_are_those_of_the_published_code():
    mdp = four_rooms()
    places = cells(FOUR_ROOMS).tolist()
    assert (mdp.num_states, mdp.num_actions, mdp.discount) == (68, 4, 0.9)
    assert (places[0], places[67]) == ([1, 1], [9, 9])
    assert places.index([1, 4]) == 3
    assert mdp.successor[3].tolist() == [2, places.index([2, 4]), 3, 3]  # left, down, a wall, the edge
    assert mdp.successor[67].tolist() == [67] * 4
    assert int((mdp.reward == 1).sum()) == 2
    assert set(mdp.reward.flatten().tolist()) == {1.0, 0.001}
    # the shortest way has 16 steps: 15 pay 0.001, the last one 1, and the goal pays 0.001 forever
    wanted = 0.001 * (1 - 0.9**15) / 0.1 + 0.9**15 + 0.9**16 * 0.01
    assert float(mdp.optimal_value()[0]) == pytest.approx(wanted, abs=1e-14)
    # the start's value that the authors' first runs stored, with rewards of 0 and 1 and float32
    assert float(four_rooms(step_reward=0.0).optimal_value()[0]) == pytest.approx(0.20589113235473633, abs=1e-7)


def test_the_optimum_of_a_grid_is_the_distance_to_its_goals():
    layout = "G..#\n.#.G\n...."
    mdp = grid_world(layout, discount=0.5)
    places = [tuple(cell) for cell in cells(layout).tolist()]
    goals = {(0, 0), (1, 3)}
    distance, edge = dict.fromkeys(goals, 0), list(goals)
    for y, x in edge:
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if near in places and near not in distance:
                distance[near] = distance[y, x] + 1
                edge.append(near)
    wanted = [0.0 if place in goals else 0.5 ** (distance[place] - 1) for place in places]
    assert mdp.optimal_value().tolist() == pytest.approx(wanted, abs=1e-14)


def test_a_chain_pays_at_its_end():
    mdp = chain(5, discount=0.9, reward=2.0)
    assert isinstance(mdp, DeterministicMDP)
    assert mdp.optimal_value().tolist() == pytest.approx([2 * 0.9**3, 2 * 0.9**2, 2 * 0.9, 2.0, 0.0], abs=1e-14)
    assert mdp.optimal_actions()[:4].tolist() == [[False, True]] * 4


def test_a_slippery_chain_mixes_both_moves():
    mdp, slip = chain(4, discount=0.8, slip=0.25), 0.25
    assert isinstance(mdp, FiniteMDP)
    expected = torch.zeros(4, 2, 4, dtype=torch.float64)
    for s in range(3):
        for a, (back, ahead) in enumerate([(1 - slip, slip), (slip, 1 - slip)]):
            expected[s, a, max(s - 1, 0)] += back
            expected[s, a, s + 1] += ahead
    expected[3, :, 3] = 1
    torch.testing.assert_close(mdp.transition, expected, rtol=0, atol=1e-15)
    assert mdp.reward.tolist() == [[0, 0], [0, 0], [slip, 1 - slip], [0, 0]]
    torch.testing.assert_close(mdp.optimal_value(), iterated(expected, mdp.reward, 0.8), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: DeterministicMDP(torch.zeros(2, 2), torch.zeros(2, 2), 0.9), "successor.*float32"),
        (lambda: DeterministicMDP(torch.zeros(2).long(), torch.zeros(2), 0.9), "successor"),
        (lambda: DeterministicMDP(torch.full((2, 2), 2), torch.zeros(2, 2), 0.9), r"successor.*\[0, 2\).*2"),
        (lambda: DeterministicMDP(torch.full((2, 2), -1), torch.zeros(2, 2), 0.9), "successor.*-1"),
        (lambda: DeterministicMDP(torch.zeros(2, 2).long(), torch.zeros(2, 3), 0.9), "reward"),
        (lambda: DeterministicMDP(torch.zeros(2, 2).long(), torch.zeros(2, 2), 1.0), "discount.*1.0.*no finite value"),
        (lambda: chain(1, discount=0.9), "length.*1"),
        (lambda: chain(3, discount=0.9, slip=1.0), "slip.*1.0"),
        (lambda: grid_world("##\n##", discount=0.9), "layout"),
        (lambda: grid_world("..\n.", discount=0.9), "layout.*1, 2"),
        (lambda: grid_world(".x", discount=0.9), "layout.*x"),
        (lambda: grid_world("", discount=0.9), "layout"),
    ],
)
def test_bad_examples_are_refused_in_one_line_that_names_the_argument(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
