"""Maps of the bound: every point is the bound there, and the summary says what a map holds."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from mindworks.errors import InputError
from mindworks.inference import RenyiBound, bound_map, map_summary

MEAN, STD = torch.linspace(-1, 1, 5, dtype=torch.float64), torch.tensor([0.5, 0.9, 1.6], dtype=torch.float64)
POSTERIOR = Normal(torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64))


def log_joint(s: torch.Tensor) -> torch.Tensor:
    return POSTERIOR.log_prob(s) - 2


def test_every_point_of_a_map_is_the_bound_there() -> None:
    found = bound_map(log_joint, MEAN, STD, [0.5, 2.0])
    assert found.shape == (2, 5, 3)
    for a, alpha in enumerate((0.5, 2.0)):
        for i in range(5):
            for j in range(3):
                single = RenyiBound(alpha)(log_joint, Normal(MEAN[i], STD[j]))
                torch.testing.assert_close(found[a, i, j], single, rtol=0, atol=1e-10)
    assert (found[1, :, 2] == -math.inf).all()  # 1.6^2 > 2 * 0.9^2


def test_an_estimated_map_uses_the_same_draws_everywhere() -> None:
    noise = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = bound_map(log_joint, MEAN, STD, [0.5, 2.0], noise=noise)
    s = MEAN[3] + STD[1] * noise
    by_hand = RenyiBound(2.0).of(log_joint(s) - Normal(MEAN[3], STD[1]).log_prob(s))
    torch.testing.assert_close(found[1, 3, 1], by_hand, rtol=0, atol=1e-12)
    assert found.isfinite().all()


def test_the_summary_names_the_peak_the_infinite_share_and_the_errors() -> None:
    exact = bound_map(log_joint, MEAN, STD, [0.5, 2.0])
    rows = map_summary(exact, exact + torch.linspace(0, 1, 15, dtype=torch.float64).reshape(5, 3), MEAN, STD)
    assert [(row["mean"], row["std"]) for row in rows] == [(0.5, 0.9)] * 2
    assert [row["infinite"] for row in rows] == pytest.approx([0, 1 / 3])
    assert rows[0]["median_error"] == pytest.approx(0.5)
    assert rows[0]["largest_error"] == pytest.approx(1)
    assert rows[1]["largest_error"] == pytest.approx(13 / 14)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: bound_map(log_joint, MEAN[:, None], STD, [1.0]), "mean and std"),
        (lambda: bound_map(log_joint, MEAN, STD, []), "alpha"),
        (lambda: map_summary(torch.zeros(1, 5, 3), torch.zeros(1, 5, 2), MEAN, STD), "estimate"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(call, names: str) -> None:
    with pytest.raises(InputError, match=names) as caught:
        call()
    assert "\n" not in str(caught.value)
