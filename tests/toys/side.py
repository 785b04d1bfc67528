"""A study whose rate can be batched, and that fails at one of its rates while a file says so."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mindworks.lab import Check, RunLog, Study


@dataclass(frozen=True)
class Config:
    """Decay from one."""

    rate: float = 0.5
    """what is left after a step"""
    steps: int = 3
    """steps"""
    fault: str = ""
    """path of a file; while it is there, the rate that it names fails"""


def run_many(configs: list[Config], seeds: list[int], log: RunLog) -> list[dict]:
    """What is left for every configuration and seed, all in one loop."""
    left = [[1.0 + seed for seed in seeds] for _ in configs]
    for config in configs:
        if config.fault and os.path.exists(config.fault) and float(Path(config.fault).read_text()) == config.rate:
            raise RuntimeError(f"no luck at {config.rate}")
    log.metric(begun=len(seeds))
    for step in range(configs[0].steps):
        for number, config in enumerate(configs):
            left[number] = [value * config.rate for value in left[number]]
            log.metric(config=number, step=step, left=sum(left[number]))
    return [{"left": values, "together": len(configs), "pid": os.getpid()} for values in left]


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """One configuration."""
    return run_many([config], seeds, log)[0]


STUDY = Study(
    name="side",
    paper="arXiv:0000.00004",
    claim="Little is left.",
    config=Config,
    run=run,
    run_many=run_many,
    batchable=("rate",),
    check=lambda data: [Check("what is left is below two", max(data["left"]), "<", 2.0, data["left"])],
    plot=lambda data, folder: [],
    scales={"smoke": {}, "cpu": {}},
    seeds={"smoke": 2, "cpu": 3},
)
