"""What planners know beforehand: taps that actions aim at, and rewards of 2, 1 and 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planner_helpers import MECHANISMS, maps, rng

from mindworks.errors import InputError
from mindworks.planning import DTVIN, VIN, DTVINConfig, VINConfig, find_mechanism
from mindworks.planning.priors import move_taps, reward_free_and_goal, stay_taps
from mindworks.planning.value_iteration import window


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("name", MECHANISMS)
def test_taps_point_at_the_state_that_an_action_leads_to(name, size):
    mechanism = find_mechanism(name)
    moves, stays = move_taps(mechanism, size), stay_taps(mechanism, size)
    assert moves.shape == (mechanism.orientations, mechanism.actions)
    shape = (mechanism.orientations, size, size)
    for o, row in enumerate(mechanism.moves):
        assert np.unravel_index(int(stays[o]), shape) == (o, size // 2, size // 2)
        for a, (turned, down, right) in enumerate(row):
            assert np.unravel_index(int(moves[o, a]), shape) == (turned, size // 2 + down, size // 2 + right)


@pytest.mark.parametrize("name", MECHANISMS)
def test_taps_are_those_of_the_window_of_value_iteration(name):
    mechanism = find_mechanism(name)
    values = torch.arange(mechanism.orientations * 30.0).view(1, mechanism.orientations, 5, 6) + 1
    seen = window(values, 3)[0]
    for o, row in enumerate(mechanism.moves):
        assert torch.equal(seen[stay_taps(mechanism, 3)[o]], values[0, o])
        for a, (turned, down, right) in enumerate(row):
            assert seen[move_taps(mechanism, 3)[o, a], 2, 2] == values[0, turned, 2 + down, 2 + right]


def test_a_window_that_no_move_fits_in_is_refused():
    with pytest.raises(InputError, match="window must be at least 3, got 1"):
        move_taps(find_mechanism("news"), 1)


@pytest.mark.parametrize("kind", ["dt_vin", "vin"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_rewards_start_at_two_at_the_goal_one_in_the_open_and_zero_in_walls(name, kind):
    one = DTVIN(name, 3, generator=rng()) if kind == "dt_vin" else VIN(name, 3, VINConfig(reward_prior=True))
    mazes = maps(name)
    expected = mazes.free[:, None] + mazes.goal_maps()
    reward = one.reward(one.hidden(mazes.inputs()))
    torch.testing.assert_close(reward, expected, rtol=0, atol=1e-5)
    assert all(parameter.requires_grad for parameter in (*one.hidden.parameters(), *one.reward.parameters()))


def test_without_the_prior_rewards_are_random():
    mazes = maps()
    one = DTVIN("news", 3, DTVINConfig(reward_prior=False), generator=rng())
    reward = one.reward(one.hidden(mazes.inputs()))
    assert (reward[mazes.free[:, None]] - 1).abs().max() > 0.1


def test_the_reward_prior_keeps_centre_taps_alone():
    hidden = torch.nn.Conv2d(5, 7, 5, padding=2)
    reward = torch.nn.Conv2d(7, 4, 1, bias=False)
    read = reward.weight.clone()
    reward_free_and_goal(hidden, reward)
    assert torch.equal(reward.weight, read)
    assert (hidden.bias == 0).all()
    assert hidden.weight[:, :, 2, 2].any()
    assert (hidden.weight.flatten(2).abs().sum(2) == hidden.weight[:, :, 2, 2].abs()).all()
    linear = reward.weight.flatten(1) @ hidden.weight[:, :, 2, 2]
    expected = torch.cat([torch.ones(4, 1), torch.eye(4)], 1)
    torch.testing.assert_close(linear, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("name", MECHANISMS)
def test_move_and_stay_biases_change_the_taps_that_they_name_and_nothing_else(name, size):
    mechanism = find_mechanism(name)

    def make(move: float, stay: float) -> DTVIN:
        return DTVIN(name, 3, DTVINConfig(window=size, move_bias=move, stay_bias=stay), generator=rng())

    plain, moved, stayed = make(0, 0), make(0.7, 0), make(0, 6)
    shape = (mechanism.orientations, mechanism.actions, mechanism.orientations, size, size)
    bias = torch.zeros(shape)
    weight = torch.zeros(*shape, 1 + mechanism.orientations, 3, 3)
    for o, row in enumerate(mechanism.moves):
        for a, (turned, down, right) in enumerate(row):
            bias[o, a, turned, size // 2 + down, size // 2 + right] = 0.7
            weight[o, a, o, size // 2, size // 2, 1 + o, 1, 1] = 6
    torch.testing.assert_close(moved.transition.bias - plain.transition.bias, bias.flatten(), rtol=0, atol=1e-6)
    assert torch.equal(moved.transition.weight, plain.transition.weight)
    found = stayed.transition.weight - plain.transition.weight
    torch.testing.assert_close(found.view_as(weight), weight, rtol=0, atol=1e-6)
    assert torch.equal(stayed.transition.bias, plain.transition.bias)


def test_at_the_goal_every_action_first_mostly_stays():
    mazes = maps("diffdrive")
    latent = DTVIN("diffdrive", 3, generator=rng()).model(mazes.inputs())
    for maze, (o, row, column) in enumerate(mazes.goal.tolist()):
        taps = latent.transition[maze, o, :, :, row, column]
        assert (taps.argmax(1) == stay_taps(mazes.mechanism, 3)[o]).all()
        assert (taps.amax(1) > 0.8).all()
