"""The words of `mindworks runs` and `mindworks compare`, taken apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mindworks.errors import InputError, require
from mindworks.lab.discovery import nearest


@dataclass(frozen=True)
class Words:
    """Values by flag in the order given, the switches that are on, and the words that belong to no flag."""

    values: dict[str, list[str]]
    switches: frozenset[str]
    rest: tuple[str, ...]

    def once(self, flag: str, default: str) -> str:
        """The value of a flag that is given at most once."""
        given = self.values[flag]
        require(len(given) <= 1, f"{flag} is given {len(given)} times: {' '.join(given)}")
        return given[0] if given else default


def taken_apart(words: Sequence[str], flags: Collection[str], switches: Collection[str] = ()) -> Words:
    """Sort `words` into values of `flags` (`--flag VALUE` or `--flag=VALUE`), `switches` and the rest.

    Raises `InputError` with the nearest flag for one that is unknown, and for a flag without its value.
    """
    values: dict[str, list[str]] = {flag: [] for flag in flags}
    on, rest, left = set(), [], list(words)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("--"):
            rest.append(word)
        elif flag in flags:
            require(bool(equals) or (bool(left) and not left[0].startswith("--")), f"{flag} needs a value, got none")
            values[flag].append(value if equals else left.pop(0))
        elif word in switches:
            on.add(word)
        elif flag in switches:
            raise InputError(f"{flag} takes no value, got {value!r}")
        else:
            raise InputError(f"unknown flag {flag}{nearest(flag, (*flags, *switches))}")
    return Words(values, frozenset(on), tuple(rest))
