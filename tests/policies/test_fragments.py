"""Fragments of episodes are the episodes, cut: nothing is lost, doubled or ended too early."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from policy_helpers import environment, episodes_by_hand, learner

from mindworks.errors import InputError
from mindworks.policies.fragments import cut, play_fragments

KEYS = ("observation", "action", "reward", "next_observation", "terminated")


def whole_episodes():
    """Lengths around the cuts of 3 turns of 2 steps, with every ending."""
    lives = [1, 2, 3, 4, 5, 6, 6]
    rewards = [[100.0 * i + t + 1 for t in range(life)] for i, life in enumerate(lives)]
    seen = [[10.0 * i + t for t in range(life + 1)] for i, life in enumerate(lives)]
    ended = [True, True, False, False, True, True, False]
    odd = [False, False, False, True, False, False, False]
    return episodes_by_hand(rewards, seen, rewards, ended, odd)


def test_fragments_hold_the_transitions_of_the_episode_in_order():
    whole = whole_episodes()
    fragments = cut(whole, 3, 2)
    assert fragments.lengths.reshape(7, 3).tolist() == [
        [1, 0, 0], [2, 0, 0], [2, 1, 0], [2, 2, 0], [2, 2, 1], [2, 2, 2], [2, 2, 2]
    ]  # fmt: skip
    expected, ours = whole.transitions(), fragments.transitions()
    for key in KEYS:
        np.testing.assert_array_equal(ours[key], expected[key], err_msg=key)
    np.testing.assert_array_equal(ours["row"] // 3, expected["row"])
    np.testing.assert_array_equal(ours["row"] % 3, expected["time"] // 2)
    np.testing.assert_allclose(fragments.returns.reshape(7, 3).sum(1), whole.returns)


def test_only_the_last_fragment_keeps_the_flags_and_the_others_are_truncated():
    fragments = cut(whole_episodes(), 3, 2)
    flags = {name: getattr(fragments, name).reshape(7, 3) for name in ("terminated", "truncated", "diverged")}
    lengths = fragments.lengths.reshape(7, 3)
    assert np.argwhere(flags["terminated"]).tolist() == [[0, 0], [1, 0], [4, 2], [5, 2]]
    assert np.argwhere(flags["diverged"]).tolist() == [[3, 1]]
    np.testing.assert_array_equal(flags["truncated"], (lengths > 0) & ~flags["terminated"])


def test_final_observations_follow_the_last_step_of_each_fragment():
    whole = whole_episodes()
    fragments = cut(whole, 3, 2)
    for row in np.flatnonzero(fragments.lengths):
        time = 2 * (row % 3) + fragments.lengths[row]
        assert fragments.final_observations[row] == whole.observations[row // 3, time]


@pytest.mark.parametrize(("kind", "task"), [("psvf", "LQR-v0"), ("pavf", "CartPole-v1")])
def test_each_turn_is_played_by_its_own_policy_and_can_be_told(kind, task):
    one, env = learner(kind, task, seeds=[0, 1]), environment(task, 4)
    theta = torch.randn(2, 2, 3, one.policy.num_parameters, generator=torch.Generator().manual_seed(0))
    fragments = play_fragments(one, env, theta, length=4)
    assert fragments.lengths.shape == (12,)
    assert fragments.lengths.max() == 4
    if kind == "psvf":
        flat = fragments.transitions()
        chosen = one.policy.mode(
            theta.flatten(0, 2)[flat["row"]], torch.from_numpy(flat["observation"]).unsqueeze(1)
        ).squeeze(1)
        np.testing.assert_allclose(flat["action"], chosen.numpy(), rtol=1e-5, atol=1e-6)
    one.tell(theta.flatten(1, 2), fragments)
    assert one.steps.tolist() == fragments.lengths.reshape(2, 6).sum(1).tolist()
    assert one.transitions.size.tolist() == one.steps.tolist()
    assert one.theta.isfinite().all()


@pytest.mark.parametrize(
    ("shape", "length", "names"), [((2, 2, 3, 2), 0, "length.*0"), ((2, 6, 2), 3, "theta")], ids=["length", "theta"]
)
def test_bad_input_is_refused_in_one_line_that_names_it(shape, length, names):
    one, env = learner("psvf", seeds=[0, 1]), environment("LQR-v0", 4)
    with pytest.raises(InputError, match=names):
        play_fragments(one, env, torch.zeros(shape), length=length)


def test_an_environment_of_other_rows_is_refused():
    one = learner("psvf", seeds=[0, 1])
    with pytest.raises(InputError, match=r"env.*4.*3"):
        play_fragments(one, environment("LQR-v0", 3), torch.zeros(2, 2, 3, 2), length=2)
