"""Coordinates from one reference system to another, point by point."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import shapely

from berunda.errors import GeoError
from berunda.geo.grid import Grid, crs_name, parse_crs, same_crs

__all__ = ["footprint", "transform_geometries", "transform_points"]


def transform_points(x: np.ndarray, y: np.ndarray, source: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in the `target` CRS; inf where a point cannot be transformed.

    Args:
        x: eastings or longitudes, any shape.
        y: northings or latitudes, likewise.
        source: WKT of their CRS.
        target: WKT of the CRS wanted.
    """
    if same_crs(source, target):
        return x, y
    if not source or not target:
        raise GeoError(
            f"cannot transform coordinates from {crs_name(source)} to {crs_name(target)}: expected a CRS on both sides;"
            " assign the missing one in QGIS or with gdal_edit -a_srs"
        )
    return _transformer(source, target).transform(x, y)


def transform_geometries(geometries: np.ndarray, source: str, target: str) -> np.ndarray:
    """Return geometries in the `target` CRS, vertex by vertex; (n,) object array of shapely geometries."""
    if same_crs(source, target):
        return geometries

    def move(points: np.ndarray) -> np.ndarray:
        x, y = transform_points(points[:, 0], points[:, 1], source, target)
        return np.column_stack([x, y])

    return shapely.transform(geometries, move)


def footprint(grid: Grid, crs: str | None = None) -> Any:
    """Return a grid's outline as a shapely polygon, in `crs` if one is given (edges densified before)."""
    outline = shapely.polygons(grid.corners)
    if crs is None or same_crs(grid.crs, crs):
        return outline
    dense = shapely.segmentize(outline, shapely.length(outline) / 80)
    return transform_geometries(np.array([dense], dtype=object), grid.crs, crs)[0]


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Any:
    """Return a cached pyproj transformer (building one takes tens of milliseconds)."""
    import pyproj

    try:
        return pyproj.Transformer.from_crs(parse_crs(source), parse_crs(target), always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise GeoError(
            f"no transformation leads from {crs_name(source)} to {crs_name(target)}: expected two horizontal systems;"
            " check the CRS of both in QGIS"
        ) from error
