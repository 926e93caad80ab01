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
    "GeoError",
    "OutputError",
    "SecurityError",
]


class BerundaError(Exception):
    """Any error that Berunda raises on purpose; `exit_code` is what the command line ends with."""

    exit_code = 2


class DataError(BerundaError):
    """Images, labels or tables do not hold what they should."""


class GeoError(BerundaError):
    """A raster, a vector file, a grid or a coordinate reference system cannot be used as it is."""


class ConfigError(BerundaError):
    """An option or a configuration file is wrong."""


class SecurityError(BerundaError):
    """A file or a path was refused by policy (driver, remote host, pickle, path outside its root)."""


class CheckpointError(BerundaError):
    """A bundle or checkpoint is damaged, of another format, or does not fit the model."""


class OutputError(BerundaError):
    """An output cannot be written, is locked by another run, or did not verify after writing."""

    exit_code = 1


class DivergedError(BerundaError):
    """Training produced a non-finite or runaway loss; the last good checkpoint is kept."""

    exit_code = 1
