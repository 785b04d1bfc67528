"""Pictures of graphs: text for Mermaid, and SVG that needs nothing else; both can show how probable each edge is."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Protocol
from unicodedata import east_asian_width

from mindworks.agents._layout import BOX, MARGIN, Layout, Pair, Point, laid_out
from mindworks.errors import require

_GLYPH, _LONGEST, _PALE, _DARK = 7.6, 30, (196, 205, 214), (16, 62, 110)
_TRIES = (0.3, 0.4, 0.5, 0.2, 0.6, 0.7, 0.8)


class Drawable(Protocol):
    """What can be drawn: a `Graph`, a `Swarm`, or anything with these three."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the nodes; `agent/node` is a node of `agent`."""
        ...

    @property
    def edges(self) -> tuple[Pair, ...]:
        """Pairs (from, to) of names."""
        ...

    @property
    def output(self) -> str:
        """Name of the node that answers."""
        ...


def to_mermaid(graph: Drawable, probabilities: Mapping[Pair, float] | None = None, least: float = 0.0) -> str:
    """Return `graph` as a Mermaid flowchart.

    `probabilities` by edge stand on the edges; those up to one half are dotted, those below `least` left out. Edges
    without one are certain. Nodes of one agent share a box, and the output is round. Raises `InputError` for a
    probability outside [0, 1] or of an edge that the graph does not have.
    """
    shown = _shown(graph, probabilities, least)
    names = {path: f"n{index}" for index, path in enumerate(graph.paths)}
    boxes: dict[str, list[str]] = {}
    for path in graph.paths:
        boxes.setdefault(path.rpartition("/")[0], []).append(path)
    lines = ["flowchart LR"]
    for number, (box, members) in enumerate(boxes.items()):
        lines += [f'  subgraph g{number}["{_entities(box)}"]'] if box else []
        for path in members:
            label = f'["{_entities(path.rpartition("/")[2])}"]'
            lines.append(f"    {names[path]}({label})" if path == graph.output else f"    {names[path]}{label}")
        lines += ["  end"] if box else []
    for (start, end), p in shown.items():
        arrow = "-->" if p is None or p > 0.5 else "-.->"
        label = "" if p is None else f'|"{p:.2f}"|'
        lines.append(f"  {names[start]} {arrow}{label} {names[end]}")
    return "\n".join(lines) + "\n"


def to_svg(
    graph: Drawable, probabilities: Mapping[Pair, float] | None = None, least: float = 0.0, title: str = ""
) -> str:
    """Return `graph` as a picture in SVG on a white ground, its output at the right.

    `probabilities` by edge are written on the edges and set their width and darkness; those up to one half are dashed,
    those below `least` left out. Edges without one are certain. Raises `InputError` as `to_mermaid` does.
    """
    shown = _shown(graph, probabilities, least)
    widths = {path: 22 + _GLYPH * _width(_short(path)) for path in graph.paths}
    likely = [pair for pair, p in shown.items() if p is None or p > 0.5]
    likely.sort(key=lambda pair: -_certainty(shown[pair]))
    layout = laid_out(graph.paths, likely, tuple(shown), widths, graph.output)
    top = 30.0 if title else 0.0
    width = max(layout.width, 2 * MARGIN + 9 * _width(title))
    parts = [opening(-top, width, layout.height + top, 13)]
    parts.append(f'<rect y="{-top:.0f}" width="100%" height="100%" fill="white"/>')
    if title:
        parts.append(f'<text x="{MARGIN:.0f}" y="-6" font-size="15" font-weight="bold">{escaped(title)}</text>')
    faint_first = sorted(shown.items(), key=lambda item: _certainty(item[1]))
    parts += [_edge(layout, pair, p) for pair, p in faint_first]
    parts += _labels(layout, shown)
    parts += [_node(path, layout.places[path], widths[path], path == graph.output) for path in graph.paths]
    return "\n".join([*parts, "</svg>"]) + "\n"


