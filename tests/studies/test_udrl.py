"""The study of upside-down RL: a smoke run that holds where it is exact, and every check made to fail."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab.runner import execute
from mindworks.studies.udrl import SEGMENTS, STUDY, Config, away

TINY = {"departures": 3, "policies": 2, "sweep_iterations": 8, "memory": 2, "epsilons": (0.1,)}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("udrl")
    record = execute(STUDY, replace(STUDY.defaults("smoke"), **TINY), "smoke", [0, 1], folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: tuple[dict, dict, Path]) -> None:
    record, data, folder = smoke
    assert record["tables"]["two arms"]["a = 0.75"]["gap"] == pytest.approx(0.125)
    assert set(record["tables"]["J on grid and line"]) == {
        f"{n}, {kind}" for n in ("grid", "line") for kind in SEGMENTS
    }
    assert record["tables"]["grid, one goal"]["slip 0.3"]["best J"] == pytest.approx(0.2401)
    assert [len(runs) for runs in data["sampled"]["0.6"].values()] == [2, 2]
    assert all(len(part["delta"]) == 3 for part in data["stability"].values())
    assert (folder / "udrl.svg").stat().st_size > 5_000


def test_what_is_exact_holds_in_a_smoke_run(smoke: tuple[dict, dict, Path]) -> None:
    needs_more = ("sampled", "above 0.01")
    failed = [check["claim"] for check in smoke[0]["checks"] if not check["passed"]]
    assert [claim for claim in failed if not any(word in claim for word in needs_more)] == []


def spoil(part: str, *keys: str | int, by: float) -> Callable[[dict], None]:
    """Add `by` to one number of the data."""

    def change(data: dict) -> None:
        *path, last = (part, *keys)
        for key in path:
            data = data[key]
        data[last] += by

    return change


SPOILED = [
    (spoil("two_arms", "uniform", 2, 7, by=1e-8), "a^2"),
    (spoil("two_arms", "optimum", 4, 9, by=1e-8), "a^2"),
    (spoil("two_arms", "best", 0, by=1e-9), "max(a, 1-a)"),
    (spoil("two_arms", "optimum", 4, 1, by=0.05), "change of J"),
    (spoil("two_arms", "anywhere", 150, 1, by=-1e-8), "random first"),
    (spoil("two_arms", "em", by=1e-9), "EM"),
    (spoil("two_arms", "regularised", "0.1", 3, by=1e-8), "regularised"),
    (spoil("sampled", "0.6", "optimum", 1, 2, by=0.1), "sampled"),
    (spoil("segments", "grid", "all", 399, by=0.1), "peak"),
    (spoil("segments", "grid", "best", by=-0.1), "Grid, all segments: best"),
    (spoil("segments", "line", "all", 399, by=0.1), "Line, all segments: best"),
    (spoil("segments", "grid", "diagonal", 399, by=-1e-3), "Grid, diagonal segments: best"),
    (spoil("segments", "line", "diagonal", 399, by=-1e-3), "Line, diagonal segments: best"),
    (spoil("segments", "grid", "diagonal", 200, by=0.1), "smallest change"),
    (spoil("segments", "line", "rwr", by=1e-9), "RWR"),
    (spoil("one_goal", "objective", 1, 19, by=1e-4), "(1 - slip)^4"),
    (spoil("vanishing", "limits", "0.75", by=-0.036), "9/19 at 1e-8"),
    (spoil("vanishing", "limits", "0.25", by=-0.024), "6/13"),
    (spoil("vanishing", "at_zero", by=0.036), "7/16"),
    (spoil("vanishing", "smallest", by=-0.036), "1e-300"),
    (spoil("deterministic", "after", by=1e-6), "Deterministic kernels"),
    (spoil("deterministic", "jump", 0, 0, by=-0.25), "pi_2"),
    (spoil("deterministic", "jump", 2, 1, by=0.01), "spread of J_2"),
    (spoil("stability", "two arms", "slack", by=-1.0), "above a bound"),
    (spoil("stability", "two arms", "told", by=-9.0), "above 0.01"),
]


@pytest.mark.parametrize(("change", "claim"), SPOILED, ids=[claim for _, claim in SPOILED])
def test_every_check_fails_on_a_wrong_number(smoke: tuple[dict, dict, Path], change, claim: str) -> None:
    data = copy.deepcopy(smoke[1])
    change(data)
    failed = {check.claim for check in STUDY.check(data) if not check.passed}
    new = failed - {check.claim for check in STUDY.check(smoke[1]) if not check.passed}
    assert any(claim in found for found in new), new


def test_every_check_can_pass_and_is_shown_to_fail(smoke: tuple[dict, dict, Path]) -> None:
    data = copy.deepcopy(smoke[1])
    for runs in data["sampled"]["0.6"].values():
        runs[:] = [[away(0.6)] * 3, [away(0.6) - 0.009] * 3]
    for part in data["stability"].values():
        part["told"] = 0.9
    checks = STUDY.check(data)
    assert all(check.passed for check in checks)
    assert all(any(word in check.claim for _, word in SPOILED) for check in checks)


def test_the_scales_have_valid_settings() -> None:
    for scale in ("smoke", "cpu", "paper"):
        assert STUDY.defaults(scale).long == 399


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("departures", 1),
        ("alphas", (0.6, 0.4)),
        ("alphas", (0.7,)),
        ("slips", (1.2,)),
        ("epsilons", (0.0,)),
    ],
)
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        Config(**{field: value})
