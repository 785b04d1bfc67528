"""A society that confers in words answers better than its best member, and survives liars if it learns whom to trust.

Zhuge et al., "Mindstorms in Natural Language-Based Societies of Mind", 2023, arXiv:2305.17066. The members here are
small networks that read digits and speak simple English, not language models; `--model` asks those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from mindworks.errors import require, require_at_least
from mindworks.lab import Check, RunLog, Study, by_seed, summary

PLAIN, LIARS, LONERS, IGNORANT = "truthful", "colluding liars", "independent liars", "ignorant"
DEMOCRACY, CLAIMED, MARKET, STORM, LEADER = (
    "democracy",
    "confidence vote",
    "market",
    "mindstorm",
    "leader and mindstorm",
)
BEST = "best member"
ASKED = "Which digit is it?"
DIGITS = tuple("0123456789")
# Chosen on seeds 100-103 among 60, 80, 100 and 150, 2026-11-28: after more steps a vote leaves mindstorm less to gain.
# At 100: best member .78, democracy .91, mindstorm .93; beside colluding liars the confidence vote has .29 to .41.
STEPS = 100


@dataclass(frozen=True)
class Config:
    """The society of digits, and a society of language models beside it where one is named."""

    sizes: tuple[int, ...] = (5, 33, 129)
    """members of the societies, their leader counted; the last is also mixed with other kinds of members"""
    mixed: float = 0.4
    """share of the readers of the largest society that lie, or know nothing"""
    learned: int = 300
    """questions with known answers from which the market and the leader learn whom to trust"""
    test: int = 500
    """questions that the accuracies are measured on, at most 500"""
    steps: int = STEPS
    """training steps of the readers, each on all their images"""
    lr: float = 1e-2
    """Adam step size of the readers"""
    stake: float = 0.05
    """share of its wealth that a member stakes in the market when it is certain"""
    base_url: str = ""
    """an OpenAI-compatible endpoint for a society of language models; empty takes the provider's own"""
    model: str = ""
    """the language model of that society; empty asks none"""
    tasks: str = ""
    """file with its questions, one JSON object a line: question, options, answer"""
    speakers: int = 5
    """its members, all the same model in different roles"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "learned", "test", "steps", "speakers")
        require(bool(self.sizes) and min(self.sizes) >= 2, f"sizes must be at least 2 each, got {self.sizes}")
        require(list(self.sizes) == sorted(set(self.sizes)), f"sizes must grow, got {self.sizes}")
        require(0 < self.mixed < 1, f"mixed must be in (0, 1), got {self.mixed}")
        require(self.test <= 500, f"test must be at most 500, got {self.test}")
        require(self.learned <= 1000, f"learned must be at most 1000, got {self.learned}")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(0 < self.stake <= 1, f"stake must be in (0, 1], got {self.stake}")
        require(
            bool(self.model) == bool(self.tasks), f"model and tasks go together, got {self.model!r}, {self.tasks!r}"
        )


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """One seed: the readers, their societies, and the language models where asked for."""
    import torch

    torch.set_num_threads(1)  # the matrices are small; a second thread only spins
    (seed,) = seeds
    data = log.stage("digits", lambda log: societies(config, seed, log))
    if config.model:
        data["language models"] = log.stage("models", lambda log: language_models(config, seed))
    return data


def societies(config: Config, seed: int, log: RunLog) -> dict:
    """Accuracy of every protocol in societies of all sizes, and in the largest with members of other kinds."""
    from mindworks.agents.society import ReadersConfig, train_readers
    from mindworks.data import digits

    images = digits()
    kept = len(images.train_labels) - config.learned
    pixels, labels = images.train_images[:, 0], images.train_labels
    settings = ReadersConfig(steps=config.steps, lr=config.lr)
    readers = train_readers(pixels[:kept], labels[:kept], config.sizes[-1] - 1, seed, settings)
    known = questions(readers, pixels[kept:], labels[kept:])
    asked = questions(readers, images.test_images[: config.test, 0], images.test_labels[: config.test])
    mixtures = [(str(size), size, PLAIN) for size in config.sizes]
    mixtures += [(f"{config.sizes[-1]}, {kind}", config.sizes[-1], kind) for kind in (LIARS, LONERS, IGNORANT)]
    rows = {}
    for name, size, kind in log.track(mixtures, "societies"):
        members, honest = mixture(readers.members()[: size - 1], kind, config.mixed, seed)
        rows[name] = measured(members, honest, known, asked, config.stake, seed)
        log.metric(society=name, **rows[name])
    return rows


def questions(readers: Any, images: Any, labels: Any) -> tuple[list, list[str]]:
    """Questions whose evidence is what the readers see of `images[B, R, C]`, and their answers."""
    from mindworks.agents.society import Question

    seen = enumerate(readers.look(images))
    return [Question(ASKED, DIGITS, sight, str(place)) for place, sight in seen], [str(label) for label in labels]


def mixture(members: list, kind: str, share: float, seed: int) -> tuple[list, list[str]]:
    """The members with a random `share` of them turned into `kind`, and the names of the others."""
    import numpy as np

    from mindworks.agents.society import Ignorant, Liar

    count = 0 if kind == PLAIN else round(share * len(members))
    turned = set(np.random.default_rng(seed).permutation(len(members))[:count].tolist())
    others = {
        LIARS: lambda member: Liar(member),
        LONERS: lambda member: Liar(member, collude=False, seed=seed),
        IGNORANT: lambda member: Ignorant(member.name, seed),
    }
    mixed = [others[kind](member) if place in turned else member for place, member in enumerate(members)]
    return mixed, [member.name for place, member in enumerate(members) if place not in turned]


def measured(
    members: list,
    honest: list[str],
    known: tuple[list, list[str]],
    asked: tuple[list, list[str]],
    stake: float,
    seed: int,
) -> dict:
    """Accuracies of the best member and of each protocol, the honest members' wealth, and the texts exchanged."""
    from mindworks.agents.society import Democracy, Judge, Market, Mindstorm, Monarchy, Society

    society = Society(members)
    market, leader = Market(stake, seed=seed), Monarchy(Judge(seed=seed))
    learned = society.learn(*known, leader)
    for transcript, truth in zip(learned, known[1], strict=True):
        market.feedback(transcript, truth)
    led, stormed = (society.ask_all(asked[0], protocol) for protocol in (leader, Mindstorm(seed=seed)))
    # one-round protocols count the first round of the mindstorm: asked once more, all would say the same
    one_round: dict[str, Any] = {
        DEMOCRACY: Democracy(seed=seed),
        CLAIMED: Democracy(by_confidence=True, seed=seed),
        MARKET: market,
    }
    answers = {name: [protocol.count(t) for t in stormed] for name, protocol in one_round.items()}
    answers |= {STORM: [t.answer for t in stormed], LEADER: [t.answer for t in led]}
    return {
        BEST: max(alone(stormed, asked[1]).values()),
        **{name: accuracy(found, asked[1]) for name, found in answers.items()},
        "honest wealth": market.share(honest),
        "texts": sum(len(t.entries) for t in (*learned, *led, *stormed)),
    }


