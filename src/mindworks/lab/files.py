"""Plain values, exact JSON, and files that are either whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from mindworks.errors import InputError

_FLOAT = "$float"


def plain(value: Any) -> Any:
    """`value` as dicts with string keys, lists, strings, ints, floats, bools and None.

    Arrays and tensors become (nested) lists, tuples become lists. Raises TypeError for anything else.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) in (int, float):
        return value
    if hasattr(value, "tolist"):  # numpy scalars and arrays, torch tensors
        return plain(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a {type(value).__name__} is not plain data")


def _key(key: Any) -> str:
    key = plain(key)
    return key if isinstance(key, str) else json.dumps(key)


def null_non_finite(value: Any) -> Any:
    """A plain `value` with every NaN and infinity replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [null_non_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: null_non_finite(item) for key, item in value.items()}
    return value


def _tag(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    if isinstance(value, list):
        return [_tag(item) for item in value]
    if isinstance(value, dict):
        return {key: _tag(item) for key, item in value.items()}
    return value


def _untag(pair: dict) -> Any:
    return float(pair[_FLOAT]) if pair.keys() == {_FLOAT} else pair


def dumps(value: Any, indent: int | None = None) -> str:
    """A plain `value` as valid JSON that `loads` gives back exactly: NaN and infinity become {"$float": "nan"}."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, indent=indent)
    except ValueError:
        return json.dumps(_tag(value), allow_nan=False, ensure_ascii=False, indent=indent)


def loads(text: str) -> Any:
    """The value that `dumps` wrote."""
    return json.loads(text, object_hook=_untag)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step: a crash or a full disk leaves the old file, or none."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_sealed(path: Path, value: Any) -> None:
    """Write a plain `value` together with its SHA-256, atomically."""
    body = dumps(value)
    seal = hashlib.sha256(body.encode()).hexdigest()
    write_atomic(path, f'{{"sha256": "{seal}", "value": {body}}}\n')


def read_sealed(path: Path) -> Any:
    """The value `write_sealed` stored; raises InputError that names the file when it is truncated or altered."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        body = json.dumps(document["value"], allow_nan=False, ensure_ascii=False)
        seal = document["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"damaged checkpoint {path}: {type(error).__name__} on reading it as JSON") from error
    if hashlib.sha256(body.encode()).hexdigest() != seal:
        raise InputError(f"damaged checkpoint {path}: its content does not match its SHA-256")
    return loads(body)


def remove_partial(folder: Path) -> None:
    """Delete the temporary files that killed writers left in `folder`."""
    for path in folder.glob(".*.json.*"):
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.safetensors.*"):
        path.unlink(missing_ok=True)
