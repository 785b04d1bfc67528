"""IDX files, the form in which MNIST and its relatives are distributed.

An IDX file is two zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, and the
values, big-endian, last dimension fastest.
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from mindworks.data.images import Images
from mindworks.errors import InputError, require

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


def read_idx(path: str | Path) -> np.ndarray:
    """The array in an IDX file, plain or gzip (told by its content), in native byte order.

    Raises `InputError` that names the file if it cannot be read, is no IDX file, or has too few or too many bytes.
    """
    path = Path(path)
    content = _content(path)
    require(len(content) >= 4, f"{path} is truncated: an IDX file starts with 4 bytes, got {len(content)}")
    zeros, code, ndim = content[:2], content[2], content[3]
    require(zeros == b"\0\0" and code in _TYPES, f"{path} is no IDX file: it starts with 0x{content[:4].hex()}")
    start = 4 + 4 * ndim
    require(len(content) >= start, f"{path} is truncated: {ndim} dimensions need {start} bytes, got {len(content)}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", ndim, 4))
    dtype = np.dtype(_TYPES[code])
    expected = start + prod(shape) * dtype.itemsize
    fault = "truncated" if len(content) < expected else "too long"
    require(len(content) == expected, f"{path} is {fault}: shape {shape} needs {expected} bytes, got {len(content)}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path} is a damaged gzip file: {error}") from error


def mnist(folder: str | Path) -> Images:
    """MNIST, or a set distributed like it, from its four IDX files in `folder`; nothing is downloaded.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`; a dot before `idx` and
    the ending `.gz` are known too. Images `[B, 1, height, width]`, pixels k / 255. Raises `InputError` that names the
    file that is missing or wrong.
    """
    arrays = []
    for part in ("train", "t10k"):
        image_file, label_file = _find(Path(folder), f"{part}-images", 3), _find(Path(folder), f"{part}-labels", 1)
        images, labels = read_idx(image_file), read_idx(label_file)
        for path, array, ndim in ((image_file, images, 3), (label_file, labels, 1)):
            require(
                array.ndim == ndim and array.dtype == np.uint8,
                f"{path} must hold bytes in {ndim} dimensions, got {array.dtype} {array.shape}",
            )
        require(
            len(images) == len(labels),
            f"{label_file} must have one label per image of {image_file.name}, got {len(labels)} for {len(images)}",
        )
        arrays += [images[:, None].astype(np.float32) / 255, labels.astype(np.int64)]
    return Images(*arrays)


def _find(folder: Path, stem: str, ndim: int) -> Path:
    names = [f"{stem}{mark}idx{ndim}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} has no {names[0]} (nor {', '.join(names[1:])}); nothing is downloaded")
