"""Mindworks: methods from eighteen papers on learning machines, and studies that check what the papers claim.

>>> import mindworks as mw            # milliseconds: torch loads when a method is first touched
>>> from mindworks.policies import PSSVF
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = (
    "agents",
    "core",
    "data",
    "envs",
    "inference",
    "lab",
    "multistep",
    "planning",
    "policies",
    "studies",
    "tabular",
)

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return import_module(f"mindworks.{name}")
    raise AttributeError(f"module 'mindworks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
