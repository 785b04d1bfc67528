"""IDX files written here byte by byte, read back; and every way in which such a file can be wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from mindworks.data import mnist, read_idx
from mindworks.errors import InputError

# type code, struct's letter, numpy's type
TYPES = [
    (0x08, "B", "u1"),
    (0x09, "b", "i1"),
    (0x0B, "h", "i2"),
    (0x0C, "i", "i4"),
    (0x0D, "f", "f4"),
    (0x0E, "d", "f8"),
]


def idx(code: int, letter: str, shape: tuple[int, ...], values: list[float]) -> bytes:
    """The format by its definition: magic number, dimensions and values, all big-endian."""
    head = struct.pack(">BBBB", 0, 0, code, len(shape)) + struct.pack(f">{len(shape)}I", *shape)
    return head + struct.pack(f">{len(values)}{letter}", *values)


def write_mnist(folder: Path, *, dot: bool = False, packed: bool = False, train: int = 3, labels: int = 3) -> None:
    """Four files: `train` and two images of 2 x 3 pixels, pixel p of image i being 10 i + p, and labels 7 - i."""
    for part, images, count in (("train", train, labels), ("t10k", 2, 2)):
        pixels = [10 * i + p for i in range(images) for p in range(6)]
        contents = {
            f"{part}-images{'.' if dot else '-'}idx3-ubyte": idx(0x08, "B", (images, 2, 3), pixels),
            f"{part}-labels{'.' if dot else '-'}idx1-ubyte": idx(0x08, "B", (count,), [7 - i for i in range(count)]),
        }
        for name, content in contents.items():
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content, mtime=0) if packed else content)


@pytest.mark.parametrize(("code", "letter", "dtype"), TYPES)
@pytest.mark.parametrize("packed", [False, True])
def test_every_type_is_read_in_native_order(code: int, letter: str, dtype: str, packed: bool, tmp_path: Path) -> None:
    values = [1, 2, 3, 100, 0, 5]
    content = idx(code, letter, (3, 1, 2), values)
    path = tmp_path / "named.anyhow"
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    array = read_idx(path)
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, np.array(values).reshape(3, 1, 2))
    array[0] = 9  # it is the reader's own


def test_a_scalar_and_an_empty_array_are_read(tmp_path: Path) -> None:
    (tmp_path / "scalar").write_bytes(idx(0x0E, "d", (), [2.5]))
    (tmp_path / "empty").write_bytes(idx(0x08, "B", (0, 28, 28), []))
    assert read_idx(tmp_path / "scalar") == 2.5
    assert read_idx(tmp_path / "empty").shape == (0, 28, 28)


GOOD = idx(0x08, "B", (2, 3), [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated: an IDX file starts with 4 bytes, got 0"),
        (GOOD[:3], "truncated: an IDX file starts with 4 bytes, got 3"),
        (b"\1" + GOOD[1:], "no IDX file: it starts with 0x01000802"),
        (b"\0\0\x0a" + GOOD[3:], "no IDX file: it starts with 0x00000a02"),
        (GOOD[:9], "truncated: 2 dimensions need 12 bytes, got 9"),
        (GOOD[:-1], r"truncated: shape \(2, 3\) needs 18 bytes, got 17"),
        (GOOD + b"\0", r"too long: shape \(2, 3\) needs 18 bytes, got 19"),
        (b"\0\0\x08\2" + b"\xff" * 8 + GOOD[12:], "truncated: shape"),
        (gzip.compress(GOOD, mtime=0)[:-9], "damaged gzip file"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 20, "damaged gzip file"),
        (gzip.compress(GOOD[:-1], mtime=0), "truncated: shape"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "some-file"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_idx(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere cannot be read: No such file"):
        read_idx(tmp_path / "nowhere")


@pytest.mark.parametrize("dot", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_under_all_its_names(dot: bool, packed: bool, tmp_path: Path) -> None:
    write_mnist(tmp_path, dot=dot, packed=packed)
    images = mnist(tmp_path)
    assert images.train_images.shape == (3, 1, 2, 3)
    assert images.train_images.dtype == np.float32
    assert images.train_images[2, 0, 1, 1] == np.float32(24 / 255)
    np.testing.assert_array_equal(images.train_labels, [7, 6, 5])
    np.testing.assert_array_equal(images.test_labels, [7, 6])
    assert images.test_images[1, 0, 0, 2] == np.float32(12 / 255)


def test_a_missing_file_of_mnist_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"has no t10k-labels-idx1-ubyte .*nothing is downloaded") as caught:
        mnist(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_labels_that_do_not_match_the_images_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=3, labels=4)
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte must have one label per image .* got 4 for 3"):
        mnist(tmp_path)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(0x0D, "f", (3, 2, 3), [0.5] * 18))
    with pytest.raises(InputError, match="train-images-idx3-ubyte must hold bytes in 3 dimensions, got float32"):
        mnist(tmp_path)
