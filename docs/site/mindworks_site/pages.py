"""The Markdown pages as the site reads them: copied, with their links turned to what stands in the site."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

from mindworks_site.reference import Module, Symbol

FIXED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "docs/README.md": "pages.md",
}
_LEXERS = {".py": "python", ".toml": "toml", ".json": "json", ".cff": "yaml", ".sh": "sh"}


def layout(root: Path) -> dict[str, str]:
    """The pages of the repository, and where each stands in the site."""
    found = {name: place for name, place in FIXED.items() if (root / name).is_file()}
    for path in sorted((root / "docs").rglob("*.md")):
        name = path.relative_to(root).as_posix()
        found.setdefault(name, name.removeprefix("docs/"))
    return found


@dataclass
class Library:
    """What links may lead to: pages, symbols and modules; `files` gathers the others that a page names."""

    root: Path
    places: dict[str, str]
    modules: dict[str, Module]
    symbols: dict[str, Symbol]
    files: dict[str, str] = field(default_factory=dict)
    assets: set[str] = field(default_factory=set)

    def page(self, name: str) -> str:
        """The text of the page `name` with the links of the site."""
        text = (self.root / name).read_text(encoding="utf-8")
        lines = text.splitlines()
        for first, last, target, shown, is_image in _links(text):
            if re.match(r"\w+:|#", target):
                continue
            old, new = self._turned(name, target, shown, is_image)
            for number in range(first, last):
                lines[number] = lines[number].replace(old, new)
        return "\n".join(lines) + "\n"

    def _turned(self, page: str, target: str, shown: str, is_image: bool) -> tuple[str, str]:
        """A link of `page` as it is written, and as the site writes it."""
        path, _, anchor = target.partition("#")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        if is_image:
            self.assets.add(name)
            return f"]({target})", f"]({self._way(page, name.removeprefix('docs/'))})"
        symbol = self._symbol(name, shown)
        if symbol is not None:
            return f"[`{shown}`]({target})", f"{{py:obj}}`{shown} <{symbol}>`"
        place = self.places.get(name) or self._module_page(name) or self._file(name)
        return f"]({target})", f"]({self._way(page, place)}{'#' + anchor if anchor else ''})"

    def _way(self, page: str, place: str) -> str:
        return posixpath.relpath(place, posixpath.dirname(self.places[page]) or ".")

    def _module(self, name: str) -> Module | None:
        return next((each for each in self.modules.values() if each.path == self.root / name), None)

    def _symbol(self, name: str, shown: str) -> str | None:
        """The entry of the reference that the code span `shown` over a link to the file `name` means."""
        module = self._module(name)
        if module is None or not shown:
            return None
        if f"{module.name}.{shown}" in self.symbols:
            return self.symbols[f"{module.name}.{shown}"].name
        for owner, node in module.definitions.items():
            if isinstance(node, ast.ClassDef) and f"{module.name}.{owner}" in self.symbols and _documents(node, shown):
                return f"{self.symbols[f'{module.name}.{owner}'].name}.{shown}"
        return None

    def _module_page(self, name: str) -> str | None:
        module = self._module(name)
        return f"{module.page}.rst" if module is not None and module.public and module.page != "api/mindworks" else None

    def _file(self, name: str) -> str:
        place = f"files/{name}.md"
        self.files[place] = name
        return place

    def file_page(self, place: str) -> str:
        """The text of a page that shows a file of the repository."""
        name = self.files[place]
        lexer = _LEXERS.get(Path(name).suffix, "text")
        text = (self.root / name).read_text(encoding="utf-8")
        fence = "`" * (3 + max((len(run) for run in re.findall(r"`+", text)), default=0))
        return f"---\norphan: true\n---\n\n# {name}\n\n{fence}{lexer}\n{text}{fence}\n"


def _documents(node: ast.ClassDef, name: str) -> bool:
    methods = (each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return not name.startswith("_") and any(each.name == name for each in methods)


def _links(text: str) -> Iterator[tuple[int, int, str, str, bool]]:
    """(first line, line after the last, target, code shown or "", whether an image) of every link and image."""
    lines = (0, 0)
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        lines = (block.map[0], block.map[1]) if block.map else lines
        children = block.children or []
        for place, token in enumerate(children):
            if token.type == "image":
                yield *lines, str(token.attrs["src"]), "", True
            elif token.type == "link_open":
                shown = children[place + 1]
                yield *lines, str(token.attrs["href"]), shown.content if shown.type == "code_inline" else "", False
