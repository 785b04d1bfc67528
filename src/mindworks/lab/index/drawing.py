"""The curves of two runs as a figure: a panel per curve, both runs on one pair of axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mindworks.lab.index.curves import Curve, Name, common_axis, course

KINDS = (".pdf", ".png", ".svg")
_COLORS = ("#0072b2", "#d55e00")
_STYLES, _SIZES = ("-", "--"), (7, 4)  # where the runs agree, A is seen below B
_PLACES = 256


def draw(pairs: Mapping[Name, tuple[Curve, Curve]], labels: tuple[str, str], path: Path) -> None:
    """Write the figure: each seed as a thin line, the interquartile mean over seeds as a thick one."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = Figure(figsize=(4.2 * columns, 0.5 + 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, (name, curves) in zip(panels, pairs.items(), strict=False):
        _panel(panel, curves)
        panel.set_title(_plain(str(name)), fontsize=9)
    for panel in panels[len(pairs) :]:
        panel.set_axis_off()
    lines = [
        figure.axes[0].plot([], [], color=color, ls=style)[0] for color, style in zip(_COLORS, _STYLES, strict=True)
    ]
    figure.legend(
        lines, [_plain(f"{side}  {label}") for side, label in zip("AB", labels, strict=True)], loc="outside upper left"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "mindworks"}):  # the same runs give the same file
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(panel: Any, curves: tuple[Curve, Curve]) -> None:
    axis = common_axis(curves)
    for curve, color, style, size in zip(curves, _COLORS, _STYLES, _SIZES, strict=True):
        tracks = curve.drawn(axis)
        alone = len(tracks) == 1
        for xs, ys in tracks:
            mark = "o" if len(xs) == 1 else None
            look = {"lw": 1.4, "ls": style} if alone else {"lw": 0.6, "alpha": 0.35}
            panel.plot(xs, ys, color=color, marker=mark, ms=size, **look)
        if not alone:
            places = _places([xs for xs, _ in tracks])
            middle = [math.nan if value is None else value for value in course(tracks, places)]
            panel.plot(places, middle, color=color, marker="_" if len(places) == 1 else None, ms=14, lw=1.8, ls=style)
    panel.set_xlabel(axis or "line", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.25)


def _places(lines: Sequence[Sequence[float]]) -> list[float]:
    """All places of the lines where they are few, else some of them, the last included."""
    places = sorted({place for xs in lines for place in xs})
    stride = -(-len(places) // _PLACES)
    return sorted({*places[::stride], places[-1]})


def _plain(text: str) -> str:
    """A text that is not taken for a formula."""
    return text.replace("$", r"\$")
