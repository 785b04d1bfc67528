"""Fields of runs, conditions on them and orders by them, as parameterised SQL over the index."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab.discovery import nearest
from mindworks.lab.index.facts import COLUMNS, claimed, compact

CLAIM, CONFIG = "claim:", "config."
_CONDITION = re.compile(r"(claim:.+|[^=!<>~]+?)\s*(?<![=!<>])(!=|<=|>=|==|=|<|>|~)(?![=!<>~])\s*(.*)", re.DOTALL)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(?=\d)")
_OPERATORS = {"=": "=", "==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WORDS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Term:
    """A part of a query and the values it is given."""

    sql: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Field:
    """A column, a field of the configuration, or the value of a check; `name` is the kind's own name for it."""

    kind: str
    name: str

    def term(self) -> Term:
        """The field as SQL."""
        if self.kind == "column":
            return Term(f'"{self.name}"')
        if self.kind == "config":
            return Term("config_value(config_json, ?)", (self.name,))
        return Term("claim_value(checks_json, ?)", (self.name,))

    def of(self, run: dict[str, Any]) -> Any:
        """The field's value in a run that `select` gave."""
        if self.kind == "column":
            return run[self.name]
        if self.kind == "config":
            return run["config"].get(self.name)
        check = claimed(run["claims"], self.name)
        return None if check is None else check["value"]


class Fields:
    """What can be asked of the runs in an index."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.config = [name for (name,) in connection.execute("SELECT name FROM fields ORDER BY name")]

    def find(self, flag: str, text: str) -> Field:
        """The field that `text` names, for `flag`; raises InputError with the nearest name where there is none."""
        text = text.strip()
        if text.startswith(CLAIM):
            return Field("claim", self._claim(flag, text.removeprefix(CLAIM).strip()))
        name = text.replace("-", "_")
        if name in COLUMNS:
            return Field("column", name)
        for candidate in (text, name):
            if candidate.removeprefix(CONFIG) in self.config:
                return Field("config", candidate.removeprefix(CONFIG))
        near = nearest(name.removeprefix(CONFIG), (*COLUMNS, *self.config))
        raise InputError(f"{flag}: the runs have no field {text!r}{near}")

    def _claim(self, flag: str, part: str) -> str:
        require(bool(part), f"{flag}: claim: needs a part of a claim, got none")
        query = "SELECT 1 FROM runs WHERE has_claim(checks_json, ?) LIMIT 1"
        found = self._connection.execute(query, (part,)).fetchone()
        require(found is not None, f"{flag}: no run has a check whose claim contains {part!r}")
        return part


def condition(fields: Fields, text: str) -> Term:
    """`FIELD OP VALUE` as SQL; OP is = != < <= > >= or ~ (contains, in whatever case).

    Numbers compare with numbers and text with text; a run without a value of its own fulfils `= none` alone.
    """
    parts = _CONDITION.fullmatch(text.strip())
    if parts is None or not parts[3].strip():
        raise InputError(f"--where must be FIELD OP VALUE with OP one of = != < <= > >= ~, got {text!r}")
    field, operator, value = fields.find("--where", parts[1]).term(), parts[2], parts[3].strip()
    if value.lower() == "none" and operator in ("=", "==", "!="):
        return Term(f"{field.sql} IS {'NOT ' if operator == '!=' else ''}NULL", field.values)
    if operator == "~":
        return Term(f"instr(lower(CAST({field.sql} AS TEXT)), lower(?)) > 0", (*field.values, value))
    if operator == "!=":
        same = _compared(field, "=", value)
        return Term(f"{field.sql} IS NOT NULL AND NOT ({same.sql})", (*field.values, *same.values))
    return _compared(field, _OPERATORS[operator], value)


def _compared(field: Term, operator: str, value: str) -> Term:
    as_text = f"(typeof({field.sql}) = 'text' AND {field.sql} {operator} ?)"
    texts = (*field.values, *field.values, _as_stored(value))
    number = _number(value)
    if number is None:
        return Term(as_text, texts)
    as_number = f"(typeof({field.sql}) IN ('integer', 'real') AND {field.sql} {operator} ?)"
    return Term(f"{as_number} OR {as_text}", (*field.values, *field.values, number, *texts))


def _number(value: str) -> float | None:
    try:
        return float(value) if value.lower() not in _WORDS else _WORDS[value.lower()]
    except ValueError:
        return None


def _as_stored(value: str) -> str:
    """Times as the index writes them, and lists without the spaces."""
    if value.startswith("["):
        try:
            return compact(json.loads(value))
        except ValueError:
            return value
    return _TIME.sub(r"\1 ", value)


def order(fields: Fields, text: str) -> Term:
    """`FIELD` or `-FIELD` (largest first) as SQL; runs without a value come last."""
    falling = text.startswith("-")
    field = fields.find("--sort", text.removeprefix("-")).term()
    return Term(f"{field.sql} IS NULL, {field.sql} {'DESC' if falling else 'ASC'}", (*field.values, *field.values))


def shown(fields: Fields, texts: Sequence[str]) -> list[Field]:
    """The fields of `--show A,B --show "claim:a part, with a comma"`."""
    names = [name for text in texts for name in ([text] if text.startswith(CLAIM) else text.split(","))]
    return [fields.find("--show", name) for name in names if name.strip()]


def select(
    connection: sqlite3.Connection, conditions: Collection[Term], by: Term, limit: int | None, documents: bool
) -> list[dict[str, Any]]:
    """The runs that fulfil all conditions: the columns, and `config` with dotted names and `claims` if `documents`."""
    where = " AND ".join(f"({term.sql})" for term in conditions) or "1"
    names = [f'"{name}"' for name in COLUMNS] + ["config_json", "checks_json"] * documents
    query = f"SELECT {', '.join(names)} FROM runs WHERE {where} ORDER BY {by.sql}, path DESC LIMIT ?"
    values = [value for term in (*conditions, by) for value in term.values]
    rows = connection.execute(query, (*values, -1 if limit is None else limit))
    found = []
    for row in rows:
        run = dict(zip(COLUMNS, row, strict=False))
        if documents:
            run |= {"config": json.loads(row[-2]), "claims": json.loads(row[-1])}
        found.append(run)
    return found
