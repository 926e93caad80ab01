"""Filling polygons on the pixels of a grid: a pixel belongs to the polygon that holds its centre.

Edges are intersected with absolute pixel rows, so a pixel gets the same answer whatever window is asked for,
and polygons that share an edge share no pixel and leave none out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from berunda.geo.grid import Grid, Window

__all__ = ["PixelPolygon", "fill", "to_pixels"]


@dataclass(frozen=True)
class PixelPolygon:
    """A polygon's edges in pixel coordinates, upward, level ones left out.

    Attributes:
        edges: (n, 4) float64 of x0, y0, x1, y1 with y0 < y1.
        box: the pixels whose centres can lie inside.
    """

    edges: np.ndarray
    box: Window


def to_pixels(geometries: np.ndarray, grid: Grid) -> list[PixelPolygon]:
    """Return polygons (shapely, in the grid's CRS) as edges in the grid's pixel coordinates."""
    if not len(geometries):
        return []
    parts, owner_of_part = shapely.get_parts(geometries, return_index=True)
    rings, part_of_ring = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    owner = owner_of_part[part_of_ring][ring]
    inverse = ~grid.transform
    x = inverse.a * points[:, 0] + inverse.b * points[:, 1] + inverse.c
    y = inverse.d * points[:, 0] + inverse.e * points[:, 1] + inverse.f
    edges = np.column_stack([x[:-1], y[:-1], x[1:], y[1:]])
    kept = (ring[1:] == ring[:-1]) & (edges[:, 1] != edges[:, 3])
    edges = edges[kept]
    down = edges[:, 1] > edges[:, 3]
    edges[down] = edges[down][:, [2, 3, 0, 1]]
    numbers = np.arange(len(geometries))
    stops = np.searchsorted(owner[:-1][kept], numbers, side="right")
    boxes = _boxes(x, y, np.searchsorted(owner, numbers))
    return [PixelPolygon(mine, box) for mine, box in zip(np.split(edges, stops[:-1]), boxes, strict=True)]


def fill(polygon: PixelPolygon, window: Window) -> np.ndarray:
    """Return (h, w) bool: the pixels of a window whose centres the polygon holds (even-odd rule over its
    rings).

    A centre on an edge belongs to the side right of it and below it, so neighbours never both claim it.
    """
    height, width = window.n_rows, window.n_cols
    first, last = _rows(polygon.edges[:, 1], window), _rows(polygon.edges[:, 3], window)
    n_rows = last - first
    crossing = n_rows > 0
    edges, first, n_rows = polygon.edges[crossing], first[crossing], n_rows[crossing]
    edge = np.repeat(np.arange(len(edges)), n_rows)
    row = np.repeat(first - (np.cumsum(n_rows) - n_rows), n_rows) + np.arange(len(edge))
    x0, y0, x1, y1 = edges[edge].T
    x = x0 + (row + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    col = np.clip(np.ceil(x - 0.5) - window.col, 0, width).astype(np.int64)
    flips = np.bincount((row - window.row) * (width + 1) + col, minlength=height * (width + 1))
    inside = np.cumsum(flips.reshape(height, width + 1)[:, :width], axis=1) & 1
    return inside.astype(bool)


def _rows(y: np.ndarray, window: Window) -> np.ndarray:
    """Return the first row whose centre lies at or after y, limited to the window, as an absolute row."""
    return np.clip(np.ceil(y - 0.5), window.row, window.row + window.n_rows).astype(np.int64)


def _boxes(x: np.ndarray, y: np.ndarray, starts: np.ndarray) -> list[Window]:
    """Return the window of pixels whose centres lie within the extent of each polygon's points."""
    first = [np.ceil(np.minimum.reduceat(v, starts) - 0.5) for v in (y, x)]
    size = [np.ceil(np.maximum.reduceat(v, starts) - 0.5) - low + 1 for v, low in zip((y, x), first, strict=True)]
    return [Window(*map(int, box)) for box in zip(*first, *size, strict=True)]
