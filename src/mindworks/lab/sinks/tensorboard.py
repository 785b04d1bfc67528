"""TensorBoard: event files below the run's folder, one folder per seed, so that equal names share a chart."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

from mindworks.errors import import_extra
from mindworks.lab.sinks.curves import Point
from mindworks.lab.sinks.sink import About, check_numbers, check_table, pretty


def start(about: About) -> TensorBoard:
    """The sink of a run; a resumed run goes on in a new event file of the same folder."""
    return TensorBoard(about)


class TensorBoard:
    """Writes event files with TensorBoard's own writer; torch is not needed."""

    durable = True

    def __init__(self, about: About) -> None:
        event_pb2, summary_pb2, self._tensor, self._shape, self._types = (
            import_extra(f"tensorboard.compat.proto.{name}_pb2", "track")
            for name in ("event", "summary", "tensor", "tensor_shape", "types")
        )
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = import_extra("tensorboard.summary.writer.event_file_writer", "track").EventFileWriter
        self._text_metadata = import_extra("tensorboard.plugins.text.metadata", "track").create_summary_metadata
        self._home, self.where = about.home, f"tensorboard --logdir {shlex.quote(str(about.home))}"
        self._writers: dict[str, Any] = {}
        if not about.resumed:
            settings = {name: _simple(value) for name, value in about.settings.items()}
            summary_v2 = import_extra("tensorboard.plugins.hparams.summary_v2", "track")
            self._add("", 0, summary_v2.hparams_pb(settings, trial_id=about.id).value)
            self._add("", 0, [self._text("config", pretty(about.settings))])

    def write(self, point: Point) -> None:
        """One value per curve, at the point's step."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
        self._add(point.run, point.step, values)

    def flush(self) -> None:
        """Everything to the disk."""
        for writer in self._writers.values():
            writer.flush()

    def close(self, finished: bool, checks: list[dict[str, Any]]) -> None:
        """The checks as a table and as numbers, then the end."""
        if checks:
            numbers = check_numbers(checks).items()
            self._add("", 0, [self._summary.Value(tag=name, simple_value=value) for name, value in numbers])
            self._add("", 0, [self._text("checks", check_table(checks))])
        for writer in self._writers.values():
            writer.close()

    def _add(self, run: str, step: int, values: Any) -> None:
        if run not in self._writers:
            self._writers[run] = self._writer(str(self._home / run))
        event = self._event(wall_time=time.time(), step=step, summary=self._summary(value=values))
        self._writers[run].add_event(event)

    def _text(self, tag: str, text: str) -> Any:
        shape = self._shape.TensorShapeProto(dim=[self._shape.TensorShapeProto.Dim(size=1)])
        tensor = self._tensor.TensorProto(dtype=self._types.DT_STRING, string_val=[text.encode()], tensor_shape=shape)
        return self._summary.Value(tag=tag, metadata=self._text_metadata(tag, ""), tensor=tensor)


def _simple(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value, ensure_ascii=False)
