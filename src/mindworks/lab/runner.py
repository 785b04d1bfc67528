"""Running a study: from a configuration to a record, in one go or in several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab import record as records
from mindworks.lab.files import dumps, loads, plain, write_atomic
from mindworks.lab.folder import describe, locked, read_description, read_record, write_description
from mindworks.lab.log import RunLog
from mindworks.lab.processes import run_seeds
from mindworks.lab.progress import Display
from mindworks.lab.study import Study


def execute(
    study: Study,
    config: Any,
    scale: str,
    seeds: list[int],
    folder: Path,
    resume: bool = False,
    display: Display | None = None,
) -> dict[str, Any]:
    """Run `study` in `folder` and return its record, which `folder/result.json` holds as well.

    `resume` continues the run that `folder` holds, or returns the record of a finished one. Raises InputError when
    the folder belongs to another run or another process; OSError when the disk refuses.
    """
    folder = Path(folder)
    if not resume:
        folder.mkdir(parents=True, exist_ok=True)
    description = describe(study, scale, config, seeds)
    if resume and (recorded := read_description(folder)) != loads(dumps(description)):
        different = [key for key in description if recorded[key] != description[key]]
        raise InputError(f"--resume {folder}: the run there has another {' and '.join(different)}")
    with locked(folder):
        if resume and (finished := read_record(folder)) is not None:
            return finished
        if not resume:
            write_description(folder, description)
        return _complete(study, config, description, folder, Display() if display is None else display)


def _complete(study: Study, config: Any, description: dict[str, Any], folder: Path, display: Display) -> dict[str, Any]:
    seeds: list[int] = description["seeds"]
    timer = records.Timer(folder)
    timer.store()
    try:
        if study.combine is None:
            log = RunLog(folder, display, on_save=timer.store)
            data = log.whole(lambda log: study.run(config, seeds, log))
            log.close()
        else:
            parts = run_seeds(study, config, seeds, folder, display)
            data = loads(dumps(plain(study.combine(parts))))
    finally:
        display.close()
        timer.store()
    write_atomic(folder / "data.json", dumps(data) + "\n")
    checks = study.check(data)
    require(len(checks) > 0, f"study {study.name!r} has no checks")
    study.plot(data, folder)
    tables = study.table(data) if study.table is not None else {}
    record = records.build(study, description["scale"], description["config"], seeds, checks, tables, timer.read())
    write_atomic(folder / "result.json", records.text(record))
    return record
