"""The pages of a site as bytes by address: everything that `mindworks report` writes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from mindworks import __version__
from mindworks.lab.report import views
from mindworks.lab.report.excerpts import Excerpts, page_of
from mindworks.lab.report.figures import themed
from mindworks.lab.report.papers import apart
from mindworks.lab.report.prose import Prose, code_block, render
from mindworks.lab.report.sources import Entry, Gathered, Sources, gather
from mindworks.lab.tables import of_record

_NUMERIC = re.compile(r"(?:none|–|[-+]?[\d.]+(?:e[-+]?\d+)?(?: \(.*\))?(?: to [-+]?[\d.]+(?:e[-+]?\d+)?)?)")
_POINTER = (
    '<p class="note">The numbers of the record: <a href="#checks">checks</a>, <a href="#tables">tables</a>, '
    '<a href="#reproduce">how they were made</a>.</p>\n'
)


def build(sources: Sources) -> dict[str, bytes]:
    """All files of the site but the page of runs; raises InputError that names a damaged source."""
    return Builder(sources, gather(sources)).files()


class Builder:
    """Makes the pages from what was gathered; pages of prose and code are made as links ask for them."""

    def __init__(self, sources: Sources, gathered: Gathered) -> None:
        self.sources, self.gathered = sources, gathered
        self.excerpts = Excerpts()
        self.keys = {entry.paper.key for entry in gathered.entries}
        self._figures: dict[str, bytes] = {}
        self._asked: list[str] = []
        self._proses: dict[str, Prose] = {}
        self._env = environment(runs=sources.runs is not None)

    def files(self) -> dict[str, bytes]:
        """Every file by its address."""
        entries, found = self.gathered.entries, {}
        for entry in entries:
            found[f"papers/{entry.paper.key}.html"] = self._study(entry)
        others = []
        for name in self._asked:  # grows while its pages are rendered
            title, found[_address(name)] = self._other(name)
            others.append((title, _address(name)))
        for path, excerpts in self.excerpts.pages():
            found[page_of(path)] = self._page("code.html", "../", path=path, excerpts=excerpts)
        used = dict(self._readers())
        found["benchmarks.html"] = self._page(
            "benchmarks.html", "", benchmarks=list(self.gathered.benchmarks.values()), readers=used
        )
        checks = [check["passed"] is True for entry in entries if entry.record for check in entry.record["checks"]]
        rows = [self._row(entry) for entry in entries]
        found["index.html"] = self._page(
            "index.html", "", rows=rows, others=others, kept=sum(checks), total=len(checks)
        )
        assets = ((name, asset(name)) for name in ("site.css", "site.js"))
        return found | self._figures | {f"assets/{name}": content for name, content in assets}

    def _row(self, entry: Entry) -> dict[str, Any]:
        return {
            "paper": entry.paper,
            "authors": views.short_authors(entry.paper.authors),
            "verdict": views.verdict(entry.record),
            "record": entry.record,
        }

    def _study(self, entry: Entry) -> bytes:
        paper, record = entry.paper, entry.record
        prose = self._prose(entry)
        bibtex = prose.bibtex or (entry.study.bibtex.strip() if entry.study is not None else "")
        names = [name for name in prose.benchmarks if name in self.gathered.benchmarks]
        shown: dict[str, Any] = {"checks": [], "tables": [], "configuration": [], "environment": [], "command": ""}
        if record is not None:
            words = views.command(entry)
            if commit := views.commit(record):
                words = f"git checkout {commit}\n{words}"
            shown = {
                "checks": views.check_rows(paper, record),
                "tables": of_record(record),
                "configuration": views.configuration(entry),
                "environment": views.environment(record),
                "seeds": views.seeds(record["seeds"]),
                "command": code_block(words, "sh", "Command"),
            }
        return self._page(
            "study.html",
            "../",
            paper=paper,
            record=record,
            verdict=views.verdict(record),
            prose=prose,
            figures=[
                (address, text)
                for source, text in prose.images
                if (address := self.figure(f"docs/papers/{source}")) is not None
            ],
            unmatched=apart((check["claim"] for check in (record or {"checks": ()})["checks"]), paper.published),
            benchmarks=[self.gathered.benchmarks[name] for name in names],
            bibtex=code_block(bibtex, "bibtex", "BibTeX") if bibtex else "",
            **shown,
        )

    def _prose(self, entry: Entry) -> Prose:
        if entry.page is None:
            return Prose()
        if entry.paper.key not in self._proses:
            self._proses[entry.paper.key] = self._rendered(entry, entry.page)
        return self._proses[entry.paper.key]

    def _rendered(self, entry: Entry, source: Path) -> Prose:
        address = f"papers/{entry.paper.key}.html"
        resolve = Resolver(self, f"docs/papers/{source.name}", address, entry.paper.title)
        pointer = _POINTER if entry.record is not None else '<p class="note">No record yet.</p>\n'
        return render(source.read_text(encoding="utf-8"), resolve, study=True, pointer=pointer)

    def _other(self, name: str) -> tuple[str, bytes]:
        text = (self.sources.papers.parent / name).read_text(encoding="utf-8")
        title = next((line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")), name)
        prose = render(text, Resolver(self, f"docs/{name}", _address(name), title), study=False)
        return title, self._page("page.html", "../", title=title, prose=prose)

    def _readers(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """The pages that show each benchmark."""
        for name in self.gathered.benchmarks:
            pages = [
                (entry.paper.title, f"papers/{entry.paper.key}.html")
                for entry in self.gathered.entries
                if entry.page is not None and name in self._prose(entry).benchmarks
            ]
            yield name, pages

    def figure(self, path: str) -> str | None:
        """The address of the figure at `path` of the repository, which then belongs to the site; None without one."""
        path = posixpath.normpath(path)
        source = self.sources.papers.parent / path.removeprefix("docs/")
        if path.startswith("docs/papers/"):
            source = self.sources.papers / path.removeprefix("docs/papers/")
        if not path.startswith("docs/") or source.suffix not in (".png", ".svg") or not source.is_file():
            return None
        address = f"figures/{source.name}"
        if address not in self._figures:
            content = source.read_bytes()
            self._figures[address] = themed(content.decode()).encode() if source.suffix == ".svg" else content
        return address

    def other(self, name: str) -> str | None:
        """The address of the page `name` below docs/, which then belongs to the site; None without one."""
        if not (self.sources.papers.parent / name).is_file():
            return None
        if name not in self._asked:
            self._asked.append(name)
        return _address(name)

    def _page(self, template: str, root: str, **values: Any) -> bytes:
        return page(self._env, template, root, **values)


def _address(name: str) -> str:
    """The address of the page `name` below docs/."""
    return f"docs/{name.removesuffix('.md').replace('/', '.')}.html"


class Resolver:
    """Links of one page of Markdown, which stands at `source` of the repository and at `address` of the site."""

    def __init__(self, builder: Builder, source: str, address: str, title: str) -> None:
        self._builder, self._source, self._address, self._title = builder, source, address, title

    def __call__(self, href: str, shown: str) -> str | None:
        """The address on the site, or None for what it lacks."""
        if re.match(r"https?://", href):
            return href
        path, _, anchor = href.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(self._source), path)) if path else self._source
        if target.startswith("docs/papers/") and anchor == "citation":
            anchor = "cite"
        if not path:
            return f"#{anchor}" if anchor else None
        found = self._inside(target, shown, anchor)
        return None if found is None else posixpath.relpath(found, posixpath.dirname(self._address) or ".")

    def _inside(self, path: str, shown: str, anchor: str) -> str | None:
        builder, tail = self._builder, f"#{anchor}" if anchor else ""
        if path.startswith("src/mindworks/"):
            return builder.excerpts.link(path.removeprefix("src/mindworks/"), shown, (self._title, self._address))
        if path in ("README.md", "docs/README.md"):
            return "index.html"
        if path == "benchmarks/README.md":
            return "benchmarks.html" + (tail if anchor in builder.gathered.benchmarks else "")
        key = path.removeprefix("docs/papers/").removesuffix(".md")
        if path == f"docs/papers/{key}.md" and key in builder.keys:
            return f"papers/{key}.html{tail}"
        if path.startswith("docs/") and path.endswith(".md"):
            found = builder.other(path.removeprefix("docs/"))
            return None if found is None else found + tail
        return builder.figure(path) if path.startswith("docs/") else None


def environment(runs: bool) -> Any:
    """The templates; every value is escaped unless a template says that it is HTML."""
    import jinja2

    folder = str(resources.files("mindworks.lab.report") / "templates")
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.tests["numeric"] = lambda text: _NUMERIC.fullmatch(text) is not None
    env.globals.update(version=__version__, runs=runs)
    return env


def page(env: Any, template: str, root: str, **values: Any) -> bytes:
    """A template as a page; `root` leads from it to the site's root."""
    return str(env.get_template(template).render(root=root, **values)).encode()


def asset(name: str) -> bytes:
    """A file of the package's assets."""
    return (resources.files("mindworks.lab.report") / "assets" / name).read_bytes()
