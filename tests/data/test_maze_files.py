"""Files of mazes in the published layout, and every way in which one can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindworks.data import MazeArrays, read_mazes, write_mazes
from mindworks.errors import InputError


def part(count: int, seed: int, actions: int = 3, orientations: int = 4) -> list[np.ndarray]:
    """Arrays as the published code makes them, float64."""
    rng = np.random.default_rng(seed)
    mazes = rng.integers(0, 2, (count, 4, 5)).astype(np.float64)
    goal_maps = np.zeros((count, orientations, 4, 5))
    goal_maps[np.arange(count), rng.integers(0, orientations, count), 1, 2] = 1
    policies = np.moveaxis(np.eye(actions)[rng.integers(0, actions, goal_maps.shape)], -1, 1)
    return [mazes, goal_maps, policies]


def arrays() -> list[np.ndarray]:
    return [array for number, count in enumerate((3, 1, 2)) for array in part(count, number)]


def test_the_published_layout_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "mazes.npz", *arrays())
    file = read_mazes(str(tmp_path / "mazes.npz"))
    assert file._fields == ("train", "valid", "test")
    read = [array for one in file for array in one]
    assert len(read) == 9
    for ours, theirs in zip(read, arrays(), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


def test_a_written_file_has_the_published_layout(tmp_path: Path) -> None:
    parts = [MazeArrays(*part(count, number)) for number, count in enumerate((3, 1, 2))]
    write_mazes(tmp_path / "mazes.npz", *parts)
    with np.load(tmp_path / "mazes.npz", allow_pickle=False) as file:
        assert file.files == [f"arr_{number}" for number in range(9)]
        for name, array in zip(file.files, arrays(), strict=True):
            np.testing.assert_array_equal(file[name], array)
    for one, read in zip(parts, read_mazes(tmp_path / "mazes.npz"), strict=True):
        for ours, theirs in zip(one, read, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_shares_of_actions_are_read(tmp_path: Path) -> None:
    changed = arrays()
    changed[2] = np.full_like(changed[2], 1 / 3)
    np.savez(tmp_path / "mazes.npz", *changed)
    assert read_mazes(tmp_path / "mazes.npz").train.policies.max() == pytest.approx(1 / 3)


def at(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


DEFECTS = [
    (0, lambda a: a[0], r"arr_0 must be numbers \[N, H, W\], got float64 \[4, 5\]"),
    (0, lambda a: a.astype(str), "arr_0 must be numbers"),
    (3, lambda a: at(a, (0, 1, 1), 0.5), r"arr_3 must hold zeros and ones, got \[0.5\]"),
    (3, lambda a: at(a, (0, 1, 1), np.nan), "arr_3 must hold zeros and ones"),
    (1, lambda a: a[:2], r"arr_1 must be \[3, O, 4, 5\] as its mazes, got \[2, 4, 4, 5\]"),
    (1, lambda a: a[..., :3], "arr_1 must be"),
    (7, lambda a: a * 2, r"arr_7 must hold zeros and ones, got \[2.0\]"),
    (7, lambda a: at(a, 1, 0), r"arr_7 must hold one goal per maze, got \[0.0\] for maze 1"),
    (7, lambda a: at(a, (0, 0, 0), 1), r"arr_7 must hold one goal per maze, got \[6.0\] for maze 0"),
    (2, lambda a: a[:, :, :1], r"arr_2 must be \[3, A, 4, 4, 5\] as its goal maps, got \[3, 3, 1, 4, 5\]"),
    (2, lambda a: at(a, (2, slice(None), 0, 0, 0), 0), "arr_2 must hold one action per state, .* in maze 2"),
    (2, lambda a: at(a, (1, slice(None), 0, 0, 0), [2, -1, 0]), "arr_2 must hold one action per state, .* in maze 1"),
    (2, lambda a: at(a, 0, np.nan), "arr_2 must hold one action per state, .* in maze 0"),
    (8, lambda a: np.concatenate([a, 0 * a], 1), r"arr_8 must have the sizes of the first part \[3, 4, 4, 5\], got"),
]


@pytest.mark.parametrize(("number", "change", "message"), DEFECTS)
def test_wrong_arrays_are_named(number: int, change: Any, message: str, tmp_path: Path) -> None:
    changed = arrays()
    changed[number] = change(changed[number])
    np.savez(tmp_path / "mazes.npz", *changed)
    with pytest.raises(InputError, match=message) as raised:
        read_mazes(tmp_path / "mazes.npz")
    assert str(tmp_path / "mazes.npz") in str(raised.value)
    assert "\n" not in str(raised.value)
    parts = [tuple(changed[first : first + 3]) for first in (0, 3, 6)]
    name = ("train", "valid", "test")[number // 3] + " " + ("mazes", "goal_maps", "policies")[number % 3]
    with pytest.raises(InputError, match=name):
        write_mazes(tmp_path / "again.npz", *parts)  # type: ignore[arg-type]
    assert not (tmp_path / "again.npz").exists()


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.npz cannot be read: No such file"):
        read_mazes(tmp_path / "none.npz")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_mazes(tmp_path)
    (tmp_path / "text.npz").write_text("mazes")
    with pytest.raises(InputError, match=r"text.npz is no .npz file"):
        read_mazes(tmp_path / "text.npz")
    np.savez(tmp_path / "few.npz", *arrays()[:7])
    with pytest.raises(InputError, match=r"few.npz has no arr_7, arr_8: a file of mazes has arr_0 to arr_8"):
        read_mazes(tmp_path / "few.npz")
    whole = arrays()
    np.savez(tmp_path / "pickled.npz", *whole[:4], np.array([{}], object), *whole[5:])
    with pytest.raises(InputError, match=r"pickled.npz: arr_4 cannot be read: Object arrays cannot be loaded"):
        read_mazes(tmp_path / "pickled.npz")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "mazes.npz", *arrays())
    content = (tmp_path / "mazes.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"short.npz is no .npz file"):
        read_mazes(tmp_path / "short.npz")
    damaged = bytearray(content)
    start = content.index(b"arr_0.npy") + 20
    damaged[start : start + 40] = bytes(40)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(InputError, match=r"damaged.npz: arr_0 cannot be read"):
        read_mazes(tmp_path / "damaged.npz")


def test_paths_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    parts = [part(1, number) for number in range(3)]
    with pytest.raises(InputError, match=r"path must end in .npz, got .*mazes.zip"):
        write_mazes(tmp_path / "mazes.zip", *parts)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"none/mazes.npz cannot be written: No such file"):
        write_mazes(tmp_path / "none" / "mazes.npz", *parts)  # type: ignore[arg-type]
