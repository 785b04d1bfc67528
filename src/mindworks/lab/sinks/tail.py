"""The points of a growing `metrics.jsonl` that have not been sent."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from mindworks.lab.sinks.curves import Curves, Point


class Tail:
    """A file of metrics, read as it grows, of which `sent` lines have been sent.

    A run that is resumed cuts the file and computes the lines that followed again. They are the same lines, so that
    counting them is enough: none is sent twice.
    """

    def __init__(self, path: Path, sent: int = 0) -> None:
        self.path, self.sent = path, sent
        self._begin()

    def _begin(self) -> None:
        self._place = self._read = 0
        self._curves = Curves()

    def points(self) -> Iterator[Point]:
        """What has come since the last call; a line that is not whole yet stays for the next."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            if file.seek(0, 2) < self._place:
                self._begin()
            file.seek(self._place)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._place += len(data)
        for text in data.splitlines():
            self._read += 1
            point = None
            with contextlib.suppress(ValueError, AttributeError):  # a file cut and grown between two looks
                point = self._curves.point(json.loads(text))
            if self._read > self.sent:
                self.sent = self._read
                if point is not None:
                    yield point
