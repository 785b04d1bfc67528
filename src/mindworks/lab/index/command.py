"""The command `mindworks runs`: the runs below a folder, filtered and sorted, from an index that keeps itself up."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab import discovery
from mindworks.lab.index import table
from mindworks.lab.index.index import with_index
from mindworks.lab.index.query import Field, Fields, Term, condition, order, select, shown
from mindworks.lab.index.words import Words, taken_apart
from mindworks.lab.progress import on_terminal

HELP = """\
usage: mindworks runs [flags]

The runs below a folder, newest first: folder, study, scale, seeds, state
(finished, failed, running, stopped, damaged), checks that hold, CPU seconds.

  --runs DIR        where the runs lie (default: runs)
  --study NAME      those of one study
  --where "FIELD OP VALUE"
                    those that fulfil it; OP is = != < <= > >= or ~ (contains).
                    Given several times, all must hold. A run without the field
                    fulfils FIELD = none alone
  --sort FIELD      smallest first; -FIELD: largest first
  --show A,B        more fields as columns
  --limit N         the first N
  --json            columns, configurations and claims as JSON
  --csv             columns and the fields of --show as CSV
  --rebuild         read every folder again, not only those that changed

FIELD is a column: path, study, scale, state, seeds, first_seed, held, checks,
cpu_s, wall_s, started, finished, paper, version, commit, torch, python, cpu,
threads, error; or a field of the configuration: steps, or config.steps; or the
value of the first check whose claim contains a text: "claim:after 40 sweeps".

  mindworks runs --where "lr <= 0.01" --where "started >= 2026-11" --sort -held

The index is DIR/.index.sqlite. It can be deleted at any time."""

_FLAGS = ("--runs", "--study", "--where", "--sort", "--show", "--limit")
_SWITCHES = ("--json", "--csv", "--rebuild")


@dataclass(frozen=True)
class Answer:
    """The runs asked for, the fields to show, and how many runs there are at all."""

    runs: list[dict[str, Any]]
    show: list[Field]
    total: int


def command(words: list[str], package: str, results: Path | None) -> int:
    """Print the runs that `words` ask for; returns the exit status."""
    if set(words) & {"--help", "-h"}:
        print(HELP)
        return 0
    given = taken_apart(words, _FLAGS, _SWITCHES)
    require(not given.rest, f"unexpected argument {' '.join(given.rest)!r}")
    require(not {"--json", "--csv"} <= given.switches, "--json and --csv exclude one another")
    root, limit = Path(given.once("--runs", "runs")), _limit(given.once("--limit", ""))
    if root.is_dir():
        answer = with_index(
            root, lambda connection: _asked(connection, given, limit, package), "--rebuild" in given.switches
        )
    else:
        require(not given.values["--runs"] and not root.exists(), f"--runs {root}: no folder is there")
        answer = Answer([], [], 0)
    print(_written(answer, root, given.switches))
    return 0


def _limit(word: str) -> int | None:
    if not word:
        return None
    plain = word.isascii() and word.isdigit() and len(word) <= 9
    require(plain and int(word) >= 1, f"--limit must be a whole number of at least 1, got {word!r}")
    return int(word)


def _asked(connection: sqlite3.Connection, given: Words, limit: int | None, package: str) -> Answer:
    total = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    if not total:
        return Answer([], [], 0)
    fields = Fields(connection)
    conditions = [condition(fields, text) for text in given.values["--where"]]
    if study := given.once("--study", ""):
        conditions.append(_of_study(connection, study, package))
    sort = given.once("--sort", "")
    show = shown(fields, given.values["--show"])
    documents = "--json" in given.switches or any(field.kind != "column" for field in show)
    return Answer(select(connection, conditions, order(fields, sort or "-started"), limit, documents), show, total)


def _of_study(connection: sqlite3.Connection, study: str, package: str) -> Term:
    there = {name for (name,) in connection.execute("SELECT DISTINCT study FROM runs WHERE study IS NOT NULL")}
    if study not in there and study not in discovery.names(package):
        raise InputError(f"--study: no run of a study {study!r}{discovery.nearest(study, sorted(there))}")
    return Term("study = ?", (study,))


def _written(answer: Answer, root: Path, switches: frozenset[str]) -> str:
    if "--json" in switches:
        return table.as_json(answer.runs, root, answer.show)
    if "--csv" in switches:
        return table.as_csv(answer.runs, root, answer.show)
    if not answer.total:
        return f"no runs below {root}; `mindworks run NAME` makes one there"
    if not answer.runs:
        return f"none of the {answer.total} runs below {root} is among those asked for"
    width = shutil.get_terminal_size().columns if on_terminal() else None
    lines = [table.table(answer.runs, root, answer.show, width)]
    if len(answer.runs) < answer.total:
        lines.append(f"{len(answer.runs)} of {answer.total} runs")
    return "\n".join(lines)
