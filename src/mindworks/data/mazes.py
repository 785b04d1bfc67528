"""The files of mazes that "Gated Path Planning Networks" (arXiv:1806.06408) came with: one `.npz` of nine arrays.

`arr_0` to `arr_2` are mazes, goal maps and policies to train on, `arr_3` to `arr_5` to validate, `arr_6` to `arr_8` to
test. Shape legend: N mazes, O orientations, A actions, H, W a map's height and width.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mindworks.errors import InputError, require


class MazeArrays(NamedTuple):
    """One part of a file, float32."""

    mazes: np.ndarray
    """`[N, H, W]`: 1 in open cells, 0 in walls"""
    goal_maps: np.ndarray
    """`[N, O, H, W]`: 1 at the goal, 0 elsewhere"""
    policies: np.ndarray
    """`[N, A, O, H, W]`: 1 for one best action per state; it means nothing at the goal, in walls and without a path"""


class MazeFile(NamedTuple):
    """The three parts of a file."""

    train: MazeArrays
    """to train on"""
    valid: MazeArrays
    """to choose settings by"""
    test: MazeArrays
    """to report"""


def read_mazes(path: str | Path) -> MazeFile:
    """The arrays of a published `.npz` of mazes; nothing is unpickled.

    Raises `InputError` that names the file if it cannot be read, and the array if it is missing or is not as described
    at `MazeArrays`. Policies may also be shares that add up to 1 over the actions.
    """
    path = Path(path)
    arrays = _arrays(path)
    parts = [MazeArrays(*arrays[3 * part : 3 * part + 3]) for part in range(3)]
    for number, part in enumerate(parts):
        _check(part, [f"{path}: arr_{3 * number + array}" for array in range(3)])
    _check_same(parts, [f"{path}: arr_{array}" for array in range(9)])
    return MazeFile(*(MazeArrays(*(array.astype(np.float32) for array in part)) for part in parts))


def write_mazes(
    path: str | Path,
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Write the three parts, (mazes, goal maps, policies) each, so that published code and `read_mazes` read them.

    Raises `InputError` for arrays that are not as described at `MazeArrays`, for a path that does not end in `.npz`,
    and for one that cannot be written.
    """
    path = Path(path)
    require(path.suffix == ".npz", f"path must end in .npz, got {path}")
    parts = [MazeArrays(*map(np.asarray, part)) for part in (train, valid, test)]
    names = [f"{part} {array}" for part in MazeFile._fields for array in MazeArrays._fields]
    for number, part in enumerate(parts):
        _check(part, names[3 * number : 3 * number + 3])
    _check_same(parts, names)
    try:
        np.savez_compressed(path, *(array.astype(np.float32) for part in parts for array in part))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _arrays(path: Path) -> list[np.ndarray]:
    names = [f"arr_{number}" for number in range(9)]
    try:
        require(zipfile.is_zipfile(path) or not path.is_file(), f"{path} is no .npz file: it is no zip archive")
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            require(not missing, f"{path} has no {', '.join(missing)}: a file of mazes has arr_0 to arr_8")
            arrays = []
            for name in names:
                try:
                    arrays.append(file[name])
                except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
                    raise InputError(f"{path}: {name} cannot be read: {_line(error)}") from error
            return arrays
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or _line(error)}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz file: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check(part: MazeArrays, names: list[str]) -> None:
    """Shapes, types and values of one part."""
    for array, name, shape in zip(part, names, ("N, H, W", "N, O, H, W", "N, A, O, H, W"), strict=True):
        numbers = array.dtype.kind in "fiub"
        require(
            numbers and array.ndim == shape.count(",") + 1,
            f"{name} must be numbers [{shape}], got {array.dtype} {list(array.shape)}",
        )
    mazes, goal_maps, policies = part
    size = mazes.shape[1:]
    require(
        goal_maps.shape[:1] + goal_maps.shape[2:] == mazes.shape,
        f"{names[1]} must be [{len(mazes)}, O, {size[0]}, {size[1]}] as its mazes, got {list(goal_maps.shape)}",
    )
    require(
        policies.shape[:1] + policies.shape[2:] == goal_maps.shape,
        f"{names[2]} must be [{len(mazes)}, A, {', '.join(map(str, goal_maps.shape[1:]))}] as its goal maps, "
        f"got {list(policies.shape)}",
    )
    _check_values(part, names)


def _check_values(part: MazeArrays, names: list[str]) -> None:
    mazes, goal_maps, policies = part
    for array, name in ((mazes, names[0]), (goal_maps, names[1])):
        wrong = (array != 0) & (array != 1)
        require(not wrong.any(), f"{name} must hold zeros and ones, got {array[wrong][:1].tolist()}")
    goals = goal_maps.sum((1, 2, 3))
    require(
        bool((goals == 1).all()),
        f"{names[1]} must hold one goal per maze, got {goals[goals != 1][:1].tolist()} for maze {_first(goals != 1)}",
    )
    # Sums of nan are no sums of 1 either.
    shares = (policies >= 0).all((1, 2, 3, 4)) & (abs(policies.sum(1) - 1) < 1e-3).all((1, 2, 3))
    require(
        bool(shares.all()),
        f"{names[2]} must hold one action per state, got none or several in maze {_first(~shares)}",
    )


def _first(wrong: np.ndarray) -> int:
    return int(np.argmax(wrong))


def _check_same(parts: list[MazeArrays], names: list[str]) -> None:
    """The parts share a size and a way to move."""
    for number, array in enumerate(array for part in parts for array in part):
        first = parts[0][number % 3]
        require(
            array.shape[1:] == first.shape[1:],
            f"{names[number]} must have the sizes of the first part {list(first.shape[1:])}, "
            f"got {list(array.shape[1:])}",
        )
