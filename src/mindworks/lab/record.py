"""The record of a run: what was measured, on what, and how long it took."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindworks import __version__
from mindworks.lab.files import dumps, null_non_finite, plain, read_sealed, write_sealed
from mindworks.lab.study import Check, Study

CHECKOUT = Path(__file__).resolve().parents[3]


class Timer:
    """Wall and CPU seconds of a run over all its parts; CPU seconds include the processes it started."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checkpoint" / "_timing.json"
        earlier = read_sealed(self.path) if self.path.exists() else {"wall_s": 0.0, "cpu_s": 0.0}
        self._wall = earlier["wall_s"] - time.monotonic()
        self._cpu = earlier["cpu_s"] - cpu_seconds()

    def read(self) -> dict[str, float]:
        """Seconds so far: `wall_s` and `cpu_s`."""
        return {"wall_s": round(self._wall + time.monotonic(), 3), "cpu_s": round(self._cpu + cpu_seconds(), 3)}

    def store(self) -> None:
        """Keep the seconds so far for a run that continues this one."""
        write_sealed(self.path, self.read())


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def build(
    study: Study,
    scale: str,
    config: dict[str, Any],
    seeds: Sequence[int],
    checks: Sequence[Check],
    tables: dict[str, Any],
    timing: dict[str, float],
) -> dict[str, Any]:
    """The record as `result.json` holds it, valid JSON without NaN."""
    record = {
        "study": study.name,
        "paper": study.paper,
        "scale": scale,
        "config": config,
        "seeds": list(seeds),
        "checks": [check.as_dict() for check in checks],
        "tables": tables,
        "timing": timing,
        "environment": environment(),
    }
    return null_non_finite(plain(record))


def text(record: dict[str, Any]) -> str:
    """The record as the text of a file."""
    return dumps(record, indent=1) + "\n"


def environment() -> dict[str, Any]:
    """Versions, commit, processor, threads, and processes where there are several."""
    found = {
        "mindworks": __version__,
        "commit": commit(),
        "torch": version("torch"),
        "python": platform.python_version(),
        "cpu": processor(),
        "threads": threads(),
    }
    return found | ({"processes": count} if (count := processes()) > 1 else {})


def version(distribution: str) -> str | None:
    """The installed version of a distribution, or None; nothing is imported."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def commit() -> str | None:
    """The commit of the checkout this package runs from, with `-dirty` where src/ differs from it; else None.

    It is asked for once in a process: that is the code which runs, and git costs 10 CPU ms (2026-11-28).
    """
    if not (CHECKOUT / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(CHECKOUT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "--verify", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Torch's threads where torch is loaded, else the number of processors."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else cores()


def processes() -> int:
    """How many processes torchrun has joined to this one, itself included."""
    dist = sys.modules.get("torch.distributed")
    return dist.get_world_size() if dist is not None and dist.is_available() and dist.is_initialized() else 1
