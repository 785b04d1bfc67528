"""The folder of a run: its name, its description, and the lock that keeps a second process out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mindworks.errors import InputError
from mindworks.lab.files import dumps, loads, plain, write_atomic
from mindworks.lab.study import Study


def new_folder(parent: Path, scale: str) -> Path:
    """A new folder under `parent`, named by time and scale; raises InputError where none can be made."""
    stem = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{scale}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for count in range(1, 10_000):
            folder = parent / (stem if count == 1 else f"{stem}_{count}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise InputError(f"--out {parent}: no folder can be made there ({error.strerror})") from error
    raise InputError(f"--out {parent}: too many runs of one second")


def describe(study: Study, scale: str, config: Any, seeds: list[int]) -> dict[str, Any]:
    """The content of `config.json`."""
    return {"study": study.name, "scale": scale, "config": plain(dataclasses.asdict(config)), "seeds": list(seeds)}


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write `config.json`; a folder that has one belongs to another run and is refused."""
    path = folder / "config.json"
    if path.exists():
        raise InputError(f"{folder} holds a run already; continue it with --resume")
    write_atomic(path, dumps(description, indent=1) + "\n")


def read_description(folder: Path) -> dict[str, Any]:
    """The content of `config.json`; raises InputError where `folder` holds no run."""
    path = folder / "config.json"
    try:
        description = loads(path.read_text(encoding="utf-8"))
        missing = {"study", "scale", "config", "seeds"} - set(description)
    except OSError as error:
        raise InputError(f"--resume {folder}: no run is there ({error.strerror}: {path.name})") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"--resume {folder}: {path.name} is damaged") from error
    if missing:
        raise InputError(f"--resume {folder}: {path.name} lacks {', '.join(sorted(missing))}")
    return description


def revive(config: type, values: dict[str, Any]) -> Any:
    """A `config` from the values of a description; raises InputError that names what does not fit."""
    try:
        return config(**{name: _tuples(value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"config.json does not fit the study: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished run, or None."""
    path = folder / "result.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"damaged {path}: not JSON") from error


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold `folder` for this process; raises InputError when another process holds it for `patience` seconds more.

    The kernel releases the lock when its holder ends, however it ends.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this platform
        yield
        return
    with (folder / ".lock").open("a+") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    raise InputError(f"{folder} is in use by process {file.read().strip() or '?'}") from error
                time.sleep(0.1)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
