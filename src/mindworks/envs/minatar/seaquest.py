"""Seaquest: shoot fish and submarines, each pays 1; bring six divers up, which pays up to 10, more with oxygen left.

Touching a fish, a submarine or a bomb, running out of oxygen, or surfacing with no diver ends the episode. Every
surfacing costs a diver and fills the tank; with ramping, enemies come and move faster after it. Surfacing with six
divers leaves a count of -1, as in the original game: such a count is not zero, so it allows the next surfacing.
"""

from __future__ import annotations

from typing import Any

from mindworks.envs.minatar._common import DOWN, FIRE, LEFT, NOOP, RIGHT, SIZE, UP, below, uniform

CHANNELS = ("front", "back", "shot", "trail", "bomb", "fish", "submarine", "oxygen", "divers_aboard", "diver")
MINIMAL = (NOOP, LEFT, UP, RIGHT, DOWN, FIRE)

TANK, ABOARD = 200, 6
SHOT_EVERY, BOMB_EVERY, DIVER_EVERY, DIVER_MOVES = 5, 10, 30, 5
# A thing in the water takes five numbers: column, row, direction -1 or 1, frames until it moves, and until it bombs.
DX, MOVE_IN, BOMB_IN, THING = 2, 3, 4, 5
# The state. A list holds its length and then its things, in the order they came. No list overflows: one enemy comes a
# frame at most and is gone 60 frames later, a bomb is gone after 10 frames and a submarine drops one every 11, and
# shots are 5 and divers 30 frames apart.
_, X, Y, FACING, OXYGEN, DIVERS, AT_SURFACE, SHOT_IN, SPAWN_EVERY, SPAWN_IN, DIVER_IN, MOVE_EVERY, RAMPS = range(13)
ENEMIES, BOMBS, FEW = 64, 80, 4
SHOT = 13
DIVER = SHOT + 1 + THING * FEW
FISH = DIVER + 1 + THING * FEW
SUB = FISH + 1 + THING * ENEMIES
BOMB = SUB + 1 + THING * ENEMIES
WIDTH = BOMB + 1 + THING * BOMBS


def start(s: Any, stream: Any) -> None:
    """The player floats in the middle of the surface, facing left, in empty water."""
    s[X], s[Y], s[FACING], s[AT_SURFACE] = 5, 0, -1, 1
    s[OXYGEN] = TANK
    s[SPAWN_EVERY], s[SPAWN_IN], s[DIVER_IN], s[MOVE_EVERY] = 20, 20, DIVER_EVERY, 5


def _add(s: Any, things: int, room: int, x: int, y: int, move: int, move_in: int) -> None:
    """Append a thing; a full list, which the rules exclude, stays as it is, since nothing checks bounds later."""
    if s[things] < room:
        at = things + 1 + THING * s[things]
        s[at], s[at + 1], s[at + DX], s[at + MOVE_IN], s[at + BOMB_IN] = x, y, move, move_in, BOMB_EVERY
        s[things] += 1


def _remove(s: Any, things: int, k: int) -> None:
    """Take thing k out; the order of the others stays, since the first of two things in a cell is the one hit."""
    for at in range(things + 1 + THING * k, things + 1 + THING * (s[things] - 1)):
        s[at] = s[at + THING]
    s[things] -= 1


def _find(s: Any, things: int, x: int, y: int) -> int:
    """The first thing in the cell, or -1."""
    for k in range(s[things]):
        at = things + 1 + THING * k
        if s[at] == x and s[at + 1] == y:
            return k
    return -1


def _on_player(s: Any, at: int) -> bool:
    return s[at] == s[X] and s[at + 1] == s[Y]


def _outside(x: int) -> bool:
    return x < 0 or x >= SIZE


def act(s: Any, stream: Any, action: int, ramping: bool) -> tuple[int, bool]:
    """Things may come in; the player moves or fires; shots, divers, submarines, bombs and fish follow in this order."""
    if s[SPAWN_IN] == 0:
        _spawn_enemy(s, stream)
        s[SPAWN_IN] = s[SPAWN_EVERY]
    if s[DIVER_IN] == 0:
        move = 1 if uniform(stream) < 0.5 else -1
        _add(s, DIVER, FEW, 0 if move > 0 else SIZE - 1, 1 + below(stream, SIZE - 2), move, DIVER_MOVES)
        s[DIVER_IN] = DIVER_EVERY
    _steer(s, action)
    reward = _move_shots(s)
    _move_divers(s)
    shot, rammed = _move_enemies(s, SUB)
    bombed = _move_bombs(s)
    caught, bitten = _move_enemies(s, FISH)
    for timer in (SPAWN_IN, DIVER_IN, SHOT_IN):
        if s[timer] > 0:
            s[timer] -= 1
    earned, drowned = _breathe(s, ramping)
    return reward + shot + caught + earned, rammed or bombed or bitten or drowned


def _spawn_enemy(s: Any, stream: Any) -> None:
    """A submarine one time in three, else a fish; none where one of its row would come towards it."""
    move = 1 if uniform(stream) < 0.5 else -1
    things = SUB if uniform(stream) < 1 / 3 else FISH
    y = 1 + below(stream, SIZE - 2)
    for others in (SUB, FISH):
        for k in range(s[others]):
            at = others + 1 + THING * k
            if s[at + 1] == y and s[at + DX] != move:
                return
    _add(s, things, ENEMIES, 0 if move > 0 else SIZE - 1, y, move, s[MOVE_EVERY])


