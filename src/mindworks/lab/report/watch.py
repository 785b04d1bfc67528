"""A site that is served on this machine alone and follows the records, the pages and the runs."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from mindworks.errors import InputError
from mindworks.lab.report import output, runs, site
from mindworks.lab.report.sources import Sources

HOST = "127.0.0.1"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_LIVE = b'<script src="/.live.js" defer></script></body>'
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; style-src 'self' 'unsafe-inline'"
)


class Watched:
    """The files of a site in memory, made again when their sources change; each look costs a few file times."""

    def __init__(self, sources: Sources, out: Path) -> None:
        self.sources, self.out = sources, out
        self._lock = threading.Lock()
        self._files: dict[str, bytes] = {}
        self._pages_seen: object = None
        self._runs_seen: object = None

    def file(self, address: str) -> bytes | None:
        """The content at `address`, or None."""
        with self._lock:
            return self._files.get(address)

    def refresh(self) -> bool:
        """Look for changes and make what they touch; whether there were any. Raises InputError on a damaged source."""
        seen, runs_seen = _stamps(self.sources), _runs_stamps(self.sources)
        changed: dict[str, bytes] = {}
        if runs_seen != self._runs_seen:
            changed = runs_page(self.sources)
        if seen != self._pages_seen:
            with self._lock:
                kept = {name: self._files[name] for name in ("runs.html",) if name in self._files}
            changed = site.build(self.sources) | kept | changed
            output.replace(self.out, changed)
            with self._lock:
                self._files = changed
        elif changed:
            for name, content in changed.items():
                _write(self.out / name, content)
            with self._lock:
                self._files |= changed
        self._pages_seen, self._runs_seen = seen, runs_seen
        return bool(changed)


def _runs_stamps(sources: Sources) -> object:
    """What changes when a run among those shown goes on, starts or ends."""
    folders = [] if sources.runs is None else runs.newest(sources.runs)
    return len(folders), [(folder, runs.running(folder), runs.stamps(folder)) for folder in folders[: runs.SHOWN]]


def runs_page(sources: Sources) -> dict[str, bytes]:
    """The page of the runs, by its address; nothing where no folder of runs is asked for."""
    if sources.runs is None:
        return {}
    folders = runs.newest(sources.runs)
    found = [runs.read(folder, sources.runs) for folder in folders[: runs.SHOWN]]
    older = max(0, len(folders) - runs.SHOWN)
    env = site.environment(runs=True)
    return {"runs.html": site.page(env, "runs.html", "", found=found, older=older, folder=str(sources.runs))}


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content)
    os.replace(aside, path)


def _stamps(sources: Sources) -> list[tuple[str, int, int]]:
    """Name, time of change and size of every source of the pages."""
    places: Iterable[Path] = (
        *sources.results.glob("*.json"),
        *sources.results.glob("benchmarks/*.json"),
        *sources.papers.glob("*.md"),
        *sources.papers.glob("*.toml"),
        *sources.papers.glob("figures/*"),
        *sources.papers.parent.glob("*.md"),
    )
    found = []
    for path in sorted(places):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((str(path), status.st_mtime_ns, status.st_size))
    return found


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the files of a site to requests that name this machine."""

    server_version = "mindworks"
    sys_version = ""
    timeout = 30

    def __init__(self, watched: Watched, *arguments: object) -> None:
        self._watched = watched
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """A file of the site, the script that reloads a page, or the version of a page."""
        if not _is_loopback(self.headers.get("Host", "")):
            return self._answer(HTTPStatus.FORBIDDEN, b"only for names of this machine\n", "text/plain")
        split = urlsplit(self.path)
        address = _address(split.path)
        if address == ".live.js":
            return self._answer(HTTPStatus.OK, site.asset("live.js"), _TYPES[".js"])
        if address == ".version":
            return self._version(parse_qs(split.query).get("path", [""])[0])
        content = self._watched.file(address)
        if content is None:
            return self._answer(HTTPStatus.NOT_FOUND, b"there is no such page\n", "text/plain")
        kind = _TYPES.get(Path(address).suffix, "application/octet-stream")
        if address.endswith(".html"):
            content = content.replace(b"</body>", _LIVE)
        return self._answer(HTTPStatus.OK, content, kind)

    def _version(self, path: str) -> None:
        content = self._watched.file(_address(path))
        known = b"none" if content is None else hashlib.sha256(content).hexdigest().encode()
        self._answer(HTTPStatus.OK, known, "text/plain")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store"}
        headers |= {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not printed."""


def _address(path: str) -> str:
    return unquote(path).lstrip("/") or "index.html"


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine, with or without a port."""
    name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
    return name.lower() in _LOOPBACK and (not port or port.isdigit())


def listening(watched: Watched, port: int) -> ThreadingHTTPServer:
    """A server for the site at `port`, or at a free one for 0; raises InputError where the port is taken."""
    try:
        server = ThreadingHTTPServer((HOST, port), partial(Handler, watched))
    except OSError as error:
        raise InputError(f"--port {port}: {HOST} refuses it ({error.strerror})") from error
    server.daemon_threads = True
    return server


def follow(watched: Watched) -> None:
    """Refresh until an interrupt; a source that is damaged for now is named once, and the last good site stays."""
    complaint = ""
    while True:
        began = time.monotonic()
        try:
            watched.refresh()
            complaint = ""
        except (InputError, OSError) as error:
            if str(error) != complaint:
                complaint = str(error)
                print(f"mindworks: {complaint}; the last site stays", file=sys.stderr, flush=True)
        time.sleep(max(0.5, 10 * (time.monotonic() - began)))
