"""A random walk in two stages, with all seeds as one batch; pure Python, so that a process costs little."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from mindworks.errors import require
from mindworks.lab import Check, RunLog, Study


@dataclass(frozen=True)
class Config:
    """A walk with drift."""

    steps: int = 60
    """steps of each stage"""
    drift: float = 0.5
    """mean of a step, in [0, 1)"""
    pause: float = 0.0
    """seconds to sleep before each step"""
    save_every: float = 1000.0
    """seconds between checkpoints"""
    start_points: tuple[float, ...] = (0.0,)
    """where the walks begin, in metres"""
    mirrored: bool = False
    """walk the other way"""
    bar: float = 0.0
    """the end of the walk must lie above"""

    def __post_init__(self) -> None:
        require(0 <= self.drift < 1, f"drift must be in [0, 1), got {self.drift}")


def _walk(config: Config, seeds: list[int], log: RunLog) -> dict:
    state = log.load()
    generators = [random.Random(seed) for seed in seeds]
    if state is None:
        state = {"step": 0, "place": [config.start_points[0]] * len(seeds), "random": []}
    for generator, stored in zip(generators, state["random"], strict=False):
        generator.setstate(stored)
    place = list(state["place"])
    for step in log.track(range(state["step"], config.steps), "walk", metric="mean"):
        time.sleep(config.pause)
        moves = [generator.gauss(config.drift, 1.0) for generator in generators]
        place = [x + (-move if config.mirrored else move) for x, move in zip(place, moves, strict=True)]
        log.metric(step=step, mean=sum(place) / len(place))
        if log.due(config.save_every):
            log.save({"step": step + 1, "place": place, "random": [g.getstate() for g in generators]}, step + 1)
    return {"place": tuple(place)}


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Walk out, then walk back from there."""
    log.metric(begin=True)
    out = log.stage("out", lambda log: _walk(config, seeds, log))
    log.metric(between=True)
    back = log.stage("back", lambda log: _walk(config, seeds, log))
    log.metric(end=True)
    return {"out": out["place"], "back": back["place"]}


def check(data: dict) -> list[Check]:
    """The walk drifts upwards."""
    return [
        Check("the walk ends above where it began, however long the sentence that says so may be", mean(data), ">", 0)
    ]


def mean(data: dict) -> float:
    """Mean final place."""
    return sum(data["out"]) / len(data["out"])


def plot(data: dict, folder: Path) -> list[Path]:
    """A figure by hand."""
    (folder / "walk.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return [folder / "walk.svg"]


STUDY = Study(
    name="walk",
    paper="arXiv:0000.00001",
    title="Walks",
    year=2001,
    claim="A walk with drift goes up.",
    bibtex="@article{walk, title={Walks}}",
    docs="docs/papers/walk.md",
    config=Config,
    run=run,
    check=check,
    plot=plot,
    table=lambda data: {"places": data["out"]},
    scales={"smoke": {"steps": 20}, "cpu": {}, "paper": {"steps": 1000}},
    seeds={"smoke": 1, "cpu": 3, "paper": 20},
)
