"""The study of POIS: a smoke run, and checks that can fail."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab.runner import execute
from mindworks.policies import POISConfig
from mindworks.studies.pois import (
    CART,
    CART_VARIANTS,
    CARTPOLE,
    DEEP,
    PENDULUM,
    PLAIN,
    STUDY,
    TASKS,
    TUNED,
    UNIT,
    VARIANTS,
    Config,
    broken_bounds,
)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("pois")
    record = execute(STUDY, STUDY.defaults("smoke"), "smoke", [0], folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: tuple[dict, dict, Path]) -> None:
    record, data, folder = smoke
    assert set(data["tasks"]) == {f"{name}, {mode[0].upper()}-POIS" for name, mode in TASKS}
    assert set(data["deep"]) == set(DEEP)
    assert {UNIT, TUNED, "P-POIS"} == set(data[CARTPOLE])
    assert record["tables"]["deep policies in CartPole-v1"].keys() == set(DEEP)
    assert (folder / "pois.svg").stat().st_size > 5_000


def test_every_check_can_pass_and_fail(smoke: tuple[dict, dict, Path]) -> None:
    def curves(*finals: float) -> dict:
        return {"curves": [[value] * 10 for value in finals]}

    perfect, broken = copy.deepcopy(smoke[1]), copy.deepcopy(smoke[1])
    perfect["bound"]["broken"]["0.2"], broken["bound"]["broken"]["0.2"] = [0.0, 0.1], [0.0, 0.3]
    perfect[CARTPOLE] |= {"P-POIS": curves(490, 495), UNIT: curves(300), TUNED: curves(300), PLAIN: curves(200, 400)}
    broken[CARTPOLE] |= {"P-POIS": curves(400, 460), UNIT: curves(400), TUNED: curves(400), PLAIN: curves(400)}
    perfect[CART] |= {"A-POIS": curves(190, 200)}
    broken[CART] |= {"A-POIS": curves(170, 199)}
    perfect["tasks"][f"{PENDULUM}, P-POIS"], broken["tasks"][f"{PENDULUM}, P-POIS"] = curves(290), curves(200)
    perfect["deep"] = dict(zip(DEEP, (curves(450), curves(60), curves(70)), strict=True))
    broken["deep"] = dict(zip(DEEP, (curves(300), curves(60), curves(200)), strict=True))
    assert all(check.passed for check in STUDY.check(perfect))
    assert not any(check.passed for check in STUDY.check(broken))


def test_every_variant_is_a_valid_setting() -> None:
    for change in (*VARIANTS.values(), *DEEP.values()):
        POISConfig(**change)
    for change in CART_VARIANTS.values():
        POISConfig.action_based(**change)
    for (_, mode), (_, episodes, change) in TASKS.items():
        (POISConfig if mode == "parameter" else POISConfig.action_based)(episodes=episodes, **change)


def test_seeds_count_broken_bounds_by_themselves() -> None:
    both = broken_bounds(400, [3, 4])["broken"]
    assert both["0.9"] == [broken_bounds(400, [seed])["broken"]["0.9"][0] for seed in (3, 4)]
    assert max(both["0.9"]) > 0  # with little confidence the bound does break


@pytest.mark.parametrize(("field", "value"), [("batches", 0), ("deep_batches", -1), ("repeats", 0), ("hidden", ())])
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        replace(Config(), **{field: value})
