"""Studies are found by listing their folder; each is imported when it is asked for."""

from __future__ import annotations

import difflib
import json
import pkgutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab.record import CHECKOUT
from mindworks.lab.study import Study

STUDIES = "mindworks.studies"


def names(package: str = STUDIES) -> list[str]:
    """The names of all studies, sorted; none is imported."""
    folder = import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(folder) if not module.name.startswith("_"))


def find(name: str, package: str = STUDIES) -> Study:
    """The study called `name`; raises InputError with the nearest name where there is none."""
    known = names(package)
    if name not in known:
        raise InputError(f"no study named {name!r}{nearest(name, known)}")
    study = import_module(f"{package}.{name}").STUDY
    require(study.name == name, f"the file {name}.py holds a study named {study.name!r}")
    return study


def nearest(name: str, known: Iterable[str]) -> str:
    """'; nearest: X' for a misspelt name, or the list of what there is, or nothing."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; nearest: {close[0]}"
    return f"; there are: {', '.join(known)}" if known else ""


def results_folder() -> Path | None:
    """The committed records, where this package runs from a checkout; else None."""
    folder = CHECKOUT / "results"
    return folder if (CHECKOUT / "pyproject.toml").exists() and folder.is_dir() else None


def last_record(name: str, results: Path | None) -> dict[str, Any] | None:
    """The record of the last full run of a study, or None."""
    path = None if results is None else results / f"{name}.json"
    if path is None or not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"damaged {path}: not JSON") from error
