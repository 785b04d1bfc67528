"""Exact running mean and variance of observations, mergeable in any order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mindworks.errors import require

# Added to the variance under the square root; a feature whose variance does not exceed it counts as constant.
EPSILON = 1e-8


class RunningNorm:
    """Count, mean and sum of squared deviations of everything seen, in float64, one set per leading index.

    shape: of one observation, e.g. `(D,)`; leading: e.g. `(S,)` for S independent normalisers (one per seed).
    Statistics are merged by the pairwise formula of Chan, Golub and LeVeque (1983), so any split of the data into
    updates, and any order of merging, gives the mean and the population variance of the whole up to rounding.
    A constant feature is centred and not scaled (standard deviation 1): dividing by a standard deviation of almost
    zero would turn its first change into an enormous input.
    """

    def __init__(self, shape: tuple[int, ...], leading: tuple[int, ...] = ()) -> None:
        self.shape = tuple(shape)
        self.leading = tuple(leading)
        self.count = np.zeros(self.leading, np.float64)
        self.mean = np.zeros(self.leading + self.shape, np.float64)
        self.m2 = np.zeros(self.leading + self.shape, np.float64)
        self.frozen = False

    def freeze(self) -> Self:
        """Ignore every later `update` and `merge`, as zero-shot evaluation asks; return self."""
        self.frozen = True
        return self

    def update(self, x: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Take in a batch.

        x: `[*leading, B, *shape]`; mask: `[*leading, B]` booleans, False leaves an entry out (None takes all).
        Raises `InputError` for another shape, or for a kept entry that is not finite.
        """
        x = np.asarray(x, np.float64)
        lead, batch = len(self.leading), x.shape[len(self.leading) : len(self.leading) + 1]
        require(
            x.shape == self.leading + batch + self.shape and len(batch) == 1,
            f"x: expected shape {(*self.leading, 'B', *self.shape)}, got {x.shape}",
        )
        keep = np.ones(self.leading + batch, np.bool_) if mask is None else np.asarray(mask)
        require(
            keep.shape == self.leading + batch and keep.dtype == np.bool_,
            f"mask: expected booleans {self.leading + batch}, got {keep.dtype} {keep.shape}",
        )
        if self.frozen or not keep.size:
            return
        weights = keep.reshape(keep.shape + (1,) * len(self.shape))
        kept = np.where(weights, x, 0.0)
        require(bool(np.isfinite(kept).all()), "x: holds a kept entry that is not finite")
        count = keep.sum(axis=lead).astype(np.float64)
        divisor = np.maximum(self._spread(count), 1.0)
        # Deviations from the batch's first kept entry keep large offsets out of the sums.
        first = np.take_along_axis(
            kept, keep.argmax(axis=lead).reshape(self.leading + (1,) * (1 + len(self.shape))), lead
        )
        shifted = np.where(weights, kept - first, 0.0)
        mean = shifted.sum(axis=lead) / divisor
        m2 = np.where(weights, np.square(shifted - np.expand_dims(mean, lead)), 0.0).sum(axis=lead)
        self._absorb(count, mean + first.squeeze(lead), m2)

    def merge(self, other: RunningNorm) -> None:
        """Take in all that `other`, of the same shape and leading dimensions, has seen."""
        require(
            (other.shape, other.leading) == (self.shape, self.leading),
            f"other: expected shape {self.shape} and leading {self.leading}, got {other.shape} and {other.leading}",
        )
        if not self.frozen:
            self._absorb(other.count, other.mean, other.m2)

    def _absorb(self, count: NDArray[np.float64], mean: NDArray[np.float64], m2: NDArray[np.float64]) -> None:
        total = self.count + count
        share = self._spread(count / np.maximum(total, 1.0))
        delta = np.where(self._spread(count) > 0, mean - self.mean, 0.0)
        # mean <- mean + δ n_B / n;  M2 <- M2_A + M2_B + δ² n_A n_B / n
        self.m2 = self.m2 + m2 + np.square(delta) * self._spread(self.count) * share
        self.mean = self.mean + delta * share
        self.count = total

    def _spread(self, per_leading: NDArray[np.float64]) -> NDArray[np.float64]:
        return per_leading.reshape(self.leading + (1,) * len(self.shape))

    @property
    def variance(self) -> NDArray[np.float64]:
        """Population variance `[*leading, *shape]`; 0 before any data."""
        return self.m2 / np.maximum(self._spread(self.count), 1.0)

    @property
    def std(self) -> NDArray[np.float64]:
        """`sqrt(variance + 1e-8)`, or 1 where the variance is at most 1e-8 (constant features, no data yet)."""
        variance = self.variance
        return np.where(variance > EPSILON, np.sqrt(variance + EPSILON), 1.0)

    def normalize(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return `(x - mean) / std` for x `[*leading, ..., *shape]`, computed in float64, in x's own float dtype."""
        x = np.asarray(x)
        inner = x.ndim - len(self.leading) - len(self.shape)
        fits = inner >= 0 and x.shape == self.leading + x.shape[len(self.leading) :][:inner] + self.shape
        require(fits, f"x: expected shape {(*self.leading, '...', *self.shape)}, got {x.shape}")
        middle = self.leading + (1,) * inner + self.shape
        scaled = (x - self.mean.reshape(middle)) / self.std.reshape(middle)
        return scaled.astype(x.dtype if x.dtype.kind == "f" else np.float64)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of everything `from_state` needs, as arrays."""
        return {
            "count": self.count.copy(),
            "mean": self.mean.copy(),
            "m2": self.m2.copy(),
            "frozen": np.array(self.frozen),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Return the normaliser whose `state()` this is; raises `InputError` naming a missing or misshapen array."""
        for key in ("count", "mean", "m2", "frozen"):
            require(key in state, f"state: {key!r} is missing")
        count, mean, m2 = (np.array(state[key], np.float64) for key in ("count", "mean", "m2"))
        require(
            mean.shape == m2.shape and mean.shape[: count.ndim] == count.shape,
            f"state: shapes do not agree: count {count.shape}, mean {mean.shape}, m2 {m2.shape}",
        )
        norm = cls(mean.shape[count.ndim :], count.shape)
        norm.count, norm.mean, norm.m2 = count, mean, m2
        norm.frozen = bool(np.asarray(state["frozen"]))
        return norm
