"""How an agent moves in a maze: four directions, eight, or a drive that turns.

The three mechanisms and the order of their actions are those of Lee, Parisotto, Chaplot, Xing and Salakhutdinov, "Gated
Path Planning Networks", ICML 2018, arXiv:1806.06408, so that data sets made for one work with the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from mindworks.errors import require

NORTH, EAST, WEST, SOUTH = (-1, 0), (0, 1), (0, -1), (1, 0)


@dataclass(frozen=True)
class Mechanism:
    """`moves[o][a]` is (next orientation, rows down, columns right) of action `a` in orientation `o`.

    A move into a wall or out of the map leaves the agent where it is.
    """

    name: str
    moves: tuple[tuple[tuple[int, int, int], ...], ...]
    action_names: tuple[str, ...]

    @property
    def orientations(self) -> int:
        """How many orientations an agent can have, O."""
        return len(self.moves)

    @property
    def actions(self) -> int:
        """How many actions there are, A."""
        return len(self.moves[0])


def _compass(name: str, directions: tuple[tuple[int, int], ...], names: tuple[str, ...]) -> Mechanism:
    return Mechanism(name, (tuple((0, *direction) for direction in directions),), names)


_AHEAD = (NORTH, EAST, WEST, SOUTH)  # orientation 0 to 3
_RIGHT, _LEFT = (1, 3, 0, 2), (2, 0, 3, 1)  # the orientation after a turn

NEWS = _compass("news", _AHEAD, ("north", "east", "west", "south"))
MOORE = _compass(
    "moore",
    (*_AHEAD, (-1, 1), (-1, -1), (1, 1), (1, -1)),
    ("north", "east", "west", "south", "northeast", "northwest", "southeast", "southwest"),
)
DIFFERENTIAL = Mechanism(
    "diffdrive",
    tuple(((o, *_AHEAD[o]), (_RIGHT[o], 0, 0), (_LEFT[o], 0, 0)) for o in range(4)),
    ("forward", "right", "left"),
)
MECHANISMS = {mechanism.name: mechanism for mechanism in (NEWS, MOORE, DIFFERENTIAL)}


def find_mechanism(mechanism: str | Mechanism) -> Mechanism:
    """The mechanism itself, or the one called so; raises `InputError` for an unknown name."""
    if isinstance(mechanism, Mechanism):
        return mechanism
    require(mechanism in MECHANISMS, f"mechanism must be one of {', '.join(MECHANISMS)}, got {mechanism!r}")
    return MECHANISMS[mechanism]
