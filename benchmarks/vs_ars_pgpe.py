"""Return per environment step: the PSSVF against ARS (sb3-contrib) and PGPE with ClipUp (EvoTorch), linear policies.

All play the same Gymnasium tasks for the same number of training interactions; `_learning.py` says how they are
evaluated. The rivals are tuned here: every setting of their grid runs on `TUNING_SEEDS`, and the one with the largest
area under its curves goes on to `SEEDS`. `python benchmarks/vs_ars_pgpe.py [--env NAME] [--method NAME] [--retune]`
runs a part and merges it into `results/benchmarks/vs_ars_pgpe.json`; `--figure` only draws.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import _bench
import _learning
from _learning import METHODS, Result, Task
from mindworks.lab.stats import summary
from mindworks.studies.pbvf import TUNED

SEEDS = (0, 1, 2, 3, 4)
TUNING_SEEDS = (100, 101, 102)
TASKS = {
    "CartPole-v1": Task("CartPole-v1", 10_000, 10),
    "InvertedPendulum-v5": Task("InvertedPendulum-v5", 20_000, 5),
    "Swimmer-v5": Task("Swimmer-v5", 120_000, 2),
}
Setting = dict[str, Any]

# Arguments of PSSVFConfig: the study's, tuned on seeds 100 and up.
PSSVF: dict[str, Setting] = {
    "CartPole-v1": TUNED["CartPole-v1"],
    "InvertedPendulum-v5": {"population": 8},
    "Swimmer-v5": TUNED["Swimmer-v5"],
}


def _ars(source: str, normalize: bool, n_delta: int, n_top: int, learning_rate: float, delta_std: float) -> Setting:
    rates = {"learning_rate": learning_rate, "delta_std": delta_std}
    return {"source": source, "normalize": normalize, "n_delta": n_delta, "n_top": n_top, **rates}


def _pgpe(source: str, popsize: int, max_speed: float, radius: float) -> Setting:
    """`radius` in units of the top speed; what is the same in all of EvoTorch's scripts is not repeated."""
    speed = {"max_speed": max_speed, "learning_rate": 0.75, "radius": radius}
    return {"source": source, "normalize": True, "popsize": popsize, **speed}


# "zoo" is hyperparams/ars.yml of DLR-RM/rl-baselines3-zoo, the published settings for sb3-contrib's ARS; its
# CartPole-v1 is sb3-contrib's default. It has no InvertedPendulum: the nearest tasks stand in. One environment instead
# of the zoo's n_envs, so that every interaction counts once.
_ARS_COMMON = [
    _ars("zoo CartPole-v1 = sb3-contrib defaults", False, 8, 8, 0.02, 0.05),
    _ars("defaults, observations normalised", True, 8, 8, 0.02, 0.05),
    _ars("zoo Pendulum", True, 4, 1, 0.018, 0.1),
    _ars("fewer directions, larger steps", True, 4, 2, 0.1, 0.1),
    _ars("as the last, half the directions", True, 2, 1, 0.1, 0.1),
]
# The PSSVF's settings for CartPole were chosen among some thirty, on more seeds: the rivals get about as many.
_ARS_PRODUCT = [
    _ars("product", normalize, n_delta, n_top, learning_rate, delta_std)
    for normalize in (True, False)
    for n_delta, n_top in ((1, 1), (2, 1), (4, 2))
    for learning_rate in (0.05, 0.3)
    for delta_std in (0.1, 0.3)
]
ARS_GRID: dict[str, list[Setting]] = {
    "CartPole-v1": [*_ARS_COMMON, *_ARS_PRODUCT],
    "InvertedPendulum-v5": _ARS_COMMON,
    "Swimmer-v5": [
        _ars("zoo Swimmer-v3, after the ARS paper", False, 1, 1, 0.02, 0.01),
        _ars("zoo Swimmer-v3, observations normalised", True, 1, 1, 0.02, 0.01),
        _ars("zoo Swimmer-v3, wider noise", False, 1, 1, 0.02, 0.05),
        _ars("more directions, larger steps", False, 2, 1, 0.05, 0.05),
    ],
}

