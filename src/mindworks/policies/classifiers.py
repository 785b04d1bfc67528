"""The value of a classifier: a critic that predicts accuracy from a network's answers to a few learned images.

The critic sees only the class probabilities that a network gives to K probing images; images and critic are learned
together from networks of known accuracy. Fresh networks then climb the frozen critic, without labels and without any
image but the probes. The probing is that of Faccio, Ramesh, Herrmann, Harb and Schmidhuber, "General Policy Evaluation
and Improvement by Learning to Identify Few But Crucial States", arXiv:2207.01566; the experiment is of our own design.

Shape legend: S seeds, N networks, P parameters of one network, K probing images, C, H, W an image's channels, height
and width, `...` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mindworks.core.adam import Adam
from mindworks.core.population import MLP
from mindworks.core.probing import Probing
from mindworks.errors import require, require_at_least
from mindworks.policies.accuracy_critics import Critic, FixedCritic, Measured, ProbingCritic, probabilities
from mindworks.policies.convnet import ConvNet
from mindworks.policies.snapshots import (
    Trainings,
    accuracy,
    add_noise,
    confusion,
    geometric_steps,
    random_orders,
)
from mindworks.policies.streams import Streams
from mindworks.policies.training import ascend

PATH_EVERY = 10  # steps of the climb between two points of the reported path
CRITICS = ("learned", "frozen", "raw")


@dataclass(frozen=True)
class ClassifierConfig:
    """Hyperparameters of the networks, of the critics, and of the climb."""

    channels: tuple[int, ...] = (8,)
    """filters of each convolution of a classifier"""
    kernel: int = 4
    """height and width of the filters, pixels"""
    stride: int = 2
    """step of the filters, pixels"""
    hidden: tuple[int, ...] = ()
    """hidden sizes of the dense layers after the convolutions"""
    value_images: int = 500
    """training images that no classifier is trained on: the accuracies that critics learn are measured on them"""
    runs: int = 64
    """classifiers trained per seed for the critics' data"""
    run_steps: int = 120
    """steps of the longest training"""
    run_batch: int = 16
    """images per training step"""
    snapshots: int = 10
    """classifiers kept of each training, besides its fresh start, at steps in equal ratios"""
    least_rate: float = 3e-3
    """least Adam step size of a training"""
    greatest_rate: float = 5e-2
    """greatest Adam step size of a training"""
    least_images: int = 10
    """least number of images a training sees"""
    noise: float = 0.3
    """greatest noise on the parameters of half of the classifiers, in standard deviations of the parameters"""
    probes: int = 10
    """probing images"""
    critic_hidden: tuple[int, ...] = (64, 64)
    """hidden sizes of the critics"""
    lr_critic: float = 5e-3
    """Adam step size of the critics that see answers, and of their probes; constant for half of the steps, then falling
    to 0"""
    lr_raw: float = 3e-4
    """Adam step size of the critic that sees parameters, falling in the same way"""
    critic_batch: int = 32
    """classifiers per critic step"""
    critic_steps: int = 1000
    """critic steps before the first round"""
    untouched: float = 0.1
    """fraction of the critics' data that keeps its outputs in place; the others have some of them exchanged"""
    rounds: int = 8
    """how often fresh classifiers climb the unfinished critic and, measured, join its data"""
    round_steps: int = 400
    """critic steps after each round"""
    climbers: int = 32
    """classifiers that climb in each round"""
    climbed_share: float = 0.5
    """fraction of a critic's batch that comes from the rounds, once there are any"""
    climb_steps: int = 100
    """steps of a climb"""
    lr_climb: float = 1e-2
    """Adam step size of a climb"""
    unseen: int = 24
    """trainings of their own whose classifiers, once as they are and once with outputs exchanged, test the critics"""
    fresh: int = 16
    """classifiers that climb the finished critics: so many untrained ones, and so many weak ones"""
    weak_steps: int = 12
    """training steps of the weak ones"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "value_images", "runs", "run_steps", "run_batch", "snapshots", "least_images")
        require_at_least(self, 1, "probes", "critic_batch", "critic_steps", "round_steps", "climbers", "climb_steps")
        require_at_least(self, 1, "unseen", "fresh", "weak_steps")
        require_at_least(self, 0, "noise", "rounds")
        require(
            0 < self.least_rate <= self.greatest_rate,
            f"least_rate must be in (0, {self.greatest_rate}], got {self.least_rate}",
        )
        for name in ("lr_critic", "lr_raw", "lr_climb"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        for name in ("untouched", "climbed_share"):
            require(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1], got {getattr(self, name)}")
        require(
            all(size >= 1 for size in self.critic_hidden), f"critic_hidden must be positive, got {self.critic_hidden}"
        )

    def network(self, image: tuple[int, int, int], classes: int) -> ConvNet:
        """The classifiers' shape for images (C, H, W)."""
        return ConvNet(image, self.channels, self.kernel, self.stride, self.hidden, classes)

    def trainings(self) -> Trainings:
        """How the classifiers are trained."""
        return Trainings(self.run_batch, (self.least_rate, self.greatest_rate), self.least_images)


