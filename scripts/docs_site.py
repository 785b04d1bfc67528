"""Build the documentation site: the Markdown pages, and a reference made from the docstrings.

    python scripts/docs_site.py               the site in build/docs
    python scripts/docs_site.py --out DIR     the site in DIR

Warnings are errors. The pages are gathered in a folder beside the site, DIR-source; no file of the repository changes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs" / "site"
sys.path.insert(0, str(SITE))

import pages  # noqa: E402
import reference  # noqa: E402

# The parts of the navigation, each with the pages whose places start like this; the last part takes the reference.
PARTS = (
    ("Guide", ("guide/", "tracking", "distributed")),
    ("Papers", ("papers/",)),
    ("Further", ("divergences", "")),
)


def gather(places: dict[str, str] | None = None) -> tuple[dict[str, str], dict[str, Path]]:
    """The text of every page of the site, and the files that stand beside them, by their places."""
    places = pages.layout(ROOT) if places is None else places
    modules = reference.modules(ROOT / "src" / "mindworks")
    symbols = reference.symbols(modules)
    library = pages.Library(ROOT, places, modules, symbols)
    texts = {place: library.page(name) for name, place in places.items()}
    texts["index.md"] += _navigation(texts)
    texts |= {place: library.file_page(place) for place in sorted(library.files)}
    texts |= reference.pages(modules, symbols)
    aliases: dict[str, list[str]] = {}
    for symbol in symbols.values():
        aliases.setdefault(symbol.name, []).append(symbol.home)
    for module in (module for module in modules.values() if module.public):
        for name in module.exports:
            symbol = symbols.get(reference._home(name, module, modules) or "")
            if symbol is not None:
                aliases[symbol.name].append(f"{module.name}.{name}")
    texts["aliases.json"] = json.dumps(aliases, indent=0)
    return texts, {asset.removeprefix("docs/"): ROOT / asset for asset in library.assets}


def _navigation(texts: dict[str, str]) -> str:
    """The hidden lists of pages that make the navigation, in the order in which the index of the pages names them."""
    order = texts.get("pages.md", "")
    left = sorted(set(texts) - {"index.md"}, key=lambda place: (order.find(f"({place})") % 10**6, place))
    lines = []
    for title, starts in PARTS:
        here = [place for place in left if place.startswith(starts)]
        left = [place for place in left if place not in here]
        if here:
            lines += ["", "```{toctree}", ":hidden:", f":caption: {title}", "", *here, "```"]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", "Reference <api/index.rst>", "```", ""])


def write(texts: dict[str, str], assets: dict[str, Path], folder: Path) -> None:
    """Make `folder` hold these pages and nothing else; what has not changed is not touched, so that it is not read."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in texts | assets:
            path.unlink()
    for place, text in texts.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for place, origin in assets.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, folder / place)


def build(out: Path, words: tuple[str, ...] = ()) -> int:
    """Build the site in `out`; returns the exit status."""
    from sphinx.cmd.build import build_main

    work = out.with_name(f"{out.name}-source")
    write(*gather(), work / "pages")
    places = [str(path) for path in (work / "pages", out)]
    return build_main(["-q", "-W", "--keep-going", "-c", str(SITE), "-d", str(work / "trees"), *words, *places])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="folder of the site")
    out = parser.parse_args().out.resolve()
    status = build(out)
    if status == 0:
        print(f"{out / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
