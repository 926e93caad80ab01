"""A job in a thread beside the caller, which can always be waited for to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Beside"]

T = TypeVar("T")


class Beside(Generic[T]):
    """Runs a job in a thread of its own from now on. The thread does not keep the process from ending.

    Args:
        job: what to do.
        name: of the thread.
    """

    def __init__(self, job: Callable[[], T], name: str) -> None:
        self._job = job
        self._value: T
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def result(self) -> T:
        """Return what the job returned, once it has, or raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

    def outlast(self) -> None:
        """Wait for its end, however often Ctrl-C is pressed meanwhile; that is raised afterwards."""
        pressed: KeyboardInterrupt | None = None
        while self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt as error:
                pressed = error
        if pressed is not None:
            raise pressed

    def _run(self) -> None:
        try:
            self._value = self._job()
        except BaseException as error:  # raised again where the result is asked for
            self._error = error
