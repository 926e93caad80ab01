"""Tables of labels: one row an image, one column a class or one column for the class."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from berunda.data.images import TEST, TRAIN, UNLABELLED, VALIDATION
from berunda.data.listing import PHOTO_SUFFIXES, RASTER_SUFFIXES
from berunda.errors import DataError

if TYPE_CHECKING:
    from berunda.geo.grid import Window

__all__ = [
    "FILES_JOINT",
    "LEFT_OUT",
    "PART_WORDS",
    "WINDOW_COLUMNS",
    "Table",
    "part_of",
    "read_table",
    "rows_by_image",
    "window_of",
    "without_left_out",
]

R = TypeVar("R", bound=Sequence[str])
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
LEFT_OUT = "left out"
"""What the split column says of an image that stands in the table and is used for nothing."""
_FILE_COLUMNS = ("file", "path", "image", "filename", "image\\label")
_CLASS_COLUMNS = ("class", "label")
_PART_COLUMNS = ("split", "part")
FILES_JOINT = ";"
"""Stands between the rasters of one image, whose bands lie in several files."""
WINDOW_COLUMNS = ("row", "col", "n_rows", "n_cols")
"""Columns that say which pixels of a raster an image is; empty where it is all of its file."""
_OTHER_COLUMNS = ("sha256", "md5", "crc32", "site", "role", "truth", *WINDOW_COLUMNS)


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
        windows: for each row the pixels of its file that are the image; None for all of them.
        truths: for each row the raster of classes on the grid of its file, "" for none.
        sites: for each row the place it comes from, "" where that is unknown.
        listed: the image of every row, with those that are left out, of which no other field speaks.
    """

    path: Path
    files: tuple[str, ...]
    names: tuple[str, ...]
    parts: tuple[int, ...]
    classes: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    windows: tuple[Window | None, ...]
    truths: tuple[str, ...]
    sites: tuple[str, ...]
    listed: tuple[str, ...]

    @property
    def names_of_images(self) -> tuple[str, ...]:
        """A name for each row: its file, and where in it a window begins."""
        places = zip(self.files, self.windows, strict=True)
        return tuple(file if at is None else f"{file}@{at.row},{at.col}" for file, at in places)


def read_table(path: Path, *, with_values: bool) -> Table:
    """Read a table with a header: file, and label or class, and split, and one column a class, in any order.

    Args:
        path: a file in UTF-8, separated by commas, or by tabs where its name ends in .txt.
        with_values: whether the further columns are classes, which hold 1, 0 or nothing; else they are ignored.

    Raises:
        DataError: it cannot be read, has no column for the file, two columns for a class, or a value is not as it
            should be (row, as the file's line, and column are named).
    """
    header, listed = _rows(path)
    rows = without_left_out(header, listed)
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
        _cells(lower, lower[file], rows),
        () if name is None else tuple(row[name].strip() for row in rows),
        () if part is None else tuple(part_of(row[part], f"{path} row {row.line}") for row in rows),
        _class_names(path, header, own),
        tuple(_values(header, own, row, f"{path} row {row.line}") for row in rows) if own else (),
        _windows(path, lower, rows),
        _cells(lower, "truth", rows),
        _cells(lower, "site", rows),
        _cells(lower, lower[file], listed),
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


def _cells(names: Sequence[str], name: str, rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    if name not in names:
        return ("",) * len(rows)
    return tuple(row[names.index(name)].strip().replace("\\", "/") for row in rows)


def _windows(path: Path, names: Sequence[str], rows: Sequence[_Row]) -> tuple[Window | None, ...]:
    at = [names.index(name) for name in WINDOW_COLUMNS if name in names]
    if len(at) < len(WINDOW_COLUMNS):
        return (None,) * len(rows)
    return tuple(window_of([row[i] for i in at], f"{path} row {row.line}") for row in rows)


def window_of(cells: Sequence[str], where: str) -> Window | None:
    """Return the window that four cells of a table mean, None where all are empty.

    Args:
        cells: of the columns `WINDOW_COLUMNS`, in pixels of the file.
        where: the row, for messages.

    Raises:
        DataError: they are no window.

    Example:
        >>> window_of(["0", "64", "32", "32"], "split.csv row 2")
        Window(row=0, col=64, n_rows=32, n_cols=32)
    """
    texts = [cell.strip() for cell in cells]
    if not any(texts):
        return None
    is_whole = all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts)
    numbers = [int(text) for text in texts] if is_whole else [0] * 4
    if numbers[2] < 1 or numbers[3] < 1:
        raise DataError(
            f"{where}: window {', '.join(texts)} found, expected whole numbers in {', '.join(WINDOW_COLUMNS)}: rows "
            "and columns from 0, at least one of each; or nothing for the whole file"
        )
    from berunda.geo.grid import Window

    return Window(*numbers)


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


class _Row(list[str]):
    """The cells of a row, and the line of the file that it ends on, for messages."""

    def __init__(self, cells: Sequence[str], line: int) -> None:
        super().__init__(cells)
        self.line = line


def _rows(path: Path) -> tuple[_Row, list[_Row]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes found, at most {MAX_BYTES} expected of a table")
        with path.open(encoding="utf-8-sig", newline="") as file:
            cells = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".txt" else ",")
            rows = [_Row(row, cells.line_num) for row in cells if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: table cannot be read: {error}; expected a .csv file in UTF-8") from error
    if len(rows) < 2:
        raise DataError(f"{path}: {len(rows)} rows found, expected a header and at least one image")
    header, rest = rows[0], rows[1:]
    bad = next((row for row in rest if len(row) != len(header)), None)
    if bad is not None:
        raise DataError(f"{path} row {bad.line}: {len(bad)} cells found, expected {len(header)} as in the header")
    return header, rest


def without_left_out(header: Sequence[str], rows: list[R]) -> list[R]:
    """Return the rows of a table without those whose split column says that they are left out.

    `split` writes them last, so that the others keep their numbers.
    """
    part = _column([name.strip().lower() for name in header], _PART_COLUMNS)
    return rows if part is None else [row for row in rows if row[part].strip().lower() != LEFT_OUT]


def _column(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _class_names(path: Path, header: Sequence[str], own: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the columns that are classes; each has a name of its own."""
    names = tuple(header[index].strip() for index in own)
    nameless = next((index for index, name in zip(own, names, strict=True) if not name), None)
    if nameless is not None:
        raise DataError(
            f"{path}: column {nameless + 1} without a name found, expected that of a class; name or remove it"
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: {names.count(twice)} columns {twice!r} found, expected one a class; rename or remove")
    return names


def _values(header: Sequence[str], own: Sequence[int], row: Sequence[str], where: str) -> tuple[float, ...]:
    values = []
    for index in own:
        text = row[index].strip()
        value = {"": math.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}.get(text)
        if value is None:
            raise DataError(f"{where}, column {header[index].strip()!r}: {text!r} found, expected 1, 0 or nothing")
        values.append(value)
    return tuple(values)
