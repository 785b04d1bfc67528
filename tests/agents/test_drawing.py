"""Pictures hold every node and every edge that is to be shown, and no text gets out of its place."""

from __future__ import annotations

import re
from itertools import pairwise
from math import inf, nan
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents import Graph, MajorityVote, Node, Swarm, curves_svg, to_mermaid, to_svg
from mindworks.agents._layout import BOX, laid_out
from mindworks.errors import InputError

SVG = "{http://www.w3.org/2000/svg}"


async def silent(task: Any, messages: Any) -> str:
    return ""


def nodes(*names: str) -> list[Node]:
    return [Node(name, silent) for name in names]


GRAPH = Graph("g", [*nodes("a", "b"), Graph("in", nodes("x", "y"), [("x", "y")], "y")], [("a", "b"), ("in", "b")], "b")


def titles(svg: str) -> list[str]:
    return [title.text or "" for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_mermaid_by_hand() -> None:
    assert to_mermaid(GRAPH, {("a", "b"): 0.5, ("in/y", "b"): 0.876}) == (
        'flowchart LR\n    n0["a"]\n    n1(["b"])\n  subgraph g1["in"]\n    n2["x"]\n    n3["y"]\n  end\n'
        '  n0 -.->|"0.50"| n1\n  n2 --> n3\n  n3 -->|"0.88"| n1\n'
    )


def test_a_name_means_nothing_to_mermaid() -> None:
    name = 'end"]; x["<b>#quot;`|'
    line = to_mermaid(Graph("g", nodes(name), [], name)).splitlines()[1]
    label = re.fullmatch(r'    n0\(\["(.*)"\]\)', line)
    assert label is not None
    assert re.fullmatch(r"(?:[\w .-]|#\d+;)*", label[1])
    assert re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label[1]) == name


def test_svg_holds_every_node_and_edge() -> None:
    svg = to_svg(GRAPH, {("a", "b"): 0.25}, title="One & two <three>")
    assert sorted(titles(svg)) == sorted(["a", "b", "in/x", "in/y", "a → b: 0.250", "in/x → in/y", "in/y → b"])
    assert texts(svg)[0] == "One & two <three>"
    assert "0.25" in texts(svg)
    assert svg.count("stroke-dasharray") == 1
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert svg == to_svg(GRAPH, {("a", "b"): 0.25}, title="One & two <three>")


def test_improbable_edges_are_left_out() -> None:
    swarm = Swarm(nodes("a", "b"), MajorityVote())
    values = swarm.by_edge([0.9, 0.2, 1.0, 0.05])
    assert set(titles(to_svg(swarm, values, 0.1))) - {"a", "b", "decision"} == {
        "a → b: 0.900",
        "b → a: 0.200",
        "a → decision: 1.000",
    }
    assert to_mermaid(swarm, values, 0.1).count("->") == 3
    assert to_mermaid(swarm, values).count("->") == 4


def test_a_hostile_name_stays_text() -> None:
    name = '</text><script>alert("x")</script>&'
    svg = to_svg(Graph("g", nodes(name), [], name), title="\x00\x1b]")
    assert name in titles(svg)
    assert not list(ElementTree.fromstring(svg).iter(f"{SVG}script"))
    assert all(len(text) <= 30 for text in texts(svg))


