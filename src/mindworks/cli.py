"""The command line: mindworks list | show | run | sweep | runs | compare | report | claims | serve | doctor | cite."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from mindworks import __version__
from mindworks.errors import InputError, MissingExtra
from mindworks.lab import discovery
from mindworks.lab.study import Study

OK, FAILED, USAGE, CRASH, INTERRUPTED = 0, 1, 2, 70, 130

HELP = """\
usage: mindworks COMMAND

  list                 studies with paper, year, claim and the verdict of the last record
  show NAME            claim, fields with defaults and units, checks, citation, docs page
  run NAME [flags]     run a study; `mindworks run NAME --help` lists its flags
  sweep NAME [flags]   a study over a grid of its fields and many seeds, on this
                       machine or on Ray; it continues what it finds
  runs [flags]         the runs below a folder, to filter and to sort
  compare RUN RUN      two runs: configuration, claims with intervals, curves
  claims [flags]       run every study, keep the records, print the verdicts
  report [flags]       a static site of all papers, claims, records and figures
  serve NAME [flags]   a swarm or a society as an OpenAI-compatible server
  doctor               versions, device, threads, extras, a one-second self-test
  cite NAME            BibTeX

  --version            print the version

`mindworks COMMAND --help` lists the flags of a command.

exit status: 0 every check passes; 1 a check fails; 2 bad usage or input, or a
refusing disk; 70 a defect in the program; 130 interrupted, with the command
that resumes"""

# Commands with a module of their own: `command(words, package, results)` there returns the exit status.
MODULES = {
    "sweep": "mindworks.lab.sweep.command",
    "runs": "mindworks.lab.index.command",
    "compare": "mindworks.lab.index.comparison",
    "claims": "mindworks.lab.claims",
    "report": "mindworks.lab.report.command",
}


def main(argv: Sequence[str] | None = None, package: str = discovery.STUDIES, results: Path | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return the exit status.

    Studies are those of `package`; records are looked up in `results` (default: the checkout's, where there is one).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return _ended(lambda: _dispatch(words, package, discovery.results_folder() if results is None else results))


def _ended(action: Callable[[], int]) -> int:
    """The exit status of `action`, whose errors a user can mend are printed."""
    try:
        return action()
    except BrokenPipeError:  # the reader of a pipe has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (InputError, MissingExtra, OSError) as error:
        return _complain(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:  # --help of a study
        return int(end.code or OK)


def _dispatch(words: list[str], package: str, results: Path | None) -> int:
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(HELP)
        return OK
    if command == "--version":
        print(f"mindworks {__version__}")
        return OK
    commands: dict[str, Callable[[], int]] = {
        "list": lambda: _list(rest, package, results),
        "show": lambda: _show(rest, package, results),
        "run": lambda: _run(rest, package),
        "serve": lambda: _serve(rest),
        "doctor": lambda: _doctor(rest),
        "cite": lambda: _cite(rest, package),
    }
    if command in MODULES:
        return int(import_module(MODULES[command]).command(rest, package, results))
    if command not in commands:
        raise InputError(f"unknown command {command!r}{discovery.nearest(command, [*commands, *MODULES])}")
    if command not in ("run", "serve") and set(rest) & {"--help", "-h"}:
        print(HELP)
        return OK
    return commands[command]()


def _list(words: list[str], package: str, results: Path | None) -> int:
    from mindworks.lab.verdict import listing

    _no_more(words)
    names = discovery.names(package)
    print(listing((discovery.find(name, package), discovery.last_record(name, results)) for name in names))
    return OK


def _show(words: list[str], package: str, results: Path | None) -> int:
    from mindworks.lab.verdict import page

    name = _one_name(words, "show", package)
    print(page(discovery.find(name, package), discovery.last_record(name, results)))
    return OK


def _cite(words: list[str], package: str) -> int:
    study = discovery.find(_one_name(words, "cite", package), package)
    print(study.bibtex.strip() or f"{study.title} ({study.paper})")
    return OK


def _doctor(words: list[str]) -> int:
    from mindworks.lab.doctor import report

    _no_more(words)
    lines, healthy = report()
    print("\n".join(lines))
    return OK if healthy else FAILED


def _serve(words: list[str]) -> int:
    from mindworks import serving

    if not words or set(words) & {"--help", "-h"}:
        print(serving.HELP)
        return OK if words else USAGE
    serving.command(words)
    return OK


def _run(words: list[str], package: str) -> int:
    if not words or words[0] in ("--help", "-h"):
        print(f"usage: mindworks run NAME [flags]\n\nstudies: {', '.join(discovery.names(package))}")
        return OK if words else USAGE
    from mindworks.lab import ranks

    if not ranks.several():
        return _run_here(words, package, lambda study: study)
    find = partial(discovery.find, package=package)
    return ranks.run(find, lambda share: _ended(lambda: _run_here(words, package, share)))


def _run_here(words: list[str], package: str, share: Callable[[Study], Study]) -> int:
    name, flags = _named(words, package)
    study = share(discovery.find(name, package))
    from mindworks.lab.flags import parse
    from mindworks.lab.folder import new_folder
    from mindworks.lab.interrupt import interruptible
    from mindworks.lab.processes import SeedsFailed
    from mindworks.lab.progress import on_terminal
    from mindworks.lab.ranks import RanksFailed
    from mindworks.lab.runner import execute
    from mindworks.lab.sinks import available
    from mindworks.lab.verdict import ending, passed

    request = parse(study, flags)
    available(request.track)
    folder = request.resume or new_folder(request.out, request.scale)
    track = f" --track {','.join(request.track)}" if request.track else ""
    again = f"mindworks run {name} --resume {shlex.quote(str(folder))}{track}"

    def last_words() -> None:
        if on_terminal():
            print("\033[?25h", end="", flush=True)  # a bar hides the cursor
        print(f"mindworks: interrupted; continue with: {again}", file=sys.stderr, flush=True)

    try:
        with interruptible(last_words):
            record = execute(
                study,
                request.config,
                request.scale,
                request.seeds,
                folder,
                resume=request.resume is not None,
                patience=0.5,  # `mindworks runs` takes a look at the lock, for an instant
                track=request.track,
            )
            print(ending(record, folder), flush=True)
    except KeyboardInterrupt:
        last_words()
        return INTERRUPTED
    except SeedsFailed as error:
        return _complain(f"{error}; the other seeds are kept, continue with: {again}", error.status)
    except RanksFailed as error:
        return _complain(f"{error}; continue with: {again}", error.status)
    except (InputError, MissingExtra, OSError) as error:
        return _complain(error, hint=f"; continue with: {again}" if (folder / "config.json").exists() else "")
    except (Exception, SystemExit):
        sys.excepthook(*sys.exc_info())
        return _complain(f"a defect in the study {name}; continue with: {again}", CRASH)
    return OK if passed(record) else FAILED


def _named(words: list[str], package: str) -> tuple[str, list[str]]:
    """The study's name and its flags; the name may stand after the flags."""
    if not words[0].startswith("-"):
        return words[0], words[1:]
    known = discovery.names(package)
    for place, word in enumerate(words):
        if word in known:
            return word, words[:place] + words[place + 1 :]
    raise InputError(f"run needs the name of a study{discovery.nearest('', known)}")


def _one_name(words: list[str], command: str, package: str) -> str:
    if len(words) != 1:
        raise InputError(f"{command} needs one name of a study{discovery.nearest('', discovery.names(package))}")
    return words[0]


def _no_more(words: list[str]) -> None:
    if words:
        raise InputError(f"unexpected argument {words[0]!r}")


def _complain(error: BaseException | str, status: int = USAGE, hint: str = "") -> int:
    from mindworks.lab.processes import one_line

    text = error if isinstance(error, str) else one_line(error)
    print(f"mindworks: {text}{hint}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
