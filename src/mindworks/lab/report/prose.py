"""A page of Markdown as a part of the site: headings with anchors, links that stay inside, formulas, code, tables."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mindworks.lab.report.excerpts import highlighted
from mindworks.lab.report.mathematics import mathml

# (what the link points to, the code it shows or "") -> the address on the site, or None for plain text
Resolve = Callable[[str, str], str | None]
_PEERS = '<p class="note">The numbers: <a href="#peers">benchmarks</a>.</p>\n'
_FORMULA = 'tabindex="0" role="group" aria-label="Formula"'
_LONG = 36  # characters of LaTeX in a line of text: a longer formula may not fit a phone, and scrolls in its box
_GENERATED = re.compile(r"<!-- (record|benchmarks):(begin|end)((?: [\w-]+)*) -->")


@dataclass
class Prose:
    """What a page of Markdown holds: its title, sections (anchor, title), body, images (source, text), benchmarks."""

    title: str = ""
    html: str = ""
    sections: list[tuple[str, str]] = field(default_factory=list)
    images: list[tuple[str, str]] = field(default_factory=list)
    benchmarks: list[str] = field(default_factory=list)
    bibtex: str = ""


def anchor(title: str, taken: set[str]) -> str:
    """The anchor of a heading as GitHub makes it; with a number where it is taken."""
    plain = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    found, count = plain, 0
    while found in taken:
        count += 1
        found = f"{plain}-{count}"
    taken.add(found)
    return found


def render(text: str, resolve: Resolve, study: bool, pointer: str = "") -> Prose:
    """The page `text` as HTML.

    Of the page of a study the generated tables, the citation and the figures are taken out, since the site shows the
    records, the citation and the figures themselves; `pointer` is HTML that stands where the tables were.
    """
    parser, prose = _parser(), Prose()
    tokens = parser.parse(text)
    prose.title = next((tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"), "")
    prose.bibtex = next((t.content.strip() for t in tokens if t.type == "fence" and t.info.strip() == "bibtex"), "")
    tokens = _without_title(tokens)
    if study:
        tokens = list(_without_generated(tokens, prose, pointer))
        tokens = list(_without_figures(_without_citation(tokens), prose))
    _headings(tokens, prose)
    for token in tokens:
        if token.children:
            token.children = list(_resolved(token.children, resolve))
    prose.html = parser.renderer.render(tokens, parser.options, {"section": "", "tables": 0})
    return prose


def _parser() -> Any:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.use(dollarmath_plugin, double_inline=True)
    rules: dict[str, Callable[..., str]] = {
        "html_block": _html,
        "html_inline": _html,
        "site": lambda self, tokens, i, options, env: tokens[i].content,
        "fence": _fence,
        "code_block": _fence,
        "table_open": _table_open,
        "table_close": lambda self, tokens, i, options, env: "</table></div>\n",
        "th_open": _th_open,
        "th_close": _th_close,
        "math_inline": _formula,
        "math_inline_double": _display,
        "math_block": _display,
        "math_block_label": _display,
    }
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    return parser


def _html(self: Any, tokens: Sequence[Any], i: int, options: Any, env: Any) -> str:
    """Comments vanish; any other HTML is shown as it is written."""
    return html.escape(re.sub(r"<!--.*?-->", "", tokens[i].content, flags=re.DOTALL).strip())


def _formula(self: Any, tokens: Sequence[Any], i: int, options: Any, env: Any) -> str:
    tex = tokens[i].content
    found = mathml(tex, block=False)
    return f'<span class="formula" {_FORMULA}>{found}</span>' if len(tex) > _LONG else found


def _display(self: Any, tokens: Sequence[Any], i: int, options: Any, env: Any) -> str:
    return f'<span class="scroll math" {_FORMULA}>{mathml(tokens[i].content.strip(), block=True)}</span>'


def _fence(self: Any, tokens: Sequence[Any], i: int, options: Any, env: Any) -> str:
    return code_block(tokens[i].content, tokens[i].info.strip())


def code_block(content: str, language: str, label: str = "Code") -> str:
    """A block of code that scrolls inside its box, with a place for a button that copies it."""
    body = highlighted(content.rstrip("\n"), language)
    return f'<div class="copy"><pre tabindex="0" role="group" aria-label="{label}"><code>{body}</code></pre></div>\n'


def _table_open(self: Any, tokens: Sequence[Any], i: int, options: Any, env: Any) -> str:
    title = html.escape(tokens[i].meta.get("section") or "Table", quote=True)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="Table: {title}"><table>'
        f'<caption class="quiet">{title}</caption>\n'
    )


def _th_open(self: Any, tokens: Sequence[Any], i: int, options: Any, env: Any) -> str:
    if not tokens[i + 1].content:
        return "<td>"
    tokens[i].attrSet("scope", "col")
    return str(self.renderToken(tokens, i, options, env))


def _th_close(self: Any, tokens: Sequence[Any], i: int, options: Any, env: Any) -> str:
    return "</th>" if tokens[i - 1].content else "</td>"


def _without_title(tokens: list[Any]) -> list[Any]:
    starts = [i for i, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h1"]
    return tokens[: starts[0]] + tokens[starts[0] + 3 :] if starts else tokens


def _without_generated(tokens: list[Any], prose: Prose, pointer: str) -> Iterator[Any]:
    from markdown_it.token import Token

    inside = False
    for token in tokens:
        mark = _GENERATED.fullmatch(token.content.strip()) if token.type == "html_block" else None
        if mark is not None and mark[2] == "begin":
            inside = True
            if mark[1] == "benchmarks":
                prose.benchmarks += mark[3].split()
                yield Token("site", "", 0, content=_PEERS)
            else:
                yield Token("site", "", 0, content=pointer)
        elif mark is not None:
            inside = False
        elif not inside:
            yield token


def _without_citation(tokens: list[Any]) -> list[Any]:
    kept, inside = [], False
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            inside = tokens[i + 1].content.strip() == "Citation"
        if not inside:
            kept.append(token)
    return kept


def _without_figures(tokens: list[Any], prose: Prose) -> Iterator[Any]:
    """Without the paragraphs that hold nothing but an image."""
    skip = 0
    for i, token in enumerate(tokens):
        children = tokens[i + 1].children or [] if token.type == "paragraph_open" else []
        if len(children) == 1 and children[0].type == "image":
            prose.images.append((str(children[0].attrs["src"]), children[0].content))
            skip = 3
        if skip:
            skip -= 1
        else:
            yield token


def _headings(tokens: list[Any], prose: Prose) -> None:
    """Give every heading its anchor, and every table the heading it stands under."""
    taken: set[str] = set()
    section = prose.title
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            section = "".join(part.content for part in tokens[i + 1].children or [])
            token.attrSet("id", anchor(tokens[i + 1].content, taken))
            if token.tag == "h2":
                prose.sections.append((str(token.attrs["id"]), section))
        elif token.type == "table_open":
            token.meta["section"] = section


def _resolved(children: list[Any], resolve: Resolve) -> Iterator[Any]:
    """Links as the site has them; one that leads nowhere on it leaves its text."""
    dropped: list[bool] = []
    for i, token in enumerate(children):
        if token.type == "link_open":
            after = children[i + 1]
            target = resolve(str(token.attrs["href"]), after.content if after.type == "code_inline" else "")
            dropped.append(target is None)
            if target is None:
                continue
            token.attrSet("href", target)
        elif token.type == "link_close" and dropped.pop():
            continue
        elif token.type == "image":
            target = resolve(str(token.attrs["src"]), "")
            if target is None:
                token.type = "text"
            else:
                token.attrSet("src", target)
        yield token
