"""Pages of code: the source of every definition that a page of prose links to, beside the way back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
_WHOLE = "module"
_UNSTYLED = re.compile(r'<span class="(?:n|na|nb|ne|nl|nv|o|p|w|bp|vm)">([^<]*)</span>')


@dataclass(frozen=True)
class Definition:
    """A function, class, method or constant in a file: its lines, counted from 1."""

    name: str
    first: int
    last: int


@dataclass
class Excerpt:
    """The source of one definition as HTML, and the pages that link to it: (title, address)."""

    name: str
    anchor: str
    first: int
    last: int
    html: str
    readers: list[tuple[str, str]] = field(default_factory=list)


class Excerpts:
    """Collects the definitions that pages link to, by file of the package."""

    def __init__(self, package: Path = PACKAGE) -> None:
        self.package = package
        self._files: dict[str, dict[str, Excerpt]] = {}

    def link(self, path: str, name: str, reader: tuple[str, str]) -> str | None:
        """The address, from the site's root, of `name` in the file `path` of the package; the file for a name it lacks.

        None where the package has no such file. `reader` is the title and the address of the page that links.
        """
        source = (self.package / path).resolve()
        if self.package not in source.parents or source.suffix != ".py" or not source.is_file():
            return None
        text = source.read_text(encoding="utf-8")
        known = definitions(text)
        found = known.get(name.rpartition(".")[2].removesuffix("()")) or Definition(_WHOLE, 1, text.count("\n"))
        here = self._files.setdefault(path, {})
        if found.name not in here:
            lines = text.splitlines()[found.first - 1 : found.last]
            here[found.name] = Excerpt(
                found.name, found.name, found.first, found.last, highlighted("\n".join(lines), "python")
            )
        if reader not in here[found.name].readers:
            here[found.name].readers.append(reader)
        return f"{page_of(path)}#{found.name}"

    def pages(self) -> Iterator[tuple[str, list[Excerpt]]]:
        """Every file with its excerpts, in the order of its lines."""
        for path, found in sorted(self._files.items()):
            yield path, sorted(found.values(), key=lambda excerpt: (excerpt.first, -excerpt.last))


def page_of(path: str) -> str:
    """The address of the page for the file `path` of the package."""
    return f"code/{path.removesuffix('.py').replace('/', '.')}.html"


@cache
def definitions(source: str) -> dict[str, Definition]:
    """Every function, class, method and module constant of `source`, the first of each name."""
    tree = ast.parse(source)
    found: dict[str, Definition] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.AsyncFunctionDef, ast.ClassDef, ast.FunctionDef)):
            first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
            found.setdefault(node.name, Definition(node.name, first, node.end_lineno or first))
    for statement in tree.body:
        if isinstance(statement, (ast.AnnAssign, ast.Assign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                name, last = ast.unparse(target), statement.end_lineno or statement.lineno
                found.setdefault(name, Definition(name, statement.lineno, last))
    return found


def highlighted(code: str, language: str) -> str:
    """`code` as HTML with a class per kind of token; plain for a language that is not known."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    names = {"sh": "bash", "": "text"}
    try:
        lexer = get_lexer_by_name(names.get(language, language), stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text", stripnl=False)
    return _UNSTYLED.sub(r"\1", highlight(code, lexer, HtmlFormatter(nowrap=True)))
