"""Figures of matplotlib as SVG that reads on a light and on a dark page."""

from __future__ import annotations

import re

# The colours of matplotlib's cycle and of Okabe and Ito, and what each becomes on a dark page.
DARK = {
    "#000000": "#e4e4e1",
    "#1f77b4": "#5aa7e0",
    "#ff7f0e": "#ff9d45",
    "#2ca02c": "#5cc45c",
    "#d62728": "#ff7370",
    "#9467bd": "#b795dd",
    "#8c564b": "#c4978c",
    "#e377c2": "#f09ed6",
    "#7f7f7f": "#a9a9a9",
    "#bcbd22": "#cccd45",
    "#17becf": "#45d3e2",
    "#0072b2": "#4fa8dc",
    "#d55e00": "#f58a3c",
    "#009e73": "#33c79c",
    "#b0b0b0": "#4a4f57",
    "#cccccc": "#4a4f57",
    "#808080": "#a0a0a0",
    "#333333": "#d0d0cd",
    "#555555": "#b5b5b1",
    "#666666": "#aaaaa6",
}
PAPER = "#15171b"
_TOKEN = re.compile(r"#[0-9a-f]{6}\b")
_STYLE = re.compile(r'style="([^"]*)"')


def themed(svg: str) -> str:
    """`svg` without a background, and with ink and colours that follow `prefers-color-scheme`.

    Images inside, such as heat maps, keep their colours, and so do white lines drawn over them.
    """
    svg = re.sub(r"<\?xml[^>]*\?>\s*|<!DOCTYPE[^>]*>\s*|<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r"<script\b.*?</script>", "", svg, flags=re.S)
    used: set[str] = set()

    def restyle(match: re.Match[str]) -> str:
        style = match[1]
        if re.search(r"fill: #ffffff; opacity", style):
            style = style.replace("fill: #ffffff", "fill: var(--paper)")
        elif "fill: #ffffff" in style and "stroke: #" not in style:
            style = style.replace("fill: #ffffff", "fill: none")
        used.update(colour for colour in _TOKEN.findall(style) if colour in DARK)
        return f'style="{_TOKEN.sub(_variable, style)}"'

    svg = _STYLE.sub(restyle, svg)
    return re.sub(r"(<svg\b[^>]*>)", lambda match: match[1] + _theme(used | {"#000000"}), svg, count=1)


def _variable(match: re.Match[str]) -> str:
    colour = match[0]
    return f"var(--c{colour[1:]})" if colour in DARK else colour


def _theme(colours: set[str]) -> str:
    light = ";".join(f"--c{colour[1:]}:{colour}" for colour in sorted(colours))
    dark = ";".join(f"--c{colour[1:]}:{DARK[colour]}" for colour in sorted(colours))
    return (
        f"<style>svg{{color-scheme:light dark;fill:var(--c000000);--paper:#ffffff;{light}}}"
        f"@media(prefers-color-scheme:dark){{svg{{--paper:{PAPER};{dark}}}}}</style>"
    )
