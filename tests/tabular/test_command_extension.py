"""Values, visits and optima of command extensions against enumeration, and the extensions that are worth studying."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mindworks.errors import InputError
from mindworks.tabular.command_cases import (
    any_command,
    fixed_horizon,
    goal_bandit,
    grid_kernel,
    line_kernel,
    one_goal,
    random_deterministic,
    two_armed,
    with_memory,
)
from mindworks.tabular.command_extension import CommandExtension


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Probabilities over the last dimension, float64."""
    weights = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return weights / weights.sum(-1, keepdim=True)


def extension(*batch: int, states: int = 3, actions: int = 2, horizon: int = 3, goals: int = 2) -> CommandExtension:
    """A random process whose last states share the last goal."""
    start = draw(*batch, states * horizon * goals, seed=1).unflatten(-1, (states, horizon, goals))
    goal_map = torch.arange(states).clamp_max(goals - 1)
    return CommandExtension(draw(*batch, states, actions, states), goal_map, horizon, start)


def policies(ce: CommandExtension, *batch: int, seed: int = 2) -> Tensor:
    return draw(*batch, ce.states, ce.horizon, ce.goals, ce.actions, seed=seed)


def walk(ce: CommandExtension, policy: Tensor):
    """Every episode of an unbatched process: probability, (state, horizon, goal) of the start, states after it."""
    for s, h, g in itertools.product(range(ce.states), range(1, ce.horizon + 1), range(ce.goals)):
        paths = [(float(ce.start[s, h - 1, g]), (s,))]
        for t in range(h):
            paths = [
                (p * float(policy[path[-1], h - t - 1, g] @ ce.transition[path[-1], :, then]), (*path, then))
                for p, path in paths
                for then in range(ce.states)
            ]
        yield from ((p, h, g, path) for p, path in paths)


def test_objective_and_visits_are_sums_over_all_episodes():
    ce = extension()
    policy = policies(ce)
    paid, visits = 0.0, torch.zeros(3, 3, 2, dtype=torch.float64)
    for p, h, g, path in walk(ce, policy):
        paid += p * (int(ce.goal_map[path[-1]]) == g)
        for t in range(h):
            visits[path[t], h - t - 1, g] += p
    assert float(ce.objective(policy)) == pytest.approx(paid, abs=1e-14)
    torch.testing.assert_close(ce.visits(policy), visits, rtol=0, atol=1e-14)


def test_a_value_is_the_objective_of_episodes_that_start_there():
    ce = extension()
    policy = policies(ce)
    value = ce.state_value(policy)
    for s, h, g in itertools.product(range(3), range(3), range(2)):
        start = torch.zeros_like(ce.start)
        start[s, h, g] = 1
        alone = CommandExtension(ce.transition, ce.goal_map, 3, start)
        paid = sum(p * (int(ce.goal_map[path[-1]]) == g) for p, _, g, path in walk(alone, policy))
        assert float(value[s, h, g]) == pytest.approx(paid, abs=1e-14)
    torch.testing.assert_close((policy * ce.action_value(policy)).sum(-1), value, rtol=0, atol=1e-15)


def test_the_optimum_is_the_best_of_all_deterministic_policies():
    ce = extension(states=2, horizon=2)
    choices = itertools.product(range(2), repeat=8)
    every = torch.stack([torch.nn.functional.one_hot(torch.tensor(c), 2).double().reshape(2, 2, 2, 2) for c in choices])
    best = ce.optimum()
    torch.testing.assert_close(best.objective, ce.objective(every).amax(0), rtol=0, atol=1e-14)
    torch.testing.assert_close(ce.state_value(best.policy), best.value, rtol=0, atol=1e-14)
    assert (best.actions.sum(-1) == 1).all()


