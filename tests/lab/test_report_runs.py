"""The page of the runs, and the site that is served: what it answers, to whom, and when it changes."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from report_sources import RECORD, record, write

from mindworks import cli
from mindworks.errors import InputError
from mindworks.lab.report import runs, watch
from mindworks.lab.report.sources import Sources


def run_folder(root: Path, name: str, rows: list[dict] | None = None, seeds: int = 2) -> Path:
    """A folder of a run that has begun."""
    folder = root / name
    folder.mkdir(parents=True)
    about = {"study": "walk", "scale": "cpu", "config": {}, "seeds": list(range(seeds))}
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
    if rows is not None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return folder


ROWS = [
    {"stage": "out", "seed": s, "step": 10 * i, "loss": i + s, "each": [i, 2.0 * i]} for s in (0, 1) for i in (0, 1)
]


def test_a_run_says_where_it_is(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "walk/a", [*ROWS, {"loss": None, "note": "<b>"}])
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"loss": 9')  # a line that is being written
    found = runs.read(folder, tmp_path)
    assert (found.folder, found.study, found.scale, found.seeds) == ("walk/a", "walk", "cpu", 2)
    assert (found.state, found.lines, found.last) == ("stopped", 5, "note <b>")
    assert [(curve.name, curve.last) for curve in found.curves] == [("loss", "2"), ("each", "1.5")]
    assert found.curves[0].svg.count("<polyline") == 2
    assert 'points="3.0,77.0 217.0,40.0"' in found.curves[0].svg
    assert 'aria-label="From 0 to 2, 2 lines"' in found.curves[0].svg


def test_a_run_is_running_while_a_process_holds_its_lock(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "a")
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert runs.read(folder, tmp_path).state == "running"
    assert runs.read(folder, tmp_path).state == "stopped"
    (folder / "result.json").write_text(json.dumps(RECORD), encoding="utf-8")
    assert runs.read(folder, tmp_path).state == "finished"
    assert runs.read(folder, tmp_path).checks == "1 of 3 checks hold"


def test_seeds_in_processes_of_their_own_are_one_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "a")
    for seed in (0, 1):
        run_folder(tmp_path, f"a/seed-{seed}", [{"seed": seed, "x": seed}, {"seed": seed, "x": 3}])
    assert runs.newest(tmp_path) == [folder]
    assert runs.read(folder, tmp_path).lines == 4


def test_the_newest_runs_come_first_and_old_ones_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SHOWN", 2)
    for i, name in enumerate("abc"):
        folder = run_folder(tmp_path / "runs", name)
        os.utime(folder / "config.json", (i, i))
    (tmp_path / "runs" / "b" / "config.json").write_text("{", encoding="utf-8")
    os.utime(tmp_path / "runs" / "b" / "config.json", (5, 5))
    page = watch.runs_page(Sources(tmp_path, tmp_path, tmp_path / "runs"))["runs.html"].decode()
    assert re.findall(r'<span class="sub">(\w)</span>', page) == ["b", "c"]
    assert "damaged" in page
    assert "1 older one is left out" in " ".join(page.split())
    assert runs.newest(tmp_path / "none") == []


# -- following ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Small sources, with a folder of runs."""
    return write(tmp_path, tmp_path / "runs")


@pytest.fixture
def watched(sources: Sources, tmp_path: Path) -> watch.Watched:
    """A site that follows them, made once."""
    found = watch.Watched(sources, tmp_path / "site")
    assert found.refresh()
    return found


def test_only_what_changed_is_made_again(watched: watch.Watched, sources: Sources, tmp_path: Path) -> None:
    before = watched.file("index.html"), watched.file("runs.html"), watched.file("papers/line.html")
    assert not watched.refresh()
    run_folder(tmp_path / "runs", "walk/a", ROWS)
    assert watched.refresh()
    assert (watched.file("index.html"), watched.file("papers/line.html")) == (before[0], before[2])
    assert watched.file("runs.html") != before[1]
    assert (tmp_path / "site" / "runs.html").read_bytes() == watched.file("runs.html")
    held = [dict(check, passed=True) for check in RECORD["checks"]]
    (sources.results / "walk.json").write_text(json.dumps(record(checks=held)), encoding="utf-8")
    assert watched.refresh()
    assert watched.file("index.html") != before[0]
    assert watched.file("papers/line.html") == before[2]
    assert (tmp_path / "site" / "index.html").read_bytes() == watched.file("index.html")
    assert (tmp_path / "site" / "runs.html").read_bytes() == watched.file("runs.html")


