"""Labelled polygons as a value type, and their pixels on a grid. Reads no file (see `vector`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from berunda.geo.grid import Grid, Window
from berunda.geo.polygons import PixelPolygon, fill, to_pixels
from berunda.geo.reproject import transform_geometries

__all__ = ["LABELS_TAG", "Labels", "count_conflicts", "rasterize", "short_fingerprint"]

LABELS_TAG = "BERUNDA_LABELS"
"""Tag of a map: the short fingerprints of the polygons that its model has seen, parted by spaces."""
FAR_PX = 2**53
"""No grid reaches so far: boxes are cut there, to fit their type."""


@dataclass(frozen=True)
class _Placed:
    """Polygons on one grid, and (n, 4) int64 of the first row and column and of those after the last of their boxes."""

    polygons: list[PixelPolygon]
    boxes: np.ndarray


@dataclass(frozen=True, eq=False)
class Labels:
    """Polygons with classes.

    Attributes:
        geometries: (n,) object array of valid shapely (Multi)Polygons in `crs`.
        class_ids: (n,) int16, 1..C in the order of `class_names`.
        class_names: sorted names; a subset keeps all of them.
        source: the file they come from.
        crs: WKT of the geometries' CRS, "" when unknown; that of the first scene.
        fingerprints: one per polygon, sha256 of its outline as stored (a renamed class or another field does
            not hide it).
        n_outside: polygons outside every scene, left out.
        n_partly_outside: polygons that reach over a scene's edge, kept.
        n_empty: features without a polygon or without area, left out.
        n_repaired: self-intersecting polygons that were repaired.
        n_null: features without a class, left out.
        n_dropped: features whose class was dropped by the class mapping.
        absent_classes: sorted names of classes of the file that have no polygon here: on no scene, or all left out.
    """

    geometries: np.ndarray
    class_ids: np.ndarray
    class_names: tuple[str, ...]
    source: str
    crs: str
    fingerprints: tuple[str, ...]
    n_outside: int = 0
    n_partly_outside: int = 0
    n_empty: int = 0
    n_repaired: int = 0
    n_null: int = 0
    n_dropped: int = 0
    absent_classes: tuple[str, ...] = ()
    _pixels: dict[Grid, _Placed] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.class_ids)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def counts(self) -> dict[str, int]:
        """Return the number of polygons per class, classes without any included."""
        return {name: int((self.class_ids == i).sum()) for i, name in enumerate(self.class_names, 1)}

    def subset(self, indices: Sequence[int] | np.ndarray) -> Labels:
        """Return the polygons at these indices (or where a mask is true); classes and counts stay."""
        chosen = np.arange(len(self))[np.asarray(indices, dtype=None if len(indices) else np.int64)]
        return replace(
            self,
            geometries=self.geometries[chosen],
            class_ids=self.class_ids[chosen],
            fingerprints=tuple(self.fingerprints[i] for i in chosen),
            _pixels={},
        )

    def fingerprint(self) -> str:
        """Return a sha256 of all polygons with their class names, in order."""
        digest = hashlib.sha256()
        for print_, class_id in zip(self.fingerprints, self.class_ids, strict=True):
            digest.update(f"{print_}|{self.class_names[class_id - 1]}\n".encode())
        return digest.hexdigest()

    def without_empty_classes(self, counted: np.ndarray | None = None) -> Labels:
        """Return the labels without the classes that have no polygon; the others are numbered anew, in order.

        Args:
            counted: (n,) bool, the polygons that count as present, by default all. A class that has only others goes
                with these polygons.

        Returns:
            Labels whose `absent_classes` name what went as well.
        """
        present = np.unique(self.class_ids if counted is None else self.class_ids[counted])
        if len(present) == self.n_classes:
            return self
        kept = self.subset(np.isin(self.class_ids, present))
        names = tuple(self.class_names[i - 1] for i in present)
        return replace(
            kept,
            class_ids=(np.searchsorted(present, kept.class_ids) + 1).astype(np.int16),
            class_names=names,
            absent_classes=tuple(sorted({*self.absent_classes, *self.class_names} - {*names})),
        )

    def pixels(self, grid: Grid) -> list[PixelPolygon]:
        """Return the polygons in the pixel coordinates of a grid; kept for the next call."""
        return self._placed(grid).polygons

    def touching(self, grid: Grid, window: Window) -> np.ndarray:
        """Return the indices, in order, of the polygons whose boxes share pixels with a window of a grid."""
        row, col, row_stop, col_stop = self._placed(grid).boxes.T
        near = (row < window.row_stop) & (row_stop > window.row) & (col < window.col_stop) & (col_stop > window.col)
        return np.flatnonzero(near & (row_stop > row) & (col_stop > col) & (not window.is_empty))

    def _placed(self, grid: Grid) -> _Placed:
        if grid not in self._pixels:
            polygons = to_pixels(transform_geometries(self.geometries, self.crs, grid.crs), grid)
            boxes = [(p.box.row, p.box.col, p.box.row_stop, p.box.col_stop) for p in polygons]
            limited = np.array(boxes, np.float64).reshape(-1, 4).clip(-FAR_PX, FAR_PX)
            self._pixels[grid] = _Placed(polygons, limited.astype(np.int64))
        return self._pixels[grid]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the kept pixel coordinates behind when travelling to another process."""
        return {**self.__dict__, "_pixels": {}}


def short_fingerprint(fingerprint: str) -> str:
    """Return the beginning of a polygon's fingerprint: enough to know it by, and short enough for a tag."""
    return fingerprint[:16]


def rasterize(labels: Labels, grid: Grid, window: Window) -> np.ndarray:
    """Return which polygon covers the centre of each pixel.

    Returns:
        (h, w) int32 indices into `labels`, -1 where there is none or where polygons of different classes
        claim the pixel; of polygons of one class the last wins. A pixel's answer does not depend on the
        window.
    """
    return _burn(labels, grid, window)[0]


def count_conflicts(labels: Labels, grid: Grid, window: Window) -> int:
    """Return the number of pixels of a window that polygons of different classes claim."""
    return int(_burn(labels, grid, window)[1].sum())


def _burn(labels: Labels, grid: Grid, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return polygon indices (h, w) int32 and where classes are in conflict (h, w) bool."""
    index = np.full((max(window.n_rows, 0), max(window.n_cols, 0)), -1, np.int32)
    claimed = np.zeros(index.shape, np.int16)
    conflict = np.zeros(index.shape, bool)
    polygons = labels.pixels(grid)
    for i in labels.touching(grid, window):
        polygon = polygons[i]
        part = polygon.box.intersect(window)
        if part is None:
            continue
        inside = fill(polygon, part)
        at = part.slices_in(window)
        class_id = labels.class_ids[i]
        conflict[at] |= inside & (claimed[at] != 0) & (claimed[at] != class_id)
        claimed[at][inside] = class_id
        index[at][inside] = i
    index[conflict] = -1
    return index, conflict