# EvoTorch documents CartPole-v1 with popsize 100 (notebook Functional_API/problem.ipynb: top speed 0.15, radius 15
# times that, centre rate 0.75 of it, observations normalised), and the ClipUp tasks with popsize 100 to 200
# (examples/scripts/rl_clipup.py). These budgets hold 20 to 120 episodes of good policies, so smaller populations are
# tried too: 20 is the popsize of the basic usage of pgpelib, EvoTorch's forerunner. A speed alone changes little where
# the action is an argmax, which no scale of the weights moves, so the ratio of radius to speed is varied instead.
_PGPE_COMMON = [
    _pgpe("EvoTorch's notebook for CartPole-v1", 100, 0.15, 15),
    _pgpe("the notebook, popsize 20", 20, 0.15, 15),
    _pgpe("the notebook, popsize 10", 10, 0.15, 15),
    _pgpe("the notebook, popsize 4", 4, 0.15, 15),
    _pgpe("popsize 10, three times the speed", 10, 0.45, 5),
]
_PGPE_PRODUCT = [
    _pgpe("product", popsize, max_speed, radius)
    for popsize in (4, 10, 20)
    for max_speed in (0.05, 0.15, 0.45)
    for radius in (5, 15, 45)
    if (max_speed, radius) != (0.15, 15) and (popsize, max_speed, radius) != (10, 0.45, 5)
]
PGPE_GRID: dict[str, list[Setting]] = {
    "CartPole-v1": [*_PGPE_COMMON, *_PGPE_PRODUCT],
    "InvertedPendulum-v5": _PGPE_COMMON,
    "Swimmer-v5": [
        _pgpe("the notebook, popsize 20", 20, 0.15, 15),
        _pgpe("the notebook, popsize 10", 10, 0.15, 15),
        _pgpe("the notebook, popsize 4", 4, 0.15, 15),
        _pgpe("popsize 10, three times the speed", 10, 0.45, 5),
        _pgpe("popsize 4, three times the speed", 4, 0.45, 5),
        *(_pgpe("product", 4, max_speed, radius) for max_speed in (0.05, 0.1, 0.3) for radius in (2, 5)),
        _pgpe("product", 2, 0.05, 5),
        _pgpe("product", 2, 0.15, 5),
    ],
}
GRIDS = {"ars": ARS_GRID, "pgpe": PGPE_GRID}
NAMES = {"pssvf": "PSSVF (ours)", "ars": "ARS (sb3-contrib)", "pgpe": "PGPE (EvoTorch)"}
COLORS = {"pssvf": "#0072b2", "ars": "#d55e00", "pgpe": "#009e73"}
RECORD = _bench.RESULTS / "vs_ars_pgpe.json"
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "papers" / "figures" / "pbvf_vs_ars_pgpe.svg"


def play(method: str, task: Task, setting: Setting, seeds: tuple[int, ...]) -> Result:
    """One setting of a method on several seeds."""
    return METHODS[method](task, {k: v for k, v in setting.items() if k != "source"}, seeds)


def tune(method: str, task: Task) -> dict[str, Any]:
    """Try the grid on the tuning seeds; the record says what each setting reached and which one was chosen."""
    tried = []
    for setting in GRIDS[method][task.name]:
        curves = play(method, task, setting, TUNING_SEEDS).returns
        tried.append({"setting": setting, "areas": [area(c) for c in curves], "finals": [c[-1] for c in curves]})
        print(f"  {task.name} {method} {setting}: areas {tried[-1]['areas']}", flush=True)
    best = max(range(len(tried)), key=lambda i: sum(tried[i]["areas"]))
    return {"seeds": TUNING_SEEDS, "tried": tried, "chosen": best}


def area(curve: list[float]) -> float:
    """Mean return over the checkpoints: the area under the curve per step of the budget."""
    return round(sum(curve) / len(curve), 2)


