"""What an analysis or a split leaves as tables and polygons."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from berunda.assess.overlap import Overlap
from berunda.assess.representativeness import ClassFigures
from berunda.assess.site_analysis import SiteAnalysis
from berunda.data.site_pixels import place_of
from berunda.data.sites import Item, SiteSet
from berunda.data.tables import FILES_JOINT, WINDOW_COLUMNS
from berunda.errors import ConfigError, GeoError
from berunda.files import write_text
from berunda.geo.grid import Grid
from berunda.geo.grouping import finest
from berunda.geo.outlines import write_outlines
from berunda.geo.raster import Scene
from berunda.geo.reproject import footprint

__all__ = [
    "WINDOW_COLUMNS",
    "below_table",
    "places_of",
    "relative_path",
    "window_cells",
    "write_csv",
    "write_ranking",
    "write_tables",
]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a table in UTF-8, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())
    return path


def _plain(cell: object) -> object:
    if isinstance(cell, float | np.floating):
        return "" if not np.isfinite(cell) else f"{cell:.6g}"
    return cell


def window_cells(item: Item) -> list[object]:
    """Return row, col, n_rows, n_cols of an image's window; empty where it is a whole file."""
    window = item.window
    return [""] * 4 if window is None else [window.row, window.col, window.n_rows, window.n_cols]


def write_tables(folder: Path, analysis: SiteAnalysis) -> None:
    """Write plane.csv, overlap.csv and, where classes are known, classes.csv.

    Raises:
        OutputError: the folder cannot be written.
    """
    sites = analysis.sites
    rows = (
        [item.name, sites.sites[item.site].name, sites.sites[item.site].role, x, y, *window_cells(item)]
        for item, (x, y) in zip(sites.items, analysis.plane, strict=True)
    )
    write_csv(folder / "plane.csv", ("image", "site", "role", "x", "y", *WINDOW_COLUMNS), rows)
    overlaps = analysis.overlaps
    lines = [
        *_overlap_rows("sites", overlaps.pairs, overlaps.pairs_full),
        *_overlap_rows("unions", overlaps.unions, overlaps.unions_full),
        *(
            ["others", "all other sites", name, np.nan, overlaps.others[i], np.nan, overlaps.others_full[i]]
            for i, name in enumerate(sites.site_names)
        ),
    ]
    head = ("kind", "s1", "s2", "iou_plane", "iot_plane", "iou_full", "iot_full")
    write_csv(folder / "overlap.csv", head, lines)
    if analysis.class_figures is not None:
        _write_classes(folder / "classes.csv", sites, analysis.class_figures)


def _overlap_rows(kind: str, plane: Overlap | None, full: Overlap | None) -> Iterator[list[object]]:
    if plane is None or full is None:
        return
    for i, first in enumerate(plane.rows):
        for j, second in enumerate(plane.cols):
            yield [kind, first, second, plane.iou[i, j], plane.iot[i, j], full.iou[i, j], full.iot[i, j]]


def _write_classes(path: Path, sites: SiteSet, figures: ClassFigures) -> None:
    rows = [
        [site.name, site.role, *(f"{count:g}" for count in figures.by_site[i])] for i, site in enumerate(sites.sites)
    ]
    write_csv(path, ("site", "role", *figures.classes), rows)


def places_of(sites: SiteSet) -> list[Grid | None]:
    """Return the grid of each image, None where its place is not known or its file cannot be read."""
    found: list[Grid | None] = []
    for item in sites.items:
        try:
            found.append(place_of(sites, item))
        except GeoError:
            found.append(None)
    return found


def write_ranking(folder: Path, analysis: SiteAnalysis) -> Path | None:
    """Write which images to label next: label_next.csv, and label_next.gpkg where they have a place; return the latter.

    Raises:
        OutputError: the folder cannot be written.
    """
    ranked, sites = analysis.ranked, analysis.sites
    if ranked is None:
        return None
    rows = []
    for rank, index in enumerate(ranked.index.tolist()):
        item = sites.items[index]
        unsure = "" if analysis.uncertainty is None else float(analysis.uncertainty[index])
        rows.append(
            [
                *(rank + 1, item.name, sites.site_names[item.site], str(item.path), *window_cells(item)),
                *(float(ranked.distance[rank]), unsure, float(ranked.score[rank]), float(ranked.largest_left[rank])),
            ]
        )
    figures = ("distance", "uncertainty", "score", "largest_distance_left")
    write_csv(folder / "label_next.csv", ("rank", "image", "site", "file", *WINDOW_COLUMNS, *figures), rows)
    return _write_polygons(folder / "label_next.gpkg", sites, ranked.index, rows)


def _write_polygons(path: Path, sites: SiteSet, index: np.ndarray, rows: list[list[object]]) -> Path | None:
    grids = places_of(sites.subset(index))
    placed = [k for k, grid in enumerate(grids) if grid is not None]
    crs = {grid.crs for grid in grids if grid is not None}
    if not placed or ("" in crs and len(crs) > 1):
        path.unlink(missing_ok=True)
        return None
    target = next(grid.crs for grid in grids if grid is not None)
    shapes = [footprint(grid, target or None) for grid in grids if grid is not None]
    columns = {
        "rank": np.array([int(str(rows[k][0])) for k in placed], np.int64),
        "image": np.array([rows[k][1] for k in placed], dtype=object),
        "site": np.array([rows[k][2] for k in placed], dtype=object),
        "score": np.nan_to_num(np.array([float(str(rows[k][10])) for k in placed]), posinf=0.0),
        "class": np.array([""] * len(placed), dtype=object),
    }
    return write_outlines(path, np.array(shapes, dtype=object), columns, target, "label_next")


def relative_path(table: Path, sites: SiteSet, item: Item) -> str:
    """Return an image's path from the folder of a table, with "/"; those of a scene of several files joined by ";".

    Those of a scene are the files of its bands, and the one whose grid windows are counted in where no band is of it:
    opened together, they have that grid again.

    Raises:
        ConfigError: the image does not lie below that folder.
    """
    paths = (item.path,) if item.window is None else _files_with_grid(sites.scenes[item.scene])
    return FILES_JOINT.join(below_table(table, path) for path in paths)


def _files_with_grid(scene: Scene) -> tuple[Path, ...]:
    by_path = {file.path: file for file in scene.files}
    if finest([by_path[path] for path in scene.paths]) == scene.grid:
        return scene.paths
    return (next(file.path for file in scene.files if file.grid == scene.grid), *scene.paths)


def below_table(table: Path, path: Path) -> str:
    """Return a file's path from the folder of a table, with "/".

    Raises:
        ConfigError: the file does not lie below that folder.
    """
    file = path.resolve()
    folder = table.resolve().parent
    if not file.is_relative_to(folder):
        shared = os.path.commonpath([file, folder])
        raise ConfigError(
            f"--out {table}: image {file} lies outside {folder}, expected all images below the table's folder, so "
            "that the "
            f"table can be read anywhere; write it to {Path(shared) / table.name}"
        )
    return file.relative_to(folder).as_posix()
