"""Value iteration in plain torch operations: any device and dtype, and what the fused kernels are tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

HELD_BYTES = 256 * 2**20
"""What the backward pass may hold before `segment=None` starts to compute values again."""


def choose_segment(segment: int | None, layers: int, bytes_of_layer: int) -> int:
    """How many layers to hold at a time: `segment`, or all where they fit in `HELD_BYTES`, or about the square root."""
    if segment is None:
        segment = 0 if layers * bytes_of_layer <= HELD_BYTES else int(layers**0.5) + 1
    return layers if segment == 0 else min(segment, layers)


def iterate(
    transition: Tensor,
    reward: Tensor | None,
    values: Tensor,
    keep: tuple[int, ...],
    *,
    bias: Tensor | None,
    actions: Tensor | None,
    discount: float,
    segment: int | None,
) -> Tensor:
    """`value_iteration` of checked arguments from `values[B, C, H, W]`, up to layer `keep[-1]`."""
    layers = keep[-1]
    action_values = one_layer(transition, bias)
    held = values.numel() * (2 * values.element_size() + 8)  # arrived values, their padding, int64 actions
    inputs = (transition, reward, bias, values)
    needs_grad = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    step = choose_segment(segment, layers, held) if needs_grad else layers
    wanted = frozenset(keep)

    def run(start: int, stop: int, values: Tensor) -> tuple[Tensor, ...]:
        kept = []
        for layer in range(start, stop):
            arrived = discount * values if reward is None else reward + discount * values
            values = _choose(action_values(arrived), None if actions is None else actions[layer])
            if layer + 1 in wanted:
                kept.append(values)
        return (values, *kept)

    kept: list[Tensor] = []
    for start in range(0, layers, step):
        stop = min(start + step, layers)
        if step < layers:
            values, *new = checkpoint(run, start, stop, values, use_reentrant=False, preserve_rng_state=False)
        else:
            values, *new = run(start, stop, values)
        kept += new
    return torch.stack(kept)


def one_layer(transition: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """The function from arrived values `[B, C, H, W]` to `Q[B, C, A, H, W]`."""
    channels, num_actions, taps = transition.shape[1:4]
    size = round((taps / channels) ** 0.5)
    pad = size // 2
    if transition.shape[-2:] == (1, 1) and len(transition) == 1:  # one kernel for all cells: a convolution
        kernel = transition.reshape(channels * num_actions, channels, size, size)

        def convolve(arrived: Tensor) -> Tensor:
            out = torch.nn.functional.conv2d(arrived, kernel, padding=pad).unflatten(1, (channels, num_actions))
            return out if bias is None else out + bias

        return convolve

    # Unbound once, so that the backward pass stacks the taps' gradients once and not in every layer; the sum over
    # shifted views saves nothing but the padded values.
    kernels = transition.unbind(3)

    def shift_and_add(arrived: Tensor) -> Tensor:
        out = bias
        for kernel, values in zip(kernels, _shifts(arrived, size), strict=True):
            out = kernel * values if out is None else torch.addcmul(out, kernel, values)
        assert out is not None
        return out

    return shift_and_add


def _shifts(arrived: Tensor, size: int) -> Iterator[Tensor]:
    """The taps of a window one by one, each `[B, 1, 1, H, W]`."""
    height, width = arrived.shape[-2:]
    padded = torch.nn.functional.pad(arrived, [size // 2] * 4)
    for channel in range(arrived.shape[1]):
        for di in range(size):
            for dj in range(size):
                yield padded[:, channel, di : di + height, dj : dj + width][:, None, None]


def _choose(action_values: Tensor, actions: Tensor | None) -> Tensor:
    """The best of `Q[B, C, A, H, W]`, or that of `actions[B, C, H, W]` where they are not -1."""
    best, chosen = action_values.max(2)
    if actions is None:
        return best
    chosen = torch.where(actions >= 0, actions.long(), chosen)
    return action_values.gather(2, chosen[:, :, None]).squeeze(2)
