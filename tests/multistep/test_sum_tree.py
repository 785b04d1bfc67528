"""The tree of sums draws what a running sum over the weights draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.errors import InputError
from mindworks.multistep import SumTree


def plain_draw(weights: np.ndarray, uniform: np.ndarray) -> list[int]:
    """The first index at which the running sum is above uniform * total."""
    found = []
    for each in uniform:
        left = each * weights.sum()
        for index, weight in enumerate(weights):
            if left < weight:
                found.append(index)
                break
            left -= weight
    return found


@pytest.mark.parametrize("size", [1, 2, 5, 8, 9])
def test_it_draws_the_leaf_in_which_the_running_sum_passes_the_number(size: int) -> None:
    rng = np.random.default_rng(size)
    tree, weights = SumTree(size), rng.integers(1, 6, size).astype(float)  # whole numbers: sums are exact
    tree.set(np.arange(size), weights)
    total = int(weights.sum())
    uniform = (np.arange(total) + 0.5) / total
    assert tree.draw(uniform).tolist() == plain_draw(weights, uniform)
    assert np.bincount(tree.draw(uniform), minlength=size).tolist() == weights.tolist()
    assert tree.total == total
    assert tree.weights.tolist() == weights.tolist()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=30), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_sums_are_those_of_the_leaves_after_any_changes(changes: list[tuple[int, int]], batch: int) -> None:
    tree, plain = SumTree(7), np.zeros(7)
    for first in range(0, len(changes), batch):
        index, weight = (np.array(column) for column in zip(*changes[first : first + batch], strict=True))
        tree.set(index, weight.astype(float))
        for i, w in zip(index, weight, strict=True):
            plain[i] = w
    assert tree.weights.tolist() == plain.tolist()
    assert tree.total == plain.sum()
    if plain.sum() > 0:
        uniform = np.random.default_rng(0).random(50)
        assert tree.draw(uniform).tolist() == plain_draw(plain, uniform)


def test_of_an_index_given_twice_the_last_weight_counts() -> None:
    tree = SumTree(4)
    tree.set(np.array([2, 0, 2]), np.array([5.0, 1.0, 3.0]))
    assert tree.weights.tolist() == [1, 0, 3, 0]
    assert tree.total == 4


def test_a_leaf_of_weight_zero_is_never_drawn_also_where_sums_are_rounded() -> None:
    tree = SumTree(4)
    tree.set(np.arange(4), np.array([0, 0.3, 0.7, 0]))  # the largest number below 1, less 0.3, is 0.7
    assert tree.draw(np.array([np.nextafter(1, 0)])).tolist() == [2]
    rng = np.random.default_rng(3)
    for size in (5, 8, 100):
        weights = rng.random(size) * (rng.random(size) < 0.5)
        weights[-1], weights[size // 2] = 0, 0.3
        tree = SumTree(size)
        tree.set(np.arange(size), weights)
        uniform = np.concatenate([rng.random(2000), [0.0, np.nextafter(1, 0)]])
        drawn = tree.draw(uniform)
        assert (drawn < size).all()
        assert (weights[drawn] > 0).all()


def test_nothing_can_be_drawn_from_an_empty_tree() -> None:
    with pytest.raises(InputError, match="weights: none is positive"):
        SumTree(3).draw(np.array([0.5]))
    with pytest.raises(InputError, match="size must be at least 1, got 0"):
        SumTree(0)
