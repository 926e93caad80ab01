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

__all__ = ["Labels", "count_conflicts", "rasterize"]


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
    _pixels: dict[Grid, list[PixelPolygon]] = field(default_factory=dict, repr=False, compare=False)

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

    def pixels(self, grid: Grid) -> list[PixelPolygon]:
        """Return the polygons in the pixel coordinates of a grid; kept for the next call."""
        if grid not in self._pixels:
            self._pixels[grid] = to_pixels(transform_geometries(self.geometries, self.crs, grid.crs), grid)
        return self._pixels[grid]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the kept pixel coordinates behind when travelling to another process."""
        return {**self.__dict__, "_pixels": {}}


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
    for i, polygon in enumerate(labels.pixels(grid)):
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
