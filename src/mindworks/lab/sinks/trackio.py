"""trackio: a local SQLite database that `trackio show` draws; one run per folder, and one per seed in its group.

`TRACKIO_DIR` and trackio's other variables hold as usual; without them everything stays on this machine.
"""

from __future__ import annotations

import contextvars
import warnings
from typing import Any, TextIO

from mindworks.errors import import_extra
from mindworks.lab.sinks.curves import Point
from mindworks.lab.sinks.sink import About, check_numbers


def start(about: About) -> Trackio:
    """The sink of a run; a resumed run continues the trackio runs of the same names."""
    return Trackio(about)


class Trackio:
    """Logs with the client of trackio, whose warnings about lost points count as failures."""

    durable = True

    def __init__(self, about: About) -> None:
        self._lost: list[str] = []
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = self._note
        self._trackio = import_extra("trackio", "track")
        self._about = about
        self._runs: dict[str, Any] = {}
        self._run("")
        self.where = f"trackio show --project {about.project}"

    def write(self, point: Point) -> None:
        """One row at the point's step."""
        self._run(point.run).log(dict(point.values), step=point.step)

    def flush(self) -> None:
        """Raise OSError if trackio has lost something; its threads store the rest within half a second."""
        if self._lost:
            raise OSError(self._lost[0])

    def close(self, finished: bool, checks: list[dict[str, Any]]) -> None:
        """The checks as numbers, then the end."""
        if checks:
            self._run("").log(check_numbers(checks), step=0)
        for run in self._runs.values():
            run.finish()
        self.flush()

    def _run(self, part: str) -> Any:
        if part not in self._runs:
            about = self._about
            # trackio ends the run that its context holds before it begins another: each gets a context of its own
            self._runs[part] = contextvars.copy_context().run(
                self._trackio.init,
                project=about.project,
                name=f"{about.name}-{about.id}" + (f"-{part}" if part else ""),
                group=f"{about.name}-{about.id}",
                config=about.settings,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return self._runs[part]

    def _note(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UserWarning) and "trackio" in str(message):
            self._lost.append(str(message))
