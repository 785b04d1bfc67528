"""The pages are true: their code runs, their links and commands exist, their tables are what the records say."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mindworks import __version__, cli, serving
from mindworks.core import divergences
from mindworks.errors import InputError
from mindworks.lab import discovery, flags
from mindworks.lab.sweep import command as sweeps
from mindworks.lab.sweep.grid import points

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
PROGRAMS = ("mindworks", "make", "python", "pip", "source")

_spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "scripts" / "docs_tables.py")
assert _spec is not None
assert _spec.loader is not None
docs_tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(docs_tables)


def tokens(text: str) -> Iterator[Token]:
    """All tokens of a page, those inside paragraphs too."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or ()


def code(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [token.content for token in tokens(text) if token.type == "fence" and token.info.strip() == language]


# -- Python blocks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code(page.read_text(encoding="utf-8"), "python")], ids=lambda page: page.name
)
def test_code_runs_as_written(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergences, "_RULES", dict(divergences._RULES))  # a page adds families; no other test has them
    namespace: dict[str, object] = {"__name__": page.stem}
    for number, block in enumerate(code(page.read_text(encoding="utf-8"), "python")):
        exec(compile(block, f"{page.name}, block {number}", "exec", dont_inherit=True), namespace)


def test_code_is_found() -> None:
    assert code("# T\n\n```python\nx = 1\n```\n\n```sh\nls\n```\n", "python") == ["x = 1\n"]
    assert all(code((ROOT / name).read_text(encoding="utf-8"), "python") for name in ("README.md", _first_page()))


def _first_page() -> str:
    return discovery.find(discovery.names()[0]).docs


