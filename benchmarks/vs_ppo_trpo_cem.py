"""Return per episode: POIS against PPO (stable-baselines3), TRPO (sb3-contrib), CEM and PGPE (EvoTorch).

All play the same tasks for the same number of episodes; `_pois_rivals.py` says what counts. PPO and TRPO run with a
linear policy, as in the paper's figure, and with their default network of 64 and 64 units (`ppo_64`, `trpo_64`); CEM
and PGPE search the same linear policies as POIS in the space of parameters. The rivals are tuned here: every setting of
their grid runs on one tuning seed, the best of them on the whole budget, and the largest area under the curve wins.
`p_pois` and `a_pois` have the study's settings; as the rivals may choose the episodes between two updates, so may
`p_pois_tuned` and `a_pois_tuned`, tuned like the rivals over fewer settings than any of them.

    python benchmarks/vs_ppo_trpo_cem.py                                    everything, then the record
    python benchmarks/vs_ppo_trpo_cem.py --only CartPole-v1 --method cem    a part (both may be repeated)
    python benchmarks/vs_ppo_trpo_cem.py --retune                           run the grids again

Every run of one seed is kept in `runs/vs_ppo_trpo_cem`, so that a command that was stopped goes on where it was; delete
that folder after a change of code. `results/benchmarks/vs_ppo_trpo_cem.json` holds what is there, and the tunings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import _bench
import _learning
from _pois_rivals import METHODS, Run, Setting, Task
from mindworks.lab.stats import summary
from mindworks.studies.pois import TASKS as STUDIED
from vs_ars_ddpg import area, save

SEEDS = (0, 1, 2, 3, 4)
TUNING_SEEDS = (100, 101, 102)
CARTPOLE, FORCE, PENDULUM = "CartPole-v1", "CartPoleContinuous-v0", "InvertedPendulum-v5"
TASKS = {
    CARTPOLE: Task(CARTPOLE, horizon=500, episodes=1000, batch=100),
    FORCE: Task(FORCE, horizon=200, episodes=1000, batch=100),
    PENDULUM: Task(PENDULUM, horizon=300, episodes=600, batch=50),
}


def ours(method: str, task: Task) -> Setting:
    """Arguments of POISConfig as in the study."""
    mode = {"p_pois": "parameter", "a_pois": "action"}[method]
    return {"mode": mode, **STUDIED.get((task.name, mode), (0, 0, {}))[2]}


def _ppo(
    n_envs: int, n_steps: int, batch_size: int, n_epochs: int, learning_rate: float, gae_lambda: float, gamma: float
) -> Setting:
    """`n_envs * n_steps` steps between updates of `n_epochs` passes; what is left out stays at its default."""
    sizes = {"n_envs": n_envs, "n_steps": n_steps, "batch_size": batch_size, "n_epochs": n_epochs}
    return {**sizes, "learning_rate": learning_rate, "gae_lambda": gae_lambda, "gamma": gamma}


def _trpo(n_envs: int, n_steps: int, target_kl: float, gae_lambda: float, **more: Any) -> Setting:
    """The critic takes 20 passes at a rate of 1e-3, as in the zoo, unless `more` says otherwise."""
    critic = {"batch_size": min(512, n_envs * n_steps), "learning_rate": 1e-3, "n_critic_updates": 20}
    rest = {"target_kl": target_kl, "gae_lambda": gae_lambda, **critic, "cg_damping": 1e-3}
    return {"n_envs": n_envs, "n_steps": n_steps, **rest, **more}


def _net(policy: list[int], value: list[int], setting: Setting) -> Setting:
    return {"policy": policy, "value": value, **setting}


SMALL: list[int] = [64, 64]
# The defaults, with eight environments instead of one and as many steps between updates, and hyperparams/ppo.yml and
# trpo.yml of DLR-RM/rl-baselines3-zoo for CartPole-v1 (with constant rates). With at most 1,000 episodes, of 8 to 500
# steps, smaller and more frequent updates are worth a try; a linear policy wants larger rates.
_PPO_DEFAULT, _PPO_ZOO = _ppo(8, 256, 64, 10, 3e-4, 0.95, 0.99), _ppo(8, 32, 256, 20, 1e-3, 0.8, 0.98)
_TRPO_DEFAULT = _trpo(8, 256, 0.01, 0.95, batch_size=128, n_critic_updates=10, cg_damping=0.1)
_TRPO_ZOO = _trpo(2, 512, 0.01, 0.98)
_TRPO_MORE = [
    _trpo(8, 64, 0.01, 0.98),
    _trpo(8, 64, 0.03, 0.98),
    _trpo(8, 64, 0.1, 0.98),
    _trpo(8, 128, 0.03, 0.95),
    _trpo(4, 32, 0.01, 0.98),
    _trpo(4, 32, 0.03, 0.95),
]


def _cem(popsize: int, parenthood_ratio: float, stdev_init: float, **more: Any) -> Setting:
    return {"popsize": popsize, "parenthood_ratio": parenthood_ratio, "stdev_init": stdev_init, **more}


def _pgpe(popsize: int, optimizer: str, rate: float, stdev_init: float = 1.0, stdev_rate: float = 0.1) -> Setting:
    """With ClipUp the top speed is `rate` and the centre's rate 0.75 of it, as in EvoTorch's notebook."""
    common = {"popsize": popsize, "stdev_init": stdev_init, "stdev_learning_rate": stdev_rate, "optimizer": optimizer}
    if optimizer == "clipup":
        return {**common, "center_learning_rate": 0.75 * rate, "optimizer_config": {"max_speed": rate}}
    return {**common, "center_learning_rate": rate}


GRIDS: dict[str, list[Setting]] = {
    "p_pois_tuned": [
        {"mode": "parameter", "episodes": episodes, "delta": delta}
        for episodes in (50, 25)
        for delta in (0.4, 0.8, 0.99)
    ],
    "a_pois_tuned": [
        {"mode": "action", "episodes": episodes, "delta": delta} for episodes in (50, 25) for delta in (0.4, 0.9, 0.99)
    ],
    "ppo": [
        _net([], [], _PPO_DEFAULT),
        _net([], [], _PPO_ZOO),
        _net([], [], _ppo(8, 32, 256, 20, 1e-2, 0.95, 0.99)),
        _net([], SMALL, _ppo(8, 32, 256, 20, 3e-3, 0.8, 0.98)),
        _net([], SMALL, _ppo(8, 32, 256, 20, 1e-2, 0.95, 0.99)),
        _net([], SMALL, _ppo(8, 64, 128, 10, 1e-2, 0.95, 0.99)),
        _net([], SMALL, _ppo(8, 128, 256, 10, 3e-3, 0.98, 0.99)),
        _net([], SMALL, _ppo(4, 32, 128, 20, 1e-2, 0.95, 0.99)),
    ],
    "ppo_64": [
        _net(SMALL, SMALL, _PPO_DEFAULT),
        _net(SMALL, SMALL, _PPO_ZOO),
        _net(SMALL, SMALL, _ppo(8, 32, 256, 10, 1e-3, 0.95, 0.99)),
        _net(SMALL, SMALL, _ppo(8, 32, 256, 20, 3e-3, 0.9, 0.98)),
        _net(SMALL, SMALL, _ppo(8, 64, 128, 10, 1e-3, 0.95, 0.99)),
        _net(SMALL, SMALL, _ppo(8, 128, 256, 10, 1e-3, 0.98, 0.99)),
        _net(SMALL, SMALL, _ppo(4, 32, 128, 10, 3e-3, 0.95, 0.99)),
    ],
    "trpo": [
        _net([], [], _TRPO_DEFAULT),
        _net([], SMALL, _TRPO_ZOO),
        *(_net([], SMALL, setting) for setting in _TRPO_MORE),
    ],
    "trpo_64": [_net(SMALL, SMALL, setting) for setting in (_TRPO_DEFAULT, _TRPO_ZOO, *_TRPO_MORE)],
    "cem": [
        _cem(100, 0.1, 1.0),
        _cem(100, 0.2, 1.0),
        _cem(50, 0.1, 1.0),
        _cem(50, 0.2, 1.0),
        _cem(50, 0.2, 3.0),
        _cem(50, 0.2, 1.0, stdev_min=0.1),
        _cem(25, 0.2, 1.0),
        _cem(25, 0.4, 1.0),
        _cem(20, 0.2, 1.0, stdev_min=0.1),
        _cem(25, 0.2, 1.0, stdev_min=0.1),
        _cem(20, 0.4, 1.0, stdev_min=0.03),
        _cem(10, 0.3, 1.0, stdev_min=0.1),
    ],
    "pgpe": [
        _pgpe(100, "clipup", 0.15),
        _pgpe(20, "clipup", 0.15),
        _pgpe(20, "clipup", 0.45),
        _pgpe(10, "clipup", 0.45),
        _pgpe(50, "adam", 0.3),
        _pgpe(20, "adam", 0.3),
        _pgpe(10, "adam", 0.3),
        _pgpe(20, "adam", 0.3, stdev_rate=0.3),
        _pgpe(10, "adam", 0.1, stdev_init=0.3),
        _pgpe(10, "adam", 0.1, stdev_init=0.3, stdev_rate=0.3),
        _pgpe(10, "adam", 0.03, stdev_init=0.1),
        _pgpe(4, "adam", 0.1, stdev_init=0.3),
    ],
}
# A step of PPO or TRPO takes 100 to 400 CPU us and late episodes are long: of their settings, only the best two on this
# share of the budget and the published one play all of it, on one tuning seed.
SLOW = ("ppo", "ppo_64", "trpo", "trpo_64")
SCREEN, PUBLISHED = {CARTPOLE: 0.2, FORCE: 0.3, PENDULUM: 0.4}, 1
CACHE = Path(__file__).resolve().parents[1] / "runs" / "vs_ppo_trpo_cem"
RECORD = _bench.RESULTS / "vs_ppo_trpo_cem.json"


def seeds_of(method: str) -> tuple[int, ...]:
    """Seeds that are measured: five, three of what is slow."""
    return SEEDS[:3] if method in SLOW else SEEDS


def play(method: str, task: Task, setting: Setting, seed: int) -> dict[str, Any]:
    """One run of one seed, from the cache if it is there: `curve`, `cpu_s` and `steps`."""
    what = json.dumps([setting, task.horizon, task.episodes, task.batch], sort_keys=True)
    path = CACHE / task.name / f"{method}-{hashlib.sha256(what.encode()).hexdigest()[:12]}-{seed}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    done: Run = METHODS[method](task, setting, seed)
    run = {"setting": setting, "curve": done.curve(task.batch), "cpu_s": round(done.cpu_s, 3), "steps": done.steps}
    save(path, run)
    shown = f"final {run['curve'][-1]:.1f}, area {area(run['curve']):.1f}, {run['cpu_s']:.1f} CPU s"
    print(f"{task.name} {method} seed {seed}, {task.episodes} episodes: {shown} {setting}", flush=True)
    return run


def tune(method: str, task: Task) -> dict[str, Any]:
    """Try the grid on the first tuning seed, the best of it on the whole budget; the largest area there is chosen."""
    slow = method in SLOW

    def tried(settings: list[Setting], budget: Task, seeds: tuple[int, ...]) -> list[dict[str, Any]]:
        entries = []
        for setting in settings:
            curves = [play(method, budget, setting, seed)["curve"] for seed in seeds]
            finals = [curve[-1] for curve in curves]
            entries.append({"setting": setting, "areas": [area(curve) for curve in curves], "finals": finals})
        return sorted(entries, key=lambda entry: -sum(entry["areas"]))

    short, seeds = (task.share(SCREEN[task.name]), TUNING_SEEDS[:1]) if slow else (task, TUNING_SEEDS)
    screened = tried(GRIDS[method], short, TUNING_SEEDS[:1])
    best = [entry["setting"] for entry in screened[: 2 if slow else 3]]
    if slow and GRIDS[method][PUBLISHED] not in best:
        best.append(GRIDS[method][PUBLISHED])
    whole = tried(best, task, seeds)
    print(f"{task.name} {method}: {whole[0]['setting']}", flush=True)
    return {"screen_episodes": short.episodes, "tried": screened, "seeds": seeds, "whole": whole}


def read() -> dict[str, Any]:
    """The record so far."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"benchmark": RECORD.stem}


