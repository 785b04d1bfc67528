"""A value function that takes the policy's parameters as input finds good policies, even from starts it never saw.

Faccio, Kirsch and Schmidhuber, "Parameter-Based Value Functions", ICLR 2021, arXiv:2006.09226.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mindworks.errors import require, require_at_least
from mindworks.lab import Check, RunLog, Study, summary

CARTPOLE, PENDULUM, SWIMMER = "CartPole-v1", "InvertedPendulum-v5", "Swimmer-v5"
CAR, HOPPER, LQR = "MountainCarContinuous-v0", "Hopper-v5", "LQR-v0"
LIMITS: dict[str, Any] = {"action_limit": 1.0, "state_limit": 2.0}  # of the LQR, so that no policy runs away

# What the authors' code uses: one policy per generation, 10 + 10 steps per episode, sigma 1, Adam 1e-3, plain returns.
PUBLISHED: dict[str, Any] = {"normalize_returns": False, "policy_capacity": 100_000}
# Chosen on seeds 100 and up, 2026-11-22; evaluated on seeds 0 and up.
TUNED: dict[str, dict[str, Any]] = {
    LQR: {"population": 8, "normalize_observations": False},
    CARTPOLE: {"population": 8, "lr_policy": 3e-3, "critic_steps": 20, "batch": 32, "critic_hidden": (128, 128)},
    SWIMMER: {"population": 2, "sigma": 0.5, "lr_policy": 3e-3, "critic_steps": 40, "batch": 64, "ensemble": 4},
    CAR: {"population": 8},
    HOPPER: {"population": 8, "survival_bonus": 1.0},
}
FROM_RANDOM: dict[str, Any] = {  # two critic steps per policy, none for the policy
    "ensemble": 10,
    "log_returns": True,
    "lr_critic": 3e-3,
    "batch": 64,
    "critic_steps": 2,
    "policy_steps": 0,
    "normalize_observations": False,
}


@dataclass(frozen=True)
class Config:
    """Exact gradients, a picture of V(theta), online learning in four tasks, and zero-shot learning."""

    mdps: int = 16
    """random finite MDPs per seed whose policy gradients are compared with closed forms"""
    hidden: tuple[int, ...] = ()
    """hidden sizes of the tanh policies, empty for linear ones (in the LQR the policy is always linear)"""
    published: bool = False
    """whether online learning uses the published hyperparameters (PSSVF) and one policy per generation (all three)"""
    lqr_steps: int = 20_000
    """environment steps in the LQR"""
    cartpole_steps: int = 10_000
    """environment steps in CartPole-v1"""
    swimmer_steps: int = 120_000
    """environment steps in Swimmer-v5"""
    car_steps: int = 60_000
    """environment steps of PSVF and of PAVF in MountainCarContinuous-v0"""
    car_pssvf_steps: int = 20_000
    """environment steps of the PSSVF there, before fresh policies climb its critic"""
    hopper_steps: int = 0
    """environment steps in Hopper-v5, trained without its survival bonus; 0 leaves it out"""
    random_policies: int = 1000
    """random policies, one episode each in InvertedPendulum-v5: all that zero-shot learning is trained on"""
    fresh_policies: int = 16
    """fresh random policies that climb the frozen critic"""
    climb_steps: int = 80
    """steps of that climb in zero-shot learning"""
    policy_batch: int = 1000
    """states per policy step of PSVF and PAVF"""

    def __post_init__(self) -> None:
        counts = set(Config.__dataclass_fields__) - {"hidden", "published", "hopper_steps", "random_policies"}
        require_at_least(self, 1, *sorted(counts))
        require_at_least(self, 2, "random_policies")
        require_at_least(self, 0, "hopper_steps")
        require(all(size >= 1 for size in self.hidden), f"hidden must be positive sizes, got {self.hidden}")


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Every experiment is a stage, so that a run that stopped goes on inside the one it was in."""
    import torch

    from mindworks.envs import make_batch
    from mindworks.policies.exact import largest_errors

    make_batch(PENDULUM, 1).close()  # says now, not minutes later, if MuJoCo is missing
    torch.set_num_threads(1)  # the matrices are small; a second thread only spins
    data = {
        "exact": log.stage("exact", lambda log: largest_errors(config.mdps, seeds)),
        "lqr": log.stage("lqr", lambda log: lqr(config, seeds, log)),
        "cartpole": log.stage("cartpole", lambda log: pssvf(config, seeds, log, CARTPOLE, config.cartpole_steps)),
        "reference": log.stage(
            "reference", lambda log: pssvf(config, seeds, log, CARTPOLE, config.cartpole_steps, True)
        ),
        "zero_shot": log.stage("zero_shot", lambda log: from_random_policies(config, seeds)),
        "swimmer": log.stage("swimmer", lambda log: pssvf(config, seeds, log, SWIMMER, config.swimmer_steps)),
        "car": log.stage("car", lambda log: pssvf(config, seeds, log, CAR, config.car_pssvf_steps)),
        "psvf": log.stage("psvf", lambda log: temporal_difference(config, seeds, log, "psvf")),
        "pavf": log.stage("pavf", lambda log: temporal_difference(config, seeds, log, "pavf")),
    }
    if config.hopper_steps:
        data["hopper"] = log.stage("hopper", lambda log: pssvf(config, seeds, log, HOPPER, config.hopper_steps))
    return data


