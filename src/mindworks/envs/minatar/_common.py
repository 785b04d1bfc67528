"""What the five games share: the codes of the actions and the random stream of a row.

A row's stream is the 64-bit counter generator SplitMix64 (Steele, Lea & Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014): one word of state, which moves by a constant and is mixed into a draw. So a stream is saved
as one number, and rows never share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 10  # cells along either side of every game
NOOP, LEFT, UP, RIGHT, DOWN, FIRE = range(6)
LAST = 0  # the first number of every game's state: the action played last, which a sticky step repeats

_STRIDE = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 2.0**-53


def seeded(seeds: Sequence[int]) -> NDArray[np.uint64]:
    """Return the streams `[N]` that the seeds start; neighbouring seeds start far apart."""
    return np.asarray(mixed(np.array(seeds, np.uint64)), np.uint64)


def mixed(word: Any) -> Any:
    """Mix the bits of a uint64, or of an array of them, modulo 2^64."""
    word = (word ^ (word >> _30)) * _MIX_1
    word = (word ^ (word >> _27)) * _MIX_2
    return word ^ (word >> _31)


def uniform(stream: NDArray[np.uint64]) -> float:
    """Draw a float64 in [0, 1) from a row's stream `[1]`, which moves on."""
    stream[0] += _STRIDE
    return float(mixed(stream[0]) >> _11) * _UNIT


def below(stream: NDArray[np.uint64], count: int) -> int:
    """Draw an integer from 0 to `count - 1`."""
    return int(uniform(stream) * count)
