"""Fill the tables of every page under docs/ from the committed records.

    python scripts/docs_tables.py            write them
    python scripts/docs_tables.py --check    write nothing; status 1 and the names of the stale pages if there are any

Between `<!-- record:begin -->` and `<!-- record:end -->` of docs/papers/NAME.md goes results/NAME.json. Between
`<!-- benchmarks:begin NAME ... -->` and `<!-- benchmarks:end -->` go the named records of results/benchmarks, or all of
them where no name is given. Only the standard library is needed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NO_RECORD = "No record yet."
INTERVALS = (
    "The interval is a bootstrap over seeds of the interquartile mean of one value per seed. A worst or best seed, "
    "or a ratio of two means, can lie outside it."
)
SUMMARY = (
    "n",
    "mean",
    "min",
    "max",
    "iqm",
    "low",
    "high",
    "seeds",
)  # what `lab.summary` gives, and the seeds beside it
Rows = list[tuple[str, ...]]


def number(value: Any) -> str:
    """A number in four digits, a list of them, or `none` where nothing finite was measured."""
    if isinstance(value, list):
        return ", ".join(map(number, value)) if value else "none"
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def grid(head: tuple[str, ...], rows: Rows, left: int = 1) -> str:
    """A Markdown table; the first `left` columns are aligned to the left, the others to the right."""
    rule = tuple("---" if column < left else "---:" for column in range(len(head)))
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def origin(record: dict[str, Any]) -> str:
    """One sentence: scale, seeds, time, and what the record was made with."""
    made, seeds = record["environment"], record["seeds"]
    commit = re.sub(r"(?<=[0-9a-f]{12})[0-9a-f]+", "", made["commit"] or "none")
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({seeds[0]} to {seeds[-1]})"
    timing = record["timing"]
    return (
        f"Scale {record['scale']}, {which}, {timing['cpu_s']:.0f} CPU seconds ({timing['wall_s']:.0f} on the clock). "
        f"Mindworks {made['mindworks']}, commit {commit}, torch {made['torch']}, Python {made['python']}, "
        f"{made['cpu']}, {made['threads']} thread{'s' * (made['threads'] != 1)}."
    )


def claims(record: dict[str, Any]) -> str:
    """Every check with its value, direction, bar and verdict; with intervals where the record has them."""
    known = any("interval" in check for check in record["checks"])
    rows = [
        (
            check["claim"].replace("|", "\\|"),
            number(check["value"]),
            *((between(check.get("interval")),) if known else ()),
            f"{check['op']} {number(check['bar'])}",
            "holds" if check["passed"] else "**does not hold**",
        )
        for check in record["checks"]
    ]
    drawn = grid(("claim", "measured", *(("95 % interval",) if known else ()), "bar", "verdict"), rows)
    return f"{drawn}\n\n{INTERVALS}" if known else drawn


def between(ends: list[float | None] | None) -> str:
    """An interval in words; `none` where a seed has no value, blank where there are no values of seeds."""
    return "" if ends is None else "none" if None in ends else f"{number(ends[0])} to {number(ends[1])}"


def spread(values: list[Any]) -> str:
    """Median of one number per seed, and all of them in brackets; the values alone where they are pairs (ranges)."""
    shown = ", ".join(" to ".join(map(number, value)) if isinstance(value, list) else number(value) for value in values)
    several = len(values) > 1 and all(isinstance(value, (int, float)) for value in values)
    return f"{number(median(values))} ({shown})" if several else shown


def table(title: str, content: Any, seeds: list[int]) -> str:
    """One of a record's tables: its shape says how it is drawn.

    A list of numbers gives a column per seed, and a mapping to such lists a line for each. A mapping to summaries
    (`iqm`, `low`, `high`, `seeds`) gives interquartile means with intervals; a mapping to one row of values per seed
    gives a line per seed; a mapping to mappings to one value per seed gives medians, with all values in brackets; a
    mapping to mappings to plain numbers gives those.
    """
    each = tuple(f"seed {seed}" for seed in seeds)
    if isinstance(content, list):
        return grid(("", *each), [(title, *map(number, content))])
    first = next(iter(content.values()))
    if isinstance(first, dict):
        if "iqm" in first:
            return _summaries(title, content)
        return (_spreads if any(isinstance(value, list) for value in first.values()) else _plain)(title, content)
    if not isinstance(first[0], dict):
        return grid((title, *each), [(f"`{name}`", *map(number, values)) for name, values in content.items()])
    lines = [
        (f"`{name}`", str(seed), *(number(row[column]) for column in first[0]))
        for name, rows in content.items()
        for seed, row in zip(seeds, rows, strict=True)
    ]
    return grid((title, "seed", *(column.replace("_", " ") for column in first[0])), lines)


def _summaries(title: str, content: dict[str, dict[str, Any]]) -> str:
    more = [column for column in next(iter(content.values())) if column not in SUMMARY]
    rows = [
        (
            f"`{name}`",
            number(part["iqm"]),
            f"{number(part['low'])} to {number(part['high'])}",
            *(number(part[column]) for column in more),
            number(part["seeds"]),
        )
        for name, part in content.items()
    ]
    return grid((title, "interquartile mean", "95 % interval", *more, "per seed"), rows)


def _plain(title: str, content: dict[str, dict[str, Any]]) -> str:
    columns = next(iter(content.values()))
    rows = [(f"`{name}`", *(number(part[column]) for column in columns)) for name, part in content.items()]
    return grid((title, *(column.replace("_", " ") for column in columns)), rows)


def _spreads(title: str, content: dict[str, dict[str, list[Any]]]) -> str:
    columns = next(iter(content.values()))
    rows = [(f"`{name}`", *(spread(part[column]) for column in columns)) for name, part in content.items()]
    several = any(len(value) > 1 for part in content.values() for value in part.values() if isinstance(value, list))
    head = f"{title}: median (per seed)" if several else title
    return grid((head, *(column.replace("_", " ") for column in columns)), rows)


def record_block(record: dict[str, Any] | None) -> str:
    """Everything a page says about a record; `No record yet.` without one."""
    if record is None:
        return NO_RECORD
    tables = [table(title, content, record["seeds"]) for title, content in record["tables"].items() if content]
    return "\n\n".join([origin(record), claims(record), *tables])


def benchmarks_block(names: list[str], results: Path) -> str:
    """The tables of the benchmarks called `names`, or of all of them, as benchmarks/README.md shows them."""
    missing = [name for name in names if not (results / "benchmarks" / f"{name}.json").exists()]
    if missing:
        raise SystemExit(f"docs_tables: no record of the benchmark {missing[0]} in {results / 'benchmarks'}")
    parts = re.split(r"^(?=### )", _benchmark_tables(results), flags=re.MULTILINE)
    kept = [part.strip() for part in parts if part.strip() and (not names or _heading(part) in names)]
    return "\n\n".join(kept) or NO_RECORD


def _heading(part: str) -> str:
    return part.splitlines()[0].removeprefix("### ")


def _benchmark_tables(results: Path) -> str:
    """What benchmarks/tables.py makes of the records under `results`."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import tables

    bench: ModuleType = tables._bench
    before = bench.RESULTS
    bench.RESULTS = results / "benchmarks"
    try:
        return tables.tables()
    finally:
        bench.RESULTS = before