def opening(top: float, width: float, height: float, font: int) -> str:
    """Return the start of an SVG from (0, `top`) on, in pixels."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {top:.0f} {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="{font}">'
    )


def escaped(text: str) -> str:
    """Return `text` for the inside of an XML element or attribute; characters that XML cannot hold become blanks."""
    return escape("".join(char if char.isprintable() else " " for char in text))


def _shown(graph: Drawable, probabilities: Mapping[Pair, float] | None, least: float) -> dict[Pair, float | None]:
    """The edges to draw, with their probabilities; None for a certain one."""
    require(0 <= least <= 1, f"least must be in [0, 1], got {least}")
    given = {} if probabilities is None else dict(probabilities)
    known = set(graph.edges)
    for pair, p in given.items():
        require(pair in known, f"probabilities must be of edges of the graph, got one of {pair}")
        require(0 <= p <= 1, f"probabilities must be in [0, 1], got {p} of {pair}")
    shown = {pair: None if pair not in given else float(given[pair]) for pair in graph.edges}
    return {pair: p for pair, p in shown.items() if _certainty(p) >= least}


def _certainty(p: float | None) -> float:
    return 1.5 if p is None else p


def _entities(text: str) -> str:
    """Text for a Mermaid label: whatever could mean something to Mermaid stands as the number of its character."""
    return "".join(char if char.isalnum() or char in " _-." else f"#{ord(char)};" for char in text)


def _short(path: str) -> str:
    kept = ""
    for char in path:
        if _width(kept + char) > _LONGEST - 1:
            return f"{kept}…"
        kept += char
    return kept


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def _edge(layout: Layout, pair: Pair, p: float | None) -> str:
    sure = 1.0 if p is None else p
    red, green, blue = (round(pale + (dark - pale) * sure) for pale, dark in zip(_PALE, _DARK, strict=True))
    color = f"rgb({red},{green},{blue})"
    curves = layout.routes[pair]
    (x, y), before = curves[-1][3], curves[-1][2]
    back = 8.0 if before[0] < x else -8.0
    # the line ends inside its head, which would look blunt at the tip
    curves = [*curves[:-1], (*curves[-1][:3], (x - back * 0.8, y))]
    path = "M{:.1f},{:.1f}".format(*curves[0][0])
    path += "".join(" C" + " ".join(f"{a:.1f},{b:.1f}" for a, b in curve[1:]) for curve in curves)
    dashes = ' stroke-dasharray="5 4"' if p is not None and p <= 0.5 else ""
    told = f"{pair[0]} → {pair[1]}" + ("" if p is None else f": {p:.3f}")
    return (
        f"<g><title>{escaped(told)}</title>"
        f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{0.9 + 1.3 * sure:.2f}"{dashes}/>'
        f'<path d="M{x:.1f},{y:.1f} l{-back:.1f},-4 v8 z" fill="{color}"/></g>'
    )


def _labels(layout: Layout, shown: Mapping[Pair, float | None]) -> list[str]:
    """The numbers, each on its edge where no other number stands yet, if there is such a place."""
    parts, taken = [], list(layout.places.values())
    for pair, p in shown.items():
        if p is None:
            continue
        curves = layout.routes[pair]
        spots = [_on(curve, t) for t in _TRIES for curve in (curves[0], curves[-1])]
        x, y = next((spot for spot in spots if all(_apart(spot, other) for other in taken)), spots[0])
        taken.append((x, y))
        parts.append(
            f'<text x="{x:.1f}" y="{y + 3.5:.1f}" font-size="10.5" text-anchor="middle" fill="#222" stroke="white" '
            f'stroke-width="3.5" stroke-linejoin="round" paint-order="stroke">{p:.2f}</text>'
        )
    return parts


def _on(curve: tuple[Point, Point, Point, Point], t: float) -> Point:
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    x, y = (sum(w * point[axis] for w, point in zip(weights, curve, strict=True)) for axis in (0, 1))
    return x, y


def _apart(one: Point, two: Point) -> bool:
    return abs(one[0] - two[0]) > 26 or abs(one[1] - two[1]) > 11


def _node(path: str, place: Point, width: float, output: bool) -> str:
    x, y = place
    look = f'rx="{BOX / 2:.0f}" fill="#fdf3dc" stroke="#8a5a00"' if output else 'rx="4" fill="#f3f6fa" stroke="#44566b"'
    return (
        f"<g><title>{escaped(path)}</title>"
        f'<rect x="{x - width / 2:.1f}" y="{y - BOX / 2:.1f}" width="{width:.1f}" height="{BOX:.0f}" {look}/>'
        f'<text x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle">{escaped(_short(path))}</text></g>'
    )
