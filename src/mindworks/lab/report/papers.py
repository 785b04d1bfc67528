"""The papers, as `papers.toml` lists them: what each claims, and the numbers it prints."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Published:
    """A number that the paper prints: `check` is the claim of a check in the record, or its beginning."""

    check: str
    number: str
    source: str = ""
    note: str = ""


@dataclass(frozen=True)
class Paper:
    """One paper; `key` names its study, where there is one."""

    key: str
    title: str
    authors: tuple[str, ...] = ()
    venue: str = ""
    year: int = 0
    arxiv: str = ""
    doi: str = ""
    url: str = ""
    group: str = ""
    claim: str = ""
    published: tuple[Published, ...] = ()

    @property
    def links(self) -> list[tuple[str, str]]:
        """What to call each address of the paper, and the address."""
        found = [(f"arXiv:{self.arxiv}", f"https://arxiv.org/abs/{self.arxiv}")] if self.arxiv else []
        found += [(f"doi:{self.doi}", f"https://doi.org/{self.doi}")] if self.doi else []
        return found + ([("publisher’s page", self.url)] if self.url else [])

    @property
    def sentence(self) -> str:
        """The claim with a capital and a full stop; empty without one."""
        return self.claim[:1].upper() + self.claim[1:].removesuffix(".") + "." if self.claim else ""

    @property
    def where(self) -> str:
        """Venue and year; the year once where the venue says it."""
        year = str(self.year) if self.year and str(self.year) not in self.venue else ""
        return " ".join(part for part in (self.venue, year) if part)


def read(folder: Path) -> list[Paper]:
    """The papers of `folder/papers.toml`, in its order; none where there is no such file."""
    path = folder / "papers.toml"
    if not path.exists():
        return []
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"damaged {path}: {error}") from error
    papers = [_paper(entry, path) for entry in _entries(document, "papers", path)]
    keys = [paper.key for paper in papers]
    for key in keys:
        require(keys.count(key) == 1, f"{path}: the key {key!r} stands there twice")
    return papers


def _entries(document: Mapping[str, Any], name: str, path: Path) -> list[Mapping[str, Any]]:
    found = document.get(name, [])
    good = isinstance(found, list) and all(isinstance(entry, dict) for entry in found)
    require(good, f"{path}: {name} must be tables, got {found!r:.60}")
    return list(found)


def _paper(entry: Mapping[str, Any], path: Path) -> Paper:
    key = entry.get("key")
    require(isinstance(key, str) and KEY.fullmatch(key) is not None, f"{path}: key must be a plain name, got {key!r}")
    text = {name: _text(entry, name, path) for name in ("title", "venue", "doi", "group", "claim")}
    require(bool(text["title"]), f"{path}: {key} has no title")
    url = _text(entry, "url", path)
    require(not url or url.startswith("https://"), f"{path}: url of {key} must start with https://, got {url!r}")
    authors = entry.get("authors", [])
    require(
        isinstance(authors, list) and all(isinstance(name, str) for name in authors),
        f"{path}: authors of {key} must be names, got {authors!r}",
    )
    year = entry.get("year", 0)
    require(isinstance(year, int), f"{path}: year of {key} must be a number, got {year!r}")
    arxiv = _text(entry, "arxiv", path).removeprefix("arXiv:")
    return Paper(
        key=str(key),
        authors=tuple(authors),
        year=year,
        arxiv=arxiv,
        url=url,
        published=tuple(_published(row, path) for row in _entries(entry, "published", path)),
        **text,
    )


def _published(row: Mapping[str, Any], path: Path) -> Published:
    found = {name: _text(row, name, path) for name in ("check", "number", "source", "note")}
    require(bool(found["number"]), f"{path}: a published row has no number: {dict(row)!r:.80}")
    return Published(**found)


def _text(entry: Mapping[str, Any], name: str, path: Path) -> str:
    value = entry.get(name, "")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    require(isinstance(value, str), f"{path}: {name} must be text, got {value!r:.60}")
    return " ".join(value.split())


def for_claim(claim: str, rows: Iterable[Published]) -> list[Published]:
    """The published numbers that stand beside the check `claim`: those of that very claim, else of its beginning."""
    named = [row for row in rows if row.check]
    exact = [row for row in named if row.check == claim]
    return exact or [row for row in named if claim.startswith(row.check)]


def apart(claims: Iterable[str], rows: Iterable[Published]) -> list[Published]:
    """The published numbers that stand beside no check."""
    claims = list(claims)
    return [row for row in rows if not row.check or not any(claim.startswith(row.check) for claim in claims)]
