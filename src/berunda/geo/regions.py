"""Label rasters as polygons: regions of one class, read where the scenes lie, cut where the split's blocks meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from affine import Affine

from berunda.errors import GeoError
from berunda.geo.features import Features
from berunda.geo.grid import Grid, Window, crs_name
from berunda.geo.labelraster import LabelRaster, known_names, label_grid, read_label_raster
from berunda.geo.reproject import footprint
from berunda.geo.resample import nearest_indices

__all__ = ["read_regions"]

STRIP_PX = 256


@dataclass(frozen=True)
class _Regions:
    """Polygons (n,) in the raster's coordinates, their classes' numbers (n,), and the regions they are parts of."""

    polygons: np.ndarray
    values: np.ndarray
    originals: np.ndarray


def read_regions(
    path: Path, grids: Sequence[Grid], *, zero_is_class: bool = False, cut_px: int | None = None
) -> Features:
    """Turn the 4-connected regions of a label raster into polygons on its pixel edges.

    Only the windows that meet a scene are read.

    Args:
        path: the label raster.
        grids: of the scenes.
        zero_is_class: whether 0 is a class.
        cut_px: cut regions where two blocks of this side meet on a scene's grid (a pixel goes with its centre), and
            leave out what is outside the scenes; None keeps regions whole.

    Returns:
        Polygons with class names; `originals` holds the whole region of each, so that a part is known by it.

    Raises:
        GeoError: no labelled pixel lies where the scenes do, or the raster is no label raster.
    """
    own = label_grid(path)
    windows = [(i, w) for i, grid in enumerate(grids) if (w := _window_on(own, grid)) is not None]
    if not windows:
        more = f" (and {len(grids) - 1} more scenes)" if len(grids) > 1 else ""
        raise GeoError(
            f"label raster {path} lies outside the scene: it covers {own.bounds} in {crs_name(own.crs)}, the scene"
            f" {grids[0].bounds} in {crs_name(grids[0].crs)}{more}; expected the same ground, check the CRS of both"
        )
    names: dict[int, str] = {}
    found: list[_Regions] = []
    for i, window in windows if cut_px is not None else [(0, _around([w for _, w in windows]))]:
        raster = read_label_raster(path, zero_is_class, window)
        names |= raster.names
        whole = _outlines(raster.values, raster.grid.transform)
        found.append(whole if cut_px is None else _cut(raster, whole, grids[: i + 1], cut_px))
    values = np.concatenate([f.values for f in found])
    if not len(values):
        raise GeoError(
            f"label raster {path} has no labelled pixel on the scene: expected class numbers besides nodata"
            " (0 and 255 unless one is declared); see --zero-is-class"
        )
    polygons, originals = (np.concatenate([getattr(f, name) for f in found]) for name in ("polygons", "originals"))
    return Features(polygons, [names[int(v)] for v in values], own.crs, originals, known_names(path))


def _window_on(own: Grid, grid: Grid) -> Window | None:
    """Return the window of a raster that meets a scene, None when there is none."""
    ground = footprint(grid, own.crs) if own.crs and grid.crs else footprint(grid)
    points = shapely.get_coordinates(ground)
    if not np.isfinite(points).all():
        return own.full_window
    col, row = _moved(~own.transform, points).T
    limits = np.array([row.min(), col.min(), row.max(), col.max()]).clip(-1, max(own.shape.rows, own.shape.cols) + 1)
    top, left, bottom, right = (int(v) for v in (*np.floor(limits[:2] + 1e-6), *np.ceil(limits[2:] - 1e-6)))
    meets = Window(top, left, bottom - top, right - left).intersect(own.full_window)
    return None if meets is None else meets.pad(1).intersect(own.full_window)


def _around(windows: Sequence[Window]) -> Window:
    """Return the smallest window that holds all."""
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    return Window(row, col, max(w.row_stop for w in windows) - row, max(w.col_stop for w in windows) - col)


def _outlines(values: np.ndarray, transform: Affine) -> _Regions:
    """Return the 4-connected regions of equal values from 0."""
    from rasterio.features import shapes

    outlines, numbers = [], []
    for outline, number in shapes(values, mask=values >= 0, connectivity=4, transform=transform):
        rings = outline["coordinates"]
        outlines.append(shapely.polygons(rings[0], holes=[shapely.linearrings(r) for r in rings[1:]] or None))
        numbers.append(int(number))
    polygons = np.empty(len(outlines), dtype=object)
    polygons[:] = outlines
    return _Regions(polygons, np.array(numbers, np.int64), polygons)


def _cut(raster: LabelRaster, whole: _Regions, grids: Sequence[Grid], cut_px: int) -> _Regions:
    """Cut regions at the block borders of the last grid; what lies outside it or on an earlier grid is left out."""
    known = np.unique(raster.values)
    colours = _colours(raster.grid, grids, cut_px)
    number = np.searchsorted(known, raster.values)
    marks = np.where((raster.values >= 0) & (colours >= 0), 4 * number + colours, -1).astype(np.int32)
    pieces = _outlines(marks, Affine.identity())
    if not len(pieces.polygons):
        return pieces
    t = raster.grid.transform
    inside = shapely.get_coordinates(shapely.point_on_surface(pieces.polygons))
    points = shapely.points(_moved(t, inside))
    piece, region = shapely.STRtree(whole.polygons).query(points, predicate="within")
    of_piece = np.empty(len(points), np.int64)
    of_piece[piece] = region
    moved = shapely.transform(pieces.polygons, lambda at: _moved(t, at))
    return _Regions(moved, known[pieces.values // 4].astype(np.int64), whole.polygons[of_piece])


def _moved(t: Affine, at: np.ndarray) -> np.ndarray:
    """Return points (n, 2) through a transform."""
    return np.column_stack([t.a * at[:, 0] + t.b * at[:, 1] + t.c, t.d * at[:, 0] + t.e * at[:, 1] + t.f])


def _colours(own: Grid, grids: Sequence[Grid], cut_px: int) -> np.ndarray:
    """Return (h, w) int8, 0..3 so that neighbouring blocks of the last grid differ; -1 where labels do not count."""
    shape = own.shape
    result = np.full((shape.rows, shape.cols), -1, np.int8)
    for top in range(0, shape.rows, STRIP_PX):
        strip = Window(top, 0, min(STRIP_PX, shape.rows - top), shape.cols)
        row, col, here = nearest_indices(own, grids[-1], strip)
        for earlier in grids[:-1]:
            here &= ~nearest_indices(own, earlier, strip)[2]
        colour = row // cut_px % 2 * 2 + col // cut_px % 2
        result[strip.slices] = np.where(here, colour, -1)
    return result
