"""Value iteration by the fused kernels: float32 on the CPU, with numba.

The kernels loop over the layers inside a map, so that the transition of a map stays in the cache. They store the values
(4 bytes) and the best action (1 byte) of a cell and layer, nothing else; with segments only every so many layers, and
the rest once more in the backward pass by the same kernel, hence with the same actions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from mindworks.core.denormals import flushed
from mindworks.planning import _jit, _kernels
from mindworks.planning._reference import choose_segment

Floats = NDArray[np.float32]


def _empty(count: int, dtype: torch.dtype = torch.float32) -> NDArray[Any]:
    """An uninitialised flat array on a border of cache lines: numpy's own start between them, which costs a third."""
    return torch.empty(count, dtype=dtype).numpy()


def _zeros(count: int) -> Floats:
    return torch.zeros(count).numpy()


def supports(transition: Tensor) -> bool:
    """Whether the kernels take this transition: float32, on the CPU, of a size that is worth writing out."""
    actions, taps = transition.shape[2:4]
    right = transition.dtype == torch.float32 and transition.device.type == "cpu"
    size = actions <= _kernels.MAX_ACTIONS and actions * taps <= _kernels.MAX_TERMS
    return right and size and _jit.available()


def pack(transition: Tensor) -> Floats:
    """The transition `[B or 1, C, A, K, H or 1, W or 1]` in the layout of the kernels, flat."""
    transition = transition.detach()
    maps, height, width = len(transition), *transition.shape[-2:]
    if (height, width) == (1, 1):  # the same number in all lanes
        lanes = transition.reshape(maps, -1, 1).expand(-1, -1, _kernels.LANES)
        return lanes.contiguous().numpy().reshape(-1)
    return _pack(transition.reshape(maps, -1, height, width))


def _pack(planes: Tensor) -> Floats:
    """Planes `[B, Q, H, W]` as `[B, H, blocks, Q, lane]`, flat."""
    maps, count, height, width = planes.shape
    packed = _empty(maps * height * _blocks(width) * count * _kernels.LANES)
    sizes = np.array([maps, count, height, width], np.uint64)
    _kernels.pack_kernel()(planes.contiguous().numpy().reshape(-1), packed, sizes)
    return packed


def _unpack(packed: Floats, shape: torch.Size) -> Tensor:
    """The way back to `[B, ..., H, W]`; the lanes of a shared kernel are added up."""
    maps, height, width = shape[0], *shape[-2:]
    if (height, width) == (1, 1):
        return torch.from_numpy(packed.reshape(-1, _kernels.LANES).sum(1)).reshape(shape)
    planes = _empty(shape.numel())
    sizes = np.array([maps, shape[1:-2].numel(), height, width], np.uint64)
    _kernels.unpack_kernel()(packed, planes, sizes)
    return torch.from_numpy(planes).reshape(shape)


