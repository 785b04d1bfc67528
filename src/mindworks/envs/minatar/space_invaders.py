"""Space Invaders: shoot the aliens, each pays 1; an alien or a bomb that reaches the cannon ends the episode.

The fewer aliens are left, the faster they move; with ramping, so does every new wave.
"""

from __future__ import annotations

from typing import Any

from mindworks.envs.minatar._common import FIRE, LEFT, NOOP, RIGHT, SIZE

CHANNELS = ("cannon", "alien", "alien_left", "alien_right", "shot", "bomb")
MINIMAL = (NOOP, LEFT, RIGHT, FIRE)

# The state. SHOTS + y, BOMBS + y and ALIENS + y hold row y, one bit a column.
_, CANNON, MOVE, MOVE_EVERY, MOVE_IN, BOMB_IN, SHOT_IN, SHOTS = range(8)
BOMBS = SHOTS + SIZE
ALIENS = BOMBS + SIZE
WIDTH = ALIENS + SIZE
SHOT_EVERY, BOMB_EVERY, SLOWEST, FASTEST = 5, 10, 12, 6
BOTTOM = SIZE - 1
WAVE_ROWS, WAVE = 4, 0b0011111100


def start(s: Any, stream: Any) -> None:
    """The first wave moves to the left."""
    s[CANNON], s[MOVE] = 5, -1
    s[MOVE_EVERY], s[MOVE_IN], s[BOMB_IN] = SLOWEST, SLOWEST, BOMB_EVERY
    _line_up(s)


def _line_up(s: Any) -> None:
    for y in range(WAVE_ROWS):
        s[ALIENS + y] = WAVE


def act(s: Any, stream: Any, action: int, ramping: bool) -> tuple[int, bool]:
    """Move the cannon or fire; then shots, bombs and aliens move, one may drop a bomb, and shots hit."""
    if action == FIRE and s[SHOT_IN] == 0:
        s[SHOTS + BOTTOM] |= 1 << s[CANNON]
        s[SHOT_IN] = SHOT_EVERY
    elif action == LEFT:
        s[CANNON] = max(0, s[CANNON] - 1)
    elif action == RIGHT:
        s[CANNON] = min(SIZE - 1, s[CANNON] + 1)
    for y in range(BOTTOM):
        s[SHOTS + y] = s[SHOTS + y + 1]
        s[BOMBS + BOTTOM - y] = s[BOMBS + BOTTOM - y - 1]
    s[SHOTS + BOTTOM] = s[BOMBS] = 0
    over = ((s[BOMBS + BOTTOM] | s[ALIENS + BOTTOM]) >> s[CANNON]) & 1 == 1
    if s[MOVE_IN] == 0:
        landed = _march(s)
        over = over or landed or (s[ALIENS + BOTTOM] >> s[CANNON]) & 1 == 1
    if s[BOMB_IN] == 0:
        s[BOMB_IN] = BOMB_EVERY
        _bomb(s)
    hits = _hit(s)
    if s[SHOT_IN] > 0:
        s[SHOT_IN] -= 1
    s[MOVE_IN] -= 1
    s[BOMB_IN] -= 1
    if _left(s) == 0:
        if ramping and s[MOVE_EVERY] > FASTEST:
            s[MOVE_EVERY] -= 1
        _line_up(s)
    return hits, over


def _march(s: Any) -> bool:
    """Move the aliens sideways, or down at the edge; True when one of them stood on the bottom row at the edge."""
    s[MOVE_IN] = min(_left(s), s[MOVE_EVERY])
    columns = 0
    for y in range(SIZE):
        columns |= s[ALIENS + y]
    if (columns >> (0 if s[MOVE] < 0 else SIZE - 1)) & 1 == 0:
        for y in range(SIZE):
            s[ALIENS + y] = s[ALIENS + y] >> 1 if s[MOVE] < 0 else s[ALIENS + y] << 1
        return False
    s[MOVE] = -s[MOVE]
    lowest = s[ALIENS + BOTTOM]
    for y in range(BOTTOM, 0, -1):
        s[ALIENS + y] = s[ALIENS + y - 1]
    s[ALIENS] = lowest  # the board is a ring here: the last frame of the episode shows them on top
    return lowest != 0


def _bomb(s: Any) -> None:
    """The lowest alien of the column nearest to the cannon drops a bomb; the left one of two as near."""
    for distance in range(SIZE):
        for side in range(2):
            x = s[CANNON] + (distance if side == 1 else -distance)
            if 0 <= x < SIZE:
                for y in range(BOTTOM, -1, -1):
                    if (s[ALIENS + y] >> x) & 1:
                        s[BOMBS + y] |= 1 << x
                        return


def _hit(s: Any) -> int:
    """Take away what shares a cell, and count it."""
    hits = 0
    for y in range(SIZE):
        both = s[ALIENS + y] & s[SHOTS + y]
        s[ALIENS + y] ^= both
        s[SHOTS + y] ^= both
        hits += _ones(both)
    return hits


def _left(s: Any) -> int:
    count = 0
    for y in range(SIZE):
        count += _ones(s[ALIENS + y])
    return count


def _ones(bits: Any) -> int:
    count = 0
    while bits != 0:
        bits &= bits - 1
        count += 1
    return count


def draw(s: Any, frame: Any) -> None:
    """Aliens show in a channel of their direction as well."""
    frame[0, BOTTOM, s[CANNON]] = True
    heading = 2 if s[MOVE] < 0 else 3
    for y in range(SIZE):
        for x in range(SIZE):
            alien = (s[ALIENS + y] >> x) & 1
            frame[1, y, x] = alien
            frame[heading, y, x] = alien
            frame[4, y, x] = (s[SHOTS + y] >> x) & 1
            frame[5, y, x] = (s[BOMBS + y] >> x) & 1
