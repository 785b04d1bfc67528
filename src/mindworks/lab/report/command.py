"""The command `mindworks report`: a static site of all papers, claims, records and figures."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from mindworks.errors import InputError, require
from mindworks.lab.discovery import nearest
from mindworks.lab.record import CHECKOUT

if TYPE_CHECKING:
    from mindworks.lab.report.sources import Sources

HELP = """\
usage: mindworks report [flags]

A static site: every paper with its claim, the checks beside its own numbers,
figures, tables, the command that makes them again, the page, and the citation.
It needs no network and opens from the disk.

  --out DIR         where the site goes; an older site there is replaced
                    (default: site)
  --results DIR     the records (default: results/ of the checkout)
  --papers DIR      pages, figures and papers.toml (default: docs/papers/ of the
                    checkout)
  --runs DIR        runs to show on a page of their own (default with --watch:
                    runs; without it there is no such page)
  --watch           build, serve on 127.0.0.1, and follow every change; Ctrl-C
                    ends it
  --port N          where to serve; 0 takes a free one (default: 8766)"""

_VALUES = ("--out", "--results", "--papers", "--runs", "--port")
_PORT = 8766


@dataclass(frozen=True)
class Wanted:
    """What the words of the command ask for."""

    out: Path
    results: Path
    papers: Path
    runs: Path | None
    watch: bool
    port: int


def understood(words: Sequence[str], results: Path | None) -> Wanted:
    """The words after `mindworks report`; raises InputError in one line that names the word."""
    given: dict[str, str] = {}
    watch, rest = False, list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag == "--watch" and not equals:
            watch = True
        elif flag in _VALUES:
            require(bool(equals) or (bool(rest) and not rest[0].startswith("--")), f"{flag} needs a value, got none")
            given[flag] = value if equals else rest.pop(0)
            require(bool(given[flag]), f"{flag} needs a value, got none")
        elif flag.startswith("-"):
            raise InputError(f"unknown flag {flag}{nearest(flag, (*_VALUES, '--watch', '--help'))}")
        else:
            raise InputError(f"unexpected argument {flag + equals + value!r}")
    require(watch or "--port" not in given, "--port goes with --watch, which is not given")
    where = Path(given["--results"]) if "--results" in given else results
    if where is None:
        raise InputError("--results needs a value: there are no records beside this package")
    papers = Path(given["--papers"]) if "--papers" in given else CHECKOUT / "docs" / "papers"
    for flag, folder in (("--results", where), ("--papers", papers)):
        require(folder.is_dir() or flag not in given, f"{flag} {folder}: there is no such folder")
    runs = Path(given["--runs"]) if "--runs" in given else Path("runs") if watch else None
    return Wanted(Path(given.get("--out", "site")), where, papers, runs, watch, _port(given.get("--port")))


def _port(word: str | None) -> int:
    if word is None:
        return _PORT
    good = word.isascii() and word.isdigit() and len(word) <= 5 and int(word) <= 65535
    require(good, f"--port must be a whole number in 0 to 65535, got {word!r}")
    return int(word)


def command(words: list[str], package: str, results: Path | None) -> int:
    """Build the site that `words` ask for, and serve it with `--watch`; returns the exit status."""
    if {"--help", "-h"} & set(words):
        print(HELP)
        return 0
    wanted = understood(words, results)
    from mindworks.lab.report.output import check
    from mindworks.lab.report.sources import Sources

    check(wanted.out)
    sources = Sources(wanted.results, wanted.papers, wanted.runs, package)
    return _watch(sources, wanted) if wanted.watch else _build(sources, wanted.out)


def _build(sources: Sources, out: Path) -> int:
    from mindworks.lab.report import output, site, watch

    files = site.build(sources) | watch.runs_page(sources)
    output.replace(out, files)
    pages, size = sum(name.endswith(".html") for name in files), sum(map(len, files.values()))
    print(f"{pages} pages, {size / 1e6:.1f} MB: {out / 'index.html'}", flush=True)
    return 0


def _watch(sources: Sources, wanted: Wanted) -> int:
    from mindworks.lab.report import watch

    watched = watch.Watched(sources, wanted.out)
    server = watch.listening(watched, wanted.port)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        watched.refresh()
        serving.start()
        print(f"serving {wanted.out} at http://{watch.HOST}:{server.server_port}/; Ctrl-C ends it", flush=True)
        watch.follow(watched)
    except KeyboardInterrupt:
        if serving.is_alive():
            server.shutdown()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        server.server_close()
    print("mindworks: the site stays in its folder; serving has ended", flush=True)
    return 0
