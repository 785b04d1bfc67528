"""What is installed, what it runs on, what is missing and how to get it, and whether the essentials work."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from importlib import metadata
from pathlib import Path

from mindworks.errors import InputError
from mindworks.lab.record import cores, processor, version

_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


def requirements(distribution: str = "mindworks") -> dict[str, list[str]]:
    """Distributions required by each extra ("" for none), as the installed metadata of `distribution` lists them."""
    try:
        extras = metadata.metadata(distribution).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError as error:
        raise InputError(f"{distribution} is not installed: pip install -e .") from error
    found: dict[str, list[str]] = {extra: [] for extra in ("", *extras)}
    for line in metadata.requires(distribution) or []:
        match, condition = _REQUIREMENT.match(line), _EXTRA.search(line)
        if match is not None and match.group() != distribution:
            found[condition.group(1) if condition else ""].append(match.group())
    return found


def report() -> tuple[list[str], bool]:
    """The lines of the report, and whether everything required is there and works."""
    needs = requirements()
    missing = [name for name in needs[""] if version(name) is None]
    lines = [f"{name:<16} {version(name) or 'missing'}" for name in ("mindworks", *needs.pop(""))]
    lines.insert(1, f"{'python':<16} {platform.python_version()}")
    if missing:
        return [*lines, f"missing: pip install {' '.join(missing)}"], False
    lines += [f"{'processor':<16} {processor()}, {cores()} usable", *_device(), "", "extras"]
    lines += [f"  {extra:<14} {_extra(extra, names)}" for extra, names in sorted(needs.items())]
    complaint = self_test()
    return [*lines, "", f"self-test        {complaint or 'ok'}"], complaint is None


def _extra(extra: str, names: list[str]) -> str:
    absent = [name for name in names if version(name) is None]
    if absent:
        return f"lacks {', '.join(absent)}: pip install 'mindworks[{extra}]'"
    return ", ".join(f"{name} {version(name)}" for name in names) or "nothing to install"


def _device() -> list[str]:
    import torch

    if torch.cuda.is_available():
        device = f"cuda ({torch.cuda.get_device_name()})"
    else:
        device = "mps" if torch.backends.mps.is_available() else "cpu"
    threads = f"{torch.get_num_threads()} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})"
    return [f"{'device':<16} {device}", f"{'torch threads':<16} {threads}"]


def self_test() -> str | None:
    """None when a seeded product and a checkpoint's round trip come out right; else what went wrong."""
    import torch

    from mindworks.lab import checkpoint

    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 256, 256, generator=generator, dtype=torch.float64)
    product = left @ right
    rows = torch.einsum("ij,jk->ik", left[:4], right)
    if not torch.allclose(product[:4], rows, rtol=1e-10, atol=1e-10):
        return "a matrix product is wrong"
    again = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if not torch.equal(again[0], left):
        return "the same seed gives different numbers"
    state = {"product": product, "generator": generator.get_state(), "step": 7}
    try:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder), state)
            back = checkpoint.load(Path(folder))
    except OSError as error:
        return f"a checkpoint cannot be written: {error}"
    same = torch.equal(back["product"], product) and torch.equal(back["generator"], state["generator"])
    return None if same and back["step"] == 7 else "a checkpoint comes back changed"
