"""A request to stop (SIGTERM, or Ctrl-C) that is honoured between two steps, after a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["StopRequest", "alarm"]

_AGAIN_S = 0.05


class StopRequest:
    """Within the block, the first SIGTERM or SIGINT only sets `requested`; a second one acts as it always
    did.

    Handlers can be installed from the main thread alone; elsewhere, and when not enabled, nothing changes.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.requested: int | None = None
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if self._enabled:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def leave(self) -> None:
        """End as the signal asked: KeyboardInterrupt for Ctrl-C, else exit status 128 + its number."""
        if self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        if self.requested is not None:
            raise SystemExit(128 + self.requested)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requested = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)


@contextmanager
def alarm(seconds: float) -> Iterator[threading.Event]:
    """Ask this process to stop (SIGTERM) after `seconds`, which the loop honours with a checkpoint.

    Yields an event that tells whether it was the alarm. Its signals outside of the loop do nothing.
    """
    fired, over = threading.Event(), threading.Event()

    def ring() -> None:
        delay = max(0.0, seconds)
        while not over.wait(delay):  # again and again, since the loop may not be listening yet
            fired.set()
            os.kill(os.getpid(), signal.SIGTERM)
            delay = _AGAIN_S

    def late(number: int, frame: object) -> None:
        del frame
        if not fired.is_set():
            raise SystemExit(128 + number)

    thread = threading.Thread(target=ring, daemon=True)
    before = signal.signal(signal.SIGTERM, late)
    thread.start()
    try:
        yield fired
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)