def chosen(method: str, task: Task, retune: bool = False) -> Setting:
    """The setting to measure: the study's, or that of the tuning on record, or tuned now."""
    if method not in GRIDS:
        return ours(method, task)
    tuning = read().get("tuning", {}).get(task.name, {}).get(method)
    known = [] if tuning is None else [entry["setting"] for entry in tuning["tried"]]
    if retune or any(setting not in known for setting in GRIDS[method]):
        tuning = tune(method, task)
        record = read()  # another process may have written meanwhile
        record.setdefault("tuning", {}).setdefault(task.name, {})[method] = tuning
        save(RECORD, record)
    return tuning["whole"][0]["setting"]


def entry(method: str, task: Task, setting: Setting) -> dict[str, Any]:
    """What the record says about one method on one task; `final` is the mean return of the last batch of episodes."""
    runs = [play(method, task, setting, seed) for seed in seeds_of(method)]
    curves = [run["curve"] for run in runs]
    cpu_s, steps = sum(run["cpu_s"] for run in runs), sum(run["steps"] for run in runs)
    return {
        "setting": setting,
        "seeds": seeds_of(method),
        "returns": curves,
        "curve": [summary(values) for values in zip(*curves, strict=True)],
        "final": summary([curve[-1] for curve in curves]),
        "area": summary([area(curve) for curve in curves]),
        "cpu_us_per_step": round(cpu_s / steps * 1e6, 1),
        "cpu_s_per_run": round(cpu_s / len(runs), 2),
        "steps_per_run": round(steps / len(runs)),
    }


def merge(method: str, task: Task, made: dict[str, Any]) -> None:
    """Put one entry into the record and say what it holds."""
    record = read()
    record["environment"] = _bench.environment()
    about = {"horizon": task.horizon, "episodes": task.episodes, "batch": task.batch}
    record.setdefault("tasks", {})[task.name] = about
    record.setdefault("runs", {}).setdefault(task.name, {})[method] = made
    save(RECORD, record)
    final, whole = (f"{made[k]['iqm']:.1f} [{made[k]['low']:.1f}, {made[k]['high']:.1f}]" for k in ("final", "area"))
    print(f"{task.name} {method}: final {final}, area {whole}, {made['cpu_s_per_run']} CPU s per run", flush=True)


def main() -> int:
    """Run the chosen parts and put each into the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TASKS, action="append", help="only this task (may be repeated)")
    parser.add_argument("--method", choices=METHODS, action="append", help="only this method (may be repeated)")
    parser.add_argument("--retune", action="store_true", help="run the rivals' grids again")
    arguments = parser.parse_args()
    _learning.quiet()
    for name in arguments.only or TASKS:
        for method in arguments.method or METHODS:
            task = TASKS[name]
            merge(method, task, entry(method, task, chosen(method, task, arguments.retune)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
