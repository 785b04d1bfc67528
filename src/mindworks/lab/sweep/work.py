"""The work of one job of a sweep, in a worker: a cell, cells that are computed at once, or a merge.

A job is a plain dict, so that it can go to another process or another machine. What comes of it is on the disk, where
every file is whole or absent; `perform` itself returns a line about it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, MissingExtra, require
from mindworks.lab import record as records
from mindworks.lab.discovery import find
from mindworks.lab.files import dumps, loads, plain, read_sealed, write_atomic
from mindworks.lab.folder import describe, locked, read_record, revive, write_description
from mindworks.lab.log import RunLog
from mindworks.lab.processes import BAD_INPUT, CRASH, described, one_line
from mindworks.lab.progress import Display
from mindworks.lab.runner import execute, finish, seed_stage
from mindworks.lab.sinks import following
from mindworks.lab.study import Study
from mindworks.lab.sweep.plan import Batch, Merge, Plan

PATIENCE = 5.0  # the processes of a killed sweep take a moment to end


class _File(Display):
    """Progress and remarks as lines of a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(terminal=False)
        self.path = path

    def say(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def job(plan: Plan, task: Batch | Merge, figures: bool = False, track: tuple[str, ...] = ()) -> dict[str, Any]:
    """The job that carries out `task`; `figures` draws those of every cell, `track` names sinks of its metrics."""
    cells = (task.whole,) if isinstance(task, Merge) else task.cells
    found: dict[str, Any] = {"package": plan.package, "study": plan.study.name, "scale": plan.scale}
    found |= {"root": str(plan.root.absolute()), "figures": figures, "track": list(track)}
    found["name"] = task.whole.name if isinstance(task, Merge) else task.name
    found["cells"] = [
        {"folder": str(cell.folder.absolute()), **describe(plan.study, plan.scale, cell.config, list(cell.seeds))}
        for cell in cells
    ]
    if isinstance(task, Merge):
        found["parts"] = [{"folder": str(part.folder.absolute()), "seeds": list(part.seeds)} for part in task.parts]
    return found


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Carry out a job; returns its `status` ('finished' or 'failed'), the `error` in a line, `cpu_s` and the `host`.

    An error is recorded in `error.json`, and a defect's traceback in `error.txt`, of the folder of every cell.
    """
    begun = records.cpu_seconds()
    try:
        _carry_out(job)
    except (InputError, MissingExtra, OSError) as error:
        outcome = _failed(job, one_line(error), BAD_INPUT, "")
    except (Exception, SystemExit) as error:  # a study's exit is not the worker's
        outcome = _failed(job, described(error), CRASH, traceback.format_exc())
    else:
        outcome = {"status": "finished", "error": ""}
    return {**outcome, "cpu_s": records.cpu_seconds() - begun, "host": platform.node(), "pid": os.getpid()}


def _carry_out(job: dict[str, Any]) -> None:
    root = Path(job["root"])
    require(
        (root / "sweep.json").exists(),
        f"{platform.node()} does not see {root}: a sweep on several machines needs a folder that all of them share",
    )
    study = find(job["study"], job["package"])
    for cell in job["cells"]:
        folder = Path(cell["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").unlink(missing_ok=True)
    if "parts" in job:
        _merge(study, job)
    elif len(job["cells"]) > 1:
        _together(study, job, root)
    else:
        _alone(study, job)
    for cell in job["cells"]:
        (Path(cell["folder"]) / "error.json").unlink(missing_ok=True)


def _failed(job: dict[str, Any], error: str, status: int, text: str) -> dict[str, Any]:
    for cell in job["cells"]:
        with contextlib.suppress(OSError):  # so that `mindworks runs` knows what failed
            _describe(Path(cell["folder"]), cell)
    record_error([Path(cell["folder"]) for cell in job["cells"]], error, status, text)
    return {"status": "failed", "error": error}


def record_error(folders: list[Path], error: str, status: int, text: str = "") -> None:
    """Leave `error.json`, and the traceback `text` in `error.txt`, in the folders of cells that failed."""
    for folder in folders:
        with contextlib.suppress(OSError):
            path = folder / "error.json"
            before = loads(path.read_text(encoding="utf-8"))["attempts"] if path.exists() else 0
            found = {"error": error, "status": status, "attempts": before + 1}
            write_atomic(path, dumps({**found, "when": time.strftime("%Y-%m-%dT%H:%M:%S")}) + "\n")
            if text:
                write_atomic(folder / "error.txt", text)


def _alone(study: Study, job: dict[str, Any]) -> None:
    """One cell: a run like any other, with the seeds of a study that takes them singly in turns."""
    (cell,) = job["cells"]
    folder = Path(cell["folder"])
    execute(
        study,
        revive(study.config, cell["config"]),
        cell["scale"],
        cell["seeds"],
        folder,
        resume=(folder / "config.json").exists(),
        display=_File(folder / "output.txt"),
        apart=False,
        figures=job["figures"],
        patience=PATIENCE,
        track=job["track"],
    )


def _together(study: Study, job: dict[str, Any], root: Path) -> None:
    """Several cells in one call of `run_many`; each becomes a run of its own, with its share of the time."""
    cells = job["cells"]
    require(study.run_many is not None, f"the study {study.name} cannot run several configurations at once")
    assert study.run_many is not None
    run_many, configs = study.run_many, [revive(study.config, cell["config"]) for cell in cells]
    space = root / "batches" / job["name"]
    space.mkdir(parents=True, exist_ok=True)
    with locked(space, PATIENCE):
        timer = records.Timer(space)
        timer.store()
        log = RunLog(space, _File(space / "output.txt"), on_save=timer.store)
        data = log.whole(lambda log: run_many(configs, cells[0]["seeds"], log))
        log.close()
        timer.store()
        seconds = {name: round(value / len(cells), 3) for name, value in timer.read().items()}
        require(len(data) == len(cells), f"run_many of {study.name} gave {len(data)} results for {len(cells)} cells")
        lines = (space / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        for number, (cell, part) in enumerate(zip(cells, data, strict=True)):
            folder = Path(cell["folder"])
            _describe(folder, cell)
            write_atomic(folder / "metrics.jsonl", "".join(_of_config(lines, number)))
            _finish_once(study, cell, part, lambda: {**seconds, "together": len(cells)}, job["figures"], job["track"])
    shutil.rmtree(space)


def _of_config(lines: list[str], number: int) -> Iterator[str]:
    """The metrics of one configuration, and those that carry none."""
    for line in lines:
        values = loads(line)
        if values.pop("config", number) == number:
            yield dumps(values) + "\n"


def _merge(study: Study, job: dict[str, Any]) -> None:
    """The run of all seeds of a configuration, from what its cells stored for each seed."""
    require(study.combine is not None, f"the study {study.name} cannot combine its seeds")
    assert study.combine is not None
    (cell,) = job["cells"]
    folder, parts, metrics = Path(cell["folder"]), [], []
    seconds = {"wall_s": 0.0, "cpu_s": 0.0}
    with locked(folder, PATIENCE):
        _describe(folder, cell)
        for part in job["parts"]:
            place = Path(part["folder"])
            parts += [read_sealed(place / "checkpoint" / f"{seed_stage(seed)}.json")["value"] for seed in part["seeds"]]
            metrics.append((place / "metrics.jsonl").read_bytes() if (place / "metrics.jsonl").exists() else b"")
            record = read_record(place)
            require(record is not None, f"{place} holds no finished run")
            assert record is not None
            seconds = {name: round(seconds[name] + record["timing"][name], 3) for name in seconds}
        write_atomic(folder / "metrics.jsonl", b"".join(metrics))
        data = loads(dumps(plain(study.combine(parts))))
        _finish_once(study, cell, data, lambda: seconds, figures=True, track=job["track"])


def _describe(folder: Path, cell: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        write_description(folder, _description(cell))


def _description(cell: dict[str, Any]) -> dict[str, Any]:
    return {name: cell[name] for name in ("study", "scale", "config", "seeds")}


def _finish_once(
    study: Study,
    cell: dict[str, Any],
    data: Any,
    timing: Callable[[], dict[str, float]],
    figures: bool,
    track: Sequence[str],
) -> None:
    folder = Path(cell["folder"])
    if read_record(folder) is None:
        with following(folder, track, _File(folder / "output.txt")):
            finish(study, _description(cell), data, folder, timing, figures)
