"""WAD files read back lump by lump: the walls of a maze, all of them, and the right way round."""

from __future__ import annotations

import re
import struct
from collections import Counter

import numpy as np
import pytest

from mindworks.data.doom_wad import CELL, WALLS, centre, doom_wad, map_name, walls
from mindworks.errors import InputError

RING = np.array([[c == "." for c in row] for row in ("#####", "#...#", "#.#.#", "#...#", "#####")])


def read_wad(content: bytes) -> list[tuple[str, bytes]]:
    """The format by its definition: a head, lumps anywhere, and a directory of offset, length and name."""
    kind, count, start = struct.unpack_from("<4sii", content)
    assert kind == b"PWAD"
    assert len(content) == start + 16 * count
    entries = [struct.unpack_from("<ii8s", content, start + 16 * number) for number in range(count)]
    return [(name.rstrip(b"\0").decode(), content[at : at + size]) for at, size, name in entries]


def read_textmap(text: bytes) -> dict[str, list[dict[str, str]]]:
    blocks: dict[str, list[dict[str, str]]] = {}
    for kind, body in re.findall(r"(\w+)\{(.*?)\}", text.decode("ascii")):
        blocks.setdefault(kind, []).append(dict(re.findall(r'(\w+)="?([^;"]*)"?;', body)))
    return blocks


def random_mazes(count: int, *shape: int) -> np.ndarray:
    mazes = np.random.default_rng(0).random((count, *shape)) < 0.5
    mazes[:, 1, 1] = True
    return mazes


def test_a_ring_around_a_pillar_is_two_squares() -> None:
    lumps = read_wad(doom_wad(RING))
    assert [name for name, _ in lumps] == ["M00000", "TEXTMAP", "ENDMAP"]
    assert [bool(content) for _, content in lumps] == [False, True, False]
    assert lumps[1][1].startswith(b'namespace="zdoom";')
    blocks = read_textmap(lumps[1][1])
    counts = {kind: len(found) for kind, found in blocks.items()}
    assert counts == {"thing": 1, "vertex": 8, "linedef": 8, "sidedef": 8, "sector": 1}
    corners = {(int(vertex["x"]) // CELL, int(vertex["y"]) // CELL) for vertex in blocks["vertex"]}
    assert corners == {(x, y) for x in (1, 4) for y in (1, 4)} | {(x, y) for x in (2, 3) for y in (2, 3)}
    start = blocks["thing"][0]
    assert (int(start["x"]), int(start["y"])) == centre(1, 1, 5) == (192, 448)
    assert (start["type"], start["angle"]) == ("1", "90")
    assert {side["texturemiddle"] for side in blocks["sidedef"]} == {WALLS[0]}
    assert blocks["sector"][0]["lightlevel"] == "192"
    assert doom_wad(RING[None]) == doom_wad(RING)


def test_every_map_is_written_with_its_own_walls() -> None:
    mazes = random_mazes(3, 5, 7)
    lumps = read_wad(doom_wad(mazes))
    assert [name for name, _ in lumps[::3]] == [map_name(index) for index in range(3)]
    for index, maze in enumerate(mazes):
        blocks = read_textmap(lumps[3 * index + 1][1])
        assert len(blocks["linedef"]) == len(blocks["sidedef"]) == len(walls(maze))
        points = [(int(vertex["x"]), int(vertex["y"])) for vertex in blocks["vertex"]]
        lines = {(points[int(line["v1"])], points[int(line["v2"])]) for line in blocks["linedef"]}
        assert lines == {
            tuple((column * CELL, (5 - row) * CELL) for row, column in (start, end)) for start, end in walls(maze)
        }


@pytest.mark.parametrize("shape", [(5, 5), (6, 9), (1, 4), (12, 3)])
def test_walls_close_and_cover_and_face_the_open_side(shape: tuple[int, int]) -> None:
    for maze in np.concatenate([random_mazes(20, 12, 12)[:, : shape[0], : shape[1]], np.ones((1, *shape), bool)]):
        if not maze.any():
            continue
        found = walls(maze)
        assert Counter(start for start, _ in found) == Counter(end for _, end in found)  # closed
        padded, pieces = np.pad(maze, 1), Counter()
        for (row, column), (last_row, last_column) in found:
            down, right = np.sign(last_row - row), np.sign(last_column - column)
            assert abs(down) + abs(right) == 1
            for step in range(max(abs(last_row - row), abs(last_column - column))):
                at = np.array([row + step * down + down / 2, column + step * right + right / 2])
                to_the_right = np.array([right, -down]) / 2  # heading east, the south is on the right
                open_side, closed_side = at + to_the_right + 0.5, at - to_the_right + 0.5  # in the padded maze
                assert padded[tuple(np.floor(open_side).astype(int))]
                assert not padded[tuple(np.floor(closed_side).astype(int))]
                pieces[tuple(at)] += 1
        assert set(pieces.values()) == {1}
        assert len(pieces) == sum(int((np.diff(padded.astype(int), axis=axis) != 0).sum()) for axis in (0, 1))
        starts = {(start, _heading(start, end)) for start, end in found}
        assert not [wall for wall in found if (wall[1], _heading(*wall)) in starts]  # none goes straight on in another


def _heading(start: tuple[int, int], end: tuple[int, int]) -> tuple[int, int]:
    return int(np.sign(end[0] - start[0])), int(np.sign(end[1] - start[1]))


def test_textures_are_drawn_by_the_generator() -> None:
    mazes = random_mazes(2, 9, 9)

    def drawn(seed: int) -> bytes:
        return doom_wad(mazes, textures=("ONE", "TWO_2"), light=7, generator=np.random.default_rng(seed))

    assert drawn(0) == drawn(0) != drawn(1)
    sides = read_textmap(read_wad(drawn(0))[1][1])["sidedef"]
    assert {side["texturemiddle"] for side in sides} == {"ONE", "TWO_2"}


@pytest.mark.parametrize(
    ("free", "options", "message"),
    [
        (RING.astype(float), {}, r"free must be bool \[N, H, W\] or \[H, W\], got float64 \(5, 5\)"),
        (RING[0], {}, r"free must be bool \[N, H, W\] or \[H, W\], got bool \(5,\)"),
        (np.zeros((0, 5, 5), bool), {}, r"free must be bool"),
        (np.ones((256, 3), bool), {}, r"free must have at most 255 rows and columns, got \(256, 3\)"),
        (np.stack([RING, RING & False]), {}, r"free must have an open cell in every maze, got none in maze \[1\]"),
        (RING, {"light": 256}, "light must lie in 0 to 255, got 256"),
        (RING, {"textures": ()}, "textures must name at least one, got none"),
        (RING, {"textures": ("BRICK1", 'A";x')}, "textures must be names like BRICK1, got 'A\";x'"),
        (RING, {"textures": ("METAL1", "TOOLONG12")}, "textures must be names like BRICK1, got 'TOOLONG12'"),
    ],
)
def test_bad_input_is_refused(free: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        doom_wad(free, **options)
