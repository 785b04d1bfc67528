"""The first uniform draws of many seeded generators at once: numpy's SeedSequence and PCG64 over an array of seeds.

Seeding one generator costs 12 CPU us, as much as 200 steps of a CartPole among 1,000 (2026-11-23). The algorithms are
published and frozen: O'Neill's seed_seq hash (numpy NEP 19) and PCG-XSL-RR-128/64 (O'Neill 2014, HMC-CS-2014-0905).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mindworks.envs.rows import row_generator

Words = NDArray[np.uint32]
Longs = NDArray[np.uint64]

_FEW = 24  # rows from which the arrays are cheaper than as many generators, 2026-11-23
_POOL = 4
_INIT_A, _MULT_A, _INIT_B, _MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_HALF = np.uint32(16)
_PCG_HIGH, _PCG_LOW = np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645)
_U1, _U11, _U32, _U58, _U63, _U64 = (np.uint64(n) for n in (1, 11, 32, 58, 63, 64))
_LOW_HALF = np.uint64(0xFFFFFFFF)


def uniform_rows(seeds: list[int], low: float, high: float, size: int) -> NDArray[np.float64]:
    """Return `[N, size]`: row i is `row_generator(seeds[i]).uniform(low, high, size)`, bit for bit.

    seeds: N integers from 0 to 2**64 - 1.
    """
    if len(seeds) < _FEW or not _agrees():
        return _one_by_one(seeds, low, high, size)
    return _all_at_once(seeds, low, high, size)


def _one_by_one(seeds: list[int], low: float, high: float, size: int) -> NDArray[np.float64]:
    """The reference: a generator per row."""
    return np.array([row_generator(seed).uniform(low, high, size) for seed in seeds]).reshape(len(seeds), size)


def _all_at_once(seeds: list[int], low: float, high: float, size: int) -> NDArray[np.float64]:
    """The fast path: a few array operations per draw."""
    words = _generated(_pool(np.array(seeds, np.uint64)))
    high_inc, low_inc = (words[2] << _U1) | (words[3] >> _U63), (words[3] << _U1) | _U1
    state = _plus((high_inc, low_inc), (words[0], words[1]))  # a step from zero is the increment
    state = _step(state, (high_inc, low_inc))
    draws = np.empty((len(seeds), size), np.float64)
    for column in range(size):
        state = _step(state, (high_inc, low_inc))
        folded, turn = state[0] ^ state[1], state[0] >> _U58
        bits = (folded >> turn) | (folded << ((_U64 - turn) & _U63))
        draws[:, column] = (bits >> _U11) * 2.0**-53
    return low + (high - low) * draws


@cache
def _agrees() -> bool:
    """Whether both paths agree here: numpy promises the stream of bits, but not the rounding of `uniform`."""
    seeds = [2**31 * i + i for i in range(64)]
    return np.array_equal(_all_at_once(seeds, -0.05, 0.05, 4), _one_by_one(seeds, -0.05, 0.05, 4))


class _Hash:
    """The running constant of SeedSequence's hash: it changes with every call, alike for all rows."""

    def __init__(self, start: int, multiplier: int) -> None:
        self.constant, self.multiplier = start, multiplier

    def __call__(self, value: Words) -> Words:
        value = value ^ np.uint32(self.constant)
        self.constant = self.constant * self.multiplier % 2**32
        value = value * np.uint32(self.constant)
        return value ^ (value >> _HALF)


def _pool(seeds: Longs) -> list[Words]:
    """SeedSequence's entropy pool: the two words of each seed, hashed and mixed into four."""
    none = np.zeros(len(seeds), np.uint32)
    mixed = _Hash(_INIT_A, _MULT_A)
    entropy = [(seeds & _LOW_HALF).astype(np.uint32), (seeds >> _U32).astype(np.uint32), none, none]
    pool = [mixed(word) for word in entropy]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                blend = _MIX_LEFT * pool[target] - _MIX_RIGHT * mixed(pool[source])
                pool[target] = blend ^ (blend >> _HALF)
    return pool


def _generated(pool: list[Words]) -> list[Longs]:
    """`SeedSequence.generate_state(4, uint64)`: the seed and the increment of PCG64, high halves first."""
    hashed = _Hash(_INIT_B, _MULT_B)
    words = [hashed(pool[i % _POOL]).astype(np.uint64) for i in range(8)]
    return [words[i] | (words[i + 1] << _U32) for i in range(0, 8, 2)]


def _plus(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Longs, Longs]:
    """Sum of 128-bit integers as (high, low)."""
    low = a[1] + b[1]
    return a[0] + b[0] + (low < a[1]), low


def _step(state: tuple[Longs, Longs], increment: tuple[Longs, Longs]) -> tuple[Longs, Longs]:
    """`state * multiplier + increment` modulo 2**128."""
    high, low = state
    low_0, low_1 = low & _LOW_HALF, low >> _U32
    by_0, by_1 = _PCG_LOW & _LOW_HALF, _PCG_LOW >> _U32
    middle = low_1 * by_0 + ((low_0 * by_0) >> _U32)
    other = low_0 * by_1 + (middle & _LOW_HALF)
    carried = low_1 * by_1 + (middle >> _U32) + (other >> _U32)
    return _plus((carried + high * _PCG_LOW + low * _PCG_HIGH, low * _PCG_LOW), increment)
