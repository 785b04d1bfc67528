"""Which layers of a planner are told what the best action is: the adaptive highway loss and its ablations.

Wang, Wu, Ashley, Faccio, Li, Huang and Schmidhuber, "Scaling Value Iteration Networks to 5000 Layers for Extreme
Long-Term Planning", arXiv:2406.08404.

Shape legend: K supervised layers, B maps, A actions, O orientations, H, W a map's height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mindworks.errors import require

LOSSES = ("adaptive", "all", "first", "last")


def supervised_layers(depth: int, every: int, loss: str = "adaptive") -> list[int]:
    """The layers that `planning_loss` looks at: every `every`-th and the last one; for `last` that one alone."""
    require(depth >= 1, f"depth must be at least 1, got {depth}")
    require(every >= 1, f"every must be at least 1, got {every}")
    require(loss in LOSSES, f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    if loss == "last":
        return [depth]
    return [*range(every, depth, every), depth]


def supervised(layers: Sequence[int], distances: Tensor, loss: str = "adaptive") -> Tensor:
    """Which layer is told about which state, bool `[K, B, O, H, W]`, from `distances[B, O, H, W]` (below 1: never).

    - `adaptive`: layer n is told about states at most n steps from the goal, `1[n >= l]` of the paper
    - `all`: every layer is told about every state
    - `first`: a state is told to the first layer that is deep enough for it, and to no other
    - `last`: as `all`, for the single layer that is given
    """
    require(loss in LOSSES, f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    depths = torch.tensor(layers, device=distances.device).view(-1, 1, 1, 1, 1)
    reachable = (distances >= 1).expand(len(layers), *distances.shape)
    if loss in ("all", "last"):
        return reachable
    enough = reachable & (depths >= distances)
    if loss == "adaptive":
        return enough
    return enough & torch.cat([torch.ones_like(enough[:1]), ~enough[:-1]])


def planning_loss(
    logits: Tensor, target: Tensor, distances: Tensor, layers: Sequence[int], loss: str = "adaptive"
) -> Tensor:
    """Mean cross-entropy over the supervised pairs of a layer and a state.

    `logits[K, B, A, O, H, W]` of the layers `layers`, `target[B, A, O, H, W]` with the probability of each action,
    `distances[B, O, H, W]` in steps. Zero where nothing is supervised.
    """
    require(len(layers) == len(logits), f"layers must be {len(logits)}, one per row of logits, got {len(layers)}")
    states = (logits.shape[1], *logits.shape[3:])
    require(target.shape == logits.shape[1:], f"target must be {list(logits.shape[1:])}, got {list(target.shape)}")
    require(distances.shape == states, f"distances must be {list(states)}, got {list(distances.shape)}")
    mask = supervised(layers, distances, loss).to(logits.dtype)
    entropy = -(logits.log_softmax(2) * target).sum(2)
    return (entropy * mask).sum() / mask.sum().clamp_min(1.0)
