"""Small sources of a site: three records, eighteen papers, pages, a figure and a benchmark."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from mindworks.lab.report.sources import Sources

ENVIRONMENT = {
    "mindworks": "1.2.3",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "torch": "2",
    "python": "3",
    "cpu": "C",
    "threads": 1,
}
RECORD: dict[str, Any] = {
    "study": "walk",
    "paper": "arXiv:2001.00001",
    "scale": "smoke",
    "config": {"steps": 10, "drift": 0.5, "start_points": [0.0, 1.0], "mirrored": True},
    "seeds": [3, 4, 5],
    "checks": [
        {
            "claim": "far: mean place",
            "value": 2.0,
            "op": ">=",
            "bar": 1,
            "passed": True,
            "each": [1.5, 2.0, 2.5],
            "interval": [1.625, 2.375],
        },
        {"claim": "far: worst place", "value": 0.25, "op": ">=", "bar": 0.5, "passed": False},
        {"claim": "near: gap", "value": None, "op": "<=", "bar": 1e-9, "passed": False},
    ],
    "tables": {
        "places": {"out": {"iqm": 2.0, "low": 1.5, "high": 2.5, "seeds": [1.5, 2.0, 2.5]}},
        "strange": {"out": {"iqm": 2.0}, "back": 3},
        "steps": [10, 11, 12],
        "empty": {},
    },
    "timing": {"wall_s": 120.25, "cpu_s": 90.5},
    "environment": ENVIRONMENT,
}
PAGE = """# A walk

By a walker, "A Walk", [arXiv:2001.00001](https://arxiv.org/abs/2001.00001).

## The claim

It goes far: $x_{t+1} = x_t + 1$, see [`RunLog`](../../src/mindworks/lab/log.py), [the other](line.md#the-claim),
[below](#citation), [peers](../../benchmarks/README.md#vs_loop), [all](../README.md), [more](../more.md),
[a test](../../tests/test_cli.py), [gone](gone.md), [mail](mailto:a@b.org).

$$\\sum_{t=0}^{T} \\gamma^t r_t = \\arg\\max_\\pi \\mathrm{E}[R]$$

| | b |
|---|---:|
| `x` | <script>alert(1)</script> |

```python
x = 1 < 2  # a comment
```

## Results

![How far it went](figures/walk.svg)

<!-- record:begin -->
stale table
<!-- record:end -->

## Beside a loop

<!-- benchmarks:begin vs_loop -->
stale benchmark
<!-- benchmarks:end -->

## Citation

```bibtex
@misc{walk, title = {A Walk}}
```
"""
FIGURE = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" width="90pt" height="60pt" viewBox="0 0 90 60">
<metadata><date>2026</date></metadata>
<path d="M 0 0 L 90 0 L 90 60 z" style="fill: #ffffff"/>
<path d="M 0 0 L 90 60" style="fill: none; stroke: #1f77b4"/>
<path d="M 0 0 L 9 6" style="fill: none; stroke: #000000"/>
</svg>
"""
BENCHMARK = {
    "benchmark": "vs_loop",
    "rows": [
        {"case": "fast", "ours_us": 1.0, "peer_us": 4.0, "ratio": 4.0, "bar": 2, "passed": True},
        {"case": "slow", "ours_us": 4.0, "peer_us": 1.0, "ratio": 0.25, "bar": 1, "passed": False},
        {"case": "free", "ours_us": 4.0, "peer_us": 1.0, "ratio": 0.25, "bar": 0, "passed": True},
    ],
    "environment": {"date": "2026-01-02", "cpu": "C", "threads": 1, "torch": "2"},
}
_NUMBERS = """
[[papers.published]]
check = "far: mean place"
number = "2.1 ± 0.1"
source = "Table 1"

[[papers.published]]
check = "far"
number = "9.9"
source = "Figure 2"
note = "read off"

[[papers.published]]
check = "elsewhere"
number = "7"
"""


def papers(count: int = 18) -> str:
    """A `papers.toml` of `count` papers; the first two have studies among the toys."""
    keys = ["walk", "line", *(f"paper-{i:02}" for i in range(3, count + 1))][:count]
    parts = []
    for i, key in enumerate(keys):
        parts.append(
            f'[[papers]]\nkey = "{key}"\ntitle = "On {key.capitalize()}"\nauthors = ["Ada A. One", "Bo Two"]\n'
            f'venue = "Venue {i}"\nyear = {2000 + i}\narxiv = "20{i:02}.00001"\ngroup = "group {i % 3}"\n'
            f'claim = "Claim number {i} holds."\n' + (_NUMBERS if key == "walk" else "")
        )
    return "\n".join(parts)


def record(**changes: Any) -> dict[str, Any]:
    """The record of the walk with other parts."""
    return copy.deepcopy(RECORD) | changes


def write(folder: Path, runs: Path | None = None) -> Sources:
    """The sources below `folder`."""
    results, pages = folder / "results", folder / "docs" / "papers"
    (results / "benchmarks").mkdir(parents=True)
    (pages / "figures").mkdir(parents=True)
    held = [dict(check, passed=True) for check in RECORD["checks"][:1]]
    (results / "walk.json").write_text(json.dumps(RECORD), encoding="utf-8")
    (results / "line.json").write_text(json.dumps(record(study="line", checks=held, seeds=[7])), encoding="utf-8")
    (results / "benchmarks" / "vs_loop.json").write_text(json.dumps(BENCHMARK), encoding="utf-8")
    (pages / "papers.toml").write_text(papers(), encoding="utf-8")
    (pages / "walk.md").write_text(PAGE, encoding="utf-8")
    (pages / "line.md").write_text("# A line\n\n## The claim\n\nIt is straight: [walk](walk.md).\n", encoding="utf-8")
    (pages.parent / "more.md").write_text("# More\n\n## Part\n\n[back](papers/walk.md#citation)\n", encoding="utf-8")
    (pages / "figures" / "walk.svg").write_text(FIGURE, encoding="utf-8")
    return Sources(results, pages, runs, "toys")
