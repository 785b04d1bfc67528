"""A swarm of agents learns which edges between them to keep, and each agent learns what its prompt should show.

Zhuge, Wang, Kirsch, Faccio, Khizbullin and Schmidhuber, "Language Agents as Optimizable Graphs", ICML 2024,
arXiv:2402.16823. Without a model the members are simulated: voters of known ability, and a nearest-neighbour learner
that reads the demonstrations in its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from statistics import mean, median
from typing import Any

from mindworks.errors import require, require_at_least
from mindworks.lab import Check, RunLog, Study

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"tasks": 4, "graphs": 1, "lr": 0.1, "baseline": "none"},
    "moving average": {"tasks": 4, "graphs": 1, "lr": 0.1, "baseline": "moving_average"},
    "leave one out": {"tasks": 4, "graphs": 1, "lr": 0.1, "baseline": "leave_one_out"},
    "shared calls": {"tasks": 4, "graphs": 16, "lr": 0.4, "baseline": "leave_one_out"},
    "shared calls, ranked": {"tasks": 4, "graphs": 16, "lr": 0.4, "baseline": "leave_one_out", "order": "ranked"},
}
OURS = "shared calls"
LABELS = ("0", "1", "4", "7")  # digits that the learner of the nodes tells apart
INSTRUCTION = "The task is an image of 8 x 8 pixels, row by row, each from 0 to 16. Which digit is it?"


@dataclass(frozen=True)
class Config:
    """Edges among adversaries, edges that carry messages, demonstrations of nodes; or edges of a real model's swarm."""

    truthful: int = 3
    """truthful agents"""
    adversaries: int = 3
    """agents that tell one common lie"""
    questions: int = 285
    """questions to learn from"""
    held_out: int = 2000
    """questions on which simulated swarms are measured"""
    paper_steps: int = 200
    """steps of the settings with one graph per question"""
    steps: int = 50
    """steps of the settings with graphs that share calls, at least 15"""
    message_steps: int = 200
    """steps where edges carry messages"""
    message_graphs: int = 64
    """graphs of each question where edges carry messages"""
    node_tasks: int = 160
    """tasks that a node works through while it improves its prompt"""
    adversarial_seeds: int = 10
    """how many seeds, the first ones, run among adversaries"""
    message_seeds: int = 5
    """how many seeds, the first ones, run with edges that carry messages"""
    model_seeds: int = 1
    """how many seeds, the first ones, run with a model"""
    model: str = ""
    """name of a language model; with it a swarm of this model learns its edges, and nothing is simulated"""
    base_url: str = ""
    """address of an OpenAI-compatible endpoint; empty: that of OpenAI"""
    tasks: str = ""
    """tasks for the model: JSON lines with question, answer and perhaps options, or MMLU's CSV file or folder"""
    cache: str = ""
    """SQLite file that keeps the model's answers; empty: none"""
    held_out_share: float = 0.35
    """share of the tasks, the last ones, on which the model's swarm is measured"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "truthful", "adversaries", "paper_steps", "message_steps", "held_out")
        require_at_least(self, 1, "adversarial_seeds", "message_seeds", "model_seeds")
        require_at_least(self, 4, "questions", "node_tasks")
        require_at_least(self, 15, "steps")
        require_at_least(self, 2, "message_graphs")
        require(0 < self.held_out_share < 1, f"held_out_share must be in (0, 1), got {self.held_out_share}")
        given = "neither" if not self.model else f"--model {self.model}"
        together = bool(self.model) == bool(self.tasks)
        require(together, f"model and tasks must be given together, got {given} and --tasks {self.tasks!r}")


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Every part is a stage; with a model every seed is one."""
    if config.model:
        return {"model": with_a_model(config, seeds, log)}
    return {
        "adversarial": log.stage("adversarial", lambda log: among_adversaries(config, seeds, log)),
        "messages": log.stage("messages", lambda log: with_messages(config, seeds, log)),
        "nodes": log.stage("nodes", lambda log: of_nodes(config, seeds, log)),
    }


