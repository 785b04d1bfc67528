"""Reading and searching text files under folders that were named beforehand, and nowhere else.

A path is walked one part at a time from an open folder, and no part may be a link, so that neither `..` nor a link
swapped in at the last moment leads out. Files that are not regular, too large, or no text are refused. A hard link to
a file outside cannot be told from a file; do not share folders in which others can make them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mindworks.errors import InputError, require


@dataclass(frozen=True)
class Match:
    """A line that holds what was searched for."""

    path: str
    """root and path, separated by `/`"""
    line: int
    """counted from 1"""
    text: str
    """the line, cut at 200 characters"""


@dataclass(frozen=True)
class Found:
    """What a search found, and whether it looked everywhere."""

    matches: tuple[Match, ...]
    """in the order of paths and lines"""
    complete: bool
    """False where a limit ended the search or a file was left out: too large, no text, or unreadable"""


class Folders:
    """Text files under `roots`: folders by the name that stands first in a path, such as `notes` in `notes/may.txt`.

    `max_bytes` bounds one file, `max_files` and ten times `max_bytes` what one search or listing looks at. Raises
    `InputError` for a root that is no folder or a name that is no single part of a path.
    """

    def __init__(self, roots: Mapping[str, str], *, max_bytes: int = 1 << 20, max_files: int = 2000) -> None:
        require(len(roots) > 0, "roots must name at least one folder, got none")
        require(os.open in os.supports_dir_fd, "files are confined by folder descriptors, which this system lacks")
        for name, folder in roots.items():
            require(name not in ("", ".", "..") and "/" not in name, f"roots must have plain names, got {name!r}")
            require(os.path.isdir(folder), f"roots[{name!r}] must be a folder, got {folder!r}")
        require(max_bytes > 0, f"max_bytes must be positive, got {max_bytes}")
        require(max_files > 0, f"max_files must be positive, got {max_files}")
        self.roots = {name: os.path.realpath(folder) for name, folder in sorted(roots.items())}
        self.max_bytes, self.max_files = max_bytes, max_files

    def read(self, path: str, *, first: int = 1, lines: int | None = None) -> str:
        """Return the text of `path`: `lines` of it (default: all) from line `first`, counted from 1.

        Raises `InputError` for a path that leads out or to no regular file, a file over `max_bytes`, and one that is
        not UTF-8 text.
        """
        require(first >= 1, f"first must be at least 1, got {first}")
        require(lines is None or lines >= 1, f"lines must be at least 1, got {lines}")
        text = self._text(path)
        kept = text.splitlines(keepends=True)[first - 1 : None if lines is None else first - 1 + lines]
        return "".join(kept)

    def list(self, path: str = "") -> tuple[str, ...]:
        """Return the paths right below the folder `path`, sorted, folders with a `/` at the end; "" lists the roots.

        Links are left out. Raises `InputError` for a path that leads out or to no folder, or holds over `max_files`.
        """
        if path in ("", "."):
            return tuple(f"{name}/" for name in self.roots)
        base = "/".join(_parts(path))
        place = self._open(path, folder=True)
        try:
            names = sorted(os.listdir(place))
            require(len(names) <= self.max_files, f"path must hold at most {self.max_files} files, got {len(names)}")
            return tuple(f"{base}/{name}{mark}" for name in names if (mark := _mark(name, place)) is not None)
        finally:
            os.close(place)

    def search(self, words: str, path: str = "", *, limit: int = 50) -> Found:
        """Return up to `limit` lines under `path` ("" for all roots) that hold `words`, whatever their case.

        `words` is plain text and no pattern: a pattern can be made to run for ever. Raises `InputError` for empty words
        and a path that leads out.
        """
        require(words != "", "words must not be empty, got ''")
        require(limit >= 1, f"limit must be at least 1, got {limit}")
        matches: list[Match] = []
        wanted, read, complete = words.casefold(), 0, True
        for seen, name in enumerate(self._walk(path)):
            if seen >= self.max_files or read > 10 * self.max_bytes:
                return Found(tuple(matches), False)
            try:
                text = self._text(name)
            except InputError:
                complete = False
                continue
            read += len(text)
            for number, line in enumerate(text.splitlines(), 1):
                if wanted in line.casefold():
                    if len(matches) == limit:
                        return Found(tuple(matches), False)
                    matches.append(Match(name, number, line[:200]))
        return Found(tuple(matches), complete)

    def _walk(self, path: str) -> Iterator[str]:
        """Files under `path`, which may be a file itself, in the order of their paths."""
        pending = ["/".join(_parts(path))] if path not in ("", ".") else list(self.roots)[::-1]
        top = True
        while pending:
            name = pending.pop()
            try:
                below = self.list(name)
            except InputError:
                if top and not self._is_file(name):
                    raise
                yield name
            else:
                pending += [each.rstrip("/") for each in reversed(below)]
            top = False

    def _is_file(self, path: str) -> bool:
        try:
            os.close(self._open(path, folder=False))
        except InputError:
            return False
        return True

    def _text(self, path: str) -> str:
        place = self._open(path, folder=False)
        with os.fdopen(place, "rb") as file:
            data = file.read(self.max_bytes + 1)
        require(len(data) <= self.max_bytes, f"path must be a file of at most {self.max_bytes} bytes, got {path!r}")
        require(b"\0" not in data, f"path must be a text file, got {path!r}, which holds zero bytes")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"path must be a UTF-8 text file, got {path!r}, which breaks at {error.start}") from error

    def _open(self, path: str, folder: bool) -> int:
        """A descriptor of the regular file or folder `path`; the caller closes it."""
        root, *parts = _parts(path)
        require(root in self.roots, f"path must start with one of {', '.join(self.roots)}, got {path!r}")
        inside = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            place = os.open(self.roots[root], inside | os.O_DIRECTORY)
            for number, part in enumerate(parts):
                last = number == len(parts) - 1 and not folder
                # A pipe would block its reader before it could be seen to be none.
                kind = os.O_NONBLOCK if last else os.O_DIRECTORY
                try:
                    below = os.open(part, inside | kind, dir_fd=place)
                finally:
                    os.close(place)
                place = below
        except OSError as error:
            raise InputError(
                f"path must be a {'folder' if folder else 'file'}, got {path!r}: {error.strerror}"
            ) from error
        regular = stat.S_ISDIR(os.fstat(place).st_mode) if folder else stat.S_ISREG(os.fstat(place).st_mode)
        if not regular:
            os.close(place)
            raise InputError(f"path must be a {'folder' if folder else 'regular file'}, got {path!r}")
        return place


def _parts(path: str) -> list[str]:
    """The parts of a relative path; raises `InputError` where one of them leads up or the path starts at the top."""
    require(isinstance(path, str) and path != "", f"path must not be empty, got {path!r}")
    require(not path.startswith(("/", "~")), f"path must be relative to a root, got {path!r}")
    require(path.isprintable() and "\\" not in path, f"path must be printable, without backslashes, got {path!r}")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    require(".." not in parts and parts != [], f"path must not lead out of its root, got {path!r}")
    return parts


def _mark(name: str, place: int) -> str | None:
    """`/` for a folder, nothing for a file, None for what is left out: links, devices, names that cannot be said."""
    try:
        mode = os.stat(name, dir_fd=place, follow_symlinks=False).st_mode
    except OSError:
        return None
    if not name.isprintable() or "\\" in name:
        return None
    return "/" if stat.S_ISDIR(mode) else "" if stat.S_ISREG(mode) else None
