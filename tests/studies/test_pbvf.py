"""The study of parameter-based value functions: a smoke run, checks that can fail, and a real kill."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab.runner import execute
from mindworks.studies.pbvf import STUDY, Config

TINY = {
    **STUDY.scales["smoke"],
    "mdps": 1,
    "lqr_steps": 1600,
    "cartpole_steps": 100,
    "swimmer_steps": 1000,
    "car_steps": 1000,
    "car_pssvf_steps": 1000,
    "random_policies": 8,
}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("pbvf")
    record = execute(STUDY, STUDY.defaults("smoke"), "smoke", [0], folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: tuple[dict, dict, Path]) -> None:
    record, _, folder = smoke
    assert [check["passed"] for check in record["checks"][:4]] == [True] * 4  # the exact part holds at any scale
    assert record["tables"]["final return"]["cartpole"]["n"] == 1
    assert (folder / "pbvf.svg").stat().st_size > 10_000


def test_every_check_can_fail(smoke: tuple[dict, dict, Path]) -> None:
    data = copy.deepcopy(smoke[1])
    perfect, broken = copy.deepcopy(data), copy.deepcopy(data)
    for target, value, error, correlation, after in (
        (perfect, 1000.0, 0.0, 1.0, 10.0),
        (broken, -1000.0, 1.0, 0.0, 0.0),
    ):
        target["exact"] = dict.fromkeys(target["exact"], error)
        target["lqr"]["correlation"] = [correlation]
        row = {"before": 0.0, "after": after, "predicted": 0.0, "best_in_data": 5.0}
        target["zero_shot"]["zero_shot"] = [row]
        for name in ("cartpole", "swimmer", "psvf", "pavf"):
            target[name]["curves"] = [[[10, value]]]
    assert all(check.passed for check in STUDY.check(perfect))
    assert not any(check.passed for check in STUDY.check(broken))


def test_evaluations_past_the_budget_do_not_count(smoke: tuple[dict, dict, Path]) -> None:
    data = copy.deepcopy(smoke[1])
    data["cartpole"]["curves"] = [[[9_000, 100.0], [10_001, 500.0]]]
    assert not next(check for check in STUDY.check(data) if check.claim.startswith("CartPole")).passed


@pytest.mark.parametrize("field", ["mdps", "lqr_steps", "policy_batch", "random_policies"])
def test_bad_fields_are_named(field: str) -> None:
    with pytest.raises(InputError, match=f"^{field} must be at least"):
        Config(**{field: 0})


def test_killed_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    flags = [part for name, value in TINY.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "mindworks", "run", "pbvf"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MINDWORKS_CHECKPOINT_SECONDS": "0.05"}
    out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    subprocess.run([*command, "--scale", "smoke", *flags, "--out", str(tmp_path / "whole")], **out, check=False)
    process = subprocess.Popen([*command, "--scale", "smoke", *flags, "--out", str(tmp_path / "cut")], **out)
    try:
        while not list(tmp_path.glob("cut/*/checkpoint/lqr/_state.json")):  # in the middle of the second stage
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (cut,) = (tmp_path / "cut").iterdir()
    assert not (cut / "result.json").exists()
    assert not (cut / "checkpoint" / "lqr.json").exists()
    subprocess.run([*command, "--resume", str(cut)], **out, check=False)
    (whole,) = (tmp_path / "whole").iterdir()
    for name in ("data.json", "metrics.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
