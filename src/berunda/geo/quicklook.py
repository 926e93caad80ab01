"""Small pictures of large rasters, read through their overviews where they have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.enums import Resampling

from berunda.geo.grid import Grid, Shape
from berunda.geo.raster import RasterFile, Scene, environment, open_raster, reading_errors
from berunda.geo.reading import plan_mask, read_mask

__all__ = ["coarse_grid", "quicklook", "scene_quicklook"]


def coarse_grid(grid: Grid, max_px: int) -> Grid:
    """Return the grid over the same ground whose longer side has at most `max_px` pixels."""
    rows, cols = grid.shape.rows, grid.shape.cols
    factor = max(1.0, max(rows, cols) / max_px)
    shape = Shape(max(1, round(rows / factor)), max(1, round(cols / factor)))
    return Grid(shape, grid.transform * Affine.scale(cols / shape.cols, rows / shape.rows), grid.crs)


def quicklook(path: Path, shape: Shape, indexes: Sequence[int], *, is_class: bool = False) -> np.ndarray:
    """Return bands `indexes` (1-based) of a local raster resampled to `shape`: (n, rows, cols) in the file's
    type.

    Args:
        path: a raster on the same ground as the picture.
        shape: of the picture.
        indexes: bands, 1-based.
        is_class: take the nearest pixel instead of an average.

    Raises:
        GeoError, SecurityError: the file cannot be read or is refused.
    """
    resampling = Resampling.nearest if is_class else Resampling.average
    with environment(), open_raster(path) as dataset, reading_errors(path, "quick-look"):
        found: np.ndarray = dataset.read(
            list(indexes), out_shape=(len(indexes), shape.rows, shape.cols), resampling=resampling
        )
    return found


def scene_quicklook(scene: Scene, names: Sequence[str], shape: Shape) -> np.ndarray:
    """Return the named bands of a scene at `shape`: (n, rows, cols) float32, NaN where there is no data.

    Where a file's own mask, its alpha band or the scene's mask leaves a pixel out (taken at the nearest pixel), there
    is no data either.
    """
    files = {f.path: f for f in scene.files}
    covered = _covered(scene, shape)
    by_name = dict(zip(scene.band_names, scene.bands, strict=True))
    planes = []
    for name in names:
        band = by_name[name]
        plane = quicklook(band.source.path, shape, [band.source.index])[0].astype(np.float32)
        if band.nodata is not None:
            plane[plane == np.float32(band.nodata)] = np.nan
        seen = covered & _unmasked(files[band.source.path], band.source.index, shape)
        planes.append(np.where(np.isfinite(plane) & seen, plane, np.nan))
    return np.stack(planes)


def _unmasked(file: RasterFile, index: int, shape: Shape) -> np.ndarray:
    """Return (rows, cols) bool: where a file's alpha band and its mask of a band show data."""
    seen = np.ones((shape.rows, shape.cols), bool)
    if file.alpha is not None:
        seen &= quicklook(file.path, shape, [file.alpha], is_class=True)[0] != 0
    if file.masked[index - 1]:
        with environment(), open_raster(file.path) as dataset, reading_errors(file.path, "quick-look of the mask"):
            seen &= dataset.read_masks(index, out_shape=seen.shape, resampling=Resampling.nearest) != 0
    return seen


def _covered(scene: Scene, shape: Shape) -> np.ndarray:
    """Return (rows, cols) bool: where the scene's mask raster leaves nothing out."""
    if scene.mask is None:
        return np.ones((shape.rows, shape.cols), bool)
    full = scene.grid
    scale = Affine.scale(full.shape.cols / shape.cols, full.shape.rows / shape.rows)
    plan = replace(plan_mask(scene.mask, full), grid=Grid(shape, full.transform * scale, full.crs))
    path = scene.mask.path
    with environment(), open_raster(path) as dataset, reading_errors(path, "quick-look"):
        return ~read_mask(dataset, plan, plan.grid.full_window)
