"""The study of generators: a smoke run, and checks that can fail."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab.runner import execute
from mindworks.studies.gogepo import ABLATIONS, CAR, CARTPOLE, PENDULUM, PUBLISHED, STUDY, TASKS, Config

TINY = {"cartpole_steps": 300, "car_steps": 1000, "pendulum_steps": 100, "ablation_steps": 60}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("gogepo")
    record = execute(STUDY, replace(STUDY.defaults("smoke"), **TINY), "smoke", [0, 1], folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: tuple[dict, dict, Path]) -> None:
    record, data, folder = smoke
    assert set(record["tables"]["policies on command"]) == {CARTPOLE, CAR, PENDULUM}
    assert set(record["tables"]["ablation in CartPole-v1"]) == set(ABLATIONS)
    for name in TASKS:
        low, high = data[name]["seen"][0]
        assert data[name]["commands"][0][0] == pytest.approx(low)
        assert data[name]["commands"][0][-1] == pytest.approx(high)
    assert (folder / "gogepo.svg").stat().st_size > 5_000


def test_every_check_can_pass_and_fail(smoke: tuple[dict, dict, Path]) -> None:
    perfect, broken = copy.deepcopy(smoke[1]), copy.deepcopy(smoke[1])
    for name in TASKS:
        perfect[name] |= {"pearson": [0.99, 0.2, 0.98], "error": [3.0, 4.0, 19.0]}
        broken[name] |= {"pearson": [0.99, 0.2, 0.3], "error": [3.0, 40.0, 50.0]}
    assert all(check.passed for check in STUDY.check(perfect))
    assert not any(check.passed for check in STUDY.check(broken))


@pytest.mark.parametrize("variant", [{}, *ABLATIONS.values(), PUBLISHED], ids=str)
def test_every_variant_is_a_valid_setting(variant: dict) -> None:
    from mindworks.policies import GoGePoConfig

    for settings in TASKS.values():
        GoGePoConfig(**{**settings, **variant})


def test_the_published_settings_run(tmp_path: Path) -> None:
    tiny = replace(STUDY.defaults("smoke"), **TINY, published=True, hidden=(4,))
    record = execute(
        STUDY, replace(tiny, ablation_steps=0, cartpole_steps=30, pendulum_steps=20), "smoke", [0], tmp_path
    )
    assert "ablation in CartPole-v1" not in record["tables"]


@pytest.mark.parametrize(("field", "value"), [("cartpole_steps", 0), ("ablation_steps", -1), ("commands", 2)])
def test_bad_settings_name_the_field(field: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{field}.*{value}"):
        Config(**{field: value})
