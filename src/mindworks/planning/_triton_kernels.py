"""The kernels of value iteration in triton. Importing this needs triton, so `_triton` does it late.

An absent array is None, which the compiler knows like the numbers in capitals; it knows the size of a map so that the
offsets of a window are part of the instructions, without which the kernels run out of registers. A tuple is as many
registers. Arrays are dense: transition `[B or 1, C, A, K, PLANE]`, PLANE = H * W, or 1 where all cells share a kernel
and CELL is 0; bias `[B, C, A, H * W]`; planes of values, choices and gradients `[B, C, H * W]`. `state` holds three
numbers on the device: the position in a segment of layers, its first layer, and how many it has.
"""

# mypy: disable-error-code="no-untyped-def, assignment, misc"

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["ring", "offset", "count"])
def forward(
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
    discount,
    ring,
    offset,
    count,
    t_map,
    C: tl.constexpr,
    A: tl.constexpr,
    K: tl.constexpr,
    F: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    PLANE: tl.constexpr,
    CELL: tl.constexpr,
    BLOCK: tl.constexpr,
    HELD: tl.constexpr,
):
    """`count` layers from the one at `offset`: layer p reads plane p % ring of `store` and writes the one after it."""
    s, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    inside, plane = s < C * (H * W), tl.cast(plane, tl.int64)
    c, cell = s // (H * W), s % (H * W)
    row, column = cell // W, cell % W
    here = b * C * (H * W) + s
    t_at = T + b * t_map + c * (A * K * PLANE) + cell * CELL
    bias_at = None
    if bias is not None:
        bias_at = bias + (b * C + c) * (A * (H * W)) + cell
    reward = tl.full([BLOCK], 0.0, tl.float32)
    if R is not None:
        reward = tl.load(R + here, mask=inside, other=0.0)
    held = ()
    if HELD:
        for q in tl.static_range(A * K):
            held = held + (tl.load(t_at + q * PLANE, mask=inside, other=0.0),)  # noqa: RUF005
    start, first, end = tl.load(state) + offset, tl.load(state + 1), tl.load(state + 2)
    for p in range(start, tl.minimum(start + count, end)):
        around = store + (p % ring) * plane + b * C * (H * W) + cell
        window = _window(around, inside, row, column, K, F, H, W)
        prescribed = tl.full([BLOCK], -1, tl.int32)
        if actions is not None:
            prescribed = tl.load(actions + (first + p) * plane + here, mask=inside, other=-1).to(tl.int32)
        best, choice = _best(t_at, held, window, bias_at, prescribed, inside, A, K, H, W, PLANE, BLOCK, HELD)
        tl.store(store + ((p + 1) % ring) * plane + here, reward + discount * best, mask=inside)
        if choices is not None:
            tl.store(choices + p * plane + here, choice.to(tl.uint8), mask=inside)
        if out is not None:
            slot = tl.load(slots + first + p + 1)
            if slot >= 0:
                tl.store(out + slot * plane + here, best, mask=inside)
        tl.debug_barrier()


