"""What `split` writes of labels that lie over scenes: a raster of classes on the grid of each, for its table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from berunda.data.sites import SiteSet
from berunda.geo.labels import rasterize
from berunda.geo.vector import read_labels
from berunda.geo.write import BLOCK_PX, create_tiled, finish_cog

__all__ = ["truth_paths", "write_truths"]


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
        GeoError: the labels cannot be read.
        OutputError: a raster cannot be written.
    """
    grids = [scene.grid for scene in sites.scenes]
    found = read_labels(labels, field, grids=grids, zero_is_class=zero_is_class)
    paths = truth_paths(table, len(grids))
    numbers = np.concatenate([found.class_ids, [0]]).astype(np.uint8)  # -1, no polygon, is the last: no class
    for path, grid in zip(paths, grids, strict=True):
        partial = path.with_name(f".{path.name}.part")
        with create_tiled(partial, grid, 1, "uint8", 0) as writer:
            for window in grid.tiles(BLOCK_PX):
                writer.write(numbers[rasterize(found, grid, window)][None], window)
        finish_cog(partial, path, overview="mode", categories=["nodata", *found.class_names])
    items = (item if item.window is None else replace(item, truth=paths[item.scene]) for item in sites.items)
    return replace(sites, items=tuple(items))
