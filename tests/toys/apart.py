"""A study whose seeds each have a process of their own, and can be made to fail."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from mindworks.errors import InputError
from mindworks.lab import Check, RunLog, Study


@dataclass(frozen=True)
class Config:
    """Draw numbers; misbehave for one seed while the file `fault` exists."""

    draws: int = 5
    """numbers per seed"""
    pause: float = 0.0
    """seconds to sleep before each draw"""
    fault: str = ""
    """path of a file; while it is there the seed it names fails in the way it says"""


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Mean of some draws."""
    (seed,) = seeds
    generator = random.Random(seed)
    draws = []
    for step in log.track(range(config.draws), "draws"):
        time.sleep(config.pause)
        draws.append(generator.random())
        log.metric(step=step, draw=draws[-1])
    if config.fault and os.path.exists(config.fault):
        unlucky, how = Path(config.fault).read_text().split()
        if int(unlucky) == seed:
            _fail(how)
    return {"mean": sum(draws) / len(draws), "threads": os.environ["OMP_NUM_THREADS"], "pid": os.getpid()}


def _fail(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "input":
        raise InputError("draws must be lucky, got 13")
    if how == "exit":
        raise SystemExit("giving up")
    raise RuntimeError("out of luck")


def combine(parts: list[dict]) -> dict:
    """Side by side."""
    return {key: [part[key] for part in parts] for key in parts[0]}


def check(data: dict) -> list[Check]:
    """Uniform draws lie in (0, 1)."""
    return [Check("every mean is below one", max(data["mean"]), "<", 1.0)]


STUDY = Study(
    name="apart",
    paper="arXiv:0000.00002",
    claim="Draws are below one.",
    config=Config,
    run=run,
    check=check,
    plot=lambda data, folder: [],
    combine=combine,
    scales={"smoke": {}, "cpu": {}},
    seeds={"smoke": 2, "cpu": 3},
)