@triton.jit
def _window(around, inside, row, column, K: tl.constexpr, F: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """The arrived values of the K states around each state."""
    window = ()
    for k in tl.static_range(K):
        i, j = row + (k // F % F - F // 2), column + (k % F - F // 2)
        near = inside & (i >= 0) & (i < H) & (j >= 0) & (j < W)
        step = k // (F * F) * (H * W) + (k // F % F - F // 2) * W + (k % F - F // 2)
        window = window + (tl.load(around + step, mask=near, other=0.0),)  # noqa: RUF005
    return window


@triton.jit
def _best(
    t_at,
    held,
    window,
    bias_at,
    prescribed,
    inside,
    A: tl.constexpr,
    K: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    PLANE: tl.constexpr,
    BLOCK: tl.constexpr,
    HELD: tl.constexpr,
):
    """Q of the best or the prescribed action, and this action, the first where several are best."""
    best, choice = tl.full([BLOCK], 0.0, tl.float32), tl.full([BLOCK], 0, tl.int32)
    for a in tl.static_range(A):
        q = tl.full([BLOCK], 0.0, tl.float32)
        if bias_at is not None:
            q = tl.load(bias_at + a * (H * W), mask=inside, other=0.0)
        for k in tl.static_range(K):
            if HELD:
                q += held[a * K + k] * window[k]
            else:
                q += tl.load(t_at + (a * K + k) * PLANE, mask=inside, other=0.0) * window[k]
        if a == 0:
            best = q
        else:
            better = (prescribed == a) | ((prescribed < 0) & (q > best))
            best = tl.where(better, q, best)
            choice = tl.where(better, a, choice)
    return best, choice


@triton.jit(do_not_specialize=["offset", "count"])
def backward(
    T,
    choices,
    G,
    kept,
    gR,
    slots,
    state,
    plane,
    discount,
    offset,
    count,
    t_map,
    C: tl.constexpr,
    A: tl.constexpr,
    K: tl.constexpr,
    F: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    PLANE: tl.constexpr,
    CELL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Plane n - 1 of `G`, the gradient of the values of layer n - 1, from plane n, for `count` layers n downwards."""
    plane = tl.cast(plane, tl.int64)
    s, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    inside = s < C * (H * W)
    c, cell = s // (H * W), s % (H * W)
    row, column = cell // W, cell % W
    here = b * C * (H * W) + s
    t_at = T + b * t_map + c * (F * F * PLANE)
    total = tl.full([BLOCK], 0.0, tl.float32)
    if gR is not None:
        total = tl.load(gR + here, mask=inside, other=0.0)
    start, first, end = tl.load(state) + offset, tl.load(state + 1), tl.load(state + 2)
    for p in range(start, tl.minimum(start + count, end)):
        before = end - p - 1
        sent = tl.full([BLOCK], 0.0, tl.float32)
        for k in tl.static_range(K):  # tap k % (F * F) of the states of channel k // (F * F) is this state
            i, j = row - (k // F % F - F // 2), column - (k % F - F // 2)
            near = inside & (i >= 0) & (i < H) & (j >= 0) & (j < W)
            other = i * W + j
            at = b * C * (H * W) + k // (F * F) * (H * W) + other
            g = tl.load(G + (before + 1) * plane + at, mask=near, other=0.0)
            a = tl.load(choices + before * plane + at, mask=near, other=0).to(tl.int32)
            tap = ((k // (F * F) * A + a) * K + k % (F * F)) * PLANE + other * CELL
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


@triton.jit(do_not_specialize=["layers"])
def add_transition(
    G,
    choices,
    store,
    gT,
    gbias,
    plane,
    layers,
    C: tl.constexpr,
    A: tl.constexpr,
    K: tl.constexpr,
    F: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add to the gradients of action a and `TAPS` taps what all layers of the segment give."""
    plane = tl.cast(plane, tl.int64)
    s = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = s < plane
    a, tap = tl.program_id(1) // (K // TAPS), tl.program_id(1) % (K // TAPS) * TAPS
    cell, map_and_channel = s % (H * W), s // (H * W)
    row, column = cell // W, cell % W
    x_at = map_and_channel // C * (C * (H * W)) + cell
    sums = ()
    for _ in tl.static_range(TAPS):
        sums = sums + (tl.full([BLOCK], 0.0, tl.float32),)  # noqa: RUF005
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
                near = inside & chosen & (i >= 0) & (i < H) & (j >= 0) & (j < W)
                x = tl.load(store + at + x_at + ((tap + e) // (F * F) * (H * W) + di * W + dj), mask=near, other=0.0)
                more = more + (sums[e] + g * x,)  # noqa: RUF005
            sums = more
    if gT is not None:
        to = gT + (map_and_channel * A + a) * (K * (H * W)) + cell
        for e in tl.static_range(TAPS):
            there = to + (tap + e) * (H * W)
            tl.store(there, tl.load(there, mask=inside, other=0.0) + sums[e], mask=inside)
    if gbias is not None:  # noqa: SIM102 - the second is known on the device alone
        if tap == 0:
            there = gbias + (map_and_channel * A + a) * (H * W) + cell
            tl.store(there, tl.load(there, mask=inside, other=0.0) + of_bias, mask=inside)
