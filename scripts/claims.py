"""Run studies at cpu scale, keep their records in results/, and renew the table of README.md.

    python scripts/claims.py                 every study
    python scripts/claims.py NAME ...        these studies
    python scripts/claims.py --record DIR    keep the record of a finished run, for example one that was resumed

A record is copied only from a finished run; a claim that fails is recorded with its true value.
Exit status: 0 every check passes; 1 a check fails; otherwise that of the first run that did not finish.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mindworks import cli
from mindworks.errors import InputError
from mindworks.lab import discovery, readme, record
from mindworks.lab.files import write_atomic
from mindworks.lab.folder import read_record
from mindworks.lab.verdict import passed, verdict

ROOT = Path(__file__).resolve().parents[1]


def keep(folder: Path, results: Path) -> bool:
    """Copy the record of the finished run in `folder` to `results`; returns whether every check passed."""
    found = read_record(folder)
    if found is None:
        raise InputError(f"{folder} holds no finished run")
    if found["scale"] != "cpu":
        raise InputError(f"{folder} is a run at scale {found['scale']}; records are kept at scale cpu")
    write_atomic(results / f"{found['study']}.json", record.text(found))
    return passed(found)


def run(name: str, runs: Path, results: Path, package: str = discovery.STUDIES) -> int:
    """Run the study `name` under `runs` and keep its record; returns the exit status of the run."""
    out = runs / name / time.strftime("claims_%Y-%m-%d_%H-%M-%S")
    status = cli.main(["run", name, "--scale", "cpu", "--out", str(out)], package=package)
    if status in (cli.OK, cli.FAILED):
        (folder,) = (path for path in out.iterdir() if path.is_dir())
        keep(folder, results)
    return status


def renew(readme_path: Path, results: Path, package: str = discovery.STUDIES) -> None:
    """Write the table of studies into README.md."""
    text = readme_path.read_text(encoding="utf-8")
    write_atomic(readme_path, readme.expected(text, results, package))


def main(words: list[str]) -> int:
    """Run what `words` ask for."""
    results, worst = ROOT / "results", 0
    try:
        if words[:1] == ["--record"]:
            worst = max([0, *(0 if keep(Path(folder), results) else 1 for folder in words[1:])])
        else:
            for name in words:
                discovery.find(name)  # a misspelt name ends here, before any run
            for name in words or discovery.names():
                print(f"== {name}", flush=True)
                status = run(name, ROOT / "runs", results)
                if status not in (cli.OK, cli.FAILED):
                    return status
                worst = max(worst, status)
        renew(ROOT / "README.md", results)
    except InputError as error:
        print(f"claims: {error}", file=sys.stderr)
        return cli.USAGE
    for name in discovery.names():
        print(f"{name:<14} {verdict(discovery.last_record(name, results))}")
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
