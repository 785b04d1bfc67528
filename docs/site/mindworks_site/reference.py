"""The pages of the reference: one per public module, with every public name as users import it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.ext.autodoc.mock import mock

from mindworks_site.prose import first_sentence

# Packages of extras that a module may import at its head; where one is missing, the reference does without it.
OPTIONAL = ("numba", "stable_baselines3", "triton")
MISSING = [name for name in OPTIONAL if find_spec(name) is None]


@dataclass(frozen=True)
class Symbol:
    """A public function, class or constant: the name users import, and where it is written."""

    name: str
    home: str
    kind: str
    summary: str
    inherits: bool

    @property
    def short(self) -> str:
        """Its own name, without that of the module."""
        return self.name.rpartition(".")[2]


@dataclass
class Module:
    """A module of the package, with its definitions in the order of the file."""

    name: str
    path: Path
    live: ModuleType | None = None
    definitions: dict[str, ast.stmt] = field(default_factory=dict)

    @property
    def public(self) -> bool:
        """Whether no part of its name starts with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))

    @property
    def page(self) -> str:
        """The name of its page."""
        return f"api/{self.name.partition('.')[2] or 'mindworks'}"

    @property
    def exports(self) -> list[str]:
        """Its `__all__`, in the order of the file."""
        return [name for name in getattr(self.live, "__all__", ()) if not name.startswith("_")]


def modules(source: Path, only: Sequence[str] = ()) -> dict[str, Module]:
    """Every module under `source`, or of the packages `only`, by name; the public ones are imported."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = [source.name, *path.relative_to(source).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if only and not any(f"{name}.".startswith(f"{package}.") for package in only):
            continue
        module = found[name] = Module(name, path, definitions=_definitions(path))
        if module.public:
            with mock(MISSING):
                module.live = import_module(name)
    return found


def _definitions(path: Path) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.setdefault(node.name, node)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return found


def symbols(found: dict[str, Module]) -> dict[str, Symbol]:
    """Every public symbol, by the place where it is written."""
    names: dict[str, list[str]] = {}
    for module in (module for module in found.values() if module.public):
        for name in module.exports:
            home = _home(name, module, found)
            if home is not None:
                names.setdefault(home, []).append(f"{module.name}.{name}")
        for name, node in module.definitions.items():
            if not name.startswith("_") and (isinstance(node, _NAMED) or name == "STUDY"):
                names.setdefault(f"{module.name}.{name}", []).append(f"{module.name}.{name}")
    chosen = {}
    for home, candidates in names.items():
        # what a package exports is imported from there; the fewer parts, the nearer to the user
        free = [name for name in candidates if name not in found] or [home]
        name = min(free, key=lambda each: (each.count("."), each == home, each))
        value = getattr(found[name.rpartition(".")[0]].live, name.rpartition(".")[2])
        inherits = inspect.isclass(value) and value.__bases__ != (object,)
        chosen[home] = Symbol(name, home, _kind(value), first_sentence(_documentation(value)), inherits)
    return chosen


_NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _home(name: str, module: Module, found: dict[str, Module]) -> str | None:
    """Where the name that `module` exports is written; None for a module."""
    value = getattr(module.live, name)
    if isinstance(value, ModuleType):
        return None
    claimed = found.get(getattr(value, "__module__", None) or "")
    if claimed is not None and name in claimed.definitions:
        return f"{claimed.name}.{name}"
    for other in found.values():
        if name in other.definitions and getattr(other.live, name, None) is value:
            return f"{other.name}.{name}"
    return f"{module.name}.{name}"


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) or hasattr(value, "__wrapped__") else "data"


def _documentation(value: Any) -> str | None:
    return inspect.getdoc(value) if inspect.isclass(value) or callable(value) else None


def aliases(found: dict[str, Module], known: dict[str, Symbol]) -> dict[str, list[str]]:
    """The other names of every symbol: where it is written, and what other modules export it as."""
    others: dict[str, list[str]] = {symbol.name: [symbol.home] for symbol in known.values()}
    for module in (module for module in found.values() if module.public):
        for name in module.exports:
            symbol = known.get(_home(name, module, found) or "")
            if symbol is not None:
                others[symbol.name].append(f"{module.name}.{name}")
    return others


def pages(found: dict[str, Module], known: dict[str, Symbol]) -> dict[str, str]:
    """The text of every page of the reference, by its file name."""
    public = [module for module in found.values() if module.public]
    texts = {f"{module.page}.rst": _page(module, public, found, known) for module in public if module.name != ROOT}
    rooms = [module for module in public if module.name.count(".") == 1]
    lines = [_title("All public names"), "Every public name, under the name by which it is imported.", ""]
    lines += [f"- :doc:`{room.name} </{room.page}>`: {first_sentence(room.live.__doc__)}" for room in rooms]
    texts["api/index.rst"] = "\n".join([*lines, "", _toctree([room.page for room in rooms])])
    return texts


ROOT = "mindworks"


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


def _toctree(documents: list[str]) -> str:
    return "\n".join([".. toctree::", "   :hidden:", "", *(f"   /{document}" for document in documents), ""])


def _page(module: Module, public: list[Module], found: dict[str, Module], known: dict[str, Symbol]) -> str:
    lines = [_title(module.name), f".. automodule:: {module.name}", "   :no-members:", ""]
    if (above := module.name.rpartition(".")[0]) != ROOT:  # the navigation of hundreds of pages would outgrow them
        lines = [":orphan:", "", *lines[:1], f"Part of :doc:`{above} </{found[above].page}>`.", "", *lines[1:]]
    below = [other for other in public if other.name.rpartition(".")[0] == module.name]
    homes = [_home(name, module, found) for name in module.exports]
    exported = [known[home] for home in homes if home is not None and not home.startswith(f"{module.name}.__")]
    elsewhere = [symbol for symbol in exported if symbol.home.rpartition(".")[0] != module.name]
    if elsewhere:
        lines += [f".. rubric:: Import from {module.name}", ""]
        lines += [f"- :py:obj:`{each.short} <{each.name}>`: {each.summary}" for each in elsewhere] + [""]
    if below:
        lines += [".. rubric:: Modules", ""]
        lines += [f"- :doc:`{each.name} </{each.page}>`: {first_sentence(each.live.__doc__)}" for each in below]
        lines += [""]
    here = [known[home] for name in module.definitions if (home := f"{module.name}.{name}") in known]
    here += [each for each in elsewhere if not found[each.home.rpartition(".")[0]].public]
    for symbol in here:
        lines += _entry(symbol, found)
    return "\n".join(lines) + "\n"


def _entry(symbol: Symbol, found: dict[str, Module]) -> list[str]:
    if symbol.kind != "data":
        return [f".. auto{symbol.kind}:: {symbol.name}", *["   :show-inheritance:"] * symbol.inherits, ""]
    home, _, name = symbol.home.rpartition(".")
    node = found[home].definitions[name]
    value = ast.unparse(node.value) if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value else ""
    lines = [f".. py:data:: {symbol.short}", f"   :module: {symbol.name.rpartition('.')[0]}"]
    if name == "STUDY":
        study = getattr(found[home].live, name)
        return [*lines, "   :type: mindworks.lab.Study", "", f"   {first_sentence(study.claim)}", ""]
    return [*lines, *([f"   :value: {value}"] if len(value) <= 200 else []), ""]
