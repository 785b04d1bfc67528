"""What a sweep consists of: cells, each a run of its own, and the runs that are merged from them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.errors import require
from mindworks.lab.files import dumps
from mindworks.lab.folder import describe
from mindworks.lab.study import Study
from mindworks.lab.sweep.grid import changes, label


@dataclass(frozen=True)
class Cell:
    """A run: one configuration and some seeds, in a folder that their content names."""

    point: int
    config: Any
    seeds: tuple[int, ...]
    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether its record is there."""
        return (self.folder / "result.json").exists()


@dataclass(frozen=True)
class Batch:
    """Cells that are computed at once: one, or several that differ in batchable fields alone."""

    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """The name of the one cell, or of all of them together."""
        if len(self.cells) == 1:
            return self.cells[0].name
        return f"{len(self.cells)}-together-{_digest([cell.name for cell in self.cells])}"


@dataclass(frozen=True)
class Merge:
    """The run of all seeds of a configuration, made from those of its cells."""

    whole: Cell
    parts: tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """A sweep of `study` in `root`: the configurations, what differs in them, the cells, what is merged from them."""

    study: Study
    package: str
    scale: str
    root: Path
    configs: tuple[Any, ...]
    shown: tuple[dict[str, Any], ...]
    cells: tuple[Cell, ...]
    merges: tuple[Merge, ...]

    def batches(self, per_batch: int = 0) -> list[Batch]:
        """What is left to compute, at most `per_batch` cells at once (0: as many as the study can batch)."""
        groups: dict[str, list[Cell]] = {}
        for cell in self.cells:
            if not cell.finished:
                groups.setdefault(self._company(cell), []).append(cell)
        size = per_batch or len(self.cells)
        return [
            Batch(tuple(group[start : start + size]))
            for group in groups.values()
            for start in range(0, len(group), size)
        ]

    def _company(self, cell: Cell) -> str:
        """Cells of the same company can be computed at once."""
        if not self.study.batchable:
            return cell.name
        values = describe(self.study, self.scale, cell.config, list(cell.seeds))
        kept = {name: value for name, value in values["config"].items() if name not in self.study.batchable}
        return dumps([kept, values["seeds"]])


def plan(
    study: Study, package: str, scale: str, configs: Sequence[Any], seeds: list[int], root: Path, batch: int = 0
) -> Plan:
    """The plan of a sweep over `configs` and `seeds` in `root`, with `batch` seeds per cell.

    `batch` 0 puts all seeds into one cell, or, where the study takes one seed at a time (`combine`), each into its own.
    """
    require(batch >= 0, f"--batch must be at least 0, got {batch}")
    size = batch or (1 if study.combine is not None else len(seeds))
    chunks = [tuple(seeds[start : start + size]) for start in range(0, len(seeds), size)]
    cells: list[Cell] = []
    merges: list[Merge] = []
    for number, config in enumerate(configs):
        parts = tuple(_cell(study, scale, number, config, chunk, root / "cells") for chunk in chunks)
        cells += parts
        if study.combine is not None and len(parts) > 1:
            merges.append(Merge(_cell(study, scale, number, config, tuple(seeds), root / "merged"), parts))
    shown = _different(study, scale, configs)
    return Plan(study, package, scale, root, tuple(configs), shown, tuple(cells), tuple(merges))


def _different(study: Study, scale: str, configs: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """Of each point, the fields in which the points differ; where there is one point, those that were changed."""
    first = configs[0]
    names = [field.name for field in dataclasses.fields(first)]
    varied = [name for name in names if any(getattr(config, name) != getattr(first, name) for config in configs)]
    if len(configs) == 1:
        varied = list(changes(study, scale, first))
    return tuple({name: getattr(config, name) for name in varied} for config in configs)


def _cell(study: Study, scale: str, point: int, config: Any, seeds: tuple[int, ...], folder: Path) -> Cell:
    description = describe(study, scale, config, list(seeds))
    name = f"{label(study, scale, config, seeds)}-{_digest(description)}"
    return Cell(point, config, seeds, folder / name)


def _digest(value: Any) -> str:
    return hashlib.sha256(dumps(value).encode()).hexdigest()[:10]
