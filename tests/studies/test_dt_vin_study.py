"""The study of dynamic-transition planners: a run of all its parts, checks that can fail, and settings that are valid.

Seeds run one after another in this process: with a process for each, most of the time would go into imports.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mindworks.errors import InputError
from mindworks.lab import RunLog
from mindworks.lab.runner import execute
from mindworks.planning import (
    DTVIN,
    VIN,
    DTVINConfig,
    Mazes,
    Training,
    TrainingConfig,
    VINConfig,
    generate,
    paper_dt_vin,
)
from mindworks.studies.dt_vin import (
    BARE,
    DT_VINS,
    INFORMED,
    LOSSES,
    NEAR,
    NOTHING,
    SOME,
    STUDY,
    VINS,
    Config,
    everywhere,
    finite,
    known,
    lowest,
)

SEEDS = [3, 1]
TINY: dict[str, Any] = {
    "size": 7,
    "mazes": 32,
    "validation": 4,
    "tests": 8,
    "depth": 10,
    "iterations": 3,
    "bare_iterations": 2,
    "far_size": 11,
    "far_mazes": 1,
    "far_depths": (20, 30),
    "farther_size": 13,
    "farther_depth": 30,
    "loss_depth": 20,
    "loss_iterations": 1,
    "gradient_depths": (5, 10),
    "deepest": 20,
    "larger_size": 9,
    "larger_depth": 10,
    "larger_iterations": 1,
}
PARTS = {
    "farther": "largest mazes",
    "loss": "losses on a deep network, percent",
    "larger": "trained on larger mazes, percent",
}
Smoke = tuple[dict, dict, Path]


def tiny(**changes: Any) -> Config:
    return replace(STUDY.defaults("smoke"), **{**TINY, **changes})


def in_this_process(config: Config, seeds: list[int], log: RunLog) -> dict:
    assert STUDY.combine is not None
    return STUDY.combine([log.stage(f"seed-{seed}", partial(STUDY.run, config, [seed])) for seed in seeds])


def of_seed(data: Any, i: int) -> Any:
    """The part of one seed in combined data."""
    return {key: of_seed(value, i) for key, value in data.items()} if isinstance(data, dict) else data[i]


def trajectories(folder: Path, seed: int) -> dict[str, tuple]:
    """Losses and gradients of every planner in training, by its stage."""
    found: dict[str, tuple] = {}
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        run, _, stage = line["stage"].partition("/")
        if run == f"seed-{seed}":
            found[stage] = (*found.get(stage, ()), line["loss"], line["gradient"])
    return found


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    folder = tmp_path_factory.mktemp("dt_vin")
    record = execute(replace(STUDY, run=in_this_process, combine=None), tiny(), "smoke", SEEDS, folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: Smoke) -> None:
    record, data, folder = smoke
    tables = record["tables"]
    planners = {*DT_VINS, *VINS, BARE}
    assert set(data["dt_vin"]) | set(data["vin"]) == planners
    for name in ("success in small mazes, percent", "success in large mazes, percent"):
        assert set(tables[name]) == planners
        assert all(len(rates) == len(SEEDS) for row in tables[name].values() for rates in row.values())
    assert list(tables["success in large mazes by depth, percent"]) == ["20 layers", "30 layers"]
    assert list(tables["losses on a deep network, percent"]) == [f"{loss} loss" for loss in LOSSES]
    assert list(tables["trained on larger mazes, percent"]) == [INFORMED, BARE]
    assert list(tables["largest mazes"]) == [INFORMED]
    assert list(tables["gradient of the kernels before training"]["last loss"]) == ["5 layers", "10 layers"]
    assert (folder / "dt_vin.svg").stat().st_size > 5_000


def test_starts_are_counted_in_bins_that_hold_all_of_them(smoke: Smoke) -> None:
    rows = smoke[1]["dt_vin"][INFORMED]["near"]
    assert list(rows["starts"]) == ["1-20", "21-40", "41-60", "61+"] == list(rows["by length"])
    for seed in range(len(SEEDS)):
        counts = of_seed(rows, seed)
        share = sum(
            counts["starts"][name] * (rate or 0.0) / sum(counts["starts"].values())
            for name, rate in counts["by length"].items()
        )
        assert counts["success"] == pytest.approx(share)
        assert all((counts["starts"][name] == 0) == (rate is None) for name, rate in counts["by length"].items())
        assert 0 < counts["longest"] <= NEAR[0]


def test_every_stage_trains_a_planner_of_its_own(smoke: Smoke) -> None:
    found = trajectories(smoke[2], SEEDS[0])
    assert len(set(found.values())) == len(found) == len(DT_VINS) + len(VINS) + 1 + len(LOSSES) + 2
    first = {path[:2] for path in found.values()}
    assert len(first) == len(found) - 1  # one row differs in its sharpness alone, which rises after the first step


def test_an_interrupted_stage_goes_on_to_the_same_numbers(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINDWORKS_CHECKPOINT_SECONDS", "0")
    advance, steps = Training.advance, []

    def counted(job: Training) -> None:
        steps.append(job.step)
        if len(steps) == 5:  # the second step of the second planner
            raise KeyboardInterrupt
        advance(job)

    monkeypatch.setattr(Training, "advance", counted)
    with pytest.raises(KeyboardInterrupt):
        STUDY.run(tiny(), [SEEDS[1]], RunLog(tmp_path))
    data = STUDY.run(tiny(), [SEEDS[1]], RunLog(tmp_path))
    assert steps[:6] == [0, 1, 2, 0, 1, 1]
    assert data == of_seed(smoke[1], 1)


def test_seeds_are_combined_in_their_order(smoke: Smoke) -> None:
    assert STUDY.combine is not None
    parts = [{"a": {"b": i, "c": None}, "d": [i, i]} for i in (7, 5)]
    assert STUDY.combine(parts) == {"a": {"b": [7, 5], "c": [None, None]}, "d": [[7, 7], [5, 5]]}
    assert of_seed(smoke[1], 0) != of_seed(smoke[1], 1)


def test_parts_can_be_left_out(smoke: Smoke, tmp_path: Path) -> None:
    config = tiny(variants=False, farther_size=0, loss_iterations=0, larger_iterations=0)
    record = execute(replace(STUDY, run=in_this_process, combine=None), config, "smoke", SEEDS[1:], tmp_path)
    assert set(smoke[0]["tables"]) - set(record["tables"]) == set(PARTS.values())
    small = record["tables"]["success in small mazes, percent"]
    assert list(small) == [INFORMED, BARE]
    assert small[INFORMED]["all"] == smoke[1]["dt_vin"][INFORMED]["near"]["success"][1:]
    assert len(record["checks"]) == 7


@pytest.mark.parametrize("part", [*PARTS, "vin"])
def test_each_part_can_be_left_out_alone(part: str, smoke: Smoke) -> None:
    assert STUDY.table is not None
    data = copy.deepcopy(smoke[1])
    if part == "farther":
        del data["dt_vin"][INFORMED]["farther"]
    else:
        data[part] = {}
    gone = set(smoke[0]["tables"]) - set(STUDY.table(data))
    assert gone == ({PARTS[part]} if part in PARTS else set())
    assert len(STUDY.check(data)) == 11 - {"farther": 2, "larger": 0}.get(part, 1)


def made_up(data: dict, good: bool) -> dict:
    """The data with every number of a check on one side of its bar, by little; bins without starts are left as None."""
    data = copy.deepcopy(data)

    def pick(right: Any, wrong: Any) -> Any:
        return right if good else wrong

    main = data["dt_vin"][INFORMED]
    main["near"] |= {"success": [99.9, pick(98.0, 97.9)]}
    main["near"]["by length"] |= {"21-40": [pick(95.0, 94.9), None], "41-60": [99.0, pick(85.0, 84.9)]}
    bins = {name: [100.0, 100.0] for name in ("1-100", "101-200", "201-500", "501-1000", "1001-2000")}
    main["far"] |= {"success": [100.0, 99.0], "by length": {**bins, "2001+": [None, pick(99.0, 98.9)]}}
    main["by depth"]["20"]["by length"] = {**bins, "2001+": [None, pick(5.0, 5.1)]}
    main["farther"] |= {"by length": {"1-1000": [pick(99.0, 98.9), 100.0], "5001+": [None, pick(99.0, 98.9)]}}
    data["dt_vin"][BARE]["near"]["success"] = [99.0, pick(98.0, 97.9)]
    for row in data["vin"].values():
        row["far"]["success"] = [10.0, 12.0]
    data["vin"]["VIN, same priors"]["far"]["success"] = pick([49.0, 50.0], [49.6, 50.0])
    data["loss"]["adaptive"]["success"], data["loss"]["last"]["success"] = (
        pick([80.0, 71.0], [79.0, 71.0]),
        [70.0, 61.0],
    )
    data["gradients"]["deepest"] = [[[0.5, 1e-9], [0.4, 2.0]], [[0.5, 1.0], [0.4, pick(1e-30, 0.0)]]]
    return data


def test_every_check_can_pass_and_fail(smoke: Smoke) -> None:
    right, wrong = (STUDY.check(made_up(smoke[1], good)) for good in (True, False))
    assert [check.claim for check in right if not check.passed] == []
    assert [check.claim for check in wrong if check.passed] == []
    assert len(right) == len(wrong) == 11


def test_steps_count_where_the_gradient_is_a_positive_number() -> None:
    assert finite([[[1.0, 2.0], [1.0, 0.0]], [[1.0, float("inf")], [1.0, 3.0]]]) == 50
    assert finite([[[1.0, None], [None, 1.0]]]) == 0


def test_bins_without_starts_do_not_count() -> None:
    rows = {"by length": {"1-20": [None, 40.0, 60.0], "21+": [None, None, None]}}
    assert everywhere(rows) == 40
    assert not lowest(rows, "21+") >= 0
    assert known([None, 40.0]) == [40.0]
    assert math.isnan(known([None])[0])


def mazes() -> Mazes:
    return generate(4, 9, seed=0)


def started(kind: str, change: dict, training: dict) -> Training:
    """A training that starts as in the study."""
    config: Any = (VINConfig if kind == "vin" else DTVINConfig)(**change)
    planner = (VIN if kind == "vin" else DTVIN)("news", 6, config, generator=torch.Generator().manual_seed(0))
    settings = {"iterations": 5, "sharpness": 16, "batch": 4, **training}
    return Training(planner, mazes(), TrainingConfig(**settings), seed=0)


def fingerprint(job: Training) -> list:
    return [job.config, job.planner(mazes().inputs()).tolist()]


@pytest.mark.parametrize(("kind", "rows"), [("dt_vin", DT_VINS), ("vin", VINS)], ids=["dt_vin", "vin"])
def test_every_row_is_a_planner_of_its_own(kind: str, rows: dict) -> None:
    found = [fingerprint(started(kind, *row)) for row in rows.values()]
    assert all(found.count(one) == 1 for one in found)
    assert all(job.planner(mazes().inputs()).isfinite().all() for job in [started(kind, *row) for row in rows.values()])


def test_the_published_planner_knows_nothing() -> None:
    assert DTVINConfig(**NOTHING) == paper_dt_vin()
    assert started("dt_vin", SOME, {"loss": "first"}).config.loss == "first"


@pytest.mark.parametrize("build", [lambda: STUDY.defaults("cpu"), lambda: STUDY.defaults("paper"), tiny])
def test_settings_of_every_scale_are_valid(build: Callable[[], Config]) -> None:
    config = build()
    assert config.far_depths[-1] == max(config.far_depths)
    for size in (config.size, config.far_size, config.larger_size):
        assert generate(1, size, seed=0).free.shape == (1, size, size)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("size", 4), ("far_size", 4), ("larger_size", 4), ("mazes", 31), ("validation", 0), ("tests", 0)),
        *(("depth", 0), ("iterations", 0), ("bare_iterations", 0), ("far_mazes", 0), ("farther_mazes", 0)),
        *(("farther_depth", 0), ("loss_depth", 0), ("deepest", 0), ("larger_depth", 0)),
        *(("farther_size", -1), ("loss_iterations", -1), ("larger_iterations", -1)),
    ],
)
def test_bad_settings_name_the_field(field: str, value: int) -> None:
    with pytest.raises(InputError, match=f"^{field} .*{value}"):
        Config(**{field: value})
