"""What carries out the jobs of a sweep: processes of this machine, or Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Work = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Ended:
    """A job that ran to its end, with what its work returned; or one whose process was `lost`, and how."""

    key: str
    outcome: dict[str, Any] | None
    lost: str = ""


class Engine(Protocol):
    """Runs jobs, plain dicts, at most `workers` of them at a time, in the order they were given.

    A lost process costs the job that it was at, and no other; the engine itself tries nothing again.
    """

    @property
    def workers(self) -> int:
        """How many jobs run at a time."""

    def submit(self, key: str, job: dict[str, Any]) -> None:
        """Queue a job; returns at once."""

    def running(self) -> list[str]:
        """The keys of the jobs that are being worked on, as far as is known."""

    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that ended since the last call; waits up to `seconds` for the first."""

    def stop(self) -> None:
        """End every process, whatever it is at, within a second or two."""
