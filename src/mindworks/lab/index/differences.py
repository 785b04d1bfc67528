"""What differs between two runs: their settings, their checks, and whether a difference is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mindworks.lab.index.curves import iqm
from mindworks.lab.index.sides import Side
from mindworks.lab.stats import bootstrap


@dataclass(frozen=True)
class Both:
    """A setting that the two sides do not share; a side that lacks it has `MISSING`."""

    name: str
    a: Any
    b: Any


MISSING = object()


def settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Both]:
    """The keys whose values differ, in the order of `a`, then those of `b` alone."""
    names = [*a, *(name for name in b if name not in a)]
    pairs = [Both(name, a.get(name, MISSING), b.get(name, MISSING)) for name in names]
    return [pair for pair in pairs if pair.a != pair.b]


@dataclass(frozen=True)
class Difference:
    """The interquartile mean over the seeds of B minus that of A, with its 95 % interval."""

    value: float
    low: float
    high: float
    paired: bool
    counts: tuple[int, int]

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def over_seeds(
    a: dict[str, Any], b: dict[str, Any], seeds_a: Sequence[Any], seeds_b: Sequence[Any]
) -> Difference | None:
    """The difference of two checks that both carry a value per seed (`each`), or None.

    Runs of the same seeds are paired by them, whatever their order; others are resampled independently.
    """
    each_a, each_b = _each(a), _each(b)
    if each_a is None or each_b is None:
        return None
    by_seed = [
        dict(zip(map(repr, seeds), each, strict=False)) for seeds, each in ((seeds_a, each_a), (seeds_b, each_b))
    ]
    whole = len(by_seed[0]) == len(each_a) == len(seeds_a) and len(by_seed[1]) == len(each_b) == len(seeds_b)
    paired = whole and by_seed[0].keys() == by_seed[1].keys()
    if paired:
        each_b = [by_seed[1][seed] for seed in by_seed[0]]
        each_a = list(by_seed[0].values())
    low, high = difference_interval(each_a, each_b, paired)
    return Difference(iqm(each_b) - iqm(each_a), low, high, paired, (len(each_a), len(each_b)))


def _each(check: dict[str, Any]) -> list[float] | None:
    values = check.get("each")
    if not isinstance(values, list) or len(values) < 2:
        return None
    numbers = [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    return [float(value) for value in numbers] if len(numbers) == len(values) else None


def difference_interval(
    a: Sequence[float], b: Sequence[float], paired: bool, confidence: float = 0.95
) -> tuple[float, float]:
    """The percentile-bootstrap interval of the interquartile mean of `b` minus that of `a`.

    `paired` draws the same seeds from both. The resampling is seeded: the same values give the same interval.
    """
    import numpy as np
    from scipy import stats

    samples = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if all((sample == sample[0]).all() for sample in samples):
        point = float(samples[1][0] - samples[0][0])
        return point, point

    def statistic(x: Any, y: Any, axis: int) -> Any:
        return stats.trim_mean(y, 0.25, axis=axis) - stats.trim_mean(x, 0.25, axis=axis)

    return bootstrap(samples, statistic, confidence, paired)


@dataclass(frozen=True)
class Checks:
    """The claims of both sides, and those of one alone."""

    common: list[str]
    only_a: list[str]
    only_b: list[str]


def checks(a: Side, b: Side) -> Checks:
    """Claims are the same where their text is."""
    return Checks(
        common=[claim for claim in a.checks if claim in b.checks],
        only_a=[claim for claim in a.checks if claim not in b.checks],
        only_b=[claim for claim in b.checks if claim not in a.checks],
    )
