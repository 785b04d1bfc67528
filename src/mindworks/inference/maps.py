"""Maps of the Rényi bound over the mean and the standard deviation of a normal q: exact, and as draws estimate them.

Shape legend: A orders alpha, M means, S standard deviations, n draws. float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Normal

from mindworks.errors import require
from mindworks.inference.renyi_bound import RenyiBound


def bound_map(
    log_joint: Callable[[Tensor], Tensor],
    mean: Tensor,
    std: Tensor,
    alpha: Sequence[float],
    *,
    noise: Tensor | None = None,
    points: int = 201,
) -> Tensor:
    """The bound `[A, M, S]` of `log_joint` for q = N(`mean[M]`, `std[S]`^2), by quadrature with `points`.

    With standard normal `noise[n]` it is the estimate from the draws mean + std noise, the same noise everywhere. The
    estimate is finite even where the bound is -inf.
    """
    require(mean.dim() == std.dim() == 1, f"mean and std must be [M] and [S], got {mean.dim()} and {std.dim()} dims")
    require(len(alpha) >= 1, "alpha must not be empty")
    q = Normal(mean[:, None], std)
    if noise is None:  # one order after the other: the points of one are M * S * points numbers
        return torch.stack([RenyiBound(order)(log_joint, q, points=points) for order in alpha])
    draws = q.mean + q.stddev * noise[:, None, None]
    log_ratio = (log_joint(draws) - q.log_prob(draws)).movedim(0, -1)
    return torch.stack([RenyiBound(order).of(log_ratio) for order in alpha])


def map_summary(exact: Tensor, estimate: Tensor, mean: Tensor, std: Tensor) -> list[dict[str, float]]:
    """Per alpha, of maps `[A, M, S]`: the `mean` and `std` where the bound is largest, and what is `infinite`.

    `infinite` is the share of the map where the bound is; `median_error` and `largest_error` are those of the estimate
    elsewhere.
    """
    require(exact.shape == estimate.shape, f"estimate must be {list(exact.shape)}, got {list(estimate.shape)}")
    rows = []
    for bound, guess in zip(exact, estimate, strict=True):
        finite = bound.isfinite()
        error = (guess - bound)[finite].abs()
        i, j = divmod(int(bound.argmax()), bound.shape[1])
        parts = (mean[i], std[j], 1 - finite.double().mean(), error.median(), error.max())
        names = ("mean", "std", "infinite", "median_error", "largest_error")
        rows.append({name: float(part) for name, part in zip(names, parts, strict=True)})
    return rows
