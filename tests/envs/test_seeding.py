"""Uniform draws of many seeds at once are those of numpy's generators, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.envs import make_batch, seeding
from mindworks.envs.rows import row_generator
from mindworks.envs.seeding import uniform_rows

EDGES = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=40, max_size=60),
    st.floats(-1e3, 1e3),
    st.floats(0, 1e3),
    st.integers(1, 6),
)
def test_rows_equal_generators(seeds, low, width, size):
    drawn = uniform_rows([*seeds, *EDGES], low, low + width, size)
    expected = [row_generator(seed).uniform(low, low + width, size) for seed in [*seeds, *EDGES]]
    np.testing.assert_array_equal(drawn, expected)


def test_both_paths_agree_on_this_machine():
    assert seeding._agrees()
    many = list(range(200))
    np.testing.assert_array_equal(seeding._all_at_once(many, 0, 1, 5), seeding._one_by_one(many, 0, 1, 5))


def test_where_the_paths_disagree_the_reference_is_taken(monkeypatch):
    monkeypatch.setattr(seeding, "_agrees", lambda: False)
    monkeypatch.setattr(seeding, "_all_at_once", lambda *arguments: pytest.fail("the fast path was taken"))
    np.testing.assert_array_equal(uniform_rows([5] * 50, -1, 1, 2)[0], row_generator(5).uniform(-1, 1, 2))


@pytest.mark.parametrize("name", ["CartPole-v1", "CartPoleContinuous-v0", "Acrobot-v1", "MountainCarContinuous-v0"])
def test_few_and_many_rows_start_alike(name):
    starts = make_batch(name, 200).reset(range(200))
    for seed in (0, 3, 199):
        np.testing.assert_array_equal(make_batch(name, 1).reset([seed])[0], starts[seed])
