"""Value iteration on the GPU by kernels of triton: float32 on CUDA.

A map of few states is one program that loops over all layers, with a barrier between two of them. A larger map is cut
into blocks of states with one launch per layer, and many launches are replayed as CUDA graphs of up to 64 layers. The
way back is three steps without atomics, so that the same inputs give the same bits: the gradient of the values layer by
layer, as a sum over the neighbours whose chosen action looks here; then, for all layers at once, the gradients of the
transition and the bias, each state, action and tap summed by one thread; then sums over what is shared.

Held per layer and state are the arrived values R + discount * V, the best action, and on the way back the gradient of
V; with segments for the layers of one segment only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mindworks.planning._reference import choose_segment

MAX_TERMS = 512
"""The largest A * K that is written out; compilation takes about linear time in it."""
ONE_PROGRAM = 2048
"""The most states of a map that one program loops over."""
BLOCK = 128
"""States of a program where a map has several."""
GRAPH = 64
"""The most layers of one graph."""
GRAPH_FROM = 256
"""Fewer layers than this are launched one by one: a graph would take longer to make than it saves."""
WARPS = 16
"""The most warps of a program."""
REGISTERS = 80
"""The most numbers of the transition that a thread of a map's one program keeps in registers over all layers."""


@cache
def available() -> bool:
    """Whether triton can be imported and sees a GPU."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return torch.cuda.is_available() and torch.version.cuda is not None


def supports(transition: Tensor) -> bool:
    """Whether the kernels take this transition: float32, on CUDA, of a size that is worth writing out."""
    actions, taps = transition.shape[2:4]
    right = transition.dtype == torch.float32 and transition.device.type == "cuda"
    return right and actions * taps <= MAX_TERMS and actions <= 256 and available()


@cache
def kernels() -> Any:
    """The module of the kernels; triton compiles one for its numbers at its first launch."""
    from mindworks.planning import _triton_kernels

    return _triton_kernels


Launch = Callable[[int, int], None]
"""Launches `count` layers of a segment from the one at `offset` from `state` on."""


@dataclass
class Call:
    """The numbers and arrays of one call that all its launches share."""

    transition: Tensor
    reward: Tensor | None
    bias: Tensor | None
    actions: Tensor | None
    slots: Tensor
    """int32 `[layers + 1]`: the plane of the values kept, or of their gradient, -1 for none"""
    state: Tensor
    """int32 `[3]`, see above; `starts[segments, 3]` has what it is at the start of each segment"""
    starts: Tensor
    shape: tuple[int, int, int, int]
    keep: tuple[int, ...]
    discount: float
    step: int
    """how many layers the backward pass holds at a time"""

    @property
    def layers(self) -> int:
        """How many there are."""
        return self.keep[-1]

    @property
    def states(self) -> int:
        """States of one map."""
        return self.shape[1] * self.shape[2] * self.shape[3]

    @property
    def taps(self) -> int:
        """States in a window, K."""
        return self.transition.shape[3]

    @property
    def constants(self) -> dict[str, int]:
        """The numbers in capitals that all kernels share."""
        _, channels, actions, taps = self.transition.shape[:4]
        height, width = self.shape[2:]
        return {
            "C": channels,
            "A": actions,
            "K": taps,
            "F": round((taps / channels) ** 0.5),
            "H": height,
            "W": width,
        }

    @property
    def plane(self) -> int:
        """States of all maps."""
        return self.shape[0] * self.states

    @property
    def strides(self) -> dict[str, int]:
        """Of the transition: from map to map, tap to tap and cell to cell; 0 where it is shared."""
        maps, *_, height, width = self.transition.shape
        t_map = self.transition[0].numel() if maps > 1 else 0
        return {"t_map": t_map, "PLANE": height * width, "CELL": int(height * width > 1)}

    def planes(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uninitialised planes `[count, B, C, H, W]`."""
        return torch.empty(count, *self.shape, dtype=dtype, device=self.transition.device)

    def arrived(self, values: Tensor) -> Tensor:
        """`R + discount * V` `[B, C, H, W]`."""
        scaled = self.discount * values
        return scaled if self.reward is None else self.reward + scaled

    def segments(self) -> list[tuple[int, int]]:
        """The first layer of each segment and how many it has."""
        return [(first, min(self.step, self.layers - first)) for first in range(0, self.layers, self.step)]

    @property
    def one_program(self) -> bool:
        """Whether one program takes a map through all layers."""
        return self.states <= ONE_PROGRAM

    @property
    def block(self) -> int:
        """States of a program."""
        return max(32, 1 << (self.states - 1).bit_length()) if self.one_program else BLOCK

    @property
    def options(self) -> dict[str, int]:
        """Of a launch over the states of all maps."""
        return {**self.constants, **self.strides, "BLOCK": self.block, "num_warps": min(WARPS, self.block // 32)}

    @property
    def grid(self) -> tuple[int, int]:
        """Programs of a launch: blocks and maps."""
        return ceil(self.states / self.block), self.shape[0]

    def forward(self, store: Tensor, choices: Tensor | None, out: Tensor | None) -> Launch:
        """Launches from plane 0 of `store`, a ring of planes, that write the values kept to `out` where it is given."""
        options = self.options
        of_thread = self.transition.shape[2] * self.taps * self.block // (32 * options["num_warps"])
        arrays = (self.transition, self.bias, self.actions, self.reward, store, choices, out, self.slots, self.state)
        numbers = (self.plane, self.discount, len(store))
        kernel, held = kernels().forward[self.grid], self.one_program and of_thread <= REGISTERS
        return lambda offset, count: kernel(*arrays, *numbers, offset, count, **options, HELD=held)

    def backward(self, choices: Tensor, gradients: Tensor, kept: Tensor, of_reward: Tensor | None) -> Launch:
        """Launches from the last plane of a segment in `gradients` back to plane 0."""
        options = self.options
        arrays = (self.transition, choices, gradients, kept, of_reward, self.slots, self.state)
        kernel = kernels().backward[self.grid]
        return lambda offset, count: kernel(*arrays, self.plane, self.discount, offset, count, **options)

    def add_transition(
        self, arrays: tuple[Tensor, Tensor, Tensor], layers: int, of_transition: Tensor | None, of_bias: Tensor | None
    ) -> None:
        """Add what the layers of a segment give, whose gradients, choices and arrived values are `arrays`."""
        if of_transition is None and of_bias is None:
            return
        taps = self.taps if of_transition is None else max(n for n in range(1, 17) if self.taps % n == 0)
        grid = (ceil(self.plane / 128), self.transition.shape[2] * (self.taps // taps))
        options = {**self.constants, "TAPS": taps, "BLOCK": 128, "num_warps": 4}
        kernels().add_transition[grid](*arrays, of_transition, of_bias, self.plane, layers, **options)


class Layers:
    """Runs the launches of layers: all in one, one by one, or by graphs of many that are made once and replayed."""

    def __init__(self, call: Call, launch: Launch) -> None:
        self.call, self.launch = call, launch
        self.graph: torch.cuda.CUDAGraph | None = None
        parts = ceil(call.step / GRAPH)
        self.length = ceil(call.step / parts)

    def run(self, first: int, count: int) -> None:
        """The `count` layers of the segment that starts at layer `first`."""
        call = self.call
        call.state.copy_(call.starts[first // call.step])
        if call.one_program:
            self.launch(0, count)
        elif call.layers < GRAPH_FROM or not call.state.is_cuda or torch.cuda.is_current_stream_capturing():
            self._one_by_one(count)
        else:
            if self.graph is None:
                self._capture()
                call.state.copy_(call.starts[first // call.step])
            assert self.graph is not None
            for _ in range(0, count, self.length):
                self.graph.replay()

    def _one_by_one(self, count: int) -> None:
        for offset in range(count):
            self.launch(offset, 1)

    def _capture(self) -> None:
        """Make the graph; its layers beyond the end of a segment do nothing."""
        self.launch(0, 0)  # all that is captured has been loaded before
        self.call.state[:1].add_(0)
        self.graph = torch.cuda.CUDAGraph()
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            self.graph.capture_begin(capture_error_mode="thread_local")
            self._one_by_one(self.length)
            self.call.state[:1].add_(self.length)
            self.graph.capture_end()
        current.wait_stream(aside)


def iterate(
    transition: Tensor,
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
    inputs = (transition, reward, bias, initial)
    needs_grad = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    layers = keep[-1]
    held = 9 * shape[0] * shape[1] * shape[2] * shape[3]
    step = choose_segment(segment, layers, held) if needs_grad else layers
    slots = torch.full((layers + 1,), -1, dtype=torch.int32)
    slots[list(keep)] = torch.arange(len(keep), dtype=torch.int32)
    starts = torch.tensor([[0, first, min(step, layers - first)] for first in range(0, layers, step)])
    starts = starts.to(torch.int32)
    call = Call(
        transition.detach().contiguous(),
        None if reward is None else reward.detach().contiguous(),
        None if bias is None else bias.detach().contiguous(),
        None if actions is None else actions.contiguous(),
        slots=slots.to(transition.device),
        state=starts[0].clone().to(transition.device),
        starts=starts.to(transition.device),
        shape=shape,
        keep=keep,
        discount=float(discount),
        step=step,
    )
    with _on(transition):
        if needs_grad:
            values: Tensor = _ValueIteration.apply(*inputs, call)
            return values
        return _run(call, initial, hold=False)[0]


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Launches go to the GPU of `tensor`; kernels in triton's interpreter run on the CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _run(call: Call, initial: Tensor | None, hold: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The kept values, the planes and choices of the last segment, and the arrived values at all borders.

    Without `hold` two planes take turns and nothing is held.
    """
    out = call.planes(len(call.keep))
    store = call.planes(call.step + 1 if hold else 2)
    choices = call.planes(call.step, torch.uint8) if hold else None
    store[0] = call.arrived(call.planes(1)[0].zero_() if initial is None else initial.detach())
    segments = call.segments()
    borders = call.planes(len(segments)) if len(segments) > 1 else None
    layers = Layers(call, call.forward(store, choices if borders is None else None, out))
    for number, (first, count) in enumerate(segments):
        if borders is not None:
            borders[number] = store[0]
        layers.run(first, count)
        if number + 1 < len(segments):
            store[0] = store[count]
    return out, store, choices, borders


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
    ) -> Tensor:
        values, store, choices, borders = _run(call, initial, hold=True)
        held = (store, choices, None) if borders is None else (None, None, borders)  # the rest is found again
        ctx.save_for_backward(*held, transition, reward, bias)  # the last three to see changes of them
        ctx.call = call
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        with _on(gradient):
            return (*_gradients(call, gradient.contiguous(), ctx.saved_tensors[:3], ctx.needs_input_grad), None)


def _gradients(
    call: Call,
    gradient: Tensor,
    held: tuple[Tensor | None, Tensor | None, Tensor | None],
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Those of transition, reward, bias and initial values, from that of the kept values."""
    batch, channels, height, width = call.shape
    rows = (batch, channels, call.transition.shape[2])
    of_transition = gradient.new_zeros(*rows, call.taps, height, width) if wanted[0] else None
    of_bias = gradient.new_zeros(*rows, height, width) if wanted[2] else None
    of_reward = gradient.new_zeros(call.shape) if wanted[1] else None
    store, choices, borders = held
    store = call.planes(call.step + 1) if store is None else store
    choices = call.planes(call.step, torch.uint8) if choices is None else choices
    gradients = call.planes(call.step + 1)
    forward = Layers(call, call.forward(store, choices, None))
    backward = Layers(call, call.backward(choices, gradients, gradient, of_reward))
    latest = gradient[-1]
    for number, (first, count) in reversed(list(enumerate(call.segments()))):
        if borders is not None:
            store[0] = borders[number]
            forward.run(first, count)
        gradients[count] = latest
        backward.run(first, count)
        call.add_transition((gradients, choices, store), count, of_transition, of_bias)
        latest = gradients[0]
    if of_transition is not None:
        of_transition = of_transition.sum_to_size(call.transition.shape)
    return of_transition, of_reward, of_bias, latest.clone() if wanted[3] else None
