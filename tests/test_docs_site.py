"""The documentation site: built without a warning, whole, and without anything from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("myst_parser")

from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"
sys.path.insert(0, str(SITE))

from mindworks_site import pages, prose, reference  # noqa: E402

# A smaller site, with every kind of page and of link; `make docs` builds the whole.
PAGES = ("CONTRIBUTING.md", "docs/README.md", "docs/divergences.md", "docs/guide/studies.md", "docs/papers/rwr.md")
PACKAGES = ("mindworks.core", "mindworks.errors", "mindworks.tabular")


def built(out: Path, root: Path = ROOT, only: tuple[str, ...] = PAGES + PACKAGES) -> subprocess.CompletedProcess[str]:
    """Build a part of the site of the repository at `root` in a process of its own."""
    words = [word for name in only for word in ("--only", name)]
    script = [sys.executable, str(root / "scripts" / "docs_site.py"), "--out", str(out)]
    return subprocess.run([*script, *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smaller site."""
    out = tmp_path_factory.mktemp("docs") / "site"
    run = built(out)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "WARNING" not in run.stdout + run.stderr
    return out


class Page(HTMLParser):
    """The anchors of a page, where its links lead, and what it loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.formulas = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.formulas += tag == "math"
        leads = tag in ("a", "area") or (tag == "link" and given.get("rel") in ("index", "search", "next", "prev"))
        if leads and "href" in given:
            self.links.append(given["href"])
        else:
            self.loads += [given[name] for name in ("src", "href", "srcset", "data", "poster") if name in given]


def dead_ends(site: Path) -> list[str]:
    """Links to pages, anchors or files that the site does not have, and things loaded that it does not hold."""
    found = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    bad = []
    for path, page in found.items():
        for target in [*page.links, *page.loads]:
            name, _, anchor = unquote(target.split("?")[0]).partition("#")
            if re.match(r"https?:|mailto:", name):
                bad += [f"{path.name} loads {target}"] if target in page.loads else []
                continue
            there = (path.parent / name).resolve() if name else path
            no_anchor = bool(anchor) and there in found and anchor not in found[there].anchors
            bad += [f"{path.name}: {target}"] if no_anchor or not there.is_file() else []
    return bad


def test_links_of_the_site_lead_somewhere_and_nothing_comes_from_elsewhere(site: Path) -> None:
    assert dead_ends(site) == []
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles
    assert not [
        address for style in styles for address in re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style)
    ]


def test_a_dead_end_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text('<p id="x">', encoding="utf-8")
    good = '<a id="y" href="b.html#x"><a href="#y"><a href="https://a.org"><link rel="next" href="b.html">'
    bad = '<a href="c.html"><a href="b.html#z"><script src="https://a.org/x.js"></script><img src="d.png"><a href="#z">'
    (tmp_path / "a.html").write_text(good, encoding="utf-8")
    assert dead_ends(tmp_path) == []
    (tmp_path / "a.html").write_text(bad, encoding="utf-8")
    assert len(dead_ends(tmp_path)) == 5


def inventory(site: Path) -> set[str]:
    """The Python names of the site's inventory."""
    with (site / "objects.inv").open("rb") as file:
        found = InventoryFile.load(file, "", lambda base, place: place)
    return {name for kind, names in found.items() if kind.startswith("py:") for name in names}


def test_every_page_and_every_public_name_of_the_packages_is_there(site: Path) -> None:
    import mindworks.core.divergences
    import mindworks.core.policy
    import mindworks.tabular

    places = pages.layout(ROOT)
    assert all((site / Path(places[name]).with_suffix(".html")).is_file() for name in ("README.md", *PAGES))
    names = inventory(site)
    assert {f"mindworks.tabular.{name}" for name in mindworks.tabular.__all__} <= names
    for module in (mindworks.core.divergences, mindworks.core.policy):
        here = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        assert {f"{module.__name__}.{name}" for name in here if not name.startswith("_")} <= names
    assert "mindworks.tabular.udrl.EUDRL.run" in names
    assert "mindworks.tabular.EUDRL.run" in names
    assert not [name for name in names if re.search(r"\._[a-z]", name)]


def test_links_to_code_lead_to_its_entry_and_others_to_the_file(site: Path) -> None:
    links = Page((site / "papers" / "rwr.html").read_text(encoding="utf-8")).links
    assert "../api/tabular.rwr.html#mindworks.tabular.rwr_step" in links
    assert "../api/tabular.rwr.html#mindworks.tabular.RWRRun.rate" in links
    assert any(link.startswith("../_modules/") for link in Page((site / "api" / "tabular.rwr.html").read_text()).links)
    contributing = Page((site / "contributing.html").read_text(encoding="utf-8"))
    assert "files/tests/test_layers.py.html" in contributing.links
    assert "def test_the_house_keeps_the_rule" in re.sub(
        r"<[^>]+>", "", (site / "files" / "tests" / "test_layers.py.html").read_text(encoding="utf-8")
    )


