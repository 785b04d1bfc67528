"""The loops over rows, written once for all games; `bind` puts another game's functions in the place of Breakout's."""

from __future__ import annotations

from typing import Any

from mindworks.envs.minatar._common import LAST, uniform
from mindworks.envs.minatar.breakout import act, draw, start


def start_rows(states: Any, streams: Any, rows: Any, frames: Any) -> None:
    """Start an episode in the given rows and draw it; the action played last stays, so the first may repeat it."""
    for row in rows:
        state = states[row]
        state[LAST + 1 :] = 0
        start(state, streams[row : row + 1])
        frames[row] = False
        draw(state, frames[row])


def step_rows(
    states: Any,
    streams: Any,
    rows: Any,
    actions: Any,
    sticky: float,
    ramping: bool,
    frames: Any,
    rewards: Any,
    over: Any,
) -> None:
    """Move the n given rows with their n actions; fill rewards and over `[n]`, and the rows' frames."""
    for k in range(len(rows)):
        row = rows[k]
        state, stream = states[row], streams[row : row + 1]
        if uniform(stream) >= sticky:
            state[LAST] = actions[k]
        rewards[k], over[k] = act(state, stream, state[LAST], ramping)
        frames[row] = False
        draw(state, frames[row])
