"""The study of Rényi bounds: a smoke run, its parts by hand, and checks that can fail."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab.runner import execute
from mindworks.studies.renyi import ALPHAS, LAW_ALPHAS, MIXTURE_ALPHAS, STUDY, VARIANTS, Config, best_arm, label

TINY = {"pulls": 9, "samples": 10, "contour_step": 2.0, "observations": 20}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("renyi")
    record = execute(STUDY, replace(STUDY.defaults("smoke"), **TINY), "smoke", [0, 1], folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: tuple[dict, dict, Path]) -> None:
    record, data, folder = smoke
    tables = record["tables"]
    assert len(tables["mean-field normal"]) == len(LAW_ALPHAS)
    assert len(tables["normal for the mixture"]) == len(MIXTURE_ALPHAS) + 1  # and the jump
    assert len(tables["maps of the bound"]) == 3 * len(ALPHAS)
    for name in VARIANTS:
        rows = tables[f"bandit, {name}"]
        assert list(rows) == [f"alpha {label(alpha)}" for alpha in ALPHAS]
        assert all(len(values) == 1 for row in rows.values() for values in row.values())
        assert len(data["bandit"][name]["best"]) == len(ALPHAS)
        assert all(len(row) == 2 for row in data["bandit"][name]["best"])
    for name in ("renyi", "renyi_linear", "renyi_multimodal"):
        assert (folder / f"{name}.svg").stat().st_size > 5_000


def test_what_is_exact_holds_in_the_smallest_run(smoke: tuple[dict, dict, Path]) -> None:
    checks = {check["claim"]: check["passed"] for check in smoke[0]["checks"]}
    exact = [name for name in checks if not name.startswith("bandit")]
    assert len(exact) == 10
    assert all(checks[name] for name in exact)
    linear = smoke[1]["linear"]
    assert linear["disagreements"] == 0
    assert 0 < linear["infinite"] < linear["cases"]


def test_a_gamma_prior_does_not_move_the_best_variance_and_alpha_does(smoke: tuple[dict, dict, Path]) -> None:
    best = smoke[1]["linear"]["best_variance"]
    assert len(set(best["of_shape"])) == 1
    assert len(set(best["of_alpha"])) > 1


def test_every_check_can_pass_and_fail(smoke: tuple[dict, dict, Path]) -> None:
    perfect, broken = copy.deepcopy(smoke[1]), copy.deepcopy(smoke[1])
    shares = {True: [0.2, 0.4, 0.9, 0.9, 0.8, 0.8], False: [0.9, 0.9, 0.2, 0.2, 0.2, 0.2]}
    for data, good in ((perfect, True), (broken, False)):
        agents = data["bandit"]
        for name in VARIANTS:
            agents[name]["best"] = [[share] * 2 for share in (shares[good] if name == "published" else [0.98] * 6)]
            agents[name]["width"] = [[width] * 2 for width in (4.0, 2.5, 1.6, 1.4, 1.4, 1.4)]
            agents[name]["pulled_width"] = [[0.07] * 2] * 6
    agents = broken["bandit"]
    agents["published"]["width"] = [[1.0] * 2] * 6
    agents["rule corrected"]["best"] = [[share] * 2 for share in shares[True]]
    agents["all corrected"]["pulled_width"] = [[width] * 2 for width in (4.0, 2.5, 1.6, 1.4, 1.4, 1.4)]
    broken["law"]["variance"][3][1] += 0.01
    broken["mixture"] |= {"std": [2.7, 2.8, *[0.79, 0.84] * 4, 0.79], "mean": [0.0] * 11, "switch": 0.95}
    broken["linear"] |= {"worst": 1e-6, "disagreements": 2}
    assert all(check.passed for check in STUDY.check(perfect))
    failed = {check.claim for check in STUDY.check(broken) if not check.passed}
    assert {check.claim for check in STUDY.check(broken)} - failed == {
        "mixture: alpha at which the best fit jumps, at least"
    }
    broken["mixture"]["switch"] = 0.5
    assert not next(check for check in STUDY.check(broken) if check.claim.endswith("at least")).passed


def test_shares_of_the_best_arm_are_means_over_small_and_large_orders() -> None:
    low, high = best_arm({"best": [[0.1, 0.3], [0.5, 0.7], [1.0, 1.0], [0.8, 1.0], [0.6, 0.6], [0.6, 0.6]]})
    assert low == pytest.approx(0.4)
    assert high == pytest.approx(0.775)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=str)
def test_every_variant_is_a_valid_setting(variant: dict) -> None:
    from mindworks.inference import BanditConfig

    BanditConfig(**variant)


@pytest.mark.parametrize(
    ("field", "value"), [("pulls", 7), ("samples", 1), ("observations", 1), ("grid", 99), ("contour_step", 0.0)]
)
def test_bad_settings_name_the_field(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field}.*{value}"):
        Config(**{field: value})
