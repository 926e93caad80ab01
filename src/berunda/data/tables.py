"""Tables of labels: one row an image, one column a class or one column for the class."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from berunda.data.images import TEST, TRAIN, UNLABELLED, VALIDATION
from berunda.data.listing import PHOTO_SUFFIXES, RASTER_SUFFIXES
from berunda.errors import DataError

__all__ = ["PART_WORDS", "Table", "part_of", "read_table", "rows_by_image"]

MAX_BYTES = 1 << 29
PART_WORDS = {
    "": TRAIN,
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "unlabelled": UNLABELLED,
    "unlabeled": UNLABELLED,
}
_FILE_COLUMNS = ("file", "path", "image", "filename", "image\\label")
_CLASS_COLUMNS = ("class", "label")
_PART_COLUMNS = ("split", "part")
_OTHER_COLUMNS = ("sha256", "md5", "crc32", "site", "role", "row", "col", "n_rows", "n_cols")


@dataclass(frozen=True)
class Table:
    """A table of labels as it stands in the file.

    Attributes:
        path: the file.
        files: the image of each row.
        names: class of each row, "" for none; empty without such a column.
        parts: what the split column says; empty without such a column.
        classes: the columns that are classes of their own (several labels an image).
        values: for each row the value of each class column: 1, 0 or NaN (an empty cell: unknown).
    """

    path: Path
    files: tuple[str, ...]
    names: tuple[str, ...]
    parts: tuple[int, ...]
    classes: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


def read_table(path: Path, *, with_values: bool) -> Table:
    """Read a table with a header: file, and label or class, and split, and one column a class, in any order.

    Args:
        path: a file in UTF-8, separated by commas, or by tabs where its name ends in .txt.
        with_values: whether the further columns are classes, which hold 1, 0 or nothing; else they are ignored.

    Raises:
        DataError: it cannot be read, has no column for the file, or a value is not as it should be (row and column are
            named).
    """
    header, rows = _rows(path)
    lower = [name.strip().lower() for name in header]
    file = _column(lower, _FILE_COLUMNS)
    if file is None:
        raise DataError(
            f"{path}: columns {', '.join(header) or '(none)'} found, expected one called {', '.join(_FILE_COLUMNS)}"
        )
    name, part = _column(lower, _CLASS_COLUMNS), _column(lower, _PART_COLUMNS)
    known = (*_FILE_COLUMNS, *_CLASS_COLUMNS, *_PART_COLUMNS, *_OTHER_COLUMNS)
    own = [index for index, text in enumerate(lower) if with_values and text not in known]
    return Table(
        path,
        tuple(row[file].strip().replace("\\", "/") for row in rows),
        () if name is None else tuple(row[name].strip() for row in rows),
        () if part is None else tuple(part_of(row[part], f"{path} row {i}") for i, row in enumerate(rows, 2)),
        tuple(header[index].strip() for index in own),
        tuple(_values(header, own, row, f"{path} row {i}") for i, row in enumerate(rows, 2)) if own else (),
    )


def rows_by_image(names: Sequence[str], table: Table) -> list[tuple[float, ...]]:
    """Return the values of each image; a row belongs to the image of the same name without folders and suffix.

    Args:
        names: paths of the images.
        table: with one column a class.

    Raises:
        DataError: the table has no class, an image has no row, a row has no image, or two rows are of one image.
    """
    path = table.path
    if not table.classes:
        raise DataError(f"{path}: no column for a class found, expected one column a class that holds 1 or 0")
    rows: dict[str, tuple[float, ...]] = {}
    for file, values in zip(table.files, table.values, strict=True):
        stem = _stem(file)
        if stem in rows:
            raise DataError(f"{path}: a second row for image {file!r} found, expected one; remove one of them")
        rows[stem] = values
    stems = [_stem(name) for name in names]
    without = [name for name, stem in zip(names, stems, strict=True) if stem not in rows]
    if without:
        raise DataError(
            f"{path}: no row for {len(without)} images, such as {without[0]!r}; expected one for each: add rows (empty "
            "cells are unknown labels), or remove these images"
        )
    there = set(stems)
    lone = [file for file in table.files if _stem(file) not in there]
    if lone:
        raise DataError(
            f"{path}: no image for {len(lone)} rows, such as {lone[0]!r}; expected one for each: fetch the images, or "
            "remove these rows"
        )
    return [rows[stem] for stem in stems]


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in (*PHOTO_SUFFIXES, *RASTER_SUFFIXES) else path.name


def part_of(word: str, where: str) -> int:
    """Return the part that a word of a split column or a folder's name means.

    Raises:
        DataError: it means none.
    """
    part = PART_WORDS.get(word.strip().lower())
    if part is None:
        expected = ", ".join(name for name in PART_WORDS if name)
        raise DataError(f"{where}: split {word.strip()!r} found, expected one of {expected}, or nothing")
    return part


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes found, at most {MAX_BYTES} expected of a table")
        with path.open(encoding="utf-8-sig", newline="") as file:
            cells = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".txt" else ",")
            rows = [row for row in cells if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: table cannot be read: {error}; expected a .csv file in UTF-8") from error
    if len(rows) < 2:
        raise DataError(f"{path}: {len(rows)} rows found, expected a header and at least one image")
    header, rest = rows[0], rows[1:]
    bad = next((i for i, row in enumerate(rest, 2) if len(row) != len(header)), None)
    if bad is not None:
        raise DataError(f"{path} row {bad}: {len(rest[bad - 2])} cells found, expected {len(header)} as in the header")
    return header, rest


def _column(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _values(header: Sequence[str], own: Sequence[int], row: Sequence[str], where: str) -> tuple[float, ...]:
    values = []
    for index in own:
        text = row[index].strip()
        value = {"": math.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}.get(text)
        if value is None:
            raise DataError(f"{where}, column {header[index].strip()!r}: {text!r} found, expected 1, 0 or nothing")
        values.append(value)
    return tuple(values)
