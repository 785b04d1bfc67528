"""Views from the real engine: they show the maze, from the place and in the direction that were asked for."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from mindworks.data import doom
from mindworks.data.doom import MazeViews, room_views, shrink
from mindworks.data.doom_wad import WALLS
from mindworks.errors import InputError, MissingExtra

MAZE = np.array(
    [[c == "." for c in row] for row in ("#######", "#.....#", "#.#.###", "#.#...#", "###.#.#", "#...#.#", "#######")]
)
AHEAD = ((-1, 0), (0, 1), (0, -1), (1, 0))
GREY = ("STONE2",)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to work in, on a machine that has ViZDoom."""
    pytest.importorskip("vizdoom")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_view_shows_the_floor_where_the_next_cell_is_open(engine: Path) -> None:
    with MazeViews(MAZE, engine, textures=GREY) as views:
        seen = views.maze(0)
    assert seen.shape == (7, 7, 4, 24, 32, 3)
    assert seen.dtype == np.uint8
    assert not seen[~MAZE].any()
    # the bottom of a view is brown floor, or the grey of a wall right ahead that hides it
    brown = seen[..., -2:, 12:20, 0].mean((-2, -1)) - seen[..., -2:, 12:20, 2].mean((-2, -1)) > 20
    for row, column in np.argwhere(MAZE):
        assert brown[row, column].tolist() == [MAZE[row + down, column + right] for down, right in AHEAD]


def test_the_left_of_a_view_is_on_the_left(engine: Path) -> None:
    corner = np.zeros((5, 5), bool)
    corner[1, 1:4] = corner[1:4, 3] = True  # a corridor to the east that turns south
    with MazeViews(corner, engine, textures=GREY) as views:
        east, north = (
            views.cells(0, [place])[0, direction].astype(int) for place, direction in (((1, 2), 1), ((3, 3), 0))
        )

    def floor(view: np.ndarray) -> np.ndarray:
        return (view[14:, :, 0] - view[14:, :, 2] > 20).sum(0)  # brown pixels of each column

    assert floor(east)[16:].sum() > floor(east)[:16].sum()  # it turns to the right
    assert floor(north)[16:].sum() < floor(north)[:16].sum()  # coming back, to the left


def test_the_same_arguments_give_the_same_bytes_in_any_order(engine: Path) -> None:
    mazes = np.stack([MAZE, np.rot90(MAZE).copy()])
    places = np.argwhere(MAZE)
    with MazeViews(mazes, engine, size=(16, 12)) as views:
        first = views.cells(0, places)
        turned = views.maze(1)
        backwards = views.cells(0, places[::-1])[::-1]
    np.testing.assert_array_equal(first, backwards)
    with MazeViews(mazes[1], engine, size=(16, 12)) as views:
        np.testing.assert_array_equal(views.maze(0), turned)
    assert len(np.unique(first.reshape(len(first) * 4, -1), axis=0)) > 8

    def drawn(seed: int) -> np.ndarray:
        return room_views(mazes, engine, size=(16, 12), generator=np.random.default_rng(seed))

    assert drawn(0).shape == (2, 3, 3, 4, 12, 16, 3)
    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert (drawn(0) != drawn(1)).any()


def test_light_and_textures_reach_the_engine(engine: Path) -> None:
    means = []
    for options in ({"light": 255}, {"light": 120}, {"textures": GREY}, {"textures": ("MARBLE1",)}):
        with MazeViews(MAZE, engine, **options) as views:
            means.append(views.cells(0, [(1, 1)])[0].mean((0, 1, 2)))
    assert means[0].mean() > 1.3 * means[1].mean()
    assert np.abs(means[2] - means[3]).max() > 5


def test_rooms_are_the_cells_of_odd_row_and_column(engine: Path) -> None:
    with MazeViews(MAZE, engine, size=(8, 6)) as views:
        np.testing.assert_array_equal(views.rooms(0), views.maze(0)[1::2, 1::2])


def test_places_are_exact_in_the_largest_maze(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MazeViews(np.ones((3, 255), bool), engine) as views:
        assert views.cells(0, [(1, 254), (2, 0)]).any()
        monkeypatch.setattr(doom, "EYES", 40)
        with pytest.raises(RuntimeError, match="the engine is at"):
            views.cells(0, [(0, 0)])


def test_nothing_is_left_behind(engine: Path) -> None:
    views = MazeViews(MAZE, engine)
    assert len(views) == 1
    assert list(engine.glob("mazes-*.wad"))
    views.close()
    views.close()
    assert list(engine.iterdir()) == []


def test_the_walls_are_in_the_game_that_comes_with_the_engine() -> None:
    vizdoom = pytest.importorskip("vizdoom")
    content = Path(vizdoom.__file__).with_name("freedoom2.wad").read_bytes()
    _, count, start = struct.unpack_from("<4sii", content)
    entries = [struct.unpack_from("<ii8s", content, start + 16 * number) for number in range(count)]
    at = next(at for at, _, name in entries if name == b"TEXTURE1")
    offsets = struct.unpack_from(f"<{struct.unpack_from('<i', content, at)[0]}i", content, at + 4)
    names = {content[at + offset : at + offset + 8].rstrip(b"\0").decode() for offset in offsets}
    assert set(WALLS) <= names


def test_requests_for_what_is_not_there_are_refused(engine: Path) -> None:
    with MazeViews(np.pad(MAZE, ((0, 1), (0, 0))), engine) as views:
        for index, places, message in (
            (1, [(1, 1)], "index must lie in 0 to 0, got 1"),
            (0, [(1, 1), (0, 0)], r"places must be open cells, got \(0, 0\)"),
            (0, [(-1, 1)], r"places must be open cells, got \(-1, 1\)"),
        ):
            with pytest.raises(InputError, match=message):
                views.cells(index, places)
        with pytest.raises(InputError, match=r"free must have odd sizes of at least 3, got \(8, 7\)"):
            views.rooms(0)
    with pytest.raises(InputError, match=r"folder must be one that can be written, got .*absent: No such file"):
        MazeViews(MAZE, engine / "absent")


@pytest.mark.parametrize("size", [(32,), (30, 24), (32, 25), (0, 24), (320, 240)])
def test_sizes_must_divide_the_engines_image(size: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="size must be a width that divides 160 and a height for 120, got"):
        MazeViews(MAZE, tmp_path, size=size)  # type: ignore[arg-type]


def test_without_the_engine_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(MissingExtra, match=r"vizdoom is not installed: pip install 'mindworks\[vision\]'"):
        MazeViews(MAZE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_shrinking_takes_rounded_means_of_blocks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    exact = images.reshape(2, 2, 3, 4, 2, 3).astype(float).mean((2, 4))
    np.testing.assert_array_equal(shrink(images, 2, 4), np.floor(exact + 0.5))
    np.testing.assert_array_equal(shrink(images, 6, 8), images)
    white = np.full((1, 120, 160, 3), 255, np.uint8)
    np.testing.assert_array_equal(shrink(white, 1, 1), np.full((1, 1, 1, 3), 255))
