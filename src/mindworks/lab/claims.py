"""The command `mindworks claims`: every study as an ordinary run, its record kept, and what changed its verdict."""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab import discovery, readme
from mindworks.lab.changes import Outcome, exit_status, summary
from mindworks.lab.files import dumps, loads, write_atomic
from mindworks.lab.folder import describe, new_folder, read_record, write_description
from mindworks.lab.index.facts import is_record
from mindworks.lab.interrupt import STATUS, interruptible
from mindworks.lab.processes import CRASH
from mindworks.lab.record import CHECKOUT, text
from mindworks.lab.study import SCALES, Study

HELP = """\
usage: mindworks claims [flags]

Runs every study in turns as `mindworks run` does, keeps the records, and says
which claims hold, before and now. A claim that fails is recorded as it is.

  --scale SCALE      smoke, cpu or paper (default: cpu)
  --only NAME ...    these studies alone
  --runs DIR         the runs' folders are made under DIR/NAME (default: runs)
  --results DIR      where records are kept (default: results): NAME.json at
                     scale cpu, SCALE/NAME.json at another
  --record DIR ...   run nothing; keep the records of these finished runs

Records of a checkout renew the tables of its README.md and of its pages.

exit status: 1 a claim that held in the last record, known by its text, holds no
more or is gone; that of the first run that did not finish; 130 interrupted,
with the commands that go on; else 0, even where claims fail as before or are
new and fail"""

USUAL = "cpu"
SECONDS_TO_END = 10.0
_ONE, _MANY = ("--scale", "--runs", "--results"), ("--only", "--record")
_START = "import sys; sys.path.insert(0, {home!r}); from mindworks.cli import main; sys.exit(main(package={package!r}))"


@dataclass(frozen=True)
class Wanted:
    """What the words of the command ask for."""

    studies: list[Study]
    scale: str
    runs: Path
    results: Path
    finished: list[Path]

    def flags(self) -> str:
        """The flags that a command needs to go on with this one."""
        chosen = {"--scale": self.scale, "--runs": self.runs, "--results": self.results}
        return " ".join(f"{flag} {shlex.quote(str(value))}" for flag, value in chosen.items())


def understood(words: list[str], package: str, results: Path | None) -> Wanted:
    """The words after `mindworks claims`; raises InputError in one line that names the word."""
    given = _taken_apart(words)
    for flag in ("--scale", "--runs", "--only"):
        require("--record" not in given or flag not in given, f"--record and {flag} exclude one another")
    scale = given.get("--scale", [USUAL])[0]
    require(scale in SCALES, f"--scale must be one of {', '.join(SCALES)}, got {scale!r}")
    names = list(dict.fromkeys(given.get("--only", discovery.names(package))))
    studies = [discovery.find(name, package) for name in names]
    for study in studies:
        require(
            "--record" in given or scale in study.scales, f"--scale {scale}: the study {study.name!r} has none such"
        )
    if package != discovery.STUDIES and results == discovery.results_folder():
        results = None  # the checkout's records are those of its own studies
    kept = Path(given["--results"][0]) if "--results" in given else results or Path("results")
    runs = Path(given.get("--runs", ["runs"])[0])
    return Wanted(studies, scale, runs, kept, [Path(folder) for folder in given.get("--record", [])])


