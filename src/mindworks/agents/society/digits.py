"""Small neural networks as members: each sees one patch of an image and says in English what it takes the image for.

They are trained in one batched loop. They are no language models: the sentences they speak and understand are those of
`speech`. A society of 129 networks is one of those of Zhuge et al., arXiv:2305.17066; this one is of our own design.

Shape legend: N members, B images, R and C their rows and columns, K classes, P parameters of one network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mindworks.agents.society.members import Question
from mindworks.agents.society.speech import heard_shortlist, say
from mindworks.core.adam import Adam
from mindworks.core.population import MLP
from mindworks.errors import require, require_at_least


@dataclass(frozen=True)
class ReadersConfig:
    """Hyperparameters of the networks."""

    patch: int = 3
    """height and width of what a member sees, pixels"""
    hidden: int = 12
    """hidden units of a network"""
    steps: int = 100
    """training steps, each on all images"""
    lr: float = 1e-2
    """Adam step size"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "patch", "hidden", "steps")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")


@dataclass(frozen=True)
class Sight:
    """What all members see of one image: probabilities of the classes, one row of K per member."""

    rows: list[list[float]]


class Readers:
    """Trained networks `theta[N, P]`, and the upper left corners `[N][2]` of their patches."""

    def __init__(self, network: MLP, theta: Tensor, corners: list[tuple[int, int]], patch: int) -> None:
        self.network, self.theta, self.corners, self.patch = network, theta, corners, patch

    def patches(self, images: Tensor) -> Tensor:
        """What each member sees of `images[B, R, C]`: `[N, B, patch * patch]`."""
        side = self.patch
        return torch.stack([images[:, row : row + side, col : col + side].flatten(1) for row, col in self.corners])

    @torch.no_grad()
    def probabilities(self, images: Any) -> Tensor:
        """Probabilities `[N, B, K]` that the members give to the classes of `images[B, R, C]`."""
        return self.network.forward(self.theta, self.patches(_pixels(images))).softmax(-1)

    def look(self, images: Any) -> list[Sight]:
        """What the members see of each of `images[B, R, C]`, as evidence for a question: one product for all of it."""
        return [Sight(rows) for rows in self.probabilities(images).transpose(0, 1).tolist()]

    def members(self) -> list[Reader]:
        """The networks as members of a society, in the order of `theta`."""
        return [Reader(f"reader {place + 1}", self, place) for place in range(len(self.corners))]


@dataclass(frozen=True)
class Reader:
    """One network as a member: it hears which answers are open, and names the likeliest of them.

    The question's evidence is a `Sight`, or an image `[R, C]`, which takes a product of its own. The choices stand for
    the classes 0, 1, ... in that order. Its confidence is its probability for the answer, given that it is one of
    those open.
    """

    name: str
    readers: Readers
    place: int

    def speak(self, question: Question) -> str:
        """A sentence such as "I think it is 3. I am fairly sure."."""
        sight = question.evidence if isinstance(question.evidence, Sight) else self.readers.look([question.evidence])[0]
        row, choices = sight.rows[self.place], question.choices
        require(len(choices) == len(row), f"choices must be one per class, {len(row)}, got {len(choices)}")
        options = heard_shortlist(question.text, choices)
        if options is choices:
            best = max(row)
            return say(choices[row.index(best)], best)
        open_ = {option: row[choices.index(option)] for option in options}
        answer = max(open_, key=open_.__getitem__)
        return say(answer, open_[answer] / max(sum(open_.values()), 1e-12))


def train_readers(
    images: Any, labels: Any, members: int = 128, seed: int = 0, config: ReadersConfig | None = None
) -> Readers:
    """Train `members` networks on `images[B, R, C]` and `labels[B]` in 0 ... K - 1, all in one loop.

    Member i has a seed of its own, made of `seed` and i: place of the patch and first weights. So the first members of
    a large society are those of a small one. float32. Raises `InputError` for images or labels that do not fit.
    """
    config = config or ReadersConfig()
    require(members >= 1, f"members must be at least 1, got {members}")
    require(seed >= 0, f"seed must not be negative, got {seed}")
    pixels = _pixels(images)
    targets = torch.as_tensor(labels, dtype=torch.int64)
    require(
        targets.shape == pixels.shape[:1] and len(targets) >= 1,
        f"labels must be one per image, {len(pixels)}, got shape {tuple(targets.shape)}",
    )
    require(int(targets.min()) >= 0, f"labels must not be negative, got {int(targets.min())}")
    room = [int(size) - config.patch for size in pixels.shape[1:]]
    require(min(room) >= 0, f"patch must fit into images of {tuple(pixels.shape[1:])}, got {config.patch}")
    network = MLP((config.patch**2, config.hidden, int(targets.max()) + 1))
    corners: list[tuple[int, int]] = []
    first = []
    for place in range(members):
        generator = torch.Generator().manual_seed(seed * 2**20 + place)  # a million members per seed
        row, column = (int(torch.randint(size + 1, (), generator=generator)) for size in room)
        corners.append((row, column))
        first.append(network.init(generator=generator))
    readers = Readers(network, torch.stack(first), corners, config.patch)
    _fit(readers, pixels, targets, config)
    return readers


def _fit(readers: Readers, pixels: Tensor, targets: Tensor, config: ReadersConfig) -> None:
    """Descend each member's mean cross-entropy; the sum over members keeps their gradients apart."""
    theta = readers.theta.requires_grad_()
    optimizer, seen = Adam(theta, config.lr), readers.patches(pixels)
    rows = targets.expand(len(seen), -1).flatten()
    for _ in range(config.steps):
        outputs = readers.network.forward(theta, seen)
        loss = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), rows, reduction="sum") / len(targets)
        (gradient,) = torch.autograd.grad(loss, theta)
        optimizer.step(gradient)
    readers.theta = theta.detach()


def _pixels(images: Any) -> Tensor:
    pixels = torch.stack([torch.as_tensor(x) for x in images]) if isinstance(images, list) else torch.as_tensor(images)
    require(pixels.ndim == 3, f"images must be [B, R, C], got shape {tuple(pixels.shape)}")
    return pixels.to(torch.float32)
