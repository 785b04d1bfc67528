"""Numba, imported late and without the assumption that arrays overlap.

Arrays of numba carry no promise that they are distinct, and LLVM does not vectorise a loop over many arrays without it:
the kernels of this package lose a factor of 3 to 4 (measured 2026-11-22). The promise is a private flag of numba's
compiler, so everything that touches it stands here, and a numba without the flag compiles the same kernels plainly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

Kernel = Callable[..., None]


def available() -> bool:
    """Whether numba can be imported; it refuses a numpy that is newer than it knows."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def compile_kernel(name: str, source: str, file: str) -> Kernel:
    """The function `name` of `source`, compiled at its first call for distinct arrays and kept on disk by numba.

    `file` is the module that wrote the source: numba keeps the machine code beside it, under the name of the function,
    and drops it when the module changes. So `name` must tell every variant of a module apart. `U(3)` in the source is
    an unsigned constant, `I(3)` an int32 one; a name for each spares numba the typing of thousands of calls.
    """
    namespace: dict[str, Any] = {"U": np.uint64, "I": np.int32, "ZERO": np.float32(0), "__name__": __name__}
    for kind, number in set(re.findall(r"\b([UI])\((\d+)\)", source)):
        namespace[f"{kind}{number}"] = namespace[kind](number)
    source = re.sub(r"\b([UI])\((\d+)\)", r"\1\2", source)
    exec(compile(source, file, "exec"), namespace)  # the source is made of numbers and of templates of this package
    return jit(namespace[name])


def jit(function: Callable[..., None]) -> Kernel:
    """`function` compiled for distinct arrays, without a cache where no folder can be written to."""
    import numba

    try:
        return numba.njit(cache=True, **options())(function)
    except RuntimeError:
        return numba.njit(**options())(function)


def options() -> dict[str, Any]:
    """What every kernel is compiled with; `contract` lets it fuse a product and a sum into one rounding.

    The cache does not tell options apart: when they change, so must the source of the kernels.
    """
    return {"fastmath": {"contract"}, "nogil": True, **_distinct_arrays()}


@cache
def _distinct_arrays() -> dict[str, Any]:
    """The option of numba that promises distinct arrays, or none where this numba lacks the flag."""
    try:
        from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags

        if not hasattr(Flags, "noalias"):
            return {}
    except ImportError:
        return {}

    class DistinctArrays(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            self.state.flags.noalias = True
            return [DefaultPassBuilder.define_nopython_pipeline(self.state)]

    return {"pipeline_class": DistinctArrays}
