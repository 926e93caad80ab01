"""What the values or colours of a mask mean: the schema, and how a mask becomes class numbers by it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from berunda.errors import DataError

__all__ = ["MAX_CLASSES", "NO_DATA", "NO_LABEL", "MaskSchema", "code_text", "pack_colors"]

NO_LABEL, NO_DATA, _UNKNOWN = 255, 254, 253
"""Stored class numbers of a pixel without label, and of one without data: the former is seen, the latter is not."""
MAX_CLASSES = 250
MAX_NAME = 200
_N_NAMED = 6  # unknown values that an error names
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class MaskSchema:
    """The classes of masks, and which value or colour stands for which.

    Attributes:
        kind: "index" (one number a pixel) or "palette" (one colour a pixel).
        names: of the C classes, in the data set's own order, which bundles and maps keep.
        colors: "#rrggbb" of each class, "" where none is given.
        codes: (value, class) pairs; a value is a number from 0 to 65535, or a colour as 0xRRGGBB; class -1 is ignored.

    Raises:
        DataError: no or too many classes, a name twice or unfit to be shown, a colour that is none, or a class that no
            value stands for.
    """

    kind: Literal["index", "palette"]
    names: tuple[str, ...]
    colors: tuple[str, ...]
    codes: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= MAX_CLASSES:
            raise DataError(f"schema of masks: {len(self.names)} classes found, expected 2 to {MAX_CLASSES}")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise DataError(f"schema of masks: class {twice[0]!r} found twice, expected each name once")
        odd = [name for name in self.names if not (name.isprintable() and len(name) <= MAX_NAME)]
        if odd:
            raise DataError(
                f"schema of masks: class name {odd[0][:40]!r} found, expected up to {MAX_NAME} printable characters"
            )
        wrong = [color for color in self.colors if color and not _COLOR.fullmatch(color)]
        if wrong:
            raise DataError(f"schema of masks: colour {wrong[0][:40]!r} found, expected #rrggbb, or nothing")
        values = [value for value, _ in self.codes]
        if len(set(values)) < len(values):
            value = next(value for value in values if values.count(value) > 1)
            raise DataError(f"schema of masks: {code_text(self.kind, value)} found twice, expected one class for each")
        largest = 0xFFFFFF if self.kind == "palette" else 0xFFFF
        if not all(0 <= value <= largest for value in values):
            raise DataError(f"schema of masks: values {min(values)} to {max(values)} found, expected 0 to {largest}")
        without = [name for number, name in enumerate(self.names) if number not in {c for _, c in self.codes}]
        if without:
            raise DataError(f"schema of masks: class {without[0]!r} has no value, expected one for each class")

    @classmethod
    def of_indices(
        cls, names: Mapping[int, str], ignored: Iterable[int] = (), colors: Sequence[str] | None = None
    ) -> MaskSchema:
        """Return the schema of index masks from class names by value; several values of one name are one class."""
        unique = tuple(dict.fromkeys(names.values()))
        codes = [(value, unique.index(name)) for value, name in names.items()]
        given = ("",) * len(unique) if colors is None else tuple(colors)
        return cls("index", unique, given, (*codes, *((value, -1) for value in ignored)))

    @classmethod
    def of_colors(cls, names: Mapping[str, str], ignored: Iterable[str] = ()) -> MaskSchema:
        """Return the schema of colour masks from class names by "#rrggbb"; a class is shown in its first colour.

        Raises:
            DataError: a text is no colour.
        """
        wrong = [text for text in (*names, *ignored) if not _COLOR.fullmatch(text)]
        if wrong:
            raise DataError(f"schema of masks: colour {wrong[0]!r} found, expected #rrggbb")
        unique = tuple(dict.fromkeys(names.values()))
        shown = {name: color.lower() for color, name in reversed(list(names.items()))}
        codes = [(int(color[1:], 16), unique.index(name)) for color, name in names.items()]
        codes += [(int(color[1:], 16), -1) for color in ignored]
        return cls("palette", unique, tuple(shown[name] for name in unique), tuple(codes))

    @cached_property
    def _table(self) -> npt.NDArray[np.uint8]:
        table = np.full(1 << (24 if self.kind == "palette" else 16), _UNKNOWN, np.uint8)
        for value, number in self.codes:
            table[value] = NO_LABEL if number < 0 else number
        return table

    def classes_of(self, values: npt.NDArray[np.integer], where: str) -> npt.NDArray[np.uint8]:
        """Return (H, W) uint8 class numbers 0..C-1, `NO_LABEL` where ignored, of a mask's (H, W) values.

        Args:
            values: numbers, or colours as `pack_colors` returns them.
            where: the mask, for messages.

        Raises:
            DataError: values that the schema does not know; counted, with the first place of each.
        """
        inside = (values >= 0) & (values < len(self._table))
        found = self._table[np.where(inside, values, 0)]
        found[~inside] = _UNKNOWN
        bad = found == _UNKNOWN
        if bad.any():
            raise DataError(self._unknown_text(values, bad, where))
        return found

    def _unknown_text(self, values: npt.NDArray[np.integer], bad: npt.NDArray[np.bool_], where: str) -> str:
        unknown, first, counts = np.unique(values[bad], return_index=True, return_counts=True)
        rows, cols = np.nonzero(bad)
        told = [
            f"{code_text(self.kind, int(unknown[i]))} in {counts[i]} pixels, first at row {rows[first[i]]}, "
            f"column {cols[first[i]]}"
            for i in np.argsort(-counts)[:_N_NAMED]
        ]
        more = f"; and {len(unknown) - _N_NAMED} more" if len(unknown) > _N_NAMED else ""
        what = "colours" if self.kind == "palette" else "label indices"
        known = ", ".join(f"{code_text(self.kind, v)} {self.names[c] if c >= 0 else 'ignored'}" for v, c in self.codes)
        advice = (
            "; masks are stored without loss (PNG, no JPEG)" if self.kind == "palette" and len(unknown) > 64 else ""
        )
        return (
            f"mask {where}: {len(unknown)} {what} outside the schema found in {int(counts.sum())} pixels: "
            f"{'; '.join(told)}{more}; expected {known}; correct the mask or the schema (classes.csv){advice}"
        )


def code_text(kind: str, value: int) -> str:
    """Return a mask's value as people write it: "#ff0000", or the number."""
    return f"#{value:06x}" if kind == "palette" else str(value)


def pack_colors(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return (H, W) 0xRRGGBB of an image (3, H, W).

    Example:
        >>> hex(int(pack_colors(np.array([[[255]], [[16]], [[1]]], np.uint8))[0, 0]))
        '0xff1001'
    """
    red, green, blue = (band.astype(np.uint32) for band in rgb)
    return (red << 16) | (green << 8) | blue
