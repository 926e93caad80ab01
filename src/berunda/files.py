"""Writing files so that a crash leaves the old one or the new one, never half of it."""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from berunda.errors import OutputError

__all__ = ["digest_of", "failed_write", "replacing", "write_atomic", "write_synced", "write_text"]


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
    with replacing(path) as temporary:
        write_synced(temporary, parts)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name in the folder of `path`; what the block writes there replaces `path` when it ends well.

    For files that a library writes. It should force them to disk where a crash of the machine matters.

    Raises:
        OutputError: the file cannot be written or renamed; nothing is left behind and an older file of the name stays.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise failed_write(path, 0, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary name in the same folder, flush to disk, rename.

    Raises:
        OutputError: the folder cannot be written; nothing is left under the final name.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; nothing was left there, free space or "
            "choose another --out and run again"
        ) from error


def failed_write(path: Path, n_bytes: int, error: BaseException) -> OutputError:
    """Return the error of a write that failed, naming path and bytes."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return OutputError(
        f"{path}: writing {n_bytes} bytes failed ({reason}); make room or choose another --out, then "
        "run the same command again: finished work is kept"
    )