def filled(text: str, kind: str, block: Callable[[list[str]], str]) -> str:
    """`text` with `block(names)` between the markers of `kind`; unchanged where the page has no such markers."""
    begin, end = rf"<!-- {kind}:begin((?: [\w-]+)*) -->", rf"<!-- {kind}:end -->"
    opened, closed = len(re.findall(begin, text)), len(re.findall(end, text))
    match = re.search(rf"({begin}\n).*?({end})", text, re.DOTALL)
    if opened == closed == 0:
        return text
    if opened != 1 or closed != 1 or match is None:
        raise SystemExit(f"docs_tables: the markers {kind}:begin and {kind}:end must stand once each, in this order")
    return text[: match.end(1)] + block(match[2].split()) + "\n" + text[match.start(3) :]


def expected(text: str, name: str, results: Path) -> str:
    """The page of the study `name` as it should stand beside the records in `results`."""
    path = results / f"{name}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    text = filled(text, "record", lambda _: record_block(record))
    return filled(text, "benchmarks", partial(benchmarks_block, results=results))


def pages(root: Path = ROOT) -> list[Path]:
    """Every page under docs/."""
    return sorted((root / "docs").rglob("*.md"))


def main(words: list[str]) -> int:
    """Fill or check every page."""
    if words not in ([], ["--check"]):
        print("usage: docs_tables.py [--check]", file=sys.stderr)
        return 2
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        wanted = expected(text, page.stem, ROOT / "results")
        if wanted != text:
            stale.append(page)
            if not words:
                page.write_text(wanted, encoding="utf-8")
    for page in stale:
        print(f"{'stale' if words else 'wrote'} {page.relative_to(ROOT)}")
    return 1 if words and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
