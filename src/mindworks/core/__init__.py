"""Mathematics that several methods stand on: pure functions and small modules, no files and no environment."""

from importlib import import_module
from types import ModuleType

_MODULES = (
    "adam",
    "denormals",
    "distributed",
    "divergences",
    "finite_mdp",
    "hypernetwork",
    "importance",
    "policy",
    "population",
    "probing",
    "returns",
    "targets",
)

__all__ = list(_MODULES)


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return import_module(f"mindworks.core.{name}")
    raise AttributeError(f"module 'mindworks.core' has no attribute {name!r}")
