"""Highway connections carry the gradient through value iteration networks of hundreds of layers.

Wang, Li, Faccio, Wu and Schmidhuber, "Highway Value Iteration Networks", ICML 2024, arXiv:2406.03485.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from mindworks.errors import require, require_at_least
from mindworks.lab import Check, RunLog, Study, by_seed

if TYPE_CHECKING:
    from mindworks.planning import Mazes
    from mindworks.planning.planner import ValueIterationPlanner

EDGES = (10, 20, 40)  # the path lengths that end a bin
PLAIN, HIGHWAY = "VIN", "highway VIN"
# Fields of HighwayVIN, or of ConnectedVIN where a connection is named, beside those of Config. The VIN, the highway VIN
# and the one that only explores each had a sweep over step sizes 3e-3, 1e-2 and 3e-2 at 100 layers; all came out at the
# last, on seed 100, 2026-11-27. The other rows take that step size as it is.
ABLATIONS: dict[str, dict[str, Any]] = {
    "no exploration": {"explore": False},
    "exploration only": {"epsilon": 1.0},
    "no filter gate": {"filter_gate": False},
    "no aggregate gate": {"aggregate_gate": False},
    "three chains": {"chains": 3},
    "blocks of 20": {"block": 20},
}
CONNECTIONS = ("residual", "dense", "highway")
# With these a planner knows where actions lead and what is worth reaching: it no longer needs help with its gradient.
PRIORS = {"start": "moves", "reward_prior": True}


@dataclass(frozen=True)
class Config:
    """VINs and highway VINs of several depths, trained alike on the same mazes."""

    size: int = 15
    """rows and columns of the mazes"""
    mazes: int = 3000
    """training mazes per seed"""
    validation: int = 200
    """validation mazes per seed"""
    tests: int = 300
    """test mazes per seed"""
    depths: tuple[int, ...] = (60, 100, 200)
    """layers of the planners that are compared"""
    ablation_depth: int = 100
    """layers of the ablations and of the networks with other connections; 0 leaves them out"""
    iterations: int = 300
    """gradient steps of each planner"""
    lr: float = 3e-2
    """step size"""
    chains: int = 1
    """chains of a block"""
    epsilon: float = 0.1
    """share of drawn actions in a chain"""
    block: int = 10
    """layers of a block"""
    gradient_depths: tuple[int, ...] = (20, 40, 100, 200, 400)
    """layers at which gradients are measured before training"""

    def __post_init__(self) -> None:
        require_at_least(self, 5, "size")
        require_at_least(self, 32, "mazes")
        require_at_least(self, 1, "validation", "tests", "iterations", "chains")
        require_at_least(self, 2, "block")
        require_at_least(self, 0, "ablation_depth")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(0 <= self.epsilon <= 1, f"epsilon must be in [0, 1], got {self.epsilon}")
        for name in ("depths", "gradient_depths"):
            depths = getattr(self, name)
            fits = len(depths) > 0 and all(depth >= 1 and depth % self.block == 0 for depth in depths)
            require(fits, f"{name} must be multiples of block {self.block}, got {depths}")
        blocks = (self.block, *(change["block"] for change in ABLATIONS.values() if "block" in change))
        fits = all(self.ablation_depth % block == 0 for block in blocks)
        require(fits, f"ablation_depth must be a multiple of the blocks {blocks}, got {self.ablation_depth}")


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """One seed; every planner is a stage, so that a run that stopped goes on inside the one it was in."""
    import torch

    from mindworks.planning import splits

    torch.set_num_threads(1)
    (seed,) = seeds
    mazes = splits(config.size, (config.mazes, config.validation, config.tests), seed=seed)

    def row(depth: int, name: str, change: dict[str, Any], know: dict[str, Any], log: RunLog) -> dict[str, Any]:
        return trained(config, seed, mazes, depth, name, change, know, log)

    data: dict[str, Any] = {"depths": {}, "ablation": {}, "priors": {}}
    for depth in config.depths:
        data["depths"][str(depth)] = {
            name: log.stage(f"{kind}-{depth}", partial(row, depth, name, {}, {}))
            for kind, name in {"vin": PLAIN, "highway": HIGHWAY}.items()
        }
    if config.ablation_depth:
        variants = {**ABLATIONS, **{f"{name} connections": {"connection": name} for name in CONNECTIONS}}
        data["ablation"] = {
            name: log.stage(f"ablation-{i}", partial(row, config.ablation_depth, name, change, {}))
            for i, (name, change) in enumerate(variants.items())
        }
        data["priors"] = {
            name: log.stage(f"priors-{kind}", partial(row, config.ablation_depth, name, {}, PRIORS))
            for kind, name in {"vin": PLAIN, "highway": HIGHWAY}.items()
        }
    data["gradients"] = log.stage("gradients", lambda log: gradients(config, seed, mazes[0][:8]))
    return data


def planner_of(
    config: Config, seed: int, depth: int, name: str, change: dict[str, Any], know: dict[str, Any]
) -> ValueIterationPlanner:
    """A VIN for its name, another connection where one is named, else a highway VIN."""
    import torch

    from mindworks.planning import VIN, ConnectedVIN, HighwayVIN, VINConfig

    start, knows = torch.Generator().manual_seed(seed), VINConfig(**know)
    if name == PLAIN:
        return VIN("news", depth, knows, generator=start)
    if "connection" in change:
        return ConnectedVIN("news", depth, knows, block=config.block, generator=start, **change)
    settings = {"block": config.block, "chains": config.chains, "epsilon": config.epsilon, **change}
    return HighwayVIN("news", depth, knows, generator=start, **settings)


def trained(
    config: Config,
    seed: int,
    mazes: tuple[Mazes, ...],
    depth: int,
    name: str,
    change: dict[str, Any],
    know: dict[str, Any],
    log: RunLog,
) -> dict[str, Any]:
    """Success in percent on the test mazes, in all and by path length, of the planner that validation chose."""
    from mindworks.planning import Training, TrainingConfig, score

    lr = config.lr / 3 if know else config.lr  # planners that know more want smaller steps
    settings = TrainingConfig(iterations=config.iterations, lr=lr, loss="last", validate_every=50)
    planner = planner_of(config, seed, depth, name, change, know)
    job = Training(planner, mazes[0], settings, validation=mazes[1], seed=seed)
    log.drive(job, f"{name}, {depth} layers", settings.iterations)
    found = score(job.finish(), mazes[2])
    return {
        "success": 100 * found.success_rate,
        **{label(row): rate(row) for row in found.by_path_length(EDGES)},
        "loss": job.history[-1][1],
    }


def rate(row: dict[str, Any]) -> float | None:
    """Success in percent; None in an empty bin."""
    return None if row["success"] is None else 100 * row["success"]


def label(row: dict[str, Any]) -> str:
    """A bin of path lengths in words."""
    return f"{row['low']}+" if row["high"] is None else f"{row['low']}-{row['high']}"


def gradients(config: Config, seed: int, mazes: Mazes) -> dict[str, Any]:
    """Norm of the loss's gradient at the values that enter the first layer, before training, by planner and depth.

    In float64: in float32, where planners learn, the gradient of hundreds of layers is less than the least number.
    """
    import torch

    from mindworks.planning import planning_loss

    def norm(name: str, change: dict[str, Any], depth: int) -> float:
        planner = planner_of(config, seed, depth, name, change, {}).double()
        latent = planner.model(mazes.inputs().double())
        start = torch.zeros(latent.shape, dtype=torch.float64, requires_grad=True)
        values = planner.iterate(latent, depth, initial=start, generator=torch.Generator().manual_seed(seed))
        target = mazes.target().double()
        loss = planning_loss(planner.read(latent, values), target, mazes.distances, [depth], "last")
        (gradient,) = torch.autograd.grad(loss, start)
        return float(gradient.norm())

    rows: dict[str, dict[str, Any]] = {PLAIN: {}, HIGHWAY: {}, "no aggregate gate": {"aggregate_gate": False}}
    rows |= {f"{name} connections": {"connection": name} for name in ("residual", "highway")}
    return {
        name: {str(depth): norm(name, change, depth) for depth in config.gradient_depths}
        for name, change in rows.items()
    }


def check(data: dict) -> list[Check]:
    """The sentences of the claim, each with its bar and the pilot the bar comes from."""
    deepest = max(data["gradients"][HIGHWAY], key=int)
    flow = [
        ours / max(plain, 1e-300)
        for ours, plain in zip(data["gradients"][HIGHWAY][deepest], data["gradients"][PLAIN][deepest], strict=True)
    ]
    worst = min(flow) if all(map(math.isfinite, flow)) else math.nan
    checks = [
        # pilot, 2026-11-27, seed 100: 1e97
        Check(f"gradient at the first of {deepest} layers, over that of a VIN, worst seed", worst, ">=", 1e3, flow),
    ]
    for depth, rows in data["depths"].items():
        if int(depth) >= 100:
            pairs = zip(rows[HIGHWAY]["success"], rows[PLAIN]["success"], strict=True)
            gains = [ours - plain for ours, plain in pairs]
            # pilot, seeds 100 and 101 with 100 layers: 5 and 12
            checks.append(
                Check(f"{depth} layers: median lead over a VIN in success, points", median(gains), ">=", 10, gains)
            )
    return checks


def table(data: dict) -> dict:
    """What the record keeps beside the checks: every seed."""
    tables: dict[str, Any] = {
        "success by depth, percent": {
            f"{name}, {depth} layers": rows[name] for depth, rows in data["depths"].items() for name in rows
        },
        "gradient at the first layer before training": {
            name: {f"{depth} layers": norms for depth, norms in rows.items()}
            for name, rows in data["gradients"].items()
        },
    }
    if data["ablation"]:
        tables["parts and other connections, percent"] = data["ablation"]
        tables["planners with priors, percent"] = data["priors"]
    return tables


def plot(data: dict, folder: Path) -> list[Path]:
    """Gradients by depth before training, and success by depth after it."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for i, (name, rows) in enumerate(data["gradients"].items()):
        shown = [max(median(norms), 1e-300) for norms in rows.values()]
        axes[0].loglog([int(depth) for depth in rows], shown, f"C{i}o-", ms=3, label=name)
    axes[0].set(xlabel="layers", ylabel="norm of the gradient at the first layer", title="before training")
    depths = [int(depth) for depth in data["depths"]]
    for i, name in enumerate((PLAIN, HIGHWAY)):
        for values in zip(*(rows[name]["success"] for rows in data["depths"].values()), strict=True):
            axes[1].plot(depths, values, f"C{i}o-", ms=3, lw=0.8, alpha=0.6)
        axes[1].plot([], [], f"C{i}o-", ms=3, label=name)
    axes[1].set(xlabel="layers", ylabel="success, percent", title="after training, every seed", ylim=(0, 100))
    axes[0].set_xticks([int(depth) for depth in data["gradients"][PLAIN]], list(data["gradients"][PLAIN]))
    axes[0].set_xticks([], minor=True)
    for ax in axes:
        ax.legend(fontsize=7, frameon=False)
    figure.savefig(path := folder / "highway_vin.svg")
    plt.close(figure)
    return [path]


