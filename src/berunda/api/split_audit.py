"""The audit of a split: does anything that tests share ground or pictures with what trains?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import shapely

from berunda.api.site_outcome import AuditOutcome
from berunda.api.site_tables import WINDOW_COLUMNS, places_of
from berunda.assess.description import MIN_VALID, Description, describe_images, refuse_broken
from berunda.assess.grey import describe_grey
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

__all__ = ["audit_split", "leaks_of", "pictures_of", "placed_images"]


@dataclass
class _Table:
    """Images of a table, as they are gathered."""

    path: Path
    items: list[Item] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    numbers: dict[Path, int] = field(default_factory=dict)
    files: dict[tuple[int, int], Path] = field(default_factory=dict)

    def same_file(self, path: Path) -> Path:
        """Return the path under which a file came first: links, hard ones too, are other names of one file."""
        state = path.stat()
        return self.files.setdefault((state.st_dev, state.st_ino), path)

    def named(self) -> list[Item]:
        """Return the images with names that tell them apart: by their row where one is listed several times."""
        counts = Counter(item.name for item in self.items)
        return [
            item if counts[item.name] == 1 else replace(item, name=f"{item.name} (row {line})")
            for item, line in zip(self.items, self.lines, strict=True)
        ]


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
    if found.blank:
        told.append(
            f"{len(found.blank)} images hold data on less than {MIN_VALID:.0%} of their pixels and were not checked: "
            f"{found.blank[0]} and so on."
        )
    if n_placed < len(found.sites):
        told.append(
            f"{len(found.sites) - n_placed} images have no known place: overlaps and neighbours among them cannot be "
            "found, "
            "only pictures that are there twice."
        )
    if not found.bands:
        told.append("The images differ in their bands: pictures are compared by their grey values.")
    return told


def _looked_at(sites: SiteSet, skip_broken: bool, progress: Progress) -> Description:
    try:
        found = pictures_of(sites, progress)
    except DataError:
        grey = describe_grey(sites)
        if grey is None:  # the bands are not what was wrong
            raise
        found = grey
    if not skip_broken:
        refuse_broken(found, len(sites))
    return found


def pictures_of(
    sites: SiteSet, progress: Progress, bands: Sequence[str] | None = None, *, min_valid: float = MIN_VALID
) -> Description:
    """Return images of the same bands as the audit sees them: thumbnails, hashes and sizes, no features.

    Args:
        sites: the images.
        progress: told of every batch.
        bands: names of the bands wanted; None for those of the first image.
        min_valid: share 0..1 of an image's pixels that must hold data; images with less are left out and named.

    Raises:
        DataError: no image can be read, or their bands differ.
    """
    pixels = SitePixels(sites, bands=bands, names=bands)
    scaling = measure_site_scaling(pixels)
    return describe_images(pixels, scaling, _nothing, image_px=32, key="audit", min_valid=min_valid, progress=progress)


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
    cut = {item.path for item in sites.items if item.window is not None}
    crs = next((grid.crs for grid in grids if grid is not None and grid.crs), "")
    for index, (item, grid) in enumerate(zip(sites.items, grids, strict=True)):
        side = int(min(found.sizes[index]))
        reach = side / 2 if buffer_px is None else float(buffer_px)
        space, shape, unit = _place(item, grid, crs)
        if shape is None and item.path in cut:  # all of a file that others are windows of
            n_rows, n_cols = found.sizes[index].tolist()
            space, shape = str(item.path), shapely.box(0, 0, n_cols, n_rows)
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
    # a split may leave an image of a site to label without labels: what trains is told by split, not by role
    of_row = next((columns[name] for name in ("split", "part", "role") if name in columns), None)
    if "path" not in columns or of_row is None:
        raise DataError(
            f"{path}: columns {', '.join(columns)} found, expected file and split (train, validation, test or "
            "unlabelled); "
            "berunda split writes such a table"
        )
    has_windows = all(name in columns for name in WINDOW_COLUMNS)
    made = _Table(path)
    for line, row in enumerate(rows, 2):
        where = f"{path} row {line}"
        # a table that `train` reads leaves the cell of training images empty
        role = role_of(row[of_row], where) or "labelled"
        # of a scene of several files the first tells place and picture
        file = file_below(path, row[columns["path"]].split(FILES_JOINT)[0], where)
        cells = [row[columns[name]].strip() for name in WINDOW_COLUMNS] if has_windows else []
        made.items.append(_item(made, file, ROLES.index(role), cells, where))
        made.lines.append(line)
    items = sorted(made.named(), key=lambda item: item.site)
    sites = tuple(Site(role, role) for role in ROLES)
    return SiteSet(path.stem, sites, tuple(items), tuple(made.scenes), root=path.parent)


def _item(made: _Table, file: Path, site: int, cells: Sequence[str], where: str) -> Item:
    name = file.relative_to(made.path.resolve().parent).as_posix()
    file = made.same_file(file)
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
