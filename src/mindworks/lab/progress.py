"""Progress: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

LINE_SECONDS = 5.0
BAR_SECONDS = 0.1


def on_terminal() -> bool:
    """Whether standard output is a terminal; closed, it is none."""
    return sys.stdout is not None and sys.stdout.isatty()


class Display:
    """Where progress and remarks of one run are shown.

    `terminal`: draw bars (default: whether standard output is a terminal). `prefix` starts every plain line.
    """

    def __init__(self, terminal: bool | None = None, prefix: str = "") -> None:
        self.terminal = on_terminal() if terminal is None else terminal
        self.prefix = prefix
        self._bars: Any = None
        self._open = 0

    def say(self, text: str) -> None:
        """Print a remark; on a terminal it appears above the bars."""
        print(f"{self.prefix}{text}", flush=True)

    def start(self, label: str, total: float | None, completed: float = 0) -> Progress:
        """Begin to show one loop; the returned handle is a context manager."""
        if not self.terminal:
            return _Lines(self, label, total, completed)
        if self._bars is None:
            self._bars = _rich_progress()
        if self._open == 0:
            self._bars.start()
        self._open += 1
        return _Bar(self, label, total, completed)

    def release(self) -> None:
        """A bar has ended; the last one gives the terminal back."""
        self._open -= 1
        if self._open <= 0:
            self.close()

    def close(self) -> None:
        """Give the terminal back now, whatever loops are still open: an interrupted run leaves some."""
        self._open = 0
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class Progress:
    """One loop on display: `update(completed=..., name=value)` moves it and shows the latest value of a metric."""

    seconds = LINE_SECONDS

    def __init__(self, display: Display, label: str, total: float | None, completed: float) -> None:
        self.display, self.label, self.total = display, label, total
        self.first = self.completed = completed
        self.metrics: dict[str, Any] = {}
        self.began = self._shown = time.monotonic()

    def update(self, completed: float | None = None, advance: float = 0, **metrics: Any) -> None:
        """Set the count to `completed`, or move it by `advance`; keep `metrics` as the values to show."""
        self.completed = self.completed + advance if completed is None else completed
        if metrics:
            self.metrics.update(metrics)
        now = time.monotonic()
        if now - self._shown >= self.seconds:
            self._shown = now
            self._show(now)

    def close(self) -> None:
        """Show the last state and end."""

    def _show(self, now: float) -> None:
        raise TypeError("a Display starts bars or lines")

    def _values(self) -> str:
        return "  ".join(f"{name}={_short(value)}" for name, value in self.metrics.items())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Lines(Progress):
    """Plain lines, at most one every `LINE_SECONDS`; a loop shorter than that leaves none."""

    printed = False

    def _show(self, now: float) -> None:
        self.printed = True
        elapsed = now - self.began
        rate = (self.completed - self.first) / elapsed if elapsed > 0 else 0.0
        parts = [f"{self.label} {self.completed:g}"]
        if self.total:
            parts[0] += f"/{self.total:g} ({100 * self.completed / self.total:.0f} %)"
        parts += [f"{_short(rate)}/s", f"elapsed {clock(elapsed)}"]
        if self.total and rate > 0 and self.completed < self.total:
            parts.append(f"left {clock((self.total - self.completed) / rate)}")
        if self.metrics:
            parts.append(self._values())
        self.display.say("  ".join(parts))

    def close(self) -> None:
        if self.printed:
            self._show(time.monotonic())


class _Bar(Progress):
    """A rich bar with rate, elapsed and remaining time and the latest values."""

    seconds = BAR_SECONDS

    def __init__(self, display: Display, label: str, total: float | None, completed: float) -> None:
        super().__init__(display, label, total, completed)
        self._task = display._bars.add_task(label, total=total, completed=completed, **self._fields(""))

    def _show(self, now: float) -> None:
        if self.display._bars is None:
            return
        elapsed = now - self.began
        rate = f"{_short((self.completed - self.first) / elapsed)}/s" if elapsed > 0 else ""
        self.display._bars.update(self._task, completed=self.completed, **self._fields(rate))

    def _fields(self, rate: str) -> dict[str, str]:
        count = f"{self.completed:g}/{self.total:g}" if self.total is not None else f"{self.completed:g}"
        return {"count": count, "rate": rate, "values": self._values()}

    def close(self) -> None:
        if self.display._bars is not None:
            self._show(time.monotonic())
            self.display._bars.stop_task(self._task)
            self.display.release()


def _rich_progress() -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}", markup=False),
    )


def clock(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _short(value: Any) -> str:
    if hasattr(value, "item") and getattr(value, "size", None) != 0:
        try:
            value = value.item()
        except (ValueError, RuntimeError):
            return str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