STUDY = Study(
    name="highway_vin",
    paper="arXiv:2406.03485",
    title="Highway Value Iteration Networks",
    year=2024,
    claim="gates between the layers of a value iteration network let it train, and plan, hundreds of layers deep",
    bibtex="""@inproceedings{wang2024highway,
  title     = {Highway Value Iteration Networks},
  author    = {Wang, Yuhui and Li, Weida and Faccio, Francesco and Wu, Qingyuan and Schmidhuber, J{\\"u}rgen},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  eprint    = {2406.03485},
  archivePrefix = {arXiv}
}""",
    docs="docs/papers/highway_vin.md",
    config=Config,
    run=run,
    combine=by_seed,
    check=check,
    plot=plot,
    table=table,
    scales={
        "smoke": {
            "size": 9,
            "mazes": 64,
            "validation": 16,
            "tests": 16,
            "depths": (20, 100),
            "ablation_depth": 20,
            "iterations": 2,
            "gradient_depths": (10, 20),
        },
        "cpu": {},
        "paper": {
            "size": 25,
            "mazes": 25_000,
            "validation": 5000,
            "tests": 5000,
            "depths": (60, 100, 200, 300),
            "iterations": 23_000,
            "lr": 1e-2,
            "chains": 3,
            "block": 10,
        },
    },
    seeds={"smoke": 1, "cpu": 3, "paper": 3},
)
