"""Which layer is told what, by hand, and the cross-entropy over it."""

from __future__ import annotations

import math

import pytest
import torch
from planner_helpers import rng

from mindworks.errors import InputError
from mindworks.planning.losses import LOSSES, planning_loss, supervised, supervised_layers

#                  wall  goal  near       far  beyond
STEPS = torch.tensor([-1, 0, 1, 2, 3, 4, 6, 7]).view(1, 1, 1, 8)
LAYERS = [2, 4, 6]
MASKS = {
    "adaptive": [[0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0]],
    "all": [[0, 0, 1, 1, 1, 1, 1, 1]] * 3,
    "last": [[0, 0, 1, 1, 1, 1, 1, 1]] * 3,
    "first": [[0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0]],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_masks_by_hand(loss):
    mask = supervised(LAYERS, STEPS, loss)
    assert mask.dtype == torch.bool
    assert mask.shape == (3, 1, 1, 1, 8)
    assert mask[:, 0, 0, 0].int().tolist() == MASKS[loss]


def test_first_tells_every_state_within_reach_to_one_layer():
    steps = torch.randint(-1, 40, (3, 4, 5, 6), generator=rng())
    told = supervised([7, 14, 21, 30], steps, "first").sum(0)
    assert torch.equal(told, ((steps >= 1) & (steps <= 30)).int())
    assert torch.equal(supervised([7, 14, 21, 30], steps, "adaptive")[-1], told.bool())


@pytest.mark.parametrize(
    ("depth", "every", "loss", "layers"),
    [
        (30, 10, "adaptive", [10, 20, 30]),
        (25, 10, "all", [10, 20, 25]),
        (31, 10, "first", [10, 20, 30, 31]),
        (5, 10, "adaptive", [5]),
        (3, 1, "adaptive", [1, 2, 3]),
        (1, 1, "adaptive", [1]),
        (30, 10, "last", [30]),
    ],
)
def test_layers_by_hand(depth, every, loss, layers):
    assert supervised_layers(depth, every, loss) == layers


@pytest.mark.parametrize("loss", LOSSES)
def test_cross_entropy_by_hand(loss):
    logits = torch.randn(3, 1, 4, 1, 1, 8, generator=rng(), dtype=torch.float64)
    target = torch.rand(1, 4, 1, 1, 8, generator=rng(1), dtype=torch.float64)
    target[..., 4] = torch.tensor([0, 1, 0, 0]).view(1, 4, 1, 1)
    target /= target.sum(1, keepdim=True)
    total, count = 0.0, 0
    for k in range(3):
        for state in range(8):
            if MASKS[loss][k][state]:
                scores = logits[k, 0, :, 0, 0, state].tolist()
                whole = math.log(sum(map(math.exp, scores)))
                parts = zip(scores, target[0, :, 0, 0, state].tolist(), strict=True)
                total += sum(share * (whole - score) for score, share in parts)
                count += 1
    assert planning_loss(logits, target, STEPS, LAYERS, loss).item() == pytest.approx(total / count, rel=1e-12)


def test_only_supervised_pairs_have_gradients():
    logits = torch.randn(3, 1, 4, 1, 1, 8, generator=rng()).requires_grad_()
    target = torch.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]].T.reshape(1, 4, 1, 1, 8)
    planning_loss(logits, target, STEPS, LAYERS).backward()
    touched = logits.grad.abs().sum(2)[:, 0, 0, 0] > 0
    assert touched.int().tolist() == MASKS["adaptive"]


def test_nothing_supervised_is_zero():
    logits = torch.randn(3, 1, 4, 1, 1, 8, generator=rng()).requires_grad_()
    loss = planning_loss(logits, torch.full((1, 4, 1, 1, 8), 0.25), torch.full_like(STEPS, 99), LAYERS)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_certain_and_uniform_logits_have_the_loss_that_they_must_have():
    target = torch.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]].T.reshape(1, 4, 1, 1, 8)
    assert planning_loss((60 * target)[None].expand(3, -1, -1, -1, -1, -1), target, STEPS, LAYERS).item() < 1e-6
    even = planning_loss(torch.zeros(3, 1, 4, 1, 1, 8), target, STEPS, LAYERS)
    assert even.item() == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("call", "names"),
    [
        *((lambda loss=loss: supervised_layers(0, 1, loss), "depth must be at least 1, got 0") for loss in LOSSES),
        (lambda: supervised_layers(1, 0), "every must be at least 1, got 0"),
        (lambda: supervised_layers(1, 1, "some"), "loss must be one of adaptive, all, first, last, got 'some'"),
        (lambda: supervised([1], STEPS, "some"), "loss must be one of .*'some'"),
        (
            lambda: planning_loss(torch.zeros(3, 1, 4, 1, 1, 8), torch.zeros(1, 4, 1, 1, 8), STEPS, [1, 2]),
            "layers must be 3, one per row of logits, got 2",
        ),
        (
            lambda: planning_loss(torch.zeros(3, 1, 4, 1, 1, 8), torch.zeros(1, 4, 1, 8, 1), STEPS, LAYERS),
            r"target must be \[1, 4, 1, 1, 8\], got \[1, 4, 1, 8, 1\]",
        ),
        (
            lambda: planning_loss(torch.zeros(3, 1, 4, 1, 1, 8), torch.zeros(1, 4, 1, 1, 8), STEPS[0], LAYERS),
            r"distances must be \[1, 1, 1, 8\], got \[1, 1, 8\]",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(call, names):
    with pytest.raises(InputError, match=names):
        call()
