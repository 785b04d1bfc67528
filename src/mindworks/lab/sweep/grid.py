"""The points of a sweep: what `--grid FIELD=A,B` and the other flags make of a study's configuration."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, get_origin, get_type_hints

from mindworks.errors import InputError
from mindworks.lab import flags
from mindworks.lab.discovery import nearest
from mindworks.lab.files import plain
from mindworks.lab.study import Study

_UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]+")
LABEL_LENGTH = 80


def axes(study: Study, grids: Iterable[str]) -> dict[str, list[str]]:
    """Field and texts of its values for each `FIELD=A,B`; raises InputError in one line that names the field."""
    names = [field.name for field in dataclasses.fields(study.config) if field.init]
    found: dict[str, list[str]] = {}
    for grid in grids:
        name, equals, text = grid.partition("=")
        field = name.strip().lstrip("-").replace("-", "_")
        if field not in names:
            raise InputError(f"--grid: {study.name} has no field {name!r}{nearest(field, names)}")
        values = [value.strip() for value in text.split(",")]
        if not equals or not all(values):
            raise InputError(f"--grid must be FIELD=A,B,..., got {grid!r}")
        if field in found:
            raise InputError(f"--grid names the field {field} twice")
        found[field] = values
    return found


def points(study: Study, words: Sequence[str], grids: Iterable[str]) -> list[flags.Request]:
    """What `mindworks run` would be asked for at every point of the grid, in its order, each once.

    `words` are the flags that all points share. The values of a field that is a tuple are written `A:B`.
    """
    chosen, given = axes(study, grids), flags.given(words)
    for field in chosen:
        if {flags.flag_of(field), flags.flag_of(f"no_{field}")} & given:
            raise InputError(f"{flags.flag_of(field)} and --grid {field}=... exclude one another")
    kinds = get_type_hints(study.config)
    words_of = {field: [_words(kinds, field, value) for value in values] for field, values in chosen.items()}
    found = {repr(request.config): request for request in flags.grid(study, list(words), words_of)}
    return list(found.values())


def _words(kinds: dict[str, Any], field: str, value: str) -> list[str]:
    if kinds[field] is bool:
        if value.lower() not in ("true", "false"):
            raise InputError(f"--grid {field}: a value must be true or false, got {value!r}")
        return [flags.flag_of(field if value.lower() == "true" else f"no_{field}")]
    if get_origin(kinds[field]) is tuple:
        return [flags.flag_of(field), *value.split(":")]
    return [f"{flags.flag_of(field)}={value}"]


def changes(study: Study, scale: str, config: Any) -> dict[str, Any]:
    """The fields in which `config` differs from the study's defaults at `scale`."""
    usual = study.defaults(scale)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if value != getattr(usual, name)}


def label(study: Study, scale: str, config: Any, seeds: Sequence[int]) -> str:
    """A name for a configuration and its seeds that a folder can have; the same whatever grid it came from."""
    parts = [f"{name}={_short(value)}" for name, value in changes(study, scale, config).items()]
    parts.append(f"seed={seeds[0]}" if len(seeds) == 1 else f"seeds={seeds[0]}-{seeds[-1]}")
    return _UNSAFE.sub("+", "_".join([scale, *parts]))[:LABEL_LENGTH]


def _short(value: Any) -> str:
    value = plain(value)
    return "+".join(map(_short, value)) if isinstance(value, list) else str(value)
