"""Weights & Biases: one run per folder, and one per seed in its group where lines name their seed.

`WANDB_MODE`, `WANDB_PROJECT`, `WANDB_ENTITY` and W&B's other variables hold as usual; its files lie in the run's
folder.
"""

from __future__ import annotations

import os
from typing import Any

from mindworks.errors import import_extra
from mindworks.lab.sinks.curves import Point
from mindworks.lab.sinks.sink import About, check_numbers


def start(about: About) -> WeightsAndBiases:
    """The sink of a run; a resumed run continues the W&B runs of the same ids."""
    return WeightsAndBiases(about)


class WeightsAndBiases:
    """Logs with the client of W&B.

    Each row has the number it would have in an unbroken run, so that W&B itself drops one sent a second time.
    """

    durable = False  # what the service of W&B holds is lost when it is killed

    def __init__(self, about: About) -> None:
        self._wandb = import_extra("wandb", "track")
        self._about = about
        self._runs: dict[str, Any] = {}
        self._defined: set[tuple[str, str]] = set()
        run = self._run("")
        self.where = run.url or f"{run.settings.mode}, in {about.home}"

    def write(self, point: Point) -> None:
        """One row; the chart of each curve has the point's axis below it."""
        run, axis = self._run(point.run), f"{point.prefix}{point.axis}"
        for name in point.values:
            if (point.run, name) not in self._defined:
                self._defined.add((point.run, name))
                if name != axis:
                    run.define_metric(name, step_metric=axis)
        run.log({**point.values, axis: point.step}, step=point.row)

    def flush(self) -> None:
        """Nothing: the service of W&B sends by itself."""

    def close(self, finished: bool, checks: list[dict[str, Any]]) -> None:
        """The checks as the run's summary, then the end, which waits for what is not sent yet."""
        if checks:
            claims = {f"checks/{n}/claim": check["claim"] for n, check in enumerate(checks, start=1)}
            self._run("").summary.update({**check_numbers(checks), **claims})
        for run in self._runs.values():
            run.finish(exit_code=0 if finished else 1)

    def _run(self, part: str) -> Any:
        if part not in self._runs:
            about = self._about
            name, identity = (f"{text}-{part}" if part else text for text in (about.name, about.id))
            self._runs[part] = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT") or about.project,
                name=name,
                id=identity,
                group=os.environ.get("WANDB_RUN_GROUP") or about.id,
                job_type=part.partition("-")[0] or "run",
                tags=[about.study, about.scale],
                config=about.settings,
                dir=str(about.home.parent),  # W&B adds its own name, that of `home`
                resume="allow",
                reinit="create_new",
                settings=self._wandb.Settings(console="off", silent=True, x_stats_pid=os.getppid()),
            )
        return self._runs[part]
