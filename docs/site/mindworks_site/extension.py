"""What the site adds to Sphinx: docstrings as plain prose, formulas as MathML, names as users write them."""

from __future__ import annotations

import inspect
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import ObjectEntry
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

from mindworks.lab.report.mathematics import mathml
from mindworks_site.prose import to_rst

logger = logging.getLogger(__name__)
ALIASES = "aliases.json"


def _formula(node: nodes.Element, block: bool) -> str:
    found = mathml(node.astext(), block)
    if not found.startswith("<math"):
        logger.warning("a formula that does not become MathML: %s", node.astext(), location=node)
    return found


def _inline_math(self: Any, node: nodes.math) -> None:
    self.body.append(_formula(node, block=False))
    raise nodes.SkipNode


def _block_math(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{_formula(node, block=True)}</div>\n')
    raise nodes.SkipNode


def _docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Plain prose to reStructuredText; a docstring that another library wrote for its own method is left out."""
    lines[:] = [] if _foreign(what, value) else to_rst("\n".join(lines)).splitlines()
    lines.append("")


def _foreign(what: str, value: Any) -> bool:
    return what in ("method", "property") and not getattr(inspect.unwrap(_function(value)), "__doc__", None)


def _function(value: Any) -> Any:
    return value.fget if isinstance(value, property) else getattr(value, "__func__", value)


def _bases(app: Sphinx, name: str, value: Any, options: Any, bases: list[Any]) -> None:
    bases[:] = [base for base in bases if base is not object]


def _in_scope(app: Sphinx, doctree: nodes.document) -> None:
    """Names are looked up where they stand, by `_look_up`, and never as the end of any name at all.

    Every entry can be linked to by the name of the place where it is written, too.
    """
    for node in doctree.findall(addnodes.pending_xref):
        if node.get("refdomain") == "py":
            node.attributes.pop("refspecific", None)
    for entry in doctree.findall(addnodes.desc_signature):
        others = [other for name in entry["ids"] for other in _others(app, name)]
        entry["ids"] += [name for name in dict.fromkeys(others) if name not in entry["ids"]]


def _others(app: Sphinx, name: str) -> list[str]:
    """The other names of a symbol, or of a member of one."""
    parts = name.split(".")
    known = _aliases(str(app.srcdir))
    return [
        ".".join([other, *parts[length:]])
        for length in range(len(parts), 1, -1)
        for other in known.get(".".join(parts[:length]), ())
    ]


@cache
def _aliases(folder: str) -> dict[str, list[str]]:
    return json.loads((Path(folder) / ALIASES).read_text(encoding="utf-8"))


def _alias(app: Sphinx, env: BuildEnvironment) -> None:
    """Every symbol is found by its other names; the pages of source link back by that of the file they show."""
    objects = env.domains.python_domain.objects
    for name, entry in list(objects.items()):
        for other in _others(app, name):
            objects.setdefault(other, ObjectEntry(entry.docname, entry.node_id, entry.objtype, True))
    shown = getattr(env, "_viewcode_modules", {})
    shown.update({module: (*entry[:3], module) for module, entry in shown.items() if entry})


def _look_up(app: Sphinx, env: BuildEnvironment, node: Any, text: nodes.Element) -> nodes.Element | None:
    """A name that stands in no scope of its own: the nearest package that has it, or the only one that has it."""
    if node.get("refdomain") != "py" or node.get("reftype") == "mod":
        return None
    objects, target = env.domains.python_domain.objects, node["reftarget"]
    parts = (node.get("py:module") or "").split(".")
    around = (".".join([*parts[:length], target]) for length in range(len(parts), 0, -1))
    found = next((name for name in around if name in objects), None)
    if found is None and re.fullmatch(r"[A-Z]\w*[a-z]\w*|[a-z]+(_[a-z]+)+", target):
        names = [name for name, entry in objects.items() if name.endswith(f".{target}") and not entry.aliased]
        found = names[0] if len(names) == 1 and _is_top_level(objects[names[0]]) else None
    if found is None:
        if node.get("refexplicit"):
            logger.warning("no entry of the reference is named %s", target, location=node)
        return None
    entry = objects[found]
    return make_refnode(app.builder, node.get("refdoc", ""), entry.docname, entry.node_id, [text], found)


def _is_top_level(entry: ObjectEntry) -> bool:
    return entry.objtype in ("class", "function", "exception")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect everything."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-bases", _bases)
    app.connect("doctree-read", _in_scope)
    app.connect("env-updated", _alias)
    app.connect("missing-reference", _look_up)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