def test_a_damaged_source_leaves_the_last_site(watched: watch.Watched, sources: Sources) -> None:
    before = watched.file("index.html")
    (sources.results / "walk.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"walk\.json"):
        watched.refresh()
    assert watched.file("index.html") == before
    (sources.results / "walk.json").write_text(json.dumps(RECORD), encoding="utf-8")
    assert watched.refresh()
    assert watched.file("index.html") == before


# -- serving -----------------------------------------------------------------------------------------------------------

Get = Callable[..., tuple[int, bytes, http.client.HTTPMessage]]


@pytest.fixture
def get(watched: watch.Watched) -> Iterator[Get]:
    """Ask the served site for a path."""
    server = watch.listening(watched, 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def ask(path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(watch.HOST, server.server_port, timeout=30)
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.headers
        connection.close()
        return found

    yield ask
    server.shutdown()
    server.server_close()


def test_pages_are_served_with_the_script_that_reloads_them(get: Get, watched: watch.Watched, tmp_path: Path) -> None:
    status, content, headers = get("/")
    assert status == 200
    assert content.replace(b'<script src="/.live.js" defer></script>', b"") == watched.file("index.html")
    assert b".live.js" not in (tmp_path / "site" / "index.html").read_bytes()
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert get("/assets/site.css")[2]["Content-Type"].startswith("text/css")
    assert get("/figures/walk.svg")[2]["Content-Type"] == "image/svg+xml"
    assert b"location.reload" in get("/.live.js")[1]
    assert get("/", method="HEAD")[1] == b""
    assert get("/", method="POST")[0] == 501


def test_the_version_of_a_page_changes_with_its_content(get: Get, watched: watch.Watched, sources: Sources) -> None:
    paths = "/.version?path=/", "/.version?path=%2Fpapers%2Fline.html", "/.version?path=/none"
    before = [get(path)[1] for path in paths]
    assert len(set(before)) == 3
    (sources.results / "walk.json").write_text(json.dumps(record(seeds=[1])), encoding="utf-8")
    watched.refresh()
    after = [get(path)[1] for path in paths]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, True]


@pytest.mark.parametrize("path", ["/none.html", "/../results/walk.json", "/%2e%2e/results/walk.json", "//etc/passwd"])
def test_nothing_else_is_served(get: Get, path: str) -> None:
    assert get(path)[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:80", 200),
        ("LOCALHOST", 200),
        ("[::1]:8766", 200),
        ("[::1]", 200),
        ("", 403),
        ("example.org", 403),
        ("127.0.0.1.example.org", 403),
        ("localhost:x", 403),
        ("192.168.0.1:8766", 403),
    ],
)
def test_only_names_of_this_machine_are_answered(get: Get, host: str, status: int) -> None:
    assert get("/", host=host)[0] == status


def test_a_port_that_is_taken_is_named(watched: watch.Watched) -> None:
    with watch.listening(watched, 0) as server, pytest.raises(InputError, match=f"--port {server.server_port}: "):
        watch.listening(watched, server.server_port)


def test_an_interrupt_ends_the_command(command: list[str], sources: Sources, tmp_path: Path) -> None:
    words = ["report", "--watch", "--port", "0", "--out", "site", "--runs", "runs"]
    words += ["--results", str(sources.results), "--papers", str(sources.papers)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *words], cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"serving site at http://127\.0\.0\.1:(\d+)/; Ctrl-C ends it\n", line)
        assert found is not None, line + process.stderr.read()
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", "/papers/walk.html")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "mindworks: the site stays in its folder; serving has ended\n"
        assert process.stderr.read() == ""
        assert process.wait(60) == 0
    assert (tmp_path / "site" / "index.html").exists()


def test_a_damaged_source_at_the_start_is_one_line(
    sources: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sources.results / "walk.json").write_text("{", encoding="utf-8")
    words = ["report", "--watch", "--port", "0", "--out", str(tmp_path / "s"), "--papers", str(sources.papers)]
    assert cli.main(words, package="toys", results=sources.results) == 2
    assert re.fullmatch(r"mindworks: damaged .*walk\.json: not JSON\n", capsys.readouterr().err)
