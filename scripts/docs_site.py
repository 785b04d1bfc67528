"""Build the documentation site: the Markdown pages, and a reference made from the docstrings.

    python scripts/docs_site.py               the site in build/docs
    python scripts/docs_site.py --out DIR     the site in DIR
    python scripts/docs_site.py --only docs/guide/runs.md --only mindworks.lab     a part of it, sooner

Warnings are errors. A site that stands there already is replaced.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs" / "site"
sys.path.insert(0, str(SITE))

from mindworks_site import pages, reference  # noqa: E402

MARK = ".buildinfo"  # a file that Sphinx leaves in what it makes
# The parts of the navigation, each with the pages whose places start like this; the last part takes the reference.
PARTS = (
    ("Guide", ("guide/", "tracking", "distributed")),
    ("Papers", ("papers/",)),
    ("More", ("divergences", "")),
)


def gather(only: tuple[str, ...] = ()) -> tuple[dict[str, str], dict[str, Path]]:
    """The text of every page of the site, and the files that stand beside them, by their places.

    `only` names pages (`docs/papers/NAME.md`) and packages (`mindworks.tabular`) of a smaller site.
    """
    everything = pages.layout(ROOT)
    places = {name: place for name, place in everything.items() if not only or name in only or place == "index.md"}
    modules = reference.modules(ROOT / "src" / "mindworks", only)
    unknown = [name for name in only if name not in everything and name not in modules]
    if unknown:
        raise SystemExit(f"docs_site: --only {unknown[0]}: no such page and no such package")
    symbols = reference.symbols(modules)
    library = pages.Library(ROOT, places, modules, symbols)
    texts = {place: library.page(name) for name, place in places.items()}
    texts["index.md"] += _navigation(texts)
    texts |= {place: library.file_page(place) for place in sorted(library.files)}
    texts |= reference.pages(modules, symbols)
    texts["aliases.json"] = json.dumps(reference.aliases(modules, symbols), indent=0)
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
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", ":caption: Reference", "", "api/index.rst", "```", ""])


def write(texts: dict[str, str], assets: dict[str, Path], folder: Path) -> None:
    """Put pages and files into `folder`."""
    for place, text in texts.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")
    for place, origin in assets.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, folder / place)


def build(out: Path, only: tuple[str, ...] = ()) -> int:
    """Build the site in `out`, in place of an older one; returns the exit status."""
    from sphinx.cmd.build import build_main

    if out.exists() and not (out / MARK).exists() and any(out.iterdir()):
        print(f"docs_site: --out {out}: the folder holds something that is not a site", file=sys.stderr)
        return 2
    texts, assets = gather(only)
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        source, trees = Path(folder) / "pages", Path(folder) / "trees"
        write(texts, assets, source)
        # every page is read anew: Sphinx would not say again what was wrong with one that has not changed
        words = ["-q", "-W", "--keep-going", "-c", str(SITE), "-d", str(trees)]
        return build_main([*words, str(source), str(out)])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="folder of the site")
    parser.add_argument("--only", action="append", default=[], help="a page or a package; several make a smaller site")
    given = parser.parse_args()
    out = given.out.resolve()
    status = build(out, tuple(given.only))
    if status == 0:
        print(f"{out / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
