"""Lots that depend on a seed and on what they are drawn for: no state, so the order of questions changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256


def lot(seed: int, *words: str) -> int:
    """A number that looks random, below 2^64, the same for the same seed and words on every machine."""
    text = "\x1f".join((str(seed), *words))  # the unit separator: ("ab", "c") and ("a", "bc") are two draws
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big")


def draw(options: Sequence[str], seed: int, *words: str) -> str:
    """One of `options`, all as likely as each other over seeds and words."""
    return options[lot(seed, *words) % len(options)]


def ranked(scores: Mapping[str, float], seed: int, *words: str) -> list[str]:
    """The names in `scores`, greatest score first; equal scores stand in an order drawn by lot."""
    if len(set(scores.values())) == len(scores):
        return sorted(scores, key=lambda name: -scores[name])
    return sorted(scores, key=lambda name: (-scores[name], lot(seed, *words, name)))
