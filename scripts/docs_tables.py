"""Fill the tables of every page under docs/ from the committed records.

    python scripts/docs_tables.py            write them
    python scripts/docs_tables.py --check    write nothing; status 1 and the names of the stale pages if there are any

Between `<!-- record:begin -->` and `<!-- record:end -->` of docs/papers/NAME.md goes results/NAME.json. Between
`<!-- benchmarks:begin NAME ... -->` and `<!-- benchmarks:end -->` go the named records of results/benchmarks, or all of
them where no name is given.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from mindworks.lab import tables
from mindworks.lab.tables import number

ROOT = Path(__file__).resolve().parents[1]
NO_RECORD = "No record yet."
INTERVALS = (
    "The interval is a bootstrap over seeds of the interquartile mean of one value per seed. A worst or best seed, "
    "or a ratio of two means, can lie outside it."
)
Rows = list[tuple[str, ...]]


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


def table(title: str, content: Any, seeds: list[int]) -> str:
    """One of a record's tables, as `tables.grid` reads its shape."""
    found = tables.grid(title, content, seeds)
    if isinstance(content, list):
        return grid(found.head, list(found.rows))
    return grid((found.title, *found.head[1:]), [(f"`{row[0]}`", *row[1:]) for row in found.rows])


def record_block(record: dict[str, Any] | None) -> str:
    """Everything a page says about a record; `No record yet.` without one."""
    if record is None:
        return NO_RECORD
    drawn = [table(title, content, record["seeds"]) for title, content in record["tables"].items() if content]
    return "\n\n".join([origin(record), claims(record), *drawn])


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
    made: ModuleType = importlib.import_module("tables")
    bench: ModuleType = made._bench
    before = bench.RESULTS
    bench.RESULTS = results / "benchmarks"
    try:
        return made.tables()
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
