"""Reading windows of open datasets onto a scene's grid. Opens nothing; the datasets are handed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from rasterio.windows import Window as RasterioWindow

from berunda.errors import GeoError
from berunda.geo.bandnames import is_sentinel2
from berunda.geo.grid import Grid, Shape, Window, crs_name
from berunda.geo.reproject import footprint
from berunda.geo.resample import Axis, Relation, bilinear, nearest_indices, relate
from berunda.geo.source import Band, RasterFile

__all__ = ["FilePlan", "MaskPlan", "plan_files", "plan_mask", "read_bands", "read_mask"]

MASK_SOURCE_PX = 1 << 24
"""The largest part of a mask raster that is held at once; larger ones are read by halves."""


@dataclass(frozen=True)
class FilePlan:
    """What to read from one file.

    Attributes:
        file: the facts about it.
        indexes: 1-based band numbers to read.
        positions: where each goes in the scene's band axis.
        nodata: one value or None for each.
        relation: how the scene's pixels lie in the file, None when the grids are the same.
        zero_is_missing: a Sentinel-2 file: by its specification 0 means no data although the file does not
            declare it. As dark pixels are 0 in single bands too, a pixel counts as missing only where all
            such bands are 0.
    """

    file: RasterFile
    indexes: tuple[int, ...]
    positions: tuple[int, ...]
    nodata: tuple[float | None, ...]
    relation: Relation | None
    zero_is_missing: bool


@dataclass(frozen=True)
class MaskPlan:
    """How to read a mask raster onto a scene's grid."""

    file: RasterFile
    grid: Grid
    source_grid: Grid
    overlaps: bool


def plan_files(files: Sequence[RasterFile], bands: Sequence[Band], grid: Grid) -> tuple[FilePlan, ...]:
    """Return one plan per file.

    Raises:
        GeoError: a file is rotated against the scene's grid.
    """
    plans = []
    for file in files:
        mine = [(position, b) for position, b in enumerate(bands) if b.source.path == file.path]
        try:
            relation = None if file.grid.same_as(grid) else relate(grid, file.grid)
        except GeoError as error:
            raise GeoError(f"{file.path}: {error}") from error
        plans.append(
            FilePlan(
                file,
                tuple(b.source.index for _, b in mine),
                tuple(position for position, _ in mine),
                tuple(b.nodata for _, b in mine),
                relation,
                file.driver == "JP2OpenJPEG" and is_sentinel2(file.path.stem) and not any(b.nodata for _, b in mine),
            )
        )
    return tuple(plans)


def plan_mask(file: RasterFile, grid: Grid) -> MaskPlan:
    """Return how to read a mask; without a CRS it must have the scene's shape, and then takes its place.

    Raises:
        GeoError: the mask has no CRS and another shape than the scene.
    """
    source = file.grid
    if bool(source.crs) != bool(grid.crs):
        if source.shape != grid.shape:
            raise GeoError(
                f"--mask {file.path} is {source}, the scene is {grid}: expected the same CRS or, without one, the same"
                " number of rows and columns; assign the CRS with gdal_edit -a_srs"
            )
        source = Grid(source.shape, grid.transform, grid.crs)
    elif not source.is_georeferenced and source.shape != grid.shape:
        raise GeoError(f"--mask {file.path} is {source}, the scene is {grid}: expected the same rows and columns")
    return MaskPlan(file, grid, source, _overlap(source, grid))


def read_bands(dataset: Any, plan: FilePlan, window: Window, out: np.ndarray) -> np.ndarray:
    """Read a file's bands into `out` and return where all of them are valid.

    Args:
        dataset: the open file.
        plan: what to read.
        window: inside the scene's grid.
        out: (B, h, w) float32 of the whole scene, written at the plan's positions.

    Returns:
        (h, w) bool.
    """
    if plan.relation is None:
        values, valid = _read_native(dataset, plan, window)
    else:
        rows = plan.relation.rows(window.row, window.n_rows, plan.file.grid.shape.rows)
        cols = plan.relation.cols(window.col, window.n_cols, plan.file.grid.shape.cols)
        needed = Window(
            int(min(rows.first.min(), rows.second.min())),
            int(min(cols.first.min(), cols.second.min())),
            int(max(rows.first.max(), rows.second.max())) + 1,
            int(max(cols.first.max(), cols.second.max())) + 1,
        )
        needed = Window(needed.row, needed.col, needed.n_rows - needed.row, needed.n_cols - needed.col)
        values, valid = _read_native(dataset, plan, needed)
        values, valid = bilinear(values, valid, _shifted(rows, needed.row), _shifted(cols, needed.col))
    for i, position in enumerate(plan.positions):
        out[position] = values[i]
    return np.asarray(valid.all(axis=0))


