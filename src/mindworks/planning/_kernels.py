"""The source of the fused kernels of value iteration, written out per number of channels, actions and window.

Every array is flat. A map is cut into blocks of 8 cells of a row, the lanes of a vector register; W8 is the width
rounded up to whole blocks, and the lanes outside the map hold zeros. Layouts, from the slowest dimension:

    transition  [map, row, block, c, a, k, lane]      cell stride 0 for one kernel per map, map stride 0 for shared maps
    bias        [map, row, block, c, a, lane]
    values, reward, gradients, choices  [map, plane, c, row, W8]      a plane is a layer that is kept
    x           [c, row + F - 1, W8 + F - 1]          arrived values R + discount * V with the zeros around the map

Three rules hold the speed of C++ (measured 2026-11-22): the loop over lanes is innermost with all its taps written out,
indices are unsigned (numba counts signed ones from the end when they are negative), and one loop never reads and writes
the same array at different places.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mindworks.planning._jit import Kernel, compile_kernel, jit

LANES = 8
MAX_TERMS = 512
MAX_ACTIONS = 56  # more than this was not tried; hundreds are too much for numba
"""The largest A * K that is written out; compilation takes about linear time in it."""

STRIDES = ["t_map", "t_cell", "b_map", "b_cell", "r_map", "v_map", "a_map"]
SIZES = ["batch", "layers", "H", "nb", "W", *STRIDES]
FORWARD_SIZES = [*SIZES, "act_map"]
BACKWARD_SIZES = [*SIZES, "k_map", "gt_map", "want_transition", "want_bias"]


@cache
def forward_kernel(channels: int, actions: int, size: int, bias: bool, forced: bool) -> Kernel:
    """`(T, bias, actions, R, store, choices, x, slots, choice_slots, sizes, discount)`: values into `store`.

    Layer n reads the plane `slots[n]` and writes `slots[n + 1]`, and its choices to `choice_slots[n]`.
    """
    name = f"forward_c{channels}_a{actions}_f{size}" + "_bias" * bias + "_forced" * forced
    source = f"""
