"""A site's folder: built aside, then put in the place of the old one, and of nothing that is not a site."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mindworks.errors import InputError, require

MARKER = ".mindworks-site"
_NOTE = "mindworks report made this folder and replaces it as a whole.\n"


def check(out: Path) -> None:
    """Refuse a place that holds something else: a file, a link, or a folder without the marker that is not empty."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {out}: it is there already and is no folder")
    if out.is_dir():
        mine = (out / MARKER).is_file() or not any(out.iterdir())
        require(mine, f"--out {out}: the folder holds other things than a site; name a new one")
        cwd = Path.cwd().resolve()
        inside = out.resolve() == cwd or out.resolve() in cwd.parents
        require(not inside, f"--out {out}: the folder cannot be replaced while it is the current one")


def replace(out: Path, files: Mapping[str, bytes]) -> None:
    """Make `out` a folder of `files`; a failure leaves what was there. Raises InputError where `check` does."""
    check(out)
    parent = out.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.new.", dir=parent))
    except OSError as error:
        raise InputError(f"--out {out}: no folder can be made there ({error.strerror})") from error
    try:
        os.chmod(aside, 0o755)
        for name, content in {MARKER: _NOTE.encode(), **files}.items():
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        _swap(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(new: Path, out: Path) -> None:
    if not out.exists():
        os.rename(new, out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    os.rename(out, old / "site")
    try:
        os.rename(new, out)
    except OSError:
        os.rename(old / "site", out)
        raise
    finally:
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
