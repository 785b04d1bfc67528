"""Value iteration on a map as one differentiable operator: the layers under every planner of this package.

One layer takes the values `V` of the latent states of a map, `C` channels per cell, to

    Q[a] = bias[a] + sum_k T[a, k] * (R[k] + discount * V[k])        V' = max_a Q[a]

where `k` runs over the `C * F * F` states of the window around a cell. A kernel `T` of its own for every cell of every
map is the dynamic transition of Wang et al., "Scaling Value Iteration Networks to 5000 Layers", arXiv:2406.08404;
one `T` for all cells is the convolution of Tamar et al., "Value Iteration Networks", arXiv:1602.02867. An
action given from outside instead of the maximum is the value exploration of Wang et al., "Highway Value Iteration
Networks", arXiv:2406.03485.

Shape legend: B maps, C channels, A latent actions, F window, K = C * F * F, H, W a map's height and width, N layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mindworks.errors import require
from mindworks.planning import _fused, _jit, _kernels, _reference, _triton


def window(values: Tensor, size: int) -> Tensor:
    """The states `[B, C * size * size, H, W]` around each cell of `values[B, C, H, W]`, zeros outside the map.

    Tap `(c * size + di) * size + dj` is channel c of the cell at rows `di - size // 2` and columns `dj - size // 2`
    from the centre.
    """
    batch, channels, height, width = values.shape
    taps = torch.nn.functional.unfold(values, size, padding=size // 2)
    return taps.reshape(batch, channels * size * size, height, width)


def q_values(
    transition: Tensor, reward: Tensor | None, values: Tensor, *, bias: Tensor | None = None, discount: float = 1.0
) -> Tensor:
    """`Q[B, C, A, H, W]` of one layer, from `values[B, C, H, W]`; the arguments are those of `value_iteration`."""
    arrived = discount * values if reward is None else reward + discount * values
    return _reference.one_layer(transition, bias)(arrived)


def value_iteration(
    transition: Tensor | Packed,
    reward: Tensor | None,
    layers: int,
    *,
    bias: Tensor | None = None,
    initial: Tensor | None = None,
    keep: Sequence[int] | None = None,
    actions: Tensor | None = None,
    discount: float = 1.0,
    segment: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """Values `[len(keep), B, C, H, W]` after the layers named in `keep` (1 to `layers`; the last alone by default).

    `transition[B or 1, C, A, K, H or 1, W or 1]`: sizes of 1 are shared, as by a convolution. `reward[B, C, H, W]` is
    collected on arrival, None for none; `bias[B, C, A, H, W]` is added to every Q. The values start at
    `initial[B, C, H, W]`, zeros by default. `actions[layers, B, C, H, W]` (int8) prescribes the action of a layer and
    state, and -1 leaves it to the maximum. Gradients reach `transition`, `reward`, `bias` and `initial`; where several
    actions are best, the first one gets them.

    `segment` is how many layers the backward pass holds at a time: the values between are computed again, which costs
    one more forward pass and saves memory; 0 holds all of them, None chooses. `backend` is `auto`, or one of
    `backends()`. Raises `InputError` that names the argument of a wrong shape.
    """
    packed = transition if isinstance(transition, Packed) else None
    transition = transition.transition if isinstance(transition, Packed) else transition
    shape = _checked_shape(transition, reward, bias, initial, actions, layers)
    kept = kept_layers(keep, layers)
    require(segment is None or segment >= 0, f"segment must be at least 0 or None, got {segment}")
    chosen = _chosen(backend, transition)
    options: dict[str, Any] = {"bias": bias, "actions": actions, "discount": discount, "segment": segment}
    if chosen == "triton":
        return _triton.iterate(transition, reward, initial, kept, shape=shape, **options)
    if chosen == "fused":
        data = packed.data if packed is not None else None
        data = _fused.pack(transition) if data is None else data
        return _fused.iterate(transition, data, reward, initial, kept, shape=shape, **options)
    start = transition.new_zeros(shape) if initial is None else initial
    return _reference.iterate(transition, reward, start, kept, **options)


def backends() -> tuple[str, ...]:
    """The names that `backend` may have here, fastest first.

    `triton` needs triton and float32 on a GPU of CUDA, `fused` numba and float32 on the CPU.
    """
    return ("triton",) * _triton.available() + ("fused",) * _jit.available() + ("torch",)


@dataclass(frozen=True)
class Packed:
    """A transition and its copy in the layout of the fused kernels, for calls that share it; see `pack`."""

    transition: Tensor
    data: NDArray[np.float32] | None


def pack(transition: Tensor) -> Packed:
    """`transition` for many calls of `value_iteration`, which takes it in the place of the tensor.

    Gradients reach `transition` as ever. Do not change it in place after this call: the fused kernels would not see it.
    """
    return Packed(transition, _fused.pack(transition) if _fused.supports(transition) else None)


def _chosen(backend: str, transition: Tensor) -> str:
    """The backend to use; `auto` takes the kernels that can run."""
    if backend == "auto":
        return "fused" if _fused.supports(transition) else "triton" if _triton.supports(transition) else "torch"
    require(backend in backends(), f"backend must be auto or one of {backends()}, got {backend!r}")
    if backend != "torch":
        supported = _fused.supports(transition) if backend == "fused" else _triton.supports(transition)
        place, terms = ("the CPU", _kernels.MAX_TERMS) if backend == "fused" else ("CUDA", _triton.MAX_TERMS)
        limit = f"float32 on {place} and A * K of at most {terms}"
        got = f"{transition.dtype} on {transition.device} and A * K = {transition.shape[2] * transition.shape[3]}"
        require(supported, f"backend {backend} needs a transition of {limit}, got {got}")
    return backend


def kept_layers(keep: Sequence[int] | None, layers: int) -> tuple[int, ...]:
    """The layers to return, in order."""
    kept = (layers,) if keep is None else tuple(int(layer) for layer in keep)
    require(len(kept) > 0, "keep must name at least one layer, got none")
    rising = all(a < b for a, b in pairwise(kept))
    require(rising, f"keep must be strictly increasing, got {kept}")
    require(kept[0] >= 1 and kept[-1] <= layers, f"keep must lie in 1 to layers={layers}, got {kept[0]} to {kept[-1]}")
    return kept


def _checked_shape(
    transition: Tensor,
    reward: Tensor | None,
    bias: Tensor | None,
    initial: Tensor | None,
    actions: Tensor | None,
    layers: int,
) -> tuple[int, int, int, int]:
    """The shape `(B, C, H, W)` of the maps, or `InputError` that names the argument of a wrong shape or dtype."""
    require(layers >= 1, f"layers must be at least 1, got {layers}")
    require(transition.ndim == 6, f"transition must be [B, C, A, K, H, W], got shape {tuple(transition.shape)}")
    require(transition.is_floating_point(), f"transition must be floating point, got {transition.dtype}")
    maps, channels, num_actions, taps, rows, columns = transition.shape
    require(transition.numel() > 0, f"transition must not be empty, got shape {tuple(transition.shape)}")
    size = round((taps / channels) ** 0.5)
    odd = size % 2 == 1 and channels * size * size == taps
    require(odd, f"transition must have K = C * F * F of an odd F, got C={channels} and K={taps}")
    dims = {"reward": (reward, 4), "initial": (initial, 4), "bias": (bias, 5), "actions": (actions, 5)}
    for name, (tensor, ndim) in dims.items():
        if tensor is not None:
            form = {"bias": "[B, C, A, H, W]", "actions": "[layers, B, C, H, W]"}.get(name, "[B, C, H, W]")
            require(tensor.ndim == ndim, f"{name} must be {form}, got shape {tuple(tensor.shape)}")
            same = tensor.device == transition.device
            require(same, f"{name} must be on {transition.device} like transition, got {tensor.device}")
            dtype = torch.int8 if name == "actions" else transition.dtype
            require(tensor.dtype == dtype, f"{name} must be {dtype}, got {tensor.dtype}")
    shapes = [(x.shape[0], *x.shape[-2:]) for x in (reward, initial, bias) if x is not None]
    shapes += [(actions.shape[1], *actions.shape[-2:])] if actions is not None else []
    batch, height, width = (shapes or [(maps, rows, columns)])[0]
    expected = {
        "reward": (batch, channels, height, width),
        "initial": (batch, channels, height, width),
        "bias": (batch, channels, num_actions, height, width),
        "actions": (layers, batch, channels, height, width),
    }
    for name, (tensor, _) in dims.items():
        if tensor is not None:
            got = tuple(tensor.shape)
            require(got == expected[name], f"{name} must have shape {expected[name]}, got {got}")
    require(maps in (1, batch), f"transition must have 1 or {batch} maps, got {maps}")
    cells = (rows, columns)
    require(cells in ((1, 1), (height, width)), f"transition must have 1 x 1 or {height} x {width} cells, got {cells}")
    if actions is not None:
        low, high = int(actions.min()), int(actions.max())
        require(low >= -1 and high < num_actions, f"actions must lie in -1 to {num_actions - 1}, got {low} to {high}")
    return batch, channels, height, width