def among_adversaries(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Each variant from the same voters, who do not hear each other: adversaries have to be kept from the vote."""
    from numpy.random import default_rng

    from mindworks.agents.edge_optimizer import EdgeSettings
    from mindworks.agents.voters import simulated_voters

    rows: dict[str, list[dict]] = {name: [] for name in VARIANTS}
    for seed in log.track(seeds[: config.adversarial_seeds], "adversaries"):
        members: dict[str, Any] = {"truthful": config.truthful, "adversaries": config.adversaries}
        train = simulated_voters(config.questions, default_rng([seed, 0]), **members)
        test = simulated_voters(config.held_out, default_rng([seed, 1]), **members)
        for name, settings in VARIANTS.items():
            steps = config.steps if settings["graphs"] > 1 else config.paper_steps
            found = learned(train, test, EdgeSettings(**settings), steps, seed, config.truthful)
            rows[name].append(found)
            for step, accuracy in enumerate(found["curve"], 1):
                log.metric(seed=seed, variant=name, step=step, accuracy=accuracy)
    return {name: gathered(found) for name, found in rows.items()}


def with_messages(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Truthful voters who know little, independently, and go by what they hear: edges between voters matter too."""
    from numpy.random import default_rng

    from mindworks.agents.edge_optimizer import EdgeSettings
    from mindworks.agents.voters import simulated_voters

    variants = {
        "paper": (EdgeSettings(**VARIANTS["paper"]), config.paper_steps),
        OURS: (EdgeSettings(tasks=4, graphs=config.message_graphs, lr=0.2), config.message_steps),
    }
    rows: dict[str, list[dict]] = {name: [] for name in variants}
    for seed in log.track(seeds[: config.message_seeds], "messages"):
        members: dict[str, Any] = {"truthful": config.truthful, "adversaries": config.adversaries, "hear": True}
        members |= {"know": 0.55, "lucky": 0.0, "alike": False}
        train = simulated_voters(config.questions, default_rng([seed, 2]), **members)
        test = simulated_voters(config.held_out, default_rng([seed, 3]), **members)
        for name, (settings, steps) in variants.items():
            found = learned(train, test, settings, steps, seed, config.truthful, every=10)
            rows[name].append(found)
            for step, accuracy in enumerate(found["curve"], 1):
                log.metric(seed=seed, variant=name, step=10 * step, accuracy=accuracy)
    return {name: gathered(found) for name, found in rows.items()}


def gathered(rows: list[dict]) -> dict:
    """A list over the seeds for each key, and the mean curve."""
    found: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0] if key != "curve"}
    return found | {"curve": [mean(values) for values in zip(*(row["curve"] for row in rows), strict=True)]}


def learned(
    train: Any, test: Any, settings: Any, steps: int, seed: int, truthful: int, every: int = 1
) -> dict[str, Any]:
    """One run of the optimiser on simulated voters, measured on held-out questions every `every` steps.

    Calls: where graphs share calls, a voter is asked a question once; else each graph asks anew. They are not counted
    where voters hear each other, since then a question comes with many sets of messages.
    """
    import numpy as np

    from mindworks.agents.edge_optimizer import EdgeOptimizer
    from mindworks.agents.voters import mean_by_kind

    optimizer = EdgeOptimizer(train.space, len(train.right), np.random.default_rng([seed, 4]), settings)
    measure = np.random.default_rng([seed, 5])
    single = float((test.answers[:, :truthful] == test.right[:, None]).mean(0).max())
    asked = np.zeros(train.answers.shape, bool)
    calls, curve, reached, calls_reached = 0, [], None, None
    counted = not train.hears.any()

    def sampled() -> float:
        graphs, _ = optimizer.distribution.sample((len(test.right), 1), measure)
        return test.accuracy(graphs.included)

    start = sampled()
    for step in range(1, steps + 1):
        trial = optimizer.ask()
        optimizer.tell(trial, train.utility(trial.tasks, trial.graphs.included))
        needed = train.asked(trial.graphs.included)
        if settings.graphs > 1:
            new = needed.any(1) & ~asked[trial.tasks]
            asked[trial.tasks] |= new
            calls += int(new.sum())
        else:
            calls += int(needed.sum())
        if step % every == 0:
            curve.append(sampled())
            if reached is None and curve[-1] >= 0.95 * single:
                reached, calls_reached = step, calls if counted else None
    uniform = optimizer.space.sample(np.zeros(len(train.space)), (len(test.right), 1), measure)
    return {
        "single": single,
        "full": test.accuracy(optimizer.space.full()),
        "random": test.accuracy(uniform.included),
        "start": start,
        "curve": curve,
        "sampled": curve[-1] if steps % every == 0 else sampled(),
        "thresholded": test.accuracy(optimizer.distribution.threshold()),
        "reached": reached,
        "calls_reached": calls_reached,
        "calls": calls if counted else None,
        **mean_by_kind(train.space, optimizer.distribution.probabilities, truthful),
    }


