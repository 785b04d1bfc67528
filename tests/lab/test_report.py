"""The static site without a browser: what its pages say, where they link to, and what is refused."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from report_sources import RECORD, papers, record, write

from mindworks import cli
from mindworks.errors import InputError
from mindworks.lab.report import command, figures, mathematics, output, site, views
from mindworks.lab.report import papers as listed
from mindworks.lab.report.sources import Sources

ROOT = Path(__file__).parents[2]
VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """The elements of a page: its ids, links, images, headings and text; `errors` names what does not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.errors: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.errors += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if "id" in found:
            self.ids.append(found["id"] or "")
        if tag == "a":
            self.links.append(found["href"] or "")
        self.loaded += [found[key] or "" for key in ("src", "srcset", "data") if key in found]
        if tag == "link":
            self.loaded.append(found["href"] or "")
        self.errors += [f"{key} on <{tag}>" for key in found if key.startswith("on")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.errors.append(f"</{tag}> closes <{self._open[-1] if self._open else ''}>")
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data


def faults(files: dict[str, bytes]) -> list[str]:
    """What is wrong with the pages of a site: nesting, ids, links, external requests, order of headings."""
    pages = {name: Page(content.decode()) for name, content in files.items() if name.endswith(".html")}
    found = []
    for name, page in pages.items():
        found += [f"{name}: {error}" for error in page.errors]
        found += [f"{name}: id {each!r} twice" for each in {i for i in page.ids if page.ids.count(i) > 1}]
        levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
        jumps = [pair for pair in pairwise(levels) if pair[1] > pair[0] + 1]
        if levels[:1] != [1] or levels.count(1) != 1 or jumps:
            found.append(f"{name}: headings {levels}")
        for target in (*page.links, *(each for each in page.loaded if each != "data:,")):
            if target.startswith("https://") and target in page.links:
                continue
            path, _, anchor = target.partition("#")
            address = str((Path("/") / Path(name).parent / path).resolve())[1:] if path else name
            if address not in files or (anchor and anchor not in pages[address].ids):
                found.append(f"{name}: {target}")
    return found


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Small sources."""
    return write(tmp_path)


def text(files: dict[str, bytes], name: str) -> str:
    """The words of a page."""
    return " ".join(Page(files[name].decode()).text.split())


# -- the pages --------------------------------------------------------------------------------------------------------


def test_the_site_of_this_repository_is_whole() -> None:
    files = site.build(Sources(ROOT / "results", ROOT / "docs" / "papers"))
    assert faults(files) == []
    for path in (ROOT / "results").glob("*.json"):
        assert f"papers/{path.stem}.html" in files
    figures_size = sum(len(content) for name, content in files.items() if name.startswith("figures/"))
    assert sum(map(len, files.values())) - figures_size < 5_000_000
    assert len([name for name in files if name.startswith("code/")]) > 50


def test_faults_are_found(sources: Sources) -> None:
    files = site.build(sources)
    assert faults(files) == []
    for good, bad in (
        (b"</main>", b"</div>"),
        (b'id="filter"', b'id="papers"'),
        (b"<h1>", b"<h2>"),
        (b"papers/line.html", b"papers/none.html"),
        (b"papers/line.html", b"papers/line.html#none"),
        (b"assets/site.js", b"https://example.org/site.js"),
        (b"<h1>", b'<h1 onclick="x()">'),
    ):
        assert good in files["index.html"]
        assert faults(files | {"index.html": files["index.html"].replace(good, bad)}) != []


def test_the_opening_page_shows_every_paper(sources: Sources) -> None:
    files = site.build(sources)
    rows = files["index.html"].decode().split("<tbody")[1].split("<tr ")[1:]
    assert len(rows) == 18 + 3  # and the toys that papers.toml does not list
    walk, line, bare = (" ".join(Page("<tr " + row.split("</tr>")[0]).text.split()) for row in rows[:3])
    for part in ("On Walk", "One and Two, Venue 0", "group 0", "2000", "Claim number 0 holds.", "1 of 3 holds"):
        assert part in walk
    assert walk.endswith("does not hold: far: worst place ✗ does not hold: near: gap 3 1.5")
    assert "all 1 hold" in line
    assert "does not" not in line
    assert "no record yet" in bare
    assert bare.endswith("– –")
    assert "2 of the papers have a record; 2 of 4 checks hold, and in 1 records" in text(files, "index.html")


def test_the_page_of_a_study_puts_its_numbers_beside_the_papers(sources: Sources) -> None:
    page = site.build(sources)["papers/walk.html"].decode()
    rows = [Page(row).text for row in page.split('class="checks')[1].split("</table>")[0].split('<tr role="row">')[2:]]
    found = [" ".join(row.split()) for row in rows]
    assert "2.1 ± 0.1Table 1 2" in found[0]
    assert "9.9" not in found[0]
    assert "1.5, 2, 2.5 1.625 to 2.375 3 ≥ 1 ✓ holds" in found[0]
    assert "9.9Figure 2read off 0.25 – 3 ≥ 0.5 ✗ does not hold" in found[1]
    assert "not stated none – 3 ≤ 1e-09 ✗ does not hold" in found[2]
    rest = Page(page).text
    assert re.search(r"elsewhere\s*7", rest)
    assert "mindworks run walk --scale smoke --seed 3 --seeds 3 --steps 10 --start-points 0.0 1.0 --mirrored" in rest
    assert "It took 90 CPU seconds, 120 seconds on the clock." in rest
    assert "where the walks begin, in metres" in rest
    assert f"git checkout {RECORD['environment']['commit']}" in rest
    assert "stale" not in rest
    assert '{"out": {"iqm": 2.0}, "back": 3}' in rest
    assert rest.count("@misc{walk") == 1
    assert "<svg" in page.split('class="checks')[1].split("</tr>")[1]


def test_prose_links_stay_on_the_site(sources: Sources) -> None:
    files = site.build(sources)
    page = Page(files["papers/walk.html"].decode())
    for target in (
        "../code/lab.log.html#RunLog",
        "line.html#the-claim",
        "#cite",
        "../benchmarks.html#vs_loop",
        "../index.html",
        "../docs/more.html",
    ):
        assert target in page.links
    assert not [target for target in page.links if "gone" in target or "tests" in target or "mailto" in target]
    assert "a test, gone, mail" in " ".join(page.text.split())
    assert "class RunLog" in Page(files["code/lab.log.html"].decode()).text
    assert "../papers/walk.html" in Page(files["code/lab.log.html"].decode()).links
    assert "../papers/walk.html#cite" in Page(files["docs/more.html"].decode()).links


def test_nothing_outside_the_pages_folder_becomes_a_figure(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "secret.svg").write_text("<svg></svg>", encoding="utf-8")
    outside = "../../secret.svg"
    page = f"# A\n\n## The claim\n\n![1]({outside})\n\n![2](https://example.org/a.svg)\n\nand ![three]({outside})\n"
    (sources.papers / "line.md").write_text(page, encoding="utf-8")
    files = site.build(sources)
    assert faults(files) == []
    assert [name for name in files if name.startswith("figures/")] == ["figures/walk.svg"]
    assert "and three" in text(files, "papers/line.html")
    assert "Figures" not in text(files, "papers/line.html")


def test_the_page_of_a_study_shows_its_benchmarks(sources: Sources) -> None:
    files = site.build(sources)
    for name in ("papers/walk.html", "benchmarks.html"):
        assert "1 of 2 bars hold" in text(files, name)
        assert "slow4.001.000.251✗ missed" in text(files, name)
        assert "free4.001.000.25–no bar" in text(files, name)
    assert "vs_loop" not in text(files, "papers/line.html")


def test_the_same_sources_give_the_same_bytes(sources: Sources) -> None:
    assert site.build(sources) == site.build(sources)


# -- hostile and missing content --------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"' {{ 7*7 }}"


def test_what_a_record_says_is_never_markup(sources: Sources) -> None:
    checks = [
        {"claim": HOSTILE, "value": 1.0, "op": HOSTILE, "bar": HOSTILE, "passed": True, "each": [HOSTILE, HOSTILE]}
    ]
    hostile = record(
        checks=checks,
        config={HOSTILE: HOSTILE},
        tables={HOSTILE: {HOSTILE: {HOSTILE: HOSTILE}}},
        scale=HOSTILE,
        seeds=[HOSTILE, HOSTILE],
        study=HOSTILE,
        environment={HOSTILE: HOSTILE, "commit": HOSTILE},
    )
    (sources.results / "walk.json").write_text(json.dumps(hostile), encoding="utf-8")
    toml = papers().replace('"On Walk"', json.dumps(HOSTILE)).replace('"2.1 ± 0.1"', json.dumps(HOSTILE))
    (sources.papers / "papers.toml").write_text(toml, encoding="utf-8")
    (sources.papers / "walk.md").write_text(
        f"# {HOSTILE}\n\n## {HOSTILE}\n\n{HOSTILE}\n\n[x](javascript:alert(1)) [y](data:text/html,z) $<b>$\n\n"
        f"![{HOSTILE}](figures/walk.svg)\n\n```<b>\n{HOSTILE}\n```\n",
        encoding="utf-8",
    )
    files = site.build(sources)
    assert faults(files) == []
    for name in ("index.html", "papers/walk.html"):
        page = Page(files[name].decode())
        assert page.tags.count("script") == 1
        assert "img" not in page.tags or "x" not in page.loaded
        assert not [target for target in page.links if target.startswith(("javascript", "data"))]
    assert text(files, "papers/walk.html").count("{{ 7*7 }}") > 9


def test_figures_follow_the_colours_of_the_page() -> None:
    svg = figures.themed(
        '<?xml version="1.0"?><!DOCTYPE svg><svg width="1"><metadata>when</metadata><!-- x --><script>bad()</script>'
        '<path style="fill: #ffffff"/><path style="stroke: #1f77b4; fill: #123456"/>'
        '<path style="fill: #ffffff; opacity: 0.8; stroke: #cccccc"/><path style="stroke: #ffffff"/></svg>'
    )
    assert not re.search("metadata|xml version|DOCTYPE|<!--|script", svg)
    assert 'style="fill: none"' in svg
    assert 'style="stroke: var(--c1f77b4); fill: #123456"' in svg
    assert 'style="fill: var(--paper); opacity: 0.8; stroke: var(--ccccccc)"' in svg
    assert 'style="stroke: #ffffff"' in svg
    light, dark = svg.split("@media(prefers-color-scheme:dark)")
    assert "--c1f77b4:#1f77b4" in light
    assert f"--c1f77b4:{figures.DARK['#1f77b4']}" in dark


def test_formulas_become_mathml_or_stay_as_they_are() -> None:
    assert "<mo" in mathematics.mathml(r"\arg\max_\pi R", block=False)
    assert mathematics.mathml(r"\undefined{x", block=False) == r"<code>\undefined{x</code>"
    assert "<b>" not in mathematics.mathml("<b>", block=True)


def test_a_site_without_papers_or_pages_shows_the_records(sources: Sources, tmp_path: Path) -> None:
    files = site.build(Sources(sources.results, tmp_path / "none", package="nothing.there"))
    assert faults(files) == []
    assert "On Walk" not in text(files, "index.html")
    assert "1 of 3 holds" in text(files, "papers/walk.html")
    assert [name for name in files if name.startswith("papers/")] == ["papers/line.html", "papers/walk.html"]


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", json.dumps(record(checks=[{}])), json.dumps(record(seeds=[])), json.dumps({"a": 1})]
)
def test_a_damaged_record_is_named(sources: Sources, content: str) -> None:
    (sources.results / "walk.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"damaged .*walk\.json"):
        site.build(sources)


def test_a_damaged_benchmark_is_named(sources: Sources) -> None:
    (sources.results / "benchmarks" / "vs_loop.json").write_text('{"rows": 3}', encoding="utf-8")
    with pytest.raises(InputError, match=r"damaged .*vs_loop\.json"):
        site.build(sources)


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ('key = "walk"', "key = 3", "key must be a plain name, got 3"),
        ('key = "walk"', 'key = "../x"', "key must be a plain name, got '../x'"),
        ('key = "walk"', 'key = "line"', "'line' stands there twice"),
        ('title = "On Walk"', "", "walk has no title"),
        ('authors = ["Ada A. One", "Bo Two"]', 'authors = "One"', "authors of walk must be names"),
        ("year = 2000", 'year = "MM"', "year of walk must be a number, got 'MM'"),
        ("year = 2000", 'url = "javascript:x"', "url of walk must start with https://, got 'javascript:x'"),
        ('number = "7"', "", "a published row has no number"),
        ("[[papers]]", "[[papers", "damaged"),
    ],
)
def test_a_wrong_entry_of_the_papers_is_named(sources: Sources, good: str, bad: str, message: str) -> None:
    assert good in papers()
    (sources.papers / "papers.toml").write_text(papers().replace(good, bad, 1), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        listed.read(sources.papers)


def test_authors_and_seeds_in_words() -> None:
    assert views.short_authors([]) == ""
    assert views.short_authors(["A One"]) == "One"
    assert views.short_authors(["A One", "B Two", "C de Three"]) == "One, Two and Three"
    assert views.short_authors(["A One", "B Two", "C Three", "D Four"]) == "One et al."
    assert [views.seeds(each) for each in ([3], [3, 4], [1, 5])] == ["seed 3", "2 seeds (3 to 4)", "2 seeds (1, 5)"]
    assert views.strip([1.0, 1.0], 1.0) == ""
    assert views.strip([1.0, None], 0.0) == ""


# -- the folder and the command ---------------------------------------------------------------------------------------


def test_a_site_replaces_a_site_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out" / "site"
    output.replace(out, {"a.html": b"1", "b/c.html": b"2"})
    output.replace(out, {"a.html": b"3"})
    assert sorted(path.name for path in out.rglob("*")) == [output.MARKER, "a.html"]
    assert (out / "a.html").read_bytes() == b"3"
    assert [path.name for path in out.parent.iterdir()] == ["site"]
    other = tmp_path / "other"
    other.mkdir()
    output.replace(other, {"a.html": b"1"})  # an empty folder is no one's
    (other / output.MARKER).unlink()
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("x")
    link.symlink_to(out)
    for wrong in (other, file, link):
        with pytest.raises(InputError, match=f"--out {re.escape(str(wrong))}"):
            output.replace(wrong, {"a.html": b"4"})
    assert (other / "a.html").read_bytes() == b"1"
    monkeypatch.chdir(out)
    with pytest.raises(InputError, match="current one"):
        output.replace(out, {"a.html": b"4"})
    monkeypatch.chdir(tmp_path)


def test_a_failure_leaves_the_old_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "site"
    output.replace(out, {"a.html": b"1"})
    with pytest.raises(OSError, match="name too long"):
        output.replace(out, {"a.html": b"2", "x" * 300: b""})
    rename = output.os.rename

    def refuse(source: Path, target: Path) -> None:
        if ".new." in str(source):
            raise OSError("the disk refuses")
        rename(source, target)

    monkeypatch.setattr(output.os, "rename", refuse)
    with pytest.raises(OSError, match="the disk refuses"):
        output.replace(out, {"a.html": b"2"})
    assert (out / "a.html").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_the_command_builds(sources: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", "--out", str(tmp_path / "site"), f"--papers={sources.papers}"]
    assert cli.main(words, package="toys", results=sources.results) == 0
    assert (tmp_path / "site" / "papers" / "walk.html").exists()
    assert not (tmp_path / "site" / "runs.html").exists()
    assert re.fullmatch(r"\d+ pages, \d\.\d MB: .*index\.html\n", capsys.readouterr().out)
    assert cli.main([*words, "--runs", str(tmp_path / "runs")], package="toys", results=sources.results) == 0
    assert "No run below" in (tmp_path / "site" / "runs.html").read_text(encoding="utf-8")
    assert cli.main(["report", "--help"], package="toys") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80 + len(str(tmp_path))
    assert max(map(len, command.HELP.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ot", "x"], "unknown flag --ot; nearest: --out"),
        (["--out"], "--out needs a value, got none"),
        (["--out", "--watch"], "--out needs a value, got none"),
        (["--out="], "--out needs a value, got none"),
        (["here"], "unexpected argument 'here'"),
        (["--port", "80"], "--port goes with --watch, which is not given"),
        (["--watch", "--port", "99999"], "--port must be a whole number in 0 to 65535, got '99999'"),
        (["--watch", "--port", "x"], "--port must be a whole number in 0 to 65535, got 'x'"),
        (["--results", "none"], "--results none: there is no such folder"),
        (["--papers", "none"], "--papers none: there is no such folder"),
        ([], "--results needs a value: there are no records beside this package"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        command.understood(words, None if not words else Path("results"))
