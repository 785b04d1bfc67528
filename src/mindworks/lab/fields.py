"""The fields of a configuration: name, type, default and the docstring that gives meaning and unit."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Field:
    """One field of a configuration as text, and its default as it is."""

    name: str
    type: str
    default: Any
    doc: str


def describe(config: Any) -> list[Field]:
    """The fields of the dataclass instance `config`, with its values as defaults."""
    docs = docstrings(type(config))
    return [
        Field(field.name, _type_name(field.type), getattr(config, field.name), docs.get(field.name, ""))
        for field in dataclasses.fields(config)
    ]


def docstrings(config: type) -> dict[str, str]:
    """The string that follows each annotated field in the source of `config` and its bases."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        for field, after in pairwise(_body(base)):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if (
                isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found[field.target.id] = " ".join(after.value.value.split())
    return found


def _body(owner: type) -> list[ast.stmt]:
    """The statements of a class, parsed from its file once (inspect.getsource would parse it twice)."""
    try:
        source = Path(inspect.getsourcefile(owner) or "").read_text(encoding="utf-8")
    except (OSError, TypeError):
        return []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
            return node.body
    return []


def _type_name(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
