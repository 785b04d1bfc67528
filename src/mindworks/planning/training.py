"""Training a planner on mazes: a loop that can be stopped anywhere and goes on with the same numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mindworks.core.adam import Adam
from mindworks.errors import require, require_at_least
from mindworks.planning.evaluation import Score, evaluate
from mindworks.planning.losses import LOSSES, planning_loss, supervised_layers
from mindworks.planning.mazes import Mazes
from mindworks.planning.planner import Planner


@dataclass(frozen=True)
class TrainingConfig:
    """How a planner is trained."""

    iterations: int = 1000
    """gradient steps"""
    batch: int = 32
    """mazes per step"""
    lr: float = 1e-2
    """Adam step size at the start"""
    final_lr: float = 0.02
    """fraction of the step size that is left at the end; it falls in a straight line"""
    clip: float = 10.0
    """greatest norm of the gradient"""
    loss: str = "adaptive"
    """`adaptive`, `all`, `first` or `last`: see `mindworks.planning.losses`"""
    every: int = 10
    """layers between two supervised ones"""
    labels: str = "all"
    """`all` best actions share the target, or a `single` one drawn at random"""
    sharpness: float = 1.0
    """what the sharpness of transition kernels rises to: 1 during the first fifth, then in equal ratios until four
    fifths of the steps are taken; a planner that comes sharpened is folded first"""
    validate_every: int = 100
    """steps between two looks at the validation mazes; the best planner is kept, once it is as sharp as it will be"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "iterations", "batch", "every", "validate_every")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(0 <= self.final_lr <= 1, f"final_lr must be in [0, 1], got {self.final_lr}")
        require(self.clip > 0, f"clip must be positive, got {self.clip}")
        require(self.loss in LOSSES, f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        require(self.labels in ("all", "single"), f"labels must be all or single, got {self.labels!r}")
        require(1 <= self.sharpness < math.inf, f"sharpness must be at least 1, got {self.sharpness}")

    def sharpness_at(self, step: int) -> float:
        """The sharpness before step number `step`, from 0."""
        share = (step / self.iterations - 0.2) / 0.6
        return self.sharpness ** min(1.0, max(0.0, share))

    def lr_at(self, step: int) -> float:
        """The step size of step number `step`, from 0."""
        return self.lr * (1 - (1 - self.final_lr) * step / max(1, self.iterations - 1))


class Training:
    """A planner on training mazes, `config.iterations` steps of Adam; a job that `RunLog.drive` can drive.

    Mazes are shuffled anew in every pass. With `validation` mazes the planner of the best success rate there is kept
    and restored by `finish`. `seed` decides batches, labels and the planner's exploration; the planner comes as it was
    initialised. `history` lists (step, loss, gradient norm) of the latest step before each look.
    """

    def __init__(
        self,
        planner: Planner,
        mazes: Mazes,
        config: TrainingConfig | None = None,
        *,
        validation: Mazes | None = None,
        seed: int = 0,
    ) -> None:
        self.planner, self.mazes, self.validation = planner, mazes, validation
        self.config = TrainingConfig() if config is None else config
        require(len(mazes) >= self.config.batch, f"mazes must be at least batch {self.config.batch}, got {len(mazes)}")
        _same_mechanism(planner, "mazes", mazes)
        if validation is not None:
            _same_mechanism(planner, "validation", validation)
        sharpness, every = self.config.sharpness, self.config.every
        require(sharpness == 1 or planner.sharpens, f"sharpness must be 1 for this planner, got {sharpness}")
        fits = self.config.loss == "last" or every % planner.block == 0
        require(fits, f"every must be a multiple of the planner's block {planner.block}, got {every}")
        _ = mazes.distances, mazes.optimal  # computed once here, and sliced with the mazes from then on
        self.layers = supervised_layers(planner.depth, self.config.every, self.config.loss)
        self.generator = torch.Generator().manual_seed(seed)
        if planner.sharpens:
            planner.fold()  # type: ignore[operator]
        self.explorer = torch.Generator(next(planner.parameters()).device).manual_seed(seed)
        self.flat = _flatten(planner)
        self.adam = Adam(self.flat, self.config.lr)
        self.step, self.finished, self.order = 0, False, torch.zeros(0, dtype=torch.int64)
        self.best: tuple[float, Tensor] | None = None
        self.history: list[list[float]] = []
        self.latest: dict[str, Any] = {}

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.config.iterations

    def metrics(self) -> dict[str, Any]:
        """Loss, norm of the gradient, and success on the validation mazes where it has just been measured."""
        return self.latest

    def batch(self) -> Mazes:
        """The next mazes."""
        if len(self.order) < self.config.batch:
            fresh = torch.randperm(len(self.mazes), generator=self.generator)
            self.order = torch.cat([self.order, fresh])
        taken, self.order = self.order[: self.config.batch], self.order[self.config.batch :]
        return self.mazes[taken]

    def loss(self, mazes: Mazes) -> Tensor:
        """The training loss on these mazes."""
        inputs, target = mazes.inputs().to(self.flat), mazes.target(self.config.labels, generator=self.generator)
        logits = self.planner.logits(inputs, keep=self.layers, generator=self.explorer)
        distances = mazes.distances.to(self.flat.device)
        return planning_loss(logits, target.to(self.flat), distances, self.layers, self.config.loss)

    def advance(self) -> None:
        """One step; a look at the validation mazes where it is due."""
        config = self.config
        require(not self.done and not self.finished, f"step must be below {config.iterations}, got {self.step}")
        self.planner.train()
        self._sharpen()
        loss = self.loss(self.batch())
        parameters = list(self.planner.parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = zip(found, parameters, strict=True)
        gradient = torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs])
        norm = float(gradient.norm())
        if math.isfinite(norm):  # one step lost beats a planner lost
            self.adam.lr = config.lr_at(self.step)
            self.adam.step((gradient * min(1.0, config.clip / max(norm, 1e-12)))[None])
        self.step += 1
        self.latest = {"step": self.step, "loss": float(loss.detach()), "gradient": norm}
        if self.step % config.validate_every == 0 or self.done:
            self._look()

    def _sharpen(self) -> None:
        if self.planner.sharpens:
            self.planner.sharpness.fill_(self.config.sharpness_at(self.step))  # type: ignore[operator]

    def _look(self) -> None:
        self.history.append([self.step, self.latest["loss"], self.latest["gradient"]])
        if self.validation is None:
            return
        self._sharpen()
        success = score(self.planner, self.validation).success_rate
        self.latest = {**self.latest, "validation": success}
        settled = self.config.sharpness_at(self.step) == self.config.sharpness and math.isfinite(success)
        if settled and (self.best is None or success >= self.best[0]):
            self.best = (success, self.flat.clone())

    def finish(self) -> Planner:
        """The planner of the best validation, or the last one, with sharpness folded in, in evaluation mode."""
        if not self.finished and self.best is not None:
            self.flat.copy_(self.best[1])
        if not self.finished and self.planner.sharpens:
            chosen = self.config.sharpness if self.best is not None else self.config.sharpness_at(self.step)
            self.planner.sharpness.fill_(chosen)  # type: ignore[operator]
            self.planner.fold()  # type: ignore[operator]
        self.finished = True
        return self.planner.eval()

    def state(self) -> dict[str, Any]:
        """Everything that decides what happens next. Tensors are shared with the training: save it at once."""
        return {
            "step": self.step,
            "finished": self.finished,
            "flat": self.flat,
            "adam": self.adam.state(),
            "order": self.order,
            "generator": self.generator.get_state(),
            "explorer": self.explorer.get_state(),
            "best": None if self.best is None else list(self.best),
            "history": self.history,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self.step, self.finished, self.order = int(state["step"]), bool(state["finished"]), state["order"]
        self.flat.copy_(state["flat"])
        if self.planner.sharpens:
            sharpness = 1.0 if self.finished else self.config.sharpness_at(self.step)
            self.planner.sharpness.fill_(sharpness)  # type: ignore[operator]
        self.adam.load(state["adam"])
        self.generator.set_state(state["generator"])
        self.explorer.set_state(state["explorer"])
        self.best = None if state["best"] is None else (float(state["best"][0]), state["best"][1].to(self.flat))
        self.history = [list(row) for row in state["history"]]


def score(planner: Planner, mazes: Mazes, *, depth: int | None = None, batch: int = 64) -> Score:
    """The `Score` of the planner's greedy policy on all open cells of the mazes, in evaluation mode."""
    _same_mechanism(planner, "mazes", mazes)
    training = planner.training
    planner.eval()
    try:
        inputs = mazes.inputs().to(next(planner.parameters()))
        return evaluate(planner.act(inputs, depth=depth, batch=batch).cpu(), mazes)
    finally:
        planner.train(training)


def _same_mechanism(planner: Planner, name: str, mazes: Mazes) -> None:
    wanted, found = planner.mechanism, mazes.mechanism
    require(found == wanted, f"{name} must move as the planner does, {wanted.name}, got {found.name}")


@torch.no_grad()
def _flatten(planner: Planner) -> Tensor:
    """One tensor `[1, P]` that all parameters of the planner are views of, so that Adam takes one step for all."""
    parameters = list(planner.parameters())
    flat = torch.cat([parameter.flatten() for parameter in parameters])[None].clone()
    for parameter, part in zip(parameters, flat[0].split([p.numel() for p in parameters]), strict=True):
        parameter.data = part.view_as(parameter)
    return flat