class ImageSet(Protocol):
    """Images `[B, C, H, W]` in [0, 1] and labels `[B]` in two parts, as arrays; `mindworks.data.Images` is one."""

    @property
    def train_images(self) -> np.ndarray:
        """Images to learn from."""

    @property
    def train_labels(self) -> np.ndarray:
        """Their classes, from 0."""

    @property
    def test_images(self) -> np.ndarray:
        """Images for reported accuracies only."""

    @property
    def test_labels(self) -> np.ndarray:
        """Their classes."""


def fit(
    critic: Critic,
    network: ConvNet,
    data: Measured,
    measure: Callable[[Tensor], Tensor],
    config: ClassifierConfig,
    streams: Streams,
    *,
    lr: float,
) -> None:
    """Regress a critic on classifiers of known accuracy, then let fresh ones climb it and learn from those, by rounds.

    `measure(theta[S, N, P])` is the confusion of new classifiers. A critic is only right near its data, and climbing
    leaves them: the rounds put data where the climb leads. `data` is left as it was.
    """
    first, data = data.theta.shape[1], Measured(data.theta, data.confusion)
    adam = Adam(critic.phi, lr)
    total, done = config.critic_steps + config.rounds * config.round_steps, 0
    for round in range(config.rounds + 1):
        if round:
            climbed = _climbers(critic, network, config, streams)
            data.extend(climbed, measure(climbed))
        steps = config.round_steps if round else config.critic_steps
        index, order = _batches(steps, first, data.theta.shape[1] - first, network.classes, config, streams)
        for step in range(steps):
            adam.lr = lr * min(1.0, 2 * (1 - done / total))
            adam.step(critic.gradient(*data.draw(network, index[:, step], order[:, step])))
            done += 1


def _batches(
    steps: int, first: int, added: int, classes: int, config: ClassifierConfig, streams: Streams
) -> tuple[Tensor, Tensor]:
    """Which classifiers each step sees, `[S, steps, batch]`, and how their outputs are exchanged, `[..., classes]`."""

    def uniform(generator: torch.Generator) -> Tensor:
        return torch.rand(steps, config.critic_batch, 2, generator=generator)

    def orders(generator: torch.Generator) -> Tensor:
        shape, untouched = (steps, config.critic_batch), config.untouched
        return random_orders(*shape, classes=classes, untouched=untouched, generator=generator)

    chance, place = streams.draw(uniform).unbind(-1)
    new = (chance < config.climbed_share) & (added > 0)
    index = torch.where(new, first + (place * added).long(), (place * first).long())
    return index, streams.draw(orders)


def _climbers(critic: Critic, network: ConvNet, config: ClassifierConfig, streams: Streams) -> Tensor:
    """Fresh classifiers at several steps of their climb: `[S, climbers * steps kept, P]`."""
    keep, kept = geometric_steps(min(8, config.climb_steps), config.climb_steps, 5), []

    def callback(step: int, theta: Tensor, value: Tensor) -> None:
        if step in keep:
            kept.append(theta)

    theta = streams.draw(lambda g: network.init(config.climbers, generator=g))
    # one more step than the last one kept, as the callback sees each step before it is taken
    ascend(critic.logit, theta, steps=config.climb_steps + 1, lr=config.lr_climb, callback=callback)
    return torch.cat(kept, 1)