# -- links ------------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = MarkdownIt("commonmark").parse(text)
    titles = [found[i + 1].content for i, token in enumerate(found) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(text: str) -> Iterator[tuple[str, str]]:
    """(what it points to, the code it shows or "") of every link and image."""
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        children = block.children or []
        for i, token in enumerate(children):
            if token.type == "image":
                yield str(token.attrs["src"]), ""
            elif token.type == "link_open":
                shown = children[i + 1]
                yield str(token.attrs["href"]), shown.content if shown.type == "code_inline" else ""


def broken_links(page: Path, text: str) -> list[str]:
    """Links of `text`, standing at `page`, to files, headings or definitions that are not there."""
    bad = []
    for target, shown in links(text):
        if re.match(r"\w+:", target):
            bad += [] if target.startswith("https://") else [target]
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        content = text if not name else path.read_text(encoding="utf-8") if path.is_file() else None
        no_heading = bool(anchor) and content is not None and anchor not in anchors(content)
        no_name = bool(shown) and path.suffix == ".py" and content is not None and shown not in definitions(content)
        if content is None or no_heading or no_name or ROOT not in path.parents:
            bad.append(f"{target} {shown}".strip())
    return bad


def definitions(source: str) -> set[str]:
    """Functions, classes, methods and module constants that a file defines."""
    tree, kinds = ast.parse(source), (ast.AsyncFunctionDef, ast.ClassDef, ast.FunctionDef)
    found = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
    return found | {
        ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    }


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found() -> None:
    good = "# A b\n\n[x](#a-b) [y](CHANGELOG.md) [`require`](src/mindworks/errors.py) [z](https://arxiv.org)\n"
    bad = "[a](#none) [b](NONE.md) [`none`](src/mindworks/errors.py) [c](http://x.org) ![d](none.svg) [e](../none.md)\n"
    assert broken_links(ROOT / "README.md", good) == []
    assert len(broken_links(ROOT / "README.md", bad)) == 6


# -- commands ---------------------------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[str]:
    """Every line of the shell blocks, and every code span that starts with a program."""
    for token in tokens(text):
        if token.type == "fence" and token.info.strip() == "sh":
            yield from (line for line in token.content.splitlines() if line.strip())
        elif token.type == "code_inline" and _program(token.content) in PROGRAMS and " " in token.content:
            yield token.content


def _program(line: str) -> str:
    return line.split()[0].removeprefix(".venv/bin/") if line.split() else ""


def _placeholder(word: str) -> bool:
    return re.fullmatch(r"[A-Z]+|\.\.\.", word) is not None


def wrong(line: str) -> str | None:
    """Why a command cannot be right, or None."""
    program, *words = shlex.split(line, comments=True)
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        return None if words and set(words) <= targets else f"no such target: {line}"
    if program == "mindworks":
        return _wrong_mindworks(words)
    if program == "python":
        return _wrong_python(words)
    if program == "pip":
        return _wrong_pip(words)
    return None if program == "source" else f"unknown program: {line}"


def _wrong_mindworks(words: list[str]) -> str | None:
    known = set(re.findall(r"^  (\w+) ", cli.HELP, re.MULTILINE))
    if words[:1] in (["--help"], ["--version"]):
        return None
    if not words or words[0] not in known:
        return f"no such subcommand: {words}"
    if words[0] in ("list", "doctor"):
        return None if len(words) == 1 else f"{words[0]} takes no argument: {words}"
    if words[0] == "serve":
        return _wrong_serve(words[1:])
    if words[0] in cli.MODULES:
        return _wrong_words(words[0], words[1:])
    if len(words) < 2 or not (_placeholder(words[1]) or words[1] in discovery.names()):
        return f"no such study: {words}"
    return _wrong_flags(words[1], words[2:]) if words[0] == "run" else None


def _wrong_serve(words: list[str]) -> str | None:
    if not words or "--help" in words:
        return None
    try:
        serving.understood(words)
    except InputError as error:
        return str(error)
    return None


def _wrong_words(command: str, words: list[str]) -> str | None:
    """Words of a command with a module of its own: its help knows each flag; those of a sweep are read as it reads."""
    known = set(re.findall(r"--\w[\w-]*", importlib.import_module(cli.MODULES[command]).HELP)) | {"--help"}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    if command != "sweep" or not words or words == ["--help"]:
        return None if given <= known else f"{command} does not know {sorted(given - known)}"
    if not (_placeholder(words[0]) or words[0] in discovery.names()):
        return f"no such study: {words}"
    if any(_placeholder(word) for word in words):
        return _wrong_flags(words[0], [flag for flag in sorted(given - known) for flag in (flag, "X")])
    try:
        _, lists, _, rest = sweeps._split(words[1:])
        points(discovery.find(words[0]), rest, lists["--grid"])
    except InputError as error:
        return str(error)
    return None


def _wrong_flags(name: str, words: list[str]) -> str | None:
    study = discovery.find(discovery.names()[0] if _placeholder(name) else name)
    if any(_placeholder(word) for word in words) or "--help" in words or "--resume" in words:
        options = flags._Words(flags.Options("cpu", 0, 1, ""), study.defaults("cpu"))
        known = {flags.flag_of(each) for each in flags._names(options)} | {"--help", "--FIELD"}
        given = [word for word in words if word.startswith("--")]
        return None if set(given) <= known else f"no such flag: {sorted(set(given) - known)}"
    try:
        flags.parse(study, words)
    except InputError as error:
        return str(error)
    return None


def _wrong_python(words: list[str]) -> str | None:
    if words[:2] == ["-m", "pytest"]:
        return None if all((ROOT / word).exists() for word in words[2:]) else f"no such test: {words}"
    path = ROOT / (words[0] if words else "")
    if not path.is_file():
        return f"no such script: {words}"
    source = path.read_text(encoding="utf-8")
    missing = [word for word in words[1:] if word.startswith("--") and f'"{word}"' not in source]
    return f"{words[0]} does not know {missing}" if missing else None


def _wrong_pip(words: list[str]) -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {extra for word in words for part in re.findall(r"\[([\w,]+)\]", word) for extra in part.split(",")}
    unknown = asked - set(project["optional-dependencies"])
    return f"no such extra: {sorted(unknown)}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist(page: Path) -> None:
    found = list(commands(page.read_text(encoding="utf-8")))
    assert [complaint for line in found if (complaint := wrong(line))] == []


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "mindworks fly",
        "mindworks list pbvf",
        "mindworks show nobody",
        "mindworks run pbvf --scale huge",
        "mindworks serve nobody",
        "mindworks serve swarm --port many",
        "mindworks run pbvf --no-such-field 3",
        "mindworks run pbvf --no-such-field N",
        "mindworks run pbvf --cartpole-steps many",
        "mindworks sweep nobody",
        "mindworks sweep rwr --grid no_such_field=1,2",
        "mindworks sweep rwr --grid iterations=many",
        "mindworks sweep NAME --no-such-flag N",
        "mindworks runs --no-such-flag",
        "mindworks compare DIR DIR --no-such-flag KEY",
        "mindworks claims --no-such-flag",
        "mindworks report --no-such-flag",
        "python scripts/none.py",
        "python scripts/docs_tables.py --none",
        "python -m pytest tests/none.py",
        "pip install 'mindworks[none]'",
        "rm -rf x",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    assert wrong(line) is not None
    assert list(commands(f"```sh\n{line}  # why\n```\n")) == [f"{line}  # why"]


def test_commands_are_found_in_text_and_in_tables() -> None:
    text = "Run `make demo` or `mindworks list`.\n\n| a |\n|---|\n| `.venv/bin/python x.py`, `mindworks` |\n"
    assert list(commands(text)) == ["make demo", "mindworks list", ".venv/bin/python x.py"]
    assert wrong("mindworks run NAME --seeds N --resume DIR") is None
    assert wrong("mindworks sweep NAME --grid FIELD=A,B --seeds N") is None
    assert wrong("mindworks sweep rwr --grid iterations=200,400 --mdps 20 --workers 2") is None


# -- paths and versions -----------------------------------------------------------------------------------------------


def strange_paths(text: str) -> list[str]:
    """Paths of one machine, and paths of this repository that are not there."""
    bad = re.findall(r"(?<![\w.])/(?:home|root|work|tmp|mnt|Users)/\S*", text)
    spans = (token.content for token in tokens(text) if token.type == "code_inline")
    inside = (span for span in spans if re.fullmatch(r"(?:src|tests|scripts|benchmarks|docs)/[\w./-]+", span))
    return bad + [
        span for span in inside if not re.search(r"\b(?:\w+_)?[A-Z]{2,}", span) and not (ROOT / span).exists()
    ]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_paths_are_those_of_the_repository(page: Path) -> None:
    assert strange_paths(page.read_text(encoding="utf-8")) == []


def test_a_strange_path_is_found() -> None:
    assert strange_paths("`src/mindworks/` `docs/papers/NAME.md` https://x.org/home/a") == []
    assert len(strange_paths("see /home/me/x and `src/none.py`")) == 2


def test_version_and_date_agree_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d\S*)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert newest is not None
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [newest[1]] == [__version__]
    assert re.findall(r"^date-released: (\S+)$", citation, re.MULTILINE) == [newest[2]]


