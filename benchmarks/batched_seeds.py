"""Seeds, and values of a field, as rows of one batch in one process against a process for each.

Two studies whose seeds are a leading dimension run at a reduced scale: once with 16 seeds, and as 16 runs of one seed
each. `pois` also runs with four values of `delta` side by side, and as four runs; searches that no `delta` touches run
once then, so a last row measures the batch alone, one search that it does touch. CPU seconds on one thread, of fresh
processes: with their start (the interpreter, the imports), and without, from the call of the study's `run` to its
return. Both sides take turns, the median of three counts, and what they return is compared first. The bars are on the
ratio with the start; a pilot on a busy machine had 7.2, 2.4 and 2.9 (2026-11-28).
Run: `python benchmarks/batched_seeds.py`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import _bench
from mindworks.lab.log import RunLog
from mindworks.lab.progress import Display
from mindworks.studies import pois

SEEDS, DELTAS, REPEATS = 16, [0.2, 0.4, 0.8, 0.99], 3
RWR_BAR, POIS_BAR, DELTAS_BAR = 4.0, 1.8, 2.0
SMALL: dict[str, dict[str, Any]] = {
    "rwr": {
        "mdps": 2,
        "mdp_iterations": 200,
        "bandit_iterations": 100,
        "tie_iterations": 50,
        "sampled_seeds": SEEDS,
        "episodes": [100],
        "sampled_iterations": 5,
    },
    "pois": {
        "batches": 3,
        "cart_batches": 2,
        "task_batches": 1,
        "deep_batches": 2,
        "repeats": 500,
        "variants": False,
    },
}
SCRIPT = """
import json, sys, time
from mindworks.envs import make_batch
from mindworks import policies, tabular
from mindworks.lab import discovery
from mindworks.lab.files import dumps, plain
from mindworks.lab.folder import revive
from mindworks.lab.log import RunLog
from mindworks.lab.progress import Display
asked = json.loads(sys.argv[1])
study = discovery.find(asked["study"])
configs = [revive(study.config, values) for values in asked["configs"]]
log = RunLog(asked["folder"], Display(terminal=False))
begun = time.process_time()
if len(configs) == 1:
    found = [study.run(configs[0], asked["seeds"], log)]
else:
    found = study.run_many(configs, asked["seeds"], log)
spent = time.process_time() - begun
print()
print(dumps(plain({"spent": spent, "found": found})))
"""
Job = tuple[str, list[dict[str, Any]], list[int]]


def carried_out(jobs: list[Job]) -> tuple[float, float, list[Any]]:
    """CPU seconds with and without the start of a fresh process for each job, and what the jobs returned."""
    found: list[Any] = []
    inside = 0.0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for study, configs, seeds in jobs:
        with tempfile.TemporaryDirectory() as folder:
            asked = json.dumps({"study": study, "configs": configs, "seeds": seeds, "folder": folder})
            ended = subprocess.run([sys.executable, "-c", SCRIPT, asked], check=True, capture_output=True, text=True)
        answer = json.loads(ended.stdout.splitlines()[-1])
        inside += answer["spent"]
        found += answer["found"]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, inside, found


def row(
    case: str, batch: list[Job], alone: list[Job], same: Callable[[list[Any], list[Any]], bool], bar: float
) -> list[Any]:
    """One row of the table; stops where the sides return different things."""
    taken: tuple[list[tuple[float, float]], ...] = ([], [])
    for repeat in range(REPEATS):
        answers: list[Any] = [None, None]
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            whole, inside, answers[side] = carried_out((batch, alone)[side])
            taken[side].append((whole, inside))
        if not same(*answers):
            raise SystemExit(f"{case}: the sides return different things")
    (batch_whole, batch_run), (alone_whole, alone_run) = (
        [median(part) for part in zip(*side, strict=True)] for side in taken
    )
    kept = f"{bar:g}{'' if alone_whole / batch_whole >= bar else ', missed'}"
    whole = [f"{batch_whole:.1f}", f"{alone_whole:.1f}", f"{alone_whole / batch_whole:.1f}", kept]
    return printed(case, whole, batch_run, alone_run)


def printed(case: str, whole: list[str], batch_run: float, alone_run: float) -> list[Any]:
    """The cells of a row, shown as well; `whole` are those with the start."""
    cells = [case, *whole]
    cells += [f"{batch_run:.1f}", f"{alone_run:.1f}", f"{alone_run / batch_run:.1f}"]
    print("  ".join(cells), flush=True)
    return cells


def same_rates(batch: list[Any], alone: list[Any]) -> bool:
    """Whether the rates measured in four rooms agree."""
    one_by_one = [data["four_rooms"]["rate"][0] for data in alone]
    return np.allclose(batch[0]["four_rooms"]["rate"], one_by_one, rtol=1e-9)


def same_curves(batch: list[Any], alone: list[Any]) -> bool:
    """Whether every seed of P-POIS in CartPole-v1 earned the same."""
    name = "P-POIS"
    return batch[0][pois.CARTPOLE][name]["curves"] == [data[pois.CARTPOLE][name]["curves"][0] for data in alone]


def one_search(deltas: list[float]) -> list[dict]:
    """P-POIS in CartPole-v1 for ten batches of four seeds."""
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder), Display(terminal=False))
        found = pois.search(list(range(4)), pois.CARTPOLE, pois.P, 10, log, deltas=tuple(deltas))
        log.close()
    return found


def main() -> int:
    """Measure and write the record."""
    begun, seeds = time.monotonic(), list(range(SEEDS))
    rows = []
    for study, same, bar in (("rwr", same_rates, RWR_BAR), ("pois", same_curves, POIS_BAR)):
        config = [SMALL[study]]
        each: list[Job] = [(study, config, [seed]) for seed in seeds]
        rows.append(row(f"{study}, {SEEDS} seeds", [(study, config, seeds)], each, same, bar))
    configs = [{**SMALL["pois"], "delta": delta} for delta in DELTAS]
    each = [("pois", [config], seeds[:4]) for config in configs]
    case = f"pois, {len(DELTAS)} deltas x 4 seeds"
    together = [("pois", configs, seeds[:4])]
    rows.append(row(case, together, each, lambda batch, alone: batch == alone, DELTAS_BAR))
    torch.set_num_threads(1)
    batch, alone = _bench.compare(
        lambda: one_search(DELTAS), lambda: [one_search([delta]) for delta in DELTAS], repeats=REPEATS
    )
    case = f"one search that the {len(DELTAS)} deltas touch, 4 seeds, 10 batches"
    rows.append(printed(case, ["–"] * 4, batch, alone))
    columns = ["case", "one batch, CPU s", "apart, CPU s", "ratio", "bar", "without start: batch", "apart", "ratio"]
    _bench.table("batched_seeds", columns, rows)
    print(f"{time.monotonic() - begun:.0f} s on the clock")
    return 1 if any("missed" in row[4] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
