"""The script that keeps records: only finished runs, at the scale of the table, whatever their verdict."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from mindworks import cli
from mindworks.errors import InputError
from mindworks.lab import readme

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("claims", ROOT / "scripts" / "claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_records_are_kept_and_the_table_renewed(claims: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert claims.run("walk", tmp_path / "runs", results, package="toys") == 0
    assert claims.run("stuck", tmp_path / "runs", results, package="toys") == 1  # a failing claim is a result too
    assert json.loads((results / "stuck.json").read_text())["checks"][0]["passed"] is False
    (record,) = (tmp_path / "runs" / "walk").glob("*/*/result.json")
    assert (results / "walk.json").read_bytes() == record.read_bytes()
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n{readme.BEGIN}\n{readme.END}\n")
    claims.renew(page, results, package="toys")
    assert "1/1 hold" in page.read_text()
    assert "0/1 hold" in page.read_text()
    assert "no record yet" in page.read_text()
    assert readme.expected(page.read_text(), results, "toys") == page.read_text()


def test_an_unfinished_or_smaller_run_replaces_nothing(claims: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "walk.json").write_text("earlier")
    with pytest.raises(InputError, match="no finished run"):
        claims.keep(tmp_path, tmp_path)
    cli.main(["run", "walk", "--scale", "smoke", "--out", str(tmp_path / "runs")], package="toys")
    (folder,) = (tmp_path / "runs").iterdir()
    with pytest.raises(InputError, match="scale smoke"):
        claims.keep(folder, tmp_path)
    assert claims.run("wlak", tmp_path / "runs", tmp_path, package="toys") == 2
    assert (tmp_path / "walk.json").read_text() == "earlier"