def {name}(T, bias, actions, R, store, choices, x, slots, choice_slots, sizes, discount):
{_unpack(FORWARD_SIZES)}
{_geometry(channels, size)}
    for b in range(batch):
        v = b * v_map + slots[U(0)] * M
        for n in range(layers):
            for c in range(U({channels})):
                for i in range(H):
                    to = c * P + (i + U({size // 2})) * S + U({size // 2})
                    r_at = b * r_map + c * HW + i * W8
                    v_at = v + c * HW + i * W8
                    for j in range(W8):
                        x[to + j] = R[r_at + j] + discount * store[v_at + j]
            v = b * v_map + slots[n + U(1)] * M
            chosen = b * a_map + choice_slots[n] * M
            act = b * act_map + n * M
            for i in range(H):
                for jb in range(nb):
                    t_at = b * t_map + (i * nb + jb) * t_cell
                    b_at = b * b_map + (i * nb + jb) * b_cell
                    x_at = i * S + jb * U(8)
                    for c in range(U({channels})):
                        o = c * HW + i * W8 + jb * U(8)
                        for l in range(U(8)):
{_best_action(channels * size * size, actions, bias, forced)}
                            store[v + o + l] = best
                            choices[chosen + o + l] = choice
                        t_at += U({actions * channels * size * size * LANES})
                        b_at += U({actions * LANES})
                if t_cell == U(0):
                    for c in range(U({channels})):
                        for j in range(W, W8):
                            store[v + c * HW + i * W8 + j] = ZERO
"""
    return compile_kernel(name, source, __file__)


def _unpack(names: list[str]) -> str:
    return "\n".join(f"    {name} = sizes[U({i})]" for i, name in enumerate(names))


def _geometry(channels: int, size: int) -> str:
    """Strides of the planes, and the offset of each tap in `x`."""
    lines = ["W8 = nb * U(8)", f"S = W8 + U({size - 1})", f"P = (H + U({size - 1})) * S", "HW = H * W8"]
    lines += [f"M = U({channels}) * HW"]
    taps = ((c, di, dj) for c in range(channels) for di in range(size) for dj in range(size))
    lines += [f"o{k} = U({c}) * P + U({di}) * S + U({dj})" for k, (c, di, dj) in enumerate(taps)]
    return "\n".join("    " + line for line in lines)


def _best_action(taps: int, actions: int, bias: bool, forced: bool) -> str:
    """The body over one lane: Q of each action, the best or the prescribed one, the first where several are best."""
    lines = ["t_lane = t_at + l", "x_lane = x_at + l"]
    lines += [f"x{k} = x[x_lane + o{k}]" for k in range(taps)]
    if forced:
        lines += ["prescribed = I(actions[act + o + l])", "free = prescribed < I(0)"]
    for a in range(actions):
        terms = [f"T[t_lane + U({(a * taps + k) * LANES})] * x{k}" for k in range(taps)]
        first = [f"bias[b_at + U({a * LANES}) + l]"] if bias else []
        lines += [f"q = {' + '.join(first + terms)}"]
        if a == 0:
            lines += ["best = q", "choice = I(0)"]
        else:
            lines += [f"better = (prescribed == I({a})) | (free & (q > best))" if forced else "better = q > best"]
            lines += ["best = q if better else best", f"choice = I({a}) if better else choice"]
    return "\n".join(" " * 28 + line for line in lines)


@cache
def backward_kernel(channels: int, actions: int, size: int, span: int) -> Kernel:
    """`(T, R, store, choices, g, kept, kept_slots, gT, gbias, gR, x, gs, w, sizes, discount)`: adds to the gradients.

    `g` comes in as the gradient of the last values and goes out as that of the first; layer n reads the values of plane
    n - 1 of `store` and adds plane `kept_slots[n] - 1` of `kept` to `g` where that is not negative. Several layers
    share one pass over the gradient of the transition: `gs` and `x` hold their gradients and arrived values. `w` is a
    ring of rows of what each cell sends back through each tap, a row of a tap being `span_of_row` long: a constant,
    since one loop writes all taps.
    """
    name = f"backward_c{channels}_a{actions}_f{size}_w{span}"
    block = layers_of_pass(channels, size)
    source = f"""
def {name}(T, R, store, choices, g, kept, kept_slots, gT, gbias, gR, x, gs, w, sizes, discount):
{_unpack(BACKWARD_SIZES)}
{_geometry(channels, size)}
    CP = U({channels}) * P
    for b in range(batch):
        g_map = b * M
        n = layers
        while n > U(0):
            held = min(n, U({block}))
            for q in range(M):
                gs[q] = g[g_map + q]
            for t in range(held):
                layer = n - t
                if kept_slots[layer] > U(0):
                    k_at = b * k_map + (kept_slots[layer] - U(1)) * M
                    for q in range(M):
                        gs[t * M + q] += kept[k_at + q]
                v = b * v_map + (layer - U(1)) * M
                for c in range(U({channels})):
                    for i in range(H):
                        to = t * CP + c * P + (i + U({size // 2})) * S + U({size // 2})
                        r_at = b * r_map + c * HW + i * W8
                        v_at = v + c * HW + i * W8
                        for j in range(W8):
                            x[to + j] = R[r_at + j] + discount * store[v_at + j]
{_to_values(channels, actions, size, span)}
            for q in range(M):
                g[g_map + q] = gs[held * M + q]
            for q in range(held * M, U({block}) * M):
                gs[q] = ZERO
{_to_transition(channels, actions, size, block)}
            n = n - U({block}) if n > U({block}) else U(0)
"""
    return compile_kernel(name, source, __file__)


def span_of_row(padded_row: int) -> int:
    """The length of a row of `w` for padded rows of a map: one for all usual maps, so that they share a kernel."""
    span = 136
    while span < padded_row:
        span = 2 * span - 8
    return span


def layers_of_pass(channels: int, size: int) -> int:
    """How many layers share one pass over the gradient of the transition."""
    return max(1, 72 // (channels * size * size))


def _to_values(channels: int, actions: int, size: int, span: int) -> str:
    """One layer's gradient in `gs` to the layer before and `gR`: rows go to `w`, and are gathered once complete."""
    taps, pad, ring = channels * size * size, size // 2, size + 1
    lines = ["t_lane = t_at + l", "w_lane = w_at + l"]
    lines += ["gradient = gs[t * M + o + l]", "choice = I(choices[chosen + o + l])"]
    lines += [f"m{a} = gradient if choice == I({a}) else ZERO" for a in range(actions)]
    for k in range(taps):
        at = f"w[w_lane + U({k * span})]"
        terms = [f"m{a} * T[t_lane + U({(a * taps + k) * LANES})]" for a in range(actions)]
        lines += [f"{at} = {' + '.join(([at] if channels > 1 else []) + terms)}"]
    scatter = "\n".join(" " * 36 + line for line in lines)
    rows = "\n".join(
        f"{' ' * 24}w{di} = (r + U({2 * pad - di})) % U({ring}) * U({taps * span}) + U({di * size * span})"
        for di in range(size)
    )
    sent = " + ".join(
        f"w[w{di} + c_at + U({dj * span + 2 * pad - dj}) + j]" for di in range(size) for dj in range(size)
    )
    return f"""
                chosen = b * a_map + (layer - U(1)) * M
                next_layer = (t + U(1)) * M
                for row in range(H + U({2 * pad + 1})):
                    w_row = row % U({ring}) * U({taps * span})
                    inside = row >= U({pad}) and row < H + U({pad})
                    if {"not inside" if channels == 1 else "True"}:
                        for k in range(U({taps})):
                            for q in range(W8):
                                w[w_row + k * U({span}) + U({pad}) + q] = ZERO
                    if inside:
                        i = row - U({pad})
                        for jb in range(nb):
                            t_at = b * t_map + (i * nb + jb) * t_cell
                            w_at = w_row + U({pad}) + jb * U(8)
                            for c in range(U({channels})):
                                o = c * HW + i * W8 + jb * U(8)
                                for l in range(U(8)):
{scatter}
                                t_at += U({actions * taps * LANES})
                    if row > U({2 * pad}):
                        r = row - U({2 * pad + 1})
{rows}
                        for c in range(U({channels})):
                            c_at = c * U({size * size * span})
                            o = c * HW + r * W8
                            for j in range(W8):
                                sent = {sent}
                                gR[g_map + o + j] += sent
                                gs[next_layer + o + j] = discount * sent
                            if t_cell == U(0):
                                for j in range(W, W8):
                                    gs[next_layer + o + j] = ZERO"""


def _to_transition(channels: int, actions: int, size: int, block: int) -> str:
    """The gradients of the transition and the bias by the layers in `gs` and `x`."""
    taps = channels * size * size
    layers = "\n".join(
        f"{' ' * 12}c{t} = b * a_map + (n - U({t + 1})) * M if n > U({t}) else b * a_map" for t in range(block)
    )
    masks = "\n".join(
        f"{' ' * 36}m{t} = gs[U({t}) * M + o + l] if I(choices[c{t} + o + l]) == action else ZERO" for t in range(block)
    )
    lanes = "".join(f"; x{t} = x_at + U({t}) * CP + l" for t in range(block))
    sums = f"{' ' * 36}t_lane = t_at + l{lanes}\n" + "\n".join(
        f"{' ' * 36}gT[t_lane + U({k * LANES})] = gT[t_lane + U({k * LANES})]"
        + "".join(f" + m{t} * x[x{t} + o{k}]" for t in range(block))
        for k in range(taps)
    )
    return f"""
{layers}
            if want_transition + want_bias > U(0):
                for i in range(H):
                    for jb in range(nb):
                        t_at = b * gt_map + (i * nb + jb) * t_cell
                        b_at = b * b_map + (i * nb + jb) * b_cell
                        x_at = i * S + jb * U(8)
                        for c in range(U({channels})):
                            o = c * HW + i * W8 + jb * U(8)
                            for a in range(U({actions})):
                                action = I(a)
                                for l in range(U(8)):
{masks}
{sums}
                                t_at += U({taps * LANES})
                                if want_bias > U(0):
                                    for t in range(held):
                                        chosen = b * a_map + (n - U(1) - t) * M
                                        for l in range(U(8)):
                                            if I(choices[chosen + o + l]) == action:
                                                gbias[b_at + l] += gs[t * M + o + l]
                                b_at += U({LANES})"""


@cache
def pack_kernel() -> Kernel:
    """`(planes[map, q, H, W], packed[map, H, nb, q, lane], sizes)`, with zeros in the lanes outside the map."""
    return jit(_pack)


@cache
def unpack_kernel() -> Kernel:
    """`(packed, planes, sizes)`: the way back."""
    return jit(_unpack_planes)


def _pack(planes, packed, sizes):  # type: ignore[no-untyped-def]
    batch, count, height, width = sizes[0], sizes[1], sizes[2], sizes[3]
    eight = np.uint64(8)
    blocks, whole = (width + np.uint64(7)) // eight, width // eight
    for b in range(batch):
        for i in range(height):
            for q in range(count):
                source = ((b * count + q) * height + i) * width
                at = (b * height + i) * blocks * count * eight + q * eight
                for jb in range(whole):
                    for lane in range(eight):
                        packed[at + jb * count * eight + lane] = planes[source + jb * eight + lane]
                if whole < blocks:
                    at += whole * count * eight
                    source += whole * eight
                    for lane in range(eight):
                        packed[at + lane] = np.float32(0)
                    for lane in range(width - whole * eight):
                        packed[at + lane] = planes[source + lane]


def _unpack_planes(packed, planes, sizes):  # type: ignore[no-untyped-def]
    batch, count, height, width = sizes[0], sizes[1], sizes[2], sizes[3]
    eight = np.uint64(8)
    blocks, whole = (width + np.uint64(7)) // eight, width // eight
    for b in range(batch):
        for i in range(height):
            for q in range(count):
                target = ((b * count + q) * height + i) * width
                at = (b * height + i) * blocks * count * eight + q * eight
                for jb in range(whole):
                    for lane in range(eight):
                        planes[target + jb * eight + lane] = packed[at + jb * count * eight + lane]
                at += whole * count * eight
                for lane in range(width - whole * eight):
                    planes[target + whole * eight + lane] = packed[at + lane]
