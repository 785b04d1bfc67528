"""Running statistics equal numpy's on the whole, however the data were split, masked or merged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.envs import RunningNorm
from mindworks.errors import InputError


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    offset=st.sampled_from([0.0, -3.0, 1e3, 1e6]),
)
def test_any_split_and_any_merge_order_equals_numpy(seed, sizes, offset):
    rng = np.random.default_rng(seed)
    parts = [offset + rng.standard_normal((size, 3)) * [1.0, 0.5, 2.0] for size in sizes]
    whole = np.concatenate(parts)
    straight = RunningNorm((3,))
    pieces = []
    for part in parts:
        straight.update(part)
        pieces.append(RunningNorm((3,)))
        pieces[-1].update(part)
    while len(pieces) > 1:
        taken = pieces.pop(int(rng.integers(len(pieces))))
        pieces[int(rng.integers(len(pieces)))].merge(taken)
    for norm in (straight, pieces[0]):
        assert norm.count == len(whole)
        mean = whole.mean(0) if len(whole) else np.zeros(3)
        variance = whole.var(0) if len(whole) else np.zeros(3)
        np.testing.assert_allclose(norm.mean, mean, rtol=1e-10, atol=1e-10)
        # A mean near 1e6 is itself known to 1e-10 only; the variance inherits the square root of that at most.
        np.testing.assert_allclose(norm.variance, variance, rtol=1e-10 if offset < 1e6 else 1e-8, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 8))
def test_masks_and_leading_dimensions_equal_separate_normalisers(seed, batch):
    rng = np.random.default_rng(seed)
    joint = RunningNorm((2,), leading=(3,))
    single = [RunningNorm((2,)) for _ in range(3)]
    for _ in range(3):
        x, mask = rng.standard_normal((3, batch, 2)), rng.random((3, batch)) < 0.6
        x[~mask] = np.nan
        joint.update(x, mask)
        for s in range(3):
            single[s].update(x[s][mask[s]])
    for s in range(3):
        assert joint.count[s] == single[s].count
        np.testing.assert_allclose(joint.mean[s], single[s].mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(joint.std[s], single[s].std, rtol=1e-10)
    x = rng.standard_normal((3, 4, 5, 2)).astype(np.float32)
    scaled = joint.normalize(x)
    assert scaled.dtype == np.float32
    for s in range(3):
        np.testing.assert_array_equal(scaled[s], single[s].normalize(x[s]) if joint.count[s] == 0 else scaled[s])
        np.testing.assert_allclose(scaled[s], single[s].normalize(x[s]), rtol=1e-4, atol=1e-5)


def test_a_large_offset_keeps_the_variance():
    x = 1e6 + np.random.default_rng(0).standard_normal((5000, 1))
    norm = RunningNorm((1,))
    for part in np.array_split(x, 313):
        norm.update(part)
    np.testing.assert_allclose(norm.variance, x.var(0), rtol=1e-9)
    scaled = norm.normalize(x)
    assert abs(scaled.mean()) < 1e-8
    assert abs(scaled.std() - 1) < 1e-6


def test_constant_features_and_no_data_do_not_blow_up():
    norm = RunningNorm((2,))
    np.testing.assert_array_equal(norm.normalize(np.array([3.0, -4.0])), [3.0, -4.0])
    norm.update(np.array([[1e6 / 3, 0.0]] * 7))
    np.testing.assert_array_equal(norm.std, 1.0)
    np.testing.assert_allclose(norm.normalize(np.array([1e6 / 3 + 2, 5.0])), [2.0, 5.0], rtol=1e-9)


def test_frozen_statistics_stay():
    norm = RunningNorm((2,))
    norm.update(np.array([[1.0, 2.0], [3.0, 6.0]]))
    other = RunningNorm((2,))
    other.update(np.ones((4, 2)))
    before = norm.freeze().state()
    norm.update(np.full((5, 2), 9.0))
    norm.merge(other)
    for key, value in norm.state().items():
        np.testing.assert_array_equal(value, before[key])
    assert norm.frozen


def test_state_goes_there_and_back():
    norm = RunningNorm((3,), leading=(2,))
    norm.update(np.random.default_rng(0).standard_normal((2, 6, 3)))
    norm.freeze()
    twin = RunningNorm.from_state(norm.state())
    assert (twin.shape, twin.leading, twin.frozen) == ((3,), (2,), True)
    x = np.ones((2, 3))
    np.testing.assert_array_equal(twin.normalize(x), norm.normalize(x))
    saved = norm.state()
    saved["mean"][:] = 0
    np.testing.assert_array_equal(twin.mean, norm.mean)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda norm: norm.update(np.ones((4, 3))), "x: "),
        (lambda norm: norm.update(np.ones(2)), "x: "),
        (lambda norm: norm.update(np.ones((4, 2)), np.ones(3, bool)), "mask: "),
        (lambda norm: norm.update(np.ones((4, 2)), np.ones(4)), "mask: "),
        (lambda norm: norm.update(np.array([[1.0, np.inf]])), "not finite"),
        (lambda norm: norm.merge(RunningNorm((3,))), "other: "),
        (lambda norm: norm.normalize(np.ones((4, 3))), "x: "),
        (lambda norm: RunningNorm.from_state({"count": np.zeros(())}), "state: 'mean'"),
        (lambda norm: RunningNorm.from_state(norm.state() | {"m2": np.zeros(5)}), "state: "),
    ],
)
def test_bad_input_is_named(call, word):
    with pytest.raises(InputError) as caught:
        call(RunningNorm((2,)))
    assert word in str(caught.value)
