"""The index of runs: one SQLite file beside them that repeats what their folders say, and is never the truth.

Each use walks the folders and reads again those that changed. Files are renamed into a run's folder, so that its
modification time changes with whatever the index knows about it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mindworks.lab.index.facts import (
    COLUMNS,
    FAILED,
    MARKERS,
    RUNNING,
    STOPPED,
    Facts,
    claimed,
    compact,
    facts,
    held_by_a_process,
)

Found = TypeVar("Found")
NAME = ".index.sqlite"
SCHEMA = 1
WAIT_S = 10.0  # for another process that writes the index
_UNSETTLED_NS = 2_000_000_000  # a folder that changed so lately may change again within one tick of its clock
_STORED = (*COLUMNS, "at_rest", "stamp", "config_json", "checks_json")
_INSERT = f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * len(_STORED))})"


def with_index(root: Path, use: Callable[[sqlite3.Connection], Found], rebuild: bool = False) -> Found:
    """What `use(connection)` returns, on an index of the runs below `root` that is up to date.

    A damaged index, or one of another schema, is made anew. Where none can be written it is kept in memory alone.
    """
    if not _is_run(root):  # nothing is put into the folder of a run
        for again in (rebuild, True):
            try:
                with contextlib.closing(_connected(str(root / NAME))) as connection:
                    _refresh(connection, root, again)
                    return use(connection)
            except sqlite3.Error as error:
                if not _is_damage(error):
                    break
                with contextlib.suppress(OSError):
                    (root / NAME).unlink()
    with contextlib.closing(_connected(":memory:")) as connection:
        if not rebuild:
            _copy(root / NAME, connection)
        _refresh(connection, root, rebuild)
        return use(connection)


def _connected(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
    connection.create_function("config_value", 2, _config_value, deterministic=True)
    connection.create_function("claim_value", 2, _claim_value, deterministic=True)
    connection.create_function("has_claim", 2, lambda text, part: claimed(_parsed(text), part) is not None)
    return connection


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, and not that it is read-only, busy or out of reach."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


def _copy(path: Path, memory: sqlite3.Connection) -> None:
    """Begin with what an index that cannot be written holds already."""
    with contextlib.suppress(sqlite3.Error):
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0.0)) as disk:
            if disk.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                disk.backup(memory)


@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> Any:
    return json.loads(text)


def _config_value(text: str, name: str) -> Any:
    """A field of a configuration as SQLite compares it; numbers are read as Python reads them, to the last digit."""
    value = _parsed(text).get(name)
    return compact(value) if isinstance(value, (list, dict)) else value


def _claim_value(text: str, part: str) -> Any:
    check = claimed(_parsed(text), part)
    return None if check is None else check["value"]


def _refresh(connection: sqlite3.Connection, root: Path, rebuild: bool) -> None:
    """Bring the index up to date in one transaction, so that every reader sees all runs or none of the changes."""
    rebuild = rebuild or connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA
    rows = () if rebuild else connection.execute("SELECT path, stamp, at_rest, state FROM runs")
    known = {path: (stamp, at_rest, state) for path, stamp, at_rest, state in rows}
    now, seen = time.time_ns(), set()
    changed: list[tuple[Facts, int]] = []
    states: list[tuple[str, str]] = []
    for path, stamp in walk(root, {path: row[0] for path, row in known.items()}):
        seen.add(path)
        before, at_rest, state = known.get(path, (None, "", ""))
        folder = os.path.join(root, path)
        if stamp != before:
            changed.append((facts(folder, path), stamp if now - stamp > _UNSETTLED_NS else -1))
        elif (current := _state(folder, at_rest)) != state:
            states.append((current, path))
    gone = [(path,) for path in known.keys() - seen]
    if rebuild or changed or states or gone:
        with _transaction(connection):
            if rebuild:
                _create(connection)
            connection.executemany("DELETE FROM runs WHERE path = ?", gone)
            connection.executemany("UPDATE runs SET state = ? WHERE path = ?", states)
            connection.executemany(_INSERT, (_row(root, found, stamp) for found, stamp in changed))
            names = {(name,) for found, _ in changed for name in found.config}
            connection.executemany("INSERT OR IGNORE INTO fields VALUES (?)", sorted(names))


def _state(folder: str, at_rest: str) -> str:
    """The state of a run that is in the state `at_rest` unless a process is at work on it."""
    return RUNNING if at_rest in (FAILED, STOPPED) and held_by_a_process(folder) else at_rest


def _row(root: Path, found: Facts, stamp: int) -> tuple[Any, ...]:
    at_rest = found.columns["state"]
    columns = {**found.columns, "state": _state(os.path.join(root, found.columns["path"]), at_rest)}
    return (*columns.values(), at_rest, stamp, compact(found.config), compact(found.checks))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _create(connection: sqlite3.Connection) -> None:
    columns = ", ".join(f'"{name}"' for name in _STORED)
    connection.execute("DROP TABLE IF EXISTS runs")
    connection.execute("DROP TABLE IF EXISTS fields")
    connection.execute(f"CREATE TABLE runs ({columns}, PRIMARY KEY (path))")
    connection.execute("CREATE TABLE fields (name TEXT PRIMARY KEY)")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in MARKERS)


def walk(root: Path, known: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The folders of runs below `root`, relative to it, with their modification times in nanoseconds.

    Nothing inside a run's folder is a run; folders with a leading dot and symbolic links are passed over. A folder
    that `known` has with the same time is taken for a run without a look inside.
    """
    if _is_run(root):
        yield ".", root.stat().st_mtime_ns
        return
    left = [""]
    while left:
        parent = left.pop()
        try:
            entries = list(os.scandir(os.path.join(root, parent)))
        except OSError:  # vanished, or not ours to read
            continue
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                continue
            path = os.path.join(parent, entry.name)
            with contextlib.suppress(OSError, UnicodeEncodeError):
                path.encode()  # a name that is no text has no place in the index
                stamp = entry.stat(follow_symlinks=False).st_mtime_ns
                if known.get(path) == stamp or MARKERS.intersection(os.listdir(entry.path)):
                    yield path, stamp
                else:
                    left.append(path)
