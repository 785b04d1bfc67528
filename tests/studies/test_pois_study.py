"""The study of POIS: a smoke run, and checks that can fail."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab.files import dumps, loads, plain
from mindworks.lab.log import RunLog
from mindworks.lab.progress import Display
from mindworks.lab.runner import execute
from mindworks.policies import POISConfig
from mindworks.studies import pois
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
    low, same = curves(300, 300), curves(400, 400)
    perfect[CARTPOLE] |= {"P-POIS": curves(490, 495), UNIT: low, TUNED: low, PLAIN: curves(200, 400)}
    broken[CARTPOLE] |= {"P-POIS": curves(400, 460), UNIT: same, TUNED: same, PLAIN: curves(400)}
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


def _logged(folder: Path, configs: list[Config], seeds: list[int]) -> tuple[list[dict], list[dict]]:
    """What `run_many` of `configs` returns as plain data, and the lines of its metrics."""
    log = RunLog(folder, Display(terminal=False))
    data = loads(dumps(plain(pois.run_many(configs, seeds, log))))
    log.close()
    return data, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_deltas_side_by_side_equal_each_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {name: VARIANTS[name] for name in ("P-POIS", "delta 0.2", "binary line search", "adaptive batch")}
    monkeypatch.setattr(pois, "VARIANTS", own)
    monkeypatch.setattr(pois, "PGPE_STEPS", (1.0,))
    monkeypatch.setattr(pois, "CART_VARIANTS", {"A-POIS": {}})
    monkeypatch.setattr(pois, "TASKS", {(PENDULUM, pois.P): (30, 10, {})})
    usual = replace(Config(), batches=2, cart_batches=1, task_batches=1, deep_batches=2, hidden=(3,), repeats=20)
    configs, seeds = [replace(usual, delta=delta) for delta in (0.1, 0.99)], [3, 7]
    together, every_line = _logged(tmp_path / "together", configs, seeds)
    for i, config in enumerate(configs):
        alone, expected = _logged(tmp_path / f"alone-{i}", [config], seeds)
        assert together[i] == alone[0]
        lines = copy.deepcopy(every_line)
        stages = {f"cartpole-3-{i}": "cartpole-3"}  # the adaptive search has a stage for each configuration
        mine = [line for line in lines if line.pop("config", i) == i]
        assert [{**line, "stage": stages.get(line["stage"], line["stage"])} for line in mine] == expected
    shared = {line["stage"] for line in every_line if "config" not in line}
    assert shared == {"cartpole-1", "pgpe-1", "cart-0", "deep-2"}
    assert len({str(data[CARTPOLE]["P-POIS"]) for data in together}) == 2
    assert len({str(data[CARTPOLE]["delta 0.2"]) for data in together}) == 1


def test_seeds_count_broken_bounds_by_themselves() -> None:
    both = broken_bounds(400, [3, 4])["broken"]
    assert both["0.9"] == [broken_bounds(400, [seed])["broken"]["0.9"][0] for seed in (3, 4)]
    assert max(both["0.9"]) > 0  # with little confidence the bound does break


@pytest.mark.parametrize(
    ("field", "value"), [("batches", 0), ("deep_batches", -1), ("repeats", 0), ("hidden", ()), ("delta", 0.0)]
)
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        replace(Config(), **{field: value})
