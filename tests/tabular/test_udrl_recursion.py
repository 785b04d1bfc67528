"""The recursion of eUDRL against an enumeration of all segments, closed forms, and numbers of the published code."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
    vanishing_goal,
    with_memory,
)
from mindworks.tabular.command_extension import CommandExtension
from mindworks.tabular.rwr import rwr_step
from mindworks.tabular.udrl import EUDRL, SEGMENTS, fit

GRID = ["...", "..#", "..."]


def draw(generator: torch.Generator, *shape: int, zeros: float = 0.0) -> Tensor:
    """Probabilities over the last dimension, a share of them exactly 0."""
    weights = torch.rand(*shape, generator=generator, dtype=torch.float64)
    weights = weights * (torch.rand(*shape, generator=generator) >= zeros)
    weights[..., 0] += weights.sum(-1) == 0
    return weights / weights.sum(-1, keepdim=True)


def extension(seed: int, *batch: int, states: int, actions: int, horizon: int, goals: int, zeros: float = 0.0):
    """A random process and a random policy of it."""
    g = torch.Generator().manual_seed(seed)
    start = draw(g, *batch, states * horizon * goals, zeros=zeros).unflatten(-1, (states, horizon, goals))
    goal_map = torch.randint(goals, (states,), generator=g)
    ce = CommandExtension(draw(g, *batch, states, actions, states, zeros=zeros), goal_map, horizon, start)
    return ce, draw(g, *batch, states, horizon, goals, actions, zeros=zeros)


def enumerated(ce: CommandExtension, policy: Tensor, segments: str) -> tuple[Tensor, float]:
    """Expected segments and the objective, from every action and state sequence of every episode."""
    kernel, goal_of, start, pi = ce.transition.tolist(), ce.goal_map.tolist(), ce.start.tolist(), policy.tolist()
    counts, objective = torch.zeros_like(policy), 0.0
    for s, h, g in itertools.product(range(ce.states), range(1, ce.horizon + 1), range(ce.goals)):
        for actions in itertools.product(range(ce.actions), repeat=h):
            for states in itertools.product(range(ce.states), repeat=h):
                path, p = (s, *states), start[s][h - 1][g]
                for t, a in enumerate(actions):
                    p *= pi[path[t]][h - t - 1][g][a] * kernel[path[t]][a][path[t + 1]]
                objective += p * (goal_of[path[-1]] == g)
                for first, last in itertools.combinations(range(h + 1), 2):
                    reached = goal_of[path[last]]
                    if (segments != "all" and last != h) or (segments == "diagonal" and reached != g):
                        continue
                    counts[path[first], last - first - 1, reached, actions[first]] += p
    return counts, objective


@pytest.mark.parametrize("segments", SEGMENTS)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    states=st.integers(1, 3),
    actions=st.integers(1, 2),
    horizon=st.integers(1, 3),
    goals=st.integers(1, 3),
    zeros=st.sampled_from([0.0, 0.5]),
)
def test_the_recursion_equals_an_enumeration_of_all_segments(segments, seed, states, actions, horizon, goals, zeros):
    ce, policy = extension(seed, states=states, actions=actions, horizon=horizon, goals=goals, zeros=zeros)
    learner = EUDRL(ce, segments)
    counts, objective = enumerated(ce, policy, segments)
    torch.testing.assert_close(learner.segment_counts(policy), counts, rtol=0, atol=1e-14)
    total = counts.sum(-1, keepdim=True)
    expected = torch.where(total > 0, counts / total, 1 / actions)
    torch.testing.assert_close(learner.step(policy), expected, rtol=0, atol=1e-12)
    assert float(learner.run(policy, 0).objective[0]) == pytest.approx(objective, abs=1e-14)
    assert float(ce.objective(policy)) == pytest.approx(objective, abs=1e-14)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_batches_of_kernels_and_policies_equal_single_ones(segments):
    ce, policy = extension(0, 2, 1, states=4, actions=3, horizon=3, goals=2)
    policy = policy * torch.ones(3, 1, 1, 1, 1)
    together = EUDRL(ce, segments, epsilon=0.1).run(policy, 5)
    assert together.policies.shape == (6, 2, 3, 4, 3, 2, 3)
    assert together.objective.shape == (2, 3, 6)
    for i, j in itertools.product(range(2), range(3)):
        one = EUDRL(CommandExtension(ce.transition[i, 0], ce.goal_map, 3, ce.start[i, 0]), segments, epsilon=0.1)
        alone = one.run(policy[i, j], 5)
        torch.testing.assert_close(alone.policies, together.policies[:, i, j], rtol=0, atol=1e-13)
        torch.testing.assert_close(alone.objective, together.objective[i, j], rtol=0, atol=1e-13)


def test_a_batch_that_is_split_for_the_cache_gives_the_same(monkeypatch):
    ce, policy = extension(6, 3, 1, states=3, actions=2, horizon=3, goals=2)
    one_start = CommandExtension(ce.transition, ce.goal_map, 3, ce.start[0, 0])
    one_kernel = CommandExtension(ce.transition[1, 0], ce.goal_map, 3, ce.start)
    policy = policy * torch.ones(3, 5, 1, 1, 1, 1)
    whole = [EUDRL(each).run(policy, 3) for each in (ce, one_start, one_kernel)]
    for limit in (0, 40, 100):
        monkeypatch.setattr("mindworks.tabular.udrl.CACHE", limit)
        for each, expected in zip((ce, one_start, one_kernel), whole, strict=True):
            run = EUDRL(each).run(policy, 3)
            torch.testing.assert_close(run.policies, expected.policies, rtol=0, atol=1e-14)
            torch.testing.assert_close(run.objective, expected.objective, rtol=0, atol=1e-14)
            last = EUDRL(each).run(policy, 3, keep=False)
            torch.testing.assert_close(last.policy, expected.policy, rtol=0, atol=1e-14)


def test_a_run_is_its_steps_and_may_keep_the_last_policy_alone():
    ce, policy = extension(1, states=3, actions=2, horizon=2, goals=2)
    learner = EUDRL(ce, epsilon=0.05)
    run, short = learner.run(policy, 3), learner.run(policy, 3, keep=False)
    by_hand = learner.step(learner.step(learner.step(policy)))
    assert torch.equal(run.policy, by_hand)
    assert torch.equal(run.policies[0], policy)
    assert torch.equal(short.policies, by_hand[None])
    assert torch.equal(short.objective, run.objective)
    torch.testing.assert_close(run.objective, ce.objective(run.policies), rtol=0, atol=1e-14)
    assert torch.equal(learner.run(iterations=1).policies[0], ce.uniform_policy())


def test_nothing_counted_gives_exactly_the_uniform_policy_and_the_smallest_count_does_not():
    counts = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1e-307, 0.0], [1.0, 3.0, 0.0]], dtype=torch.float64).numpy()
    assert fit(counts).tolist() == [[1 / 3] * 3, [0, 1, 0], [0.25, 0.75, 0]]
    assert fit(counts, 0.3)[1].tolist() == pytest.approx([0.1, 0.8, 0.1])
    assert fit(counts, 0.3)[0].tolist() == pytest.approx([1 / 3] * 3)
    assert fit(counts, 1.0).tolist() == [[1 / 3] * 3] * 3


# -- the counterexample -----------------------------------------------------------------------------------------------

ALPHAS = torch.tensor([1.0, 0.99, 0.9, 0.75, 0.6, 0.51], dtype=torch.float64)


def test_two_arms_stay_away_from_the_optimum_after_one_step_and_ever_after():
    ce = two_armed(ALPHAS)
    away = ALPHAS**2 + (1 - ALPHAS) ** 2
    best = ce.optimum()
    torch.testing.assert_close(best.objective, ALPHAS, rtol=0, atol=0)
    for policy, at_first in ((ce.uniform_policy(), torch.full_like(ALPHAS, 0.5)), (best.policy, ALPHAS)):
        objective = EUDRL(ce).run(policy, 50).objective
        torch.testing.assert_close(objective[:, 0], at_first, rtol=0, atol=1e-15)
        torch.testing.assert_close(objective[:, 1:], away[:, None].expand(-1, 50), rtol=0, atol=1e-12)
    gap = best.objective - away
    torch.testing.assert_close(gap, (1 - ALPHAS) * (2 * ALPHAS - 1), rtol=0, atol=1e-15)
    assert float(gap.max()) == pytest.approx(0.125)  # at alpha = 3/4


def test_from_any_policy_without_zeros_two_arms_end_at_the_same_objective():
    ce = two_armed(0.6)
    policy = draw(torch.Generator().manual_seed(0), 50, 2, 1, 2, 2)
    assert float(ce.objective(policy).std()) > 0.01
    objective = EUDRL(ce).run(policy, 900, keep=False).objective[:, -1]  # the marginal's error falls by 0.96 a step
    torch.testing.assert_close(objective, torch.full_like(objective, 0.52), rtol=0, atol=1e-12)


def test_trailing_and_diagonal_segments_of_two_arms():
    # with one step left every segment is trailing; the successful ones alone lead to the optimum
    assert float(EUDRL(two_armed(0.6), "trailing").run(iterations=3).objective[-1]) == pytest.approx(0.52, abs=1e-14)
    assert float(EUDRL(two_armed(0.6), "diagonal").run(iterations=399).objective[-1]) == pytest.approx(0.6, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5, 1.0])
def test_mixing_with_the_uniform_policy_in_closed_form(epsilon):
    objective = EUDRL(two_armed(ALPHAS), epsilon=epsilon).run(iterations=20).objective[:, 1:]
    hit = (1 - epsilon) * ALPHAS + epsilon / 2  # pi_n(a = g | g), for every n from 1
    expected = ALPHAS * hit + (1 - ALPHAS) * (1 - hit)
    torch.testing.assert_close(objective, expected[:, None].expand(-1, 20), rtol=0, atol=1e-12)


def test_with_one_step_left_the_marginal_follows_em_for_the_weights_of_a_mixture():
    g = torch.Generator().manual_seed(3)
    outcomes, goals = draw(g, 7, 4, 3), draw(g, 3)
    ce = goal_bandit(outcomes, goals)
    policies = EUDRL(ce).run(draw(g, 7, 3, 1, 3, 4), 200).policies[..., 0, 0, :, :]  # [n, 7, G, A]
    marginal = (goals[:, None] * policies).sum(-2)
    reached = marginal[..., None, :] @ outcomes
    update = marginal * (outcomes @ (goals / reached[..., 0, :])[..., None])[..., 0]
    torch.testing.assert_close(marginal[1:], update[:-1], rtol=0, atol=1e-13)
    divergence = (goals * (goals / reached[..., 0, :]).log()).sum(-1)
    assert float(divergence.diff(dim=0).max()) <= 1e-14
    assert (divergence[0] - divergence[-1] > 1e-3).all()


# -- discontinuities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6, 0.75, 1.0])
@pytest.mark.parametrize("alpha", [1e-8, 1e-300])
def test_the_second_policy_jumps_where_a_goal_becomes_impossible(share, alpha):
    limit = (9 + 12 * share) / (20 + 24 * share)
    objective = EUDRL(vanishing_goal(alpha, share)).run(iterations=2).objective
    assert float(objective[2]) == pytest.approx(limit, abs=2 * alpha + 1e-14)
    at_zero = EUDRL(vanishing_goal(0.0, share)).run(iterations=2).objective
    assert float(at_zero[2]) == pytest.approx(7 / 16, abs=1e-15)


def test_the_limits_of_the_published_example():
    ends = [float(EUDRL(vanishing_goal(1e-8, share)).run(iterations=2).objective[2]) for share in (3 / 4, 1 / 4)]
    assert ends == pytest.approx([9 / 19, 6 / 13], abs=1e-7)
    assert ends == pytest.approx([0.473684, 0.461538], abs=5e-7)


@pytest.mark.parametrize("epsilon", [0.01, 0.2])
def test_mixing_with_the_uniform_policy_does_not_mend_the_jump(epsilon):
    def second(alpha: float, share: float) -> float:
        return float(EUDRL(vanishing_goal(alpha, share), epsilon=epsilon).run(iterations=2).objective[2])

    beside = torch.tensor([8.5, 1.5, 2.0], dtype=torch.float64) / 12  # m_1 without mixing, as alpha tends to 0
    at_zero = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64) / 6
    for marginal, objective in ((beside, second(1e-9, 0.75)), (at_zero, second(0.0, 0.75))):
        counted = ((1 - epsilon) * marginal + epsilon / 3) * torch.tensor([1.0, 0.0, 0.5])
        policy = (1 - epsilon) * counted / counted.sum() + epsilon / 3
        assert objective == pytest.approx(float(policy[0] + policy[2] / 2) / 2, abs=1e-8)
    assert second(1e-9, 0.75) > second(1e-9, 0.25) > second(0.0, 0.75) + 0.01


def test_at_a_deterministic_kernel_the_policy_jumps_and_the_objective_does_not():
    def kernel(a: float, first: bool) -> Tensor:
        rows = [[1 - a, a, 0], [0, 1 - a, a], [a, 1 - a, 0]] if first else [[1 - a, 0, a], [a, 1 - a, 0], [0, 1 - a, a]]
        return torch.tensor(rows, dtype=torch.float64)

    goals = torch.full((3,), 1 / 3, dtype=torch.float64)
    runs = [EUDRL(goal_bandit(kernel(a, f), goals)).run(iterations=2) for a, f in ((1e-9, 1), (0.0, 1), (1e-9, 0))]
    assert [float(run.policy[0, 0, 1, 1]) for run in runs] == pytest.approx([3 / 4, 1 / 2, 1 / 3], abs=1e-7)
    assert [float(run.objective[2]) for run in runs] == pytest.approx([2 / 3] * 3, abs=1e-8)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_deterministic_kernels_are_solved_in_one_step(segments):
    g = torch.Generator().manual_seed(5)
    ce = any_command(random_deterministic(4, 3, g, 40), 4, torch.tensor([0, 1, 2, 2]))
    run = EUDRL(ce, segments).run(draw(g, 40, 4, 4, 3, 3), 6)
    best = ce.optimum().objective
    torch.testing.assert_close(run.objective[:, 1:], best[:, None].expand(-1, 6), rtol=0, atol=1e-13)
    assert (run.objective[:, 0] < best - 0.01).all()


# -- grids and lines: what the published code gives -------------------------------------------------------------------


def test_on_a_slippery_grid_the_objective_rises_and_falls_again():
    ce = any_command(grid_kernel(GRID, 0.1), 4)
    runs = {segments: EUDRL(ce, segments).run(iterations=399, keep=False).objective for segments in SEGMENTS}
    kept = runs["all"][[0, 1, 4, 399]].tolist()
    assert kept == pytest.approx([0.125, 0.5291, 0.5538, 0.5315], abs=5e-5)
    assert float(runs["trailing"][399]) == pytest.approx(0.5511, abs=5e-5)
    assert float(runs["diagonal"][399]) == pytest.approx(0.646398, abs=5e-7)
    assert float(ce.optimum().objective) == pytest.approx(0.646439, abs=5e-7)
    assert float(runs["diagonal"].diff().min()) >= -1e-15


def test_on_a_slippery_line_segments_of_other_goals_cost_a_quarter():
    ce = any_command(line_kernel(4, 0.3), 4)
    ends = {segments: float(EUDRL(ce, segments).run(iterations=399).objective[-1]) for segments in SEGMENTS}
    assert ends["all"] == pytest.approx(0.3185, abs=5e-5)
    assert ends["trailing"] == pytest.approx(0.3185, abs=5e-5)
    assert ends["diagonal"] == pytest.approx(0.444850, abs=5e-7)
    assert float(ce.optimum().objective) == pytest.approx(ends["diagonal"], abs=1e-9)


def test_with_one_goal_the_grid_is_solved():
    ce = one_goal(grid_kernel(GRID, [0.3, 0.1, 0.01, 0.0]), 4, start=7, goal=2)
    objective = EUDRL(ce).run(iterations=60).objective
    assert objective[:, 19].tolist() == pytest.approx([0.24010, 0.65610, 0.96060, 1.0], abs=5e-6)
    torch.testing.assert_close(objective[:, 60], ce.optimum().objective, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [grid_kernel(GRID, 0.1), line_kernel(4, 0.3)])
def test_diagonal_segments_are_reward_weighted_regression(kernel):
    ce = any_command(kernel, 4)
    policies = EUDRL(ce, "diagonal").run(iterations=60).policies
    mdp = ce.as_mdp(0.5)  # a discount scales the values of all actions of a state alike
    flat = torch.cat([policies.flatten(1, 3), torch.full((61, 1, ce.actions), 1 / ce.actions, dtype=torch.float64)], 1)
    for n in range(60):
        after, _ = rwr_step(mdp, flat[n])
        torch.testing.assert_close(after[:-1], flat[n + 1, :-1], rtol=0, atol=1e-12)


# -- settings of other methods ----------------------------------------------------------------------------------------


def test_goal_conditioned_supervised_learning_of_two_steps_by_hand():
    # a line of three, no slip, from the middle: the four walks of the uniform policy are equally likely
    ce = fixed_horizon(line_kernel(3, 0.0), 2, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    counts = EUDRL(ce).segment_counts(ce.uniform_policy())
    by_hand = torch.zeros_like(counts)
    for first, second, middle, end in ((0, 0, 0, 0), (0, 1, 0, 1), (1, 0, 2, 1), (1, 1, 2, 2)):
        by_hand[1, 0, middle, first] += 0.25
        by_hand[middle, 0, end, second] += 0.25
        by_hand[1, 1, end, first] += 0.25
    torch.testing.assert_close(counts, by_hand, rtol=0, atol=1e-15)
    policy = EUDRL(ce).step(ce.uniform_policy())
    assert policy[1, 1].tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    assert policy[0, 1].tolist() == [[0.5, 0.5]] * 3  # never met with two steps left


@pytest.mark.parametrize("segments", SEGMENTS)
def test_counts_over_histories_add_up_to_those_over_states(segments):
    ce, policy = extension(4, 2, states=3, actions=2, horizon=3, goals=2, zeros=0.4)
    memory = with_memory(ce, 3)
    counts = EUDRL(memory.extension, segments).segment_counts(memory.lift(policy))
    merged = torch.zeros_like(policy).index_add_(1, memory.histories[:, -1], counts)
    torch.testing.assert_close(merged, EUDRL(ce, segments).segment_counts(policy), rtol=0, atol=1e-14)


def test_a_decision_transformer_that_remembers_solves_the_grid_with_one_goal():
    ce = with_memory(one_goal(grid_kernel(GRID, [0.1, 0.0]), 4, start=7, goal=2), 3).extension
    objective = EUDRL(ce, "trailing").run(iterations=30).objective[:, -1]
    torch.testing.assert_close(objective, ce.optimum().objective, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda ce: EUDRL(ce, "diag"), "segments.*'diag'"),
        (lambda ce: EUDRL(ce, epsilon=1.5), "epsilon.*1.5"),
        (lambda ce: EUDRL(ce, epsilon=float("nan")), "epsilon.*nan"),
        (lambda ce: EUDRL(ce).run(iterations=-1), "iterations.*-1"),
        (lambda ce: EUDRL(ce).step(ce.uniform_policy()[0]), "policy"),
        (lambda ce: EUDRL(ce).run(ce.uniform_policy() * 2, 1), "policy"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make(two_armed(0.6))
    assert "\n" not in str(caught.value)
