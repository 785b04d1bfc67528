"""The recursions of `mindworks.core.returns` in one pass over the memory: on the CPU, with numba.

Import it late: it needs the extra `fast`. Rows are taken in groups that go through time side by side, so that one does
not wait for the other. Sums and products are those of the plain form, in its order and without fused roundings:
`AFFINE` and `GATE` give the same bits.

Shape legend: N rows, T steps, G rows of a group. One row of `trace` or `cut` stands for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

AFFINE, GATE, SOFT = 0, 1, 2  # as in mindworks.core.returns
GROUPS = (16, 16, 32)  # rows of a group per kind, measured 2026-11-27
U = np.uint64  # an index that may be negative costs a comparison per access


def run(
    kind: int,
    reward: Array,
    discount: Array,
    value: Array,
    taken: Array | None,
    trace: Array | None,
    cut: Array | None,
    lam: float,
    sharpness: float,
    passes: int,
) -> tuple[Array, int]:
    """Targets `[..., T]` and how many numbers were refused; without `taken` it is `value`, without `trace` `lam`."""
    count = reward.shape[-1]
    rows = (reward.size // count, count)
    y = np.empty(rows, reward.dtype)
    scratch = np.empty((3, GROUPS[kind], count), reward.dtype)
    refused = _KERNELS[kind](
        _matrix(reward, rows),
        _matrix(discount, rows),
        _matrix(value, rows),
        _matrix(value if taken is None else taken, rows),
        np.full((1, count), lam, reward.dtype) if trace is None else _matrix(trace, rows),
        np.zeros((1, count), np.bool_) if cut is None else _matrix(cut, rows),
        sharpness,
        passes,
        scratch,
        y,
    )
    return y.reshape(reward.shape), refused


def _matrix(part: Array, rows: tuple[int, int]) -> Array:
    return np.ascontiguousarray(part).reshape(rows)


def _compiled(function: Callable[..., Any], inline: str = "never") -> Any:
    """Compiled when first called, without a cache where no folder can be written to."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "inline": inline}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


def _inlined(function: Callable[..., Any]) -> Any:
    """Part of the one who calls it: LLVM makes no vector instructions of a function of its own here."""
    return _compiled(function, "always")


@_inlined
def _prepare(kind, reward, discount, value, taken, trace, cut, one, fixed, factor):  # type: ignore[no-untyped-def]
    """What does not depend on the recursion, for one row; where the factor is 0 the next step is not read."""
    zero, unit = reward.dtype.type(0), reward.dtype.type(1)
    refused = 0
    for t in range(len(reward)):
        refused += (discount[t] < zero) | (discount[t] > unit) | (trace[t] < zero)
    for t in range(len(reward)):
        r, d, v, c = reward[t], discount[t], value[t], trace[t]
        single = r + d * v
        single = r if d == zero else single
        reach = zero if cut[t] else d * c  # one condition at a time, which LLVM turns into vector instructions
        one[t] = single
        factor[t] = zero if d == zero else reach
        if kind == AFFINE:
            interior = r + d * (v - c * taken[t])
            interior = single if cut[t] else interior
            fixed[t] = single if d == zero else interior
        elif kind == GATE:
            interior = single if cut[t] else r
            interior = single if single != single else interior
            fixed[t] = single if d == zero else interior
        else:
            fixed[t] = zero if d == zero else v
    return refused


@_inlined
def _scan(kind, one, fixed, factor, sharpness, y):  # type: ignore[no-untyped-def]
    """Targets of a group from its last steps on; `y` holds those of one step."""
    zero = y.dtype.type(0)
    gain = np.empty(len(y), y.dtype)
    for back in range(2, y.shape[1] + 1):
        t = U(y.shape[1] - back)
        if kind == SOFT:
            for j in range(len(y)):
                ahead = y[U(j), t + U(1)] - fixed[U(j), t]
                gain[j] = ahead if factor[U(j), t] != zero else zero
            for j in range(len(y)):
                gain[j] *= _sigmoid(sharpness * gain[j])
            for j in range(len(y)):
                y[U(j), t] = one[U(j), t] + factor[U(j), t] * gain[j]
        else:
            for j in range(len(y)):
                ahead = y[U(j), t + U(1)] if factor[U(j), t] != zero else zero
                far = fixed[U(j), t] + factor[U(j), t] * ahead
                y[U(j), t] = one[U(j), t] if kind == GATE and far <= one[U(j), t] else far


@_inlined
def _step(kind, one, fixed, factor, sharpness, y):  # type: ignore[no-untyped-def]
    """Look one step further in one row: forwards in time, so that `y[t + 1]` is still that of the pass before."""
    zero = y.dtype.type(0)
    if kind == SOFT:
        for t in range(len(y) - 1):
            gain = y[t + 1] - fixed[t] if factor[t] != zero else zero
            y[t] = one[t] + factor[t] * (gain * _sigmoid(sharpness * gain))
    elif kind == GATE:
        for t in range(len(y) - 1):
            ahead = y[t + 1] if factor[t] != zero else zero
            far = fixed[t] + factor[t] * ahead
            y[t] = one[t] if far <= one[t] else far
    else:
        for t in range(len(y) - 1):
            ahead = y[t + 1] if factor[t] != zero else zero
            y[t] = fixed[t] + factor[t] * ahead


@_inlined
def _sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)) to an absolute error of 1e-14, in float64: unlike `math.exp` it becomes vector instructions.

    The power series of exp(-x / 64) to degree 8, squared six times. Beyond 40 the sigmoid is 0 or 1 to that error.
    """
    z = x * (-1.0 / 64.0)
    z = -0.625 if z < -0.625 else z
    z = 0.625 if z > 0.625 else z
    e = 1.0 / 120.0 + z * (1.0 / 720.0 + z * (1.0 / 5040.0 + z * (1.0 / 40320.0)))
    e = 1.0 + z * (1.0 + z * (1.0 / 2.0 + z * (1.0 / 6.0 + z * (1.0 / 24.0 + z * e))))
    e *= e
    e *= e
    e *= e
    e *= e
    e *= e
    e *= e
    return 1.0 / (1.0 + e)


def _kernel(kind: int) -> Any:
    """The kernel of one kind, so that a loop holds no branch that it never takes.

    It writes the targets into `y[N, T]` and returns how many discounts are outside [0, 1] and traces below 0. `passes`
    is negative for targets up to the ends of the trajectories, else how many steps follow the first; scratch:
    `[3, G, T]`.
    """

    def fill(reward, discount, value, taken, trace, cut, sharpness, passes, scratch, y):  # type: ignore[no-untyped-def]
        refused = 0
        one, fixed, factor = scratch[0], scratch[1], scratch[2]
        for first in range(0, len(reward), len(one)):
            group = y[first : first + len(one)]
            for j in range(len(group)):
                i = first + j
                c, ends = trace[min(i, len(trace) - 1)], cut[min(i, len(cut) - 1)]
                refused += _prepare(
                    kind, reward[i], discount[i], value[i], taken[i], c, ends, one[j], fixed[j], factor[j]
                )
                for t in range(0 if passes >= 0 else y.shape[1] - 1, y.shape[1]):
                    group[j, t] = one[j, t]
            if passes < 0:
                _scan(kind, one, fixed, factor, sharpness, group)
            else:
                for j in range(len(group)):
                    for _ in range(passes):
                        _step(kind, one[j], fixed[j], factor[j], sharpness, group[j])
        return refused

    return _compiled(fill)


_KERNELS = [_kernel(kind) for kind in (AFFINE, GATE, SOFT)]
