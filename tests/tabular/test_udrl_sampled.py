"""Sampled eUDRL: counts against their exact expectations, what may never be drawn, seeds alone and in company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mindworks.errors import InputError
from mindworks.tabular.command_cases import any_command, fixed_horizon, grid_kernel, line_kernel, one_goal, two_armed
from mindworks.tabular.command_extension import CommandExtension
from mindworks.tabular.udrl import EUDRL, SEGMENTS
from mindworks.tabular.udrl_sampled import SampledEUDRL, _draw, _draw_shared


def generators(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


@pytest.mark.parametrize("segments", SEGMENTS)
def test_counts_are_within_five_deviations_of_what_is_expected(segments):
    ce = any_command(line_kernel(3, torch.tensor([0.1, 0.4])), 3)
    g = torch.Generator().manual_seed(0)
    policy = torch.rand(2, *ce.uniform_policy().shape, generator=g, dtype=torch.float64)
    policy /= policy.sum(-1, keepdim=True)
    trajectories = 40_000
    counts = SampledEUDRL(ce, trajectories, segments).segment_counts(
        policy.expand(3, 2, -1, -1, -1, -1), generators(*range(3))
    )
    assert counts.dtype == torch.int64
    expected = EUDRL(ce, segments).segment_counts(policy) * trajectories
    assert (counts[:, expected == 0] == 0).all()
    # an episode holds at most 3 segments of a kind, so the variance is at most 3 times the mean
    assert ((counts - expected).abs() <= 5 * (3 * expected).sqrt() + 1).all()
    assert not torch.equal(counts[0], counts[1])


@pytest.mark.parametrize(("segments", "each"), [("all", [1, 3, 6]), ("trailing", [1, 2, 3])])
def test_every_episode_leaves_all_its_segments(segments, each):
    # episodes of h steps hold h (h + 1) / 2 segments, h of them trailing
    for h, number in enumerate(each, 1):
        ce = fixed_horizon(line_kernel(3, 0.2), h, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
        counts = SampledEUDRL(ce, 500, segments).segment_counts(ce.uniform_policy()[None], generators(1))
        assert int(counts.sum()) == 500 * number


def test_without_chance_the_counts_are_exact():
    ce = one_goal(grid_kernel(["...", "..#", "..."], 0.0), 4, start=7, goal=2)
    for segments in SEGMENTS:
        policy = ce.optimum().policy
        policy = (policy == policy.amax(-1, keepdim=True)).double()
        policy[..., 1:] *= policy[..., :1] == 0  # the first best action of those left of a tie
        policy /= policy.sum(-1, keepdim=True)
        counts = SampledEUDRL(ce, 10, segments).segment_counts(policy[None], generators(0))[0]
        expected = EUDRL(ce, segments).segment_counts(policy)
        certain = expected == expected.round()
        assert torch.equal(counts.double()[certain], 10 * expected[certain])
        assert int(counts[7, 3, 1].sum()) == 10


def test_a_seed_draws_the_same_in_any_company():
    ce = any_command(grid_kernel(["..", ".."], [0.1, 0.3]), 3)
    learner = SampledEUDRL(ce, 300, epsilon=0.1)
    together, alone = learner.run([3, 8, 5], 3), learner.run([8], 3)
    assert together.policies.shape == (4, 3, 2, *ce.uniform_policy().shape)
    assert together.objective.shape == (3, 2, 4)
    assert torch.equal(together.policies[:, 1], alone.policies[:, 0])
    assert torch.equal(together.objective[1], alone.objective[0])
    assert not torch.equal(together.policies[1, 0], together.policies[1, 2])
    torch.testing.assert_close(together.objective[..., 0], ce.objective(ce.uniform_policy()).expand(3, 2))


def test_several_policies_of_one_process_are_drawn_side_by_side():
    ce = any_command(line_kernel(3, 0.2), 2)
    policies = torch.stack([ce.uniform_policy(), ce.optimum().policy])
    counts = SampledEUDRL(ce, 20_000).segment_counts(policies.expand(2, -1, -1, -1, -1, -1), generators(0, 1))
    expected = EUDRL(ce).segment_counts(policies) * 20_000
    assert counts.shape == (2, *policies.shape)
    assert ((counts - expected).abs() <= 5 * (3 * expected).sqrt() + 1).all()
    run = SampledEUDRL(ce, 100).run([0, 1, 2], 2, policies)
    assert run.objective.shape == (3, 2, 3)


def test_a_step_is_the_table_of_relative_counts_and_uniform_where_there_are_none():
    ce = one_goal(line_kernel(4, 0.1), 2, start=0, goal=3)  # goal 1 cannot be reached
    counts = SampledEUDRL(ce, 50).segment_counts(ce.uniform_policy()[None], generators(4)).double()
    policy = SampledEUDRL(ce, 50).step(ce.uniform_policy()[None], generators(4))
    total = counts.sum(-1, keepdim=True)
    assert torch.equal(policy, torch.where(total > 0, counts / total, 0.5))
    assert (policy[0, :, :, 1] == 0.5).all()


def test_two_arms_end_near_what_the_recursion_says():
    objective = SampledEUDRL(two_armed([0.6, 0.9])).run(range(100, 104), 5).objective
    assert objective.shape == (4, 2, 6)
    expected = torch.tensor([0.52, 0.82], dtype=torch.float64)
    assert float((objective[..., 1:] - expected[:, None]).abs().max()) < 0.01


def test_what_has_no_probability_is_never_drawn():
    largest = np.nextafter(1.0, 0)
    thirds = np.cumsum([[0.0, 1 / 3, 1 / 3, 1 / 3, 0.0]], -1)
    draws = np.array([0.0, 0.3, 0.5, 0.9, largest])
    assert _draw(thirds, np.zeros(5, np.int64), draws).tolist() == [1, 1, 2, 3, 3]
    assert _draw_shared(np.diff(thirds[0], prepend=0), draws).tolist() == [1, 1, 2, 3, 3]
    tenths = np.cumsum([[*(0.1,) * 10, 0.0]], -1)  # the sum is below 1
    assert tenths[0, -1] < 1
    assert _draw(tenths, np.zeros(2, np.int64), np.array([largest, 0.05])).tolist() == [9, 0]
    ce = CommandExtension(
        torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64),
        torch.arange(2),
        1,
        torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64),
    )
    assert SampledEUDRL(ce, 99).segment_counts(ce.uniform_policy()[None], generators(0)).tolist() == [
        [[[[0], [0]]], [[[0], [99]]]]
    ]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda ce: SampledEUDRL(ce, 0), "trajectories.*0"),
        (lambda ce: SampledEUDRL(ce, segments="some"), "segments.*'some'"),
        (lambda ce: SampledEUDRL(ce, epsilon=-0.1), "epsilon.*-0.1"),
        (lambda ce: SampledEUDRL(ce).run([], 1), "seeds"),
        (lambda ce: SampledEUDRL(ce).run([0], -1), "iterations.*-1"),
        (lambda ce: SampledEUDRL(ce).step(ce.uniform_policy()[None], generators(0, 1)), "policy.*2 generators"),
        (lambda ce: SampledEUDRL(ce).step(ce.uniform_policy(), generators(0, 1)), "policy"),
        (lambda ce: SampledEUDRL(ce).step(ce.uniform_policy()[None] * 2, generators(0)), "policy"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make(two_armed(0.6))
    assert "\n" not in str(caught.value)