def test_ties_keep_every_optimal_action():
    kernel = torch.tensor([[[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]] * 2, dtype=torch.float64)
    best = any_command(kernel, 1).optimum()
    assert best.actions[0, 0].tolist() == [[False, False, True], [True, True, False]]
    assert best.policy[0, 0].tolist() == [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]
    assert best.value[0, 0].tolist() == [1.0, 0.5]


def test_batches_equal_single_processes():
    ce = extension(2, 3)
    policy = policies(ce, 3)
    value, visits, objective, best = ce.state_value(policy), ce.visits(policy), ce.objective(policy), ce.optimum()
    for i, j in itertools.product(range(2), range(3)):
        one = CommandExtension(ce.transition[i, j], ce.goal_map, 3, ce.start[i, j])
        torch.testing.assert_close(one.state_value(policy[j]), value[i, j], rtol=0, atol=1e-15)
        torch.testing.assert_close(one.visits(policy[j]), visits[i, j], rtol=0, atol=1e-15)
        torch.testing.assert_close(one.objective(policy[j]), objective[i, j], rtol=0, atol=1e-15)
        torch.testing.assert_close(one.optimum().objective, best.objective[i, j], rtol=0, atol=1e-15)
        assert torch.equal(one.optimum().actions, best.actions[i, j])


def test_the_plain_process_has_discounted_values_and_visits():
    ce = extension(2)
    policy, mdp = policies(ce, 2), ce.as_mdp(0.8)
    flat = torch.cat([policy.flatten(1, 3), torch.full((2, 1, 2), 0.5, dtype=torch.float64)], 1)
    value = mdp.state_value(flat)
    expected = ce.state_value(policy) * torch.tensor([[1.0], [0.8], [0.64]], dtype=torch.float64)
    torch.testing.assert_close(value[:, :-1].reshape(expected.shape), expected, rtol=0, atol=1e-14)
    assert value[:, -1].abs().max() == 0
    start = torch.cat([ce.start.flatten(1), torch.zeros(2, 1, dtype=torch.float64)], 1)
    objective = (start * mdp.state_value(flat)).sum(-1)
    assert (objective < ce.objective(policy)).all()
    near = ce.as_mdp(1 - 1e-9)
    torch.testing.assert_close((start * near.state_value(flat)).sum(-1), ce.objective(policy), rtol=0, atol=1e-7)


# -- the extensions worth studying ------------------------------------------------------------------------------------


def test_two_arms_hit_their_goals_with_probability_alpha():
    ce = two_armed([0.6, 1.0])
    assert ce.hit_probability[0, 0].tolist() == [[0.6, 0.4], [0.4, 0.6]]
    assert ce.hit_probability[1, 0].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert ce.start[:, 0].tolist() == [[0.5, 0.5], [0.0, 0.0]]
    assert ce.optimum().objective.tolist() == [0.6, 1.0]


def test_cells_of_a_grid_lead_to_their_neighbours_and_slip_to_the_others():
    # cells: 0 1 / 2 and a wall at the lower right
    kernel = grid_kernel(["..", ".#"], 0.2)
    assert kernel.shape == (3, 4, 3)
    right, left, up, down = kernel[0].tolist()
    assert right == pytest.approx([0.1, 0.8, 0.1])
    assert left == up == pytest.approx([0.8, 0.1, 0.1])
    assert down == pytest.approx([0.1, 0.1, 0.8])
    assert kernel[1, 3].tolist() == pytest.approx([0.2, 0.8, 0.0])  # blocked: stays, or slips to the only other cell
    assert torch.equal(grid_kernel(["."], 0.3), torch.ones(1, 4, 1, dtype=torch.float64))  # nowhere else to slip to
    both = grid_kernel(["..", ".#"], [0.0, 0.2])
    assert torch.equal(both[1], kernel)
    assert set(both[0].flatten().tolist()) == {0.0, 1.0}


def test_a_line_moves_both_ways_and_stays_at_its_ends():
    assert line_kernel(3, 0.25).tolist() == [
        [[0.75, 0.25, 0], [0.25, 0.75, 0]],
        [[0.75, 0, 0.25], [0.25, 0, 0.75]],
        [[0, 0.75, 0.25], [0, 0.25, 0.75]],
    ]


def test_random_kernels_are_deterministic_and_follow_the_generator():
    made = [random_deterministic(4, 3, torch.Generator().manual_seed(7), 2, 5) for _ in range(2)]
    assert made[0].shape == (2, 5, 4, 3, 4)
    assert torch.equal(*made)
    assert (made[0].amax(-1) == 1).all()
    assert (made[0].sum(-1) == 1).all()


def test_a_fixed_horizon_starts_every_episode_with_all_steps_left():
    ce = fixed_horizon(draw(3, 2, 3), 4, draw(3, seed=4), draw(3, seed=5))
    assert ce.start[:, :-1].abs().max() == 0
    torch.testing.assert_close(ce.start[:, -1].sum(1), draw(3, seed=4), rtol=0, atol=1e-15)
    torch.testing.assert_close(ce.start[:, -1].sum(0), draw(3, seed=5), rtol=0, atol=1e-15)
    even = fixed_horizon(draw(3, 2, 3), 4, draw(3, seed=4))
    torch.testing.assert_close(
        even.start[:, -1].sum(0), torch.full((3,), 1 / 3, dtype=torch.float64), rtol=0, atol=1e-15
    )


def test_one_goal_pays_in_its_state_alone():
    ce = one_goal(line_kernel(3, 0.0), 2, start=0, goal=2)
    assert ce.goal_map.tolist() == [0, 0, 1]
    assert float(ce.start[0, 1, 1]) == 1
    assert float(ce.optimum().objective) == 1
    assert float(one_goal(line_kernel(3, 0.0), 1, start=0, goal=2).optimum().objective) == 0


def test_memory_of_one_state_changes_nothing():
    ce = extension(2)
    memory = with_memory(ce, 1)
    assert memory.histories.tolist() == [[0], [1], [2]]
    assert torch.equal(memory.extension.transition, ce.transition)
    assert torch.equal(memory.extension.start, ce.start)
    assert torch.equal(memory.extension.goal_map, ce.goal_map)


def test_a_memory_holds_possible_histories_and_changes_no_value():
    ce = any_command(line_kernel(3, torch.tensor([0.0, 0.3])), 3)
    memory = with_memory(ce, 3)
    rows = {tuple(row) for row in memory.histories.tolist()}
    pairs = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (2, 2)]
    triples = [(*pair, s) for pair in pairs for s in range(3) if (pair[1], s) in pairs]
    expected = [(-1, -1, s) for s in range(3)] + [(-1, *pair) for pair in pairs] + triples
    assert rows == set(expected)
    policy = policies(ce, 4, 1)
    lifted = memory.lift(policy)
    assert lifted.shape == (4, 1, len(rows), 3, 3, 2)
    torch.testing.assert_close(memory.extension.objective(lifted), ce.objective(policy), rtol=0, atol=1e-14)
    torch.testing.assert_close(memory.extension.optimum().objective, ce.optimum().objective, rtol=0, atol=1e-14)
    seen = memory.extension.visits(lifted)
    merged = torch.zeros(4, 2, 3, 3, 3, dtype=torch.float64).index_add_(2, memory.histories[:, -1], seen)
    torch.testing.assert_close(merged, ce.visits(policy), rtol=0, atol=1e-14)


