"""Freeway: cross eight lanes from the bottom row to the top row, which pays 1; a car sends the player back.

The player moves every third frame at most. Cars get new speeds at every crossing. The game itself ends after 2501
frames, as a termination; nothing gets harder.
"""

from __future__ import annotations

from typing import Any

from mindworks.envs.minatar._common import DOWN, NOOP, SIZE, UP, below, uniform

CHANNELS = ("player", "car", "speed_1", "speed_2", "speed_3", "speed_4", "speed_5")
MINIMAL = (NOOP, UP, DOWN)

LANES = SIZE - 2  # lane k is row k + 1
COLUMN, BOTTOM = 4, SIZE - 1  # where the player walks, and where it starts
MOVE_EVERY, FRAMES, SLOWEST = 3, 2500, 5
# The state. AT + k, WAIT + k and SPEED + k: the column of the car in lane k, the frames until it moves, and the frames
# between its moves, negative when it drives to the left.
_, Y, MOVE_IN, LEFT_FRAMES, AT = range(5)
WAIT = AT + LANES
SPEED = WAIT + LANES
WIDTH = SPEED + LANES


def start(s: Any, stream: Any) -> None:
    """The player is at the bottom, all cars are in the first column."""
    _draw_speeds(s, stream)
    s[Y], s[MOVE_IN], s[LEFT_FRAMES] = BOTTOM, MOVE_EVERY, FRAMES


def _draw_speeds(s: Any, stream: Any) -> None:
    for k in range(LANES):
        s[WAIT + k] = 1 + below(stream, SLOWEST)
    for k in range(LANES):
        s[SPEED + k] = s[WAIT + k] if uniform(stream) >= 0.5 else -s[WAIT + k]


def act(s: Any, stream: Any, action: int, ramping: bool) -> tuple[int, bool]:
    """Move the player, then the cars; a car hits the player before its move or after it."""
    if s[MOVE_IN] == 0 and action in (UP, DOWN):
        s[MOVE_IN] = MOVE_EVERY
        s[Y] = max(0, s[Y] - 1) if action == UP else min(BOTTOM, s[Y] + 1)
    reward = 0
    if s[Y] == 0:
        reward = 1
        _draw_speeds(s, stream)
        s[Y] = BOTTOM
    for k in range(LANES):
        if s[Y] == k + 1 and s[AT + k] == COLUMN:
            s[Y] = BOTTOM
        if s[WAIT + k] > 0:
            s[WAIT + k] -= 1
        else:
            s[WAIT + k] = abs(s[SPEED + k])
            s[AT + k] = (s[AT + k] + (1 if s[SPEED + k] > 0 else SIZE - 1)) % SIZE
            if s[Y] == k + 1 and s[AT + k] == COLUMN:
                s[Y] = BOTTOM
    if s[MOVE_IN] > 0:
        s[MOVE_IN] -= 1
    s[LEFT_FRAMES] -= 1
    return reward, s[LEFT_FRAMES] < 0


def draw(s: Any, frame: Any) -> None:
    """The cell behind a car is marked in the channel of its speed; lanes are rings."""
    frame[0, s[Y], COLUMN] = True
    for k in range(LANES):
        frame[1, k + 1, s[AT + k]] = True
        behind = (s[AT + k] + (SIZE - 1 if s[SPEED + k] > 0 else 1)) % SIZE
        frame[1 + abs(s[SPEED + k]), k + 1, behind] = True
