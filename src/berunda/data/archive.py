"""Reading and unpacking of chosen members of a zip archive that somebody else made."""

from __future__ import annotations

import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import IO

from berunda.errors import DataError, SecurityError

__all__ = ["MAX_MEMBERS", "MAX_RATIO", "Archive", "extract_members"]

MAX_MEMBERS = 100_000
"""More members than this are refused."""

MAX_RATIO = 200
"""A member may unpack to at most this many times its packed size (and to 1 MiB in any case)."""

_CHUNK = 1 << 20
_PLAIN_NAME = re.compile(r"[\w-][\w .()+-]*(/[\w-][\w .()+-]*)*", re.ASCII)  # surely harmless, whatever the machine
_DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError)


class Archive:
    """A zip archive, open for reading members into memory one after the other; nothing is written anywhere.

    Args:
        path: the archive.

    Raises:
        DataError: it cannot be read.
        SecurityError: it holds too many members, one name twice, a name that is absolute or leaves the folder, or a
            link or device.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._opened = zipfile.ZipFile(path)
        except (OSError, ValueError, *_DAMAGE) as error:
            raise DataError(f"{path}: archive cannot be opened: {error}; fetch it again") from error
        try:
            self.members = self._plain_files()
        except SecurityError:
            self._opened.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def _plain_files(self) -> dict[str, zipfile.ZipInfo]:
        """Return the members that are files by name; each is checked, asked for or not."""
        every = self._opened.infolist()
        _check_count(self.path, len(every))
        found: dict[str, zipfile.ZipInfo] = {}
        for member in every:
            if member.filename in found:
                raise SecurityError(
                    f"{self.path}: archive refused: it holds {member.filename!r} more than once; fetch it again"
                )
            if not _PLAIN_NAME.fullmatch(member.filename.removesuffix("/")):
                _check_name(self.path, member.filename)
            if not member.is_dir():
                _check_kind(self.path, member)
                found[member.filename] = member
        return found

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return what a member holds.

        Raises:
            DataError: it is missing or damaged.
            SecurityError: it would unpack to more than `max_bytes`, or to a great many times its packed size.
        """
        member = self.members.get(name)
        if member is None:
            raise DataError(f"{self.path}: member {name!r} is missing; fetch the archive again")
        _check_sizes(self.path, [member], max_bytes)
        try:
            with self._opened.open(member) as source:
                content = source.read(member.file_size + 1)
        except (OSError, ValueError, *_DAMAGE) as error:
            raise DataError(f"{self.path}: member {name!r} cannot be read: {error}; fetch the archive again") from error
        if len(content) != member.file_size:
            raise DataError(
                f"{self.path}: member {name!r}: {len(content)} bytes found, {member.file_size} declared; "
                "fetch the archive again"
            )
        return content


def extract_members(
    archive: Path, members: Mapping[str, str], folder: Path, *, max_bytes: int = 1 << 30
) -> tuple[Path, ...]:
    """Unpack some members of a zip archive into `folder`, and nothing else.

    The names under which members are stored come from the caller, never from the archive; both are checked
    all the same, so that nothing can be written outside `folder`.

    Args:
        archive: the zip archive (a wheel is one).
        members: name in the archive -> relative path below `folder`.
        folder: an existing folder. Existing files below it are not replaced.
        max_bytes: what all members together may unpack to.

    Returns:
        The written files, in the order of `members`.

    Raises:
        DataError: the archive cannot be read, a member is missing or damaged, or a file is there already.
        SecurityError: a name is absolute or leaves the folder, a member is a link or no plain file, or sizes
            are beyond what may be unpacked (declared sizes are not believed but counted).
    """
    root = folder.resolve(strict=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            chosen = [_checked(archive, opened, name) for name in members]
            _check_sizes(archive, chosen, max_bytes)
            targets = [_target(archive, root, relative) for relative in members.values()]
            for member, target in zip(chosen, targets, strict=True):
                _write(archive, opened, member, target)
    except _DAMAGE as error:
        raise DataError(f"{archive}: archive cannot be unpacked: {error}; fetch it again") from error
    return tuple(targets)


def _checked(archive: Path, opened: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    _check_count(archive, len(opened.infolist()))
    if [info.filename for info in opened.infolist()].count(name) > 1:
        raise SecurityError(f"{archive}: archive refused: it holds {name!r} more than once; fetch it again")
    try:
        member = opened.getinfo(name)
    except KeyError as error:
        raise DataError(f"{archive}: member {name!r} is missing; fetch the archive again") from error
    _check_name(archive, name)
    _check_kind(archive, member)
    return member


def _check_count(archive: Path, n_members: int) -> None:
    if n_members > MAX_MEMBERS:
        raise SecurityError(f"{archive}: archive refused: {n_members} members, at most {MAX_MEMBERS} expected")


def _check_kind(archive: Path, member: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.is_dir() or kind not in (0, stat.S_IFREG):
        name = member.filename
        raise SecurityError(f"{archive}: member {name!r} refused: it is a folder, link or device, not a file")


def _check_name(archive: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    is_absolute = name.startswith(("/", "\\")) or PureWindowsPath(name).drive != ""
    if not parts or is_absolute or ".." in parts or "\\" in name or any(ord(letter) < 32 for letter in name):
        raise SecurityError(f"{archive}: name {name!r} refused: expected a relative path without '..'")


def _check_sizes(archive: Path, chosen: list[zipfile.ZipInfo], max_bytes: int) -> None:
    total = sum(member.file_size for member in chosen)
    if total > max_bytes:
        raise SecurityError(f"{archive}: archive refused: {total} bytes unpacked, at most {max_bytes} expected")
    for member in chosen:
        if member.file_size > max(_CHUNK, MAX_RATIO * member.compress_size):
            raise SecurityError(
                f"{archive}: member {member.filename!r} refused: {member.compress_size} bytes would unpack "
                f"to {member.file_size}, more than {MAX_RATIO} times as many"
            )


def _target(archive: Path, root: Path, relative: str) -> Path:
    _check_name(archive, relative)
    target = root / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(root):
        raise SecurityError(f"{archive}: {relative!r} refused: it would be written outside {root}")
    return target


def _write(archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member to a new file; a file or link that is there already is an error, never followed."""
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except FileExistsError as error:
        raise DataError(f"{target}: exists already; unpack into an empty folder") from error
    with os.fdopen(handle, "wb") as file, opened.open(member) as source:
        _copy(archive, source, file, member)
        file.flush()
        os.fsync(file.fileno())


def _copy(archive: Path, source: IO[bytes], file: IO[bytes], member: zipfile.ZipInfo) -> None:
    left = member.file_size
    while chunk := source.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise SecurityError(
                f"{archive}: member {member.filename!r} refused: it unpacks to more than the "
                f"{member.file_size} bytes it declares"
            )
        file.write(chunk)
    if left:
        raise DataError(f"{archive}: member {member.filename!r} ends {left} bytes early; fetch the archive again")
