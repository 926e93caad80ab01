"""How a verb runs: what it may say, how errors become one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TextIO

from berunda.cli.progress import CommandProgress, make_progress
from berunda.errors import BerundaError
from berunda.ranks import started_ranks

__all__ = ["INTERRUPTED", "Outcome", "Session", "exit_code_of"]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class Outcome(Protocol):
    """What a verb of the API returns."""

    @property
    def warnings(self) -> Iterable[str]:
        """What the reader should know before trusting the result."""

    def summary_lines(self) -> list[str]:
        """Return what was made, for people."""


@dataclass(frozen=True)
class Session:
    """The manner of one call: `quiet` prints errors only, `debug` shows tracebacks and library warnings.

    Of several ranks that `torchrun` started the first one speaks; the others print errors only.
    """

    quiet: bool = False
    debug: bool = False

    @cached_property
    def progress(self) -> CommandProgress:
        """What the API tells its progress to."""
        return make_progress(self._is_silent)

    def say(self, text: str) -> None:
        """Print a line of the result."""
        if not self._is_silent:
            print(text)

    @property
    def _is_silent(self) -> bool:
        return self.quiet or started_ranks()[0] > 0

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print names and values in two aligned columns."""
        rows = list(rows)
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.say(f"{name:<{width}}  {value}".rstrip())

    def show(self, outcome: Outcome) -> None:
        """Print the summary of `outcome`, then its warnings."""
        for line in outcome.summary_lines():
            self.say(line)
        for warning in outcome.warnings:
            self.say(f"warning: {warning}")


def exit_code_of(verb: Callable[[], int | None], session: Session) -> int:
    """Call `verb` and return its exit code (0 for None), or that of the error it raised, told in one line."""
    try:
        with warnings.catch_warnings():
            if not session.debug:
                warnings.simplefilter("ignore")
                _silence_logging()
            code = verb() or 0
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        _complain("stopped by the keyboard; what was finished is kept", session)
        return INTERRUPTED
    except BrokenPipeError:
        _drop(sys.stdout)
        return 1
    except BerundaError as error:
        _complain(f"error: {error}", session)
        return error.exit_code
    except MemoryError:
        _complain("error: out of memory; close other programs or give smaller tiles (--tile-px)", session)
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _complain(f"error: {place}{error.strerror or _one_line(error)}", session)
        return 1
    except Exception as error:
        _complain(f"error: unexpected {_one_line(error)}; run again with --debug for the traceback", session)
        return 1


def _one_line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}{place}"


def _complain(text: str, session: Session) -> None:
    session.progress.close()
    if session.debug:
        traceback.print_exc()
    rank = started_ranks()[0]
    name = f"berunda (rank {rank})" if rank else "berunda"
    for stream, line in ((sys.stdout, ""), (sys.stderr, f"{name}: {text}\n")):
        try:
            stream.write(line)
            stream.flush()
        except BrokenPipeError:
            _drop(stream)


def _drop(stream: TextIO) -> None:
    """Point `stream` nowhere, so that Python's own flush at exit does not complain again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except ValueError:
        return


def _silence_logging() -> None:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is imported, which warns to standard error
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
