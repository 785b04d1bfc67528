"""docs/papers/papers.toml: all the papers, in agreement with the studies and with the records."""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mindworks.lab import discovery

ROOT = Path(__file__).parents[1]
PAPERS: list[dict[str, Any]] = tomllib.loads((ROOT / "docs" / "papers" / "papers.toml").read_text(encoding="utf-8"))[
    "papers"
]
FIELDS = {"key": str, "title": str, "authors": list, "venue": str, "year": int, "group": str, "claim": str}


def complaints(paper: dict[str, Any]) -> list[str]:
    """What an entry lacks, or has that no reader knows."""
    found = [name for name, kind in FIELDS.items() if not isinstance(paper.get(name), kind) or not paper[name]]
    found += sorted(set(paper) - set(FIELDS) - {"arxiv", "published"})
    found += [] if re.fullmatch(r"\d{4}\.\d{5}", paper.get("arxiv", "0000.00000")) else ["arxiv"]
    for row in paper.get("published", []):
        found += [f"published {name}" for name in ("number", "source") if not row.get(name)]
        found += [f"published {name}" for name in sorted(set(row) - {"check", "number", "source", "note"})]
    return found


def strays(paper: dict[str, Any], claims: list[str] | None) -> list[str]:
    """Published numbers that stand beside no check or several, or beside a check where there is no study."""
    checks = [row.get("check", "") for row in paper.get("published", [])]
    if claims is None:
        return [check for check in checks if check]
    return [check for check in checks if not check or sum(claim.startswith(check) for claim in claims) != 1]


def test_there_are_eighteen_papers() -> None:
    assert len(PAPERS) == 18
    for name in ("key", "title", "arxiv", "claim"):
        assert max(Counter(paper[name] for paper in PAPERS).values()) == 1, name
    groups = Counter(paper["group"] for paper in PAPERS)
    assert 6 <= len(groups) <= 9
    order = [paper["group"] for paper in PAPERS]
    assert order == sorted(order, key=order.index)  # the papers of a group stand together


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper["key"])
def test_a_paper_is_complete(paper: dict[str, Any]) -> None:
    assert complaints(paper) == []


def test_an_incomplete_paper_is_found() -> None:
    good = {**PAPERS[0], "published": [{"check": "a", "number": "1", "source": "Table 1", "note": "b"}]}
    assert complaints(good) == []
    assert complaints({**good, "title": "", "year": "2021"}) == ["title", "year"]
    assert complaints({**good, "arxiv": "arXiv:1234.56789", "colour": "red"}) == ["colour", "arxiv"]
    assert complaints({**good, "published": [{"number": "1", "page": 3}]}) == ["published source", "published page"]


@pytest.mark.parametrize("name", discovery.names())
def test_every_study_agrees_with_its_paper(name: str) -> None:
    (paper,) = [paper for paper in PAPERS if paper["key"] == name]
    study = discovery.find(name)
    found = (paper["title"], paper["year"], f"arXiv:{paper['arxiv']}", paper["claim"])
    assert found == (study.title, study.year, study.paper, study.claim)
    written = re.search(r"author\s*=\s*\{(.*?)\},\n", study.bibtex, re.DOTALL)
    assert written is not None
    names = re.split(r"\s+and\s+", written[1])
    assert len(paper["authors"]) == len(names)
    for author, entry in zip(paper["authors"], names, strict=True):  # "Faccio, Francesco"
        family, given = (re.sub(r"\\[a-zA-Z'\"]|[{}]", "", part) for part in entry.split(", "))
        bare = "".join(c for c in unicodedata.normalize("NFKD", author) if not unicodedata.combining(c))
        assert bare.endswith(f" {family}")
        assert bare[0] == given[0]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper["key"])
def test_published_numbers_stand_beside_one_check(paper: dict[str, Any]) -> None:
    claims = None
    if paper["key"] in discovery.names():
        record = json.loads((ROOT / "results" / f"{paper['key']}.json").read_text(encoding="utf-8"))
        claims = [check["claim"] for check in record["checks"]]
    assert strays(paper, claims) == []


def test_a_stray_number_is_found() -> None:
    claims = ["grid: J at the end", "grid: best J"]
    rows = [{"check": check} for check in ("grid: J", "grid", "line")] + [{}]
    assert strays({"published": rows}, claims) == ["grid", "line", ""]
    assert strays({"published": rows[:1]}, None) == ["grid: J"]
    assert strays({"published": rows[3:]}, None) == []
