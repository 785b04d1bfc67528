"""The table of studies in README.md, made from the committed records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mindworks.errors import InputError
from mindworks.lab.discovery import STUDIES, find, last_record, names
from mindworks.lab.study import Study
from mindworks.lab.verdict import verdict

BEGIN, END = "<!-- studies:begin -->", "<!-- studies:end -->"
_HEAD = ("study", "paper", "claim", "checks", "seeds", "CPU minutes", "page")


def studies_table(studies: Iterable[tuple[Study, dict[str, Any] | None]]) -> str:
    """A Markdown table, one row per study; every number in it comes from a record."""
    rows = [_HEAD, tuple("---" for _ in _HEAD), *(_row(study, record) for study, record in studies)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(study: Study, record: dict[str, Any] | None) -> tuple[str, ...]:
    number = study.paper.removeprefix("arXiv:")
    paper = f"[{study.paper}](https://arxiv.org/abs/{number})" if number != study.paper else study.paper
    page = f"[{study.name}]({study.docs})" if study.docs else "–"
    claim = (study.claim or study.title).replace("|", "\\|")
    if record is None:
        return f"`{study.name}`", paper, claim, "no record yet", "–", "–", page
    minutes = f"{record['timing']['cpu_s'] / 60:.1f}"
    return f"`{study.name}`", paper, claim, verdict(record), str(len(record["seeds"])), minutes, page


def with_table(readme: str, table: str) -> str:
    """`readme` with `table` between its markers; raises InputError when the markers are not there once each."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise InputError(f"README.md must hold {BEGIN} and, after it, {END}, once each")
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def expected(readme: str, results: Path, package: str = STUDIES) -> str:
    """`readme` as it should stand beside the records in `results`."""
    return with_table(
        readme, studies_table((find(name, package), last_record(name, results)) for name in names(package))
    )