def accuracy(answers: Sequence[str | None], truths: Sequence[str]) -> float:
    """Share of right answers; none is wrong."""
    return mean(answer == truth for answer, truth in zip(answers, truths, strict=True))


def alone(transcripts: list, truths: Sequence[str]) -> dict[str, float]:
    """Accuracy of every member by itself, heard from what it said in the first round."""
    from mindworks.agents.society import hear

    right: dict[str, int] = {}
    for transcript, truth in zip(transcripts, truths, strict=True):
        for message in transcript.messages(1):
            heard = hear(message.text, transcript.choices).answer
            right[message.sender] = right.get(message.sender, 0) + (heard == truth)
    return {name: count / len(truths) for name, count in right.items()}


def language_models(config: Config, seed: int) -> dict:
    """The same protocols with a language model in several roles; half of the questions to learn from."""
    from mindworks import agents
    from mindworks.data.agent_tasks import read_tasks

    tasks = [task for task in read_tasks(config.tasks) if task.options]
    require(len(tasks) >= 2, f"tasks must hold at least two questions with options, got {len(tasks)}: {config.tasks}")
    model = agents.LLM(config.model, base_url=config.base_url or None)
    return speakers(model, tasks, config.speakers, config.stake, seed)


ROLES = (
    "You are careful and check every step.",
    "You answer by what you know for a fact.",
    "You doubt the obvious answer and look for the trap.",
    "You rule out the wrong answers one by one.",
    "You think as a teacher who wrote the question.",
)


