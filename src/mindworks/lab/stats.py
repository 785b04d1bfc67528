"""Statistics over seeds: the interquartile mean with a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

_RESAMPLES = 9999


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The percentile-bootstrap interval of the interquartile mean of `values`.

    The resampling is seeded: the same values always give the same interval. One value, or equal ones, give a point;
    a value that is not finite gives (nan, nan).
    """
    import numpy as np
    from scipy import stats

    sample = np.asarray(values, dtype=np.float64).reshape(-1)
    if sample.size == 0 or not np.isfinite(sample).all():
        return math.nan, math.nan
    if (sample == sample[0]).all():
        return float(sample[0]), float(sample[0])
    return bootstrap((sample,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), confidence)


def bootstrap(
    samples: Sequence[Any], statistic: Callable[..., Any], confidence: float, paired: bool = False
) -> tuple[float, float]:
    """The percentile-bootstrap interval of `statistic(*samples, axis=...)`; `paired` draws the same places of all."""
    import numpy as np
    from scipy import stats

    found = stats.bootstrap(
        samples,
        statistic,
        paired=paired,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=_RESAMPLES,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Interquartile mean (`iqm`) with its 95 % interval (`low`, `high`), `mean`, `min`, `max` and `n` of `values`.

    A value that is not finite makes every statistic NaN, and a check on NaN never passes.
    """
    import numpy as np
    from scipy import stats

    sample = np.asarray(values, dtype=np.float64).reshape(-1)
    if sample.size == 0 or not np.isfinite(sample).all():
        return {**dict.fromkeys(("iqm", "low", "high", "mean", "min", "max"), math.nan), "n": int(sample.size)}
    low, high = interval(sample.tolist())
    return {
        "iqm": float(stats.trim_mean(sample, 0.25)),
        "low": low,
        "high": high,
        "mean": float(sample.mean()),
        "min": float(sample.min()),
        "max": float(sample.max()),
        "n": int(sample.size),
    }
