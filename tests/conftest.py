"""One thread per process of the tests, and the command line on the toy studies as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).parent
_START = "import sys; sys.path.insert(0, {path!r}); from mindworks.cli import main; sys.exit(main(package='toys'))"


@pytest.fixture(scope="session")
def command() -> list[str]:
    """The words that start the command line on the toy studies."""
    return [sys.executable, "-c", _START.format(path=str(TESTS))]


@pytest.fixture
def toy(command: list[str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line on the toy studies in `tmp_path` and wait for its end."""

    def call(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *map(str, words)], cwd=tmp_path, capture_output=True, text=True, timeout=60, **options
        )

    return call
