"""Answers kept in an SQLite file, looked up by everything that the answer depends on.

Values are JSON. One question asked many times at once in a process is asked once. Several processes may use one file:
the answer that is stored first is the one that all of them get.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import threading
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from mindworks.errors import InputError

_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL, seal TEXT NOT NULL)"
_BUSY_SECONDS = 60.0


def digest(request: Any) -> str:
    """Return the SHA-256 of a plain value's JSON with sorted keys; raises InputError for what JSON cannot hold."""
    try:
        text = json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"a request must hold plain JSON values: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """Plain values by key, in the SQLite file `path`, or in memory without one.

    An entry that was damaged counts as missing and is replaced. A full disk costs the entry, never the answer. It is
    safe in threads, in several event loops and in several processes; raises InputError for a file that is no database.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = ":memory:" if path is None else os.path.expanduser(os.fspath(path))
        self.hits = self.misses = self.joined = self.damaged = 0
        self._flights: dict[str, Future[dict[str, Any] | None]] = {}
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._connect()

    def _connect(self) -> sqlite3.Connection:
        """Open the file; anew in a process that was forked, where SQLite forbids the old connection."""
        if self._connection is not None and (self._process == os.getpid() or self.path == ":memory:"):
            return self._connection
        if self.path != ":memory:" and os.path.dirname(self.path):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        connection = None
        try:
            connection = sqlite3.connect(self.path, _BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")  # readers never wait for a writer
            connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last entries, not the file
            connection.execute(_TABLE)
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise InputError(f"cache {self.path} cannot be used: {error}") from None
        self._connection, self._process = connection, os.getpid()
        return connection

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the value stored under `key`, or None if there is none or it is damaged."""
        with self._lock:
            try:
                row = self._connect().execute("SELECT value, seal FROM answers WHERE key = ?", (key,)).fetchone()
            except sqlite3.DatabaseError:
                self.damaged += 1
                return None
            if row is None:
                return None
            value = _opened(key, *row)
            self.damaged += value is None
            return value

    def put(self, key: str, value: dict[str, Any]) -> dict[str, Any]:
        """Store `value` unless a sound one is there already, and return the one that is stored."""
        text = json.dumps(value, separators=(",", ":"))
        with self._lock:
            connection = self._connect()
            try:
                connection.execute("BEGIN IMMEDIATE")
                stored = self.get(key)
                if stored is None:
                    row = (key, text, _seal(key, text))
                    connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row)
                connection.execute("COMMIT")
            except sqlite3.Error as error:  # a full disk, a lock held for a minute: the answer itself is sound
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                warnings.warn(f"cache {self.path}: an answer was not stored: {error}", RuntimeWarning, stacklevel=2)
                return value
        return value if stored is None else stored

    async def once(self, key: str, make: Callable[[], Awaitable[dict[str, Any]]]) -> tuple[dict[str, Any], bool]:
        """Return the value of `key` and whether it was there; else await `make()` once for all who ask meanwhile.

        All of them get its value or its error. If the one that makes it is cancelled, another takes over.
        """
        while True:
            with self._lock:
                stored = self.get(key)
                if stored is not None:
                    self.hits += 1
                    return stored, True
                flight = self._flights.get(key)
                if flight is None:
                    self.misses += 1
                    flight = self._flights[key] = Future()
                    break
            value = await asyncio.shield(asyncio.wrap_future(flight))  # one who stops waiting stops nobody else
            if value is not None:
                self.joined += 1
                return value, True
        return await self._lead(key, flight, make), False

    async def _lead(
        self, key: str, flight: Future[dict[str, Any] | None], make: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        try:
            value = self.put(key, await make())
        except Exception as error:
            self._land(key)
            flight.set_exception(error)
            raise
        except BaseException:
            self._land(key)
            flight.set_result(None)  # cancelled: one of those who wait takes over
            raise
        self._land(key)
        flight.set_result(value)
        return value

    def _land(self, key: str) -> None:
        with self._lock:
            del self._flights[key]

    def __len__(self) -> int:
        with self._lock:
            return int(self._connect().execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _seal(key: str, text: str) -> str:
    return hashlib.sha256(f"{key}:{text}".encode()).hexdigest()


def _opened(key: str, text: Any, seal: Any) -> dict[str, Any] | None:
    """The value of a row, or None where the row is not what `put` wrote."""
    if not isinstance(text, str) or _seal(key, text) != seal:
        return None
    value = json.loads(text)
    return value if isinstance(value, dict) else None