def measure(method: str, task: Task, setting: Setting) -> dict[str, Any]:
    """The record of one method on one task."""
    result = play(method, task, setting, SEEDS)
    record = {
        "setting": setting,
        "seeds": SEEDS,
        "returns": [[round(value, 2) for value in curve] for curve in result.returns],
        "curve": [summary(values) for values in zip(*result.returns, strict=True)],
        "final": summary([curve[-1] for curve in result.returns]),
        "area": summary([area(curve) for curve in result.returns]),
        "cpu_us_per_step": round(result.cpu_s / result.steps * 1e6, 1),
    }
    if method == "pssvf":  # the others run their seeds one by one
        alone = play(method, task, setting, SEEDS[:1])
        record["cpu_us_per_step_one_seed"] = round(alone.cpu_s / alone.steps * 1e6, 1)
    return record


def read() -> dict[str, Any]:
    """The record so far."""
    if RECORD.exists():
        return json.loads(RECORD.read_text(encoding="utf-8"))
    return {"benchmark": "vs_ars_pgpe"}


def merge(part: str, method: str, task: Task, entry: dict[str, Any]) -> None:
    """Put one entry into the record on disk, which another process may be filling too."""
    record = read()
    record["environment"] = _bench.environment()
    record.setdefault("tasks", {})[task.name] = {"steps": task.checkpoints, "episodes": task.episodes}
    record.setdefault(part, {}).setdefault(task.name, {})[method] = entry
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    fresh = RECORD.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    fresh.replace(RECORD)


def chosen(method: str, task: Task, retune: bool) -> Setting:
    """The setting to measure: ours from `PSSVF`, a rival's from its tuning on record, or tuned now."""
    if method == "pssvf":
        return PSSVF[task.name]
    tuning = read().get("tuning", {}).get(task.name, {}).get(method)
    if retune or tuning is None or [t["setting"] for t in tuning["tried"]] != GRIDS[method][task.name]:
        tuning = tune(method, task)
        merge("tuning", method, task, tuning)
    return tuning["tried"][tuning["chosen"]]["setting"]


def draw() -> None:
    """Learning curves: interquartile mean over seeds with its 95 % bootstrap interval, a panel per task."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "vs_ars_pgpe"
    record = read()
    figure, panels = pyplot.subplots(1, len(TASKS), figsize=(11, 3.4), layout="constrained")
    for panel, task in zip(panels, TASKS.values(), strict=True):
        for method, run in record.get("runs", {}).get(task.name, {}).items():
            steps = [step / 1000 for step in task.checkpoints]
            low, high, middle = ([point[key] for point in run["curve"]] for key in ("low", "high", "iqm"))
            panel.fill_between(steps, low, high, color=COLORS[method], alpha=0.18, linewidth=0)
            marker = {"pssvf": "o", "ars": "s", "pgpe": "^"}[method]
            panel.plot(steps, middle, color=COLORS[method], marker=marker, markersize=4, label=NAMES[method])
        panel.set(title=task.name, xlabel="training interactions (thousands)")
        panel.set_xlim(0, task.steps / 1000)
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("return")
    panels[0].legend(frameon=False, fontsize=9)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> int:
    """Run the chosen parts, then draw whatever is on record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=TASKS, action="append", help="only this task (may be repeated)")
    parser.add_argument("--method", choices=METHODS, action="append", help="only this method (may be repeated)")
    parser.add_argument("--retune", action="store_true", help="run the rivals' grid again")
    parser.add_argument("--figure", action="store_true", help="draw the figure from the record and stop")
    arguments = parser.parse_args()
    _learning.quiet()
    parts = [] if arguments.figure else [(m, e) for e in arguments.env or TASKS for m in arguments.method or METHODS]
    for method, name in parts:
        entry = measure(method, TASKS[name], chosen(method, TASKS[name], arguments.retune))
        merge("runs", method, TASKS[name], entry)
        final, whole = (
            f"{entry[k]['iqm']:.1f} [{entry[k]['low']:.1f}, {entry[k]['high']:.1f}]" for k in ("final", "area")
        )
        print(f"{name} {method}: final {final}, area {whole}, {entry['cpu_us_per_step']} us per step", flush=True)
    draw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