def speakers(model: Any, tasks: list, count: int, stake: float, seed: int) -> dict:
    """`measured`, with a language model as every member and as the leader; accuracies on the second half of `tasks`."""
    from mindworks.agents.society import Chief, Democracy, Market, Mindstorm, Monarchy, Question, Society, Speaker

    asked = []
    for place, task in enumerate(tasks):
        letters = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(task.options)])
        lines = [f"{letter}: {option}" for letter, option in zip(letters, task.options, strict=True)]
        asked.append(Question("\n".join([task.question, *lines]), letters, key=str(place)))
    truths = [task.answer for task in tasks]
    half = len(tasks) // 2
    samples = range(seed * count, (seed + 1) * count)
    members = [Speaker(f"member {i + 1}", model, ROLES[i % len(ROLES)], n) for i, n in enumerate(samples)]
    society, market = Society(members), Market(stake, seed=seed)
    learned = society.learn(asked[:half], truths[:half], market)
    errors = [error for t in learned for error in t.failures.values()]
    require(any(t.messages(1) for t in learned), f"model must answer something, got {errors[:1]}")
    protocols: dict[str, Any] = {
        DEMOCRACY: Democracy(seed=seed),
        CLAIMED: Democracy(by_confidence=True, seed=seed),
        MARKET: market,
        STORM: Mindstorm(keep=(2,), seed=seed),
        LEADER: Monarchy(Chief("leader", model)),
    }
    row: dict[str, float] = {}
    failures = 0
    for name, protocol in protocols.items():
        transcripts = society.ask_all(asked[half:], protocol)
        row[name] = accuracy([t.answer for t in transcripts], truths[half:])
        failures += sum(len(t.failures) for t in transcripts)
        if name == DEMOCRACY:
            row[BEST] = max(alone(transcripts, truths[half:]).values(), default=0.0)
    return row | {"failures": failures, "questions": len(tasks) - half}


def largest(data: dict) -> str:
    """The name of the largest society of truthful members."""
    return max((name for name in data if name.isdigit()), key=int)


def check(data: dict) -> list[Check]:
    """The claim about numbers of members, and the one about liars; means over seeds, bars set before any run."""
    top = largest(data)
    plain, liars = data[top], data[f"{top}, {LIARS}"]
    sizes = sorted((name for name in data if name.isdigit()), key=int)
    grown = [mean(data[name][STORM]) for name in sizes]
    least = min((after - before for before, after in pairwise(grown)), default=0.0)
    steps = (gains(data[after], data[before], STORM, STORM) for before, after in pairwise(sizes))
    least_of_seed, wealth = min(steps, key=mean, default=[]), liars["honest wealth"]
    votes, storms = gains(plain, plain, DEMOCRACY, BEST), gains(plain, plain, STORM, DEMOCRACY)
    many, lying = f"{top} members", f"{top} members, colluding liars"
    return [
        # pilots: seeds 100-103, 2026-11-28, the votes alone: .91 against .78
        Check(
            f"{many}, one vote each: accuracy above the best member's", gain(plain, DEMOCRACY, BEST), ">=", 0.1, votes
        ),
        # .024, .018, .016, .012
        Check(f"{many}: accuracy of mindstorm above democracy's", gain(plain, STORM, DEMOCRACY), ">=", 0.01, storms),
        # .022, .014, .012, .038 from 33 to 129
        Check(
            f"{', '.join(sizes)} members: least gain of mindstorm from one size to the next",
            least,
            ">",
            0,
            least_of_seed,
        ),
        # .30, .41, .29, .39
        Check(f"{lying}: accuracy of the confidence vote", mean(liars[CLAIMED]), "<=", 0.6, liars[CLAIMED]),
        # whole runs, 150 steps, seeds 100 and 102: .95 and .95; market .90 and .90; wealth 1.000 and 1.000
        Check(f"{lying}: accuracy of leader and mindstorm", mean(liars[LEADER]), ">=", 0.89, liars[LEADER]),
        Check(f"{lying}: accuracy of the market", mean(liars[MARKET]), ">=", 0.86, liars[MARKET]),
        Check(f"{lying}: honest members' share of the wealth, worst seed", min(wealth), ">=", 0.98, wealth),
    ]


