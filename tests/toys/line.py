"""A small network trained in two stages, by one process or by several that torchrun started."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab import Check, RunLog, Study


@dataclass(frozen=True)
class Config:
    """How to train; `fault` makes the last process misbehave in the middle."""

    steps: int = 20
    """steps of each stage"""
    batch: int = 5
    """rows of a batch, shared by the processes"""
    pause: float = 0.0
    """seconds to sleep before each step"""
    save_every: float = 1000.0
    """seconds between checkpoints"""
    fault: str = ""
    """what the last of several processes does in the middle of the first stage: `input`, `defect` or `kill`"""

    def __post_init__(self) -> None:
        require(self.batch >= 1, f"batch must be at least 1, got {self.batch}")


def _train(config: Config, seed: int, log: RunLog) -> dict[str, Any]:
    import torch

    from mindworks.core.distributed import joined

    with joined(device="cpu") as workers:
        random = torch.Generator().manual_seed(seed)  # the same in every process: so are the batches it draws
        torch.manual_seed(seed + workers.rank)
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
        model = workers.wrap(network)
        plain = workers.plain(model)
        velocity = [torch.zeros_like(each) for each in model.parameters()]  # an optimiser takes a second to import
        start = 0
        if (state := log.load()) is not None:
            plain.load_state_dict(state["model"])
            velocity = state["velocity"]
            random.set_state(state["random"])
            start = state["step"]
        for step in log.track(range(start, config.steps), "training", metric="loss"):
            time.sleep(config.pause)
            if config.fault and workers.size > 1 and workers.rank == workers.size - 1 and step == config.steps // 2:
                _fail(config.fault)
            x = torch.randn(config.batch, 3, dtype=torch.float64, generator=random)
            mine = x[workers.rows(config.batch)]
            loss_sum = (model(mine) - mine.sum(-1, keepdim=True)).square().sum()
            model.zero_grad()
            workers.mean(loss_sum, len(mine)).backward()
            with torch.no_grad():
                for each, speed in zip(model.parameters(), velocity, strict=True):
                    each -= 0.01 * speed.mul_(0.9).add_(each.grad)
            log.metric(step=step, loss=float(workers.total(loss_sum)) / config.batch)
            if log.due(config.save_every):
                state = {"model": plain.state_dict(), "velocity": velocity, "random": random.get_state()}
                log.save({**state, "step": step + 1}, step + 1)
    return {"weights": torch.nn.utils.parameters_to_vector(plain.parameters()), "rank": workers.rank}


def _fail(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "input":
        raise InputError("rows must be readable, got 13")
    raise RuntimeError("a defect of one process")


def run(config: Config, seeds: list[int], log: RunLog) -> dict[str, Any]:
    """Train twice; the second seed depends on the first stage's `rank`, which must be 0 in every process."""
    first = log.stage("first", lambda log: _train(config, seeds[0], log))
    second = log.stage("second", lambda log: _train(config, seeds[0] + 1 + first["rank"], log))
    return {"first": first["weights"], "second": second["weights"], "rank": second["rank"]}


STUDY = Study(
    name="line",
    paper="arXiv:0000.00004",
    claim="Weights stay small.",
    config=Config,
    run=run,
    check=lambda data: [Check("no weight is large", max(map(abs, data["second"])), "<", 100.0)],
    plot=lambda data, folder: [],
    scales={"smoke": {}, "cpu": {}},
    seeds={"smoke": 1, "cpu": 1},
)
