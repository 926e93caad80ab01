"""Progress on the command line: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TextIO

from berunda.progress import Progress, Silent

if TYPE_CHECKING:
    from rich import progress as rich_progress

__all__ = ["Bars", "CommandProgress", "Lines", "Quiet", "make_progress"]

EVERY_S = 10.0
"""Seconds between two plain lines of one stage."""


class CommandProgress(Progress, Protocol):
    """Progress that can be ended from outside, when a stage broke off."""

    def close(self) -> None:
        """Leave the terminal as it was found."""


class Quiet(Silent):
    """Says nothing."""

    def close(self) -> None:
        """There is nothing to leave."""


class Lines:
    """Plain lines for logs: one when a stage begins, one about every ten seconds, one when it ends."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `stream` (standard error by default); `clock` gives seconds."""
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._lock = threading.Lock()
        self._name = ""
        self._total = self._done = 0
        self._began = self._said = 0.0

    def start(self, name: str, total: int) -> None:
        """Say that a stage of `total` units begins."""
        with self._lock:
            self._name, self._total, self._done = name, total, 0
            self._began = self._said = self._clock()
            self._say(f"{name}: 0 of {total}")

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` units; now and then say how far the stage is and how long it will take."""
        with self._lock:
            self._done += n
            now = self._clock()
            if now - self._said >= EVERY_S and self._done < self._total:
                self._said = now
                self._say(f"{self._name}: {self._state(now)}{shown(figures)}")

    def note(self, text: str) -> None:
        """Write a line."""
        with self._lock:
            self._say(text)

    def finish(self) -> None:
        """Say that the stage is over, and how long it took."""
        with self._lock:
            if self._name:
                took = duration(self._clock() - self._began)
                self._say(f"{self._name}: {self._done} of {self._total}, done in {took}")
            self._name = ""

    def close(self) -> None:
        """Forget the stage that broke off."""
        self._name = ""

    def _state(self, now: float) -> str:
        gone = now - self._began
        percent = 100 * self._done // max(1, self._total)
        text = f"{self._done} of {self._total} ({percent}%), {duration(gone)} gone"
        if self._done > 0:
            text += f", about {duration(gone * (self._total - self._done) / self._done)} left"
        return text

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Bars:
    """A bar with the time left, on a terminal."""

    def __init__(self) -> None:
        """Draw on standard error."""
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._bar: rich_progress.Progress | None = None
        self._task: rich_progress.TaskID | None = None

    def start(self, name: str, total: int) -> None:
        """Draw a new bar of `total` units."""
        from rich import progress as parts

        self.close()
        self._bar = parts.Progress(
            parts.TextColumn("{task.description:<12}"),
            parts.BarColumn(),
            parts.MofNCompleteColumn(),
            parts.TimeElapsedColumn(),
            parts.TextColumn("left"),
            parts.TimeRemainingColumn(),
            parts.TextColumn("{task.fields[figures]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(name, total=total, figures="")
        self._bar.start()

    def advance(self, n: int = 1, **figures: float) -> None:
        """Move the bar by `n` units and show `figures` beside it."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=n)
            if figures:
                self._bar.update(self._task, figures=shown(figures).removeprefix(", "))

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def finish(self) -> None:
        """Leave the finished bar on the terminal."""
        self.close()

    def close(self) -> None:
        """Stop drawing."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def make_progress(quiet: bool, stream: TextIO | None = None) -> CommandProgress:
    """Return what suits: silence when `quiet`, a bar on a terminal, plain lines elsewhere."""
    if quiet:
        return Quiet()
    stream = sys.stderr if stream is None else stream
    return Bars() if stream.isatty() else Lines(stream)


def duration(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss.

    Example:
        >>> duration(75.4), duration(3671)
        ('1:15', '1:01:11')
    """
    whole = round(max(0.0, seconds))
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def shown(figures: dict[str, float]) -> str:
    """Return figures as text that continues a line.

    Example:
        >>> shown({"loss": 0.53217, "used": 0.5})
        ', loss 0.532, used 0.5'
    """
    return "".join(f", {name} {value:.3g}" for name, value in figures.items())
