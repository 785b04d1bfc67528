"""A study: one paper's claim, the run that tests it, and the checks that decide."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab.stats import interval

SCALES = ("smoke", "cpu", "paper")
RESERVED = frozenset({"help", "out", "resume", "scale", "seed", "seeds", "track"})
OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Check:
    """One sentence of a claim as a measured value, a direction and a bar.

    `op` is one of `<=`, `<`, `>=`, `>`, `==`. A value that is missing or not finite never passes. `each` holds one
    value per seed where `value` sums them up; the record keeps them, with the interval of their interquartile mean.
    """

    claim: str
    value: float
    op: str
    bar: float
    each: Sequence[float] = ()

    def __post_init__(self) -> None:
        require(self.op in OPERATORS, f"op must be one of {', '.join(OPERATORS)}, got {self.op!r}")

    @property
    def passed(self) -> bool:
        """Whether the value is a finite number on the right side of the bar."""
        if self.value is None or not math.isfinite(self.value):
            return False
        return bool(OPERATORS[self.op](float(self.value), float(self.bar)))

    def as_dict(self) -> dict[str, Any]:
        """The check as it stands in a record; a value that is not finite is stored as None.

        With values of several seeds it has `each` and `interval`, 95 %, of their interquartile mean.
        """
        found: dict[str, Any] = {"claim": self.claim, "value": _finite(self.value), "op": self.op}
        found |= {"bar": _number(self.bar), "passed": self.passed}
        if len(self.each) > 1:
            found["each"] = [_finite(value) for value in self.each]
            found["interval"] = [_finite(end) for end in interval([math.nan if v is None else v for v in self.each])]
        return found


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _number(value)


def _number(value: float) -> float:
    return int(value) if isinstance(value, int) else float(value)


@dataclass(frozen=True)
class Study:
    """A paper, its claim in a line, and the functions that test the claim.

    `run(config, seeds, log)` returns plain data, `check(data)` turns it into checks, `plot(data, folder)` draws.
    `scales` maps `smoke`, `cpu` and `paper` to overrides of `config`'s defaults; `seeds` to the number of seeds.
    Without `combine` all seeds go to one call of `run`; with it every seed runs in a process of its own, and
    `combine([data of each seed])` merges what the calls returned. `table(data)` fills the record's tables.

    `run_many(configs, seeds, log)` takes several configurations at once, which differ in `batchable` fields alone, and
    returns the data of each, the same as `run` would; its metrics carry `config`, the place in `configs`.
    """

    name: str
    paper: str
    config: type
    run: Callable[[Any, list[int], Any], dict]
    check: Callable[[dict], list[Check]]
    plot: Callable[[dict, Path], list[Path]]
    scales: Mapping[str, Mapping[str, Any]]
    seeds: Mapping[str, int]
    title: str = ""
    year: int = 0
    claim: str = ""
    bibtex: str = ""
    docs: str = ""
    table: Callable[[dict], dict] | None = None
    combine: Callable[[list[dict]], dict] | None = None
    batchable: Sequence[str] = ()
    run_many: Callable[[list[Any], list[int], Any], list[dict]] | None = None

    def __post_init__(self) -> None:
        require(is_dataclass(self.config), f"config of study {self.name!r} must be a dataclass, got {self.config!r}")
        names = {field.name for field in fields(self.config)}
        require(not names & RESERVED, f"config of study {self.name!r} uses a reserved name: {sorted(names & RESERVED)}")
        require(set(self.scales) == set(self.seeds), f"study {self.name!r}: scales and seeds must have the same keys")
        strange = set(self.batchable) - names
        require(not strange, f"study {self.name!r} calls unknown fields batchable: {sorted(strange)}")
        together = bool(self.batchable) == (self.run_many is not None)
        require(together, f"study {self.name!r}: batchable and run_many must be given together")
        require(
            not self.batchable or self.combine is None, f"study {self.name!r}: run_many and combine exclude another"
        )
        for scale, overrides in self.scales.items():
            unknown = set(overrides) - names
            require(not unknown, f"scale {scale!r} of study {self.name!r} sets unknown fields {sorted(unknown)}")

    def defaults(self, scale: str = "cpu") -> Any:
        """The configuration at `scale`: the defaults of `config` with the overrides of that scale."""
        if scale not in self.scales:
            raise InputError(f"--scale must be one of {', '.join(self.scales)}, got {scale!r}")
        return replace(self.config(), **self.scales[scale])

    def default_seeds(self, scale: str = "cpu", first: int = 0, count: int | None = None) -> list[int]:
        """Seeds `first, first + 1, ...`: `count` of them, or as many as the study has at `scale`."""
        count = self.seeds[scale] if count is None else count
        require(count >= 1, f"--seeds must be at least 1, got {count}")
        require(first >= 0, f"--seed must be at least 0, got {first}")
        return list(range(first, first + count))


def by_seed(parts: list[Any]) -> Any:
    """`combine` for runs that return nested dicts of the same keys: every leaf becomes a list, one entry per seed."""
    if isinstance(parts[0], dict):
        return {key: by_seed([part[key] for part in parts]) for key in parts[0]}
    return parts
