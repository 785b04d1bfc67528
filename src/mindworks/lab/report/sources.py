"""What a site is made of: the papers, and for each its record, its page and its study, where they are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab import discovery
from mindworks.lab.report import benchmarks, papers
from mindworks.lab.report.papers import KEY, Paper
from mindworks.lab.study import Study

_RECORD = ("study", "scale", "config", "seeds", "checks", "tables", "timing", "environment")
_CHECK = ("claim", "value", "op", "bar", "passed")


@dataclass(frozen=True)
class Sources:
    """Where to read: the folders of records, of pages and, if wanted, of runs, and the package of the studies."""

    results: Path
    papers: Path
    runs: Path | None = None
    package: str = discovery.STUDIES


@dataclass(frozen=True)
class Entry:
    """One paper with what there is of it."""

    paper: Paper
    record: dict[str, Any] | None = None
    page: Path | None = None
    study: Study | None = None


@dataclass(frozen=True)
class Gathered:
    """Everything the pages are made from."""

    entries: list[Entry]
    benchmarks: dict[str, benchmarks.Benchmark]


def gather(sources: Sources) -> Gathered:
    """Read all records, pages and papers; raises InputError that names a damaged file."""
    require(sources.results.is_dir(), f"--results {sources.results}: there is no such folder")
    records = {path.stem: path for path in sorted(sources.results.glob("*.json")) if KEY.fullmatch(path.stem)}
    pages = {path.stem: path for path in sorted(sources.papers.glob("*.md")) if KEY.fullmatch(path.stem)}
    pages.pop("README", None)
    listed = papers.read(sources.papers)
    known = {paper.key for paper in listed}
    studies = _studies(sources.package)
    for name in sorted({*records, *pages, *studies} - known):
        listed.append(_unlisted(name, studies.get(name)))
    entries = [
        Entry(
            paper,
            _record(records[paper.key]) if paper.key in records else None,
            pages.get(paper.key),
            studies.get(paper.key),
        )
        for paper in listed
    ]
    return Gathered(entries, benchmarks.read(sources.results))


def _studies(package: str) -> dict[str, Study]:
    """The studies that can be imported here; the site does without the others."""
    found = {}
    try:
        names = discovery.names(package)
    except ImportError:
        return {}
    for name in names:
        try:
            found[name] = discovery.find(name, package)
        except (ImportError, InputError):
            continue
    return found


def _unlisted(name: str, study: Study | None) -> Paper:
    """A paper that `papers.toml` does not list, as its study describes it."""
    if study is None:
        return Paper(name, name.replace("_", " "))
    arxiv = study.paper.removeprefix("arXiv:") if study.paper.startswith("arXiv:") else ""
    return Paper(
        name, study.title or name, year=study.year, arxiv=arxiv, claim=study.claim[:1].upper() + study.claim[1:]
    )


def _record(path: Path) -> dict[str, Any]:
    """The record at `path`; raises InputError where it is none."""
    record = discovery.last_record(path.stem, path.parent)
    good = isinstance(record, dict) and set(_RECORD) <= set(record) and isinstance(record["tables"], dict)
    require(good, f"damaged {path}: not the record of a study")
    assert record is not None
    checks, seeds = record["checks"], record["seeds"]
    good = isinstance(checks, list) and all(isinstance(each, dict) and set(_CHECK) <= set(each) for each in checks)
    good = good and isinstance(seeds, list) and len(seeds) > 0 and set(record["timing"]) >= {"cpu_s", "wall_s"}
    require(good, f"damaged {path}: not the record of a study")
    return record
