"""The lock of an output folder or file: two runs never write to one.

The operating system holds the lock for the process, so that of a killed run is gone with it; the file that
stays means nothing by itself.
"""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from berunda.errors import OutputError
from berunda.files import failed_write

__all__ = ["LOCK_NAME", "file_lock", "output_lock"]

LOCK_NAME = ".berunda.lock"
_OWNER_NAME = ".berunda.owner.json"
_held: dict[tuple[Path, int], int] = {}
_guard = threading.Lock()


@contextmanager
def output_lock(folder: Path | str) -> Iterator[None]:
    """Hold `folder` (made when it is missing) for this thread within the block; blocks may nest.

    Raises:
        OutputError: another run holds it, or it cannot be written to.
    """
    path = Path(folder).absolute()
    key = (path, threading.get_ident())
    with _guard:
        nested = key in _held
        if nested:
            _held[key] += 1
    if nested:
        try:
            yield
        finally:
            with _guard:
                _held[key] -= 1
        return
    lock = _acquired(path)
    with _guard:
        _held[key] = 1
    try:
        yield
    finally:
        with _guard:
            del _held[key]
        with suppress(OSError):
            (path / _OWNER_NAME).unlink(missing_ok=True)
        lock.release()


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the name of a file that is to be written within the block; its folder is made when it is missing.

    Raises:
        OutputError: another run holds it, or its folder cannot be written to.
    """
    place = path.with_name(f".{path.name}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"{path}: another run is writing this file; wait for it to end or choose another --out"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise failed_write(place, 0, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            place.unlink(missing_ok=True)
        lock.release()


def _acquired(folder: Path) -> FileLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_NAME, timeout=0)
        lock.acquire()
        (folder / _OWNER_NAME).write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}))
    except Timeout as error:
        raise OutputError(
            f"{folder}: another run{_owner(folder)} is writing here; wait for it to end or choose another --out"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise failed_write(folder / LOCK_NAME, 0, error) from error
    return lock


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / _OWNER_NAME).read_text())
        return f" (process {int(owner['pid'])} on {str(owner['host'])[:60]})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