def _taken_apart(words: list[str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            if flag not in (*_ONE, *_MANY):
                raise InputError(f"unknown flag {flag}{discovery.nearest(flag, (*_ONE, *_MANY, '--help'))}")
            given.setdefault(flag, []).extend([value] if equals else [])
        else:
            require(bool(flag), f"unexpected argument {word!r}; studies are named after --only")
            given[flag].append(word)
    for flag, values in given.items():
        require(len(values) > 0, f"{flag} needs a value, got none")
        require(flag in _MANY or len(values) == 1, f"{flag} needs one value, got {' '.join(values)}")
    return given


def command(words: list[str], package: str, results: Path | None) -> int:
    """Run studies or keep records as `words` ask; prints the verdicts and returns the exit status."""
    if set(words) & {"--help", "-h"}:
        print(HELP)
        return 0
    wanted = understood(words, package, results)
    if wanted.finished:
        found = [_finished(folder, package) for folder in wanted.finished]  # all are looked at before one is kept
        outcomes = [_kept(record, folder, wanted.results) for record, folder in found]
        interrupted = None
    else:
        outcomes, interrupted = _run_all(wanted, package)
    for place in sorted({home(wanted.results, each.now["scale"]) for each in outcomes if each.now is not None}):
        print(f"records are in {place}")
    print(summary(outcomes), flush=True)
    if any(outcome.now is not None and outcome.now["scale"] == USUAL for outcome in outcomes):
        renew(wanted.results, package)
    if interrupted is not None:
        _say_how_to_go_on(wanted, outcomes, interrupted)
        return STATUS
    return exit_status(outcomes)


def home(results: Path, scale: str) -> Path:
    """Where the records of a scale are kept: those of another scale than cpu stand apart."""
    return results if scale == USUAL else results / scale


def _finished(folder: Path, package: str) -> tuple[dict[str, Any], Path]:
    """The record of the run in `folder`; raises InputError unless it finished, with a scale's own settings."""
    record = read_record(folder)
    if record is None:
        raise InputError(f"--record {folder}: no finished run is there")
    require(is_record(record), f"--record {folder}: result.json is not the record of a run")
    study, scale = discovery.find(record["study"], package), record["scale"]
    usual = loads(dumps(describe(study, scale, study.defaults(scale), study.default_seeds(scale))))
    other = [name for name, value in record["config"].items() if usual["config"].get(name) != value]
    other += ["seeds"] if record["seeds"] != usual["seeds"] else []
    require(not other, f"--record {folder}: the run differs from scale {scale} in {', '.join(other)}")
    return record, folder


def _kept(record: dict[str, Any], folder: Path, results: Path) -> Outcome:
    """Keep `record` in place of the last one."""
    name, where = record["study"], home(results, record["scale"])
    before = discovery.last_record(name, where)
    write_atomic(where / f"{name}.json", text(record))
    return Outcome(name, before, record, folder)


def _run_all(wanted: Wanted, package: str) -> tuple[list[Outcome], Path | None]:
    """What came of every study, and, where an interrupt ended it, the folder of the run that it hit."""
    outcomes: list[Outcome] = []
    where = home(wanted.results, wanted.scale)
    last = {study.name: discovery.last_record(study.name, where) for study in wanted.studies}
    for study in wanted.studies:
        seeds = study.default_seeds(wanted.scale)
        folder = new_folder(wanted.runs / study.name, wanted.scale)
        write_description(folder, describe(study, wanted.scale, study.defaults(wanted.scale), seeds))
        print(f"== {study.name}", flush=True)
        try:
            status = _run(study.name, folder, package)
        except KeyboardInterrupt:
            return outcomes, folder
        record = read_record(folder) if status in (0, 1) else None
        if record is None:
            outcomes.append(Outcome(study.name, last[study.name], None, folder, status or CRASH))
        else:
            outcomes.append(_kept(record, folder, wanted.results))
    return outcomes, None


def _run(name: str, folder: Path, package: str) -> int:
    """The exit status of `mindworks run` in `folder`, as a process of its own: no run sees what another left behind."""
    top = import_module(package.partition(".")[0]).__path__[0]
    start = _START.format(home=str(Path(top).parent.resolve()), package=package)
    process = subprocess.Popen([sys.executable, "-P", "-c", start, "run", name, "--resume", str(folder)])
    try:
        with interruptible(process.kill):
            return process.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(signal.SIGINT)  # a terminal has told it already; it listens to the first alone
            process.wait(SECONDS_TO_END)
        raise
    finally:
        process.kill()
        process.wait()


def _say_how_to_go_on(wanted: Wanted, outcomes: list[Outcome], folder: Path) -> None:
    name = wanted.studies[len(outcomes)].name
    left = [study.name for study in wanted.studies[len(outcomes) + 1 :]]
    quoted, flags = shlex.quote(str(folder)), wanted.flags()
    lines = [f"mindworks: interrupted in {name}; go on with:", f"  mindworks run {name} --resume {quoted}"]
    lines += [f"  mindworks claims --results {shlex.quote(str(wanted.results))} --record {quoted}"]
    lines += [f"  mindworks claims {flags} --only {' '.join(left)}"] if left else []
    print("\n".join(lines), file=sys.stderr, flush=True)


def renew(results: Path, package: str) -> None:
    """Write the tables of README.md and of the pages, where `results` are those of the checkout."""
    own = discovery.results_folder()
    if own is None or own.resolve() != results.resolve():
        return
    page = CHECKOUT / "README.md"
    write_atomic(page, readme.expected(page.read_text(encoding="utf-8"), results, package))
    script = CHECKOUT / "scripts" / "docs_tables.py"
    status = subprocess.run([sys.executable, str(script)], check=False).returncode
    require(status == 0, f"the tables of the pages are not renewed: {script.name} ended with status {status}")