def gain(row: dict, better: str, worse: str) -> float:
    """Mean difference over seeds."""
    return mean(row[better]) - mean(row[worse])


def gains(ours: dict, theirs: dict, better: str, worse: str) -> list[float]:
    """The difference of every seed between a method in one society and a method in another, or in the same one."""
    return [x - y for x, y in zip(ours[better], theirs[worse], strict=True)]


def table(data: dict) -> dict:
    """Accuracy of every protocol in every society, with its interval over seeds, and all seeds."""
    tables: dict[str, Any] = {}
    for society, row in data.items():
        if society == "language models":
            tables[society] = row
        else:
            kept = {name: {**summary(values), "seeds": values} for name, values in row.items() if name != "texts"}
            tables[f"{society} members: accuracy"] = kept
    tables["texts exchanged per seed"] = {name: row["texts"] for name, row in data.items() if "texts" in row}
    return tables


def plot(data: dict, folder: Path) -> list[Path]:
    """Accuracy by size, and accuracy of the largest society by what some of its members do."""
    import matplotlib.pyplot as plt

    top = largest(data)
    sizes = sorted((name for name in data if name.isdigit()), key=int)
    names = (BEST, DEMOCRACY, CLAIMED, MARKET, STORM, LEADER)
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", sharey=True)
    for color, name in enumerate(names):
        axes[0].plot(range(len(sizes)), [mean(data[size][name]) for size in sizes], f"C{color}o-", ms=4, label=name)
    axes[0].set_xticks(range(len(sizes)), sizes)
    axes[0].set(xlabel="members", ylabel="accuracy on digits", title="truthful members", ylim=(0, 1))
    kinds = {PLAIN: top, **{kind: f"{top}, {kind}" for kind in (LIARS, LONERS, IGNORANT)}}
    for color, name in enumerate(names):
        places = [place + 0.13 * (color - 2.5) for place in range(len(kinds))]
        axes[1].bar(places, [mean(data[key][name]) for key in kinds.values()], 0.12, color=f"C{color}")
        for place, key in zip(places, kinds.values(), strict=True):
            axes[1].plot([place] * len(data[key][name]), data[key][name], "k.", ms=2)
    axes[1].set_xticks(range(len(kinds)), list(kinds))
    axes[1].set(title=f"{top} members, some of them like this")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=6)
    figure.savefig(path := folder / "mindstorm.svg")
    plt.close(figure)
    return [path]


STUDY = Study(
    name="mindstorm",
    paper="arXiv:2305.17066",
    title="Mindstorms in Natural Language-Based Societies of Mind",
    year=2023,
    claim="members that interview each other in words answer better together than the best of them, and the more so the"
    " more they are; liars that claim to be certain ruin a vote by confidence, not a leader or a market that learns",
    bibtex="""@article{zhuge2023mindstorms,
  title   = {Mindstorms in Natural Language-Based Societies of Mind},
  author  = {Zhuge, Mingchen and Liu, Haozhe and Faccio, Francesco and Ashley, Dylan R. and Csord{\\'a}s, R{\\'o}bert
             and Gopalakrishnan, Anand and Hamdi, Abdullah and Hammoud, Hasan Abed Al Kader and Herrmann, Vincent and
             Irie, Kazuki and Kirsch, Louis and Li, Bing and Li, Guohao and Liu, Shuming and Mai, Jinjie and
             Pi{\\k{e}}kos, Piotr and Ramesh, Aditya and Schlag, Imanol and Shi, Weimin and Stani{\\'c}, Aleksandar and
             Wang, Wenyi and Wang, Yuhui and Xu, Mengmeng and Fan, Deng-Ping and Ghanem, Bernard and
             Schmidhuber, J{\\"u}rgen},
  journal = {arXiv preprint arXiv:2305.17066},
  year    = {2023}
}""",
    docs="docs/papers/mindstorm.md",
    config=Config,
    run=run,
    combine=by_seed,
    check=check,
    plot=plot,
    table=table,
    scales={
        "smoke": {"sizes": (3, 7), "learned": 40, "test": 30, "steps": 40},
        "cpu": {},
        "paper": {},  # the paper's largest society has as many members; its tasks need language models
    },
    seeds={"smoke": 1, "cpu": 5, "paper": 10},
)
