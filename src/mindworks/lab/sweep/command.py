"""`mindworks sweep`: from its words to a plan, an engine and an exit status."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab import discovery
from mindworks.lab.flags import flag_of
from mindworks.lab.interrupt import interruptible
from mindworks.lab.processes import one_line
from mindworks.lab.sinks import available
from mindworks.lab.study import Study
from mindworks.lab.sweep.driver import Sweep, claim_folder
from mindworks.lab.sweep.engine import Engine
from mindworks.lab.sweep.grid import points
from mindworks.lab.sweep.local import LocalEngine, closing
from mindworks.lab.sweep.plan import Plan, plan
from mindworks.lab.sweep.table import Table, counted
from mindworks.lab.sweep.work import perform

HELP = """\
usage: mindworks sweep NAME [--seeds N] [--grid FIELD=A,B,C ...] [flags]

Runs the study at every point of the grid and for every seed. Seeds, and fields
that the study can batch, are computed at once; the rest in processes, here or
on Ray. The same command goes on where it was broken off, and runs no finished
cell again.

  --grid FIELD=A,B,C   values of a field; again for more fields: all combinations.
                       The values of a field that is a tuple are written A:B,
                       those of a switch true and false
  --seed FIRST         first seed (0)
  --seeds N            number of seeds (the study's own, at the scale)
  --scale SCALE        smoke, cpu or paper (cpu)
  --FIELD VALUE        a field that is the same at every point; `mindworks show NAME`
                       lists the fields
  --out DIR            the sweep's folder (runs/NAME/sweep)
  --engine ENGINE      local or ray (local); ray needs the extra cluster
  --address ADDRESS    of a running Ray cluster, such as auto or HOST:PORT; without
                       it Ray is started here and stopped at the end
  --workers N          cells at a time (as many as there are processors)
  --threads N          threads of each (1)
  --batch N            seeds per cell; 0: all, or one where a study takes them singly (0)
  --together N         points per cell, where fields can be batched; 0: all (0)
  --retries N          how often a failing cell is tried again (0)
  --figures            draw the figures of every cell
  --show WORDS         a column with the value of the claim that holds these words
  --track SINK         send metrics to tensorboard, wandb or trackio as well
  --dry-run            print the cells, run nothing

exit status: 0 every cell finished, whatever its claims; 1 a cell failed; 130
interrupted"""

_VALUES = {
    "--out": "", "--engine": "local", "--address": "", "--workers": "", "--threads": "1", "--batch": "0",
    "--together": "0", "--retries": "0",
}  # fmt: skip
_REPEATED = ("--grid", "--show", "--track")
_SWITCHES = ("--figures", "--dry-run")
_OF_EVERY_RUN = ("--scale", "--seed", "--seeds")
_LEAST = {"--workers": 1, "--threads": 1, "--batch": 0, "--together": 0, "--retries": 0}


def command(words: list[str], package: str, results: Path | None) -> int:
    """Carry out `mindworks sweep` with `words`; returns the exit status."""
    if not words or set(words) & {"--help", "-h"}:
        print(HELP)
        return 0 if words else 2
    if words[0].startswith("-"):
        raise InputError(f"sweep needs the name of a study first{discovery.nearest('', discovery.names(package))}")
    study = discovery.find(words[0], package)
    own, lists, switches, rest = _split(words[1:])
    _checked(study, own, rest)
    track = available(sink for text in lists["--track"] for sink in text.split(","))
    requests = points(study, rest, lists["--grid"])
    root = Path(own["--out"] or f"runs/{study.name}/sweep")
    first = requests[0]
    made = plan(study, package, first.scale, [r.config for r in requests], first.seeds, root, _count(own, "--batch"))
    if "--dry-run" in switches:
        print(_listing(made, _count(own, "--together")))
        return 0
    again = f"mindworks sweep {shlex.join(words)}"
    settings = {"retries": _count(own, "--retries"), "together": _count(own, "--together"), "track": track}
    return _carried_out(made, own, Table(lists["--show"]), {**settings, "figures": "--figures" in switches}, again)


def _carried_out(made: Plan, own: dict[str, str], table: Table, settings: dict[str, Any], again: str) -> int:
    claim_folder(made, again)

    def last_words() -> None:
        print(f"mindworks: interrupted; continue with: {again}", file=sys.stderr, flush=True)

    try:
        with interruptible(last_words), closing(_engine(own, made.root)) as engine, table.open():
            failed = Sweep(made, engine, table, **settings).run()
    except KeyboardInterrupt:
        last_words()
        return 130
    except OSError as error:  # a full disk, a lost cluster
        print(f"mindworks: {one_line(error)}; continue with: {again}", file=sys.stderr, flush=True)
        return 2
    print(f"\n{table.text()}\n\nruns    mindworks runs --runs {shlex.quote(str(made.root))}")
    if failed:
        print(f"failed  {len(failed)}; what they said is in their error.json; try them again with: {again}")
    return 1 if failed else 0


def _split(words: list[str]) -> tuple[dict[str, str], dict[str, list[str]], set[str], list[str]]:
    """The sweep's own flags with one value, those that may come again, its switches, and the words of the runs."""
    own, lists = dict(_VALUES), {flag: list[str]() for flag in _REPEATED}
    switches: set[str] = set()
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-") if flag.startswith("--") else flag
        if flag in _SWITCHES:
            require(not equals, f"{flag} takes no value, got {value!r}")
            switches.add(flag)
        elif flag in own or flag in lists:
            if not equals:
                require(bool(queue) and not queue[0].startswith("--"), f"{flag} needs a value")
                value = queue.pop(0)
            if flag in own:
                own[flag] = value
            else:
                lists[flag].append(value)
        else:
            rest.append(word)
    return own, lists, switches, rest


def _checked(study: Study, own: dict[str, str], rest: list[str]) -> None:
    """Refuse wrong values of the sweep's own flags, and flags that neither it nor a run of the study has."""
    require("--resume" not in [word.partition("=")[0] for word in rest], "--resume: a sweep goes on by itself")
    for flag, least in _LEAST.items():
        require(not own[flag] or _count(own, flag) >= least, f"{flag} must be at least {least}, got {own[flag]}")
    require(own["--engine"] in ("local", "ray"), f"--engine must be local or ray, got {own['--engine']!r}")
    require(own["--engine"] == "ray" or not own["--address"], "--address belongs to --engine ray")
    fields = [flag_of(field.name) for field in dataclasses.fields(study.config) if field.init]
    known = [*fields, *_OF_EVERY_RUN, *_VALUES, *_REPEATED, *_SWITCHES]
    for word in rest:
        flag = word.partition("=")[0].replace("_", "-")
        if len(flag) > 2 and flag.startswith("--") and not {flag, flag.replace("--no-", "--", 1)} & set(known):
            raise InputError(f"unknown flag {flag}{discovery.nearest(flag, known)}")


def _count(own: dict[str, str], flag: str) -> int:
    try:
        return int(own[flag])
    except ValueError as error:
        raise InputError(f"{flag} must be int, got {own[flag]!r}") from error


def _engine(own: dict[str, str], root: Path) -> Engine:
    workers = _count(own, "--workers") if own["--workers"] else None
    threads = _count(own, "--threads")
    if own["--engine"] == "local":
        return LocalEngine(perform, root / "logs", workers, threads)
    from mindworks.lab.sweep.ray_engine import RayEngine

    return RayEngine(perform, own["--address"], workers, threads)


def _listing(made: Plan, together: int) -> str:
    lines = [f"{'finished' if cell.finished else 'to do   '}  {cell.folder}" for cell in made.cells]
    batches = made.batches(together)
    left = sum(len(batch.cells) for batch in batches)
    return "\n".join([*lines, f"{counted(len(made.cells), 'cell')}, {left} to do in {counted(len(batches), 'job')}"])
