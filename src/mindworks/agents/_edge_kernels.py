"""The sampler of `mindworks.agents.edges` graph by graph, with numba. Import it late: it needs the extra `fast`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ONE, LOW = np.uint64(1), np.uint64(63)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compiled when first called, without a cache where no folder can be written to."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)


@_compiled
def add(wanted, pairs, order, free, base, allowed):  # type: ignore[no-untyped-def]
    """Included and feasible `[G, d]` of `wanted[G, d]`; `base[n, W]` are the nodes reached by fixed edges.

    Edges that are `free` close no cycle, and reach is not kept for them; no rows in `allowed`: all edges are.
    """
    included = np.empty_like(wanted)
    feasible = np.empty_like(wanted)
    reach = np.empty_like(base)
    nodes, words = base.shape
    for g in range(len(wanted)):
        reach[:] = base
        for e in order:
            possible = allowed[g, e] if len(allowed) > 0 else True
            if possible and not free[e]:
                source, target = pairs[e, 0], pairs[e, 1]
                word, bit = source >> 6, np.uint64(source) & LOW
                possible = (reach[target, word] >> bit) & ONE == 0
                if possible and wanted[g, e]:
                    for node in range(nodes):
                        if (reach[node, word] >> bit) & ONE:
                            for w in range(words):
                                reach[node, w] |= reach[target, w]
            feasible[g, e] = possible
            included[g, e] = possible and wanted[g, e]
    return included, feasible
