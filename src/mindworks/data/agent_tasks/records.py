"""Records in text files, each with the file and the line it stands on, so that a bad one can be found and mended."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from mindworks.errors import InputError, require

_GZIP = b"\x1f\x8b"
_BLANK = " \t\r\n"
_SHOWN = 60
T = TypeVar("T")


def each(path: str | Path, records: Iterator[tuple[str, Any]], read: Callable[[str, Any], T]) -> list[T]:
    """Return `read(place, record)` of every record of the file at `path`, where the place is `file:line`.

    Raises `InputError` where there is no record: an empty file is a wrong path more often than a wish.
    """
    found = [read(place, record) for place, record in records]
    require(bool(found), f"{path} holds no record")
    return found


def read_text(path: str | Path) -> str:
    """Return the text of a UTF-8 file, plain or gzip (told by its content), without a byte order mark.

    Raises `InputError` that names the file if it cannot be read, and the line that is no UTF-8.
    """
    content = read_bytes(path)
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{path} is a damaged gzip file: {error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line} is not UTF-8: byte 0x{content[error.start]:02x}") from error


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file; raises `InputError` that names the file if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def json_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the object of every line that is not blank."""
    # splitlines() would also cut at the line separators that JSON allows inside strings.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", as_object(f"{path}:{number}", _decoded(path, line, number))


def json_array(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of every element of the one array in the file."""
    text = read_text(path)
    decoder, at = json.JSONDecoder(), _skip(text, 0)
    require(text[at : at + 1] == "[", f"{path} must hold one JSON array, got {shown(text[at:])}")
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        line = text.count("\n", 0, at) + 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{getattr(error, 'lineno', line)} is no JSON: {_reason(error)}") from error
        yield f"{path}:{line}", value
        at = _skip(text, end)
        require(text[at : at + 1] in (",", "]"), f"{path}:{text.count(chr(10), 0, at) + 1} must go on with , or ]")
        if text[at] == ",":
            at = _skip(text, at + 1)
            require(text[at : at + 1] != "]", f"{path}:{text.count(chr(10), 0, at) + 1} has a comma before ]")
    rest = _skip(text, at + 1)
    require(rest == len(text), f"{path}:{text.count(chr(10), 0, rest) + 1} goes on after the array")


def csv_rows(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of every row that is not empty; a row over several lines is at its last."""
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}:{rows.line_num} is no CSV: {error}") from error
        if row:
            yield f"{path}:{rows.line_num}", row


def text_of(place: str, record: dict[str, Any], field: str, *, empty: bool = False) -> str:
    """Return the string in a field; raises `InputError` if it is missing, no string, or blank and `empty` is off."""
    require(field in record, f"{place} has no {field!r}")
    value = record[field]
    require(isinstance(value, str), f"{place}: {field!r} must be a string, got {shown(value)}")
    require(empty or bool(value.strip()), f"{place}: {field!r} is empty")
    return value


def texts_of(place: str, record: dict[str, Any], field: str, minimum: int) -> tuple[str, ...]:
    """Return the strings in a field that holds a list of at least `minimum`."""
    require(field in record, f"{place} has no {field!r}")
    value = record[field]
    good = isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)
    require(
        good and len(value) >= minimum, f"{place}: {field!r} must list {minimum} strings or more, got {shown(value)}"
    )
    return tuple(value)


def plain_name(place: str, field: str, name: str) -> str:
    """Return the name of a file below a folder; raises `InputError` for one that leads out of the folder."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name
    require(inside and "\0" not in name, f"{place}: {field!r} must stay in its folder, got {shown(name)}")
    return name


def shown(value: Any) -> str:
    """Return a value for an error: on one line, and not longer than a glance."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def as_object(place: str, value: Any) -> dict[str, Any]:
    """Return the value, which must be a JSON object."""
    require(isinstance(value, dict), f"{place} must be a JSON object, got {shown(value)}")
    return value


def _decoded(path: str | Path, line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number} is no JSON: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error).partition("\n")[0]


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at
