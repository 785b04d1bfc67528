"""The site in a browser without a window; skipped where there is no Chromium or no Playwright."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_sources import RECORD, record, write

from mindworks.lab.report import output, site, watch
from mindworks.lab.report.sources import Sources

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
ROOT = Path(__file__).parents[2]
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    with playwright.sync_playwright() as engine:
        found = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small site, with a page of runs."""
    folder = tmp_path_factory.mktemp("small")
    sources = write(folder, folder / "runs")
    run = folder / "runs" / "walk" / "a"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({key: RECORD[key] for key in ("study", "scale", "config", "seeds")}))
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {i}, "loss": {i * i}}}\n' for i in range(5)))
    output.replace(folder / "site", site.build(sources) | watch.runs_page(sources))
    return folder / "site"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of this repository."""
    folder = tmp_path_factory.mktemp("whole") / "site"
    output.replace(folder, site.build(Sources(ROOT / "results", ROOT / "docs" / "papers")))
    return folder


class Visit:
    """A tab that keeps what goes wrong: console errors, failed requests, requests that leave the disk."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self._context = browser.new_context(**options)
        self.page = self._context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda message: self._keep(message.type in ("error", "warning"), message.text))
        self.page.on("pageerror", lambda error: self._keep(True, str(error)))
        self.page.on("requestfailed", lambda request: self._keep(True, request.url))
        self.page.on("request", lambda request: self._keep(not request.url.startswith(("file:", "data:")), request.url))

    def _keep(self, bad: bool, what: str) -> None:
        if bad:
            self.faults.append(what)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def open(self, path: Path) -> Any:
        """Load a page from the disk."""
        self.page.goto(path.as_uri())
        return self.page


def pages(folder: Path) -> list[Path]:
    """Every page of a site; of the pages of code, which are of one make, each fortieth."""
    code = sorted((folder / "code").glob("*.html"))
    return sorted(set(folder.rglob("*.html")) - set(code)) + code[::40]


def test_every_page_loads_from_the_disk_and_fits_a_phone(browser: Any, small: Path, whole: Path) -> None:
    with Visit(browser, viewport=PHONE) as visit:
        for path in (*pages(small), *pages(whole)):
            page = visit.open(path)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"], f"{path.name} is {width} wide"
            assert page.evaluate(
                "[...document.images].every((image) => image.loading === 'lazy' || image.naturalWidth)"
            )
        assert visit.faults == []


