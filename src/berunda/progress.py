"""Progress as the library tells it: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Receives the progress of one stage of work after the other."""

    def start(self, name: str, total: int) -> None:
        """A stage of `total` units begins."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """`n` further units are done; `figures` are worth showing beside the bar."""

    def note(self, text: str) -> None:
        """A line for the reader, between or during stages."""

    def finish(self) -> None:
        """The stage that was started last is over."""


class Silent:
    """Says nothing."""

    def start(self, name: str, total: int) -> None:
        """Ignore the stage."""
        del name, total

    def advance(self, n: int = 1, **figures: float) -> None:
        """Ignore the units."""
        del n, figures

    def note(self, text: str) -> None:
        """Ignore the line."""
        del text

    def finish(self) -> None:
        """Ignore the end."""
