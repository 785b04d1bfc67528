"""Value iteration on the GPU by kernels of triton: float32 on CUDA.

A map of few states is one program that loops over all layers, with a barrier between two of them. A larger map is cut
into blocks of states with one launch per layer, and many launches are replayed as CUDA graphs of up to 64 layers. The
way back is three steps without atomics, so that the same inputs give the same bits: the gradient of the values layer by
layer, as a sum over the neighbours whose chosen action looks here; then, for all layers at once, the gradients of the
transition and the bias, each state, action and tap summed by one thread; then sums over what is shared.

Held per layer and state are the arrived values R + discount * V, the best action, and on the way back the gradient of
V; with segments for the layers of one segment only.

Arrays are dense: transition `[B or 1, C, A, K, cells or 1]`, bias `[B, C, A, cells]`, all planes `[B, C, cells]`, where
cells = H * W and a state is a channel and a cell. `state` holds three numbers on the device, so that a graph can be
replayed for other layers: the position in the segment, its first layer, and how many layers it has.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mindworks.planning._reference import choose_segment

MAX_TERMS = 512
"""The largest A * K that is written out; compilation takes about linear time in it."""
ONE_PROGRAM = 2048
"""The most states of a map that one program loops over."""
GRAPH = 64
"""The most layers of one graph."""
GRAPH_FROM = 256
"""Fewer layers than this are launched one by one: a graph would take longer to make than it saves."""
REGISTERS = 80
"""The most numbers of the transition that a thread of a map's one program keeps in registers over all layers."""

tl: Any = None  # triton.language, once the kernels are compiled
if TYPE_CHECKING:
    constexpr = int
else:
    constexpr = None  # that of triton.language, likewise: a number that is known to the compiler


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


# -- kernels: plain functions until `_compiled` has imported triton ----------------------------------------------------
# An absent array is None, known at compile time like the numbers in capitals. A tuple is as many registers.


def _forward_kernel(  # type: ignore[no-untyped-def]
    T,
    bias,
    actions,
    R,
    store,
    choices,
    out,
    slots,
    state,
    plane,
    cells,
    height,
    width,
    t_map,
    t_plane,
    t_cell,
    r_map,
    discount,
    ring,
    offset,
    count,
    C: constexpr,
    A: constexpr,
    K: constexpr,
    F: constexpr,
    BLOCK: constexpr,
    HELD: constexpr,
):
    """`count` layers from the one at `offset`: layer p reads plane p % ring of `store` and writes the one after it."""
    plane = tl.cast(plane, tl.int64)
    s, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    inside = s < C * cells
    c, cell = s // cells, s % cells
    row, column = cell // width, cell % width
    here = b * C * cells + s
    t_at = T + b * t_map + c * (A * K * t_plane) + cell * t_cell
    bias_at = None
    if bias is not None:
        bias_at = bias + (b * C + c) * (A * cells) + cell
    reward = tl.full([BLOCK], 0.0, tl.float32)
    if R is not None:
        reward = tl.load(R + b * r_map + s, mask=inside, other=0.0)
    held = ()
    if HELD:
        for q in tl.static_range(A * K):
            held = held + (tl.load(t_at + q * t_plane, mask=inside, other=0.0),)
    start, first, end = tl.load(state) + offset, tl.load(state + 1), tl.load(state + 2)
    for p in range(start, tl.minimum(start + count, end)):
        x_at = store + (p % ring) * plane + b * C * cells + cell
        window = _window(x_at, inside, row, column, cells, height, width, K, F)
        prescribed = tl.full([BLOCK], -1, tl.int32)
        if actions is not None:
            prescribed = tl.load(actions + (first + p) * plane + here, mask=inside, other=-1).to(tl.int32)
        best, choice = _best(t_at, held, window, bias_at, prescribed, inside, t_plane, cells, A, K, BLOCK, HELD)
        tl.store(store + ((p + 1) % ring) * plane + here, reward + discount * best, mask=inside)
        if choices is not None:
            tl.store(choices + p * plane + here, choice.to(tl.uint8), mask=inside)
        if out is not None:
            slot = tl.load(slots + first + p + 1)
            if slot >= 0:
                tl.store(out + slot * plane + here, best, mask=inside)
        tl.debug_barrier()


