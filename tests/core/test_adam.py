"""Row-wise Adam against torch's own, and rows that stand still."""

from __future__ import annotations

import pytest
import torch

from mindworks.core.adam import Adam
from mindworks.errors import InputError


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 5)])
def test_many_steps_equal_torch(shape):
    ours = normal(*shape)
    theirs = ours.clone().requires_grad_(True)
    adam = Adam(ours, 3e-2, betas=(0.8, 0.99), eps=1e-6)
    reference = torch.optim.Adam([theirs], lr=3e-2, betas=(0.8, 0.99), eps=1e-6)
    for step in range(300):
        gradient = normal(*shape, seed=step) * 10.0 ** (step % 7 - 3)
        adam.step(gradient)
        theirs.grad = gradient.clone()
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-12)


def test_each_row_steps_as_if_it_were_alone_and_inactive_rows_are_frozen():
    rows, steps = 4, 60
    together, masks = normal(rows, 5), torch.rand(steps, rows, generator=torch.Generator().manual_seed(1)) < 0.6
    masks[3], masks[7] = False, True
    alone = [together[s : s + 1].clone() for s in range(rows)]
    adam, single = Adam(together, 1e-2), [Adam(row, 1e-2) for row in alone]
    for step, active in enumerate(masks):
        gradient = normal(rows, 5, seed=step)
        before = [t.clone() for t in (together, adam.mean, adam.square, adam.count)]
        adam.step(torch.where(active.unsqueeze(-1), gradient, torch.nan), active)
        for now, then in zip((together, adam.mean, adam.square, adam.count), before, strict=True):
            assert torch.equal(now[~active], then[~active])
        for s in torch.nonzero(active).flatten().tolist():
            single[s].step(gradient[s : s + 1])
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-14)
    assert adam.count.tolist() == masks.sum(0).tolist()


def test_saved_moments_go_on_bit_for_bit():
    parameter = normal(2, 3).float()
    adam = Adam(parameter, 1e-2)
    for step in range(5):
        adam.step(normal(2, 3, seed=step).float(), torch.tensor([True, step % 2 == 0]))
    copy = parameter.clone()
    resumed = Adam(copy, 1e-2)
    resumed.load(adam.state())
    for step in range(5, 10):
        for optimiser in (adam, resumed):
            optimiser.step(normal(2, 3, seed=step).float())
    assert torch.equal(copy, parameter)
    assert adam.count.tolist() == [10, 8]
    assert all(torch.equal(a, b) for a, b in zip(adam.state().values(), resumed.state().values(), strict=True))


@pytest.mark.parametrize("lr", [0.0, -1.0])
def test_a_step_size_that_is_not_positive_is_refused(lr):
    with pytest.raises(InputError, match=f"lr.*{lr}"):
        Adam(torch.zeros(1), lr)


def test_plain_form_equals_the_fused_kernel(monkeypatch: pytest.MonkeyPatch):
    fused, plain = normal(3, 7), normal(3, 7)
    one, other = Adam(fused, 1e-2), Adam(plain, 1e-2)
    for step in range(20):
        active = torch.tensor([True, step % 2 == 0, step % 3 == 0])
        gradient = normal(3, 7, seed=step)
        one.step(gradient, active)
        with monkeypatch.context() as patch:
            patch.setattr("mindworks.core.adam._FUSED", None)
            other.step(gradient, active)
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-13)