def _steer(s: Any, action: int) -> None:
    if action == FIRE and s[SHOT_IN] == 0:
        _add(s, SHOT, FEW, s[X], s[Y], s[FACING], 0)
        s[SHOT_IN] = SHOT_EVERY
    elif action == LEFT:
        s[X], s[FACING] = max(0, s[X] - 1), -1
    elif action == RIGHT:
        s[X], s[FACING] = min(SIZE - 1, s[X] + 1), 1
    elif action == UP:
        s[Y] = max(0, s[Y] - 1)
    elif action == DOWN:
        s[Y] = min(SIZE - 2, s[Y] + 1)


def _move_shots(s: Any) -> int:
    hits = 0
    for k in range(s[SHOT] - 1, -1, -1):
        at = SHOT + 1 + THING * k
        s[at] += s[at + DX]
        if _outside(s[at]):
            _remove(s, SHOT, k)
            continue
        for enemies in (FISH, SUB):
            hit = _find(s, enemies, s[at], s[at + 1])
            if hit >= 0:
                _remove(s, enemies, hit)
                _remove(s, SHOT, k)
                hits += 1
                break
    return hits


def _move_divers(s: Any) -> None:
    for k in range(s[DIVER] - 1, -1, -1):
        at = DIVER + 1 + THING * k
        aboard = s[DIVERS] < ABOARD and _on_player(s, at)
        if not aboard:
            if s[at + MOVE_IN] > 0:
                s[at + MOVE_IN] -= 1
                continue
            s[at + MOVE_IN] = DIVER_MOVES
            s[at] += s[at + DX]
            aboard = s[DIVERS] < ABOARD and _on_player(s, at)
        if aboard:
            s[DIVERS] += 1
        if aboard or _outside(s[at]):
            _remove(s, DIVER, k)


def _move_enemies(s: Any, enemies: int) -> tuple[int, bool]:
    """How many ran into a shot, and whether one met the player; submarines drop bombs, also in their last frame."""
    hits, over = 0, False
    for k in range(s[enemies] - 1, -1, -1):
        at = enemies + 1 + THING * k
        over = over or _on_player(s, at)
        gone = False
        if s[at + MOVE_IN] > 0:
            s[at + MOVE_IN] -= 1
        else:
            s[at + MOVE_IN] = s[MOVE_EVERY]
            s[at] += s[at + DX]
            gone = _outside(s[at])
            if not gone and _on_player(s, at):
                over = True
            elif not gone:
                shot = _find(s, SHOT, s[at], s[at + 1])
                if shot >= 0:
                    _remove(s, SHOT, shot)
                    hits += 1
                    gone = True
        if enemies == SUB:
            if s[at + BOMB_IN] > 0:
                s[at + BOMB_IN] -= 1
            else:
                s[at + BOMB_IN] = BOMB_EVERY
                _add(s, BOMB, BOMBS, s[at], s[at + 1], s[at + DX], 0)
        if gone:
            _remove(s, enemies, k)
    return hits, over


def _move_bombs(s: Any) -> bool:
    over = False
    for k in range(s[BOMB] - 1, -1, -1):
        at = BOMB + 1 + THING * k
        over = over or _on_player(s, at)
        s[at] += s[at + DX]
        if _outside(s[at]):
            _remove(s, BOMB, k)
        else:
            over = over or _on_player(s, at)
    return over


def _breathe(s: Any, ramping: bool) -> tuple[int, bool]:
    """Use oxygen under water, and surface on the way up; what it pays, and whether the player drowns."""
    drowned = s[OXYGEN] <= 0
    if s[Y] > 0:
        s[OXYGEN] -= 1
        s[AT_SURFACE] = 0
        return 0, drowned
    if s[AT_SURFACE] == 1:
        return 0, drowned
    if s[DIVERS] == 0:
        return 0, True
    s[AT_SURFACE] = 1
    reward = 0
    if s[DIVERS] == ABOARD:
        reward = s[OXYGEN] * 10 // TANK
        s[DIVERS] = 0
    s[DIVERS] -= 1
    s[OXYGEN] = TANK
    if ramping and (s[SPAWN_EVERY] > 1 or s[MOVE_EVERY] > 2):
        if s[MOVE_EVERY] > 2 and s[RAMPS] % 2 == 1:
            s[MOVE_EVERY] -= 1
        if s[SPAWN_EVERY] > 1:
            s[SPAWN_EVERY] -= 1
        s[RAMPS] += 1
    return reward, drowned


def draw(s: Any, frame: Any) -> None:
    """The bottom row shows the oxygen and the divers aboard; the trail is the cell behind whatever swims."""
    frame[0, s[Y], s[X]] = True
    frame[1, s[Y], s[X] - s[FACING]] = True
    for x in range(max(0, s[OXYGEN]) * 10 // TANK):
        frame[7, SIZE - 1, x] = True
    for x in range(SIZE - 1 - max(0, s[DIVERS]), SIZE - 1):
        frame[8, SIZE - 1, x] = True
    for things, channel in ((SHOT, 2), (BOMB, 4), (FISH, 5), (SUB, 6), (DIVER, 9)):
        for k in range(s[things]):
            at = things + 1 + THING * k
            frame[channel, s[at + 1], s[at]] = True
            behind = s[at] - s[at + DX]
            if channel > 4 and not _outside(behind):
                frame[3, s[at + 1], behind] = True
