"""What `split` writes of labels that lie over scenes: a raster of classes on the grid of each, for its table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from berunda.data.sites import SiteSet
from berunda.errors import GeoError
from berunda.geo.features import is_vector
from berunda.geo.grid import Grid, Window
from berunda.geo.labelraster import MAX_CLASSES, label_grid, read_under
from berunda.geo.labels import rasterize
from berunda.geo.resolve import resolve_inputs
from berunda.geo.vector import read_labels
from berunda.geo.write import BLOCK_PX, create_tiled, finish_cog

__all__ = ["truth_paths", "write_truths"]

_Painter = Callable[[Grid, Window], np.ndarray]


def truth_paths(table: Path, n_scenes: int) -> list[Path]:
    """Return the names of the rasters beside a table, one a scene."""
    if n_scenes == 1:
        return [table.with_name(f"{table.stem}_truth.tif")]
    return [table.with_name(f"{table.stem}_truth_{number}.tif") for number in range(1, n_scenes + 1)]


def write_truths(table: Path, sites: SiteSet, labels: str, field: str = "", *, zero_is_class: bool = False) -> SiteSet:
    """Write labels as rasters of classes beside a table, and return the set whose windows know theirs.

    Args:
        table: that will name them.
        sites: windows of scenes.
        labels: polygons or a raster of classes over the scenes.
        field: of the polygons, that holds the class.
        zero_is_class: whether 0 in a raster is a class.

    Raises:
        GeoError: the labels cannot be read, or have more than 255 classes.
        OutputError: a raster cannot be written.
    """
    grids = [scene.grid for scene in sites.scenes]
    files = resolve_inputs([labels])
    if len(files) == 1 and not is_vector(files[0]):
        names, paint = _of_raster(files[0], grids, zero_is_class)
    else:
        names, paint = _of_polygons(labels, field, grids)
    if len(names) > MAX_CLASSES:
        raise GeoError(f"labels {labels}: {len(names)} classes found, expected at most {MAX_CLASSES}")
    paths = truth_paths(table, len(grids))
    for path, grid in zip(paths, grids, strict=True):
        partial = path.with_name(f".{path.name}.part")
        with create_tiled(partial, grid, 1, "uint8", 0) as writer:
            for window in grid.tiles(BLOCK_PX):
                writer.write(paint(grid, window).astype(np.uint8)[None], window)
        finish_cog(partial, path, overview="mode", categories=["nodata", *names])
    items = (item if item.window is None else replace(item, truth=paths[item.scene]) for item in sites.items)
    return replace(sites, items=tuple(items))


def _of_polygons(labels: str, field: str, grids: Sequence[Grid]) -> tuple[tuple[str, ...], _Painter]:
    """Return the names of classes, and what gives their numbers from 1 on a window; 0 is no class."""
    found = read_labels(labels, field, grids=grids)
    numbers = np.concatenate([found.class_ids, [0]])  # -1, no polygon, is the last: no class
    return found.class_names, lambda grid, window: numbers[rasterize(found, grid, window)]


def _of_raster(path: Path, grids: Sequence[Grid], zero_is_class: bool) -> tuple[tuple[str, ...], _Painter]:
    """Return the same of a raster, which is read window by window and never becomes polygons."""
    own = label_grid(path)
    seen: set[str] = set()
    for grid in grids:
        for window in grid.tiles(BLOCK_PX):
            seen.update(read_under(path, own, grid, window, zero_is_class).names.values())
    names = tuple(sorted(seen))
    number = {name: i for i, name in enumerate(names, 1)}

    def paint(grid: Grid, window: Window) -> np.ndarray:
        raster = read_under(path, own, grid, window, zero_is_class)
        values = sorted(raster.names)
        numbers = np.array([0, *(number[raster.names[value]] for value in values)])
        return numbers[np.searchsorted([-1, *values], raster.values)]

    return names, paint