@pytest.mark.parametrize(
    ("values", "least", "message"),
    [
        ({("b", "a"): 0.5}, 0.0, "probabilities must be of edges of the graph, got one of ('b', 'a')"),
        ({("a", "b"): 1.5}, 0.0, "probabilities must be in [0, 1], got 1.5 of ('a', 'b')"),
        ({("a", "b"): nan}, 0.0, "probabilities must be in [0, 1], got nan of ('a', 'b')"),
        ({}, 2.0, "least must be in [0, 1], got 2.0"),
    ],
)
def test_bad_probabilities_are_refused(values: dict[tuple[str, str], float], least: float, message: str) -> None:
    for draw in (to_mermaid, to_svg):
        with pytest.raises(InputError, match=re.escape(message)):
            draw(GRAPH, values, least)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_layout_keeps_its_promises(data: st.DataObject) -> None:
    names = [f"n{index}" for index in range(data.draw(st.integers(1, 6)))] + ["out"]
    pairs = [(a, b) for a in names for b in names if a != b and a != "out"]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=18)) if pairs else []
    leading = edges[: data.draw(st.integers(0, len(edges)))]
    widths = {name: data.draw(st.sampled_from([40.0, 90.0])) for name in names}
    layout = laid_out(names, leading, edges, widths, "out")
    boxes = {name: (*layout.places[name], widths[name]) for name in names}
    for one in names:
        x, y, width = boxes[one]
        assert width / 2 <= x <= layout.width - width / 2
        assert BOX / 2 <= y <= layout.height - BOX / 2
        assert x <= boxes["out"][0]
        for other in names:
            u, v, wide = boxes[other]
            assert one == other or abs(x - u) >= (width + wide) / 2 or abs(y - v) >= BOX
    assert list(layout.routes) == edges
    for (start, end), curves in layout.routes.items():
        first, final = curves[0][0], curves[-1][3]
        assert abs(abs(first[0] - boxes[start][0]) - widths[start] / 2) < 1e-9
        assert abs(abs(final[0] - boxes[end][0]) - widths[end] / 2) < 1e-9
        assert max(abs(first[1] - boxes[start][1]), abs(final[1] - boxes[end][1])) < BOX / 2
        assert all(before[3] == after[0] for before, after in pairwise(curves))
        assert curves[-1][2][1] == final[1]  # level where the arrow's head is
        for x, y in (_point(curve, t) for curve in curves for t in np.linspace(0, 1, 9)):
            assert -1e-9 <= x <= layout.width + 1e-9
            for name, (u, v, width) in boxes.items():
                inside = abs(x - u) < width / 2 - 1e-6 and abs(y - v) < BOX / 2 - 1e-6
                assert not inside, f"the edge {start} -> {end} crosses {name}"


def _point(curve: Any, t: float) -> Any:
    a, b, c, d = np.array(curve)
    return (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t * t * (1 - t) * c + t**3 * d


def paths(svg: str, name: str) -> list[list[tuple[float, float]]]:
    """The pieces of the line of curve `name`: the last path of its colour before the one beside its name."""
    found = [path.attrib for path in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    lines = [path["d"] for path in found if path.get("stroke-width") == "2" and " h24" not in path["d"]]
    keys = [text for text in texts(svg) if text in ("up", "gap", "runs", "one")]
    pieces = [piece for piece in lines[keys.index(name)].split("M") if piece]
    return [[tuple(map(float, xy.split(","))) for xy in re.findall(r"[\d.]+,[\d.]+", piece)] for piece in pieces]


def test_curves_are_drawn_to_scale() -> None:
    svg = curves_svg({"up": [0.0, 0.5, 1.0], "gap": [1.0, nan, inf, 0.0]}, "T & t")
    ((first, second, third),) = paths(svg, "up")
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2)
    assert first[1] - second[1] == pytest.approx(second[1] - third[1], abs=0.2)
    assert first[1] - third[1] == pytest.approx(250, abs=0.2)
    assert [len(piece) for piece in paths(svg, "gap")] == [1, 1]
    assert [piece[0][0] for piece in paths(svg, "gap")] == [first[0], 502.0]
    assert first[0] == 62.0
    assert paths(svg, "gap")[1][0][1] == first[1]
    assert {"T & t", "step", "utility", "0", "1"} <= set(texts(svg))


def test_of_several_runs_the_mean_is_the_line_and_the_range_the_band() -> None:
    for rows in ([[0.0, 1.0], [1.0, 1.0]], np.array([[0.0, 1.0], [1.0, 1.0]])):
        svg = curves_svg({"runs": rows, "one": [0.5, 1.0]})
        assert paths(svg, "runs") == paths(svg, "one")
        band = next(p.attrib["d"] for p in ElementTree.fromstring(svg).iter(f"{SVG}path") if "fill-opacity" in p.attrib)
        heights = [float(xy.split(",")[1]) for xy in re.findall(r"[\d.]+,[\d.]+", band)]
        assert heights == [40.0, 40.0, 40.0, 290.0]


@pytest.mark.parametrize("value", [3.0, 0.0, -2e-7, 5e8])
def test_a_single_value_stands_inside_the_picture(value: float) -> None:
    (((x, y),),) = paths(curves_svg({"one": [value]}), "one")
    assert 62 < x < 502
    assert 40 < y < 290


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "curves must hold at least one, got none"),
        ({"a": [nan]}, "curves must hold a finite value, got none in 'a'"),
        ({"a": []}, "runs of curve 'a' must have one length, got [0]"),
        ({"a": [[1.0], [1.0, 2.0]]}, "runs of curve 'a' must have one length, got [1, 2]"),
    ],
)
def test_bad_curves_are_refused(curves: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        curves_svg(curves)