def of_nodes(config: Config, seeds: list[int], log: RunLog) -> dict:
    """A node chooses the demonstrations in its prompt, by the paper's rule and from feedback."""
    import asyncio

    from numpy.random import default_rng

    from mindworks.agents.models import FunctionModel
    from mindworks.agents.prompts import Prompt, PromptLearner, PromptSettings, optimize_prompt, responding, score
    from mindworks.agents.voters import NearestDemonstration

    train, test = digit_examples()
    found: dict[str, dict[str, list]] = {}
    for rule in ("solved", "feedback"):
        rows: dict[str, list] = {"start": [], "accuracy": [], "demonstrated": []}
        for seed in log.track(seeds, f"nodes, {rule}"):
            rng = default_rng([seed, 6])
            respond = responding(FunctionModel("nearest demonstration", NearestDemonstration(LABELS, rng)))
            learner = PromptLearner(Prompt(INSTRUCTION), rng, PromptSettings(rule=rule))
            chosen = [train[index] for index in rng.permutation(len(train))[: config.node_tasks]]
            rows["start"].append(asyncio.run(score(learner.prompt, test, respond)))
            asyncio.run(optimize_prompt(learner, respond, chosen))
            rows["accuracy"].append(asyncio.run(score(learner.prompt, test, respond)))
            rows["demonstrated"].append(len({each.answer for each in learner.prompt.demonstrations}))
            log.metric(seed=seed, rule=rule, accuracy=rows["accuracy"][-1])
        found[rule] = rows
    return found


def digit_examples() -> tuple[list[Any], list[Any]]:
    """Images of the four digits as text, with their names: to learn from, and held out."""
    from mindworks.agents.prompts import Example
    from mindworks.data.digits import digits

    data = digits()

    def told(images: Any, labels: Any) -> list[Example]:
        texts = (" ".join(str(round(16 * float(pixel))) for pixel in image.ravel()) for image in images)
        pairs = zip(texts, labels.tolist(), strict=True)
        return [Example(text, str(label)) for text, label in pairs if str(label) in LABELS]

    return told(data.train_images, data.train_labels), told(data.test_images, data.test_labels)


def with_a_model(config: Config, seeds: list[int], log: RunLog) -> dict:
    """The same optimisation where all members are one language model, some of them told to lie."""
    from functools import partial

    from mindworks.agents.cache import Cache
    from mindworks.agents.graph import run_sync
    from mindworks.agents.models import LLM
    from mindworks.data.agent_tasks import read_mmlu, read_tasks

    plain = Path(config.tasks).is_dir() or config.tasks.endswith(".csv")
    tasks = read_mmlu(config.tasks) if plain else read_tasks(config.tasks)
    cache = Cache(config.cache) if config.cache else None
    model = LLM(config.model, base_url=config.base_url or None, cache=cache)

    def one(seed: int, log: RunLog) -> dict:
        return run_sync(on_tasks(model, tasks, config, seed, log))

    return gathered([log.stage(f"model-{seed}", partial(one, seed)) for seed in seeds[: config.model_seeds]])


async def on_tasks(model: Any, tasks: Sequence[Any], config: Config, seed: int, log: RunLog) -> dict:
    """Learn the edges of a swarm of `model` on the first tasks, measure it on the last ones."""
    import numpy as np

    from mindworks.agents.edge_optimizer import EdgeOptimizer, EdgeSettings, optimize_edges
    from mindworks.agents.memo import Memo
    from mindworks.agents.swarm import evaluate
    from mindworks.agents.task_swarm import TaskSwarm
    from mindworks.agents.voters import mean_by_kind

    kept = round(len(tasks) * (1 - config.held_out_share))
    settings = EdgeSettings(**VARIANTS[OURS])
    enough = settings.tasks <= kept < len(tasks)
    require(enough, f"tasks must be at least {settings.tasks} to learn from and 1 held out, got {len(tasks)} in all")
    asked = TaskSwarm(model, tasks, config.truthful, config.adversaries)
    swarm, written, memo = asked.swarm, asked.questions, Memo()
    optimizer = EdgeOptimizer(swarm.space, kept, np.random.default_rng([seed, 4]), settings)
    if (saved := log.load()) is not None:
        optimizer.load(saved)

    def after() -> None:
        log.metric(seed=seed, step=optimizer.step, utility=optimizer.history[-1], calls=asked.calls)
        log.save(optimizer.state(), step=optimizer.step)

    await optimize_edges(swarm, written[:kept], asked.score, optimizer, config.steps - optimizer.step, memo, after)
    calls, space = asked.calls, swarm.space
    measure, count = np.random.default_rng([seed, 5]), len(tasks) - kept
    alone = (space.potential == (0, space.decision)).all(-1)
    fixed = np.stack([alone, optimizer.space.full(), optimizer.distribution.threshold()])
    graphs = np.broadcast_to(fixed, (count, *fixed.shape))
    sampled = optimizer.distribution.sample((count, 1), measure)[0].included
    uniform = optimizer.space.sample(np.zeros(len(space)), (count, 1), measure).included
    found = await evaluate(swarm, written[kept:], np.concatenate([graphs, sampled, uniform], 1), asked.score, memo)
    accuracy = np.nan_to_num(found.utilities).mean(0)  # no answer is no right answer; `failed` counts them
    return {
        **dict(zip(("single", "full", "thresholded", "sampled", "random"), accuracy.tolist(), strict=True)),
        **mean_by_kind(space, optimizer.distribution.probabilities, config.truthful),
        "curve": optimizer.history,
        "calls": calls,
        "failed": optimizer.failed + int(np.isnan(found.utilities).sum()),
    }


