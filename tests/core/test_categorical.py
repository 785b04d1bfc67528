"""Draws from rows of probabilities: frequencies, impossible entries, and the edges of the unit interval."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.core.categorical import CategoricalRows

ALMOST_ONE = 1 - 2.0**-53


def test_draws_are_the_inverse_of_the_distribution_function():
    rows = CategoricalRows(torch.tensor([[0.25, 0.25, 0.5], [0.0, 1.0, 0.0]], dtype=torch.float64))
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.4999, 0.5, ALMOST_ONE, 0.0, 0.5, ALMOST_ONE], dtype=torch.float64)
    row = torch.tensor([0] * 6 + [1] * 3)
    assert rows.draw(row, uniform).tolist() == [0, 0, 1, 1, 2, 2, 1, 1, 1]


def test_leading_dimensions_have_rows_of_their_own():
    probability = torch.eye(4, dtype=torch.float64)[torch.tensor([[0, 1], [2, 3], [1, 0]])]  # [3, 2, 4]
    row = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 1, 0]])
    uniform = torch.rand(3, 3, dtype=torch.float64)
    drawn = CategoricalRows(probability).draw(row, uniform)
    assert drawn.tolist() == [[0, 1, 1], [3, 2, 2], [1, 0, 1]]
    shared = CategoricalRows(probability[0]).draw(row, uniform)  # one table for all
    assert shared.tolist() == row.tolist()


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.lists(st.sampled_from([0, 0, 1e-300, 1e-9, 0.1, 3.0]), min_size=4, max_size=4), min_size=1),
    uniform=st.sampled_from([0.0, 1e-300, 0.1, 0.5, 1 - 1e-9, ALMOST_ONE]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_nothing_impossible_is_ever_drawn(weights, uniform, dtype):
    probability = torch.tensor([row if any(row) else [1.0, 0, 0, 0] for row in weights], dtype=torch.float64)
    probability = (probability / probability.sum(-1, keepdim=True)).to(dtype)
    row = torch.arange(len(probability))
    drawn = CategoricalRows(probability).draw(row, torch.full(row.shape, uniform, dtype=torch.float64))
    assert ((drawn >= 0) & (drawn < 4)).all()
    assert (probability[row, drawn] > 0).all()
