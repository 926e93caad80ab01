"""The audit of a split: does anything that tests share ground or pictures with what trains?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from berunda.api.site_outcome import AuditOutcome
from berunda.api.site_tables import WINDOW_COLUMNS, places_of
from berunda.assess.description import Description, describe_images, refuse_broken
from berunda.assess.leakage import Leak, Placed, find_leaks
from berunda.data.site_layouts import file_below, read_columns
from berunda.data.site_pixels import SitePixels, measure_site_scaling
from berunda.data.sites import ROLES, Item, Site, SiteSet, role_of
from berunda.data.tables import FILES_JOINT
from berunda.errors import DataError
from berunda.geo.grid import Grid, Window
from berunda.geo.raster import Scene, open_scenes
from berunda.geo.reproject import footprint
from berunda.progress import Progress, Silent

__all__ = ["audit_split", "leaks_of", "placed_images"]


@dataclass
class _Table:
    """Images of a table, as they are gathered."""

    path: Path
    items: list[Item]
    scenes: list[Scene]
    numbers: dict[Path, int]


def audit_split(
    table: Path | str, *, buffer_px: int | None = None, skip_broken: bool = False, progress: Progress | None = None
) -> AuditOutcome:
    """Look for leaks in a split that a table describes.

    Args:
        table: a .csv with the columns file (or path) and split (or role), and row, col, n_rows, n_cols for windows of
            scenes, as `split` writes it; any table that `train` reads will do.
        buffer_px: least distance between a test image and one that trains, in pixels; half a test image if None.
        skip_broken: leave images out that cannot be read, and say so.
        progress: told of every batch.

    Raises:
        DataError: the table cannot be read, or there is nothing to audit.
        SecurityError: a path leads out of the table's folder.
    """
    sites = _sites_of(Path(table))
    try:
        found = _looked_at(sites, skip_broken, progress or Silent())
        leaks = leaks_of(found, buffer_px)
        grids = [footprints is not None for footprints in placed_images(found, buffer_px).footprints]
    finally:
        for scene in sites.scenes:
            scene.close()
    of_labels = tuple(leak for leak in leaks if leak.part == "labelled")
    others = tuple(leak for leak in leaks if leak.part != "labelled")
    return AuditOutcome(len(found.sites), sum(grids), of_labels, others, tuple(_warnings(found, sum(grids))))


def _warnings(found: Description, n_placed: int) -> list[str]:
    told = []
    if found.broken:
        told.append(f"{len(found.broken)} images cannot be read and were not checked: {found.broken[0][0]} and so on.")
    if n_placed < len(found.sites):
        told.append(
            f"{len(found.sites) - n_placed} images have no known place: overlaps and neighbours among them cannot be "
            "found, "
            "only pictures that are there twice."
        )
    return told


def _looked_at(sites: SiteSet, skip_broken: bool, progress: Progress) -> Description:
    pixels = SitePixels(sites)
    scaling = measure_site_scaling(pixels)
    found = describe_images(pixels, scaling, _nothing, image_px=32, key="audit", progress=progress)
    if not skip_broken:
        refuse_broken(found, len(sites))
    return found


def _nothing(given: np.ndarray) -> np.ndarray:
    """Describe images by nothing: the audit looks at pictures and places alone."""
    return np.zeros((len(given), 1), np.float32)


def leaks_of(found: Description, buffer_px: int | None) -> list[Leak]:
    """Return all leaks between described images whose sites have roles."""
    return find_leaks(placed_images(found, buffer_px))


def placed_images(found: Description, buffer_px: int | None) -> Placed:
    """Return described images as the audit sees them; sites without a role count as unlabelled."""
    sites = found.sites
    grids = places_of(sites)
    shapes = np.full(len(sites), None, dtype=object)
    spaces, buffers = np.zeros(len(sites), np.int64), np.zeros(len(sites))
    numbers: dict[str, int] = {}
    crs = next((grid.crs for grid in grids if grid is not None and grid.crs), "")
    for index, (item, grid) in enumerate(zip(sites.items, grids, strict=True)):
        side = int(min(found.sizes[index]))
        reach = side / 2 if buffer_px is None else float(buffer_px)
        space, shape, unit = _place(item, grid, crs)
        shapes[index], buffers[index] = shape, reach * unit
        spaces[index] = numbers.setdefault(space, len(numbers))
    parts = tuple(sites.sites[item.site].role or "unlabelled" for item in sites.items)
    names = tuple(item.name for item in sites.items)
    return Placed(names, parts, shapes, spaces, buffers, found.hashes, found.contents, found.thumbs)


def _place(item: Item, grid: Grid | None, crs: str) -> tuple[str, object, float]:
    """Return the space of an image, its outline there (None without a place) and the length of a pixel there."""
    if grid is not None and grid.crs:
        outline = footprint(grid, crs)
        # the side of a pixel in the common system, whatever its unit
        unit = float(np.sqrt(shapely.area(outline) / grid.shape.n_pixels))
        return "ground", outline, unit
    if grid is not None:
        return "map without CRS", footprint(grid), min(grid.resolution)
    if item.window is not None:
        window = item.window
        return str(item.path), shapely.box(window.col, window.row, window.col_stop, window.row_stop), 1.0
    return "nowhere", None, 1.0


def _sites_of(path: Path) -> SiteSet:
    """Return the images of a table, a site a role."""
    columns, rows = read_columns(path)
    if "path" not in columns or "role" not in columns:
        raise DataError(
            f"{path}: columns {', '.join(columns)} found, expected file and split (train, validation, test or "
            "unlabelled); "
            "berunda split writes such a table"
        )
    has_windows = all(name in columns for name in WINDOW_COLUMNS)
    made = _Table(path, [], [], {})
    for line, row in enumerate(rows, 2):
        where = f"{path} row {line}"
        # a table that `train` reads leaves the cell of training images empty
        role = role_of(row[columns["role"]], where) or "labelled"
        # of a scene of several files the first tells place and picture
        file = file_below(path, row[columns["path"]].split(FILES_JOINT)[0], where)
        cells = [row[columns[name]].strip() for name in WINDOW_COLUMNS] if has_windows else []
        made.items.append(_item(made, file, ROLES.index(role), cells, where))
    order = sorted(range(len(made.items)), key=lambda i: made.items[i].site)
    sites = tuple(Site(role, role) for role in ROLES)
    return SiteSet(path.stem, sites, tuple(made.items[i] for i in order), tuple(made.scenes), root=path.parent)


def _item(made: _Table, file: Path, site: int, cells: Sequence[str], where: str) -> Item:
    name = file.relative_to(made.path.resolve().parent).as_posix()
    if not any(cells):
        return Item(name, site, file)
    try:
        row, col, n_rows, n_cols = (int(cell) for cell in cells)
    except ValueError:
        raise DataError(f"{where}: window {', '.join(cells)} found, expected whole numbers {WINDOW_COLUMNS}") from None
    if row < 0 or col < 0 or n_rows < 1 or n_cols < 1:
        raise DataError(f"{where}: window {', '.join(cells)} found, expected rows and columns inside the scene")
    if file not in made.numbers:
        made.numbers[file] = len(made.scenes)
        made.scenes.append(open_scenes([file])[0])
    window = Window(row, col, n_rows, n_cols)
    return Item(f"{name}@{row},{col}", site, file, scene=made.numbers[file], window=window)
