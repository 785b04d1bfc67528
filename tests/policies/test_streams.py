"""A seed draws the same numbers in any company, and goes on from where it was saved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mindworks.errors import InputError
from mindworks.policies.streams import Streams


def draws(streams: Streams) -> tuple[torch.Tensor, np.ndarray]:
    return streams.draw(lambda g: torch.randn(4, generator=g)), streams.integers(3, 2)


def test_a_seed_does_not_know_its_company():
    together, alone = Streams([4, 9, 0]), Streams([9])
    for _ in range(3):
        (many, whole), (one, single) = draws(together), draws(alone)
        assert many.shape == (3, 4)
        assert whole.shape == (3, 3, 2)
        assert torch.equal(many[1], one[0])
        np.testing.assert_array_equal(whole[1], single[0])
        assert len(np.unique(whole)) == whole.size
        assert not torch.equal(many[0], many[1])


def test_integers_are_seeds():
    integers = Streams(range(3)).integers(1000)
    assert integers.dtype == np.int64
    assert (integers >= 0).all()
    assert integers.max() > 2**61


def test_torch_and_numpy_streams_do_not_disturb_each_other():
    first, second = Streams([1]), Streams([1])
    first.integers(100)
    assert torch.equal(draws(first)[0], draws(second)[0])


def test_the_global_generators_are_left_alone():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    draws(Streams([1, 2]))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_saved_streams_go_on_bit_for_bit():
    streams = Streams([3, 5])
    draws(streams)
    state = streams.state()
    expected = [draws(streams) for _ in range(2)]
    fresh = Streams([3, 5])
    fresh.load(state)
    for numbers, integers in expected:
        again, again_integers = draws(fresh)
        assert torch.equal(again, numbers)
        np.testing.assert_array_equal(again_integers, integers)


@pytest.mark.parametrize("seeds", [[], [0, -1]])
def test_bad_seeds_are_refused(seeds):
    with pytest.raises(InputError, match="seeds"):
        Streams(seeds)
