"""From the words after `mindworks run NAME` to a request: typed flags, and errors of one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from mindworks.errors import InputError
from mindworks.lab.discovery import nearest
from mindworks.lab.fields import docstrings
from mindworks.lab.folder import read_description, revive
from mindworks.lab.sinks import known as known_sinks
from mindworks.lab.study import Study

_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)")
Group = tuple[str, list[str]]


def _help(text: str, metavar: str | None = None) -> Any:
    return tyro.conf.arg(help=text, metavar=metavar)


@dataclass(frozen=True)
class Options:
    """The flags every study has."""

    scale: Annotated[str, _help("smoke (seconds), cpu (the reader's minutes) or paper (the paper's own sizes)")]
    seed: Annotated[int, _help("first seed")]
    seeds: Annotated[int, _help("number of seeds: seed, seed + 1, ...")]
    out: Annotated[str, _help("the run's folder is made under DIR", "DIR")]
    resume: Annotated[str, _help("continue the run in DIR, with its own configuration and seeds", "DIR")] = "none"
    track: Annotated[str, _help("send the metrics, live, to tensorboard, trackio or wandb as well", "SINK,...")] = (
        "none"
    )


@dataclass(frozen=True)
class _Words:
    """Both kinds of flags: those of every run, and those of a study's configuration."""

    run: Options
    config: Any


@dataclass(frozen=True)
class Request:
    """What to run: a study at a scale with a configuration and seeds, in a new folder or continuing one."""

    study: Study
    scale: str
    config: Any
    seeds: list[int]
    out: Path
    resume: Path | None
    track: tuple[str, ...] = ()


def parse(study: Study, words: list[str]) -> Request:
    """The request that `words` make; raises InputError in one line that names the flag. `--help` prints and exits."""
    groups = _together(_split(words))
    if "--resume" in dict(groups):
        return _resumed(study, words, groups)
    return grid(study, words, {})[0]


def grid(study: Study, words: list[str], axes: Mapping[str, list[list[str]]]) -> list[Request]:
    """The requests that `words` make with every combination of the axes: for a field, the words of each value.

    Every value is read once; the configuration of each combination is validated as a whole.
    """
    groups = _together(_split(words))
    scale = _last(dict(groups), "--scale", "cpu")
    options = Options(scale, seed=0, seeds=study.seeds.get(scale, 1), out=f"runs/{study.name}")
    defaults = _Words(options, study.defaults(scale))
    found = _typed(study, groups, defaults)
    seeds, track = study.default_seeds(scale, found.run.seed, found.run.seeds), _sinks(found.run)
    read = {
        name: [getattr(_typed(study, _split(value), defaults).config, name) for value in values]
        for name, values in axes.items()
    }
    return [
        Request(study, scale, _configured(study.config, at), seeds, Path(found.run.out), None, track)
        for chosen in itertools.product(*read.values())
        for at in [dataclasses.replace(found.config, **dict(zip(read, chosen, strict=True)))]
    ]


def _resumed(study: Study, words: list[str], groups: list[Group]) -> Request:
    """A request to continue: flags given beside `--resume` must repeat what the folder's run was started with."""
    folder = Path(_last(dict(groups), "--resume", ""))
    there = read_description(folder)
    if there["study"] != study.name:
        raise InputError(f"--resume {folder}: the run there is of study {there['study']!r}, not {study.name!r}")
    config, seeds = revive(study.config, there["config"]), there["seeds"]
    options = Options(there["scale"], seed=seeds[0], seeds=len(seeds), out=str(folder.parent))
    wanted = _Words(options, config)
    found = _typed(study, groups, wanted)
    for before, after in ((options, found.run), (config, found.config)):
        for field in dataclasses.fields(before):
            old, new = getattr(before, field.name), getattr(after, field.name)
            if field.name not in ("resume", "track") and old != new:
                raise InputError(f"{flag_of(field.name)} {new} differs from the run in {folder}, which has {old}")
    return Request(study, there["scale"], config, seeds, folder.parent, folder, _sinks(found.run))


def _split(words: list[str]) -> list[Group]:
    """The words as flags, each with its values; raises InputError at a word that belongs to no flag."""
    groups: list[Group] = []
    for word in words:
        if word.startswith("-") and not _NUMBER.match(word):
            flag, equals, value = word.partition("=")
            groups.append(("--" + flag.lstrip("-").replace("_", "-"), [value] if equals else []))
            if flag == "-h":
                groups[-1] = ("--help", [])
        elif groups:
            groups[-1][1].append(word)
        else:
            raise InputError(f"unexpected argument {word!r}")
    return groups


def given(words: Iterable[str]) -> set[str]:
    """The flags among `words`, each as `flag_of` writes it; words that belong to no flag are passed over."""
    return {flag for word in words if word.startswith("-") and not _NUMBER.match(word) for flag, _ in _split([word])}


def _together(groups: list[Group]) -> list[Group]:
    """The groups with every `--track` in one, which may be given several times and with several sinks."""
    given = [values for flag, values in groups if flag == "--track"]
    rest = [group for group in groups if group[0] != "--track"]
    return rest if not given else [*rest, ("--track", [",".join(itertools.chain(*given))] if all(given) else [])]


