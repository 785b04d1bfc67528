"""What the lab costs: a cell of a sweep against a job of a Hydra multirun, and a logged metric against TensorBoard's.

A cell does next to nothing: the toy study `walk`, a few steps in two stages. What it costs is therefore the lab: it is
submitted, described, run with two checkpoints, judged, recorded, and entered into the index. It runs on one worker of
the local engine; driver and worker count. Hydra's basic launcher runs its jobs in its own process and keeps a folder
with their configuration, so it does less: no checkpoint, no record, no protection from a job that dies.

Both are CPU seconds of fresh processes and their children, with 10 and with 110 cells, in turns; the difference is 100
cells without the start. The bar on a cell is 50 ms, that on a line of metrics 50 µs. Needs hydra-core and tensorboard.
Run: `python benchmarks/vs_hydra.py`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import _bench
from mindworks.lab.log import RunLog
from mindworks.lab.progress import Display

TESTS = Path(__file__).resolve().parents[1] / "tests"
FEW, MANY, REPEATS = 10, 110, 3
LINES = 20_000
CELL_MS, METRIC_US = 50, 50

SWEEP = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from mindworks import cli
values = ",".join(str(n) for n in range(1, int(sys.argv[1]) + 1))
if __name__ == "__main__":
    words = ["--grid", f"bar={{values}}", "--steps", "2", "--seeds", "1", "--workers", "1", "--out", "sweep"]
    cli.main(["sweep", "walk", *words], package="toys")
    cli.main(["runs", "--runs", "sweep", "--limit", "1"], package="toys")
"""
HYDRA = """
import sys
import hydra
from omegaconf import DictConfig
@hydra.main(version_base=None)
def job(config: DictConfig) -> float:
    return float(config.bar)
sys.argv = ["job", "--multirun", "+bar=" + ",".join(str(n) for n in range(1, int(sys.argv[1]) + 1))]
job()
"""


def spent(script: str, count: int) -> float:
    """CPU seconds of a fresh process that carries out `script` with `count` cells, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.py"
        path.write_text(script, encoding="utf-8")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, str(path), str(count)], cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def cells() -> tuple[float, float]:
    """CPU seconds of one cell of a sweep, and of one job of a multirun."""
    taken: dict[str, list[float]] = {SWEEP: [], HYDRA: []}
    for _ in range(REPEATS):
        for script, found in taken.items():
            few, many = spent(script, FEW), spent(script, MANY)
            found.append((many - few) / (MANY - FEW))
    return median(taken[SWEEP]), median(taken[HYDRA])


def metrics(values: int) -> tuple[float, float]:
    """CPU seconds of logging `values` numbers at one step: a line of ours, and TensorBoard's scalars."""
    from torch.utils.tensorboard import SummaryWriter

    names = [f"value_{number}" for number in range(values)]
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder) / "ours", Display(terminal=False))
        writer = SummaryWriter(str(Path(folder) / "peer"))
        counts = {"ours": 0, "peer": 0}

        def ours() -> None:
            for step in range(LINES):
                log.metric(step=step, **dict.fromkeys(names, 0.125 * step))

        def peer() -> None:
            for step in range(LINES):
                for name in names:
                    writer.add_scalar(name, 0.125 * step, counts["peer"])
                counts["peer"] += 1

        found = _bench.compare(ours, peer, repeats=5)
        log.close()
        writer.close()
    return found[0] / LINES, found[1] / LINES


def line(case: str, found: Callable[[], tuple[float, float]], unit: float, bar: float) -> tuple[list[Any], bool]:
    """A row of the table: ours and the peer in `unit` seconds, the bar on ours, and whether it is kept."""
    begun = time.monotonic()
    ours, peer = (seconds / unit for seconds in found())
    print(f"{case}: ours {ours:.1f}, peer {peer:.1f}, bar {bar} ({time.monotonic() - begun:.0f} s)", flush=True)
    return [
        case,
        f"{ours:.1f}",
        f"{peer:.1f}",
        f"{peer / ours:.2f}",
        f"{bar}{'' if ours < bar else ', missed'}",
    ], ours < bar


def main() -> int:
    """Measure, write the record, return the exit status."""
    rows = [
        line("a cell of a sweep, against a job of Hydra, CPU ms", cells, 1e-3, CELL_MS),
        line("one metric, against TensorBoard, CPU µs", lambda: metrics(1), 1e-6, METRIC_US),
        line("a line of eight metrics, against TensorBoard, CPU µs", lambda: metrics(8), 1e-6, METRIC_US),
    ]
    columns = ["case", "ours", "peer", "peer / ours", "bar on ours"]
    _bench.table("vs_hydra", columns, [row for row, _ in rows])
    return 0 if all(passed for _, passed in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
