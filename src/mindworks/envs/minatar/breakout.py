"""Breakout: keep the ball in play with the paddle; every brick it breaks pays 1.

The ball moves along diagonals, and dies on the bottom row beside the paddle. A wall without bricks is built again when
the ball reaches the bottom row. Nothing gets harder.
"""

from __future__ import annotations

from typing import Any

from mindworks.envs.minatar._common import LEFT, NOOP, RIGHT, SIZE, below

CHANNELS = ("paddle", "ball", "trail", "brick")
MINIMAL = (NOOP, LEFT, RIGHT)

# The state. BRICKS + y holds the bricks of row y, one bit a column; STRUCK: the ball is still among the bricks it hit.
_, PADDLE, BALL_X, BALL_Y, FROM_X, FROM_Y, MOVE_X, MOVE_Y, STRUCK, BRICKS = range(10)
TOP, BOTTOM = 1, 3  # the rows of the wall
WIDTH = BRICKS + BOTTOM + 1
FULL = (1 << SIZE) - 1


def start(s: Any, stream: Any) -> None:
    """The ball comes from the left or the right edge, towards the middle."""
    side = below(stream, 2)
    s[BALL_X], s[MOVE_X] = side * (SIZE - 1), 1 - 2 * side
    s[BALL_Y], s[MOVE_Y] = 3, 1
    s[FROM_X], s[FROM_Y] = s[BALL_X], s[BALL_Y]
    s[PADDLE] = 4
    _build(s)


def _build(s: Any) -> None:
    for y in range(TOP, BOTTOM + 1):
        s[BRICKS + y] = FULL


def act(s: Any, stream: Any, action: int, ramping: bool) -> tuple[int, bool]:
    """Move the paddle, then the ball."""
    if action == LEFT:
        s[PADDLE] = max(0, s[PADDLE] - 1)
    elif action == RIGHT:
        s[PADDLE] = min(SIZE - 1, s[PADDLE] + 1)
    from_x, from_y = s[BALL_X], s[BALL_Y]
    x, y = from_x + s[MOVE_X], from_y + s[MOVE_Y]
    if x < 0 or x >= SIZE:
        x = min(max(x, 0), SIZE - 1)
        s[MOVE_X] = -s[MOVE_X]
    reward, over, among = 0, False, False
    if y < 0:
        y = 0
        s[MOVE_Y] = -s[MOVE_Y]
    elif TOP <= y <= BOTTOM and (s[BRICKS + y] >> x) & 1 == 1:
        among = True
        if s[STRUCK] == 0:  # one brick a contact: a ball that stays among them passes through
            reward = 1
            s[STRUCK] = 1
            s[BRICKS + y] ^= 1 << x
            y = from_y
            s[MOVE_Y] = -s[MOVE_Y]
    elif y == SIZE - 1:
        if s[BRICKS + 1] + s[BRICKS + 2] + s[BRICKS + 3] == 0:
            _build(s)
        if from_x == s[PADDLE] or x == s[PADDLE]:
            if from_x != s[PADDLE]:  # met at its corner, the ball goes back where it came from
                s[MOVE_X] = -s[MOVE_X]
            s[MOVE_Y] = -s[MOVE_Y]
            y = from_y
        else:
            over = True
    if not among:
        s[STRUCK] = 0
    s[FROM_X], s[FROM_Y] = from_x, from_y
    s[BALL_X], s[BALL_Y] = x, y
    return reward, over


def draw(s: Any, frame: Any) -> None:
    """The trail is where the ball was, so that a frame shows its direction."""
    frame[0, SIZE - 1, s[PADDLE]] = True
    frame[1, s[BALL_Y], s[BALL_X]] = True
    frame[2, s[FROM_Y], s[FROM_X]] = True
    for y in range(TOP, BOTTOM + 1):
        for x in range(SIZE):
            frame[3, y, x] = (s[BRICKS + y] >> x) & 1
