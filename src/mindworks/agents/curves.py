"""Learning curves as SVG that needs nothing else: lines, with the range of several runs behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import cast

from mindworks.agents.drawing import escaped, opening
from mindworks.errors import require

Curve = Sequence[float] | Sequence[Sequence[float]]
Rows = list[list[float]]

# Okabe and Ito's colours, which people with colour blindness tell apart
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("", ' stroke-dasharray="7 4"', ' stroke-dasharray="2 3"')
_LEFT, _TOP, _WIDE, _TALL, _BELOW = 62.0, 40.0, 440.0, 250.0, 50.0


@dataclass(frozen=True)
class _Axes:
    steps: int
    ticks: list[float]

    def x(self, step: float) -> float:
        # a curve of one step is a point in the middle
        return _LEFT + _WIDE * ((step - 1) / (self.steps - 1) if self.steps > 1 else 0.5)

    def y(self, value: float) -> float:
        return _TOP + _TALL * (self.ticks[-1] - value) / (self.ticks[-1] - self.ticks[0])

    def point(self, step: int, value: float) -> str:
        return f"{self.x(step):.1f},{self.y(value):.1f}"


def curves_svg(curves: Mapping[str, Curve], title: str = "", x_label: str = "step", y_label: str = "utility") -> str:
    """Return the picture of `curves` by name, each of the values of steps 1, 2, ... or of several runs of them.

    Of several runs the line is the mean and the band reaches from the least to the largest value. What is not finite
    leaves a gap. Raises `InputError` where there is no curve, no finite value, or runs of different lengths.
    """
    require(len(curves) > 0, "curves must hold at least one, got none")
    runs = {name: _rows(name, curve) for name, curve in curves.items()}
    values = [value for rows in runs.values() for row in rows for value in row if isfinite(value)]
    require(len(values) > 0, f"curves must hold a finite value, got none in {', '.join(map(repr, curves))}")
    axes = _Axes(max(len(rows[0]) for rows in runs.values()), _ticks(min(values), max(values)))
    width, height = _LEFT + _WIDE + 60 + 7.4 * max(map(len, runs)), _TOP + _TALL + _BELOW
    x, y = _LEFT + _WIDE / 2, -_TOP - _TALL / 2
    parts = [
        opening(0, width, height, 12),
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT:.0f}" y="24" font-size="15" font-weight="bold">{escaped(title)}</text>',
        f'<text x="{x:.0f}" y="{height - 10:.0f}" text-anchor="middle">{escaped(x_label)}</text>',
        f'<text transform="rotate(-90)" x="{y:.0f}" y="16" text-anchor="middle">{escaped(y_label)}</text>',
        *_grid(axes),
    ]
    for number, (name, rows) in enumerate(runs.items()):
        stroke = f'stroke="{_COLORS[number % len(_COLORS)]}"{_DASHES[number // len(_COLORS) % len(_DASHES)]}'
        parts += [_band(axes, rows, _COLORS[number % len(_COLORS)]) if len(rows) > 1 else "", _line(axes, rows, stroke)]
        x, y = _LEFT + _WIDE + 10, _TOP + 12 + 18 * number
        parts.append(f'<path d="M{x:.0f},{y - 4:.0f} h24" stroke-width="2" {stroke}/>')
        parts.append(f'<text x="{x + 30:.0f}" y="{y:.0f}">{escaped(name)}</text>')
    return "\n".join([*filter(None, parts), "</svg>"]) + "\n"


def _rows(name: str, curve: Curve) -> Rows:
    several = len(curve) > 0 and hasattr(curve[0], "__len__")
    many = cast("Sequence[Sequence[float]]", curve if several else [curve])
    rows = [[float(value) for value in row] for row in many]
    lengths = sorted({len(row) for row in rows})
    require(len(lengths) == 1 and lengths[0] > 0, f"runs of curve {name!r} must have one length, got {lengths}")
    return rows


def _ticks(low: float, high: float) -> list[float]:
    """Three to a dozen round numbers from below a range to above it; a single value stands between them."""
    if high == low:
        pad = abs(low) / 2 or 0.5
        low, high = low - pad, high + pad
    span = high - low
    step = 10.0 ** floor(log10(span))
    step *= next(size for size in (1.0, 0.5, 0.2, 0.1) if span / (step * size) >= 3)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(step * number, 12) for number in range(first, max(last, first + 1) + 1)]


def _grid(axes: _Axes) -> list[str]:
    parts = []
    for tick in axes.ticks:
        y = axes.y(tick)
        parts.append(f'<path d="M{_LEFT:.0f},{y:.1f} h{_WIDE:.0f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 7:.0f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    bottom = _TOP + _TALL
    whole = {max(int(tick), 1) for tick in _ticks(1, axes.steps) if tick == int(tick) and 0 <= tick <= axes.steps}
    for step in sorted(whole):
        x = axes.x(step)
        parts.append(f'<path d="M{x:.1f},{bottom:.0f} v4" stroke="#444444"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17:.0f}" text-anchor="middle">{step}</text>')
    parts.append(f'<path d="M{_LEFT:.0f},{_TOP:.0f} v{_TALL:.0f} h{_WIDE:.0f}" fill="none" stroke="#444444"/>')
    return parts


def _line(axes: _Axes, rows: Rows, stroke: str) -> str:
    means = [sum(step) / len(step) for step in zip(*rows, strict=True)]
    pieces = [[axes.point(step, means[step - 1]) for step in piece] for piece in _pieces(means)]
    # a step alone between gaps is a short dash: a line of no length is not seen
    path = " ".join("M" + " L".join(piece) if len(piece) > 1 else f"M{piece[0]} h3 h-6" for piece in pieces)
    return f'<path d="{path}" fill="none" stroke-width="2" stroke-linejoin="round" {stroke}/>'


def _band(axes: _Axes, rows: Rows, color: str) -> str:
    steps = list(zip(*rows, strict=True))
    path = ""
    for piece in _pieces([sum(step) for step in steps]):
        above = [axes.point(step, max(steps[step - 1])) for step in piece]
        below = [axes.point(step, min(steps[step - 1])) for step in reversed(piece)]
        path += "M" + " L".join([*above, *below]) + " z "
    return f'<path d="{path.strip()}" fill="{color}" fill-opacity="0.15"/>'


def _pieces(values: Sequence[float]) -> list[list[int]]:
    """Runs of neighbouring steps, counted from 1, whose values are finite."""
    pieces: list[list[int]] = []
    for step, value in enumerate(values, 1):
        if isfinite(value):
            if not pieces or pieces[-1][-1] != step - 1:
                pieces.append([])
            pieces[-1].append(step)
    return pieces
