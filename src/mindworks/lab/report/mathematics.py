"""LaTeX as MathML, so that formulas need neither fonts nor scripts from elsewhere."""

from __future__ import annotations

import html
import re
from functools import cache

# What the converter lacks or draws with another sign.
_NAMED = re.compile(r"<mi>(arg|det|exp|log|max|min|sin|sinh|tanh)</mi>")
_SPELT = (
    (re.compile(r"\\arg(?![a-zA-Z])"), r"\\operatorname{arg}"),
    (re.compile(r"\\mathrm\{([A-Za-z]+)\}"), r"\\text{\1}"),
)


@cache
def mathml(tex: str, block: bool) -> str:
    """`tex` as MathML; its source as code where the converter refuses it."""
    from latex2mathml.converter import convert

    spelt = tex
    for pattern, better in _SPELT:
        spelt = pattern.sub(better, spelt)
    try:
        found = convert(spelt, display="block" if block else "inline")
    except Exception:  # the converter raises many kinds of its own
        return f"<code>{html.escape(tex)}</code>"
    if re.search(r">\s*\\[A-Za-z]", found):
        return f"<code>{html.escape(tex)}</code>"
    found = _NAMED.sub(r'<mo lspace="0.17em" rspace="0.17em">\1</mo>', found)
    return found.replace("&#x0007E;", "&#x0223C;")