def check(data: dict) -> list[Check]:
    """The sentences of the claim, each with its bar; the pilots are of seeds 100 to 119, 2026-11-28."""
    if "model" in data:
        return check_model(data["model"])
    return [*check_adversaries(data["adversarial"]), *check_messages(data["messages"]), *check_nodes(data["nodes"])]


def check_adversaries(rows: dict) -> list[Check]:
    """Among voters who do not hear each other the best graph is a truthful one alone."""
    ours, paper = rows[OURS], rows["paper"]
    kept = [t >= s - 0.01 for t, s in zip(ours["thresholded"], ours["single"], strict=True)]
    reached, theirs = (or_never(row["calls_reached"]) for row in (ours, paper))
    calls = median(reached) / median(theirs) if isfinite(median(theirs)) else nan
    each = [x / y for x, y in zip(reached, theirs, strict=True)]
    share, steps, sampled = sum(kept) / len(kept), or_never(ours["reached"]), paper["sampled"]
    part = "adversaries: "
    kind_t, kind_a = ours["T to decision"], ours["A to decision"]
    return [
        Check(f"{part}share of seeds whose thresholded graph is within .01 of a single agent", share, ">=", 1, kept),
        Check(f"{part}accuracy of the full graph, best seed", max(ours["full"]), "<=", 0.55, ours["full"]),
        Check(f"{part}accuracy of random graphs, best seed", max(ours["random"]), "<=", 0.55, ours["random"]),
        Check(f"{part}probability of edges from truthful agents, mean", mean(kind_t), ">=", 0.95, kind_t),
        Check(f"{part}probability of edges from adversaries, mean", mean(kind_a), "<=", 0.05, kind_a),
        Check(f"{part}steps to 95 % of a single agent, worst seed", max(steps), "<=", 15, steps),
        Check(
            f"{part}accuracy of sampled graphs at the paper's setting, worst seed", min(sampled), ">=", 0.74, sampled
        ),
        Check(
            f"{part}calls to 95 % of a single agent over those of the paper's setting, medians", calls, "<=", 0.2, each
        ),
    ]


def or_never(values: list) -> list[float]:
    """None, for a run that did not get there, as infinity."""
    return [float("inf") if value is None else value for value in values]


def check_messages(rows: dict) -> list[Check]:
    """Where messages matter the swarm beats its best member."""
    ours = rows[OURS]
    gains = [t - s for t, s in zip(ours["thresholded"], ours["single"], strict=True)]
    part, lies = "messages: ", ours["A to T"]
    return [
        Check(f"{part}thresholded graph above the best single agent, worst seed", min(gains), ">=", 0.06, gains),
        Check(
            f"{part}probability of edges from adversaries to truthful agents, worst seed", worst(lies), "<=", 0.2, lies
        ),
        Check(f"{part}accuracy of the full graph, best seed", max(ours["full"]), "<=", 0.25, ours["full"]),
    ]


def worst(values: list) -> float:
    """The largest, NaN where there are none."""
    return nan if None in values else max(values)


def check_nodes(rows: dict) -> list[Check]:
    """Demonstrations with their true answers teach a node; the paper's rule stands in the tables, as it is."""
    found = rows["feedback"]["accuracy"]
    return [Check("nodes: accuracy with demonstrations from feedback, mean", mean(found), ">=", 0.6, found)]


