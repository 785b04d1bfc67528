"""The study of highway connections: a run of all its parts, checks that can fail, and settings that are valid.

Seeds run one after another in this process: with a process for each, most of the time would go into imports.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mindworks.errors import InputError
from mindworks.lab import RunLog
from mindworks.lab.runner import execute
from mindworks.planning import VIN, ConnectedVIN, HighwayVIN, Mazes, Training, generate
from mindworks.studies.highway_vin import (
    ABLATIONS,
    CONNECTIONS,
    HIGHWAY,
    PLAIN,
    PRIORS,
    STUDY,
    Config,
    gradients,
    label,
    planner_of,
)

SEEDS = [3, 1]
TINY: dict[str, Any] = {
    "size": 7,
    "mazes": 32,
    "validation": 4,
    "tests": 8,
    "depths": (10, 100),
    "ablation_depth": 20,
    "iterations": 2,
    "gradient_depths": (10, 20),
}
VARIANTS = {**ABLATIONS, **{f"{name} connections": {"connection": name} for name in CONNECTIONS}}
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
    folder = tmp_path_factory.mktemp("highway_vin")
    record = execute(replace(STUDY, run=in_this_process, combine=None), tiny(), "smoke", SEEDS, folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: Smoke) -> None:
    record, data, folder = smoke
    tables = record["tables"]
    rows = {f"{name}, {depth} layers" for name in (PLAIN, HIGHWAY) for depth in TINY["depths"]}
    assert set(tables["success by depth, percent"]) == rows
    assert set(tables["parts and other connections, percent"]) == set(VARIANTS)
    assert set(tables["planners with priors, percent"]) == {PLAIN, HIGHWAY}
    norms = tables["gradient at the first layer before training"]
    assert {PLAIN, HIGHWAY, "no aggregate gate", "residual connections", "highway connections"} == set(norms)
    assert all(norm > 0 for row in norms.values() for values in row.values() for norm in values)
    row = data["depths"]["100"][HIGHWAY]
    assert list(row) == ["success", "1-10", "11-20", "21-40", "41+", "loss"]
    assert all(len(values) == len(SEEDS) for values in row.values())
    assert (folder / "highway_vin.svg").stat().st_size > 5_000


def test_every_stage_trains_a_planner_of_its_own(smoke: Smoke) -> None:
    found = trajectories(smoke[2], SEEDS[0])
    assert len({path[:2] for path in found.values()}) == len(found) == 2 * len(TINY["depths"]) + len(VARIANTS) + 2


def test_an_interrupted_stage_goes_on_to_the_same_numbers(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINDWORKS_CHECKPOINT_SECONDS", "0")
    advance, steps = Training.advance, []

    def counted(job: Training) -> None:
        steps.append(job.step)
        if len(steps) == 4:  # the second step of the first highway VIN, which has drawn actions in the first
            raise KeyboardInterrupt
        advance(job)

    monkeypatch.setattr(Training, "advance", counted)
    with pytest.raises(KeyboardInterrupt):
        STUDY.run(tiny(), [SEEDS[1]], RunLog(tmp_path))
    data = STUDY.run(tiny(), [SEEDS[1]], RunLog(tmp_path))
    assert steps[:5] == [0, 1, 0, 1, 1]
    assert data == of_seed(smoke[1], 1)


def test_seeds_are_combined_in_their_order(smoke: Smoke) -> None:
    assert STUDY.combine is not None
    parts = [{"a": {"b": i, "c": None}} for i in (7, 5)]
    assert STUDY.combine(parts) == {"a": {"b": [7, 5], "c": [None, None]}}
    assert of_seed(smoke[1], 0) != of_seed(smoke[1], 1)


def test_ablations_can_be_left_out(smoke: Smoke, tmp_path: Path) -> None:
    assert STUDY.table is not None
    data = in_this_process(tiny(ablation_depth=0, depths=(10,)), SEEDS[1:], RunLog(tmp_path))
    tables = STUDY.table(data)
    assert set(tables) == {"success by depth, percent", "gradient at the first layer before training"}
    rows = tables["success by depth, percent"]
    assert rows[f"{HIGHWAY}, 10 layers"]["success"] == smoke[1]["depths"]["10"][HIGHWAY]["success"][1:]
    assert len(STUDY.check(data)) == 1  # the leads are of 100 layers and more


def made_up(data: dict, good: bool) -> dict:
    """The data with every number of a check on one side of its bar, by little."""
    data = copy.deepcopy(data)
    data["gradients"][HIGHWAY]["20"] = [1e-3, 2e-3 if good else 1.9e-3]
    data["gradients"][PLAIN]["20"] = [0.0, 2e-6]  # a gradient that vanished is no error
    data["depths"]["100"][HIGHWAY]["success"] = [60.0, 50.0, 5.0]
    data["depths"]["100"][PLAIN]["success"] = [50.0 if good else 50.1, 30.0, 50.0]
    data["depths"]["10"][HIGHWAY]["success"] = [0.0, 0.0]  # too shallow for a bar
    return data


def test_every_check_can_pass_and_fail(smoke: Smoke) -> None:
    right, wrong = (STUDY.check(made_up(smoke[1], good)) for good in (True, False))
    assert [check.claim for check in right if not check.passed] == []
    assert [check.claim for check in wrong if check.passed] == []
    assert len(right) == len(wrong) == 2


def mazes() -> Mazes:
    return generate(4, 9, seed=0)


def logits(name: str, change: dict, know: dict | None = None) -> Tensor:
    return planner_of(tiny(), 0, 20, name, change, know or {})(mazes().inputs())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_planner_of_its_own(name: str) -> None:
    planner = planner_of(tiny(), 0, 20, name, VARIANTS[name], {})
    assert type(planner) is (ConnectedVIN if "connection" in VARIANTS[name] else HighwayVIN)
    found = planner(mazes().inputs())
    assert found.isfinite().all()
    assert not torch.equal(found, logits(HIGHWAY, {}))
    assert not torch.equal(found, logits(PLAIN, {}))


def test_both_planners_start_from_the_same_parameters() -> None:
    plain, highway = (planner_of(tiny(), 5, 20, name, {}, PRIORS) for name in (PLAIN, HIGHWAY))
    assert (type(plain), type(highway)) == (VIN, HighwayVIN)
    theirs = dict(highway.named_parameters())
    assert set(theirs) - {"log_sharp"} == {name for name, _ in plain.named_parameters()}
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in plain.named_parameters())
    assert not torch.equal(logits(PLAIN, {}, PRIORS), logits(PLAIN, {}))


def test_gradients_reach_further_back_through_a_highway() -> None:
    found = gradients(tiny(gradient_depths=(10, 40)), 0, mazes())
    assert found[HIGHWAY]["40"] > 10 * found[PLAIN]["40"]
    assert found == gradients(tiny(gradient_depths=(10, 40)), 0, mazes())
    again = gradients(tiny(gradient_depths=(10, 40)), 1, mazes())
    assert all(found[name]["10"] != again[name]["10"] for name in found)


def test_bins_are_named_by_their_ends() -> None:
    assert label({"low": 11, "high": 20}) == "11-20"
    assert label({"low": 41, "high": None}) == "41+"


@pytest.mark.parametrize("scale", ["smoke", "cpu", "paper"])
def test_settings_of_every_scale_build_all_planners(scale: str) -> None:
    config = STUDY.defaults(scale)
    for depth in config.depths:
        assert planner_of(config, 0, depth, HIGHWAY, {}, {}).depth == depth
    for name, change in VARIANTS.items():
        assert planner_of(config, 0, config.ablation_depth, name, change, {}).depth == config.ablation_depth


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        *(("size", 4, "4"), ("mazes", 31, "31"), ("validation", 0, "0"), ("tests", 0, "0"), ("iterations", 0, "0")),
        *(("chains", 0, "0"), ("block", 1, "1"), ("ablation_depth", -1, "-1")),
        *(("depths", (), ""), ("depths", (20, 25), "25"), ("depths", (0,), "0"), ("gradient_depths", (15,), "15")),
        *(("lr", 0.0, "0"), ("epsilon", 1.5, "1.5"), ("ablation_depth", 50, "50")),
    ],
)
def test_bad_settings_name_the_field(field: str, value: Any, shown: str) -> None:
    with pytest.raises(InputError, match=f"^{field} .*{shown}"):
        Config(**{field: value})
