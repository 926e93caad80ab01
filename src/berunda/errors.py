"""The one hierarchy of errors.

Each error says in one line what is wrong, where, what was found, what was expected and what to do next. The command
line prints that line and ends with the error's exit code: 2 when the user's input is wrong, 1 when the run failed.
"""

from __future__ import annotations

__all__ = [
    "BerundaError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "FetchError",
    "GeoError",
    "OutputError",
    "RanksError",
    "SecurityError",
]


MAX_LINE = 2000
"""A longer line of a message is cut in its middle: what it quotes may come from a hostile file."""


class BerundaError(Exception):
    """Any error that Berunda raises on purpose; `exit_code` is what the command line ends with.

    Names quoted from files and paths can hold line breaks and terminal codes: the text shows them escaped.
    """

    exit_code = 2

    def __str__(self) -> str:
        return _plain_line(super().__str__())


class DataError(BerundaError):
    """Images, labels or tables do not hold what they should."""


class GeoError(BerundaError):
    """A raster, a vector file, a grid or a coordinate reference system cannot be used as it is."""


class ConfigError(BerundaError):
    """An option or a configuration file is wrong; several problems are told in one indented line each."""

    def __str__(self) -> str:
        return "\n  ".join(_plain_line(line) for line in Exception.__str__(self).split("\n  "))


class SecurityError(BerundaError):
    """A file or a path was refused by policy (driver, remote host, pickle, path outside its root)."""


class CheckpointError(BerundaError):
    """A bundle or checkpoint is damaged, of another format, or does not fit the model."""


class OutputError(BerundaError):
    """An output cannot be written, is locked by another run, or did not verify after writing."""

    exit_code = 1


class RanksError(BerundaError):
    """A process that trains together with this one ended or hangs; the last good checkpoint is kept."""

    exit_code = 1


class FetchError(BerundaError):
    """What should come over the network did not, or came damaged; nothing of it is kept."""

    exit_code = 1


class DivergedError(BerundaError):
    """Training produced a non-finite or runaway loss; the last good checkpoint is kept.

    Attributes:
        found: where and what, without the samples and the advice of the message.
    """

    exit_code = 1

    def __init__(self, message: str, found: str = "") -> None:
        super().__init__(message)
        self.found = found or message


def _plain_line(text: str) -> str:
    """Return one line of bounded length, with what is not printable escaped."""
    if len(text) > MAX_LINE:
        text = f"{text[: MAX_LINE - 600]} [...] {text[-500:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
