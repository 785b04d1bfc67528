"""A few learned states tell what any policy is worth: a value function that sees only answers serves all architectures.

Faccio, Ramesh, Herrmann, Harb and Schmidhuber, "General Policy Evaluation and Improvement by Learning to Identify Few
But Crucial States", 2022, arXiv:2207.01566.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from mindworks.errors import require, require_at_least
from mindworks.lab import Check, RunLog, Study, summary

CARTPOLE, PENDULUM, CAR = "CartPole-v1", "InvertedPendulum-v5", "MountainCarContinuous-v0"
STUDENT_SEED = 2 * 10**6  # keeps the streams of students apart from those of training

# What the authors' code uses (2 x 256 policies): one policy per generation, 5 + 5 steps per episode, 200 states.
PUBLISHED: dict[str, Any] = {
    "probes": 200,
    "critic_hidden": (256, 256),
    "sigma": 0.05,
    "lr_policy": 2e-6,
    "lr_critic": 5e-3,
    "critic_steps": 5,
    "policy_steps": 5,
    "recency": 1.1,
    "normalize_returns": False,
}
# Chosen on seeds 100 and up, 2026-11-22; evaluated on seeds 0 and up.
SMALL: dict[str, Any] = {
    "population": 8,
    "sigma": 0.5,
    "lr_critic": 5e-3,
    "critic_hidden": (32, 32),
    "critic_steps": 5,
    "policy_steps": 5,  # more of them saturate the answers
    "recency": 1.1,
}
FEW: dict[str, Any] = {**SMALL, "critic_steps": 10}
DEEP: dict[str, Any] = {  # one of eight that were tried, RAW one of three
    "population": 4,
    "sigma": 0.05,
    "lr_policy": 2e-5,
    "lr_critic": 5e-3,
    "critic_hidden": (32, 32),
    "critic_steps": 5,
    "policy_steps": 5,
    "recency": 1.1,
    "log_returns": True,
}
RAW: dict[str, Any] = {**DEEP, "lr_policy": 3e-4, "lr_critic": 1e-3, "critic_hidden": (64, 64)}
JUDGE: dict[str, Any] = {
    "batch": 32,
    "critic_steps": 1,
    "policy_steps": 0,
    "log_returns": True,
    "normalize_observations": False,
}
JUDGES: dict[str, dict[str, Any]] = {  # of the raw ones, all step sizes that were tried
    "fingerprint": {"probes": 10, "lr_critic": 5e-3, "critic_hidden": (32, 32)},
    "parameters, 1e-3": {"lr_critic": 1e-3},
    "parameters, 1e-4": {"lr_critic": 1e-4},
    "parameters, 1e-5": {"lr_critic": 1e-5},
}


@dataclass(frozen=True)
class Config:
    """Zero-shot learning across architectures, cloning, the value of classifiers, deep policies."""

    steps: int = 60_000
    """environment steps in CartPole-v1 before fresh policies climb the critic"""
    probes: int = 10
    """learned states of that critic"""
    hidden: tuple[int, ...] = (16,)
    """hidden sizes of the policies in CartPole-v1"""
    fresh_policies: int = 16
    """fresh random policies of each architecture that climb the frozen critic"""
    climb_steps: int = 200
    """steps of that climb"""
    clone_steps: int = 50_000
    """environment steps in CartPole-v1 before students copy the policy"""
    clone_probes: int = 3
    """learned states of that critic, in which the students copy it"""
    students: int = 32
    """students per seed and per choice of states"""
    judged: int = 400
    """random 2x256 policies, one episode each in InvertedPendulum-v5, that critics learn from and 100 more to judge"""
    deep_steps: int = 12_000
    """environment steps of 2x256 policies in InvertedPendulum-v5"""
    deep_probes: int = 10
    """learned states of their critic; the critic beside it reads the parameters"""
    car_steps: int = 60_000
    """environment steps of PSVF and PAVF with fingerprints in MountainCarContinuous-v0"""
    classifier_runs: int = 64
    """convolutional networks trained per seed, whose accuracies a critic learns"""
    classifier_rounds: int = 8
    """how often untrained networks climb the unfinished critic and join its data"""
    classifier_steps: int = 1000
    """critic steps before the first round"""
    mnist: str = ""
    """folder with MNIST's four IDX files; empty takes scikit-learn's digits, 8 x 8 pixels"""
    published: bool = False
    """whether the 2x256 policies learn with the published hyperparameters, one policy per generation"""

    def __post_init__(self) -> None:
        counts = set(Config.__dataclass_fields__) - {"hidden", "mnist", "published", "classifier_rounds"}
        require_at_least(self, 1, *sorted(counts))
        require_at_least(self, 0, "classifier_rounds")
        require(all(size >= 1 for size in self.hidden), f"hidden must be positive sizes, got {self.hidden}")


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Every experiment is a stage, so that a run that stopped goes on inside the one it was in."""
    import torch

    from mindworks.envs import make_batch

    make_batch(PENDULUM, 1).close()  # says now, not minutes later, if MuJoCo is missing
    images = load_images(config.mnist)
    torch.set_num_threads(1)  # the matrices are small; a second thread only spins
    return {
        "zero_shot": log.stage("zero_shot", lambda log: zero_shot_learning(config, seeds, log)),
        "clone": log.stage("clone", lambda log: cloning(config, seeds, log)),
        "digits": log.stage("digits", lambda log: classifiers(config, seeds, images)),
        "judging": log.stage("judging", lambda log: judging(config, seeds)),
        "deep": log.stage("deep", lambda log: deep_policies(config, seeds, log, config.deep_probes)),
        "deep_raw": log.stage("deep_raw", lambda log: deep_policies(config, seeds, log, 0)),
        "psvf": log.stage("psvf", lambda log: temporal_difference(config, seeds, log, "psvf")),
        "pavf": log.stage("pavf", lambda log: temporal_difference(config, seeds, log, "pavf")),
    }