def learn(learner: Any, log: RunLog, name: str, steps: int, evaluations: int, episodes: int, **options: Any) -> dict:
    """Train until every seed has taken `steps`; curves of (steps, mean return) per seed."""
    from mindworks.envs import make_batch
    from mindworks.policies import Training

    seeds = len(learner.streams)
    env = make_batch(name, seeds * learner.config.population, **options)
    evaluation_env = make_batch(name, seeds * episodes, **options)
    training = Training(learner, env, evaluation_env, steps=steps, evaluate_every=max(1, steps // evaluations))
    log.drive(training, name, steps)
    return {"curves": training.curves, "episodes": learner.episodes}


def pssvf(config: Config, seeds: list[int], log: RunLog, name: str, steps: int, published: bool = False) -> dict:
    """Learning curves of the PSSVF, then the returns of fresh random policies that climbed its final critic."""
    from mindworks.envs import make_batch
    from mindworks.policies import PSSVF, Policy, PSSVFConfig, zero_shot

    env = make_batch(name, 1)
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space, config.hidden)
    original: dict[str, Any] = {**PUBLISHED, "survival_bonus": float(name == HOPPER)}
    settings = original if published or config.published else TUNED[name]
    learner = PSSVF(policy, PSSVFConfig(**settings), seeds)
    episodes = 10 if name == CARTPOLE else 2
    curves = learn(learner, log, name, steps, evaluations=20, episodes=episodes)
    fresh = make_batch(name, len(seeds) * config.fresh_policies * 2)
    return {**curves, "fresh": zero_shot(learner, fresh, config.fresh_policies, steps=100, lr=1e-2)}


def from_random_policies(config: Config, seeds: list[int]) -> dict:
    """Climb a critic that knows one episode each of random policies and nothing else; then too far, then one critic."""
    import torch

    from mindworks.envs import make_batch, rollout
    from mindworks.policies import PSSVF, Policy, PSSVFConfig, zero_shot

    env = make_batch(PENDULUM, len(seeds) * config.random_policies)
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space)
    learner = PSSVF(policy, PSSVFConfig(population=config.random_policies, **FROM_RANDOM), seeds)
    shape = (config.random_policies, policy.num_parameters)
    theta = 0.3 * learner.streams.draw(lambda generator: torch.randn(shape, generator=generator))
    episodes = rollout(env, learner.actor(theta), learner.episode_seeds())
    plain = {**FROM_RANDOM, "ensemble": 1, "log_returns": False}
    single = PSSVF(policy, PSSVFConfig(population=config.random_policies, **plain), seeds)
    for one in (learner, single):
        one.tell(theta, episodes)
    fresh = make_batch(PENDULUM, len(seeds) * config.fresh_policies * 2)
    climbs = {
        "zero_shot": (learner, config.climb_steps),
        "zero_shot, climb 2.5 times as long": (learner, config.climb_steps * 5 // 2),
        "zero_shot, one critic of plain returns": (single, config.climb_steps),
    }
    return {name: zero_shot(one, fresh, config.fresh_policies, steps=n, lr=1e-2) for name, (one, n) in climbs.items()}


def lqr(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Learned V(theta) beside the true J(theta) on a grid of gains and biases."""
    import numpy as np
    import torch
    from scipy.stats import pearsonr

    from mindworks.envs import make_batch, rollout
    from mindworks.policies import PSSVF, Policy, PSSVFConfig

    env = make_batch(LQR, 1, **LIMITS)
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space)
    settings = {**PUBLISHED, "normalize_observations": False} if config.published else TUNED[LQR]
    learner = PSSVF(policy, PSSVFConfig(**settings), seeds)
    curves = learn(learner, log, LQR, config.lqr_steps, evaluations=10, episodes=10, **LIMITS)
    axis = torch.linspace(-2, 2, 41)
    grid = torch.cartesian_prod(axis, axis)
    nodes, weights = np.polynomial.hermite_e.hermegauss(32)  # only the start state is random: N(0, 1)
    true = np.zeros(len(grid))
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        starts = make_batch(LQR, len(grid), initial_mean=node, initial_std=0.0, **LIMITS)
        true += weight * rollout(starts, policy.actor(grid), range(len(grid)), record=False).returns
    learned = learner.value(grid.expand(len(seeds), -1, -1)).numpy()
    correlation = [float(pearsonr(row, true).statistic) for row in learned]
    picture = {"axis": axis, "true": true.reshape(41, 41), "learned": learned[0].reshape(41, 41)}
    return {**curves, **picture, "correlation": correlation, "theta": learner.theta}


def temporal_difference(config: Config, seeds: list[int], log: RunLog, method: str) -> dict:
    """Learning curves of PSVF or PAVF in MountainCarContinuous-v0."""
    from mindworks.envs import make_batch
    from mindworks.policies import PAVF, PSVF, Policy, TDConfig

    env = make_batch(CAR, 1)
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space, config.hidden)
    population = 1 if config.published else 4
    settings = TDConfig(population=population, batch=128, policy_batch=config.policy_batch, discount=0.99)
    learner = (PSVF if method == "psvf" else PAVF)(policy, settings, seeds)
    return learn(learner, log, CAR, config.car_steps, evaluations=20, episodes=3)


def best(curve: list, within: int) -> float:
    """The best evaluation of one seed's curve at no more than `within` steps; 0 before the first one."""
    return max((value for step, value in curve if step <= within), default=0.0)


def final(curves: list) -> list[float]:
    """The last evaluation of every seed."""
    return [curve[-1][1] for curve in curves]


def check(data: dict) -> list[Check]:
    """The sentences of the claim, each with its bar and the pilot the bar comes from."""
    beaten = [row["after"] > row["best_in_data"] for row in data["zero_shot"]["zero_shot"]]
    cartpole = [best(curve, 10_000) >= 475 for curve in data["cartpole"]["curves"]]
    swimmer = [best(curve, 120_000) for curve in data["swimmer"]["curves"]]
    checks = [
        Check(f"{name} gradient equals the closed form on finite MDPs (largest difference)", error, "<=", 1e-9)
        for name, error in data["exact"].items()  # pilot: 2.5e-14 at most, 2026-11-22
    ]
    return [
        *checks,
        # pilot: 0.994 to 0.999 on seeds 100-104, 2026-11-22
        Check(
            "LQR: correlation of V(theta) with the true J(theta), worst seed",
            min(data["lqr"]["correlation"]),
            ">=",
            0.98,
            data["lqr"]["correlation"],
        ),
        # pilot: 29 of the 32 seeds 300-331, the best of sixteen settings, which had 16 to 29; 2026-11-22
        Check(
            "CartPole-v1: share of seeds that reach 475 within 10,000 steps",
            sum(cartpole) / len(cartpole),
            ">=",
            0.8,
            cartpole,
        ),
        # pilot: 10 of seeds 100-109 after 75 steps, 9 after 100, 2026-11-22
        Check(
            "Zero-shot, InvertedPendulum-v5: share of seeds whose fresh policies beat all data",
            sum(beaten) / len(beaten),
            ">=",
            0.8,
            beaten,
        ),
        # pilot: median 257 over seeds 100-107, 6 of 8 above 200; three variants had 4 to 10 of 16, 2026-11-22
        Check(
            "Swimmer-v5: median over seeds of the best return within 120,000 steps", median(swimmer), ">=", 200, swimmer
        ),
        # pilot: 91 to 94 on seeds 100-102 for both, 2026-11-22
        *(
            Check(
                f"{name}, MountainCarContinuous-v0: median final return",
                median(final(data[name.lower()]["curves"])),
                ">=",
                90,
                final(data[name.lower()]["curves"]),
            )
            for name in ("PSVF", "PAVF")
        ),
    ]


def table(data: dict) -> dict:
    """What the record keeps beside the checks: every seed, and statistics over them."""
    curves = {name: data[name]["curves"] for name in TRAINED if name in data}
    fresh = {name: data[name]["fresh"] for name in TRAINED if "fresh" in data.get(name, {})}
    fresh |= data["zero_shot"]
    return {
        "final return": {name: {**summary(final(rows)), "seeds": final(rows)} for name, rows in curves.items()},
        "best return": {
            name: {**summary(top), "seeds": top}
            for name, rows in curves.items()
            for top in [[best(curve, 10**12) for curve in rows]]
        },
        "fresh policies on the frozen critic": fresh,
        "LQR correlation": data["lqr"]["correlation"],
    }


def plot(data: dict, folder: Path) -> list[Path]:
    """One figure: the LQR's landscape true and learned, zero-shot learning, and the learning curves."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 6.2), layout="constrained")
    lqr = data["lqr"]
    for ax, key, title in zip(
        axes[0], ("true", "learned"), ("LQR: true J(θ)", "LQR: learned V(θ), first seed"), strict=False
    ):
        image = ax.contourf(lqr["axis"], lqr["axis"], list(zip(*lqr[key], strict=True)), levels=24)
        ax.set(xlabel="gain", ylabel="bias", title=title)
        figure.colorbar(image, ax=ax)
    bars, rows = axes[0][2], data["zero_shot"]["zero_shot"]
    for offset, key, label in (
        (-0.25, "before", "fresh"),
        (0, "best_in_data", "best in data"),
        (0.25, "after", "after the climb"),
    ):
        bars.bar([s + offset for s in range(len(rows))], [row[key] for row in rows], 0.25, label=label)
    bars.set(xlabel="seed", ylabel="return", title="Zero-shot, inverted pendulum")
    bars.legend(frameon=False)
    panels = {
        "CartPole-v1": ("cartpole", "reference"),
        "Swimmer-v5": ("swimmer",),
        "MountainCarContinuous-v0": ("car", "psvf", "pavf"),
    }
    for ax, (name, parts) in zip(axes[1], panels.items(), strict=True):
        for color, part in enumerate(parts):
            for i, curve in enumerate(data[part]["curves"]):
                steps, values = zip(*curve, strict=True)
                ax.plot(steps, values, f"C{color}", alpha=0.6, lw=1.2, label=None if i else LABELS[part])
        ax.set(xlabel="environment steps", ylabel="return", title=name)
        ax.legend(fontsize=8, framealpha=0.8, edgecolor="none")
    figure.savefig(path := folder / "pbvf.svg")
    plt.close(figure)
    return [path]


LABELS = {
    "cartpole": "PSSVF",
    "reference": "PSSVF, published settings",
    "swimmer": "PSSVF",
    "car": "PSSVF",
    "psvf": "PSVF",
    "pavf": "PAVF",
}
TRAINED = (*LABELS, "hopper")

STUDY = Study(
    name="pbvf",
    paper="arXiv:2006.09226",
    title="Parameter-Based Value Functions",
    year=2021,
    claim="value functions of the policy's parameters train policies off-policy and improve new ones without acting",
    bibtex="""@inproceedings{faccio2021parameter,
  title     = {Parameter-Based Value Functions},
  author    = {Faccio, Francesco and Kirsch, Louis and Schmidhuber, J{\\"u}rgen},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  eprint    = {2006.09226},
  archivePrefix = {arXiv}
}""",
    docs="docs/papers/pbvf.md",
    config=Config,
    run=run,
    check=check,
    plot=plot,
    table=table,
    scales={
        "smoke": {
            "mdps": 2,
            "lqr_steps": 800,
            "cartpole_steps": 300,
            "swimmer_steps": 2000,
            "car_steps": 4000,
            "car_pssvf_steps": 1000,
            "random_policies": 50,
            "fresh_policies": 2,
            "policy_batch": 50,
        },
        "cpu": {},
        "paper": {
            "hidden": (64, 64),
            "published": True,
            "cartpole_steps": 100_000,
            "swimmer_steps": 1_000_000,
            "car_steps": 100_000,
            "car_pssvf_steps": 100_000,
            "hopper_steps": 1_000_000,
            "policy_batch": 10_000,
        },
    },
    seeds={"smoke": 1, "cpu": 5, "paper": 20},
)
