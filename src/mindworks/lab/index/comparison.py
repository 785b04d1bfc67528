"""The command `mindworks compare`: two runs side by side."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mindworks.errors import InputError, require
from mindworks.lab.discovery import nearest
from mindworks.lab.index.curves import Curve, Curves, Name, common_axis, course, grid, iqm, spark
from mindworks.lab.index.differences import MISSING, Difference, checks, over_seeds, settings
from mindworks.lab.index.drawing import KINDS, draw
from mindworks.lab.index.sides import Side, side
from mindworks.lab.index.table import cell
from mindworks.lab.index.words import taken_apart
from mindworks.lab.stats import interval

HELP = """\
usage: mindworks compare RUN RUN [flags]

Two runs side by side: what differs in scale, seeds, configuration and
environment; each claim with its values, and the difference with an interval
where both have values per seed; the last values and the courses of their
metrics. RUN is a run's folder, the file of a record, or a study's name for its
last record.

  --curve KEY       this metric alone (stage/key or key); may be given several
                    times
  --out FILE        draw the curves of both into FILE.svg, FILE.pdf or FILE.png"""

WIDTH = 80
MOST_SHOWN = 40
_SPARK, _LONGEST, _LISTED = 32, 44, 10
_BLOCKS, _LETTERS = "▁▂▃▄▅▆▇█", "_.:-=+*#"


@dataclass(frozen=True)
class Metrics:
    """The curves of both sides; of those asked for, the pairs to show, how many more there are, and the others."""

    a: Curves
    b: Curves
    common: dict[Name, tuple[Curve, Curve]]
    more: int
    alone: dict[str, list[str]]


def command(words: list[str], package: str, results: Path | None) -> int:
    """Print the comparison that `words` ask for; returns the exit status."""
    if set(words) & {"--help", "-h"}:
        print(HELP)
        return 0
    given = taken_apart(words, ("--curve", "--out"))
    require(len(given.rest) == 2, f"compare needs two runs, got {' '.join(given.rest) or 'none'}")
    out = given.once("--out", "")
    kinds = ", ".join(KINDS)
    require(not out or Path(out).suffix in KINDS, f"--out must end in one of {kinds}, got {out!r}")
    a, b = (side(word, results) for word in given.rest)
    metrics = _metrics(a, b, given.values["--curve"])
    require(not out or bool(metrics.common), f"--out {out}: the runs have no curve in common to draw")
    print("\n".join([*_heads(a, b), *_settings(a, b), *_checks(a, b), *_curves(metrics)]), flush=True)
    if out:
        draw(metrics.common, (a.name, b.name), Path(out))
        print(f"\nfigure  {out}")
    return 0


def _metrics(a: Side, b: Side, wanted: Sequence[str]) -> Metrics:
    left, right = a.curves(), b.curves()
    names = [*left.by_name, *(name for name in right.by_name if name not in left.by_name)]
    for word in wanted:
        if not any(word in (name.key, str(name)) for name in names):
            there = sorted({*(name.key for name in names), *map(str, names)})
            raise InputError(f"--curve: neither run has a metric {word!r}{nearest(word, there[:100])}")
    if wanted:
        names = [name for name in names if name.key in wanted or str(name) in wanted]
    both = [name for name in names if name in left.by_name and name in right.by_name]
    common = {name: (left.by_name[name], right.by_name[name]) for name in both[:MOST_SHOWN]}
    others = (("A", right.by_name), ("B", left.by_name))
    alone = {label: [str(name) for name in names if name not in other] for label, other in others}
    return Metrics(left, right, common, len(both) - len(common), alone)


def _heads(a: Side, b: Side) -> Iterator[str]:
    for label, run in (("A", a), ("B", b)):
        count = f"{len(run.seeds)} seed{'s' * (len(run.seeds) != 1)}"
        yield f"{label}  {run.name}"
        yield f"   {run.study}, scale {run.scale}, {count}, {run.state}{_held(run)}{_time(run)}"
    if a.study != b.study:
        yield "These are runs of different studies; what they have in common is compared."


def _held(run: Side) -> str:
    return f", {sum(c.get('passed') is True for c in run.checks.values())}/{len(run.checks)} hold" if run.checks else ""


def _time(run: Side) -> str:
    seconds = run.timing.get("cpu_s")
    return f", {seconds:.1f} CPU s" if isinstance(seconds, (int, float)) else ""


def _settings(a: Side, b: Side) -> list[str]:
    def of(run: Side) -> dict[str, Any]:
        values: dict[str, Any] = {"study": run.study, "scale": run.scale, "seeds": _seeds(run.seeds)}
        values |= {f"config.{name}": value for name, value in run.config.items()}
        return values | {f"environment.{name}": value for name, value in run.environment.items()}

    found = settings(of(a), of(b))
    if not found:
        return ["", "Settings: no difference"]
    heads = ("Settings that differ", "A", "B")
    rows = [heads, *((f"  {pair.name}", _setting(pair.a), _setting(pair.b)) for pair in found)]
    sizes = [max(len(row[place]) for row in rows) for place in (0, 1)]
    same = sum(name in b.config and b.config[name] == value for name, value in a.config.items())
    lines = [f"{name:<{sizes[0]}}  {left:<{sizes[1]}}  {right}".rstrip() for name, left, right in rows]
    return ["", *lines, f"  (the same in both: {same} of {len({**a.config, **b.config})} fields of the configuration)"]


def _setting(value: Any) -> str:
    text = "absent" if value is MISSING else '""' if value == "" else "none" if value is None else cell(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _seeds(seeds: Sequence[Any]) -> str:
    numbers = [seed for seed in seeds if isinstance(seed, int)]
    if len(seeds) > 2 and len(numbers) == len(seeds) and all(y == x + 1 for x, y in pairwise(numbers)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _checks(a: Side, b: Side) -> list[str]:
    found = checks(a, b)
    if not (a.checks or b.checks):
        return ["", "Checks: none, as neither run has finished"]
    lines = ["", f"Checks: {len(found.common)} in both, {len(found.only_a)} in A alone, {len(found.only_b)} in B alone"]
    intervals = False
    for claim in found.common:
        left, right = a.checks[claim], b.checks[claim]
        difference = over_seeds(left, right, a.seeds, b.seeds)
        intervals |= difference is not None or "interval" in left or "interval" in right
        lines += _claim(claim)
        lines += [_one("A", left), _one("B", right), _difference(left, right, difference)]
    for label, run, claims in (("A", a, found.only_a), ("B", b, found.only_b)):
        for claim in claims:
            lines += [*_claim(claim), _one(label, run.checks[claim])]
    if intervals:
        lines.append("  [low, high]: 95 % bootstrap interval of the interquartile mean (iqm) over seeds")
    return lines


def _claim(claim: str) -> list[str]:
    return textwrap.wrap(claim, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _one(label: str, check: dict[str, Any]) -> str:
    verdict = "PASS" if check.get("passed") is True else "FAIL"
    value, bar = _value(check.get("value")), _value(check.get("bar"))
    head = f"    {label:<5}  {verdict}  {value:>10} {check.get('op', '')!s:<2} {bar:<10}"
    each, ends = check.get("each"), check.get("interval")
    if isinstance(each, list) and isinstance(ends, list) and len(ends) == 2:
        numbers = [value for value in each if isinstance(value, (int, float))]
        middle = iqm(numbers) if numbers and len(numbers) == len(each) else None
        head += f"  iqm {_value(middle)} [{_value(ends[0])}, {_value(ends[1])}], {len(each)} seeds"
    return head.rstrip()


def _difference(a: dict[str, Any], b: dict[str, Any], found: Difference | None) -> str:
    values = [check.get("value") for check in (a, b)]
    plain = all(isinstance(value, (int, float)) for value in values)
    line = f"    B - A        {_value(values[1] - values[0]) if plain else 'none':>10}"  # type: ignore[operator]
    if found is not None:
        how = f"paired by {found.counts[0]} seeds" if found.paired else "independent seeds"
        sure = "excludes 0" if found.excludes_zero else "includes 0"
        line += f"{'':15}iqm {_value(found.value)} [{_value(found.low)}, {_value(found.high)}], {how}, {sure}"
    return line


def _value(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, (int, float)) else cell(value)


def _curves(metrics: Metrics) -> Iterator[str]:
    yield ""
    for label, run in (("A", metrics.a), ("B", metrics.b)):
        if run.unread:
            yield f"Metrics of {label}: {run.unread} lines are damaged and left out"
        if run.full:
            yield f"Metrics of {label}: there are {len(run.by_name)} curves; more would be left out"
    shown = len(metrics.common) + metrics.more
    alone = metrics.alone
    yield f"Curves: {shown} in both, {len(alone['A'])} in A alone, {len(alone['B'])} in B alone"
    for name, pair in metrics.common.items():
        yield from _curve(name, pair)
    if metrics.more:
        yield f"  and {metrics.more} more; --curve KEY shows those of one metric"
    for label, names in alone.items():
        if names:
            listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
            yield from textwrap.wrap(
                f"in {label} alone: {listed}", WIDTH, initial_indent="  ", subsequent_indent="    "
            )


def _curve(name: Name, pair: tuple[Curve, Curve]) -> Iterator[str]:
    axis = common_axis(pair)
    drawn = [curve.drawn(axis) for curve in pair]
    places = grid([*drawn[0], *drawn[1]], _SPARK)
    if places[0] == places[-1]:
        yield f"  {name}  ({axis or 'line'} {cell(places[0])})"
        yield from (f"    {label}  {_last(curve)}" for label, curve in zip("AB", pair, strict=True))
        return
    yield f"  {name}  ({axis or 'line'} {cell(places[0])} to {cell(places[-1])})"
    courses = [course(tracks, places) for tracks in drawn]
    known = [value for values in courses for value in values if value is not None]
    marks = _BLOCKS if _can_print(_BLOCKS) else _LETTERS
    for label, curve, values in zip("AB", pair, courses, strict=True):
        yield f"    {label}  {spark(values, min(known), max(known), marks)}  {_last(curve)}".rstrip()


def _last(curve: Curve) -> str:
    ends = curve.ends()
    if len(ends) == 1:
        return _value(ends[0])
    low, high = interval(ends)
    return f"iqm {_value(iqm(ends))} [{_value(low)}, {_value(high)}], {len(ends)} seeds"


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
