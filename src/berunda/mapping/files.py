"""Writing files so that a crash leaves the old one or the new one, never half of it."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from berunda.errors import OutputError

__all__ = ["digest_of", "failed_write", "write_atomic", "write_synced"]


def digest_of(data: bytes | memoryview) -> str:
    """Return the sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_synced(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file and force it to disk; after a crash it may hold half, so give it a temporary name.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    pieces = [memoryview(part).cast("B") for part in parts]
    try:
        with path.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise failed_write(path, sum(p.nbytes for p in pieces), error) from error


def write_atomic(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file under a temporary name in the same folder, force it to disk and rename it.

    Raises:
        OutputError: as `write_synced`; nothing is left behind and an older file of the name stays.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        write_synced(temporary, parts)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def failed_write(path: Path, n_bytes: int, error: BaseException) -> OutputError:
    """Return the error of a write that failed, naming path and bytes."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return OutputError(
        f"{path}: writing {n_bytes} bytes failed ({reason}); make room or choose another --out, then "
        "run the same command again: finished work is kept"
    )
