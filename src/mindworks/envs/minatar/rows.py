"""N episodes of a MinAtar game side by side, for rollouts and for learners that never stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import DTypeLike, NDArray

from mindworks.envs.minatar import _bind, asterix, breakout, freeway, seaquest, space_invaders
from mindworks.envs.minatar._common import FIRE, SIZE, seeded
from mindworks.envs.rows import RowEnv, RowOutcome
from mindworks.errors import InputError, import_extra, require

GAMES = {
    "asterix": asterix,
    "breakout": breakout,
    "freeway": freeway,
    "seaquest": seaquest,
    "space_invaders": space_invaders,
}
# The usual limit of Atari games, 108,000 frames of which every fourth is a step.
MAX_EPISODE_STEPS = 27_000


class MinAtarEnv(RowEnv):
    """N rows of one game, observed as `[N, C, 10, 10]`, with a name for each of the C channels in `channels`.

    game: a key of `GAMES`. sticky_action_prob: how often a step repeats the last action instead of the given one, also
    across the end of an episode. difficulty_ramping: whether Asterix, Seaquest and Space Invaders get harder in time.
    minimal_actions: only the actions that do something in this game, as in the package's version v1; otherwise all six,
    as in its v0: nothing, left, up, right, down, fire. max_episode_steps: longer episodes are truncated; the games know
    no time limit, but Freeway, which terminates after 2501 steps. dtype: bool, uint8 or float32 observations; bool is
    the cheapest to make and to keep, float32 is what `make_batch` asks for. compiled: False for plain Python, which
    computes the same numbers slowly; None for numba where there is one.

    Frames, rewards and terminations are those of the package minatar 1.0.15 exactly, given the same draws; the draws
    are not, since each row has a stream of its own. Raises `InputError` for arguments outside their ranges, and
    `MissingExtra` for `compiled=True` without numba.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        *,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        minimal_actions: bool = True,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        dtype: DTypeLike = np.bool_,
        compiled: bool | None = None,
    ) -> None:
        require(game in GAMES, f"game: expected one of {', '.join(GAMES)}, got {game!r}")
        require(0 <= sticky_action_prob <= 1, f"sticky_action_prob: expected 0 to 1, got {sticky_action_prob}")
        self.dtype = _cell(dtype)
        if compiled:
            import_extra("numba", "fast")
        rules = GAMES[game]
        self.channels: tuple[str, ...] = rules.CHANNELS
        shape = (len(self.channels), SIZE, SIZE)
        codes = rules.MINIMAL if minimal_actions else tuple(range(FIRE + 1))
        title, version = game.title().replace("_", ""), 1 if minimal_actions else 0
        observed, acted = spaces.Box(0, 1, shape, self.dtype), spaces.Discrete(len(codes))
        super().__init__(f"MinAtar/{title}-v{version}", num_envs, observed, acted, max_episode_steps)
        self._loops = _bind.bind(rules, _bind.has_numba() if compiled is None else compiled)
        self._draw = rules.draw
        self._codes = np.array(codes, np.int64)
        self._sticky, self._ramping = float(sticky_action_prob), bool(difficulty_ramping)
        self._states = np.zeros((num_envs, rules.WIDTH), np.int32)
        self._streams = np.zeros(num_envs, np.uint64)
        self._frames = np.zeros((num_envs, *shape), np.bool_)
        self._all = np.arange(num_envs)

    def reset(self, seeds: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Start an episode in every row, row i from `seeds[i]` alone, and return the observations `[N, C, 10, 10]`."""
        super().reset(seeds)
        return self._observed().copy()

    def restart(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Start a new episode in the given rows and return their observations `[K, C, 10, 10]`.

        rows: K different row numbers, or `[N]` booleans. Their dice roll on from where they are, so row i still depends
        on its seed and its actions alone. Raises `InputError` before the first `reset`, and for rows out of range.
        """
        if self._observations is None:
            raise InputError("restart: call reset(seeds) first")
        chosen = self._chosen(rows)
        self._loops.start_rows(self._states, self._streams, chosen, self._frames)
        self._elapsed[chosen], self._open[chosen] = 0, True
        started: NDArray[Any] = self._frames[chosen].astype(self.dtype)
        self._observations[chosen] = started
        return started

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that the next steps depend on, as arrays; raises `InputError` before the first `reset`."""
        if self._observations is None:
            raise InputError("state: call reset(seeds) first")
        return {key: value.copy() for key, value in self._saved().items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a `state()` of an environment made with the same arguments, bit for bit.

        Raises `InputError` for missing or unknown keys, and for arrays of another shape or dtype. Their values are not
        checked: numbers that no episode reaches may crash the process.
        """
        saved = self._saved()
        require(set(state) == set(saved), f"state: expected the keys {sorted(saved)}, got {sorted(state)}")
        given = {key: np.asarray(state[key]) for key in saved}
        for key, own in saved.items():
            got, expected = (f"{array.dtype} {list(array.shape)}" for array in (given[key], own))
            require(got == expected, f"state: {key} must be {expected}, got {got}")
        for key, own in saved.items():
            own[...] = given[key]
        self._frames[:] = False
        for row in self._all:
            self._draw(self._states[row], self._frames[row])
        self._observed()

    def _observed(self) -> NDArray[Any]:
        """Let the observations be what the frames show; those of one byte a cell are the frames, and cost nothing."""
        wide = self.dtype.itemsize > 1
        self._observations = self._frames.astype(self.dtype) if wide else self._frames.view(self.dtype)
        return self._observations

    def _saved(self) -> dict[str, NDArray[Any]]:
        return {"game": self._states, "streams": self._streams, "elapsed": self._elapsed, "open": self._open}

    def _chosen(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[np.intp]:
        given = np.asarray(rows)
        if given.dtype == np.bool_ and given.shape == (self.num_envs,):
            return np.flatnonzero(given)
        whole = given.ndim == 1 and (given.dtype.kind in "iu" or given.size == 0)
        require(
            whole, f"rows: expected row numbers or [{self.num_envs}] booleans, got {given.dtype} {list(given.shape)}"
        )
        chosen = given.astype(np.intp)
        within = chosen.size == 0 or (chosen.min() >= 0 and chosen.max() < self.num_envs)
        require(within, f"rows: expected 0 to {self.num_envs - 1}, got {chosen.tolist()}")
        named = np.zeros(self.num_envs, np.bool_)
        named[chosen] = True
        require(np.count_nonzero(named) == len(chosen), f"rows: expected each row once, got {chosen.tolist()}")
        return chosen

    def _reset_rows(self, seeds: list[int]) -> NDArray[Any]:
        self._streams[:] = seeded(seeds)
        self._states[:] = 0
        self._loops.start_rows(self._states, self._streams, self._all, self._frames)
        return self._frames

    def _step_rows(self, rows: NDArray[np.intp], actions: NDArray[Any]) -> RowOutcome:
        rewards, over = np.empty(len(rows), np.float64), np.empty(len(rows), np.bool_)
        dice, frames = (self._states, self._streams), self._frames
        self._loops.step_rows(*dice, rows, self._codes[actions], self._sticky, self._ramping, frames, rewards, over)
        shown = frames.view(self.dtype) if self.dtype.itemsize == 1 else frames
        return shown if len(rows) == self.num_envs else shown[rows], rewards, over, None


def _cell(dtype: DTypeLike) -> np.dtype[Any]:
    known = (np.dtype(np.bool_), np.dtype(np.uint8), np.dtype(np.float32))
    try:
        if np.dtype(dtype) in known:
            return np.dtype(dtype)
    except TypeError:
        dtype = repr(dtype)
    raise InputError(f"dtype: expected bool, uint8 or float32, got {dtype}")


def _task(game: str, minimal_actions: bool, num_envs: int, *, horizon: int = MAX_EPISODE_STEPS, **more: Any) -> RowEnv:
    given = {"minimal_actions": minimal_actions, "max_episode_steps": horizon, "dtype": np.float32, **more}
    return MinAtarEnv(game, num_envs, **given)


def tasks() -> dict[str, Callable[..., RowEnv]]:
    """Return what `make_batch` makes of the package's ids, `MinAtar/Breakout-v1` and the like.

    v1 has the game's minimal actions and v0 all six. Observations are float32 unless `dtype` says otherwise.
    """
    versions = ((0, False), (1, True))
    return {
        f"MinAtar/{game.title().replace('_', '')}-v{version}": partial(_task, game, minimal)
        for game in GAMES
        for version, minimal in versions
    }
