"""What one run's folder says about the run, however it ended and whatever is damaged."""

from __future__ import annotations

import json
import math
import os
import re
import time
from dataclasses import dataclass
from typing import Any

from mindworks.lab.files import loads

MARKERS = frozenset({"config.json", "result.json", "error.json"})
FINISHED, FAILED, RUNNING, STOPPED, DAMAGED = "finished", "failed", "running", "stopped", "damaged"
# In the order in which `--json` and `--csv` give them.
COLUMNS = (
    *("path", "study", "scale", "state", "seeds", "first_seed", "held", "checks", "cpu_s", "wall_s"),
    *("started", "finished", "paper", "version", "commit", "torch", "python", "cpu", "threads", "error"),
)
_NAMED_BY_TIME = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)_")


@dataclass(frozen=True)
class Documents:
    """The JSON documents of a folder; one that is absent or damaged is None, and `damage` names what is damaged."""

    description: dict[str, Any] | None
    record: dict[str, Any] | None
    failure: dict[str, Any] | None
    damage: str


@dataclass(frozen=True)
class Facts:
    """A run in the index: its columns, its configuration with dotted names, and value and verdict of its checks."""

    columns: dict[str, Any]
    config: dict[str, Any]
    checks: list[dict[str, Any]]


def documents(folder: str) -> Documents:
    """Read `config.json`, `result.json` and `error.json` of a folder."""
    damage: list[str] = []

    def read(name: str, valid: Any) -> dict[str, Any] | None:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                text = file.read().decode()
            found = loads(text) if '"$float"' in text else json.loads(text)
            if "\\u" in text:  # half a pair of escapes is text that no file and no index can hold
                compact(found).encode()
            if valid(found):
                return found
            damage.append(f"{name} lacks what it should hold")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            damage.append(f"{name}: {error.strerror}")
        except (ValueError, RecursionError):
            damage.append(f"{name} is not JSON")
        return None

    record = read("result.json", is_record)
    description = record if record is not None else read("config.json", _is_description)
    failure = read("error.json", lambda found: isinstance(found, dict)) if record is None else None
    return Documents(description, record, failure, "; ".join(damage))


def _is_description(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    kinds = {"study": str, "scale": str, "config": dict, "seeds": list}
    return all(isinstance(found.get(key), kind) for key, kind in kinds.items())


def is_record(found: Any) -> bool:
    """Whether a document has the parts of a record."""
    if not _is_description(found):
        return False
    checks, parts = found.get("checks"), (found.get("timing"), found.get("environment"))
    if not isinstance(checks, list) or not all(isinstance(part, dict) for part in parts):
        return False
    return all(isinstance(check, dict) and isinstance(check.get("claim"), str) for check in checks)


def facts(folder: str, path: str) -> Facts:
    """What the run in `folder` is; `path` is its name in the index."""
    found = documents(folder)
    columns: dict[str, Any] = dict.fromkeys(COLUMNS)
    columns |= {"path": path, "started": _started(folder), "error": found.damage or None}
    described, record, checks = found.description, found.record, []
    if described is not None:
        seeds = described["seeds"]
        columns |= {"study": described["study"], "scale": described["scale"], "seeds": len(seeds)}
        columns["first_seed"] = _scalar(seeds[0]) if seeds else None
    elif os.sep in path:
        columns["study"] = path.partition(os.sep)[0]  # runs lie below a folder named by the study
    if record is not None:
        checks = [_brief(check) for check in record["checks"]]
        columns |= _measured(record, checks)
        columns |= {"state": FINISHED, "finished": _changed(folder, "result.json")}
    elif found.damage or (described is None and found.failure is None):
        columns |= {"state": DAMAGED, "error": found.damage or "config.json is missing"}
    elif found.failure is not None:
        columns |= {"state": FAILED, "finished": _changed(folder, "error.json")}
        columns["error"] = _scalar(found.failure.get("error"))
    else:
        columns["state"] = STOPPED
    return Facts(columns, flat({} if described is None else described["config"]), checks)


def _measured(record: dict[str, Any], checks: list[dict[str, Any]]) -> dict[str, Any]:
    timing, where = record["timing"], record["environment"]
    found: dict[str, Any] = {"held": sum(check["passed"] for check in checks), "checks": len(checks)}
    found |= {key: _scalar(timing.get(key)) for key in ("cpu_s", "wall_s")}
    found |= {key: _scalar(where.get(key)) for key in ("commit", "torch", "python", "cpu", "threads")}
    return found | {"version": _scalar(where.get("mindworks")), "paper": _scalar(record.get("paper"))}


def _brief(check: dict[str, Any]) -> dict[str, Any]:
    return {"claim": check["claim"], "value": _scalar(check.get("value")), "passed": check.get("passed") is True}


def _scalar(value: Any) -> Any:
    """A value that SQLite can hold and JSON can write."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else compact(value)


def claimed(checks: list[dict[str, Any]], part: str) -> dict[str, Any] | None:
    """The first check whose claim contains `part`, in whatever case, or None."""
    wanted = part.casefold()
    return next((check for check in checks if wanted in check["claim"].casefold()), None)


def compact(value: Any) -> str:
    """A plain value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names; lists stay, numbers that are not finite become text."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = _storable(value)
    return found


def _storable(value: Any) -> Any:
    return [_storable(item) for item in value] if isinstance(value, list) else _scalar(value)


def _started(folder: str) -> str | None:
    named = _NAMED_BY_TIME.match(os.path.basename(os.path.abspath(folder)))
    if named is not None:
        return "{} {}:{}:{}".format(*named.groups())
    return _changed(folder, "config.json") or _changed(folder, "result.json") or _changed(folder, "error.json")


def _changed(folder: str, name: str) -> str | None:
    try:
        seconds = os.stat(os.path.join(folder, name)).st_mtime
    except OSError:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def held_by_a_process(folder: str) -> bool:
    """Whether a living process holds the folder's lock; the kernel knows, whatever the file says."""
    try:
        import fcntl

        # A shared lock disturbs no other reader, and a run that starts only in the microseconds until it is given back.
        with open(os.path.join(folder, ".lock"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        pass
    return False
