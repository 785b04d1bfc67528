"""Work for the engines of sweeps: each job says what it is to do, and leaves a file when it has begun."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

PATIENCE = 60.0


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Write `mark`, wait for the file `until`, raise `error`; returns the process, its session and its threads."""
    if "mark" in job:
        part = Path(job["mark"] + ".part")
        part.write_text(f"{os.getpid()} {os.getsid(0)}")
        part.rename(job["mark"])
    end = time.monotonic() + PATIENCE
    while "until" in job and not Path(job["until"]).exists():
        if time.monotonic() > end:
            raise TimeoutError(f"nobody wrote {job['until']}")
        time.sleep(0.02)
    if "error" in job:
        raise ValueError(job["error"])
    threads = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    return {"pid": os.getpid(), "session": os.getsid(0), "threads": threads, "value": job.get("value")}
