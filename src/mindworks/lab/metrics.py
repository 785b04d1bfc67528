"""The metrics of a run: JSON lines, appended as it goes, that a resumed run continues without a gap or a repeat."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from mindworks.errors import InputError
from mindworks.lab.files import null_non_finite, plain


class MetricsFile:
    """`metrics.jsonl`, cut at `offset` bytes: the place the last checkpoint vouches for.

    What follows that place will be computed again. Lines before it may be computed again too, when a part of the run
    that saved nothing is repeated: each scope counts its lines, and a line that stands already is not written twice.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._position: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        size = path.stat().st_size if path.exists() else 0
        if size < offset:
            raise InputError(f"damaged {path}: it has {size} bytes, the checkpoint vouches for {offset}")
        if size:
            self._count(offset)
            os.truncate(path, offset)

    def _count(self, offset: int) -> None:
        try:
            with self.path.open("rb") as file:
                lines = file.read(offset).splitlines()
            self._kept.update(json.loads(line).get("stage", "") for line in lines)
        except ValueError as error:
            raise InputError(f"damaged {self.path}: not a line of JSON for every line") from error

    def append(self, scope: str, values: dict[str, Any]) -> None:
        """Add one line of `scope` (a stage, or "" outside every stage), unless it stands in the file already."""
        self._position[scope] += 1
        if self._position[scope] <= self._kept[scope]:
            return
        line = {"stage": scope, **values} if scope else values
        text = json.dumps(null_non_finite(plain(line)), allow_nan=False, ensure_ascii=False)
        file = self._opened()
        file.write(text.encode() + b"\n")
        file.flush()

    def position(self, scope: str) -> int:
        """How many lines `scope` has come to."""
        return self._position[scope]

    def rewind(self, scope: str, position: int) -> None:
        """`scope` continues after its line number `position`."""
        self._position[scope] = position

    def sync(self) -> int:
        """Put every line on the disk; returns the size of the file in bytes."""
        file = self._opened()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        return self._file
