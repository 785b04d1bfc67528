"""The numpy stepping path plays what the torch policy says, whoever else is alive."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.errors import InputError

INF = math.inf
HEADS = {
    "categorical": Categorical(3),
    "reference": Categorical(3, reference=True),
    "box": Box((-1.0, -2.0), (1.0, 2.0)),
    "asymmetric": Box((0.0, -3.0), (0.5, 7.0)),
    "unbounded": Box((-INF, -INF), (INF, INF)),
    "partly bounded": Box((-1.0, 0.0, -INF), (3.0, INF, 2.0)),
    "gaussian": Box((0.0, -INF), (0.5, INF), gaussian=True),
}


def make(head: str, hidden: tuple[int, ...] = (8,), activation: str = "tanh", rows: int = 6, bias: bool = True):
    policy = Policy(MLP((4, *hidden, HEADS[head].outputs), activation, bias), HEADS[head])
    generator = torch.Generator().manual_seed(1)
    theta = 2 * policy.init(2, rows // 2, generator=generator)
    if policy.gaussian:  # every row its own deviations
        theta[..., -2:] = torch.randn(2, rows // 2, 2, generator=generator) - 0.5
    return policy, theta


def observations(steps: int, rows: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, rows, 4)).astype(np.float32)


def rngs(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


EVERYONE = np.ones(6, bool)


@pytest.mark.parametrize("hidden", [(), (8, 5)], ids=["linear", "deep"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("head", HEADS)
def test_the_actor_plays_the_mode(head, bias, activation, hidden):
    policy, theta = make(head, hidden, activation, bias=bias)
    act = policy.actor(theta)
    for obs in observations(5):
        expected = policy.mode(theta, torch.from_numpy(obs).reshape(2, 3, 1, 4)).reshape(6, -1).numpy()
        actions = act(obs, EVERYONE)
        assert actions.dtype == (np.float32 if policy.continuous else np.int64)
        assert actions.shape == (expected.shape if policy.continuous else (6,))
        np.testing.assert_allclose(actions.reshape(6, -1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", ["one", "per seed", "per row"])
@pytest.mark.parametrize("head", ["categorical", "asymmetric", "gaussian"])
def test_the_actor_sees_normalised_observations(head, groups):
    policy, theta = make(head)
    rng = np.random.default_rng(3)
    shape = {"one": (4,), "per seed": (2, 4), "per row": (6, 4)}[groups]
    scaling = SimpleNamespace(mean=rng.normal(size=shape), std=rng.uniform(0.5, 2, shape))
    mean, std = (
        np.broadcast_to(x.reshape(-1, 4).repeat(6 // x.reshape(-1, 4).shape[0], 0), (6, 4))
        for x in (scaling.mean, scaling.std)
    )
    act = policy.actor(theta, scaling)
    for alive in (EVERYONE, np.array([1, 0, 1, 0, 0, 1], bool)):
        obs = observations(1)[0]
        seen = torch.from_numpy(((obs - mean) / std).astype(np.float32)).reshape(2, 3, 1, 4)
        expected = policy.mode(theta, seen).reshape(6, -1).numpy()
        np.testing.assert_allclose(act(obs, alive).reshape(6, -1)[alive], expected[alive], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("noise", [False, True], ids=["greedy", "noisy"])
@pytest.mark.parametrize("head", ["categorical", "reference", "gaussian"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(masks=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=2, max_size=6))
def test_actions_do_not_depend_on_who_else_is_alive(head, noise, masks):
    policy, theta = make(head)
    together = policy.actor(theta, rngs=rngs(5, 6) if noise else None)
    thinned = policy.actor(theta, rngs=rngs(5, 6) if noise else None)
    alive = np.ones(6, bool)
    for obs, mask in zip(observations(len(masks)), masks, strict=True):
        expected = together(obs, EVERYONE)
        alive[:] = mask  # one array, changed in place from step to step
        actions = thinned(np.where(alive[:, None], obs, np.nan).astype(np.float32), alive)
        np.testing.assert_allclose(actions[alive], expected[alive], rtol=1e-6, atol=1e-6)
        assert (actions[~alive] == 0).all()
        assert actions.dtype == expected.dtype


def test_the_dead_come_back_for_the_next_episode():
    policy, theta = make("box")
    act, obs = policy.actor(theta), observations(1)[0]
    first = act(obs, EVERYONE)
    act(obs, np.array([0, 0, 0, 1, 0, 0], bool))
    act(obs, np.zeros(6, bool))
    np.testing.assert_array_equal(act(obs, EVERYONE), first)


@pytest.mark.parametrize("head", ["categorical", "reference", "gaussian"])
def test_noise_follows_its_groups_generator_and_no_other(head):
    policy, theta = make(head)
    tape = observations(30)

    def play(actor_theta, seeds, rows):
        act = policy.actor(actor_theta, rngs=rngs(*seeds))
        return np.stack([act(obs[rows], np.ones(len(obs[rows]), bool)) for obs in tape])

    both = play(theta, (5, 6), slice(0, 6))
    np.testing.assert_array_equal(play(theta, (5, 6), slice(0, 6)), both)
    other = play(theta, (5, 7), slice(0, 6))
    np.testing.assert_array_equal(other[:, :3], both[:, :3])
    assert (other[:, 3:] != both[:, 3:]).any()
    np.testing.assert_allclose(play(theta[1], (6,), slice(3, 6)), both[:, 3:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("head", ["categorical", "reference"])
def test_sampled_actions_have_the_frequencies_of_the_policy(head):
    policy, theta = make(head, rows=2)
    obs = observations(1, 2)[0]
    act = policy.actor(theta, rngs=rngs(0, 1))
    drawn = np.stack([act(obs, np.ones(2, bool)) for _ in range(4000)])
    probabilities = policy.features(theta, torch.from_numpy(obs).reshape(2, 1, 1, 4)).reshape(2, 3).numpy()
    for row in range(2):
        expected = probabilities[row].astype(np.float64)
        assert stats.chisquare(np.bincount(drawn[:, row], minlength=3), 4000 * expected / expected.sum()).pvalue > 1e-3


def test_gaussian_noise_is_added_before_squashing_with_each_rows_own_deviation():
    policy, theta = make("gaussian", rows=2)
    theta[..., -2:] = torch.tensor([[[-1.0, 0.0]], [[0.5, -2.0]]])
    obs = observations(1, 2)[0]
    raw_mean = policy.outputs(theta, torch.from_numpy(obs).reshape(2, 1, 1, 4)).reshape(2, 2).numpy()
    act = policy.actor(theta, rngs=rngs(0, 1))
    drawn = np.stack([act(obs, np.ones(2, bool)) for _ in range(4000)]).astype(np.float64)
    raw = np.stack([np.arctanh((drawn[..., 0] - 0.25) / 0.25), drawn[..., 1]], -1)
    scaled = (raw - raw_mean) / theta[:, 0, -2:].exp().numpy()
    for row in range(2):
        for j in range(2):
            assert stats.kstest(scaled[:, row, j], "norm").pvalue > 1e-3


def test_a_normaliser_that_does_not_divide_the_rows_is_refused():
    policy, theta = make("box")
    with pytest.raises(InputError, match=r"normalizer.*6.*4"):
        policy.actor(theta, SimpleNamespace(mean=np.zeros((4, 4)), std=np.ones((4, 4))))