def _sinks(options: Options) -> tuple[str, ...]:
    return () if options.track == "none" else known_sinks(filter(None, options.track.split(",")))


def _last(given: dict[str, list[str]], flag: str, default: str) -> str:
    if flag not in given:
        return default
    if len(given[flag]) != 1:
        raise InputError(f"{flag} needs one value, got {' '.join(given[flag]) or 'none'}")
    return given[flag][0]


def _typed(study: Study, groups: list[Group], defaults: _Words) -> _Words:
    """The words as typed values, by tyro; its own error reports stay silent and one line is raised instead."""
    known = {"--help"} | {flag_of(name) for name in _names(defaults)}
    known |= {f"--no-{name.replace('_', '-')}" for name in _names(defaults) if isinstance(_value(defaults, name), bool)}
    for flag, _ in groups:
        if flag not in known:
            raise InputError(f"unknown flag {flag}{nearest(flag, known - {'--help'}) if flag != '--' else ''}")
    bare = _bare(study.config)
    start = _Words(defaults.run, bare(**{f.name: getattr(defaults.config, f.name) for f in _init_fields(study.config)}))
    if any(flag == "--help" for flag, _ in groups):
        scale = [(flag, values) for flag, values in groups if flag == "--scale"]
        return _tyro(study, bare, [*scale, ("--help", [])], start, loud=True)
    try:
        return _tyro(study, bare, groups, start)
    except SystemExit:
        pass
    for flag, values in groups:
        try:
            _tyro(study, bare, [(flag, values)], start)
        except SystemExit:
            raise InputError(_complaint(defaults, flag, values)) from None
    raise InputError(f"these flags do not go together: {' '.join(flag for flag, _ in groups)}")


def _tyro(study: Study, bare: type, groups: list[Group], start: _Words, loud: bool = False) -> _Words:
    with contextlib.ExitStack() as silence:
        if not loud:  # console_outputs=False alone lets some of tyro's reports through
            silence.enter_context(contextlib.redirect_stdout(io.StringIO()))
            silence.enter_context(contextlib.redirect_stderr(io.StringIO()))
        # a plain class, not a generic one: tyro loads typeguard for those, 0.06 CPU s
        shape = make_dataclass("Words", [("run", Options), ("config", bare)], frozen=True)
        return tyro.cli(
            shape,
            prog=f"mindworks run {study.name}",
            description=study.claim or study.title,
            default=shape(start.run, start.config),
            args=[word for flag, values in groups for word in (flag, *values)],
            config=(tyro.conf.OmitArgPrefixes,),
            console_outputs=loud,
        )


def _bare(config: type) -> type:
    """`config` without its validation, so that a value out of range is reported by the study's own words.

    Help texts are handed to tyro ready-made: its own search for them costs 0.05 CPU s (2026-11-22).
    """
    hints, docs = get_type_hints(config, include_extras=True), docstrings(config)
    members = [(f.name, _flagged(hints[f.name], docs.get(f.name, ""))) for f in _init_fields(config)]
    return make_dataclass(config.__name__, members, frozen=True, namespace={"__doc__": config.__doc__})


def _flagged(hint: Any, text: str) -> Any:
    """The annotation that tyro reads: with its help text, and for `tuple[x, ...]` with our own reading of the words.

    Tyro checks the default of a tuple with typeguard, whose import costs 0.05 CPU s (2026-11-22), and lets an object
    pass.
    """
    if get_origin(hint) is not tuple or get_args(hint)[1:] != (...,) or get_args(hint)[0] not in (int, float, str):
        return Annotated[hint, _help(text)]
    (kind, _) = get_args(hint)
    words: Any = tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{kind.__name__.upper()} ...]",
        instance_from_str=lambda given: tuple(kind(word) for word in given),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(item, kind) for item in value),
        str_from_instance=lambda value: [str(item) for item in value],
    )
    return Annotated[object, words, _help(text)]


def _configured(config: type, bare: Any) -> Any:
    try:
        return config(**{field.name: getattr(bare, field.name) for field in _init_fields(config)})
    except ValueError as error:
        raise InputError(str(error)) from error


def _complaint(defaults: _Words, flag: str, values: list[str]) -> str:
    name = flag.removeprefix("--").replace("-", "_")
    owner = defaults.run if name in {f.name for f in dataclasses.fields(Options)} else defaults.config
    kinds = {field.name: field.type for field in dataclasses.fields(owner)}
    if name not in kinds or isinstance(getattr(owner, name), bool):
        return f"{flag} takes no value, got {' '.join(values)!r}"
    kind = _kind(kinds[name])
    if kind.startswith("Literal["):
        kind = f"one of {kind.removeprefix('Literal').strip('[]')}"
    return f"{flag} needs a value: {kind}" if not values else f"{flag} must be {kind}, got {' '.join(values)!r}"


def _kind(annotation: Any) -> str:
    """An annotation as a word: `int` for int, "int" and Annotated[int, ...]."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return text.removeprefix("Annotated[").partition(", _help")[0]


def flag_of(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def _names(words: _Words) -> list[str]:
    return [field.name for part in (words.run, words.config) for field in dataclasses.fields(part)]


def _value(words: _Words, name: str) -> Any:
    return getattr(words.config if hasattr(words.config, name) else words.run, name)


def _init_fields(config: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(config) if field.init]
