"""The study of fingerprints: a smoke run, and checks that can fail."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab.runner import execute
from mindworks.studies.crucial_states import STUDY, Config, advantage, load_images


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("crucial_states")
    record = execute(STUDY, STUDY.defaults("smoke"), "smoke", [0], folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: tuple[dict, dict, Path]) -> None:
    record, data, folder = smoke
    assert record["tables"]["final return"]["zero_shot"]["n"] == 1
    assert set(data["clone"]["students"]) == {"learned", "untrained", "visited"}
    assert len(data["clone"]["states"][0]) == 3
    for name in ("crucial_states.svg", "crucial_states_images.svg"):
        assert (folder / name).stat().st_size > 5_000


def filled(data: dict, good: bool) -> dict:
    """The data of a run in which everything holds, or nothing does."""
    data, high = copy.deepcopy(data), 1000.0 if good else 0.0
    for name in ("deep", "linear"):
        data["zero_shot"][name] = [{"median_before": 10.0, "median_after": high}]
    data["clone"]["teacher"] = [500.0]
    data["clone"]["students"] = {"learned": [high], "untrained": [100.0], "visited": [50.0]}
    data["digits"]["learned"] |= {"spearman": [0.99 if good else 0.1], "after": [[0.9 if good else 0.1]]}
    data["digits"]["frozen"]["after"] = data["digits"]["raw"]["after"] = [[0.3]]
    data["judging"] = {"fingerprint": [0.95 if good else 0.3], "parameters, 1e-3": [0.1]}
    data["deep"]["curves"], data["deep_raw"]["curves"] = [[[10, high]]], [[[10, 50.0]]]
    return data


def test_every_check_can_pass_and_fail(smoke: tuple[dict, dict, Path]) -> None:
    assert all(check.passed for check in STUDY.check(filled(smoke[1], True)))
    assert not any(check.passed for check in STUDY.check(filled(smoke[1], False)))


def test_zero_shot_must_start_low(smoke: tuple[dict, dict, Path]) -> None:
    data = filled(smoke[1], True)
    data["zero_shot"]["linear"][0]["median_before"] = 60.0
    assert [check.passed for check in STUDY.check(data)][:2] == [True, False]


def test_cloning_counts_only_teachers_that_can_do_something() -> None:
    students = {"learned": [500.0, 50.0], "untrained": [400.0, 300.0]}
    assert advantage({"teacher": [450.0, 390.0], "students": students}, "untrained") == 100.0
    assert advantage({"teacher": [100.0, 390.0], "students": students}, "untrained") == 0.0


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("students", 0), ("hidden", (0,)), ("classifier_rounds", -1)]
)
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{field}.*{value}".replace("(", r"\(").replace(")", r"\)")):
        Config(**{field: value})


def test_a_folder_without_mnist_is_refused_in_one_line(tmp_path: Path) -> None:
    for folder, names in ((tmp_path, "idx3-ubyte"), (tmp_path / "none", "mnist must be a folder")):
        with pytest.raises(InputError, match=names) as caught:
            load_images(str(folder))
        assert "\n" not in str(caught.value)
