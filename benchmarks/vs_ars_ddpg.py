"""Return per environment step of deep policies: fingerprint PSSVF and GoGePo against ARS and DDPG.

All play the same Gymnasium tasks for the same number of training interactions; `_deep_rivals.py` says how they are
evaluated. ARS (sb3-contrib) runs with a linear policy (`ars`) and with a network (`ars_mlp`), DDPG from
stable-baselines3. The rivals' settings were chosen on `TUNING_SEEDS` from the grids below; `--tune` does that again.

    python benchmarks/vs_ars_ddpg.py                                    everything, then the record
    python benchmarks/vs_ars_ddpg.py --only CartPole-v1 --method ars    a part (both may be repeated)
    python benchmarks/vs_ars_ddpg.py --tune --method ars                the grid of one rival
    python benchmarks/vs_ars_ddpg.py --record                           only write the record

Every run of one seed is kept in `runs/vs_ars_ddpg`, so that a command that was stopped goes on where it was; delete
that folder after a change of code. `results/benchmarks/vs_ars_ddpg.json` holds the methods whose seeds are all there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import _bench
import _deep_rivals
import _learning
import mindworks.policies
from _deep_rivals import RIVALS, Setting
from _learning import Task
from mindworks.lab.stats import summary

SEEDS = (0, 1, 2)  # DDPG takes 250 CPU seconds for one run of 100,000 steps
TUNING_SEEDS = (100, 101)
CARTPOLE, CAR, PENDULUM = "CartPole-v1", "MountainCarContinuous-v0", "InvertedPendulum-v5"
TASKS = {
    CARTPOLE: Task(CARTPOLE, 100_000, 10),
    CAR: Task(CAR, 100_000, 3),
    PENDULUM: Task(PENDULUM, 50_000, 10),
}
LEFT_OUT = {CARTPOLE: {"ddpg": "DDPG has no form for discrete actions"}}

# The settings of the studies crucial_states and gogepo, chosen on seeds from 100 up.
FINGERPRINT: Setting = {
    "probes": 10,
    "population": 8,
    "sigma": 0.5,
    "lr_critic": 5e-3,
    "critic_hidden": [32, 32],
    "critic_steps": 5,
    "policy_steps": 5,
    "recency": 1.1,
}
DEEP: Setting = {"population": 4, "sigma": 0.05, "lr_policy": 2e-5, "log_returns": True}
WIDE: Setting = {"return_low": -100.0, "return_high": 100.0}

# Ours: per task and method the class in mindworks.policies, the policy's hidden sizes, and arguments of its Config.
OURS: dict[str, dict[str, tuple[str, list[int], Setting]]] = {
    CARTPOLE: {
        "pssvf": ("PSSVF", [16], FINGERPRINT),
        "gogepo": ("GoGePo", [16], {"return_high": 500.0, "drive": 20.0, "closing": 75_000}),
    },
    CAR: {
        "pssvf": ("PSSVF", [16], FINGERPRINT),
        "gogepo": ("GoGePo", [16], {**WIDE, "drive": 5.0, "critic_steps": 15, "policy_steps": 15, "closing": 75_000}),
    },
    PENDULUM: {
        "pssvf": ("PSSVF", [256, 256], {**FINGERPRINT, **DEEP}),
        "gogepo": ("GoGePo", [16], {"return_high": 1000.0, "drive": 40.0, "closing": 37_500}),
    },
}


def _ars(n_delta: int, n_top: int, learning_rate: float, delta_std: float, **more: Any) -> Setting:
    """Observations are normalised unless `more` says otherwise; `hidden` makes the policy a network."""
    rates = {"learning_rate": learning_rate, "delta_std": delta_std}
    return {"normalize": True, "n_delta": n_delta, "n_top": n_top, **rates, **more}


def _mlp(n_delta: int, n_top: int, learning_rate: float, delta_std: float, hidden: int, zero: bool) -> Setting:
    """A network with one hidden layer of 16 units, or two of more; it starts at zero or as torch starts it."""
    sizes = [hidden] if hidden == 16 else [hidden, hidden]
    return _ars(n_delta, n_top, learning_rate, delta_std, hidden=sizes, zero_policy=zero)


def _ddpg(noise: str, noise_std: float, **more: Any) -> Setting:
    """One gradient step per environment step, taken in groups of 8, which costs a fifth less than one by one."""
    noise_dt = {"noise_dt": 0.01} if noise == "ou" else {}
    common = {"noise": noise, "noise_std": noise_std, **noise_dt, "normalize": True, "hidden": [64, 64]}
    steps = {"train_freq": 8, "gradient_steps": 8, "learning_starts": 1000}
    return {**common, "learning_rate": 1e-3, "batch_size": 128, "gamma": 0.99, **steps, **more}


EPISODE: Setting = {"train_freq": [1, "episode"], "gradient_steps": -1}

# Where the grids start: hyperparams/ars.yml and ddpg.yml of DLR-RM/rl-baselines3-zoo and the settings that
# vs_ars_pgpe.py chose. `alive_bonus_offset` is left alone: in the tasks that have one, the bonus is the whole return.
GRIDS: dict[str, dict[str, list[Setting]]] = {
    "ars": {
        CARTPOLE: [
            _ars(8, 8, 0.02, 0.05, normalize=False),  # the zoo's
            _ars(8, 8, 0.02, 0.05),
            _ars(2, 1, 0.05, 0.1),  # chosen at 10,000 steps
            _ars(4, 2, 0.02, 0.1),
            _ars(4, 2, 0.05, 0.1),
            _ars(4, 2, 0.05, 0.3),
            _ars(8, 4, 0.05, 0.1),
            _ars(8, 4, 0.1, 0.1),
        ],
        CAR: [
            _ars(16, 16, 0.02, 0.05),  # the zoo's
            _ars(4, 1, 0.018, 0.1),  # the zoo's for Pendulum
            _ars(4, 2, 0.1, 0.3),
            _ars(2, 1, 0.1, 0.3),
            _ars(2, 1, 0.3, 1.0),
            _ars(4, 2, 0.3, 1.0),
            _ars(4, 2, 0.1, 1.0),
            _ars(1, 1, 0.3, 1.0),
            _ars(4, 2, 1.0, 3.0),
            _ars(2, 1, 3.0, 30.0, normalize=False),
        ],
        PENDULUM: [
            _ars(8, 8, 0.02, 0.05),
            _ars(4, 1, 0.018, 0.1),
            _ars(4, 2, 0.1, 0.1),  # chosen at 20,000 steps
            _ars(4, 2, 0.05, 0.1),
            _ars(2, 1, 0.1, 0.1),
            _ars(2, 1, 0.05, 0.1),
            _ars(4, 2, 0.1, 0.3),
            _ars(8, 4, 0.1, 0.1),
        ],
    },
    "ars_mlp": {
        CARTPOLE: [
            _mlp(4, 1, 0.018, 0.1, 16, True),  # the zoo's for Pendulum
            _mlp(4, 2, 0.05, 0.1, 16, False),
            _mlp(2, 1, 0.05, 0.1, 16, False),
            _mlp(8, 4, 0.05, 0.1, 16, False),
            _mlp(4, 2, 0.05, 0.1, 64, False),
            _mlp(4, 2, 0.02, 0.05, 64, False),
            _mlp(8, 4, 0.02, 0.05, 64, False),
            _mlp(8, 8, 0.02, 0.05, 64, True),
        ],
        CAR: [
            _mlp(4, 1, 0.018, 0.1, 16, True),  # the zoo's for Pendulum
            _mlp(2, 1, 0.1, 0.3, 16, False),
            _mlp(4, 2, 0.1, 0.3, 16, False),
            _mlp(2, 1, 0.3, 1.0, 16, False),
            _mlp(4, 2, 0.3, 1.0, 16, True),
            _mlp(2, 1, 0.05, 0.1, 64, False),
            _mlp(2, 1, 0.1, 0.3, 64, False),
            _mlp(4, 2, 0.1, 0.3, 64, True),
        ],
        PENDULUM: [
            _mlp(4, 1, 0.018, 0.1, 16, True),  # the zoo's for Pendulum
            _mlp(4, 2, 0.05, 0.1, 16, False),
            _mlp(4, 2, 0.1, 0.1, 16, False),
            _mlp(2, 1, 0.05, 0.1, 16, False),
            _mlp(4, 2, 0.1, 0.3, 16, True),
            _mlp(4, 2, 0.02, 0.05, 64, False),
            _mlp(4, 2, 0.05, 0.1, 64, False),
            _mlp(8, 4, 0.05, 0.1, 64, False),
        ],
    },
    "ddpg": {
        CAR: [  # nothing but slow, strong noise swings the car to its goal
            _ddpg("ou", 0.5, normalize=False),  # the zoo's but for the network's size
            _ddpg("ou", 0.5),
            _ddpg("ou", 0.5, noise_dt=0.05),
            _ddpg("ou", 0.5, gamma=0.999),
            _ddpg("ou", 0.5, **EPISODE),
            _ddpg("ou", 0.5, learning_rate=3e-4),
            _ddpg("ou", 0.5, hidden=[256, 256], batch_size=64, gradient_steps=4),
            _ddpg("normal", 0.5),
        ],
        PENDULUM: [
            _ddpg("normal", 0.1, normalize=False),
            _ddpg("normal", 0.1),
            _ddpg("normal", 0.3),
            _ddpg("ou", 0.2),
            _ddpg("normal", 0.1, learning_rate=3e-4),
            _ddpg("normal", 0.1, gamma=0.98, **EPISODE),
            _ddpg("normal", 0.1, learning_rate=3e-4, normalize=False),
            _ddpg("normal", 0.1, hidden=[256, 256], batch_size=64, learning_rate=3e-4, gradient_steps=4),
        ],
    },
}
SCREEN = {"ars": 0.3, "ars_mlp": 0.3, "ddpg": 0.2}  # share of the budget in which every setting is tried
KEEP = 2  # settings that go on to the whole budget
# What `--tune` chose on 2026-11-22.
CHOSEN: dict[str, dict[str, Setting]] = {
    "ars": {
        CARTPOLE: _ars(4, 2, 0.02, 0.1),
        CAR: _ars(2, 1, 0.1, 0.3),
        PENDULUM: _ars(4, 2, 0.1, 0.3),
    },
    "ars_mlp": {
        CARTPOLE: _mlp(2, 1, 0.05, 0.1, 16, False),
        CAR: _mlp(2, 1, 0.1, 0.3, 16, False),
        PENDULUM: _mlp(2, 1, 0.05, 0.1, 16, False),
    },
    "ddpg": {
        CAR: _ddpg("ou", 0.5, noise_dt=0.05),
        PENDULUM: _ddpg("normal", 0.3),
    },
}
CACHE = Path(__file__).resolve().parents[1] / "runs" / "vs_ars_ddpg"
METHODS = ("pssvf", "gogepo", *RIVALS)
RECORD = _bench.RESULTS / "vs_ars_ddpg.json"


def place(method: str, task: Task, setting: Setting, seed: int) -> Path:
    """Where a run of one seed is kept."""
    what = json.dumps([setting, task.steps, task.episodes], sort_keys=True)
    return CACHE / task.name / f"{method}-{hashlib.sha256(what.encode()).hexdigest()[:12]}-{seed}.json"


def play(method: str, task: Task, setting: Setting, seed: int) -> dict[str, Any]:
    """One run of one seed, from the cache if it is there: `returns` at the checkpoints, `cpu_s` and `steps`."""
    path = place(method, task, setting, seed)
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    result = RIVALS.get(method, _deep_rivals.ours)(task, setting, seed)
    run = {"setting": setting, "returns": result.returns[0], "cpu_s": result.cpu_s, "steps": result.steps}
    save(path, run)
    shown = f"final {run['returns'][-1]:.1f}, area {area(run['returns']):.1f}, {run['cpu_s']:.0f} CPU s"
    print(f"{task.name} {method} seed {seed}, {task.steps} steps: {shown} {setting}", flush=True)
    return run


def save(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def area(curve: list[float]) -> float:
    """Mean return over the checkpoints: the area under the curve per step of the budget."""
    return round(sum(curve) / len(curve), 2)


def tune(method: str, task: Task) -> dict[str, Any]:
    """Try the grid on a part of the budget, the best of it on all of it; the largest area there is chosen."""
    short = Task(task.name, round(task.steps * SCREEN[method]), task.episodes)

    def tried(settings: list[Setting], budget: Task) -> list[dict[str, Any]]:
        entries = []
        for setting in settings:
            curves = [play(method, budget, setting, seed)["returns"] for seed in TUNING_SEEDS]
            finals = [round(curve[-1], 2) for curve in curves]
            entries.append({"setting": setting, "areas": [area(curve) for curve in curves], "finals": finals})
        return sorted(entries, key=lambda entry: -sum(entry["areas"]))

    screened = tried(GRIDS[method][task.name], short)
    whole = tried([entry["setting"] for entry in screened[:KEEP]], task)
    print(f"{task.name} {method}: {whole[0]['setting']}", flush=True)
    if whole[0]["setting"] != CHOSEN[method].get(task.name):
        print("  this is not the setting in CHOSEN", flush=True)
    return {"seeds": TUNING_SEEDS, "screen_steps": short.steps, "tried": screened, "whole": whole}


def setting_of(method: str, task: Task) -> Setting | None:
    """What `method` runs with on `task`; None if it does not run there."""
    if method in RIVALS:
        return CHOSEN[method].get(task.name)
    name, hidden, options = OURS[task.name].get(method, (None, [], {}))
    if name is None:
        return None
    if not hasattr(mindworks.policies, name):
        print(f"mindworks.policies has no {name}: {method} is left out", flush=True)
        return None
    return {"method": name, "hidden": hidden, **options}


def entry(method: str, task: Task, setting: Setting) -> dict[str, Any]:
    """What the record says about one method on one task."""
    runs = [play(method, task, setting, seed) for seed in SEEDS]
    curves = [[round(value, 2) for value in run["returns"]] for run in runs]
    finals, areas = [curve[-1] for curve in curves], [area(curve) for curve in curves]
    return {
        "setting": setting,
        "seeds": SEEDS,
        "returns": curves,
        "finals": finals,
        "areas": areas,
        "curve": [summary(values) for values in zip(*curves, strict=True)],
        "final": summary(finals),
        "area": summary(areas),
        "cpu_us_per_step": round(sum(run["cpu_s"] for run in runs) / sum(run["steps"] for run in runs) * 1e6, 1),
    }


def write_record() -> None:
    """Write the methods whose seeds are all cached and, where no newer tuning is, the tuning of the record before."""
    before = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    runs: dict[str, Any] = {}
    for task in TASKS.values():
        for method in METHODS:
            setting = setting_of(method, task)
            if setting is not None and all(place(method, task, setting, seed).exists() for seed in SEEDS):
                runs.setdefault(task.name, {})[method] = made = entry(method, task, setting)
                final, whole = (
                    f"{made[k]['iqm']:.1f} [{made[k]['low']:.1f}, {made[k]['high']:.1f}]" for k in ("final", "area")
                )
                print(f"{task.name} {method}: final {final}, area {whole}, {made['cpu_us_per_step']} us per step")
    tuning = before.get("tuning", {})
    for path in sorted(CACHE.glob("tuning/*/*.json")):
        tuning.setdefault(path.parent.name, {})[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    tasks = {
        task.name: {"steps": task.checkpoints, "episodes": task.episodes, "left_out": LEFT_OUT.get(task.name, {})}
        for task in TASKS.values()
    }
    head = {"benchmark": "vs_ars_ddpg", "environment": _bench.environment(), "tasks": tasks}
    save(RECORD, {**head, "runs": runs, "tuning": tuning})


def main() -> int:
    """Run or tune the chosen parts; write the record after a full run, or when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TASKS, action="append", help="only this task (may be repeated)")
    parser.add_argument("--method", choices=METHODS, action="append", help="only this method (may be repeated)")
    parser.add_argument("--tune", action="store_true", help="run the rivals' grids instead")
    parser.add_argument("--record", action="store_true", help="only write the record, of what is in the cache")
    arguments = parser.parse_args()
    _learning.quiet()
    parts = [(TASKS[name], method) for name in arguments.only or TASKS for method in arguments.method or METHODS]
    for task, method in [] if arguments.record else parts:
        if arguments.tune:
            if task.name in GRIDS.get(method, {}):
                save(CACHE / "tuning" / task.name / f"{method}.json", tune(method, task))
        elif (setting := setting_of(method, task)) is not None:
            for seed in SEEDS:
                play(method, task, setting, seed)
    if arguments.record or not (arguments.only or arguments.method or arguments.tune):
        write_record()
    return 0


if __name__ == "__main__":
    sys.exit(main())
