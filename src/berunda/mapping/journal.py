"""The journal of a map: one line of JSON for each finished tile, appended and forced to disk.

A line counts when it is whole. What a crash left of the last one is cut off, and its tile is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from berunda.files import failed_write

__all__ = ["Journal", "Receipt", "read_journal"]


@dataclass(frozen=True)
class Receipt:
    """A finished tile.

    Attributes:
        index: number of the tile.
        sha256: of its file, "" for a tile without data, which has none.
        n_bytes: size of its file.
    """

    index: int
    sha256: str
    n_bytes: int


def read_journal(path: Path, plan: str) -> tuple[dict[int, Receipt], int]:
    """Return the receipts of a journal and the number of bytes up to the end of its last whole line.

    Args:
        path: of the journal; it may be missing.
        plan: digest of the plan it must belong to; a journal of another plan has no receipts.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}, 0
    lines = data.splitlines(keepends=True)
    if not lines or _parsed(lines[0]) != {"plan": plan}:
        return {}, 0
    receipts: dict[int, Receipt] = {}
    end = len(lines[0])
    for line in lines[1:]:
        receipt = _receipt(_parsed(line))
        if receipt is None:
            break
        receipts[receipt.index] = receipt
        end += len(line)
    return receipts, end


class Journal:
    """An open journal; the one writer is the process that holds the lock of the output folder.

    Attributes:
        path: of the file.
        receipts: the finished tiles by number.
    """

    def __init__(self, path: Path, plan: str) -> None:
        """Open or create the journal of `plan` (a digest); what does not belong to it is cut off.

        Raises:
            OutputError: the file cannot be written.
        """
        self.path = path
        self.receipts, end = read_journal(path, plan)
        try:
            self._file = path.open("r+b" if end else "wb")
            self._file.truncate(end)
            self._file.seek(end)
        except OSError as error:
            raise failed_write(path, 0, error) from error
        if not end:
            self._append({"plan": plan})

    def record(self, receipt: Receipt) -> None:
        """Append a finished tile and force it to disk.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        self._append(asdict(receipt))
        self.receipts[receipt.index] = receipt

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        self.close()

    def _append(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, sort_keys=True).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise failed_write(self.path, len(line), error) from error


def _parsed(line: bytes) -> object:
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _receipt(value: object) -> Receipt | None:
    """Return the receipt that a line holds, None when it holds none."""
    if not isinstance(value, dict) or value.keys() != {"index", "sha256", "n_bytes"}:
        return None
    index, sha256, n_bytes = value["index"], value["sha256"], value["n_bytes"]
    if type(index) is not int or type(n_bytes) is not int or not isinstance(sha256, str):
        return None
    return Receipt(index, sha256, n_bytes) if index >= 0 and n_bytes >= 0 else None
