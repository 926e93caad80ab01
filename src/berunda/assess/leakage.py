"""Leaks between what trains and what tests: the same ground, ground too near, the same picture twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from berunda.assess.duplicates import find_duplicates
from berunda.errors import DataError

__all__ = ["Leak", "Placed", "find_leaks"]

_SAME = 1e-6  # of a footprint's area: less of an overlap is rounding


@dataclass(frozen=True)
class Placed:
    """Images of a split as the audit sees them.

    Attributes:
        names: of the N images.
        parts: part of each: "labelled", "unlabelled" or "test".
        footprints: (N,) object array of polygons in one coordinate system per space; None where the place is not known.
        spaces: (N,) number of the space that each footprint lies in: ground in one coordinate system, or one file's
            pixels. Only images of one space can be near each other.
        buffers: (N,) least distance to an image of the other part, in the space's units.
        hashes, contents, thumbs: of the first M images, see `berunda.assess.duplicates`; those behind them show too
            little to be compared by their pictures.
    """

    names: tuple[str, ...]
    parts: tuple[str, ...]
    footprints: np.ndarray
    spaces: np.ndarray
    buffers: np.ndarray
    hashes: np.ndarray
    contents: np.ndarray
    thumbs: np.ndarray


@dataclass(frozen=True)
class Leak:
    """One leak.

    Attributes:
        kind: "overlap", "neighbour", "duplicate" or "near duplicate".
        first: name of the image that trains.
        second: name of the image that tests.
        detail: how much, in words.
        part: what the first one is for: "labelled" (a leak), or "unlabelled" (then methods are transductive).
    """

    kind: str
    first: str
    second: str
    detail: str
    part: str


def find_leaks(placed: Placed) -> list[Leak]:
    """Return every pair of an image that trains (with or without its label) and one that tests that share something.

    Raises:
        DataError: nothing tests, or nothing trains.
    """
    parts = np.array(placed.parts)
    is_test = parts == "test"
    if not is_test.any() or is_test.all():
        counts = ", ".join(f"{int((parts == p).sum())} {p}" for p in ("labelled", "unlabelled", "test"))
        raise DataError(
            f"split of {counts} images found, expected some that train and some that test; nothing to audit"
        )
    return [*_of_place(placed, is_test), *_of_content(placed, is_test)]


def _of_place(placed: Placed, is_test: np.ndarray) -> list[Leak]:
    found: list[Leak] = []
    known = np.array([shape is not None for shape in placed.footprints])
    for space in np.unique(placed.spaces[known]):
        here = known & (placed.spaces == space)
        train, test = np.flatnonzero(here & ~is_test), np.flatnonzero(here & is_test)
        if not len(train) or not len(test):
            continue
        tree = shapely.STRtree(placed.footprints[train])
        reach = shapely.buffer(placed.footprints[test], placed.buffers[test], join_style="mitre")
        at_test, at_train = tree.query(reach)
        for i, j in sorted(zip(train[at_train].tolist(), test[at_test].tolist(), strict=True)):
            leak = _near(placed, i, j)
            if leak is not None:
                found.append(leak)
    return found


def _near(placed: Placed, i: int, j: int) -> Leak | None:
    """Return how a training image i lies to a test image j, None where it is far enough."""
    first, second = placed.footprints[i], placed.footprints[j]
    shared = float(shapely.area(shapely.intersection(first, second)))
    smaller = min(float(shapely.area(first)), float(shapely.area(second)))
    names = placed.names[i], placed.names[j]
    if shared > _SAME * smaller:
        return Leak("overlap", *names, f"{shared / smaller:.0%} of the smaller one is in both", placed.parts[i])
    gap = float(shapely.distance(first, second))
    if gap < placed.buffers[j] * (1 - 1e-9):
        detail = f"{gap:.6g} apart, at least {placed.buffers[j]:.6g} asked for"
        return Leak("neighbour", *names, detail, placed.parts[i])
    return None


def _of_content(placed: Placed, is_test: np.ndarray) -> list[Leak]:
    groups = is_test[: len(placed.hashes)].astype(np.int64)
    pairs = find_duplicates(placed.hashes, placed.contents, placed.thumbs, groups=groups)
    found = []
    for pair in pairs:
        i, j = (pair.first, pair.second) if is_test[pair.second] else (pair.second, pair.first)
        kind = "duplicate" if pair.is_exact else "near duplicate"
        detail = "the same pixels" if pair.is_exact else "the same picture, stored in another way"
        found.append(Leak(kind, placed.names[i], placed.names[j], detail, placed.parts[i]))
    return found
