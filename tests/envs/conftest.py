"""Lets Gymnasium's MuJoCo environments be made where their rendering package is not installed."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

try:
    import imageio  # noqa: F401
except ModuleNotFoundError:  # Gymnasium's MuJoCo module imports it, and uses it to render only
    sys.modules["imageio"] = types.ModuleType("imageio")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder: MuJoCo writes its warnings to MUJOCO_LOG.TXT in the working directory."""
    monkeypatch.chdir(tmp_path)
