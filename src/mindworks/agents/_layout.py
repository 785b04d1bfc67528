"""Where the nodes and edges of a drawing go: columns from left to right, few crossings, edges around the boxes.

The scheme of Sugiyama, Tagawa and Toda (1981): long edges pass through invisible stops in the columns between, and the
columns are ordered by the mean height of their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Pair = tuple[str, str]
Point = tuple[float, float]
Stop = str | tuple[Pair, int]

BOX, MARGIN = 30.0, 20.0
_GAP_X, _GAP_Y, _STOP, _SWEEPS, _PORTS = 110.0, 26.0, 14.0, 8, 20.0


@dataclass(frozen=True)
class Layout:
    """A drawing without its ink; y grows downwards."""

    places: dict[str, Point]
    """centre of every node"""
    routes: dict[Pair, list[tuple[Point, Point, Point, Point]]]
    """every edge as cubic curves, from its start to its end, where it arrives horizontally"""
    width: float
    height: float


def laid_out(
    nodes: Sequence[str], leading: Iterable[Pair], edges: Sequence[Pair], widths: Mapping[str, float], last: str
) -> Layout:
    """Place `nodes` so that the `leading` edges run to the right, first ones first where they contradict each other.

    `widths` are those of the boxes; the node `last` gets the column to the right of all.
    """
    column = _columns(nodes, leading, last)
    columns: list[list[Stop]] = [[] for _ in range(max(column.values()) + 1)]
    for node in nodes:
        columns[column[node]].append(node)
    chains = {pair: _chain(pair, column) for pair in edges if column[pair[0]] != column[pair[1]]}
    for chain in chains.values():
        for stop in chain[1:-1]:
            columns[column[chain[0]] + stop[1]].append(stop)  # type: ignore[index, operator]
    _uncross(columns, list(chains.values()))
    bent = [pair for pair in edges if pair not in chains]
    wide = [max([widths[stop] for stop in stops if isinstance(stop, str)], default=0.0) for stops in columns]
    left = [MARGIN + (_bend(bent, columns[0]) if any(_upwards(pair, columns[0]) for pair in bent) else 0.0)]
    for size in wide[:-1]:
        left.append(left[-1] + size + _GAP_X)
    height = max(sum(map(_tall, stops)) + _GAP_Y * (len(stops) - 1) for stops in columns) + 2 * MARGIN
    middle: dict[Stop, Point] = {}
    for stops, start, size in zip(columns, left, wide, strict=True):
        y = (height - sum(map(_tall, stops)) - _GAP_Y * (len(stops) - 1)) / 2
        for stop in stops:
            middle[stop] = (start + size / 2, y + _tall(stop) / 2)
            y += _tall(stop) + _GAP_Y
    reach = {
        stop: (widths[stop] if isinstance(stop, str) else size) / 2
        for stops, size in zip(columns, wide, strict=True)
        for stop in stops
    }
    routes = _routes(chains, middle, reach)
    for pair in bent:
        at = column[pair[0]]
        routes[pair] = [_arc(pair, middle, reach, left[at], wide[at], columns[at])]
    end = left[-1] + wide[-1] + MARGIN + (_bend(bent, columns[-1]) if bent else 0.0)
    return Layout({node: middle[node] for node in nodes}, {pair: routes[pair] for pair in edges}, end, height)


def _columns(nodes: Sequence[str], leading: Iterable[Pair], last: str) -> dict[str, int]:
    """Longest path to every node along the leading edges, without those that would close a cycle."""
    index = {node: number for number, node in enumerate(nodes)}
    reach = [1 << number for number in range(len(nodes))]
    kept: list[Pair] = []
    for start, end in leading:
        if not reach[index[end]] >> index[start] & 1:
            reach = [row | reach[index[end]] if row >> index[start] & 1 else row for row in reach]
            kept.append((start, end))
    column = dict.fromkeys(nodes, 0)
    for _ in nodes:
        for start, end in kept:
            column[end] = max(column[end], column[start] + 1)
    others = [value for node, value in column.items() if node != last]
    column[last] = max(others, default=-1) + 1
    return column


def _chain(pair: Pair, column: Mapping[str, int]) -> list[Stop]:
    """The stops of an edge from left to right, whichever way it points."""
    start, end = sorted(pair, key=column.__getitem__)
    return [start, *((pair, step) for step in range(1, column[end] - column[start])), end]


def _uncross(columns: list[list[Stop]], chains: Sequence[Sequence[Stop]]) -> None:
    neighbours: dict[bool, dict[Stop, list[Stop]]] = {True: {}, False: {}}
    for chain in chains:
        for left, right in pairwise(chain):
            neighbours[True].setdefault(right, []).append(left)
            neighbours[False].setdefault(left, []).append(right)
    for sweep in range(_SWEEPS):
        forwards = sweep % 2 == 0
        for stops in columns if forwards else columns[::-1]:
            rank = {stop: (number + 0.5) / len(other) for other in columns for number, stop in enumerate(other)}
            means = {
                stop: sum(rank[other] for other in near) / len(near) if near else rank[stop]
                for stop in stops
                for near in [neighbours[forwards].get(stop, [])]
            }
            stops.sort(key=means.__getitem__)


def _routes(
    chains: Mapping[Pair, Sequence[Stop]], middle: Mapping[Stop, Point], reach: Mapping[Stop, float]
) -> dict[Pair, list[tuple[Point, Point, Point, Point]]]:
    """Curves that are level at both ends; edges at one side of a box spread over it in the order of their far ends."""
    sides: dict[tuple[Stop, bool], list[Pair]] = {}
    for pair, chain in chains.items():
        sides.setdefault((chain[0], True), []).append(pair)
        sides.setdefault((chain[-1], False), []).append(pair)
    offset: dict[tuple[Pair, bool], float] = {}
    for (_, right), pairs in sides.items():
        pairs.sort(key=lambda pair: (middle[chains[pair][1 if right else -2]][1], chains[pair][0] != pair[0]))
        for number, pair in enumerate(pairs):
            offset[pair, right] = _PORTS * ((number + 0.5) / len(pairs) - 0.5)
    routes = {}
    for pair, chain in chains.items():
        curves = []
        for number, (one, two) in enumerate(pairwise(chain)):
            (x1, y1), (x2, y2) = middle[one], middle[two]
            y1 += offset[pair, True] if number == 0 else 0.0
            y2 += offset[pair, False] if number == len(chain) - 2 else 0.0
            a, b = x1 + reach[one], x2 - reach[two]
            if number:
                curves.append(_straight((x1 - reach[one], y1), (a, y1)))
            curves.append(((a, y1), ((a + b) / 2, y1), ((a + b) / 2, y2), (b, y2)))
        backwards = chain[0] != pair[0]
        routes[pair] = [(d, c, b, a) for a, b, c, d in reversed(curves)] if backwards else curves
    return routes


def _arc(
    pair: Pair,
    middle: Mapping[Stop, Point],
    reach: Mapping[Stop, float],
    left: float,
    wide: float,
    stops: Sequence[Stop],
) -> tuple[Point, Point, Point, Point]:
    """An edge inside a column: down at its right, up at its left, so that two that answer each other stay apart."""
    (x, y1), (_, y2) = middle[pair[0]], middle[pair[1]]
    up = _upwards(pair, stops)
    side, wall = (-1, left) if up else (1, left + wide)
    turn = wall + side * _bend([pair], stops) * 4 / 3
    y1, y2 = (y1 - 5, y2 + 5) if up else (y1 + 5, y2 - 5)
    return (x + side * reach[pair[0]], y1), (turn, y1), (turn, y2), (x + side * reach[pair[1]], y2)


def _upwards(pair: Pair, stops: Sequence[Stop]) -> bool:
    return pair[0] in stops and pair[1] in stops and stops.index(pair[1]) < stops.index(pair[0])


def _bend(pairs: Iterable[Pair], stops: Sequence[Stop]) -> float:
    """How far arcs inside a column reach out of it: further the more boxes they pass."""
    spans = [abs(stops.index(a) - stops.index(b)) for a, b in pairs if a in stops and b in stops]
    return min(16.0 + 12.0 * max(spans, default=0), 80.0)


def _straight(a: Point, b: Point) -> tuple[Point, Point, Point, Point]:
    third = (b[0] - a[0]) / 3
    return a, (a[0] + third, a[1]), (b[0] - third, b[1]), b


def _tall(stop: Stop) -> float:
    return BOX if isinstance(stop, str) else _STOP
