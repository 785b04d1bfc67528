"""Write the tables of `benchmarks/README.md` from `results/benchmarks`. Run: `python benchmarks/tables.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import _bench

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- tables:begin -->", "<!-- tables:end -->"


def ratios(record: dict[str, Any]) -> list[str]:
    """Rows of a speed benchmark: microseconds of either side, their ratio, the bar."""
    lines = ["| case | ours, µs | peer, µs | ratio | bar |", "|---|---:|---:|---:|---:|"]
    for row in record["rows"]:
        case = row["case"]
        if "ours_bytes" in row:
            sizes = (f"{row[key] / 1e6:.0f} MB" for key in ("ours_bytes", "peer_bytes", "bytes_bar"))
            case += " (stored: ours {}, peer {}, bar {})".format(*sizes)
        bar = f"{row['bar']:g}" if row["bar"] else "–"
        bar += "" if row["passed"] else ", missed"
        lines.append(f"| {case} | {row['ours_us']:.2f} | {row['peer_us']:.2f} | {row['ratio']:.2f} | {bar} |")
    return lines


def curves(record: dict[str, Any]) -> list[str]:
    """Rows of the learning benchmark: interquartile means over seeds with 95 % bootstrap intervals."""
    head = "| task | method | final return | mean return over the budget | CPU µs per step | setting |"
    lines = [head, "|---|---|---:|---:|---:|---|"]
    for task, runs in record["runs"].items():
        for method, run in sorted(runs.items()):
            final, whole = (
                f"{run[key]['iqm']:.0f} [{run[key]['low']:.0f}, {run[key]['high']:.0f}]" for key in ("final", "area")
            )
            setting = ", ".join(f"{k} {v}" for k, v in run["setting"].items() if k != "source")
            cpu = f"{run['cpu_us_per_step']:.0f}"
            if "cpu_us_per_step_one_seed" in run:
                cpu += f" (one seed alone {run['cpu_us_per_step_one_seed']:.0f})"
            lines.append(f"| {task} | {method} | {final} | {whole} | {cpu} | {setting} |")
    return lines


def plain(record: dict[str, Any]) -> list[str]:
    """Rows of any other benchmark: its own columns."""
    columns = record["columns"]
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in record["cells"]]


def tables() -> str:
    """All records as Markdown, in the order of their names."""
    parts = []
    for path in sorted(_bench.RESULTS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        where = record["environment"]
        made = f"{where['date']}, {where['cpu']}, {where['threads']} thread, torch {where['torch']}"
        draw = ratios if "rows" in record else curves if "runs" in record else plain
        body = draw(record)
        parts += [f"### {record['benchmark']}", "", f"{made}.", "", *body, ""]
    return "\n".join(parts)


def main() -> int:
    """Replace what stands between the markers."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{tables()}{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
