"""How much supports share: intersection over union, and intersection over target; pure functions of sets of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from berunda.errors import DataError

__all__ = ["Overlap", "overlap_of"]

FloatArray = npt.NDArray[np.float64]
_CELLS = 8192  # that are multiplied at once, as float32: their counts are exact


@dataclass(frozen=True)
class Overlap:
    """Overlaps of some supports (rows) with others (columns); NaN where one of the two is empty or unknown.

    Attributes:
        rows: names of the first sets, S1.
        cols: names of the second sets, S2.
        iou: (R, C) intersection over union.
        iot: (R, C) share of S2 that S1 covers.
    """

    rows: tuple[str, ...]
    cols: tuple[str, ...]
    iou: FloatArray
    iot: FloatArray


def overlap_of(rows: Mapping[str, npt.NDArray[np.bool_]], cols: Mapping[str, npt.NDArray[np.bool_]]) -> Overlap:
    """Return the overlaps of every set in `rows` with every set in `cols`, all (cells,) bool.

    Raises:
        DataError: the sets are not on the same cells.

    Source: Castillo-Navarro 2022, section 2.4.
    """
    sizes = {len(mask) for mask in (*rows.values(), *cols.values())}
    if len(sizes) > 1:
        raise DataError(f"supports on {sorted(sizes)} cells found, expected all on one grid")
    first, second = _stacked(rows), _stacked(cols)
    shared = _shared(first, second)
    n_first, n_second = first.sum(axis=1)[:, None], second.sum(axis=1)[None]
    has_both = (n_first > 0) & (n_second > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = np.where(has_both, shared / (n_first + n_second - shared), np.nan)
        target = np.where(has_both, shared / n_second, np.nan)
    return Overlap(tuple(rows), tuple(cols), whole, target)


def _stacked(sets: Mapping[str, npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    return np.stack(list(sets.values())).astype(bool) if sets else np.zeros((0, 0), bool)


def _shared(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> FloatArray:
    """Return how many cells each of the first sets (R, cells) shares with each of the second (C, cells)."""
    counted = np.zeros((len(first), len(second)))
    for start in range(0, first.shape[1] if len(second) else 0, _CELLS):
        part = slice(start, start + _CELLS)
        counted += first[:, part].astype(np.float32) @ second[:, part].T.astype(np.float32)
    return counted
