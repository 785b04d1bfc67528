"""The LQR's closed form against its simulation, and against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mindworks.envs import lqr_return, make_batch, rollout
from mindworks.errors import InputError


def affine(gain, bias):
    def act(seen, alive):
        with np.errstate(over="ignore"):
            return (gain[:, None] * seen + bias[:, None]).astype(np.float32)

    return act


def test_hand_computed_returns():
    # From s = 2 with a = -s: reward -(4 + 4), then rest. With a = 0: -4 at every step.
    assert lqr_return(-1.0, initial_mean=2.0, initial_std=0.0) == -8.0
    assert lqr_return(0.0, initial_mean=2.0, initial_std=0.0, horizon=7) == -28.0
    # From s = 0 with a = 1: states 0, 1, 2, each action costs 1.
    assert lqr_return(0.0, 1.0, initial_mean=0.0, initial_std=0.0, horizon=3) == -(0 + 1 + 4) - 3
    # E[s0²] = 1: one step of a = -s costs 2.
    assert lqr_return(-1.0, horizon=1) == -2.0
    assert lqr_return(0.0, horizon=3, discount=0.5) == -1.75
    assert lqr_return(0.3, horizon=0) == 0.0


def test_closed_form_equals_simulation_from_a_fixed_start():
    gain, bias = np.array([-1.5, -0.6, 0.0, 0.05]), np.array([0.3, -0.2, 0.1, 0.0])
    shape = {
        "drift": 0.9,
        "control": 0.7,
        "state_cost": 2.0,
        "action_cost": 0.5,
        "initial_mean": 1.3,
        "initial_std": 0.0,
    }
    env = make_batch("LQR-v0", 4, **shape)
    played = rollout(env, affine(gain, bias), [0, 1, 2, 3])
    np.testing.assert_allclose(played.returns, lqr_return(gain, bias, **shape), rtol=1e-5)
    np.testing.assert_array_equal(played.lengths, 50)
    np.testing.assert_array_equal(played.truncated, True)
    np.testing.assert_array_equal(played.terminated, False)


def test_closed_form_is_the_mean_over_random_starts():
    rows, gain, bias = 4000, -0.4, 0.2
    env = make_batch("LQR-v0", rows, horizon=20, initial_mean=0.5, initial_std=0.8)
    played = rollout(env, affine(np.full(rows, gain), np.full(rows, bias)), range(rows), record=False)
    exact = lqr_return(gain, bias, horizon=20, initial_mean=0.5, initial_std=0.8)
    standard_error = played.returns.std() / np.sqrt(rows)
    assert abs(played.returns.mean() - exact) < 4 * standard_error
    assert standard_error < 0.02 * abs(exact)


def test_the_best_gain_solves_the_riccati_equation():
    gains = np.linspace(-1, 0, 10001)
    best = gains[lqr_return(gains, horizon=200).argmax()]
    assert abs(best - (1 - np.sqrt(5)) / 2) < 2e-4  # p = 1 + p / (1 + p), gain = -p / (1 + p)


def test_broadcasting_and_overflow():
    assert lqr_return(np.zeros((3, 1)), np.zeros(4)).shape == (3, 4)
    assert lqr_return(1e9) == -np.inf
    env = make_batch("LQR-v0", 2, initial_std=0.0, initial_mean=1.0)
    played = rollout(env, affine(np.array([1e6, -0.5]), np.zeros(2)), [0, 1])
    np.testing.assert_array_equal(played.diverged, [True, False])
    assert np.isfinite(played.returns).all()


def test_limits_clip_actions_and_states():
    env = make_batch("LQR-v0", 1, initial_mean=5.0, initial_std=0.0, action_limit=1.0, state_limit=3.0, horizon=2)
    played = rollout(env, affine(np.array([-9.0]), np.zeros(1)), [0])
    np.testing.assert_array_equal(played.observations[0, :, 0], [3.0, 2.0, 1.0])
    assert played.returns[0] == -(9 + 1) - (4 + 1)
    assert env.single_action_space.high[0] == 1.0


@pytest.mark.parametrize("bad", [{"horizon": 0}, {"initial_std": -1.0}, {"action_limit": 0.0}, {"state_limit": -2.0}])
def test_bad_parameters_are_named(bad):
    with pytest.raises(InputError, match="max_episode_steps" if "horizon" in bad else next(iter(bad))):
        make_batch("LQR-v0", 2, **bad)
    with pytest.raises(InputError, match="initial_std"):
        lqr_return(0.0, initial_std=-1.0)
