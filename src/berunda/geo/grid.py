"""Value types of geography: shapes, windows and grids. They hold no pixels and do no input or output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine

from berunda.errors import GeoError

__all__ = ["Bounds", "Grid", "Shape", "Window", "same_crs", "unit_name"]

AREA_DISTORTION = 0.01
"""A projection that distorts area by more than this share (Web Mercator) has its pixel area corrected."""


@dataclass(frozen=True)
class Shape:
    """Rows and columns of an array, in pixels."""

    rows: int
    cols: int

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return self.rows * self.cols


@dataclass(frozen=True)
class Bounds:
    """An axis-aligned rectangle in map units (or degrees)."""

    left: float
    bottom: float
    right: float
    top: float

    def __str__(self) -> str:
        return f"x {self.left:.10g} to {self.right:.10g}, y {self.bottom:.10g} to {self.top:.10g}"


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels. It may reach outside a grid; rows and columns count from the grid's first pixel.

    Example:
        >>> Window(0, 0, 4, 4).pad(2).intersect(Window(1, 1, 9, 9))
        Window(row=1, col=1, n_rows=5, n_cols=5)
    """

    row: int
    col: int
    n_rows: int
    n_cols: int

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return Shape(self.n_rows, self.n_cols)

    @property
    def is_empty(self) -> bool:
        """Whether it holds no pixel."""
        return self.n_rows <= 0 or self.n_cols <= 0

    @property
    def row_stop(self) -> int:
        """The row after the last one."""
        return self.row + self.n_rows

    @property
    def col_stop(self) -> int:
        """The column after the last one."""
        return self.col + self.n_cols

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices (rows, columns) into an array of the whole grid; for windows inside the grid only."""
        return slice(self.row, self.row_stop), slice(self.col, self.col_stop)

    def pad(self, px: int) -> Window:
        """Return the window grown by `px` pixels on each side (negative: shrunk)."""
        return Window(self.row - px, self.col - px, self.n_rows + 2 * px, self.n_cols + 2 * px)

    def intersect(self, other: Window) -> Window | None:
        """Return the common part, or None when there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        n_rows = min(self.row_stop, other.row_stop) - row
        n_cols = min(self.col_stop, other.col_stop) - col
        common = Window(row, col, n_rows, n_cols)
        return None if common.is_empty else common

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Return the slices of this window in an array that holds `outer`."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.n_rows), slice(col, col + self.n_cols)

    def __str__(self) -> str:
        return f"rows {self.row}..{self.row_stop - 1}, columns {self.col}..{self.col_stop - 1}"


@dataclass(frozen=True)
class Grid:
    """A shape, an affine transform from (column, row) to map coordinates and a CRS.

    Attributes:
        shape: rows and columns.
        transform: maps pixel corners (col, row) to (x, y); rotated, sheared and south-up ones are allowed.
        crs: WKT of the coordinate reference system, "" when it is unknown.
    """

    shape: Shape
    transform: Affine
    crs: str

    def __post_init__(self) -> None:
        """Refuse a grid without area: its coordinates could not be turned back into pixels."""
        if self.shape.rows < 1 or self.shape.cols < 1:
            raise GeoError(f"a grid needs at least one pixel, found {self.shape.rows} rows, {self.shape.cols} columns")
        if not all(map(math.isfinite, self.transform[:6])) or self.transform.determinant == 0:
            raise GeoError(f"the transform {tuple(self.transform[:6])} has no inverse: expected pixels with an area")

    @property
    def full_window(self) -> Window:
        """The window of all pixels."""
        return Window(0, 0, self.shape.rows, self.shape.cols)

    @property
    def bounds(self) -> Bounds:
        """The envelope in map units (of the four corners when the grid is rotated)."""
        return self.window_bounds(self.full_window)

    @property
    def corners(self) -> np.ndarray:
        """The footprint's corners, (4, 2) float64 of (x, y), in the order of a ring."""
        rows, cols = self.shape.rows, self.shape.cols
        return np.array([xy_of(self.transform, c, r) for c, r in ((0, 0), (cols, 0), (cols, rows), (0, rows))])

    @property
    def resolution(self) -> tuple[float, float]:
        """Size of a pixel along its columns and its rows, in map units, positive."""
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)

    @property
    def is_georeferenced(self) -> bool:
        """Whether the pixels have a place: a CRS, or a transform other than the identity."""
        return bool(self.crs) or self.transform != Affine.identity()

    def crop(self, window: Window) -> Grid:
        """Return the grid of a window; the window may reach outside."""
        t = self.transform
        x, y = xy_of(t, window.col, window.row)
        return Grid(window.shape, Affine(t.a, t.b, x, t.d, t.e, y), self.crs)

    def window_bounds(self, window: Window) -> Bounds:
        """Return the envelope of a window in map units."""
        corners = [
            xy_of(self.transform, c, r) for c in (window.col, window.col_stop) for r in (window.row, window.row_stop)
        ]
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        return Bounds(min(xs), min(ys), max(xs), max(ys))

    def tiles(self, tile_px: int) -> Iterator[Window]:
        """Yield windows of at most `tile_px` x `tile_px` pixels that partition the grid, row by row."""
        if tile_px < 1:
            raise GeoError(f"tiles need at least 1 px, found {tile_px}")
        rows, cols = self.shape.rows, self.shape.cols
        for row in range(0, rows, tile_px):
            for col in range(0, cols, tile_px):
                yield Window(row, col, min(tile_px, rows - row), min(tile_px, cols - col))

    def same_as(self, other: Grid, tolerance_px: float = 1e-3) -> bool:
        """Whether both have the same shape and CRS, and corners within `tolerance_px` of each other."""
        if self.shape != other.shape or not same_crs(self.crs, other.crs):
            return False
        limit = tolerance_px * min(*self.resolution, *other.resolution)
        return bool(np.abs(self.corners - other.corners).max() <= limit)

    def pixel_area_m2(self) -> float | None:
        """Return the area of a pixel in square metres, None without a CRS or with a geographic one.

        Where the projection distorts area by more than 1% at the grid's centre (Web Mercator), the true area
        there.
        """
        if not self.crs:
            return None
        x, y = xy_of(self.transform, self.shape.cols / 2, self.shape.rows / 2)
        factor = _area_factor(self.crs, round(x, 3), round(y, 3))
        return None if factor is None else abs(self.transform.determinant) * factor

    def __str__(self) -> str:
        x, y = self.resolution
        return f"{self.shape.rows} x {self.shape.cols} px of {x:.10g} x {y:.10g} in {crs_name(self.crs)}"