def check_model(rows: dict) -> list[Check]:
    """The same sentences for a real model, on its held-out tasks, means over seeds."""
    pairs = ("thresholded", "single"), ("T to decision", "A to decision")
    gains, leads = ([x - y for x, y in zip(rows[ours], rows[theirs], strict=True)] for ours, theirs in pairs)
    return [
        Check("model: thresholded graph above a single agent", mean(gains), ">=", -0.01, gains),
        Check("model: edges of truthful agents above those of liars", mean(leads), ">", 0, leads),
    ]


COLUMNS = (
    "start",
    "sampled",
    "thresholded",
    "single",
    "full",
    "random",
    "T to decision",
    "A to decision",
    "T to T",
    "A to T",
)


def table(data: dict) -> dict:
    """Means over seeds."""
    if "model" in data:
        rows = data["model"]
        return {"model": {"held out": {name: average(rows[name]) for name in rows if name != "curve"}}}
    tables: dict[str, dict] = {}
    for part in ("adversarial", "messages"):
        tables[part] = {
            name: {
                **{column.replace(" ", "_"): average(rows[column]) for column in COLUMNS},
                "steps_to_95_%": median(or_never(rows["reached"])),
                **(calls_of(rows) if part == "adversarial" else {}),
            }
            for name, rows in data[part].items()
        }
    tables["nodes"] = {
        rule: {
            "before": mean(rows["start"]),
            "after": mean(rows["accuracy"]),
            "worst": min(rows["accuracy"]),
            "best": max(rows["accuracy"]),
            "digits_demonstrated": mean(rows["demonstrated"]),
        }
        for rule, rows in data["nodes"].items()
    }
    return tables


def calls_of(rows: dict) -> dict[str, float]:
    """How often voters were asked: until 95 % of a single agent, median, and in all, mean."""
    return {"calls_to_95_%": median(or_never(rows["calls_reached"])), "calls": mean(rows["calls"])}


def average(values: list) -> float | None:
    """The mean; None where a seed has no value."""
    return None if None in values else mean(values)


def plot(data: dict, folder: Path) -> list[Path]:
    """Learning curves, and what nodes learn by both rules."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if "model" in data:
        figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
        ax.plot(range(1, len(data["model"]["curve"]) + 1), data["model"]["curve"])
        ax.set(xlabel="step", ylabel="mean utility", title="a swarm of one model")
    else:
        figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
        for ax, part, every in ((axes[0], "adversarial", 1), (axes[1], "messages", 10)):
            for name, rows in data[part].items():
                ax.plot([every * k for k in range(1, len(rows["curve"]) + 1)], rows["curve"], label=name)
            single = mean(data[part][OURS]["single"])
            ax.axhline(single, color="k", ls=":", lw=1, label="single agent")
            ax.set(xlabel="step", ylabel="held-out accuracy, sampled", title=part)
            ax.legend(fontsize=8, frameon=False)
        for place, (rule, rows) in enumerate(data["nodes"].items()):
            axes[2].plot([place] * len(rows["accuracy"]), rows["accuracy"], "o", alpha=0.4, label=rule)
        axes[2].set(xticks=[0, 1], xticklabels=list(data["nodes"]), ylabel="accuracy", title="nodes", ylim=(0, 1))
    figure.savefig(path := folder / "swarm.svg")
    plt.close(figure)
    return [path]


STUDY = Study(
    name="swarm",
    paper="arXiv:2402.16823",
    title="Language Agents as Optimizable Graphs",
    year=2024,
    claim="agents as a graph: learning which edges to keep shuts adversaries out, and nodes improve their own prompts",
    bibtex="""@inproceedings{zhuge2024gptswarm,
  title     = {Language Agents as Optimizable Graphs},
  author    = {Zhuge, Mingchen and Wang, Wenyi and Kirsch, Louis and Faccio, Francesco and Khizbullin, Dmitrii
               and Schmidhuber, J{\\"u}rgen},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  eprint    = {2402.16823},
  archivePrefix = {arXiv}
}""",
    docs="docs/papers/swarm.md",
    config=Config,
    run=run,
    check=check,
    plot=plot,
    table=table,
    scales={
        "smoke": {"questions": 60, "held_out": 100, "node_tasks": 12, "message_seeds": 2}
        | {"paper_steps": 20, "steps": 15, "message_steps": 20, "message_graphs": 8},
        "cpu": {},
        "paper": {"held_out": 10_000, "adversarial_seeds": 20, "message_seeds": 20},
    },
    seeds={"smoke": 2, "cpu": 20, "paper": 20},
)
