"""Which files are the bands of one scene and which are scenes of their own, by the ground they cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import shapely

from berunda.errors import GeoError
from berunda.geo.grid import Grid, crs_name, same_crs
from berunda.geo.reproject import footprint
from berunda.geo.source import RasterFile

__all__ = ["SAME_GROUND", "SEPARATE_GROUND", "finest", "group_files"]

SAME_GROUND = 0.99
"""Two files whose common area is at least this share of the *larger* one are bands of one scene."""

SEPARATE_GROUND = 0.10
"""Two files whose common area is at most this share of the *smaller* one are scenes of their own."""


def group_files(files: Sequence[RasterFile]) -> list[list[RasterFile]]:
    """Return the files scene by scene, in the order given.

    A share of the larger file for "same" and of the smaller one for "separate" means that a small raster
    inside a large one is
    neither: it would be mapped twice or cut the other down. Files of different resolution may differ by less
    than one coarse pixel at each edge. Pictures without any georeference are one scene each, unless every one
    has a single band and all have the same size (then they are the bands of one).

    Raises:
        GeoError: two files overlap by anything between, or cover the same ground in different CRS.
    """
    if len(files) == 1:
        return [list(files)]
    placed = [f for f in files if f.grid.is_georeferenced]
    if not placed:
        return _group_pictures(files)
    if len(placed) < len(files):
        bare = next(f for f in files if not f.grid.is_georeferenced)
        raise GeoError(
            f"{bare.path} has no georeference, {placed[0].path} has one: expected all or none; give them apart"
        )
    groups: list[list[RasterFile]] = []
    outlines: dict[int, Any] = {}
    for file in files:
        home = [group for group in groups if any(_same_ground(member, file, outlines) for member in group)]
        if home:
            home[0].append(file)
        else:
            groups.append([file])
    return groups


def finest(files: Sequence[RasterFile]) -> Grid:
    """Return the grid with the smallest pixels; the first of equal ones."""
    return min((f.grid for f in files), key=lambda g: round(abs(g.transform.determinant), 9))


def _same_ground(one: RasterFile, two: RasterFile, outlines: dict[int, Any]) -> bool:
    """Whether two files are bands of one scene; False when they are scenes of their own."""
    if bool(one.grid.crs) != bool(two.grid.crs):
        bare, other = (one, two) if two.grid.crs else (two, one)
        raise GeoError(
            f"{bare.path} has no CRS, {other.path} has {crs_name(other.grid.crs)}: expected one in each file;"
            " assign it with gdal_edit -a_srs"
        )
    share_larger, share_smaller = _shares(one.grid, two.grid, outlines)
    if share_smaller <= SEPARATE_GROUND:
        return False
    if share_larger >= SAME_GROUND or _edges_agree(one.grid, two.grid):
        if same_crs(one.grid.crs, two.grid.crs):
            return True
        raise GeoError(
            f"{one.path} ({crs_name(one.grid.crs)}) and {two.path} ({crs_name(two.grid.crs)}) cover the same ground in"
            " different CRS: expected one CRS for the bands of a scene; reproject one with gdalwarp"
        )
    raise GeoError(
        f"{one.path} and {two.path} overlap by {100 * share_larger:.1f}% of the larger and {100 * share_smaller:.1f}%"
        " of the smaller: expected at least 99% of the larger (bands of one scene) or at most 10% of the smaller"
        " (several scenes); crop them to the same ground or run them apart"
    )


def _shares(one: Grid, two: Grid, outlines: dict[int, Any]) -> tuple[float, float]:
    """Return the common area as a share of the larger and of the smaller footprint, 0..1."""
    first = outlines.setdefault(id(one), footprint(one))
    second = outlines.setdefault(id(two), footprint(two)) if same_crs(one.crs, two.crs) else footprint(two, one.crs)
    if not shapely.is_valid(second):
        return 0.0, 0.0
    common = shapely.area(shapely.intersection(first, second))
    areas = float(shapely.area(first)), float(shapely.area(second))
    return common / max(areas), common / min(areas)


def _edges_agree(one: Grid, two: Grid) -> bool:
    """Whether grids of different resolution differ by less than one coarse pixel at every edge."""
    if not same_crs(one.crs, two.crs):
        return False
    coarse, fine = (one, two) if one.resolution[0] >= two.resolution[0] else (two, one)
    if coarse.resolution[0] < 1.5 * fine.resolution[0]:
        return False
    a, b = one.bounds, two.bounds
    limit = (
        min(coarse.resolution[0], (a.right - a.left) / 10),
        min(coarse.resolution[1], (a.top - a.bottom) / 10),
    )
    return (
        max(abs(a.left - b.left), abs(a.right - b.right)) < limit[0]
        and max(abs(a.bottom - b.bottom), abs(a.top - b.top)) < limit[1]
    )


def _group_pictures(files: Sequence[RasterFile]) -> list[list[RasterFile]]:
    """Group files without georeference by their number of bands."""
    single = [len(f.data_indexes) == 1 for f in files]
    if all(single) and len({f.grid.shape for f in files}) == 1:
        return [list(files)]
    if any(single):
        raise GeoError(
            f"{files[0].path} and {len(files) - 1} more files have no georeference, so it is unknown whether they are"
            " bands or scenes: expected single bands of one size, or pictures of several bands; give them apart"
        )
    return [[f] for f in files]
