"""Small planners, maps, a planner set by hand and convolutions in plain loops, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindworks.planning import (
    DTVIN,
    GPPN,
    VIN,
    ConnectedVIN,
    DTVINConfig,
    GPPNConfig,
    HighwayVIN,
    Mazes,
    VINConfig,
    find_mechanism,
)
from mindworks.planning.planner import Planner
from mindworks.planning.priors import move_taps, stay_taps

MECHANISMS = ("news", "moore", "diffdrive")
_VIN = VINConfig(hidden=6, latent_actions=5)
PLANNERS: dict[str, Callable[..., Planner]] = {
    "dt_vin": lambda *a, **k: DTVIN(*a, DTVINConfig(hidden=6), **k),
    "vin": lambda *a, **k: VIN(*a, _VIN, **k),
    "residual": lambda *a, **k: ConnectedVIN(*a, _VIN, block=2, connection="residual", **k),
    "dense": lambda *a, **k: ConnectedVIN(*a, _VIN, block=2, connection="dense", **k),
    "highway": lambda *a, **k: ConnectedVIN(*a, _VIN, block=2, connection="highway", **k),
    "highway_vin": lambda *a, **k: HighwayVIN(*a, _VIN, block=2, **k),
    "gppn": lambda *a, **k: GPPN(*a, GPPNConfig(hidden=6, window=3), **k),
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planner(kind: str, mechanism: str = "news", depth: int = 4, seed: int = 0) -> Planner:
    """A tiny planner whose blocks, where it has some, are two layers deep."""
    return PLANNERS[kind](mechanism, depth, generator=rng(seed))


def maps(mechanism: str = "news", count: int = 2, size: tuple[int, int] = (5, 6), seed: int = 0) -> Mazes:
    """Random maps without walls around them, a third of their cells walls."""
    draw, orientations = np.random.default_rng(seed), find_mechanism(mechanism).orientations
    free = draw.random((count, *size)) > 0.33
    goal = np.stack([draw.integers(limit, size=count) for limit in (orientations, *size)], 1)
    free[np.arange(count), goal[:, 1], goal[:, 2]] = True
    return Mazes.from_arrays(free, goal, mechanism)


def around(values: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    """The window `[C, size, size]` of `values[C, H, W]` around a cell, zeros outside the map."""
    channels, height, width = values.shape
    out = np.zeros((channels, size, size))
    for i in range(size):
        for j in range(size):
            r, c = row + i - size // 2, column + j - size // 2
            if 0 <= r < height and 0 <= c < width:
                out[:, i, j] = values[:, r, c]
    return out


def convolve(values: np.ndarray, weight: Tensor, bias: Tensor | None = None) -> np.ndarray:
    """`[N, H, W]`: a convolution of `values[C, H, W]` with `weight[N, C, F, F]`, cell by cell."""
    kernel = weight.detach().double().numpy()
    shift = np.zeros(len(kernel)) if bias is None else bias.detach().double().numpy()
    out = np.zeros((len(kernel), *values.shape[1:]))
    for row, column in np.ndindex(*values.shape[1:]):
        out[:, row, column] = shift + (kernel * around(values, row, column, kernel.shape[-1])).sum((1, 2, 3))
    return out


def solver(mechanism: str = "news", depth: int = 60, margin: float = 40.0, **config: Any) -> DTVIN:
    """A DT-VIN that holds the true transitions: moves where the cell ahead is open, stays in walls and at the goal.

    With reward 2 at the goal, 1 in the open and 0 in walls, `V_n = n + max(0, n + 1 - distance)`
    outside the goal. A move fails and stays with probability sigmoid(-margin).
    """
    one = DTVIN(mechanism, depth, DTVINConfig(hidden=6, **config), generator=rng())
    assert one.transition is not None
    moves, stays = move_taps(one.mechanism, one.config.window), stay_taps(one.mechanism, one.config.window)
    orientations, actions = moves.shape
    with torch.no_grad():
        for parameter in one.transition.parameters():
            parameter.zero_()
        bias = one.transition.bias.view(orientations, actions, one.taps)
        weight = one.transition.weight.view(orientations, actions, one.taps, 1 + orientations, 3, 3)
        for o in range(orientations):
            for a, (_, down, right) in enumerate(one.mechanism.moves[o]):
                weight[o, a, moves[o, a], 0, 1 + down, 1 + right] += 40.0 + margin
                bias[o, a, stays[o]] += 160.0
                weight[o, a, stays[o], 0, 1, 1] -= 120.0
                weight[o, a, stays[o], 1 + o, 1, 1] += 120.0
    return one