def read_mask(dataset: Any, plan: MaskPlan, window: Window) -> np.ndarray:
    """Return (h, w) bool: the pixels that the mask raster leaves out (any value but 0)."""
    result = np.zeros((window.n_rows, window.n_cols), bool)
    if not plan.overlaps:
        return result
    rows, cols, inside = nearest_indices(plan.grid, plan.source_grid, window)
    if not inside.any():
        return result
    top, left = int(rows[inside].min()), int(cols[inside].min())
    shape = Shape(int(rows[inside].max()) - top + 1, int(cols[inside].max()) - left + 1)
    if shape.n_pixels > MASK_SOURCE_PX and window.shape.n_pixels > 1:
        for half in _halves(window):
            result[half.slices_in(window)] = read_mask(dataset, plan, half)
        return result
    index = plan.file.data_indexes[0]
    marks = dataset.read(index, window=RasterioWindow(left, top, shape.cols, shape.rows)) != 0
    result[inside] = marks[rows[inside] - top, cols[inside] - left]
    return result


def _read_native(dataset: Any, plan: FilePlan, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read a window in the file's own pixels: values (k, h, w) float32, 0 where not valid, and valid."""
    place = RasterioWindow(window.col, window.row, window.n_cols, window.n_rows)
    stored = dataset.read(list(plan.indexes), window=place)
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored.astype(np.float32)
    valid = np.isfinite(values) if stored.dtype.kind == "f" else np.ones(stored.shape, bool)
    for i, nodata in enumerate(plan.nodata):
        if nodata is not None and np.isfinite(nodata):
            valid[i] &= ~_equals(stored[i], nodata)
    _apply_masks(dataset, plan, place, valid)
    if not valid.all():
        values = np.where(valid, values, np.float32(0))
    return values, valid


def _apply_masks(dataset: Any, plan: FilePlan, place: RasterioWindow, valid: np.ndarray) -> None:
    """Take the file's alpha band and its masks off `valid`."""
    if plan.file.alpha is not None:
        valid &= dataset.read(plan.file.alpha, window=place) != 0
    for i, index in enumerate(plan.indexes):
        if plan.file.masked[index - 1]:
            valid[i] &= dataset.read_masks(index, window=place) != 0


def _equals(stored: np.ndarray, nodata: float) -> np.ndarray:
    """Compare in the stored type; a nodata value that the type cannot hold matches nothing."""
    dtype = stored.dtype
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if nodata != int(nodata) or not limits.min <= nodata <= limits.max:
            return np.zeros(stored.shape, bool)
    with np.errstate(over="ignore"):
        return np.asarray(stored == np.asarray(nodata).astype(dtype))


def _shifted(axis: Axis, start: int) -> Axis:
    """Return the neighbours as indices into a part of the source that begins at `start`."""
    return Axis(axis.first - start, axis.second - start, axis.weight, axis.inside)


def _halves(window: Window) -> tuple[Window, Window]:
    """Cut a window in two along its longer side."""
    if window.n_rows >= window.n_cols:
        half = window.n_rows // 2
        return (
            Window(window.row, window.col, half, window.n_cols),
            Window(window.row + half, window.col, window.n_rows - half, window.n_cols),
        )
    half = window.n_cols // 2
    return (
        Window(window.row, window.col, window.n_rows, half),
        Window(window.row, window.col + half, window.n_rows, window.n_cols - half),
    )


def _overlap(source: Grid, grid: Grid) -> bool:
    """Whether the footprints share an area."""
    outline = footprint(source, grid.crs) if source.crs or grid.crs else footprint(source)
    if not shapely.is_valid(outline):
        raise GeoError(
            f"the mask in {crs_name(source.crs)} cannot be placed in {crs_name(grid.crs)}; reproject it first"
        )
    return bool(shapely.area(shapely.intersection(outline, footprint(grid))) > 0)
