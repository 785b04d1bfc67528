"""The table of studies in README.md is what the committed records say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab import readme
from toys.walk import STUDY

ROOT = Path(__file__).parents[1]


def test_readme_agrees_with_the_records() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.expected(text, ROOT / "results") == text, "README.md is stale: run mindworks claims --record"


def test_every_page_that_the_table_links_to_exists() -> None:
    from mindworks.lab.discovery import find, names

    for name in names():
        assert (ROOT / find(name).docs).is_file(), f"{name}: no page at {find(name).docs!r}"


def _record(*values: bool) -> dict:
    checks = [{"claim": "c", "value": 1.0, "op": ">", "bar": 0.0, "passed": value} for value in values]
    return {"checks": checks, "seeds": [0, 1], "timing": {"wall_s": 60.0, "cpu_s": 90.0}, "scale": "cpu"}


def test_a_row_comes_from_the_record() -> None:
    head, rule, row = readme.studies_table([(STUDY, _record(True, False, True))]).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert "| 2/3 hold | 2 | 1.5 | [walk](docs/papers/walk.md) |" in row
    assert "[arXiv:0000.00001](https://arxiv.org/abs/0000.00001)" in row
    assert "no record yet" in readme.studies_table([(STUDY, None)])


def test_the_table_goes_between_its_markers() -> None:
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    new = readme.with_table(text, "| t |")
    assert new == f"before\n{readme.BEGIN}\n| t |\n{readme.END}\nafter\n"
    assert readme.with_table(new, "| t |") == new
    for bad in ("", readme.BEGIN, f"{readme.END} {readme.BEGIN}", text + text):
        with pytest.raises(InputError, match="must hold"):
            readme.with_table(bad, "| t |")
