"""Docstrings are plain prose with code between single backticks; this turns them into reStructuredText that says so."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_LOOKS_LIKE_MARKUP = re.compile(r"\(?[A-Za-z0-9#]+[.)]\s|[-+*:>.|=~^]")


def to_rst(text: str) -> str:
    """A docstring's paragraphs, lists, indented formulas and examples; everything else in it stays literal."""
    return "\n\n".join(_block(block.splitlines()) for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip())


def _block(lines: list[str]) -> str:
    if lines[0].startswith(">>>"):
        return _literal(".. code-block:: pycon", lines)
    if all(line.startswith("    ") for line in lines):
        return _literal(".. code-block:: text", [line[4:] for line in lines])
    if lines[0].startswith("- "):
        items = re.split(r"\n- ", "\n".join(lines)[2:])
        return "\n".join(f"- {_paragraph(item.splitlines())}" for item in items)
    return _paragraph(lines)


def _literal(opening: str, lines: list[str]) -> str:
    return "\n".join([opening, "", *(f"   {line}" for line in lines)])


def _paragraph(lines: list[str]) -> str:
    text = " ".join(line.strip() for line in lines)
    return ("\\" if _LOOKS_LIKE_MARKUP.match(text) else "") + inline(text)


def inline(text: str) -> str:
    """One line: code spans become names to look up, or literals; all other characters stand for themselves."""
    parts = re.split(r"`([^`]+)`", text)
    found = []
    for place, part in enumerate(parts):
        if place % 2 == 0:
            found.append(_plain(part))
            continue
        marked = f":py:obj:`{part}`" if _NAME.fullmatch(part) else f"``{part}``"
        before = "" if parts[place - 1][-1:] in ("", " ", "(") else r"\ "
        after = "" if parts[place + 1][:1] in ("", " ", ",", ".", ":", ";", ")") else r"\ "
        found.append(before + marked + after)
    return "".join(found)


def _plain(text: str) -> str:
    parts = _ARXIV.split(text)
    return "".join(
        f"`arXiv:{part} <https://arxiv.org/abs/{part}>`__" if place % 2 else re.sub(r"([\\*|_`])", r"\\\1", part)
        for place, part in enumerate(parts)
    )


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, as reStructuredText."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return inline(re.split(r"(?<=[a-z)`\]]\.) (?=[A-Z`])", paragraph, maxsplit=1)[0])
