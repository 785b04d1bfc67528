"""From a configuration to a record, in one process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab.progress import Display
from mindworks.lab.record import commit, environment
from mindworks.lab.runner import execute
from toys import walk

STUDY = walk.STUDY
QUIET = Display(terminal=False)


def _run(folder: Path, study: object = STUDY, seeds: tuple[int, ...] = (0,), resume: bool = False) -> dict:
    return execute(study, STUDY.defaults("smoke"), "smoke", list(seeds), folder, resume, QUIET)  # type: ignore[arg-type]


def test_the_record_is_the_file(tmp_path: Path) -> None:
    record = _run(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == record
    assert record["tables"] == {"places": json.loads((tmp_path / "a" / "data.json").read_text())["out"]}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        *("config.json", "metrics.jsonl", "checkpoint", "data.json", "walk.svg", "result.json", ".lock")
    }


def test_a_folder_serves_one_run(tmp_path: Path) -> None:
    _run(tmp_path)
    with pytest.raises(InputError, match="holds a run already"):
        _run(tmp_path)
    with pytest.raises(InputError, match="another seeds"):
        _run(tmp_path, seeds=(1,), resume=True)


def test_a_failing_figure_costs_no_computation(tmp_path: Path) -> None:
    def no_figure(data: dict, folder: Path) -> list[Path]:
        raise RuntimeError("no ink")

    with pytest.raises(RuntimeError, match="no ink"):
        _run(tmp_path, replace(STUDY, plot=no_figure))
    assert not (tmp_path / "result.json").exists()

    def never(*_: object) -> dict:
        raise AssertionError("run a second time")

    record = _run(tmp_path, replace(STUDY, run=never), resume=True)
    assert record["checks"] == _run(tmp_path / "fresh")["checks"]


def test_a_study_without_checks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checks"):
        _run(tmp_path, replace(STUDY, check=lambda data: []))


def test_environment_names_the_checkout() -> None:
    found = environment()
    assert found["threads"] >= 1
    assert found["torch"]
    assert found["cpu"]
    assert commit() is None or len(commit().partition("-")[0]) == 40  # type: ignore[union-attr]
