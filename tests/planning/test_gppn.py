"""GPPNs: equal to one LSTM per cell, stepped in a plain loop as in the published code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planner_helpers import MECHANISMS, convolve, maps, rng

from mindworks.errors import InputError
from mindworks.planning import GPPN, GPPNConfig


def build(mechanism: str = "news", depth: int = 4, window: int = 3) -> GPPN:
    return GPPN(mechanism, depth, GPPNConfig(hidden=4, window=window), generator=rng()).double()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def plain(one: GPPN, inputs: np.ndarray, depth: int) -> np.ndarray:
    """`[A, O, H, W]`: `depth - 1` steps of the gates of an LSTM, cell by cell."""
    w_in, w_state, b_in, b_state = (p.detach().numpy() for p in one.cell.parameters())
    features = convolve(inputs, one.hidden.weight, one.hidden.bias)
    h, c = (convolve(features, part.weight, part.bias) for part in (one.start, one.memory))
    for _ in range(depth - 1):
        gathered = convolve(h, one.gather.weight, one.gather.bias)[0]
        after, memory = np.zeros_like(h), np.zeros_like(c)
        for row, column in np.ndindex(*gathered.shape):
            gates = w_in[:, 0] * gathered[row, column] + b_in + w_state @ h[:, row, column] + b_state
            enter, forget, candidate, leave = np.split(gates, 4)
            kept = sigmoid(forget) * c[:, row, column] + sigmoid(enter) * np.tanh(candidate)
            memory[:, row, column], after[:, row, column] = kept, sigmoid(leave) * np.tanh(kept)
        h, c = after, memory
    logits = convolve(h, one.policy.weight)
    shape = (one.mechanism.orientations, one.mechanism.actions, *inputs.shape[1:])
    return logits.reshape(shape).swapaxes(0, 1)


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_forward_pass_is_the_plain_loop(mechanism, window):
    one = build(mechanism, window=window)
    inputs = maps(mechanism).inputs().double()
    kept = one.logits(inputs, keep=[1, 2, 4])
    assert kept.shape == (3, 2, one.mechanism.actions, one.mechanism.orientations, 5, 6)
    for logits, depth in zip(kept.detach().numpy(), (1, 2, 4), strict=True):
        np.testing.assert_allclose(logits[1], plain(one, inputs[1].numpy(), depth), rtol=0, atol=1e-10)


def test_the_cell_is_torchs_own():
    one = build()
    assert isinstance(one.cell, torch.nn.LSTMCell)
    assert one.cell.input_size == 1


def test_every_parameter_has_a_gradient():
    one = build("diffdrive")
    (one(maps("diffdrive").inputs().double()) ** 2).sum().backward()
    for name, parameter in one.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_parameters_start_in_torchs_ranges():
    one = GPPN("diffdrive", 3, generator=rng())
    assert (one.config.hidden, one.config.window) == (150, 11)
    for layer, fan_in in ((one.hidden, 45), (one.start, 1350), (one.gather, 150 * 121), (one.policy, 150)):
        assert 0.9 * fan_in**-0.5 < layer.weight.abs().max() <= fan_in**-0.5
        if layer.bias is not None:
            assert layer.bias.abs().max() <= fan_in**-0.5
    for parameter in one.cell.parameters():
        assert 0.9 * 150**-0.5 < parameter.abs().max() <= 150**-0.5


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: GPPNConfig(hidden=0), "hidden must be at least 1, got 0"),
        (lambda: GPPNConfig(window=4), "window must be odd and at least 1, got 4"),
        (lambda: GPPNConfig(window=-1), "window must be .*got -1"),
        (lambda: build().logits(maps().inputs().double(), keep=[5]), "keep must lie in 1 to layers=4, got 5 to 5"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(call, names):
    with pytest.raises(InputError, match=names):
        call()