# -- bad input --------------------------------------------------------------------------------------------------------

KERNEL, MAP = draw(2, 2, 2), torch.arange(2)
START = torch.full((2, 3, 2), 1 / 12, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: CommandExtension(KERNEL[0], MAP, 3, START), r"transition.*\(2, 2\)"),
        (lambda: CommandExtension(KERNEL.float(), MAP, 3, START), "transition must be float64, got torch.float32"),
        (lambda: CommandExtension(KERNEL * 1.1, MAP, 3, START), "transition"),
        (lambda: CommandExtension(KERNEL * torch.nan, MAP, 3, START), "transition"),
        (lambda: CommandExtension(KERNEL, MAP, 0, START), "horizon.*0"),
        (lambda: CommandExtension(KERNEL, MAP, 2, START), r"start.*\(2, 3, 2\)"),
        (lambda: CommandExtension(KERNEL, MAP, 3, START.float()), "start.*float32"),
        (lambda: CommandExtension(KERNEL, MAP, 3, START * 2), "start"),
        (lambda: CommandExtension(KERNEL, MAP, 3, -START), "start"),
        (lambda: CommandExtension(KERNEL, MAP + 1, 3, START), r"goal_map.*\[1, 2\]"),
        (lambda: CommandExtension(KERNEL, MAP.double(), 3, START), "goal_map"),
        (lambda: CommandExtension(KERNEL, MAP[:1], 3, START), "goal_map"),
        (lambda: any_command(KERNEL, 3).as_mdp(1.0), "discount.*1.0"),
        (lambda: any_command(KERNEL, 3).check_policy(torch.ones(2, 3, 2, 1).double()), "policy"),
        (lambda: any_command(KERNEL, 3).check_policy(torch.full((2, 3, 2, 2), 0.5)), "policy.*float32"),
        (lambda: any_command(KERNEL, 3).check_policy(torch.ones(2, 3, 2, 2).double()), "policy"),
        (lambda: goal_bandit(draw(2, 3), torch.ones(2).double()), "goals"),
        (lambda: two_armed(1.5), "alpha.*1.5"),
        (lambda: grid_kernel(["##"], 0.1), "rows"),
        (lambda: grid_kernel([".."], -0.1), "slip.*-0.1"),
        (lambda: line_kernel(1, 0.1), "states.*1"),
        (lambda: one_goal(KERNEL, 3, start=2, goal=0), "start.*2"),
        (lambda: one_goal(KERNEL, 3, start=0, goal=-1), "goal.*-1"),
        (lambda: fixed_horizon(KERNEL, 3, torch.ones(3)), "start"),
        (lambda: with_memory(any_command(KERNEL, 3), 0), "length.*0"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
