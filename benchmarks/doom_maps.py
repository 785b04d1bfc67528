"""Planning from first-person views: a map predictor learns from true maps, from a planner's paths alone, or from both.

ViZDoom shows the four views from every room of a maze, each wall in one of eight textures. A network makes a map of
them, and a DT-VIN, trained before on true maps of other mazes and frozen, plans on it. Scored are the actions planned
on the predicted map, in the true maze, from every cell: on the map as it is, probabilities that a cell is open, and on
the map cut at one half. The predictor learns on 9 x 9 mazes and is asked about fresh ones and about 15 x 15.

Paths alone teach the map through the planner's gradient, which vanishes for maps without doubt and for sharp
transitions. So while the predictor learns, the planner's sharpness is a quarter of what it was trained to, and the
logits are held near zero. "Paths, plainly" does without either: it learns here, and in pilots with views of 32 x 24 and
clipping at 10, or a step size of 5e-3, it got stuck for good at a map that is open all over (2026-11-27).

Needs the extra `vision`. Run: `python benchmarks/doom_maps.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import numpy as np

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor

from mindworks.data.doom import room_views
from mindworks.planning import DTVIN, Mazes, Planner, Training, TrainingConfig, evaluate, generate, splits
from mindworks.planning.losses import supervised_layers
from mindworks.planning.map_predictor import EndToEnd, MapPredictor, map_accuracy, map_loss

SEEDS = (0, 1, 2)
VIEW = (16, 12)  # pixels: width, height
SMALL, LARGE = 9, 15
FOR_THE_PLANNER, TRAIN, TEST, TEST_LARGE = 3000, 200, 100, 50
DEPTH, DEPTH_LARGE = 40, 100  # layers; no shortest path of such mazes is longer
STEPS, BATCH, LR, CLIP = 300, 16, 3e-3, 1.0
SOFTER, SHRINK = 0.25, 0.02  # the planner's sharpness while the predictor learns, of 1; weight of the logits' squares
COLUMNS = [
    "learns from", "seed", "passages, %", "pillars, %", "success, %", "map cut, %",
    "15 x 15: passages, %", "pillars, %", "success, %", "map cut, %",
]  # fmt: skip
# name: weight of the paths, weight of the map, sharpness, shrink
SIGNALS = {
    "the map": (0.0, 1.0, SOFTER, 0.0),
    "paths": (1.0, 0.0, SOFTER, SHRINK),
    "both": (1.0, 1.0, SOFTER, SHRINK),
    "paths, plainly": (1.0, 0.0, 1.0, 0.0),
}
Seen = tuple[Mazes, Tensor, int]  # mazes, their views, layers to plan with


def trained_planner(mazes: Mazes, seed: int) -> DTVIN:
    """A DT-VIN that knows how to plan on true maps, frozen."""
    planner = DTVIN("news", DEPTH, generator=torch.Generator().manual_seed(seed))
    training = Training(planner, mazes, TrainingConfig(iterations=300, sharpness=16.0), seed=seed)
    while not training.done:
        training.advance()
    training.finish()
    return planner.requires_grad_(False)


def learn(signal: str, planner: DTVIN, mazes: Mazes, views: Tensor, seed: int) -> EndToEnd:
    """A predictor after its steps on these mazes, in front of the planner, which stays as it was."""
    paths, map_weight, sharpness, shrink = SIGNALS[signal]
    predictor = MapPredictor((VIEW[1], VIEW[0]), generator=torch.Generator().manual_seed(seed))
    model, layers = EndToEnd(predictor, planner), supervised_layers(DEPTH, 10)
    optimizer = torch.optim.Adam(predictor.parameters(), LR)
    generator, order = torch.Generator().manual_seed(seed), torch.zeros(0, dtype=torch.int64)
    _ = mazes.distances, mazes.optimal  # computed once, and sliced with the mazes
    planner.sharpness.fill_(sharpness)
    losses = []
    for step in range(STEPS):
        if len(order) < BATCH:
            order = torch.cat([order, torch.randperm(len(mazes), generator=generator)])
        taken, order = order[:BATCH], order[BATCH:]
        part = mazes[taken]
        if paths:
            loss = model.loss(views[taken], part, layers, map_weight=map_weight, shrink=shrink)
        else:
            loss = map_weight * map_loss(predictor(views[taken]), part.free)
        optimizer.param_groups[0]["lr"] = LR * (1 - 0.98 * step / STEPS)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(predictor.parameters(), CLIP)
        optimizer.step()
        losses.append(float(loss.detach()))
    planner.sharpness.fill_(1.0)
    means = [f"{sum(losses[at : at + 50]) / 50:.3f}" for at in range(0, STEPS, 50)]
    print(f"seed {seed}, {signal}: mean loss of every 50 steps {' '.join(means)}", flush=True)
    return model


def success(planner: Planner, maps: Tensor, mazes: Mazes, depth: int) -> str:
    """Success in % in the true mazes of what is planned on `maps[N, H, W]`."""
    inputs = torch.cat([maps[:, None], mazes.goal_maps()], 1)
    return f"{100 * evaluate(planner.act(inputs, depth=depth), mazes).success_rate:.1f}"


@torch.no_grad()
def numbers(model: EndToEnd, seen: Seen) -> list[str]:
    """Accuracy of passages and pillars, and success on the map as it is and cut at one half, in %."""
    mazes, views, depth = seen
    logits = torch.cat([model.predictor(part) for part in views.split(BATCH)])
    accuracy = map_accuracy(logits, mazes.free)
    maps = (logits.sigmoid(), (logits > 0).float())
    shares = [f"{100 * accuracy[kind]:.1f}" for kind in ("passages", "pillars")]
    return shares + [success(model.planner, each, mazes, depth) for each in maps]


def unseen(planner: Planner, seen: Seen) -> tuple[list[str], list[str]]:
    """The same numbers for a map that is open all over inside its border, and for the true one."""
    mazes, _, depth = seen
    everywhere = torch.zeros(mazes.free.shape)
    everywhere[:, 1:-1, 1:-1] = 1
    accuracy = map_accuracy(everywhere - 0.5, mazes.free)
    shares = [f"{100 * accuracy[kind]:.1f}" for kind in ("passages", "pillars")]
    none, true = success(planner, everywhere, mazes, depth), success(planner, mazes.free.float(), mazes, depth)
    return [*shares, none, none], ["100.0", "100.0", true, true]


def rows(seed: int) -> list[list[Any]]:
    """All rows of one seed."""
    began = time.process_time()
    for_planner, mazes, fresh = splits(SMALL, (FOR_THE_PLANNER, TRAIN, TEST), seed=seed)
    large = generate(TEST_LARGE, LARGE, seed=100 + seed)
    textures = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        views, fresh_views, large_views = (
            torch.from_numpy(room_views(part.free.numpy(), folder, size=VIEW, generator=textures))
            for part in (mazes, fresh, large)
        )
    print(f"seed {seed}: views rendered in {time.process_time() - began:.1f} CPU s", flush=True)
    planner = trained_planner(for_planner, seed)
    tests: list[Seen] = [(fresh, fresh_views, DEPTH), (large, large_views, DEPTH_LARGE)]
    known = [unseen(planner, seen) for seen in tests]
    found: list[list[Any]] = []
    for which, name in enumerate(("nothing: open all over", "nothing: given the true map")):
        found.append([name, seed, *(number for each in known for number in each[which])])
    for signal in SIGNALS:
        model = learn(signal, planner, mazes, views, seed)
        found.append([signal, seed, *(number for seen in tests for number in numbers(model, seen))])
        print(found[-1], f"{time.process_time() - began:.0f} CPU s so far", flush=True)
    return found


def main() -> int:
    torch.set_num_threads(1)
    cells = [row for seed in SEEDS for row in rows(seed)]
    names = list(dict.fromkeys(row[0] for row in cells))
    cells.sort(key=lambda row: (names.index(row[0]), row[1]))
    where = {**_bench.environment(), "vizdoom": version("vizdoom")}
    record = {"benchmark": "doom_maps", "columns": COLUMNS, "cells": cells, "environment": where}
    _bench.RESULTS.mkdir(parents=True, exist_ok=True)
    (_bench.RESULTS / "doom_maps.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
