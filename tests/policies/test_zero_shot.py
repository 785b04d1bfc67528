"""Fresh policies on a frozen critic: what is measured, and that nothing is learned from measuring."""

from __future__ import annotations

import copy

import numpy as np
import torch
from policy_helpers import environment, generation, learner

from mindworks.policies import zero_shot


def trained(**config):
    one = learner("pssvf", seeds=(0, 1), population=8, critic_steps=20, **config)
    for _ in range(4):
        generation(one, environment("LQR-v0", 16))
    return one


def test_the_climb_raises_what_the_critic_predicts_and_measuring_changes_nothing() -> None:
    one = trained()
    before = copy.deepcopy(one.state())
    env = environment("LQR-v0", 2 * 3 * 2)
    still, climbed = (zero_shot(one, env, 3, steps=steps, lr=1e-2) for steps in (0, 50))
    for row, higher in zip(still, climbed, strict=True):
        assert row["before"] == row["after"] == higher["before"]
        assert higher["predicted"] > row["predicted"]
        assert higher["after"] != row["after"]
    assert all(torch.equal(one.state()[name], before[name]) for name in ("theta", "phi"))
    assert str(one.streams.state()) == str(before["streams"])
    assert climbed == zero_shot(one, env, 3, steps=50, lr=1e-2)


def test_the_best_in_the_data_is_a_full_return() -> None:
    one = trained(survival_bonus=0.5)
    env = environment("LQR-v0", 4)
    for s, row in enumerate(zero_shot(one, env, 1, steps=0, lr=1e-2)):
        stored = one.replay.values(s) + 0.5 * one.replay.lengths(s)
        np.testing.assert_allclose(row["best_in_data"], float(stored.max()))
        assert row["best_in_data"] <= 0  # the LQR's rewards are costs; without the bonus put back it would be lower
        assert float(one.replay.values(s).max()) < row["best_in_data"]


def test_within_the_data_a_policy_stops_where_the_critic_promises_the_best_of_it() -> None:
    one = trained(survival_bonus=0.5)
    env = environment("LQR-v0", 2 * 1 * 2)
    start, free = (zero_shot(one, env, 1, steps=steps, lr=1e-2) for steps in (0, 200))
    middle = [(low["predicted"] + high["predicted"]) / 2 for low, high in zip(start, free, strict=True)]
    one.replay.policies.data["value"][:] = torch.tensor(middle, dtype=torch.float64).unsqueeze(-1)
    for s, row in enumerate(zero_shot(one, env, 1, steps=200, lr=1e-2, within_data=True)):
        assert middle[s] <= row["predicted"] < free[s]["predicted"]  # Adam's momentum carries it a little further
    one.replay.policies.data["value"].fill_(-1e6)  # everything is better than the data: nobody moves
    for row in zero_shot(one, env, 1, steps=50, lr=1e-2, within_data=True):
        assert row["after"] == row["before"]
