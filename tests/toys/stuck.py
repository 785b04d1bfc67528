"""A study that misbehaves: `how` says whether in a native call that no signal interrupts, by an error, or by NaN."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass
from typing import Literal

from mindworks.errors import MissingExtra
from mindworks.lab import Check, RunLog, Study


@dataclass(frozen=True)
class Config:
    """The way to misbehave."""

    how: Literal["native", "defect", "extra", "disk", "nan"] = "nan"
    """which way"""


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Misbehave."""
    log.metric(begun=True)
    if config.how == "native":
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
    if config.how == "defect":
        raise ValueError("a defect")
    if config.how == "extra":
        raise MissingExtra("widget is not installed: pip install 'mindworks[widgets]'")
    if config.how == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
    return {"value": float("nan")}


STUDY = Study(
    name="stuck",
    paper="arXiv:0000.00003",
    config=Config,
    run=run,
    check=lambda data: [Check("a number comes out", data["value"], ">=", 0.0)],
    plot=lambda data, folder: [],
    scales={"smoke": {}, "cpu": {}},
    seeds={"smoke": 1, "cpu": 1},
)
