"""Checks, studies and the statistics of seeds."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest

from mindworks.errors import InputError
from mindworks.lab import Check, Study, interval, summary
from mindworks.lab.fields import describe
from toys.walk import STUDY


@pytest.mark.parametrize(
    ("value", "op", "bar", "passed"),
    [
        (1.0, "<=", 1.0, True),
        (1.0, "<", 1.0, False),
        (1.0, ">=", 1.0, True),
        (1.0, ">", 1.0, False),
        (1, "==", 1.0, True),
        (2, "==", 1.0, False),
        (math.nan, "<=", 1.0, False),
        (math.nan, ">=", 1.0, False),
        (None, "<=", 1.0, False),
        (math.inf, ">", 1.0, False),
        (np.float32(0.5), "<", 1.0, True),
    ],
)
def test_check(value: float, op: str, bar: float, passed: bool) -> None:
    check = Check("a claim", value, op, bar)
    assert check.passed is passed
    stored = check.as_dict()
    assert stored["passed"] is passed
    assert (stored["value"] is None) == (value is None or not math.isfinite(value))
    assert type(stored["value"]) in (int, float, type(None))


def test_check_refuses_other_directions() -> None:
    with pytest.raises(InputError, match="op must be one of"):
        Check("a claim", 1.0, "=>", 1.0)


def test_scales_and_seeds() -> None:
    assert STUDY.defaults("smoke").steps == 20
    assert STUDY.defaults().steps == 60
    assert STUDY.default_seeds("cpu") == [0, 1, 2]
    assert STUDY.default_seeds("cpu", first=7, count=2) == [7, 8]
    with pytest.raises(InputError, match="--scale must be one of smoke, cpu, paper, got 'x'"):
        STUDY.defaults("x")


def test_a_study_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(InputError, match="unknown fields"):
        replace(STUDY, scales={**STUDY.scales, "smoke": {"strides": 1}})
    with pytest.raises(InputError, match="same keys"):
        replace(STUDY, seeds={"cpu": 1})

    @dataclass(frozen=True)
    class Clash:
        seed: int = 0

    with pytest.raises(InputError, match="reserved"):
        Study("x", "p", Clash, STUDY.run, STUDY.check, STUDY.plot, scales={}, seeds={})


def test_fields_carry_their_docstrings() -> None:
    fields = {field.name: field for field in describe(STUDY.defaults("smoke"))}
    assert fields["steps"].default == 20
    assert fields["steps"].doc == "steps of each stage"
    assert fields["start_points"].type == "tuple[float, ...]"


def test_summary_of_known_values() -> None:
    # 8 values: the interquartile mean drops two at each end and averages 3, 4, 5, 6
    found = summary([1, 2, 3, 4, 5, 6, 7, 100])
    assert found["iqm"] == 4.5
    assert found["mean"] == 16.0
    assert (found["min"], found["max"], found["n"]) == (1.0, 100.0, 8)
    assert found["low"] < 4.5 < found["high"] < 100
    assert found == summary([1, 2, 3, 4, 5, 6, 7, 100])


def test_interval_covers_about_as_often_as_it_says() -> None:
    # the mean of 20 normal draws: 1.96 standard errors either side, so about 0.88 wide for the mean, wider for the iqm
    low, high = interval(np.random.default_rng(0).normal(size=20).tolist())
    assert -1 < low < high < 1
    assert 0.6 < high - low < 1.6


@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0, 2.0]])
def test_equal_values_give_a_point_without_warnings(values: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert interval(values) == (2.0, 2.0)
        assert summary(values)["iqm"] == 2.0
        summary([1.0, 2.0])


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_values_that_are_not_finite_are_not_averaged_away(values: list[float]) -> None:
    found = summary(values)
    assert found["n"] == len(values)
    assert all(math.isnan(found[key]) for key in ("iqm", "low", "high", "mean"))
    assert not Check("x", found["iqm"], ">=", -1e9).passed
