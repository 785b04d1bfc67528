"""The study of reward-weighted regression: the authors' first policies, a smoke run, and checks that can fail."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mindworks.core.finite_mdp import four_rooms
from mindworks.errors import InputError
from mindworks.lab.runner import execute
from mindworks.studies.rwr import CLASSES, SIZES, STUDY, Config, first_policies, off, on_time, slope
from mindworks.tabular import RewardWeightedRegression


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("rwr")
    tiny = replace(STUDY.defaults("smoke"), mdp_iterations=100, bandit_iterations=100, sampled_iterations=2)
    record = execute(STUDY, tiny, "smoke", [0, 1, 2], folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_the_first_iterations_are_those_of_the_published_code() -> None:
    # the authors' final code, seed 0, run on 2026-11-22: the RMSVE of its first four policies
    found = RewardWeightedRegression(four_rooms()).run(first_policies([0]), 3)
    torch.testing.assert_close(
        found.rmsve()[:, 0], torch.tensor([0.4776, 0.3532, 0.2637, 0.2016]).double(), rtol=0, atol=6e-5
    )


def test_the_mean_curve_is_that_of_other_first_policies_too() -> None:
    # RMSVE, mean over 100 policies of another generator, from an independent program, 2026-11-22
    wanted = {0: 0.473, 5: 0.133, 10: 0.0528, 20: 0.0124, 40: 1.17e-3, 60: 1.28e-4, 80: 1.59e-5, 100: 2.00e-6}
    mdp = four_rooms()
    policies = mdp.random_policy((100,), torch.Generator().manual_seed(1))
    curve = RewardWeightedRegression(mdp).run(policies, 100).rmsve().mean(-1)
    for n, value in wanted.items():
        assert float(curve[n]) == pytest.approx(value, rel=0.02 if n in (0, 100) else 0.2), n


def test_first_policies_are_distributions_of_their_own_seed() -> None:
    policies = first_policies([3, 0])
    assert policies.shape == (2, 68, 4)
    torch.testing.assert_close(policies.sum(-1), torch.ones(2, 68).double(), rtol=0, atol=1e-14)
    assert torch.equal(policies[1], first_policies([0])[0])
    assert not torch.equal(policies[0], policies[1])


def test_smoke_run_leaves_a_whole_record(smoke: tuple[dict, dict, Path]) -> None:
    record, data, folder = smoke
    assert set(data) == {"four_rooms", "random", "bandit", "ties", "sampled", "approximate"}
    assert len(data["four_rooms"]["mean"]) == 201
    assert data["four_rooms"]["policy_iteration"][20] < 1e-12 < data["four_rooms"]["mean"][20]
    assert list(data["sampled"]["curves"]) == ["exact", "50", "200"]
    assert set(data["approximate"]) == set(CLASSES)
    assert set(record["tables"]) >= {"four rooms", "random processes", "function approximation"}
    assert (folder / "rwr.svg").stat().st_size > 5_000
    assert len(json.dumps(record)) < 20_000


def test_what_needs_no_long_run_holds_in_a_smoke_run(smoke: tuple[dict, dict, Path]) -> None:
    failed = {check["claim"].partition(":")[0] for check in smoke[0]["checks"] if not check["passed"]}
    assert failed <= {"random processes", "from samples"}


def perfect(data: dict) -> dict:
    """The data as they should be."""
    data = copy.deepcopy(data)
    data["random"]["error"]["100"] = [1e-12, 1e-12, 5e-3]
    data["random"] |= {"rate": [0.9, 0.5, 0.8], "predicted": [0.9001, 0.5001, 0.8001]}
    data["sampled"]["one_step"] = {str(size): [size**-0.5] for size in SIZES}
    data["sampled"]["curves"]["200"] = data["sampled"]["curves"]["exact"]
    return data


def broken(data: dict) -> dict:
    """The data with everything a little too bad."""
    data = copy.deepcopy(data)
    rooms, processes = data["four_rooms"], data["random"]
    rooms |= {"fall": 2e-12, "rate": [0.9046, 0.9046, 0.89]}
    rooms["mean"][40], rooms["highest"][40], rooms["error"][199] = 3e-3, 2e-2, 2e-8
    processes |= {"fall": 2e-12, "rate": [0.99, 0.9, 0.8], "predicted": [0.97, 0.8, 0.9]}
    processes["error"]["100"] = [1e-3, 1e-3, 0.1]
    for part in ("bandit", "ties"):
        for name in set(data[part]) - {"gap"}:
            data[part][name][-1] = 1e-3
    data["sampled"]["one_step"] = {str(size): [size**-0.2] for size in SIZES}
    data["sampled"]["curves"]["200"][-1][0] += 0.1
    data["approximate"]["room"]["start_fall"][0] = 1e-6
    return data


def test_every_check_can_pass_and_fail(smoke: tuple[dict, dict, Path]) -> None:
    assert [check.claim for check in STUDY.check(perfect(smoke[1])) if not check.passed] == []
    assert [check.claim for check in STUDY.check(broken(smoke[1])) if check.passed] == []


def test_rates_that_were_not_measured_fail() -> None:
    rows: dict[str, Any] = {"rate": [0.9, None], "predicted": [0.9, 0.5]}
    assert math.isnan(off(rows))
    assert on_time(rows) == 0.5
    assert off({"rate": [0.9, 0.4], "predicted": [0.91, 0.5]}) == pytest.approx(0.1)


def test_the_slope_is_that_of_a_power() -> None:
    assert slope({str(size): [2 * size**-0.7, 4 * size**-0.7] for size in SIZES}) == pytest.approx(-0.7)


def test_figures_and_tables_stand_missing_rates(smoke: tuple[dict, dict, Path], tmp_path: Path) -> None:
    data = copy.deepcopy(smoke[1])
    data["random"]["rate"][0] = None
    assert STUDY.plot(data, tmp_path)[0].exists()
    assert STUDY.table is not None
    assert STUDY.table(data)["rates"]["random processes"]["measured_lowest"] is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 199),
        ("mdps", 0),
        ("branching", 21),
        ("bandit_iterations", 99),
        ("grid", 1000),
        ("discount", 1.0),
        ("sampled_seeds", 0),
        ("episodes", (10, 0)),
        ("episodes", ()),
    ],
)
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        Config(**{field: value})  # type: ignore[arg-type]