def climb(
    critic: Critic, theta: Tensor, measure: Callable[[Tensor], Tensor], config: ClassifierConfig
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Climb a frozen critic from `theta[S, N, P]`, with no labels and no image but the probes.

    Returns the final classifiers, and every `PATH_EVERY` steps from 0 on, and after the last, `measure(theta)` and the
    predicted accuracies; what is measured changes nothing.
    """
    measured, predicted = [], []

    def callback(step: int, theta: Tensor, value: Tensor) -> None:
        if step % PATH_EVERY == 0:
            measured.append(measure(theta))
            predicted.append(value.sigmoid())

    climbed = ascend(critic.logit, theta, steps=config.climb_steps, lr=config.lr_climb, callback=callback)
    callback(0, climbed, critic.logit(climbed).detach())
    return climbed, measured, predicted


def value_of_classifiers(
    images: ImageSet, seeds: Sequence[int], config: ClassifierConfig | None = None
) -> dict[str, Any]:
    """The whole experiment: make classifiers, fit three critics to their accuracies, let untrained ones climb each.

    The critics are "learned" (answers to learned probing images), "frozen" (the same evaluator, fitted as long, on
    answers to the images that the probes of "learned" started from) and "raw" (the classifiers' parameters). All see
    the same trained classifiers, and each in the rounds those that climbed it. The classifiers are trained on one
    part of the training images and valued on the other; every accuracy reported is on the test images, which nothing
    else has seen.

    Returns plain lists, one entry per seed: `true` [S][U], accuracies of the U unseen classifiers; `before` and
    `before_weak` [S][fresh], accuracies before the climb of the untrained and of the weak; for each critic
    `predicted` [S][U], `spearman` [S], the rank correlation of `predicted` with `true`, `after` and `after_weak`
    [S][fresh], and for the untrained `path` and `path_predicted` [S][T], means at the steps `path_steps` [T];
    `probes` and `first_probes` [S][K][H][W], learned and as drawn, with a C before H if C > 1.
    Raises `InputError` for images, labels, seeds or a config that cannot be used.
    """
    config, streams = config or ClassifierConfig(), Streams(seeds)
    parts = _parts(images, config)
    network = config.network(parts.image, parts.classes)
    data, unseen, starts = _classifiers(network, parts, config, streams)

    def measure(theta: Tensor) -> Tensor:
        return accuracy(network, theta, *parts.test)

    true, before = measure(unseen), measure(starts)
    result: dict[str, Any] = {
        "seeds": streams.seeds,
        "true": true.tolist(),
        "before": before[:, : config.fresh].tolist(),
        "before_weak": before[:, config.fresh :].tolist(),
        "path_steps": [*range(0, config.climb_steps, PATH_EVERY), config.climb_steps],
    }
    state = streams.state()
    for name in CRITICS:
        streams.load(state)  # "learned" and "frozen" meet the same first probes and the same draws
        critic = make_critic(name, network, config, streams)
        first = _pictures(critic)
        lr = config.lr_raw if name == "raw" else config.lr_critic
        fit(critic, network, data, lambda theta: confusion(network, theta, *parts.value), config, streams, lr=lr)
        if isinstance(critic, ProbingCritic):
            result |= {"first_probes": first, "probes": _pictures(critic)}
        with torch.no_grad():
            predicted = critic.logit(unseen).sigmoid()
        ranks = {"predicted": predicted.tolist(), "spearman": spearman(predicted, true)}
        result[name] = ranks | _climbed(critic, starts, measure, config)
    return result


def _pictures(critic: Critic) -> list[Any]:
    """Probing images `[S][K][H][W]`, with C before H if C > 1; none of a critic that learns none."""
    if not isinstance(critic, ProbingCritic):
        return []
    return critic.probing.probes(critic.phi).squeeze(-3).tolist()


@dataclass(frozen=True)
class _Parts:
    """Images and labels as tensors: to train classifiers on, to value them on, and to report."""

    train: tuple[Tensor, Tensor]
    value: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int

    @property
    def image(self) -> tuple[int, int, int]:
        channels, height, width = self.train[0].shape[1:]
        return channels, height, width


def _parts(images: ImageSet, config: ClassifierConfig) -> _Parts:
    pairs = []
    for part in ("train", "test"):
        pixels = torch.as_tensor(getattr(images, f"{part}_images"), dtype=torch.float32)
        labels = torch.as_tensor(getattr(images, f"{part}_labels"), dtype=torch.int64)
        require(pixels.ndim == 4, f"{part}_images must be [B, C, H, W], got shape {tuple(pixels.shape)}")
        require(
            labels.shape == pixels.shape[:1] and len(labels) >= 1,
            f"{part}_labels must be one per image [{len(pixels)}], got shape {tuple(labels.shape)}",
        )
        require(int(labels.min()) >= 0, f"{part}_labels must not be negative, got {int(labels.min())}")
        pairs.append((pixels, labels))
    (pixels, labels), test = pairs
    require(
        test[0].shape[1:] == pixels.shape[1:],
        f"test_images must have the shape of train_images {tuple(pixels.shape[1:])}, got {tuple(test[0].shape[1:])}",
    )
    kept = len(labels) - config.value_images
    require(kept >= 1, f"value_images must be below the {len(labels)} training images, got {config.value_images}")
    classes = int(max(labels.max(), test[1].max())) + 1
    return _Parts((pixels[:kept], labels[:kept]), (pixels[kept:], labels[kept:]), test, classes)


def _classifiers(
    network: ConvNet, parts: _Parts, config: ClassifierConfig, streams: Streams
) -> tuple[Measured, Tensor, Tensor]:
    """The critics' data, the unseen classifiers `[S, U, P]`, and the untrained and weak ones `[S, 2 * fresh, P]`."""
    trainings = config.trainings()
    keep = [0, *geometric_steps(min(2, config.run_steps), config.run_steps, config.snapshots)]

    def population(count: int) -> Tensor:
        return add_noise(trainings.run(network, *parts.train, streams, count, keep), config.noise, streams)

    known = population(config.runs)
    data = Measured(known, confusion(network, known, *parts.value))
    plain = population(config.unseen)
    order = streams.draw(
        lambda g: random_orders(plain.shape[1], classes=network.classes, untouched=config.untouched, generator=g)
    )
    unseen = torch.cat([plain, network.reorder(plain, order)], 1)
    fresh = streams.draw(lambda g: network.init(config.fresh, generator=g))
    weak = trainings.run(network, *parts.train, streams, config.fresh, [config.weak_steps])
    return data, unseen, torch.cat([fresh, weak], 1)


def make_critic(name: str, network: ConvNet, config: ClassifierConfig, streams: Streams) -> Critic:
    """A fresh critic per seed: one of `CRITICS`."""
    require(name in CRITICS, f"critic must be one of {CRITICS}, got {name!r}")
    if name == "raw":
        evaluator = MLP((network.num_parameters, *config.critic_hidden, 1), "relu")
        return FixedCritic(evaluator, streams.draw(lambda g: evaluator.init(generator=g)), lambda theta: theta)
    probing = Probing(network.image, config.probes, network.classes, config.critic_hidden)
    phi = streams.draw(lambda g: probing.init(generator=g))
    if name == "learned":
        return ProbingCritic(network, probing, phi)
    probes, weights = probing.split(phi)

    def answers(theta: Tensor) -> Tensor:
        return probabilities(network, theta, probes.unsqueeze(1)).flatten(-2)

    return FixedCritic(probing.evaluator, weights.clone(), answers)


def spearman(predicted: Tensor, true: Tensor) -> list[float]:
    """Rank correlation of `predicted[S, N]` and `true[S, N]` per seed; 0 where either is constant."""
    from scipy.stats import spearmanr

    return [
        float(spearmanr(*rows).statistic) if all(np.ptp(row) > 0 for row in rows) else 0.0
        for rows in zip(predicted.numpy(), true.numpy(), strict=True)
    ]


def _climbed(
    critic: Critic, starts: Tensor, measure: Callable[[Tensor], Tensor], config: ClassifierConfig
) -> dict[str, Any]:
    _, measured, predicted = climb(critic, starts, measure, config)
    fresh = slice(None, config.fresh)
    return {
        "after": measured[-1][:, fresh].tolist(),
        "after_weak": measured[-1][:, config.fresh :].tolist(),
        "path": torch.stack([step[:, fresh].mean(1) for step in measured], 1).tolist(),
        "path_predicted": torch.stack([step[:, fresh].mean(1) for step in predicted], 1).tolist(),
    }
