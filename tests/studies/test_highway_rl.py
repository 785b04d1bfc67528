"""The study of the highway gate: a run of all its parts, checks that can fail, settings in the order of the tuned ones.

Seeds run one after another in this process: with a process for each, most of the time would go into imports.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")

from mindworks.core.targets import Target
from mindworks.errors import InputError
from mindworks.lab import RunLog
from mindworks.lab.runner import execute
from mindworks.multistep import Training
from mindworks.studies.highway_rl import (
    DEEP,
    GRID,
    LR,
    NAMES,
    NEVER,
    STUDY,
    TUNED,
    Config,
    best_setting,
    chains,
    chosen,
    counted,
    flat,
    learned,
    settings,
    solved,
    tasks,
)
from mindworks.tabular.multistep_q import AveragedHighway, Setting

SEEDS = [3, 1]
TINY: dict[str, Any] = {"processes": 1, "lookaheads": (2,), "corridors": (4,), "tasks": (), "warmup": 384}
WALK = "corridor-4"
Smoke = tuple[dict, dict, Path]


def tiny(**changes: Any) -> Config:
    return replace(STUDY.defaults("smoke"), **{**TINY, **changes})


def in_this_process(config: Config, seeds: list[int], log: RunLog) -> dict:
    assert STUDY.combine is not None
    return STUDY.combine([log.stage(f"seed-{seed}", partial(STUDY.run, config, [seed])) for seed in seeds])


def of_seed(data: Any, i: int) -> Any:
    """The part of one seed in combined data."""
    return {key: of_seed(value, i) for key, value in data.items()} if isinstance(data, dict) else data[i]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    folder = tmp_path_factory.mktemp("highway_rl")
    record = execute(replace(STUDY, run=in_this_process, combine=None), tiny(), "smoke", SEEDS, folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: Smoke) -> None:
    record, data, folder = smoke
    tables = record["tables"]
    assert len(record["checks"]) == len({claim for claim, _ in BREAKS})
    assert set(tables["operators: bias of the fixed point, percent of V*"]) == set(data["bias"])
    assert set(tables[f"{WALK}: tuned settings, every run"]) == set(NAMES.values())
    assert set(tables["noisy arm, worth 0.33: excess of Q"]) == set(data["noisy"])
    scores = tables["delayed breakout: score in the last tenth"]
    assert list(scores) == [NAMES[kind] for kind in DEEP]
    assert all(len(row) == len(SEEDS) for row in scores.values())
    assert (folder / "highway_rl.svg").stat().st_size > 5_000


def test_seeds_differ_and_are_combined_in_their_order(smoke: Smoke) -> None:
    data = smoke[1]
    first, second = (of_seed(data, i) for i in range(len(SEEDS)))
    for part in ("bias", "noisy", "games"):
        assert first[part] != second[part]
    assert first["chain"] == second["chain"]  # nothing is drawn there


def test_every_method_is_trained_in_the_game(smoke: Smoke) -> None:
    lines = [json.loads(line) for line in (smoke[2] / "metrics.jsonl").read_text().splitlines()]
    first = {line["stage"]: (line["loss"], line["target"]) for line in lines if line["stage"].startswith("seed-3/")}
    assert list(first) == [f"seed-3/breakout-{kind}" for kind in DEEP]
    assert len(set(first.values())) == len(DEEP)
    assert all(line["step"] == 400 for line in lines)


def test_an_interrupted_game_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDWORKS_CHECKPOINT_SECONDS", "0")
    config = tiny(frames=2080, warmup=1960)  # updates on either side of the break after 2,000 frames
    advance, steps = Training.advance, []

    def counted_advance(job: Training) -> None:
        steps.append(job.step)
        if len(steps) == 4:
            raise KeyboardInterrupt
        advance(job)

    monkeypatch.setattr(Training, "advance", counted_advance)
    whole = learned(config, 0, "breakout", "highway", RunLog(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        learned(config, 0, "breakout", "highway", RunLog(tmp_path / "broken"))
    assert learned(config, 0, "breakout", "highway", RunLog(tmp_path / "broken")) == whole
    assert steps == [0, 2000, 0, 2000, 2000]
    assert len(whole["curve"]) == 20
    assert whole["score"] >= 0


def test_operators_err_where_the_theory_says(smoke: Smoke) -> None:
    bias = of_seed(smoke[1]["bias"], 0)
    for name in ("n-step", "uniform mixture", "Peng, 0.9", "ungated"):
        assert bias[name]["2 steps"]["mean"] < -0.01
        assert bias[name]["2 steps"]["worst"] >= -bias[name]["2 steps"]["mean"]
    for name in ("highway", "soft highway, 10"):
        assert bias[name]["2 steps"]["worst"] < 1e-9
    # a mean over depths 1 and 2 errs less than depth 2 alone, and Peng's weight on depth 2 is 0.9
    assert bias["n-step"]["2 steps"]["mean"] < bias["Peng, 0.9"]["2 steps"]["mean"]
    assert bias["Peng, 0.9"]["2 steps"]["mean"] < bias["uniform mixture"]["2 steps"]["mean"]


def test_a_sweep_goes_as_many_states_up_the_chain_as_it_looks_ahead() -> None:
    rows = chains(tiny(chain=40))  # so ten steps of lookahead
    for noise in ("0", "0.5"):
        assert rows[f"value iteration, noise {noise}"]["5 sweeps"] == pytest.approx(0.99**5)
        assert rows[f"value iteration, noise {noise}"]["20 sweeps"] == pytest.approx(0.99**20)
    for name in ("highway", "n-step"):
        assert rows[f"{name}, noise 0"]["1 sweeps"] == pytest.approx(0.99**10)
        assert rows[f"{name}, noise 0"]["5 sweeps"] == pytest.approx(0, abs=1e-12)
    assert rows["highway, noise 0.5"]["20 sweeps"] < 0.5 * rows["value iteration, noise 0.5"]["20 sweeps"]
    assert rows["highway, noise 0.5"]["400 sweeps"] == pytest.approx(0, abs=1e-12)
    assert rows["n-step, noise 0.5"]["400 sweeps"] > 0.05


# -- checks -----------------------------------------------------------------------------------------------------------

RUNS = {"one_step": 18.0, "n_step": 60.0, "peng": 70.0, "retrace": 6.0, "highway": 6.0}


def put(data: dict, kind: str, runs: list[float], elsewhere: float, what: str = "episodes") -> None:
    """Give a method these three runs in its tuned setting, and one number in all others."""
    place = TUNED["corridor-60"][list(GRID).index(kind)]  # what a corridor without an entry takes
    count = len(settings(kind, 4, {}))
    data["tasks"][WALK][kind][what] = [[[run if i == place else elsewhere for i in range(count)]] for run in runs]


def good(smoke: Smoke) -> dict:
    """The data of the run with every number of a check on its bar, or near it."""
    data = copy.deepcopy(smoke[1])
    data["bias"]["n-step"] = {"2 steps": {"mean": [-0.9, -0.9]}, "4 steps": {"mean": [-0.1, -0.1]}}
    data["bias"]["highway"]["2 steps"]["worst"] = [1e-6, 0.0]
    data["chain"]["value iteration, noise 0.5"]["20 sweeps"] = [0.8, 0.8]
    data["chain"]["highway, noise 0.5"]["20 sweeps"] = [0.4, 0.4]
    for kind, runs in RUNS.items():
        put(data, kind, [runs] * 3, elsewhere=61.0 if kind == "highway" else 1.0)
    put(data, "highway", [10.0, 0.0, 0.0], elsewhere=11.0, what="after")
    data["noisy"]["highway"] = {"5 episodes": [0.0, 0.0], "10 episodes": [0.5, 0.5]}
    data["noisy"]["averaged highway"] = {"5 episodes": [9.0, 9.0], "10 episodes": [0.12, 0.12]}
    for name in set(data["noisy"]) - {"highway", "averaged highway"}:
        data["noisy"][name] = {"5 episodes": [0.0, 0.0], "10 episodes": [0.0, 0.0]}
    for kind, score in {"one_step": 1.0, "highway_soft": 9.0}.items():  # the soft gate is no rival
        data["games"]["breakout"][kind]["score"] = [score, score]
    for kind in ("n_step", "peng", "retrace", "highway"):
        data["games"]["breakout"][kind]["score"] = [1.1, 1.1]
    return data


def unsolved(data: dict) -> None:
    """One of the nine settings of highway, not the tuned one, fails in most runs."""
    for rows in data["tasks"][WALK]["highway"]["episodes"]:
        rows[0][0] = NEVER


def scored(kind: str, score: float) -> Callable[[dict], None]:
    return lambda data: data["games"]["breakout"][kind].update(score=[score, score])


def took(kind: str, runs: list[float]) -> Callable[[dict], None]:
    return lambda data: put(data, kind, runs, elsewhere=61.0 if kind == "highway" else 1.0)


BREAKS: list[tuple[str, Callable[[dict], Any]]] = [
    ("n-step operator", lambda data: data["bias"]["n-step"]["4 steps"].update(mean=[-0.1, -0.099])),
    ("highway operator", lambda data: data["bias"]["highway"]["2 steps"].update(worst=[0.0, 1.1e-6])),
    ("chain", lambda data: data["chain"]["highway, noise 0.5"].update({"20 sweeps": [0.41, 0.41]})),
    ("corridors: episodes to the optimum", took("highway", [6.0, 6.0, 61.0])),
    ("corridors: episodes from", lambda data: put(data, "highway", [11.0, 0.0, 0.0], elsewhere=0.0, what="after")),
    (f"{WALK}: episodes of one-step", took("one_step", [17.0] * 3)),
    (f"{WALK}: episodes of the better", took("n_step", [59.0] * 3)),
    (f"{WALK}: episodes of the better", took("peng", [59.0] * 3)),
    (f"{WALK}: episodes of Retrace", took("retrace", [5.0] * 3)),
    (f"{WALK}: share of highway's settings", unsolved),
    ("noisy arm: what the hard maximum", lambda data: data["noisy"]["highway"].update({"10 episodes": [0.5, 0.48]})),
    ("noisy arm: averaged", lambda data: data["noisy"]["averaged highway"].update({"10 episodes": [0.13, 0.13]})),
    ("delayed breakout: score of highway over one-step", scored("one_step", 1.01)),
    *(
        ("delayed breakout: score of highway over the best", scored(kind, 1.2))
        for kind in ("n_step", "peng", "retrace")
    ),
]


def test_checks_pass_at_their_bars(smoke: Smoke) -> None:
    checks = STUDY.check(good(smoke))
    assert [check.claim for check in checks if not check.passed] == []
    assert len(checks) == len({claim for claim, _ in BREAKS})


def test_a_game_that_nobody_learned_gets_no_verdict(smoke: Smoke) -> None:
    data = good(smoke)
    for row in data["games"]["breakout"].values():
        row["curve"] = [[0.5, *curve[1:]] for curve in row["curve"]]
        row["score"] = [0.9, 0.9]
    assert not any("delayed" in check.claim for check in STUDY.check(data))
    data["games"]["breakout"]["peng"]["score"] = [1.0, 1.0]
    assert sum("delayed" in check.claim for check in STUDY.check(data)) == 2


@pytest.mark.parametrize(("claim", "broken"), BREAKS)
def test_each_check_fails_by_its_own_number(smoke: Smoke, claim: str, broken: Callable[[dict], Any]) -> None:
    data = good(smoke)
    broken(data)
    assert [check.claim.startswith(claim) for check in STUDY.check(data) if not check.passed] == [True]


def test_a_method_that_never_arrives_is_shown_as_none(smoke: Smoke) -> None:
    data = good(smoke)
    put(data, "n_step", [NEVER] * 3, elsewhere=5.0)
    assert STUDY.table is not None
    row = STUDY.table(data)[f"{WALK}: tuned settings, every run"]["n-step"]
    assert row["median episodes"] is row["slowest"] is None
    assert row["settings that solve it, percent"] == pytest.approx(100 * 8 / 9)


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "place", "target", "lr"),
    [
        ("one_step", 2, Target("one_step"), 1.0),
        ("n_step", 1, Target("n_step", lookahead=20), 0.1),
        ("peng", 6, Target("peng", lookahead=5, lam=0.5), 0.3),
        ("peng", 17, Target("peng", lookahead=60, lam=0.9), 1.0),
        ("retrace", 13, Target("retrace", lookahead=5, lam=0.9, epsilon=0.1), 0.3),
        ("retrace", 34, Target("retrace", lookahead=60, lam=1.0, epsilon=0.0), 1.0),
        ("highway", 8, Target("highway", lookahead=60), 1.0),
        ("highway_soft", 11, Target("highway_soft", lookahead=60, sharpness=10.0), 0.3),
        ("highway_averaged", 8, AveragedHighway(lookahead=60), 1.0),
    ],
)
def test_the_grid_has_the_order_that_tuned_entries_count_in(kind: str, place: int, target: Any, lr: float) -> None:
    assert settings(kind, 60, {"guided": 0.5})[place] == Setting(target, lr=lr, guided=0.5)


@pytest.mark.parametrize("kind", GRID)
def test_no_setting_of_a_grid_comes_twice(kind: str) -> None:
    found = settings(kind, 77, {})
    assert len(set(found)) == len(found)
    assert len(found) % len(LR) == 0
    assert max(place[list(GRID).index(kind)] for place in TUNED.values()) < len(found)
    assert ("lookahead" in GRID[kind]) == (77 in {setting.target.lookahead for setting in found})


@pytest.mark.parametrize("scale", ["smoke", "cpu", "paper"])
def test_every_task_of_a_scale_has_tuned_settings(scale: str) -> None:
    made = tasks(STUDY.defaults(scale))
    assert scale == "smoke" or set(made) == set(TUNED)
    for name, (make, shared) in made.items():
        task = make()
        assert (task.guide is not None) == name.startswith("corridor") == (shared == {"guided": 0.5})
        assert task.horizon >= 1


def test_outcomes_are_read_by_setting() -> None:
    runs = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]  # two seeds, two repeats, two settings
    assert flat(runs) == [[1.0, 3.0, 5.0, 7.0], [2.0, 4.0, 6.0, 8.0]]


def test_a_tuned_setting_is_that_of_its_task_and_method() -> None:
    rows = {"episodes": [[list(map(float, range(36)))]]}
    names = ("corridor-20", "corridor-21", "trace-back")
    data = {"tasks": {task: dict.fromkeys(GRID, rows) for task in names}}
    found = [[chosen(data, task, kind, "episodes") for kind in GRID] for task in names]
    wanted = ("corridor-20", "corridor-60", "trace-back")  # an unknown corridor takes the entry of the longest
    assert found == [[[float(place)] for place in TUNED[task]] for task in wanted]
    assert found[0] != found[1] != found[2]


def test_the_best_setting_has_the_least_median_then_the_least_mean_then_the_largest_step() -> None:
    columns = {"episodes": [[[9.0, 5.0, 5.0, 6.0]], [[9.0, 5.0, 5.0, 6.0]], [[1.0, 90.0, 80.0, 6.0]]]}
    assert best_setting(columns, "episodes") == 2
    assert best_setting({"value": columns["episodes"]}, "value") == 1
    assert best_setting({"episodes": [[[NEVER, 3.0, 3.0, 4.0]]]}, "episodes") == 2
    assert best_setting({"value": [[[4.0, 3.0, 4.0, 0.0]]]}, "value") == 2


def test_a_setting_solves_a_task_when_most_runs_do() -> None:
    assert solved({"episodes": [[[1.0, NEVER]], [[NEVER, NEVER]], [[2.0, 3.0]]]}) == 0.5
    assert counted(NEVER) is None
    assert counted(7.0) == 7.0


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        *((name, 0, "0") for name in ("processes", "delay", "repeats", "envs", "batch", "target_interval")),
        *(
            ("chain", 1, "1"),
            ("episodes", 19, "19"),
            ("envs", 6, "6"),
            ("frames", 2000, "2000"),
            ("episodes", 50, "50"),
            ("lookaheads", (), ""),
            ("corridors", (), ""),
            ("corridors", (20, 70), "70"),
            ("noisy_episodes", (), ""),
            ("tasks", ("choice", "nowhere"), "nowhere"),
            ("games", ("pong",), "pong"),
        ),
    ],
)
def test_bad_settings_name_the_field(field: str, value: Any, shown: str) -> None:
    with pytest.raises(InputError, match=f"^{field} .*{shown}"):
        Config(**{field: value})
