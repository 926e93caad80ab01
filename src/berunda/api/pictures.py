"""The pictures of a report: quick-looks of the scene and of the layers, all on one small grid."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from berunda.api.prepare import Prepared
from berunda.assess.report_data import ScenePictures
from berunda.data.splits import UNUSED
from berunda.geo.grid import Grid, crs_name, unit_name
from berunda.geo.quicklook import coarse_grid, quicklook, scene_quicklook
from berunda.geo.raster import Scene
from berunda.geo.vector import rasterize
from berunda.mapping.result import MapFiles

__all__ = ["pictures_of", "true_colour_bands"]

MAX_PX = 1000
_TRUE_COLOUR = (
    (r"^b0?4$", r"^b0?3$", r"^b0?2$"),
    (r"^(red|r)$", r"^(green|g)$", r"^(blue|b)$"),
)


def true_colour_bands(names: Sequence[str]) -> tuple[str, str, str]:
    """Return the names of the red, green and blue band; the first three (or the first) where they are not known.

    Example:
        >>> true_colour_bands(["B02", "B03", "B04", "B08"])
        ('B04', 'B03', 'B02')
    """
    for patterns in _TRUE_COLOUR:
        found = [next((n for n in names if re.match(p, n, re.IGNORECASE)), None) for p in patterns]
        if all(found):
            return found[0], found[1], found[2]  # type: ignore[return-value]
    red, green, blue = (list(names) + [names[0]] * 2)[:3] if len(names) >= 3 else [names[0]] * 3
    return red, green, blue


def pictures_of(prepared: Prepared, index: int, files: MapFiles) -> ScenePictures:
    """Return the pictures of one scene and its map, whose files are `files`."""
    scene = prepared.scenes[index]
    grid = coarse_grid(scene.grid, MAX_PX)
    classes = quicklook(files.map, grid.shape, [1], is_class=True)[0]
    bounds = scene.grid.bounds
    area = grid.pixel_area_m2()
    return ScenePictures(
        name=scene.name,
        rgb=_rgb(prepared, scene, grid),
        classes=classes,
        confidence=quicklook(files.confidence, grid.shape, [1])[0],
        distance=quicklook(files.ood, grid.shape, [1])[0],
        parts=_parts(prepared, index, grid),
        test_blocks=_test_blocks(prepared, index, grid),
        pixel_m=None if area is None else float(np.sqrt(area)),
        bounds=(bounds.left, bounds.bottom, bounds.right, bounds.top),
        crs=crs_name(scene.grid.crs) if scene.grid.crs else "",
        facts=_facts(scene),
    )


def _rgb(prepared: Prepared, scene: Scene, grid: Grid) -> np.ndarray:
    names = true_colour_bands(scene.band_names)
    place = [scene.band_names.index(n) for n in names]
    values = scene_quicklook(scene, names, grid.shape)
    low, high = (np.asarray(limit)[place][:, None, None] for limit in prepared.scaling)
    shown = np.clip((values - low) / (high - low), 0, 1) ** 0.8
    return (np.nan_to_num(shown, nan=1.0) * 255).round().astype(np.uint8).transpose(1, 2, 0)


def _parts(prepared: Prepared, index: int, grid: Grid) -> np.ndarray:
    """Return 1 train, 2 calibration, 3 test, 4 unused, 0 where there is no label."""
    here = rasterize(prepared.labels, grid, grid.full_window)
    part = prepared.split.part[np.maximum(here, 0)]
    part = np.where(part == UNUSED, 4, part)
    return np.where(here >= 0, part, 0).astype(np.uint8)


def _test_blocks(prepared: Prepared, index: int, grid: Grid) -> np.ndarray:
    full = prepared.scenes[index].grid.shape
    rows = (np.arange(grid.shape.rows) + 0.5) * full.rows / grid.shape.rows // prepared.split.block_px
    cols = (np.arange(grid.shape.cols) + 0.5) * full.cols / grid.shape.cols // prepared.split.block_px
    return prepared.split.test_blocks[index][np.ix_(rows.astype(int), cols.astype(int))]


def _facts(scene: Scene) -> dict[str, str]:
    shape, resolution = scene.grid.shape, scene.grid.resolution
    size = f"{resolution[0]:g} {unit_name(scene.grid.crs)}"
    return {
        "Size": f"{shape.cols} x {shape.rows} pixels of {size}",
        "Bands": ", ".join(scene.band_names),
        "Coordinate system": crs_name(scene.grid.crs) if scene.grid.crs else "none",
        "Files": _listed([p.name for p in scene.paths]),
    }


def _listed(names: Sequence[str]) -> str:
    """Return the names, the middle of a long list left out."""
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]}, {names[1]}, ... {names[-1]} ({len(names)} files)"
