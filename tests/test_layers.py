"""The rules of the house, read off the source: each rule is a function, and each is shown a snippet it must refuse."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "mindworks"
FILES = sorted(SOURCE.rglob("*.py"))
NOT_DOMAINS = {"core", "data", "envs", "lab", "studies"}
HEAVY = ("matplotlib", "numpy", "scipy", "torch")
MAX_LINES, MAX_FUNCTION = 500, 60


def _module(path: Path) -> str:
    parts = ("mindworks", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    """The package right below mindworks that a module lives in; "" for the modules beside the packages."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or ((SOURCE / parts[-1]).is_dir() and len(parts) == 2) else ""


def _imports(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[str]:
    """Every module that `tree` imports, absolute; `from a import b` counts as `a.b` where `a` is in mindworks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, *([base] if base else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}" if base == "mindworks" or node.level else base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


# -- the rules: each takes a module's name and tree and gives its violations ------------------------------------------


def arrows(module: str, tree: ast.AST) -> list[str]:
    """Imports run one way: core <- domain packages and envs <- studies; the lab and the data stand apart."""
    room = _room(module)
    if room == "":
        allowed = None if module != "mindworks.cli" else {"lab", "errors", "__version__", "cli", "serving"}
    elif room == "studies":
        allowed = None
    elif room == "lab":
        allowed = {"lab", "errors", "__version__"}
    elif room in ("core", "data"):
        allowed = {room, "errors"}
    else:
        allowed = {"core", "envs", "errors", room} if room != "envs" else {"core", "envs", "errors"}
    bad = []
    for name in _imports(tree, module):
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if top != "mindworks":
            continue
        if room == "studies":
            if target == "studies" and name != module:
                bad.append(f"{module} imports the study {name}")
        elif allowed is not None and target not in allowed:
            bad.append(f"{module} imports {name}")
    return bad


def knows_no_study(module: str, tree: ast.AST) -> list[str]:
    """The lab and the command line hold no study's name."""
    names = {path.stem for path in (SOURCE / "studies").glob("*.py") if not path.stem.startswith("_")} | {"pbvf"}
    if _room(module) != "lab" and module != "mindworks.cli":
        return []
    words = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [f"{module} names the study {word!r}" for word in words if word in names]


def _top_level(tree: ast.Module) -> ast.Module:
    """What runs on import: the tree without the bodies of functions."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    return Strip().visit(ast.parse(ast.unparse(tree)))


def light_on_import(module: str, tree: ast.Module) -> list[str]:
    """The lab, the command line and studies import nothing heavy at module level."""
    if _room(module) not in ("", "lab", "studies"):
        return []
    found = (name.partition(".")[0] for name in _imports(_top_level(tree), module))
    return [f"{module} imports {name} at module level" for name in found if name in HEAVY]


# Tools that agents are given: what they are for is a file or a process.
TOOLS = {
    "mindworks.agents._confine": {"open", "os.open"},
    "mindworks.agents.files": {"os.open"},
    "mindworks.agents.sandbox": {"open", "shutil", "tempfile"},
}


def methods_do_no_io(module: str, tree: ast.AST) -> list[str]:
    """Methods know no files, no progress bars, no command line; the room of the data reads files, and so do tools."""
    if _room(module) in ("", "lab", "studies"):
        return []
    outside = {"argparse", "io", "matplotlib", "pathlib", "rich", "shutil", "tempfile", "tqdm", "tyro"}
    calls = {"open", "print", "input", "os.open"}
    if _room(module) == "data":
        outside, calls = outside - {"io", "pathlib"}, calls - {"open"}
    outside, calls = outside - TOOLS.get(module, set()), calls - TOOLS.get(module, set())
    bad = [f"{module} imports {name}" for name in _imports(tree, module) if name.partition(".")[0] in outside]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in calls:
            bad.append(f"{module}:{node.lineno} calls {ast.unparse(node.func)}")
    return bad


def no_pickle(module: str, tree: ast.AST) -> list[str]:
    """Nothing is pickled or unpickled."""
    outside = {"cloudpickle", "dill", "joblib", "pickle", "shelve"}
    bad = [f"{module} imports {name}" for name in _imports(tree, module) if name.partition(".")[0] in outside]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        pickles = any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords)
        if called in ("torch.load", "torch.save") or pickles:
            bad.append(f"{module}:{node.lineno} calls {called}")
    return bad


def no_stub(module: str, tree: ast.AST) -> list[str]:
    """Nothing is left unfinished."""
    bad = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.unparse(node.exc):
            bad.append(f"{module}:{node.lineno} raises NotImplementedError")
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not _protocol(tree, node):
            body = [part for part in node.body if not _is_docstring(part)]
            empty = [part for part in body if isinstance(part, ast.Pass) or ast.unparse(part) == "..."]
            if body and len(body) == len(empty):
                bad.append(f"{module}:{node.lineno} {node.name} has no body")
    return bad


def _protocol(tree: ast.AST, function: ast.AST) -> bool:
    owners = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and function in node.body)
    return any("Protocol" in ast.unparse(base) for owner in owners for base in owner.bases)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def short_functions(module: str, tree: ast.AST) -> list[str]:
    """No function is longer than a screen."""
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    sized = ((node, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions)
    return [f"{module}:{node.lineno} {node.name} has {size} lines" for node, size in sized if size > MAX_FUNCTION]


def docstrings(module: str, tree: ast.Module) -> list[str]:
    """Modules and public functions, classes and methods say what they do."""
    bad = [] if ast.get_docstring(tree) else [f"{module} has no docstring"]

    def visit(body: list[ast.stmt], inherits: bool) -> None:
        for node in body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
                continue
            overloaded = any("overload" in ast.unparse(mark) for mark in node.decorator_list)
            overrides = inherits or any("setter" in ast.unparse(mark) for mark in node.decorator_list)
            if not ast.get_docstring(node) and not overloaded and not overrides:
                bad.append(f"{module}:{node.lineno} {node.name} has no docstring")
            if isinstance(node, ast.ClassDef):
                visit(node.body, bool(node.bases))

    visit(tree.body, False)
    return bad


RULES = [
    arrows,
    knows_no_study,
    light_on_import,
    methods_do_no_io,
    no_pickle,
    no_stub,
    short_functions,
    docstrings,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule) -> None:
    assert [bad for path in FILES for bad in rule(_module(path), ast.parse(path.read_text(encoding="utf-8")))] == []


_LONG = '"""D."""\ndef f():\n    """D."""\n' + "    x = 1\n" * 60
SNIPPETS = [
    (arrows, "mindworks.core.x", "import mindworks.policies"),
    (arrows, "mindworks.core.x", "from mindworks import envs"),
    (arrows, "mindworks.core.x", "from ..lab import RunLog"),
    (arrows, "mindworks.core.x", "import mindworks as mw"),
    (arrows, "mindworks.core.x", "import importlib\nx = importlib.import_module('mindworks.lab')"),
    (arrows, "mindworks.envs.x", "from mindworks.policies import PSSVF"),
    (arrows, "mindworks.policies.x", "from mindworks.lab import Check"),
    (arrows, "mindworks.policies.x", "def f():\n    from mindworks.studies import pbvf"),
    (arrows, "mindworks.policies.x", "from mindworks.planning import vin"),
    (arrows, "mindworks.policies.x", "from mindworks.data import digits"),
    (arrows, "mindworks.core.x", "def f():\n    from mindworks.data import digits"),
    (arrows, "mindworks.envs.x", "from mindworks.data import digits"),
    (arrows, "mindworks.data.x", "from mindworks.core import population"),
    (arrows, "mindworks.data.x", "from mindworks.lab import Check"),
    (arrows, "mindworks.lab.x", "from mindworks.core import population"),
    (arrows, "mindworks.lab.x", "from mindworks.studies import pbvf"),
    (arrows, "mindworks.studies.a", "from mindworks.studies.b import Config"),
    (arrows, "mindworks.studies.a", "from .b import Config"),
    (arrows, "mindworks.cli", "from mindworks.policies import PSSVF"),
    (knows_no_study, "mindworks.lab.x", "x = 'pbvf'"),
    (light_on_import, "mindworks.lab.x", "import torch.nn as nn"),
    (light_on_import, "mindworks.cli", "try:\n    from numpy import array\nexcept ImportError:\n    pass"),
    (light_on_import, "mindworks.studies.x", "class A:\n    import matplotlib.pyplot"),
    (methods_do_no_io, "mindworks.core.x", "from pathlib import Path"),
    (methods_do_no_io, "mindworks.policies.x", "def f():\n    return open('x')"),
    (methods_do_no_io, "mindworks.envs.x", "print(1)"),
    (methods_do_no_io, "mindworks.policies.x", "from rich.progress import track"),
    (methods_do_no_io, "mindworks.data.x", "from tqdm import tqdm"),
    (methods_do_no_io, "mindworks.data.x", "print(1)"),
    (no_pickle, "mindworks.lab.x", "import pickle"),
    (no_pickle, "mindworks.policies.x", "torch.load('x')"),
    (no_pickle, "mindworks.policies.x", "torch.save(x, 'x')"),
    (no_pickle, "mindworks.lab.x", "np.load('x', allow_pickle=True)"),
    (no_stub, "mindworks.core.x", "def f():\n    raise NotImplementedError('later')"),
    (no_stub, "mindworks.core.x", "def f():\n    '''D.'''\n    ..."),
    (no_stub, "mindworks.core.x", "def f():\n    pass"),
    (short_functions, "mindworks.core.x", _LONG),
    (docstrings, "mindworks.core.x", "x = 1"),
    (docstrings, "mindworks.core.x", "'''D.'''\ndef f():\n    return 1"),
    (docstrings, "mindworks.core.x", "'''D.'''\nclass A:\n    '''D.'''\n    def f(self):\n        return 1"),
]


@pytest.mark.parametrize(("rule", "module", "snippet"), SNIPPETS)
def test_each_rule_can_fail(rule, module: str, snippet: str) -> None:
    assert len(rule(module, ast.parse(snippet))) == 1


@pytest.mark.parametrize(
    ("rule", "module", "snippet"),
    [
        (arrows, "mindworks.policies.x", "import torch\nfrom mindworks.core import population\nfrom .y import z"),
        (arrows, "mindworks.studies.a", "import mindworks as mw\nfrom mindworks.lab import Study"),
        (arrows, "mindworks.studies.a", "def run():\n    from mindworks.data import digits"),
        (arrows, "mindworks.data.x", "from mindworks.data.images import Images\nfrom mindworks.errors import require"),
        (methods_do_no_io, "mindworks.data.x", "from pathlib import Path\nopen('x')"),
        (light_on_import, "mindworks.lab.x", "def f():\n    import torch"),
        (light_on_import, "mindworks.policies.x", "import torch"),
        (methods_do_no_io, "mindworks.lab.x", "from pathlib import Path\nopen('x')"),
        (no_pickle, "mindworks.lab.x", "np.load('x', allow_pickle=False)"),
        (no_stub, "mindworks.core.x", "class P(Protocol):\n    def f(self) -> int: ..."),
        (docstrings, "mindworks.core.x", "'''D.'''\ndef _f():\n    return 1"),
    ],
)
def test_each_rule_lets_good_code_pass(rule, module: str, snippet: str) -> None:
    assert rule(module, ast.parse(snippet)) == []


def _crowded(files: list[Path]) -> list[str]:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    return [f"{path.name} has {length} lines" for path, length in lengths.items() if length >= MAX_LINES]


def test_files_stay_small(tmp_path: Path) -> None:
    assert _crowded(FILES) == []
    (tmp_path / "long.py").write_text("x = 1\n" * MAX_LINES)
    assert _crowded([tmp_path / "long.py"]) == [f"long.py has {MAX_LINES} lines"]


def _unfinished(files: list[Path]) -> list[str]:
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b")
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    return [f"{path.name}: {mark.group()}" for path, text in texts.items() for mark in marks.finditer(text)]


def test_nothing_is_marked_as_unfinished(tmp_path: Path) -> None:
    assert _unfinished(FILES) == []
    (tmp_path / "part.py").write_text("x = 1  # TODO: the rest\n")
    assert _unfinished([tmp_path / "part.py"]) == ["part.py: TODO"]


def _empty_packages(source: Path) -> list[str]:
    """Packages in which no module holds anything but a docstring; the folder of studies fills by itself."""
    empty = []
    for package in sorted(path.parent for path in source.rglob("__init__.py")):
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")]
        if all(_is_docstring(node) for tree in trees for node in tree.body):
            empty.append(package.name)
    return empty


def test_no_room_is_empty(tmp_path: Path) -> None:
    assert _empty_packages(SOURCE) == []
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").write_text('"""Soon."""\n')
    assert _empty_packages(tmp_path) == ["room"]


_LIGHT = """
import pkgutil, sys
import mindworks, mindworks.cli, mindworks.lab, mindworks.studies
for module in pkgutil.iter_modules(mindworks.studies.__path__):
    __import__(f"mindworks.studies.{module.name}")
loaded = [name for name in %r if name in sys.modules]
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""


def test_nothing_heavy_is_loaded_on_the_way_to_help() -> None:
    def ended(start: str) -> subprocess.CompletedProcess[str]:
        script = start + _LIGHT % (HEAVY,)
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    light = ended("")
    assert light.returncode == 0, light.stderr
    assert "loaded: ['numpy']" in ended("import numpy").stderr


def test_fields_of_every_study_say_what_they_mean() -> None:
    import dataclasses

    from mindworks.lab import discovery, fields

    for name in discovery.names():
        config = discovery.find(name).config
        missing = {field.name for field in dataclasses.fields(config)} - set(fields.docstrings(config))
        assert not missing, f"{name}: fields without a docstring: {sorted(missing)}"
