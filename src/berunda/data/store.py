"""What every store of decoded images shares: its key, its lock, and errors that say what to do."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from berunda.data.archive import Archive
from berunda.data.listing import File
from berunda.errors import DataError, OutputError
from berunda.geo.fingerprint import fingerprint_files
from berunda.progress import Progress

__all__ = ["FileReader", "content_key", "folder_name", "locked_folder", "writing_store"]


MAX_FILE_BYTES = 1 << 28
"""An image file or a member of an archive of more bytes than this is not read."""


def content_key(head: str, named: Sequence[tuple[str, File]], store: Path) -> str:
    """Return a sha256 of what files hold and of how they are decoded.

    Members of archives carry a checksum in the archive's directory. Plain files are read once; afterwards their path,
    size and time of change stand for them.

    Args:
        head: all that decides how the files are decoded.
        named: the files, each with a name that does not depend on where the data set lies.
        store: folder in which it is noted which file had which content.
    """
    if all(file.crc is not None for _, file in named):
        return _hashed(head, (f"{name}|{file.size}|{file.crc}" for name, file in named))
    stamps = _hashed(head, (f"{n}|{f.path.absolute()}|{f.member}|{f.size}|{f.mtime_ns}{_part(f)}" for n, f in named))
    note = store / "stamps" / f"{stamps}.txt"
    if note.is_file() and re.fullmatch(r"[0-9a-f]{64}", known := note.read_text(encoding="ascii", errors="replace")):
        return known
    digests = {path: fingerprint_files([path]) for path in dict.fromkeys(file.path for _, file in named)}
    key = _hashed(head, (f"{name}|{file.member}|{digests[file.path]}{_part(file)}" for name, file in named))
    note.parent.mkdir(parents=True, exist_ok=True)
    own = note.with_name(f"{note.name}.{os.getpid()}")
    own.write_text(key, encoding="ascii")
    os.replace(own, note)
    return key


def _part(file: File) -> str:
    return "" if file.window is None else f"|{file.window}"


def folder_name(dataset: str, key: str) -> str:
    """Return the name of the folder in which the decoded images of a data set lie."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', dataset)[:40]}-{key[:24]}"


def _hashed(head: str, lines: Iterator[str]) -> str:
    return hashlib.sha256("\n".join([head, *lines]).encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def writing_store(store: Path) -> Iterator[None]:
    """Turn what goes wrong with the cache's files into one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{store}: decoded images cannot be kept: {error}; free some space, or set BERUNDA_CACHE to another folder"
        ) from error


@contextmanager
def locked_folder(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of a folder of the store within the block; wait while another run fills it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.note(f"another run decodes the same images into {folder}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class FileReader(ExitStack):
    """Reads image files and members of archives, each archive opened once."""

    def __init__(self) -> None:
        super().__init__()
        self._archives: dict[Path, Archive] = {}

    def read(self, file: File) -> bytes | str:
        """Return the bytes of a file, or as text why they cannot be had."""
        if file.size > MAX_FILE_BYTES:
            return f"{file.size} bytes, at most {MAX_FILE_BYTES} expected of an image"
        try:
            if not file.member:
                return file.path.read_bytes()
            if file.path not in self._archives:
                self._archives[file.path] = self.enter_context(Archive(file.path))
            return self._archives[file.path].read(file.member, MAX_FILE_BYTES)
        except (OSError, DataError) as error:
            return str(error)
