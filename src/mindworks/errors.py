"""The errors a user can mend; the command line prints each as one line and exits with status 2."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class InputError(ValueError):
    """Bad input: the message names the argument and the value."""


class MissingExtra(ImportError):
    """A package of an optional extra is not installed: the message is the command that installs it."""


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds; the message names the argument and the value."""
    if not condition:
        raise InputError(message)


def require_at_least(owner: object, minimum: int, *names: str) -> None:
    """Raise `InputError` that names the first of the attributes `names` of `owner` that is below `minimum`."""
    for name in names:
        value = getattr(owner, name)
        require(value >= minimum, f"{name} must be at least {minimum}, got {value}")


def import_extra(module: str, extra: str) -> ModuleType:
    """Import `module` of the optional `extra`, or raise `MissingExtra` with the command that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise MissingExtra(f"{package} is not installed: pip install 'mindworks[{extra}]'") from error