def _window(x_at, inside, row, column, cells, height, width, K: constexpr, F: constexpr):  # type: ignore[no-untyped-def]
    """The arrived values of the K states around each state."""
    window = ()
    for k in tl.static_range(K):
        i, j = row + (k // F % F - F // 2), column + (k % F - F // 2)
        near = inside & (i >= 0) & (i < height) & (j >= 0) & (j < width)
        step = k // (F * F) * cells + (k // F % F - F // 2) * width + (k % F - F // 2)
        window = window + (tl.load(x_at + step, mask=near, other=0.0),)
    return window


def _best(  # type: ignore[no-untyped-def]
    t_at,
    held,
    window,
    bias_at,
    prescribed,
    inside,
    t_plane,
    cells,
    A: constexpr,
    K: constexpr,
    BLOCK: constexpr,
    HELD: constexpr,
):
    """Q of the best or the prescribed action, and this action, the first where several are best."""
    best, choice = tl.full([BLOCK], 0.0, tl.float32), tl.full([BLOCK], 0, tl.int32)
    for a in tl.static_range(A):
        q = tl.full([BLOCK], 0.0, tl.float32)
        if bias_at is not None:
            q = tl.load(bias_at + a * cells, mask=inside, other=0.0)
        for k in tl.static_range(K):
            if HELD:
                q += held[a * K + k] * window[k]
            else:
                q += tl.load(t_at + (a * K + k) * t_plane, mask=inside, other=0.0) * window[k]
        if a == 0:
            best = q
        else:
            better = (prescribed == a) | ((prescribed < 0) & (q > best))
            best = tl.where(better, q, best)
            choice = tl.where(better, a, choice)
    return best, choice


def _values_kernel(  # type: ignore[no-untyped-def]
    T,
    choices,
    G,
    kept,
    gR,
    slots,
    state,
    plane,
    cells,
    height,
    width,
    t_map,
    t_plane,
    t_cell,
    discount,
    offset,
    count,
    C: constexpr,
    A: constexpr,
    K: constexpr,
    F: constexpr,
    BLOCK: constexpr,
):
    """Plane n - 1 of `G`, the gradient of the values of layer n - 1, from plane n, for `count` layers n downwards."""
    plane = tl.cast(plane, tl.int64)
    s, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    inside = s < C * cells
    c, cell = s // cells, s % cells
    row, column = cell // width, cell % width
    here = b * C * cells + s
    t_at = T + b * t_map + c * (F * F * t_plane)
    total = tl.full([BLOCK], 0.0, tl.float32)
    if gR is not None:
        total = tl.load(gR + here, mask=inside, other=0.0)
    start, first, end = tl.load(state) + offset, tl.load(state + 1), tl.load(state + 2)
    for p in range(start, tl.minimum(start + count, end)):
        before = end - p - 1
        from_at = b * C * cells
        sent = tl.full([BLOCK], 0.0, tl.float32)
        for k in tl.static_range(K):  # tap k % (F * F) of the states of channel k // (F * F) is this state
            i, j = row - (k // F % F - F // 2), column - (k % F - F // 2)
            near = inside & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            other = i * width + j
            at = from_at + k // (F * F) * cells + other
            g = tl.load(G + (before + 1) * plane + at, mask=near, other=0.0)
            a = tl.load(choices + before * plane + at, mask=near, other=0).to(tl.int32)
            tap = ((k // (F * F) * A + a) * K + k % (F * F)) * t_plane + other * t_cell
            sent += g * tl.load(t_at + tap, mask=near, other=0.0)
        total += sent
        gradient = discount * sent
        slot = tl.load(slots + first + before)
        if slot >= 0:
            gradient += tl.load(kept + slot * plane + here, mask=inside, other=0.0)
        tl.store(G + before * plane + here, gradient, mask=inside)
        tl.debug_barrier()
    if gR is not None:
        tl.store(gR + here, total, mask=inside)


def _transition_kernel(  # type: ignore[no-untyped-def]
    G,
    choices,
    store,
    gT,
    gbias,
    plane,
    cells,
    height,
    width,
    layers,
    C: constexpr,
    A: constexpr,
    K: constexpr,
    F: constexpr,
    TAPS: constexpr,
    BLOCK: constexpr,
):
    """Add to the gradients of action a and `TAPS` taps what all layers of the segment give."""
    plane = tl.cast(plane, tl.int64)
    s = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = s < plane
    a, tap = tl.program_id(1) // (K // TAPS), tl.program_id(1) % (K // TAPS) * TAPS
    cell, map_and_channel = s % cells, s // cells
    row, column = cell // width, cell % width
    x_at = map_and_channel // C * (C * cells) + cell
    sums = ()
    for _ in tl.static_range(TAPS):
        sums = sums + (tl.full([BLOCK], 0.0, tl.float32),)
    of_bias = tl.full([BLOCK], 0.0, tl.float32)
    for n in range(layers):
        at = n * plane
        chosen = tl.load(choices + at + s, mask=inside, other=255).to(tl.int32) == a
        g = tl.load(G + at + plane + s, mask=inside & chosen, other=0.0)
        of_bias += g
        if gT is not None:
            more = ()
            for e in tl.static_range(TAPS):
                di, dj = (tap + e) // F % F - F // 2, (tap + e) % F - F // 2
                i, j = row + di, column + dj
                near = inside & chosen & (i >= 0) & (i < height) & (j >= 0) & (j < width)
                x = tl.load(store + at + x_at + ((tap + e) // (F * F) * cells + di * width + dj), mask=near, other=0.0)
                more = more + (sums[e] + g * x,)
            sums = more
    if gT is not None:
        to = gT + (map_and_channel * A + a) * (K * cells) + cell
        for e in tl.static_range(TAPS):
            there = to + (tap + e) * cells
            tl.store(there, tl.load(there, mask=inside, other=0.0) + sums[e], mask=inside)
    if gbias is not None:
        if tap == 0:
            there = gbias + (map_and_channel * A + a) * cells + cell
            tl.store(there, tl.load(there, mask=inside, other=0.0) + of_bias, mask=inside)


@cache
def _compiled() -> tuple[Any, Any, Any]:
    """The kernels, each compiled by triton for its numbers at its first launch."""
    import triton
    import triton.language

    helpers = {name: triton.jit(getattr(globals()[name], "fn", globals()[name])) for name in ("_window", "_best")}
    globals().update(helpers, tl=triton.language, constexpr=triton.language.constexpr)
    loops = triton.jit(do_not_specialize=["ring", "offset", "count"])
    return loops(_forward_kernel), loops(_values_kernel), triton.jit(do_not_specialize=["layers"])(_transition_kernel)


# -- calls -------------------------------------------------------------------------------------------------------------


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
        return self.keep[-1]

    @property
    def states(self) -> int:
        """States of one map."""
        return self.shape[1] * self.shape[2] * self.shape[3]

    @property
    def taps(self) -> int:
        return self.transition.shape[3]

    @property
    def constants(self) -> dict[str, int]:
        """The numbers in capitals that all kernels share."""
        _, channels, actions, taps = self.transition.shape[:4]
        return {"C": channels, "A": actions, "K": taps, "F": round((taps / channels) ** 0.5)}

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Of a plane of all maps, of a channel, height and width."""
        batch, _, height, width = self.shape
        return batch * self.states, height * width, height, width

    @property
    def strides(self) -> tuple[int, int, int]:
        """From map to map, tap to tap and cell to cell of the transition; 0 where it is shared."""
        maps, *_, height, width = self.transition.shape
        one_kernel = height * width == 1
        return (self.transition[0].numel() if maps > 1 else 0), height * width, int(not one_kernel)

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
        return max(32, 1 << (self.states - 1).bit_length()) if self.one_program else 128

    @property
    def options(self) -> dict[str, int]:
        """Of a launch over the states of all maps."""
        return {**self.constants, "BLOCK": self.block, "num_warps": min(16, self.block // 32)}

    @property
    def grid(self) -> tuple[int, int]:
        return ceil(self.states / self.block), self.shape[0]

    def forward(self, store: Tensor, choices: Tensor | None, out: Tensor | None) -> Launch:
        """Launches from plane 0 of `store`, a ring of planes, that write the values kept to `out` where it is given."""
        options = self.options
        of_thread = self.transition.shape[2] * self.taps * self.block // (32 * options["num_warps"])
        r_map = 0 if self.reward is None else self.states
        arrays = (self.transition, self.bias, self.actions, self.reward, store, choices, out, self.slots, self.state)
        numbers = (*self.sizes, *self.strides, r_map, self.discount, len(store))
        kernel = _compiled()[0][self.grid]
        held = self.one_program and of_thread <= REGISTERS
        return lambda offset, count: kernel(*arrays, *numbers, offset, count, **options, HELD=held)

    def backward(self, choices: Tensor, gradients: Tensor, kept: Tensor, of_reward: Tensor | None) -> Launch:
        """Launches from the last plane of a segment in `gradients` back to plane 0."""
        arrays = (self.transition, choices, gradients, kept, of_reward, self.slots, self.state)
        numbers = (*self.sizes, *self.strides, self.discount)
        kernel = _compiled()[1][self.grid]
        return lambda offset, count: kernel(*arrays, *numbers, offset, count, **self.options)

    def add_transition(
        self,
        layers: int,
        store: Tensor,
        choices: Tensor,
        gradients: Tensor,
        of_transition: Tensor | None,
        of_bias: Tensor | None,
    ) -> None:
        """Add what the layers of a segment give."""
        if of_transition is None and of_bias is None:
            return
        taps = max(n for n in range(1, 17) if self.taps % n == 0)
        groups = 1 if of_transition is None else self.taps // taps
        grid = (ceil(self.sizes[0] / 128), self.transition.shape[2] * groups)
        options = {**self.constants, "TAPS": taps if groups > 1 or of_transition is not None else self.taps}
        arrays = (gradients, choices, store, of_transition, of_bias)
        _compiled()[2][grid](*arrays, *self.sizes, layers, **options, BLOCK=128, num_warps=4)


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
        self.launch(0, 0)  # compiled and loaded before the capture
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
            values: Tensor = _ValueIteration.apply(*inputs, call)  # type: ignore[no-untyped-call]
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
        if borders is not None:  # the rest is found again, segment by segment
            store = choices = None
        ctx.save_for_backward(store, choices, borders, transition, reward, bias)  # the last three to see changes
        ctx.call = call
        return values

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        with _on(gradient):
            found = _gradients(call, gradient.contiguous(), *ctx.saved_tensors[:3], ctx.needs_input_grad[:4])
        return (*found, None)


def _gradients(
    call: Call,
    gradient: Tensor,
    store: Tensor | None,
    choices: Tensor | None,
    borders: Tensor | None,
    wanted: tuple[bool, bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """Those of transition, reward, bias and initial values, from that of the kept values."""
    batch, channels, height, width = call.shape
    rows = (batch, channels, call.transition.shape[2])
    of_transition = gradient.new_zeros(*rows, call.taps, height, width) if wanted[0] else None
    of_bias = gradient.new_zeros(*rows, height, width) if wanted[2] else None
    of_reward = gradient.new_zeros(call.shape) if wanted[1] else None
    again = store is None or choices is None
    store = call.planes(call.step + 1) if store is None else store
    choices = call.planes(call.step, torch.uint8) if choices is None else choices
    gradients = call.planes(call.step + 1)
    forward = Layers(call, call.forward(store, choices, None)) if again else None
    backward = Layers(call, call.backward(choices, gradients, gradient, of_reward))
    latest = gradient[-1]
    for number, (first, count) in reversed(list(enumerate(call.segments()))):
        if forward is not None:
            assert borders is not None
            store[0] = borders[number]
            forward.run(first, count)
        gradients[count] = latest
        backward.run(first, count)
        call.add_transition(count, store, choices, gradients, of_transition, of_bias)
        latest = gradients[0]
    if of_transition is not None:
        of_transition = of_transition.sum_to_size(call.transition.shape)
    return of_transition, of_reward, of_bias, latest.clone() if wanted[3] else None