# -- one page per study -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", discovery.names())
def test_every_study_has_its_page(name: str) -> None:
    study = discovery.find(name)
    page = ROOT / study.docs
    text = page.read_text(encoding="utf-8")
    assert page.stem == name
    assert "<!-- record:begin -->" in text
    assert [block.strip() for block in code(text, "bibtex")] == [study.bibtex.strip()]
    assert f"({page.relative_to(ROOT / 'docs')})" in (ROOT / "docs" / "README.md").read_text(encoding="utf-8")


# -- settings that a page repeats --------------------------------------------------------------------------------------


def rows_under(page: str, heading: str) -> dict[str, list[str]]:
    """The table rows of one section that start with a code span: its content and the other cells."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_settings_of_the_generator_are_those_of_the_code() -> None:
    from mindworks.policies import GoGePoConfig
    from mindworks.studies.gogepo import ABLATIONS, PUBLISHED

    page = (ROOT / "docs" / "papers" / "gogepo.md").read_text(encoding="utf-8")
    shown = {name: row[:2] for name, row in rows_under(page, "The recipe and the published settings").items()}
    assert shown == {name: [str(getattr(GoGePoConfig(), name)), str(value)] for name, value in PUBLISHED.items()}
    rows = rows_under(page, "What each row of the ablation means")
    changes = {name: row[0].removeprefix("`UDRLPG`, ") for name, row in rows.items()}
    wanted = {name: ", ".join(f"`{k}={v}`" for k, v in parts.items()) or "none" for name, parts in ABLATIONS.items()}
    assert list(changes.items()) == list(wanted.items())


def test_the_settings_of_pois_are_those_of_the_code() -> None:
    from mindworks.policies import POISConfig

    page = (ROOT / "docs" / "papers" / "pois.md").read_text(encoding="utf-8")
    shown = {name: row[:2] for name, row in rows_under(page, "The settings").items()}
    both = POISConfig(), POISConfig.action_based()
    assert shown == {name: [str(getattr(config, name)) for config in both] for name in shown}


# -- generated tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", docs_tables.pages(), ids=lambda page: page.name)
def test_tables_are_what_the_records_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert docs_tables.expected(text, page.stem, ROOT / "results") == text, "stale: run scripts/docs_tables.py"


RECORD = {
    "scale": "cpu",
    "seeds": [3, 4],
    "checks": [
        {"claim": "a|b", "value": 0.98765, "op": ">=", "bar": 0.9, "passed": True},
        {"claim": "c", "value": None, "op": "<=", "bar": 1, "passed": False},
    ],
    "tables": {
        "final return": {"task": {"iqm": 12.5, "low": 10.0, "high": 15.0, "seeds": [10.0, 15.0]}},
        "fresh": {"part": [{"before": 1.0, "best_in_data": 2.0}, {"before": 3.0, "best_in_data": None}]},
        "correlation": [0.5, 0.25],
        "students": {"teacher": [500.0, 450.5], "learned": [499.0, None]},
        "on command": {"one": {"seen": [[8.0, 87.0], [9.0, 500.0]], "error_in": [4.0, 5.0], "tried": [40, None]}},
        "more": {"task": {"iqm": 2.0, "low": 1.0, "high": 3.0, "mean": 2.5, "seeds": [1.0], "batch 4": 0.5}},
        "plain": {"one": {"largest_fall": 1e-17, "tried": 3}},
        "single": {"one": {"error": [0.25]}},
        "nothing": {},
    },
    "timing": {"wall_s": 60.4, "cpu_s": 100.6},
    "environment": {
        "mindworks": "1.2.3",
        "commit": "0123456789abcdef0123456789abcdef01234567-dirty",
        "torch": "2",
        "python": "3",
        "cpu": "C",
        "threads": 1,
    },
}


def test_a_record_becomes_tables() -> None:
    block = docs_tables.record_block(RECORD)
    assert "Scale cpu, 2 seeds (3 to 4), 101 CPU seconds (60 on the clock)." in block
    assert "commit 0123456789ab-dirty," in block
    for row in (
        "| a\\|b | 0.9877 | >= 0.9 | holds |",
        "| c | none | <= 1 | **does not hold** |",
        "| `task` | 12.5 | 10 to 15 | 10, 15 |",
        "| `part` | 4 | 3 | none |",
        "| fresh | seed | before | best in data |",
        "|  | seed 3 | seed 4 |",
        "| correlation | 0.5 | 0.25 |",
        "| students | seed 3 | seed 4 |",
        "| `learned` | 499 | none |",
        "| on command: median (per seed) | seen | error in | tried |",
        "| `one` | 8 to 87, 9 to 500 | 4.5 (4, 5) | 40, none |",
        "| more | interquartile mean | 95 % interval | batch 4 | per seed |",
        "| `task` | 2 | 1 to 3 | 0.5 | 1 |",
        "| plain | largest fall | tried |",
        "| `one` | 1e-17 | 3 |",
        "| single | error |",
        "| `one` | 0.25 |",
    ):
        assert row in block.splitlines()
    assert "nothing" not in block
    assert "interval is" not in block
    assert docs_tables.record_block(None) == "No record yet."


def test_claims_show_the_intervals_that_a_record_has() -> None:
    known = {"value": 0.5, "op": ">=", "bar": 0.25, "passed": True}
    checks = [
        {"claim": "a", **known, "each": [0.0, 1.0], "interval": [0.12345, 1.0]},
        {"claim": "b", **known},
        {"claim": "c", **known, "each": [None, 1.0], "interval": [None, None]},
    ]
    lines = docs_tables.claims({"checks": checks}).splitlines()
    assert lines[0] == "| claim | measured | 95 % interval | bar | verdict |"
    assert lines[1].count("---") == 5
    assert lines[2:5] == [
        "| a | 0.5 | 0.1235 to 1 | >= 0.25 | holds |",
        "| b | 0.5 |  | >= 0.25 | holds |",
        "| c | 0.5 | none | >= 0.25 | holds |",
    ]
    assert lines[5:] == ["", docs_tables.INTERVALS]
    assert docs_tables.claims({"checks": checks[1:2]}).splitlines()[0] == "| claim | measured | bar | verdict |"


def test_a_page_is_stale_when_its_record_changes(tmp_path: Path) -> None:
    page = "a\n<!-- record:begin -->\nold\n<!-- record:end -->\nz\n"
    empty = docs_tables.expected(page, "x", tmp_path)
    assert empty == "a\n<!-- record:begin -->\nNo record yet.\n<!-- record:end -->\nz\n"
    (tmp_path / "x.json").write_text(docs_tables.json.dumps(RECORD), encoding="utf-8")
    full = docs_tables.expected(empty, "x", tmp_path)
    assert "does not hold" in full
    assert docs_tables.expected(full, "x", tmp_path) == full
    assert docs_tables.expected("no markers\n", "x", tmp_path) == "no markers\n"
    for bad in (page + page, page.replace(":end", ":and"), "<!-- record:end -->\n<!-- record:begin -->\n"):
        with pytest.raises(SystemExit, match="once each"):
            docs_tables.expected(bad, "x", tmp_path)


def test_a_page_shows_the_benchmarks_it_names(tmp_path: Path) -> None:
    records = tmp_path / "benchmarks"
    records.mkdir()
    row = {"case": "k", "ours_us": 1.0, "peer_us": 2.0, "ratio": 2.0, "bar": 3.0, "passed": False}
    made = {"date": "2026-01-01", "cpu": "C", "threads": 1, "torch": "2"}
    page = "<!-- benchmarks:begin{} -->\n<!-- benchmarks:end -->\n"
    assert "No record yet." in docs_tables.expected(page.format(""), "x", tmp_path)
    for name in ("vs_a", "vs_b"):
        record = {"benchmark": name, "rows": [row], "environment": made}
        (records / f"{name}.json").write_text(docs_tables.json.dumps(record), encoding="utf-8")
    one, both = (docs_tables.expected(page.format(names), "x", tmp_path) for names in (" vs_b", ""))
    assert "### vs_b" in one
    assert "### vs_a" not in one
    assert "2.00 | 3, missed |" in one
    assert both.count("###") == 2
    with pytest.raises(SystemExit, match="no record of the benchmark vs_c"):
        docs_tables.expected(page.format(" vs_c"), "x", tmp_path)


def test_the_tables_of_the_benchmarks_page_are_current() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- tables:begin -->")[1].split("<!-- tables:end -->")[0]
    assert shown.strip() == docs_tables.benchmarks_block([], ROOT / "results"), "stale: run benchmarks/tables.py"
