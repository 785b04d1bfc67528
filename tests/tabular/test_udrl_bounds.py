"""Lower bounds near deterministic kernels hold around random ones, and are neither empty nor below published ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mindworks.errors import InputError
from mindworks.tabular.command_cases import (
    any_command,
    fixed_horizon,
    grid_kernel,
    line_kernel,
    one_goal,
    random_deterministic,
    two_armed,
)
from mindworks.tabular.command_extension import CommandExtension
from mindworks.tabular.udrl import EUDRL, SEGMENTS
from mindworks.tabular.udrl_bounds import (
    critical_states,
    kernel_distance,
    optimal_mass,
    stability_bound,
    unique_bound,
)

GRID = ["...", "..#", "..."]


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    weights = torch.rand(*shape, generator=generator, dtype=torch.float64) ** 2 + 1e-3
    return weights / weights.sum(-1, keepdim=True)


def near(ce: CommandExtension, sizes: Tensor, generator: torch.Generator) -> CommandExtension:
    """The process with kernels `[len(sizes), 1, ...]` that depart from its own one by about each of `sizes`."""
    part = sizes[:, None, None, None, None] / 2
    noise = draw(generator, len(sizes), 1, *ce.transition.shape[-3:])
    return CommandExtension((1 - part) * ce.transition + part * noise, ce.goal_map, ce.horizon, ce.start)


def test_the_distance_of_kernels_is_the_largest_of_their_rows():
    kernel = line_kernel(3, torch.tensor([0.1, 0.4]))
    assert kernel_distance(kernel, line_kernel(3, 0.0)).tolist() == pytest.approx([0.2, 0.8])
    assert float(kernel_distance(line_kernel(3, 1.0), line_kernel(3, 0.0))) == 2


def test_critical_states_are_those_of_the_only_shortest_path():
    ce = one_goal(grid_kernel(GRID, 0.0), 4, start=7, goal=2)  # cells 7, 6, 4, 1, 2: left, up, up, right
    found = critical_states(ce).nonzero().tolist()
    assert sorted(found) == [[1, 0, 1], [4, 1, 1], [6, 2, 1], [7, 3, 1]]
    assert float(optimal_mass(ce, ce.uniform_policy())) == 0.25
    assert float(optimal_mass(ce, ce.optimum().policy)) == 1


def test_optimal_actions_lead_from_critical_to_critical_states():
    g = torch.Generator().manual_seed(0)
    ce = any_command(random_deterministic(5, 3, g, 20), 4)
    critical, actions = critical_states(ce), ce.optimum().actions
    for k, s, h, goal in critical.nonzero().tolist():
        for a in actions[k, s, h, goal].nonzero().flatten().tolist():
            then = int(ce.transition[k, s, a].argmax())
            assert then == goal if h == 0 else critical[k, then, h - 1, goal]


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("epsilon", [0.0, 0.02, 0.2])
def test_the_bounds_hold_around_random_deterministic_kernels(segments, epsilon):
    g = torch.Generator().manual_seed(1)
    told = 0
    for _ in range(6):
        ce = any_command(random_deterministic(3, 2, g), 2)
        around = near(ce, torch.logspace(-6, -0.5, 12, dtype=torch.float64), g)
        delta = kernel_distance(around.transition[:, 0], ce.transition)
        run = EUDRL(around, segments, epsilon).run(draw(g, 12, 4, 3, 2, 3, 2), 400, keep=False)
        bound = stability_bound(ce, delta, epsilon)
        assert bound.mass.shape == (12, 2)
        assert (optimal_mass(ce, run.policy) >= bound.mass.amin(-1, keepdim=True) - 1e-9).all()
        assert (run.objective[..., -1] >= bound.objective[:, None] - 1e-9).all()
        told += int((bound.mass.amin(-1) > 0.5).sum())
    assert told >= 20


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_with_epsilon_the_bounds_need_no_start_in_critical_states(epsilon):
    g = torch.Generator().manual_seed(2)
    ce = fixed_horizon(line_kernel(3, 0.0), 2, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert (critical_states(ce) & (ce.start == 0)).any()
    around = near(ce, torch.logspace(-8, -1, 15, dtype=torch.float64), g)
    delta = kernel_distance(around.transition[:, 0], ce.transition)
    start = draw(g, 15, 4, 3, 2, 3, 2)
    start[:, 0] = torch.tensor([1.0, 0.0])  # zeros are allowed
    run = EUDRL(around, "all", epsilon).run(start, 600, keep=False)
    bound = stability_bound(ce, delta, epsilon)
    assert (optimal_mass(ce, run.policy) >= bound.mass.amin(-1, keepdim=True) - 1e-9).all()
    assert (run.objective[..., -1] >= bound.objective[:, None] - 1e-9).all()
    assert float(bound.mass.amin()) > 0
    limit = 1 - epsilon / 2  # one of two actions is optimal: what mixing leaves of it
    assert float(bound.mass.amin(-1)[0]) == pytest.approx(limit, abs=1e-3)
    assert stability_bound(ce, delta).mass.amin() == 0  # without epsilon nothing is known of states never started in


@pytest.mark.parametrize("segments", SEGMENTS)
def test_the_bound_for_unique_optimal_actions_holds(segments):
    g = torch.Generator().manual_seed(3)
    ce = one_goal(grid_kernel(GRID, 0.0), 4, start=7, goal=2)
    around = near(ce, torch.logspace(-6, -0.5, 15, dtype=torch.float64), g)
    delta = kernel_distance(around.transition[:, 0], ce.transition)
    low, high = unique_bound(ce, delta)
    start = draw(g, 15, 8, 8, 4, 2, 4)
    start[:, 0] = ce.uniform_policy()
    start[:, 1] = (ce.uniform_policy() + ce.optimum().policy) / 2
    covered = optimal_mass(ce, start) > low[:, None]
    limit = optimal_mass(ce, EUDRL(around, segments).run(start, 100, keep=False).policy)
    assert (limit >= high[:, None] - 1e-9)[covered].all()
    assert int(covered.sum()) >= 30
    assert high.isnan().any()
    assert bool((high > 0.9).any())


def test_fixed_points_solve_their_equations():
    ce = one_goal(grid_kernel(GRID, 0.0), 4, start=7, goal=2)
    delta = 0.005
    low, high = (float(end) for end in unique_bound(ce, delta))
    visits = (4, 3, 2, 1)  # one start, so every level is met once: those from h up
    b = max((1 - (1 - delta / 2) ** h) * t for h, t in enumerate(visits, 1)) / (1 - delta / 2) ** 4
    assert 0 < low < 3 / 4 < high < 1
    for x in (low, high):
        assert x**4 / (x**4 + b) == pytest.approx(x, abs=1e-12)


def test_with_one_step_left_both_bounds_are_the_closed_form():
    delta = torch.tensor([0.0, 0.1, 0.5, 2 / 3, 1.5], dtype=torch.float64)
    low, high = unique_bound(two_armed(1.0), delta)
    # a start has probability 1/2 and one step is made: c = (delta/2) / ((1 - delta/2) / 2)
    closed = 1 - delta / (1 - delta / 2)
    torch.testing.assert_close(high[:4], closed[:4], rtol=0, atol=1e-12)
    assert high[4].isnan()
    assert low[:4].abs().max() < 1e-12
    bound = stability_bound(two_armed(1.0), delta)
    torch.testing.assert_close(bound.mass[:, 0], closed.clamp_min(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(bound.objective, closed.clamp_min(0) * (1 - delta / 2), rtol=0, atol=1e-12)


def test_at_the_deterministic_kernel_nothing_is_lost():
    ce = any_command(grid_kernel(GRID, 0.0), 4)
    bound = stability_bound(ce, 0.0)
    assert (bound.mass == 1).all()
    assert float(bound.objective) == pytest.approx(float(ce.optimum().objective), abs=1e-14)
    assert [float(end) for end in unique_bound(two_armed(1.0), 0.0)] == pytest.approx([0, 1], abs=1e-12)


def published(n: int, least: float, delta: float) -> tuple[float, float]:
    """The constants of the published code for epsilon = 0: the bound 1 - gamma_N, and b of the fixed points."""
    beta, gamma, alpha = 0.0, 0.0, 2 * least / (n * (n + 1))
    for h in range(1, n + 1):
        beta = max(delta, n * delta / 2) if h == 1 else delta + 2 * gamma + beta
        gamma = n * delta / 2 / ((1 - beta) * alpha) if beta < 1 else math.inf
        if gamma >= 1:
            return 0.0, math.inf
    return 1 - gamma, delta * n**2 * (n + 1) / (4 * (1 - delta / 2) ** (2 * n) * least)


@pytest.mark.parametrize("delta", [1e-7, 1e-5, 1e-4, 3e-4, 1e-3])
def test_the_constants_are_not_below_the_published_ones(delta):
    covered = any_command(grid_kernel(GRID, 0.0), 4)
    theirs, _ = published(4, float(covered.start.min()), delta)
    ours = float(stability_bound(covered, delta).mass.min())
    assert ours >= theirs
    alone = one_goal(grid_kernel(GRID, 0.0), 4, start=7, goal=2)
    b = published(4, 1.0, delta)[1]
    low, high = (float(end) for end in unique_bound(alone, delta))
    for x in torch.linspace(0.05, 1, 20).tolist():
        assert x**4 / (x**4 + high**3 * (1 - high)) >= x**8 / (x**8 + b) or math.isinf(b)
    assert low < high


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: critical_states(two_armed(0.9)), "ce must have a deterministic kernel"),
        (lambda: stability_bound(two_armed(0.9), 0.1), "ce must have a deterministic kernel"),
        (lambda: stability_bound(two_armed(1.0), 2.5), "delta.*2.5"),
        (lambda: stability_bound(two_armed(1.0), -0.1), "delta.*-0.1"),
        (lambda: stability_bound(two_armed(1.0), 0.1, 1.0), "epsilon.*1.0"),
        (lambda: unique_bound(any_command(grid_kernel(GRID, 0.0), 4), 0.1), "ce must have one optimal action.*4"),
        (lambda: unique_bound(two_armed(1.0), torch.tensor(3.0)), "delta.*3.0"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