def test_faults_are_seen(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<script src='none.js'></script><img src='http://127.0.0.1:9/x.png'>")
    with Visit(browser) as visit:
        visit.open(tmp_path / "a.html")
        assert any("none.js" in fault for fault in visit.faults)
        assert any("127.0.0.1:9" in fault for fault in visit.faults)


def test_figures_are_drawn_in_the_colours_of_the_page(browser: Any, small: Path) -> None:
    shots = []
    for scheme in ("light", "dark"):
        with Visit(browser, color_scheme=scheme) as visit:
            page = visit.open(small / "papers" / "walk.html")
            figure = page.locator("figure img")
            figure.scroll_into_view_if_needed()
            assert figure.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 120
            assert figure.get_attribute("alt") == "How far it went"
            shots.append(figure.screenshot())
    assert shots[0] != shots[1]


def violations(page: Any) -> list[str]:
    """What axe calls serious or critical."""
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")]


KINDS = ("index", "papers/walk", "papers/paper-03", "benchmarks", "code/lab.log", "docs/more", "runs")


@pytest.mark.parametrize(
    ("viewport", "scheme", "names"),
    [(DESK, "light", KINDS), (DESK, "dark", ("papers/walk", "code/lab.log")), (PHONE, "light", KINDS[:2])],
)
def test_nobody_is_kept_out(
    browser: Any, small: Path, viewport: dict[str, int], scheme: str, names: tuple[str, ...]
) -> None:
    with Visit(browser, viewport=viewport, color_scheme=scheme) as visit:
        for name in names:
            page = visit.open(small / f"{name}.html")
            assert violations(page) == [], name
        page.evaluate("document.querySelector('h1').style.color = 'rgb(128, 128, 128)'")
        page.evaluate("document.querySelector('h1').style.background = 'rgb(120, 120, 120)'")
        assert "color-contrast" in violations(page)[0]


def test_the_table_sorts_by_mouse_and_by_keyboard(browser: Any, small: Path) -> None:
    with Visit(browser, viewport=DESK) as visit:
        page = visit.open(small / "index.html")

        def column(number: int) -> list[str]:
            return page.locator(f"#papers tbody tr > :nth-child({number})").all_inner_texts()

        def sorting() -> list[str | None]:
            return [header.get_attribute("aria-sort") for header in page.locator("#papers thead th").all()]

        assert sorting() == [None] * 6
        page.get_by_role("button", name="Year").click()
        years = [year for year in column(2) if year != "–"]
        assert years == sorted(years)
        assert column(2)[: len(years)] == years
        assert sorting() == [None, "ascending", None, None, None, None]
        page.get_by_role("button", name="Year").press("Enter")
        assert [year for year in column(2) if year != "–"] == years[::-1]
        assert sorting()[1] == "descending"
        page.keyboard.press("Tab")  # the next button: the claim has none
        page.keyboard.press("Space")
        assert sorting() == [None, None, None, "ascending", None, None]
        assert [text.split("\n")[0] for text in column(4)][-2:] == ["◐ 1 of 3 holds", "✓ all 1 hold"]
        assert visit.faults == []


def test_the_filter_leaves_what_matches(browser: Any, small: Path) -> None:
    with Visit(browser, viewport=DESK) as visit:
        page = visit.open(small / "index.html")
        rows = page.locator("#papers tbody tr:visible")
        everything = rows.count()
        box = page.get_by_label("Filter")
        box.fill("claim GROUP")
        assert rows.count() == 18 < everything
        assert page.locator("[data-count]").inner_text() == f"18 of {everything}"
        box.fill("paper-07 group")
        assert [text.split("\n")[0] for text in rows.all_inner_texts()] == ["On Paper-07"]
        box.fill("no such paper")
        assert rows.count() == 0
        assert page.get_by_text("No paper matches.").is_visible()
        box.fill("")
        assert rows.count() == everything
        assert not page.get_by_text("No paper matches.").is_visible()


def test_the_citation_is_copied(browser: Any, small: Path) -> None:
    with Visit(browser, viewport=DESK, permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.open(small / "papers" / "walk.html")
        page.get_by_role("button", name="Copy: BibTeX").click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()").strip() == "@misc{walk, title = {A Walk}}"


def test_pages_are_whole_without_scripts(browser: Any, small: Path) -> None:
    with Visit(browser, viewport=PHONE, java_script_enabled=False) as visit:
        page = visit.open(small / "index.html")
        assert page.locator("#papers tbody tr:visible").count() > 18
        assert not page.get_by_label("Filter").is_visible()
        assert page.locator("button").count() == 0


def test_the_skip_link_leads_to_the_content(browser: Any, small: Path) -> None:
    with Visit(browser, viewport=DESK) as visit:
        page = visit.open(small / "index.html")
        page.keyboard.press("Tab")
        link = page.get_by_role("link", name="Skip to the content")
        assert link.evaluate("(link) => link === document.activeElement && link.getBoundingClientRect().left >= 0")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_a_page_that_is_watched_follows_its_record(browser: Any, tmp_path: Path) -> None:
    sources = write(tmp_path, tmp_path / "runs")
    watched = watch.Watched(sources, tmp_path / "site")
    watched.refresh()
    server = watch.listening(watched, 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    context = browser.new_context(viewport=DESK)
    try:
        page = context.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        with page.expect_response(lambda answer: "/.version" in answer.url):
            page.goto(f"http://127.0.0.1:{server.server_port}/papers/walk.html")
        assert page.locator(".facts .verdict").inner_text() == "◐ 1 of 3 holds"
        held = [dict(check, passed=True) for check in RECORD["checks"]]
        (sources.results / "walk.json").write_text(json.dumps(record(checks=held)), encoding="utf-8")
        watched.refresh()
        page.get_by_text("all 3 hold").first.wait_for(timeout=30_000)
        assert problems == []
    finally:
        context.close()
        server.shutdown()
        server.server_close()
