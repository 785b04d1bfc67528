"""Asterix: pick up gold, which pays 1, and touch no enemy; both cross the board in the eight middle rows.

One thing at most moves in a row. With ramping, things come and move faster every 101 frames.
"""

from __future__ import annotations

from typing import Any

from mindworks.envs.minatar._common import DOWN, LEFT, NOOP, RIGHT, SIZE, UP, below, uniform

CHANNELS = ("player", "enemy", "trail", "gold")
MINIMAL = (NOOP, LEFT, UP, RIGHT, DOWN)

SLOTS = SIZE - 2  # slot k is row k + 1
NOTHING, ENEMY, GOLD = range(3)
# The state. KIND + k, AT + k and MOVE + k: what is in slot k, its column, and the direction it goes, -1 or 1.
_, X, Y, SPAWN_EVERY, SPAWN_IN, MOVE_EVERY, MOVE_IN, RAMP_IN, RAMPS, KIND = range(10)
AT = KIND + SLOTS
MOVE = AT + SLOTS
WIDTH = MOVE + SLOTS
RAMP_EVERY = 100


def start(s: Any, stream: Any) -> None:
    """An empty board, with the player in its middle."""
    s[X], s[Y] = 5, 5
    s[SPAWN_EVERY], s[SPAWN_IN] = 10, 10
    s[MOVE_EVERY], s[MOVE_IN] = 5, 5
    s[RAMP_IN] = RAMP_EVERY


def act(s: Any, stream: Any, action: int, ramping: bool) -> tuple[int, bool]:
    """Something may come in; the player moves; then the things do, when it is their turn."""
    if s[SPAWN_IN] == 0:
        _spawn(s, stream)
        s[SPAWN_IN] = s[SPAWN_EVERY]
    if action == LEFT:
        s[X] = max(0, s[X] - 1)
    elif action == RIGHT:
        s[X] = min(SIZE - 1, s[X] + 1)
    elif action == UP:
        s[Y] = max(1, s[Y] - 1)
    elif action == DOWN:
        s[Y] = min(SIZE - 2, s[Y] + 1)
    taken, caught = _meet(s)
    if s[MOVE_IN] == 0:
        s[MOVE_IN] = s[MOVE_EVERY]
        for k in range(SLOTS):
            s[AT + k] += s[MOVE + k]
            if s[AT + k] < 0 or s[AT + k] >= SIZE:
                s[KIND + k], s[MOVE + k] = NOTHING, 0
        more, again = _meet(s)
        taken, caught = taken + more, caught or again
    s[SPAWN_IN] -= 1
    s[MOVE_IN] -= 1
    if ramping:
        _ramp(s)
    return taken, caught


def _meet(s: Any) -> tuple[int, bool]:
    """What the player gets from the thing in its row, and whether it is caught."""
    k = s[Y] - 1
    if s[KIND + k] == NOTHING or s[AT + k] != s[X]:
        return 0, False
    if s[KIND + k] == ENEMY:
        return 0, True
    s[KIND + k], s[MOVE + k] = NOTHING, 0
    return 1, False


def _spawn(s: Any, stream: Any) -> None:
    """Put an enemy, or gold one time in three, at the edge of a free row; nothing when no row is free."""
    rightwards = uniform(stream) < 0.5
    gold = uniform(stream) < 1 / 3
    free = 0
    for k in range(SLOTS):
        free += s[KIND + k] == NOTHING
    if free == 0:
        return
    rank = below(stream, free)
    for k in range(SLOTS):
        if s[KIND + k] == NOTHING:
            if rank == 0:
                s[KIND + k] = GOLD if gold else ENEMY
                s[AT + k] = 0 if rightwards else SIZE - 1
                s[MOVE + k] = 1 if rightwards else -1
                return
            rank -= 1


def _ramp(s: Any) -> None:
    if s[SPAWN_EVERY] == 1 and s[MOVE_EVERY] == 1:
        return
    if s[RAMP_IN] >= 0:
        s[RAMP_IN] -= 1
        return
    if s[MOVE_EVERY] > 1 and s[RAMPS] % 2 == 1:
        s[MOVE_EVERY] -= 1
    if s[SPAWN_EVERY] > 1:
        s[SPAWN_EVERY] -= 1
    s[RAMPS] += 1
    s[RAMP_IN] = RAMP_EVERY


def draw(s: Any, frame: Any) -> None:
    """The trail is the cell behind a thing, whatever it is."""
    frame[0, s[Y], s[X]] = True
    for k in range(SLOTS):
        if s[KIND + k] != NOTHING:
            frame[3 if s[KIND + k] == GOLD else 1, k + 1, s[AT + k]] = True
            behind = s[AT + k] - s[MOVE + k]
            if 0 <= behind < SIZE:
                frame[2, k + 1, behind] = True
