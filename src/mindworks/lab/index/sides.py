"""One side of a comparison: a run's folder, a record's file, or the last record of a study."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.errors import InputError
from mindworks.lab.discovery import nearest
from mindworks.lab.index import curves
from mindworks.lab.index.facts import FAILED, FINISHED, RUNNING, STOPPED, documents, flat, held_by_a_process, is_record


@dataclass(frozen=True)
class Side:
    """A run as it is compared; without a record it has no checks, timing and environment yet."""

    name: str
    folder: Path | None
    state: str
    study: str
    scale: str
    seeds: list[Any]
    config: dict[str, Any]
    checks: dict[str, dict[str, Any]]
    timing: dict[str, Any]
    environment: dict[str, Any]

    def curves(self) -> curves.Curves:
        """The curves of the folder's metrics; a record alone has none."""
        return curves.Curves({}, 0) if self.folder is None else curves.read(self.folder / "metrics.jsonl", self.seeds)


def side(word: str, results: Path | None) -> Side:
    """The side that `word` names; raises `InputError` in one line where nothing can be compared."""
    path = Path(word)
    if path.is_dir():
        return _of_folder(word, path)
    if path.name == "result.json" and path.is_file() and (path.parent / "config.json").is_file():
        return _of_folder(word, path.parent)
    if path.is_file():
        return _of_record(word, path)
    last = None if results is None else results / f"{word}.json"
    if last is not None and last.parent == results and last.is_file():
        return _of_record(str(last), last)
    known = [] if results is None else sorted(file.stem for file in results.glob("*.json"))
    near = nearest(word, known) if known and not path.suffix and len(path.parts) == 1 else ""
    raise InputError(f"compare: no run, record or recorded study is at {word!r}{near}")


def _of_folder(word: str, folder: Path) -> Side:
    found = documents(str(folder))
    if found.description is None:
        raise InputError(f"compare: {word} holds no run ({found.damage or 'config.json is missing'})")
    if found.damage and found.record is None:
        raise InputError(f"compare: {word} is damaged ({found.damage})")
    state = FINISHED
    if found.record is None:
        at_rest = STOPPED if found.failure is None else FAILED
        state = RUNNING if held_by_a_process(str(folder)) else at_rest
    return _side(word, folder, state, found.record or found.description)


def _of_record(word: str, path: Path) -> Side:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"compare: {word} is not JSON") from error
    if not is_record(record):
        raise InputError(f"compare: {word} is not the record of a run")
    return _side(word, None, FINISHED, record)


def _side(word: str, folder: Path | None, state: str, document: dict[str, Any]) -> Side:
    return Side(
        name=word,
        folder=folder,
        state=state,
        study=document["study"],
        scale=document["scale"],
        seeds=document["seeds"],
        config=flat(document["config"]),
        checks={check["claim"]: check for check in document.get("checks", [])},
        timing=document.get("timing", {}),
        environment=document.get("environment", {}),
    )
