"""A game bound to the loops over rows: as plain Python, which is the reference, or compiled by numba, imported late."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from mindworks.envs.minatar import _common, _loops


class Loops(NamedTuple):
    """The two loops, bound to one game."""

    start_rows: Callable[..., None]
    step_rows: Callable[..., None]


def has_numba() -> bool:
    """Whether numba can be imported; it refuses a numpy that is newer than it knows."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def bind(game: ModuleType, compiled: bool) -> Loops:
    """Return the loops over the rows of `game`, compiled by numba at their first call, or as plain Python."""
    names: dict[str, Any] = {**vars(_common), **vars(_loops), **vars(game)}
    modules = (_common.__name__, _loops.__name__, game.__name__)
    functions = {name: f for name, f in names.items() if isinstance(f, FunctionType) and f.__module__ in modules}
    # Every function gets a name of its own: numba keeps machine code under the name, and would not see that another
    # file has changed, or tell two games apart.
    own = f"_{game.__name__.rpartition('.')[2]}_{_digest(functions, names):08x}"
    for name, function in functions.items():
        copy = FunctionType(function.__code__.replace(co_name=name + own, co_qualname=name + own), names)
        names[name] = _jit(copy, entry=name in Loops._fields) if compiled else copy
    loops = [names[name] for name in Loops._fields]
    return Loops(*(loops if compiled else map(_wrapping, loops)))


def _digest(functions: dict[str, FunctionType], names: dict[str, Any]) -> int:
    codes = [(name, f.__code__.co_code, f.__code__.co_consts, f.__code__.co_names) for name, f in functions.items()]
    numbers = [(name, value) for name, value in names.items() if isinstance(value, (int, float, np.uint64))]
    return zlib.crc32(repr((codes, numbers)).encode())


def _jit(function: FunctionType, entry: bool) -> Any:
    """An entry is called from Python and kept on disk; the others are parts of it."""
    import numba

    # A game is one piece of machine code: with parts that are called, a frame of Breakout takes 0.09 CPU us instead of
    # 0.04, and with wrappers around them, the compiler takes 12 s for the five games instead of 9 (2026-11-27).
    parts: dict[str, Any] = {"no_cpython_wrapper": True, "forceinline": True}
    options: dict[str, Any] = {"nogil": True, "no_cfunc_wrapper": True, **({} if entry else parts)}
    try:
        return numba.njit(cache=entry, **options)(function)
    except RuntimeError:  # no folder to keep the machine code in
        return numba.njit(**options)(function)


def _wrapping(loop: Callable[..., None]) -> Callable[..., None]:
    """The plain loop without numpy's warnings that a product modulo 2^64 is one."""

    def quiet(*args: Any) -> None:
        with np.errstate(over="ignore"):
            loop(*args)

    return quiet