def _blocks(width: int) -> int:
    return -(-width // _kernels.LANES)


def _rows(values: Tensor, width: int) -> NDArray[Any]:
    """`[..., H, W]` with rows of whole blocks and zeros at their ends."""
    return torch.nn.functional.pad(values.detach(), (0, width - values.shape[-1])).contiguous().numpy()


@dataclass
class Call:
    """The numbers of one call that all its kernels share; arrays are in the kernels' layouts."""

    batch: int
    channels: int
    num_actions: int
    size: int
    height: int
    width: int
    layers: int
    keep: tuple[int, ...]
    discount: np.float32
    step: int
    """How many layers the backward pass holds at a time."""
    shape: torch.Size
    """That of the transition."""
    reward: Floats | None
    bias: Floats | None
    actions: NDArray[np.int8] | None

    @property
    def row(self) -> int:
        """Cells of a row in whole blocks, W8."""
        return _blocks(self.width) * _kernels.LANES

    @property
    def plane(self) -> int:
        """Cells of the values of one layer."""
        return self.channels * self.height * self.row

    @property
    def padded(self) -> int:
        """Cells of the arrived values of one layer with their border."""
        return self.channels * (self.height + self.size - 1) * (self.row + self.size - 1)

    @property
    def span(self) -> int:
        """Length of a padded row in the scratch of the backward kernel."""
        return _kernels.span_of_row(self.row + self.size - 1)

    @property
    def taps(self) -> int:
        """States in a window, K."""
        return self.channels * self.size**2

    def stored(self, hold: str) -> list[int]:
        """The plane of the values of each layer from 0 on; with less than `all` held, plane 0 is used again."""
        if hold == "all":
            return list(range(self.layers + 1))
        named = {*self.keep, *(range(0, self.layers, self.step) if hold == "borders" else ())}
        planes = {layer: plane for plane, layer in enumerate(sorted(named), start=1)}
        return [planes.get(layer, 0) for layer in range(self.layers + 1)]

    def empty(self, planes: int, dtype: torch.dtype = torch.float32) -> NDArray[Any]:
        """Uninitialised planes `[B, planes, C, H, W8]`."""
        flat = _empty(self.batch * planes * self.plane, dtype)
        return flat.reshape(self.batch, planes, self.channels, self.height, self.row)

    def arrival(self) -> Floats:
        """The reward, or one plane of zeros for all maps."""
        return _zeros(self.plane) if self.reward is None else self.reward.reshape(-1)

    def sizes(self, layers: int, store: Floats, choices: NDArray[np.uint8]) -> list[int]:
        """The numbers that both kernels unpack first."""
        blocks = self.row // _kernels.LANES
        bias_cell = self.channels * self.num_actions * _kernels.LANES
        cell = bias_cell * self.taps
        one_kernel = self.shape[-2:] == (1, 1)
        t_map = cell if one_kernel else cell * self.height * blocks
        return [
            *(self.batch, layers, self.height, blocks, self.width),
            *(0 if self.shape[0] == 1 else t_map, 0 if one_kernel else cell),
            *(bias_cell * self.height * blocks, bias_cell),
            *(0 if self.reward is None else self.plane, store.shape[1] * self.plane, choices.shape[1] * self.plane),
        ]

    @flushed()
    def forward(
        self, packed: Floats, store: Floats, choices: NDArray[np.uint8], slots: list[int], held: list[int], first: int
    ) -> None:
        """One layer for every entry of `held`, the plane of its choices, from the values in plane `slots[0]`.

        Layer n goes to plane `slots[n]` and follows `actions[first + n - 1]`.
        """
        flags = (self.bias is not None, self.actions is not None)
        kernel = _kernels.forward_kernel(self.channels, self.num_actions, self.size, *flags)
        sizes = [*self.sizes(len(held), store, choices), self.layers * self.plane]
        kernel(
            packed,
            np.empty(0, np.float32) if self.bias is None else self.bias,
            np.empty(0, np.int8) if self.actions is None else self.actions.reshape(-1)[first * self.plane :],
            self.arrival(),
            store.reshape(-1),
            choices.reshape(-1),
            _zeros(self.padded),
            np.array(slots, np.uint64),
            np.array(held, np.uint64),
            np.array(sizes, np.uint64),
            self.discount,
        )


@dataclass
class Gradients:
    """Sums over layers: `values[B, C, H, W8]` go in as those of the last layer and come out as those of the first."""

    transition: Floats
    bias: Floats
    reward: Floats
    values: Floats
    scratch: tuple[Floats, ...]

    @classmethod
    def zeros(cls, call: Call, packed: Floats, transition: bool, bias: bool) -> Gradients:
        """Before the first segment; what is not wanted is empty."""
        shape = (call.batch, call.channels, call.height, call.row)
        plane = call.batch * call.plane
        block = _kernels.layers_of_pass(call.channels, call.size)
        ring = (call.size + 1) * call.taps * call.span
        return cls(
            transition=_zeros(packed.size if transition or bias else 0),
            bias=_zeros(plane * call.num_actions if bias else 0),
            reward=_zeros(plane).reshape(shape),
            values=_zeros(plane).reshape(shape),
            scratch=(
                _zeros(block * call.padded),
                _empty((block + 1) * call.plane),
                _zeros(ring),
            ),
        )

    @flushed()
    def add(
        self, call: Call, packed: Floats, store: Floats, choices: NDArray[np.uint8], kept: Floats, kept_slots: list[int]
    ) -> None:
        """Go back through the layers of `store`, whose plane n holds the values of layer n of the segment."""
        kernel = _kernels.backward_kernel(call.channels, call.num_actions, call.size, call.span)
        sizes = call.sizes(len(kept_slots) - 1, store, choices)
        maps, wants = sizes[5], (self.transition.size > 0, self.bias.size > 0)
        sizes += [kept.shape[1] * call.plane, maps, *map(int, wants)]
        kernel(
            packed,
            call.arrival(),
            store.reshape(-1),
            choices.reshape(-1),
            self.values.reshape(-1),
            kept.reshape(-1),
            np.array(kept_slots, np.uint64),
            self.transition,
            self.bias,
            self.reward.reshape(-1),
            *self.scratch,
            np.array(sizes, np.uint64),
            call.discount,
        )


def iterate(
    transition: Tensor,
    packed: Floats,
    reward: Tensor | None,
    initial: Tensor | None,
    keep: tuple[int, ...],
    *,
    shape: tuple[int, int, int, int],
    bias: Tensor | None,
    actions: Tensor | None,
    discount: float,
    segment: int | None,
) -> Tensor:
    """`value_iteration` of checked arguments for maps of `shape`, up to layer `keep[-1]`."""
    batch, channels, height, width = shape
    layers, row = keep[-1], _blocks(width) * _kernels.LANES
    call = Call(
        batch,
        channels,
        num_actions=transition.shape[2],
        size=round((transition.shape[3] / channels) ** 0.5),
        height=height,
        width=width,
        layers=layers,
        keep=keep,
        discount=np.float32(discount),
        step=choose_segment(segment, layers, 5 * batch * channels * height * row),
        shape=transition.shape,
        reward=None if reward is None else _rows(reward, row),
        bias=None if bias is None else _pack(bias.detach().flatten(1, 2)),
        actions=None if actions is None else _rows(actions[:layers].transpose(0, 1), row),
    )
    inputs = (transition, reward, bias, initial)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        values: Tensor = _ValueIteration.apply(*inputs, call, packed)
        return values
    return _run(call, packed, initial, "nothing")[0]


def _run(call: Call, packed: Floats, initial: Tensor | None, hold: str) -> tuple[Tensor, Floats, NDArray[np.uint8]]:
    """The kept values `[len(keep), B, C, H, W]`, and what is held for the backward pass: all, borders or nothing."""
    slots = call.stored(hold)
    held = list(range(call.layers)) if hold == "all" else [0] * call.layers
    store, choices = call.empty(max(slots) + 1), call.empty(max(held) + 1, torch.uint8)
    store[:, slots[0]] = 0 if initial is None else _rows(initial, call.row)
    call.forward(packed, store, choices, slots, held, 0)
    kept = torch.from_numpy(store)[:, [slots[layer] for layer in call.keep], ..., : call.width]
    return kept.transpose(0, 1).contiguous(), store, choices


class _ValueIteration(torch.autograd.Function):
    """The kernels under autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        transition: Tensor,
        reward: Tensor | None,
        bias: Tensor | None,
        initial: Tensor | None,
        call: Call,
        packed: Floats,
    ) -> Tensor:
        hold = "all" if call.step == call.layers else "borders"
        values, store, choices = _run(call, packed, initial, hold)
        # The choices of a run with borders are those of its last layer: they are found again.
        saved = (packed, store, choices if hold == "all" else choices[:0])
        ctx.save_for_backward(*map(torch.from_numpy, saved))  # so that they go when the graph goes
        ctx.call = call
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        packed, store, choices = (saved.numpy() for saved in ctx.saved_tensors)
        wants_transition, wants_reward, wants_bias, wants_initial = ctx.needs_input_grad[:4]
        gradients = Gradients.zeros(call, packed, wants_transition, wants_bias)
        kept = _rows(gradient.transpose(0, 1), call.row)
        planes = {layer: plane for plane, layer in enumerate(call.keep, start=1)}
        for first, values, actions in _segments(call, packed, store, choices):
            last = min(first + call.step, call.layers)
            kept_slots = [planes.get(layer, 0) for layer in range(first, last + 1)]
            gradients.add(call, packed, values, actions, kept, kept_slots)
        found = (gradients.reward, gradients.values)
        of_reward, of_initial = (torch.from_numpy(x)[..., : call.width].contiguous() for x in found)
        bias_shape = (call.batch, call.channels, call.num_actions, call.height, call.width)
        return (
            _unpack(gradients.transition, call.shape) if wants_transition else None,
            of_reward if wants_reward else None,
            _unpack(gradients.bias, torch.Size(bias_shape)) if wants_bias else None,
            of_initial if wants_initial else None,
            None,
            None,
        )


def _segments(
    call: Call, packed: Floats, store: Floats, choices: NDArray[np.uint8]
) -> Iterator[tuple[int, Floats, NDArray[np.uint8]]]:
    """The values and choices of each segment with its first layer, from the last segment to the first."""
    if call.step == call.layers:
        yield 0, store, choices
        return
    slots = call.stored("borders")
    values, actions = call.empty(call.step + 1), call.empty(call.step, torch.uint8)
    for first in reversed(range(0, call.layers, call.step)):
        layers = min(call.step, call.layers - first)
        values[:, 0] = store[:, slots[first]]
        call.forward(packed, values, actions, list(range(layers + 1)), list(range(layers)), first)
        yield first, values, actions
