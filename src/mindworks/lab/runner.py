"""Running a study: from a configuration to a record, in one go or in several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab import record as records
from mindworks.lab.files import dumps, loads, plain, write_atomic
from mindworks.lab.folder import describe, locked, read_description, read_record, write_description
from mindworks.lab.log import RunLog
from mindworks.lab.processes import run_seeds
from mindworks.lab.progress import Display
from mindworks.lab.sinks import available, following
from mindworks.lab.study import Study


def execute(
    study: Study,
    config: Any,
    scale: str,
    seeds: list[int],
    folder: Path,
    resume: bool = False,
    display: Display | None = None,
    apart: bool = True,
    figures: bool = True,
    patience: float = 0.0,
    track: Sequence[str] = (),
) -> dict[str, Any]:
    """Run `study` in `folder` and return its record, which `folder/result.json` holds as well.

    `resume` continues the run that `folder` holds, or returns the record of a finished one. A study with `combine`
    gives every seed a process, or, with `apart` off, runs them here in turns. `figures` off draws none. A folder that
    another process holds is waited for `patience` seconds. `track` names the sinks that are sent the metrics as well.
    Raises InputError when the folder belongs to another run or another process; OSError when the disk refuses;
    MissingExtra when a sink is not installed.
    """
    folder, track = Path(folder), available(track)
    if not resume:
        folder.mkdir(parents=True, exist_ok=True)
    description = describe(study, scale, config, seeds)
    if resume and (recorded := read_description(folder)) != loads(dumps(description)):
        different = [key for key in description if recorded[key] != description[key]]
        raise InputError(f"--resume {folder}: the run there has another {' and '.join(different)}")
    with locked(folder, patience):
        if not resume:
            write_description(folder, description)
        display = Display() if display is None else display
        with following(folder, track, display):
            if resume and (finished := read_record(folder)) is not None:
                return finished
            timer = records.Timer(folder)
            timer.store()
            try:
                data = _data(study, config, seeds, folder, display, timer, apart)
            finally:
                display.close()
                timer.store()
            return finish(study, description, data, folder, timer.read, figures)


def _data(
    study: Study, config: Any, seeds: list[int], folder: Path, display: Display, timer: records.Timer, apart: bool
) -> dict[str, Any]:
    """What the seeds gave, as plain data."""
    if study.combine is not None and apart:
        parts = run_seeds(study, config, seeds, folder, display)
        return loads(dumps(plain(study.combine(parts))))
    log = RunLog(folder, display, on_save=timer.store)

    def whole(log: RunLog) -> Any:
        return study.run(config, seeds, log) if study.combine is None else _in_turns(study, config, seeds, log)

    data = log.whole(whole)
    log.close()
    return data


def seed_stage(seed: int) -> str:
    """The stage that a seed is when the seeds of a study with `combine` run in turns."""
    return f"seed-{seed}"


def _in_turns(study: Study, config: Any, seeds: list[int], log: RunLog) -> dict[str, Any]:
    def one(seed: int) -> Any:
        return log.stage(seed_stage(seed), lambda log: study.run(config, [seed], log.tagged(seed=seed)))

    assert study.combine is not None
    return study.combine([one(seed) for seed in seeds])


def finish(
    study: Study,
    description: dict[str, Any],
    data: dict[str, Any],
    folder: Path,
    timing: Callable[[], dict[str, float]],
    figures: bool = True,
) -> dict[str, Any]:
    """Judge `data`, draw it, and write `data.json` and, last, the record, which is returned."""
    write_atomic(folder / "data.json", dumps(data) + "\n")
    checks = study.check(data)
    require(len(checks) > 0, f"study {study.name!r} has no checks")
    if figures:
        study.plot(data, folder)
    tables = study.table(data) if study.table is not None else {}
    record = records.build(
        study, description["scale"], description["config"], description["seeds"], checks, tables, timing()
    )
    write_atomic(folder / "result.json", records.text(record))
    return record