def xy_of(transform: Affine, col: float, row: float) -> tuple[float, float]:
    """Return the map coordinates of a pixel position."""
    t = transform
    return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f


@lru_cache(maxsize=256)
def parse_crs(wkt: str) -> Any:
    """Return the pyproj CRS of a WKT or authority text; parsing is cached because it takes milliseconds."""
    import pyproj

    try:
        return pyproj.CRS.from_user_input(wkt)
    except (pyproj.exceptions.CRSError, ValueError, TypeError) as error:
        raise GeoError(
            f"cannot understand the coordinate reference system '{wkt[:60]}': expected WKT or a code such as"
            " EPSG:32633; assign the right one in QGIS or with gdal_edit -a_srs"
        ) from error


@lru_cache(maxsize=256)
def same_crs(first: str, second: str) -> bool:
    """Whether two CRS texts mean the same system; two missing ones count as the same."""
    if first == second:
        return True
    if not first or not second:
        return False
    one, two = parse_crs(first), parse_crs(second)
    if one.equals(two, ignore_axis_order=True):
        return True
    codes = one.to_epsg(), two.to_epsg()
    return codes[0] is not None and codes[0] == codes[1]


@lru_cache(maxsize=256)
def crs_name(crs: str) -> str:
    """Return a short name for messages: the authority code, else the CRS's own name."""
    if not crs:
        return "no CRS"
    parsed = parse_crs(crs)
    authority = parsed.to_authority()
    return ":".join(authority) if authority else str(parsed.name)


@lru_cache(maxsize=256)
def unit_name(crs: str) -> str:
    """Return the unit of a CRS's axes for messages: "m", "degrees", another name, or "map units" when unknown."""
    if not crs:
        return "map units"
    name = str(parse_crs(crs).axis_info[0].unit_name)
    return {"metre": "m", "degree": "degrees"}.get(name, name)


@lru_cache(maxsize=256)
def _area_factor(crs: str, x: float, y: float) -> float | None:
    """Return square metres per square map unit at (x, y), None for a CRS that is not projected."""
    import pyproj

    parsed = parse_crs(crs)
    if not parsed.is_projected:
        return None
    metres = float(parsed.axis_info[0].unit_conversion_factor) or 1.0
    to_degrees = pyproj.Transformer.from_crs(parsed, parsed.geodetic_crs, always_xy=True)
    longitude, latitude = to_degrees.transform(x, y)
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        return metres**2
    scale = float(pyproj.Proj(parsed).get_factors(longitude, latitude).areal_scale)
    distorted = math.isfinite(scale) and scale > 0 and abs(scale - 1) > AREA_DISTORTION
    return metres**2 / scale if distorted else metres**2
