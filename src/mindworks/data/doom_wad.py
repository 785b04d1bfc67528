"""Mazes as Doom maps: the bytes of a WAD file that ViZDoom and other ports of ZDoom play.

A WAD is 12 bytes of head, the contents of its lumps, and a directory. A map is three lumps: its name, its geometry as
text (`TEXTMAP`, the Universal Doom Map Format), and an end mark; the engine computes the rest when it loads the map.

A cell is a square of `CELL` map units. Row 0 is the north: `centre` says where a cell lies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from mindworks.errors import require

CELL = 128  # map units; also the height of the walls. A player is 32 wide and its eyes are at 41
LIMIT = 255  # rows or columns: coordinates are 16-bit words where the console takes them
NORTH = 90  # degrees, as Doom counts them: 0 is the east, and they grow to the left
WALLS = ("BRICK1", "STARTAN3", "STONE2", "METAL1", "MARBLE1", "WOOD9", "CEMENT1", "ROCK2")  # all in freedoom2.wad
FLOOR, CEILING = "FLOOR0_1", "CEIL3_5"

Point = tuple[int, int]


def doom_wad(
    free: NDArray[np.bool_],
    *,
    textures: Sequence[str] = WALLS,
    light: int = 192,
    generator: np.random.Generator | None = None,
) -> bytes:
    """A WAD file with one map per maze of `free[N, H, W]`, named by `map_name`; `free[H, W]` is one maze.

    Each wall has a texture of its own out of `textures`, drawn by `generator`, or the first of them all over without
    one. `light` (0 to 255) is the same everywhere. The player starts in the first open cell and looks north. Raises
    `InputError` for a maze without an open cell, one of more than 255 rows or columns, or a texture that is no name.
    """
    mazes = mazes_of(free)
    require(0 <= light <= 255, f"light must lie in 0 to 255, got {light}")
    require(len(textures) > 0, "textures must name at least one, got none")
    for name in textures:
        plain = name.replace("_", "").isalnum() and name.isascii() and name == name.upper()
        require(plain and len(name) <= 8, f"textures must be names like {WALLS[0]}, got {name!r}")
    lumps: list[tuple[str, bytes]] = []
    for index, maze in enumerate(mazes):
        text = _textmap(maze, textures, light, generator)
        lumps += [(map_name(index), b""), ("TEXTMAP", text.encode("ascii")), ("ENDMAP", b"")]
    return _file(lumps)


def mazes_of(free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mazes `[N, H, W]` from one or many; raises `InputError` unless each of them can be a map."""
    mazes = np.asarray(free)
    require(
        mazes.dtype == np.bool_ and mazes.ndim in (2, 3) and mazes.size > 0,
        f"free must be bool [N, H, W] or [H, W], got {mazes.dtype} {mazes.shape}",
    )
    mazes = mazes.reshape(-1, *mazes.shape[-2:])
    require(max(mazes.shape[1:]) <= LIMIT, f"free must have at most {LIMIT} rows and columns, got {mazes.shape[1:]}")
    require(len(mazes) <= 100_000, f"free must be at most 100000 mazes, got {len(mazes)}")
    closed = np.flatnonzero(~mazes.any((1, 2)))
    require(len(closed) == 0, f"free must have an open cell in every maze, got none in maze {closed[:1]}")
    return mazes


def map_name(index: int) -> str:
    """What the map of maze `index` is called."""
    return f"M{index:05d}"


def centre(row: int, column: int, height: int) -> Point:
    """The middle (x, y) of a cell in map units; `height` is how many rows the maze has."""
    return column * CELL + CELL // 2, (height - row) * CELL - CELL // 2


def walls(free: NDArray[np.bool_]) -> list[tuple[Point, Point]]:
    """The boundary between open and blocked cells of `free[H, W]`: straight walls as long as they go.

    Each is (start, end), corners (row, column) of cells with 0 <= row <= H and 0 <= column <= W, and has its open side
    on the right. What lies outside the maze is blocked.
    """
    padded = np.pad(free, 1).astype(np.int8)
    across = padded[1:, 1:-1] - padded[:-1, 1:-1]  # [H + 1, W]: 1 where the south side is the open one
    along = (padded[1:-1, 1:] - padded[1:-1, :-1]).T  # [W + 1, H]: 1 where the east side is the open one
    found = []
    for row, west, east, face in _runs(across):
        found.append(((row, west), (row, east)) if face > 0 else ((row, east), (row, west)))
    for column, north, south, face in _runs(along):
        found.append(((south, column), (north, column)) if face > 0 else ((north, column), (south, column)))
    return found


def _runs(faces: NDArray[np.int8]) -> Iterator[tuple[int, int, int, int]]:
    """(line, start, stop, face) of every run of equal faces that are not 0."""
    for line, row in enumerate(faces.tolist()):
        start = 0
        for face, group in groupby(row):
            stop = start + sum(1 for _ in group)
            if face:
                yield line, start, stop, face
            start = stop


def _textmap(
    free: NDArray[np.bool_], textures: Sequence[str], light: int, generator: np.random.Generator | None
) -> str:
    height, lines = len(free), walls(free)
    points = {point: number for number, point in enumerate(dict.fromkeys(point for line in lines for point in line))}
    drawn = np.zeros(len(lines), int) if generator is None else generator.integers(len(textures), size=len(lines))
    row, column = np.argwhere(free)[0].tolist()
    x, y = centre(row, column, height)
    skills = "".join(f"skill{skill}=true;" for skill in range(1, 6))
    parts = ['namespace="zdoom";', f"thing{{x={x};y={y};angle={NORTH};type=1;single=true;{skills}}}"]
    parts += [f"vertex{{x={column * CELL};y={(height - row) * CELL};}}" for row, column in points]
    for number, (start, end) in enumerate(lines):
        parts.append(f"linedef{{v1={points[start]};v2={points[end]};sidefront={number};blocking=true;}}")
    parts += [f'sidedef{{sector=0;texturemiddle="{textures[choice]}";}}' for choice in drawn.tolist()]
    # all open cells are one sector: they have the same floor, ceiling and light, and need not touch
    parts.append(
        f'sector{{heightfloor=0;heightceiling={CELL};texturefloor="{FLOOR}";textureceiling="{CEILING}";'
        f"lightlevel={light};}}"
    )
    return "\n".join(parts) + "\n"


def _file(lumps: list[tuple[str, bytes]]) -> bytes:
    start, directory = 12, []
    for name, content in lumps:
        directory.append(struct.pack("<ii8s", start, len(content), name.encode("ascii")))
        start += len(content)
    return b"".join([struct.pack("<4sii", b"PWAD", len(lumps), start), *(content for _, content in lumps), *directory])