def test_formulas_are_mathml_and_the_search_needs_no_server(site: Path) -> None:
    assert Page((site / "divergences.html").read_text(encoding="utf-8")).formulas > 10
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert index.startswith("Search.setIndex(")
    assert "rwr_step" in index
    assert "SHOW_SEARCH_SUMMARY: false" in (site / "_static" / "documentation_options.js").read_text(encoding="utf-8")


def test_a_page_that_is_wrong_stops_the_build(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    for folder in ("docs", "scripts", "src"):
        (root / folder).mkdir(parents=True)
    (root / "docs" / "site").symlink_to(SITE)
    (root / "scripts" / "docs_site.py").write_text((ROOT / "scripts" / "docs_site.py").read_text(encoding="utf-8"))
    (root / "src" / "mindworks").mkdir()
    (root / "src" / "mindworks" / "errors.py").symlink_to(ROOT / "src" / "mindworks" / "errors.py")
    (root / "README.md").write_text("# T\n\n[x](#none)\n\n$\\frac{$\n\n{py:obj}`x <mindworks.none>`\n")
    run = built(tmp_path / "site", root, ("mindworks.errors",))
    assert run.returncode == 1
    assert run.stderr.count("WARNING") == 3, run.stderr


def test_a_folder_that_is_no_site_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    run = built(tmp_path)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert str(tmp_path) in run.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run = built(tmp_path / "site", only=("mindworks.errors", "mindworks.none"))
    assert run.returncode != 0
    assert run.stderr.splitlines() == ["docs_site: --only mindworks.none: no such page and no such package"]


# -- the whole library, without a build -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> pages.Library:
    """What the whole site is made of."""
    modules = reference.modules(ROOT / "src" / "mindworks")
    return pages.Library(ROOT, pages.layout(ROOT), modules, reference.symbols(modules))


def test_every_export_of_every_package_has_one_entry(library: pages.Library) -> None:
    texts = reference.pages(library.modules, library.symbols)
    entries = "\n".join(texts.values())
    aliases = reference.aliases(library.modules, library.symbols)
    known = {name for names in aliases.values() for name in names} | set(aliases)
    for module in library.modules.values():
        if module.public and module.name != "mindworks":
            names = {f"{module.name}.{name}" for name in module.exports} - set(library.modules)
            assert names <= known, module.name
            assert f"{module.page}.rst" in texts
    for symbol in library.symbols.values():
        if symbol.kind != "data":
            assert len(re.findall(rf"^\.\. auto\w+:: {re.escape(symbol.name)}$", entries, re.MULTILINE)) == 1, symbol


def test_code_named_in_a_page_is_found_by_its_entry(library: pages.Library) -> None:
    text = library.page("docs/papers/pbvf.md")
    assert "{py:obj}`PSSVF <mindworks.policies.PSSVF>`" in text
    assert "{py:obj}`STUDY <mindworks.studies.pbvf.STUDY>`" in text
    assert "](../../" not in text
    assert not re.search(r"`\]\([^)]*\.py\)", text)


def test_every_page_has_a_place_of_its_own(library: pages.Library) -> None:
    assert len(set(library.places.values())) == len(library.places)
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")} <= set(library.places)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Values `[..., S, A]` of `policy`.", "Values ``[..., S, A]`` of :py:obj:`policy`."),
        ("K. Young, *x* and y_ |z|", r"\K. Young, \*x\* and y\_ \|z\|"),
        ("the `n`s and 2`x`", r"the :py:obj:`n`\ s and 2\ :py:obj:`x`"),
        ("One\nline.\n\n    y = a b\n    z\n\nEnd", "One line.\n\n.. code-block:: text\n\n   y = a b\n   z\n\nEnd"),
        ("List:\n\n- one\n  more\n- two", "List:\n\n- one more\n- two"),
        (">>> x\n1", ".. code-block:: pycon\n\n   >>> x\n   1"),
        ("See arXiv:1234.56789.", "See `arXiv:1234.56789 <https://arxiv.org/abs/1234.56789>`__."),
    ],
)
def test_docstrings_become_what_they_say(text: str, expected: str) -> None:
    assert prose.to_rst(text) == expected


def test_a_summary_is_the_first_sentence() -> None:
    assert prose.first_sentence("One `x`, e.g. this. Then more.\n\nMore.") == "One :py:obj:`x`, e.g. this."
    assert prose.first_sentence(None) == ""