def load_images(folder: str) -> Any:
    """The images of the value of classifiers."""
    from mindworks.data import digits, mnist

    require(not folder or Path(folder).is_dir(), f"mnist must be a folder with MNIST's IDX files, got {folder!r}")
    return mnist(folder) if folder else digits()


def learn(learner: Any, log: RunLog, name: str, steps: int, episodes: int) -> dict:
    """Train until every seed has taken `steps`; curves of (steps, mean return) per seed."""
    from mindworks.envs import make_batch
    from mindworks.policies import Training

    seeds = len(learner.streams)
    env = make_batch(name, seeds * learner.config.population)
    evaluation_env = make_batch(name, seeds * episodes)
    training = Training(learner, env, evaluation_env, steps=steps, evaluate_every=max(1, steps // 20))
    log.drive(training, name, steps)
    return {"curves": training.curves, "episodes": learner.episodes}


def policy_for(name: str, hidden: tuple[int, ...]) -> Any:
    """The policy of the given hidden sizes for an environment."""
    from mindworks.envs import make_batch
    from mindworks.policies import Policy

    env = make_batch(name, 1)
    return Policy.for_spaces(env.single_observation_space, env.single_action_space, hidden)


def zero_shot_learning(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Train one architecture, then let fresh policies of it and of another climb the frozen critic."""
    from mindworks.envs import make_batch
    from mindworks.policies import PSSVF, PSSVFConfig, zero_shot

    deep, linear = policy_for(CARTPOLE, config.hidden), policy_for(CARTPOLE, ())
    learner = PSSVF(deep, PSSVFConfig(probes=config.probes, **SMALL), seeds)
    curves = learn(learner, log, CARTPOLE, config.steps, episodes=10)
    env = make_batch(CARTPOLE, len(seeds) * config.fresh_policies * 4)
    climb = partial(zero_shot, learner, env, config.fresh_policies, steps=config.climb_steps, lr=1e-2, within_data=True)
    return {**curves, "deep": climb(policy=deep), "linear": climb(policy=linear)}


def cloning(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Students copy the trained policy in the learned states, in untrained ones, and in ones that it visits."""
    import torch

    from mindworks.envs import make_batch, rollout
    from mindworks.policies import PSSVF, PSSVFConfig, clone, evaluate

    policy, count = policy_for(CARTPOLE, config.hidden), config.clone_probes
    learner = PSSVF(policy, PSSVFConfig(probes=count, **FEW), seeds)
    curves = learn(learner, log, CARTPOLE, config.clone_steps, episodes=10)
    generators = [torch.Generator().manual_seed(seed + STUDENT_SEED) for seed in seeds]
    students = torch.stack([policy.init(config.students, generator=g) for g in generators])
    shape = (config.students, count, policy.network.sizes[0])
    played = rollout(make_batch(CARTPOLE, len(seeds)), learner.actor(learner.theta), learner.streams.seeds)
    seen = torch.from_numpy(learner.norm.normalize(played.observations))
    visits = [
        torch.randint(int(played.lengths[s]), shape[:2], generator=g) for s, g in enumerate(generators)
    ]  # every student of a control has states of its own, so that the mean is not that of one lucky draw
    states = {
        "learned": learner.probes.squeeze(1),
        "untrained": torch.stack([torch.rand(shape, generator=g) for g in generators]),
        "visited": torch.stack([seen[s, visit] for s, visit in enumerate(visits)]),
    }
    env = make_batch(CARTPOLE, len(seeds) * config.students * 4)
    teacher = evaluate(learner, learner.theta, env).mean(1)
    returns = {}
    for name, where in states.items():
        copies = clone(policy, learner.theta, where, policy, students, steps=300, lr=1e-2)
        returns[name] = evaluate(learner, copies, env).mean(1)
    mean, std = (x[:, None] for x in (learner.norm.mean, learner.norm.std))
    return {**curves, "teacher": teacher, "students": returns, "states": states["learned"].numpy() * std + mean}


def classifiers(config: Config, seeds: list[int], images: Any) -> dict:
    """The value of classifiers from their answers to learned images, and untrained networks that climb it."""
    from mindworks.policies.classifiers import ClassifierConfig, value_of_classifiers

    settings = replace(
        ClassifierConfig(),
        runs=config.classifier_runs,
        unseen=max(1, config.classifier_runs * 3 // 8),
        climbers=max(1, config.classifier_runs // 2),
        rounds=config.classifier_rounds,
        critic_steps=config.classifier_steps,
    )
    return value_of_classifiers(images, seeds, settings)


def judging(config: Config, seeds: list[int]) -> dict:
    """Rank correlation of predicted and true return on unseen 2x256 policies, critics of either kind."""
    import torch

    from mindworks.envs import make_batch, rollout
    from mindworks.policies import PSSVF, PSSVFConfig, evaluate
    from mindworks.policies.classifiers import spearman

    policy, count = policy_for(PENDULUM, (256, 256)), config.judged
    correlations: dict[str, list[float]] = {}
    for name, settings in JUDGES.items():
        learner = PSSVF(policy, PSSVFConfig(population=count, **JUDGE, **settings), seeds)
        if not correlations:  # all critics get the same policies and episodes
            known = learner.streams.draw(lambda g: policy.init(count, generator=g))
            unseen = learner.streams.draw(lambda g: policy.init(100, generator=g))
            env = make_batch(PENDULUM, len(seeds) * count)
            episodes = rollout(env, learner.actor(known), learner.episode_seeds())
            returns = evaluate(learner, unseen, make_batch(PENDULUM, len(seeds) * 400))
            true = torch.from_numpy(returns.reshape(len(seeds), 100, 4).mean(2))
        learner.tell(known, episodes)
        correlations[name] = spearman(learner.value(unseen), true)
    return correlations


def deep_policies(config: Config, seeds: list[int], log: RunLog, probes: int) -> dict:
    """Learning curves of 2x256 policies with a fingerprint critic, or with one that reads their parameters."""
    from mindworks.policies import PSSVF, PSSVFConfig

    settings = {**(PUBLISHED if config.published else DEEP if probes else RAW), "probes": probes}
    learner = PSSVF(policy_for(PENDULUM, (256, 256)), PSSVFConfig(**settings), seeds)
    return learn(learner, log, PENDULUM, config.deep_steps, episodes=4)


def temporal_difference(config: Config, seeds: list[int], log: RunLog, method: str) -> dict:
    """Learning curves of PSVF or PAVF with fingerprints, 16 hidden units."""
    from mindworks.policies import PAVF, PSVF, TDConfig

    settings = TDConfig(population=4, batch=128, policy_batch=1000, discount=0.99, probes=config.probes, sigma=0.5)
    learner = (PSVF if method == "psvf" else PAVF)(policy_for(CAR, config.hidden), settings, seeds)
    return learn(learner, log, CAR, config.car_steps, episodes=3)


def final(curves: list) -> list[float]:
    """The last evaluation of every seed."""
    return [curve[-1][1] for curve in curves]


def best(curves: list) -> list[float]:
    """The best evaluation of every seed."""
    return [max(value for _, value in curve) for curve in curves]


def advantages(data: dict, control: str) -> list[float]:
    """Return of students of learned states above those of a control, of every seed whose teacher reaches 400."""
    rows = zip(data["teacher"], data["students"]["learned"], data["students"][control], strict=True)
    return [learned - other for teacher, learned, other in rows if teacher >= 400]


def advantage(data: dict, control: str) -> float:
    """The mean of these advantages; 0 without any."""
    gains = advantages(data, control)
    return mean(gains) if gains else 0.0


def above(ours: list[float], theirs: list[float]) -> list[float]:
    """The difference of every seed."""
    return [x - y for x, y in zip(ours, theirs, strict=True)]


def check(data: dict) -> list[Check]:
    """The sentences of the claim, each with its bar and the pilot the bar comes from."""
    checks = []
    for name, bar in (("deep", 450), ("linear", 400)):  # pilot: 38 and 37 of the 40 seeds 200-239, 2026-11-23
        good = [row["median_after"] >= bar and row["median_before"] <= 50 for row in data["zero_shot"][name]]
        claim = f"Zero-shot, CartPole-v1: share of seeds whose fresh {name} policies reach a median of {bar}"
        checks.append(Check(claim, mean(good), ">=", 0.8, good))
    # pilot: 489 against 362 over seeds 100-115, 15 of 16 teachers above 400, 2026-11-22
    claim = "Cloning from three learned states: mean return above three untrained states"
    each = advantages(data["clone"], "untrained")
    checks.append(Check(claim, advantage(data["clone"], "untrained"), ">=", 80, each))
    return [*checks, *check_digits(data["digits"]), *check_deep(data)]


def check_digits(digits: dict) -> list[Check]:
    """The value of classifiers."""
    after = {name: [mean(row) for row in digits[name]["after"]] for name in ("learned", "frozen", "raw")}
    ranks, ours = digits["learned"]["spearman"], after["learned"]
    checks = [
        # pilot: 0.945 to 0.963 on seeds 100-104, 2026-11-22
        Check("Digits: rank correlation of predicted and true accuracy, worst seed", min(ranks), ">=", 0.9, ranks),
        # pilot: 0.70 to 0.81 from 0.09 to 0.11, mean 0.77, seeds 100-104; random probes 0.27, raw parameters 0.58
        Check("Digits: mean accuracy of untrained networks after climbing the critic", mean(ours), ">=", 0.7, ours),
    ]
    for name, what, bar in (("frozen", "unlearned images", 0.35), ("raw", "the parameters", 0.08)):
        claim, gain = f"Digits: that accuracy above the one from a critic of {what}", mean(ours) - mean(after[name])
        checks.append(Check(claim, gain, ">=", bar, above(ours, after[name])))
    return checks


def check_deep(data: dict) -> list[Check]:
    """Critics of 2x256 policies."""
    deep, raw = (best(data[name]["curves"]) for name in ("deep", "deep_raw"))
    judges = {name: median(rows) for name, rows in data["judging"].items()}
    rival = max((name for name in judges if name != "fingerprint"), key=lambda name: judges[name])
    ours, lead = data["judging"]["fingerprint"], above(data["judging"]["fingerprint"], data["judging"][rival])
    return [
        # pilot: 0.99 on seeds 100 and 101, 0.1 for the parameters, 2026-11-22
        Check(
            "2x256 policies: rank correlation of predicted and true return of unseen ones",
            median(ours),
            ">=",
            0.9,
            ours,
        ),
        Check(
            "2x256 policies: that correlation above the best of a critic of the parameters",
            median(ours) - judges[rival],
            ">=",
            0.5,
            lead,
        ),
        # pilot: best returns 1000, 1000, 432, 1000 on seeds 100-103, 2026-11-22. The second bar was set against a
        # critic of the parameters with the same step size (median 57); its own one brought 1000, 272, 1000, 1000
        Check(f"2x256 policies, {PENDULUM}: median of the best returns, fingerprints", median(deep), ">=", 400, deep),
        Check(
            f"2x256 policies, {PENDULUM}: that median above the one from parameters",
            median(deep) - median(raw),
            ">=",
            200,
            above(deep, raw),
        ),
    ]


def table(data: dict) -> dict:
    """What the record keeps beside the checks: every seed, and statistics over them."""
    curves = {name: data[name]["curves"] for name in TRAINED}
    digits = data["digits"]
    per_critic = {
        name: {
            "rank correlation": digits[name]["spearman"],
            "untrained, after": [mean(row) for row in digits[name]["after"]],
            "weak, after": [mean(row) for row in digits[name]["after_weak"]],
        }
        for name in ("learned", "frozen", "raw")
    }
    return {
        "final return": {name: {**summary(final(rows)), "seeds": final(rows)} for name, rows in curves.items()},
        "best return": {name: {**summary(best(rows)), "seeds": best(rows)} for name, rows in curves.items()},
        "fresh policies on the frozen critic": {name: data["zero_shot"][name] for name in ("deep", "linear")},
        "2x256 policies, rank correlation of the critic": data["judging"],
        "cloning": {"teacher": data["clone"]["teacher"], **data["clone"]["students"]},
        "digits, before": {
            "untrained": [mean(row) for row in digits["before"]],
            "weak": [mean(row) for row in digits["before_weak"]],
        },
        "digits": per_critic,
    }


def plot(data: dict, folder: Path) -> list[Path]:
    """Zero-shot learning, cloning and deep policies in one figure, the learned images in another."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(13, 3.1), layout="constrained")
    bars = axes[0]
    for offset, name in ((-0.2, "deep"), (0.2, "linear")):
        rows = data["zero_shot"][name]
        bars.bar([s + offset for s in range(len(rows))], [row["median_after"] for row in rows], 0.38, label=name)
    bars.plot([row["median_before"] for row in rows], "k_", ms=14, label="before the climb")
    bars.set(xlabel="seed", ylabel="median return", title="Zero-shot, CartPole-v1", ylim=(0, 720))
    bars.legend(fontsize=8, loc="upper right")
    for offset, (name, values) in zip((-0.25, 0, 0.25), data["clone"]["students"].items(), strict=True):
        axes[1].bar([s + offset for s in range(len(values))], values, 0.25, label=f"{name} states")
    axes[1].plot(data["clone"]["teacher"], "k_", ms=18, label="teacher")
    axes[1].set(
        xlabel="seed",
        ylabel="mean return",
        title=f"Students of {len(data['clone']['states'][0])} states",
        ylim=(0, 760),
    )
    axes[1].legend(fontsize=8, loc="upper right")
    for color, (part, label) in enumerate((("deep", "fingerprint"), ("deep_raw", "parameters"))):
        for i, curve in enumerate(data[part]["curves"]):
            axes[2].plot(*zip(*curve, strict=True), f"C{color}", alpha=0.6, lw=1.2, label=None if i else label)
    axes[2].set(xlabel="environment steps", ylabel="return", title=f"2x256 policies, {PENDULUM}", ylim=(0, 1300))
    axes[2].legend(fontsize=8, loc="upper right")
    digits = data["digits"]
    for color, name in enumerate(("learned", "frozen", "raw")):
        for i, path in enumerate(digits[name]["path"]):
            label = {"learned": "learned images", "frozen": "random images", "raw": "parameters"}[name]
            axes[3].plot(digits["path_steps"], path, f"C{color}", alpha=0.6, lw=1.2, label=None if i else label)
    axes[3].set(xlabel="steps of the climb", ylabel="test accuracy", title="Untrained networks, digits", ylim=(0, 1.3))
    axes[3].legend(fontsize=8, loc="upper right")
    figure.savefig(path := folder / "crucial_states.svg")
    plt.close(figure)
    return [path, probing_images(digits, folder)]


def probing_images(digits: dict, folder: Path) -> Path:
    """The images of the first seed, as drawn and as learned."""
    import matplotlib.pyplot as plt

    pairs = [digits["first_probes"][0], digits["probes"][0]]
    figure, axes = plt.subplots(2, len(pairs[0]), figsize=(len(pairs[0]), 2.3), layout="constrained", squeeze=False)
    for row, images, label in zip(axes, pairs, ("as drawn", "learned"), strict=True):
        for ax, image in zip(row, images, strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)  # some learned pixels leave [0, 1]
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(label)
    figure.savefig(path := folder / "crucial_states_images.svg")
    plt.close(figure)
    return path


TRAINED = ("zero_shot", "clone", "deep", "deep_raw", "psvf", "pavf")

STUDY = Study(
    name="crucial_states",
    paper="arXiv:2207.01566",
    title="General Policy Evaluation and Improvement by Learning to Identify Few But Crucial States",
    year=2022,
    claim="a value function that sees a policy's answers in a few learned states judges and improves any architecture",
    bibtex="""@article{faccio2022general,
  title   = {General Policy Evaluation and Improvement by Learning to Identify Few But Crucial States},
  author  = {Faccio, Francesco and Ramesh, Aditya and Herrmann, Vincent and Harb, Jean and Schmidhuber, J{\\"u}rgen},
  journal = {arXiv preprint arXiv:2207.01566},
  year    = {2022}
}""",
    docs="docs/papers/crucial_states.md",
    config=Config,
    run=run,
    check=check,
    plot=plot,
    table=table,
    scales={
        "smoke": {
            "steps": 300,
            "fresh_policies": 2,
            "climb_steps": 3,
            "clone_steps": 300,
            "students": 2,
            "judged": 20,
            "deep_steps": 60,
            "deep_probes": 3,
            "car_steps": 4000,
            "classifier_runs": 2,
            "classifier_rounds": 1,
            "classifier_steps": 5,
        },
        "cpu": {},
        "paper": {
            "deep_steps": 300_000,
            "deep_probes": 200,
            "mnist": "mnist",
            "published": True,
        },
    },
    seeds={"smoke": 1, "cpu": 5, "paper": 20},
)
