"""Values and occupancies of finite processes against iteration, closed forms and a loop over single processes."""

from __future__ import annotations

import pytest
import torch

from mindworks.core.finite_mdp import FiniteMDP, garnet, solve_occupancy, solve_value
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
