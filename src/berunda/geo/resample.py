"""Resampling between grids, written so that a pixel's value never depends on the window that was asked for.

Source positions are computed from the absolute pixel index in float64 and rounded to 1/4096 px, so the
bilinear weights are multiples of 2**-12: their products and sums are exact in float32, and pixels without
missing neighbours need no division.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from berunda.errors import GeoError
from berunda.geo.grid import Grid, Window, same_crs

__all__ = ["Axis", "Relation", "bilinear", "nearest_indices", "relate"]

STEPS = 4096
"""Positions are rounded to this fraction of a source pixel."""

EDGE_PX = 1e-3
"""How far a pixel centre may lie outside a source's edge and still be counted as inside, in source pixels."""


@dataclass(frozen=True)
class Axis:
    """Bilinear neighbours along one axis, for n pixels.

    Attributes:
        first, second: (n,) int64 source indices, clamped to the source.
        weight: (n,) float32 weight of `second`, a multiple of 1/4096.
        inside: (n,) bool, whether the pixel centre lies inside the source.
    """

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True)
class Relation:
    """Source pixel = offset + step * pixel, for pixel corners, along rows and columns."""

    row_step: float
    row_offset: float
    col_step: float
    col_offset: float

    def rows(self, start: int, n: int, n_source: int) -> Axis:
        """Return the neighbours of rows start..start+n-1."""
        return _axis(self.row_step, self.row_offset, np.arange(start, start + n), n_source)

    def cols(self, start: int, n: int, n_source: int) -> Axis:
        """Return the neighbours of columns start..start+n-1."""
        return _axis(self.col_step, self.col_offset, np.arange(start, start + n), n_source)


def relate(grid: Grid, source: Grid) -> Relation:
    """Return how the pixels of `grid` lie in `source`.

    Raises:
        GeoError: one is rotated or sheared against the other, or their CRS differ.
    """
    if not same_crs(grid.crs, source.crs):
        raise GeoError(f"cannot resample {source} onto {grid}: expected one CRS; reproject with gdalwarp")
    step = _linear(source, grid)
    if max(abs(step[0, 1]), abs(step[1, 0])) * max(grid.shape.rows, grid.shape.cols) > 0.01:
        raise GeoError(f"cannot resample {source} onto {grid}: one is rotated against the other; warp with gdalwarp")
    offset = _origin(source, grid)
    return Relation(float(step[1, 1]), float(offset[1]), float(step[0, 0]), float(offset[0]))


def bilinear(values: np.ndarray, valid: np.ndarray, rows: Axis, cols: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate between the four nearest pixel centres; missing neighbours are left out of the mean.

    Args:
        values: (B, h, w) float32, 0 where not valid.
        valid: (B, h, w) bool.
        rows: neighbours, as indices into `values`.
        cols: likewise.

    Returns:
        values (B, n_rows, n_cols) float32 and valid (B, n_rows, n_cols): at least half of the weight was
        valid.
    """
    inside = (rows.inside[:, None] & cols.inside[None, :])[None]
    mixed = _mix(values, rows, cols)
    if valid.all():
        shares = np.broadcast_to(inside, mixed.shape)
        return np.where(shares, mixed, np.float32(0)), shares.copy()
    weight = _mix(valid.astype(np.float32), rows, cols)
    is_valid = (weight >= 0.5) & inside
    return np.where(is_valid, mixed / np.where(is_valid, weight, np.float32(1)), np.float32(0)), is_valid


def nearest_indices(grid: Grid, source: Grid, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each pixel centre of a window, the source pixel that holds it.

    Any rotation and any CRS: positions are transformed point by point.

    Returns:
        rows, cols: (h, w) int64 clamped to the source; inside: (h, w) bool.
    """
    col, row = np.meshgrid(np.arange(window.col, window.col_stop) + 0.5, np.arange(window.row, window.row_stop) + 0.5)
    if same_crs(grid.crs, source.crs):
        step, offset = _linear(source, grid), _origin(source, grid)
        source_col = step[0, 0] * col + step[0, 1] * row + offset[0]
        source_row = step[1, 0] * col + step[1, 1] * row + offset[1]
    else:
        source_col, source_row = _reprojected(grid, source, col, row)
    known = np.isfinite(source_col) & np.isfinite(source_row)
    at_row = np.floor(np.where(known, source_row, -2) + 1e-6).astype(np.int64)
    at_col = np.floor(np.where(known, source_col, -2) + 1e-6).astype(np.int64)
    n_rows, n_cols = source.shape.rows, source.shape.cols
    inside = (at_row >= 0) & (at_row < n_rows) & (at_col >= 0) & (at_col < n_cols)
    return at_row.clip(0, n_rows - 1), at_col.clip(0, n_cols - 1), inside


def _mix(values: np.ndarray, rows: Axis, cols: Axis) -> np.ndarray:
    """Interpolate along rows, then along columns."""
    down = rows.weight[:, None]
    lines = values[:, rows.first] * (np.float32(1) - down) + values[:, rows.second] * down
    return lines[:, :, cols.first] * (np.float32(1) - cols.weight) + lines[:, :, cols.second] * cols.weight


def _axis(step: float, offset: float, index: np.ndarray, n_source: int) -> Axis:
    """Return the neighbours of the pixel centres index + 0.5."""
    position = (index + 0.5) * step + offset - 0.5
    units = np.rint(position * STEPS).astype(np.int64)
    first = units // STEPS
    return Axis(
        first=first.clip(0, n_source - 1),
        second=(first + 1).clip(0, n_source - 1),
        weight=((units - first * STEPS) / STEPS).astype(np.float32),
        inside=(position >= -0.5 - EDGE_PX) & (position <= n_source - 0.5 + EDGE_PX),
    )


def _linear(source: Grid, grid: Grid) -> np.ndarray:
    """Return the (2, 2) matrix from steps (col, row) of `grid` to steps (col, row) of `source`."""
    s, g = source.transform, grid.transform
    return np.linalg.inv(np.array([[s.a, s.b], [s.d, s.e]])) @ np.array([[g.a, g.b], [g.d, g.e]])


def _origin(source: Grid, grid: Grid) -> np.ndarray:
    """Return the (col, row) position in `source` of the first corner of `grid`."""
    s, g = source.transform, grid.transform
    return np.linalg.inv(np.array([[s.a, s.b], [s.d, s.e]])) @ np.array([g.c - s.c, g.f - s.f])


def _reprojected(grid: Grid, source: Grid, col: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions (col, row) in `source` of positions in `grid`, through both CRS."""
    from berunda.geo.reproject import transform_points

    t = grid.transform
    x, y = transform_points(t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f, grid.crs, source.crs)
    s = source.transform
    inverse = np.linalg.inv(np.array([[s.a, s.b], [s.d, s.e]]))
    dx, dy = x - s.c, y - s.f
    return inverse[0, 0] * dx + inverse[0, 1] * dy, inverse[1, 0] * dx + inverse[1, 1] * dy
