"""Labels from files: polygons with a class field, or a raster of classes, in the scene's coordinates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from berunda.errors import GeoError
from berunda.geo.classes import class_name, map_classes, parse_class_mapping
from berunda.geo.features import WGS84, Features, is_vector, read_features
from berunda.geo.grid import Bounds, Grid, crs_name, same_crs
from berunda.geo.labelraster import read_label_raster
from berunda.geo.labels import Labels, count_conflicts, rasterize
from berunda.geo.reproject import footprint, transform_geometries
from berunda.geo.resolve import resolve_inputs

__all__ = ["Labels", "count_conflicts", "parse_class_mapping", "rasterize", "read_labels"]

POLYGONAL = (3, 6)
"""Shapely's type numbers of Polygon and MultiPolygon."""


@dataclass(frozen=True)
class _Cleaned:
    """Geometries after repair: None where there is nothing to use."""

    geometries: np.ndarray
    n_empty: int
    n_repaired: int


def read_labels(
    path: str | Path,
    field: str,
    *,
    grids: Sequence[Grid],
    classes: Mapping[str, str] | None = None,
    zero_is_class: bool = False,
) -> Labels:
    """Read labelled polygons from a GeoPackage, GeoJSON or shapefile, or turn a label raster into polygons.

    Regions of a label raster are its 4-connected components; `field` is not used then.

    A scene without CRS takes labels without CRS in its own coordinates (GeoJSON without a `crs` member counts
    as such there), and refuses labels that have one; a scene with a CRS refuses labels without.

    Args:
        path: the file.
        field: name of the field that holds the class.
        grids: grids of the scenes, at least one; the polygons come back in the CRS of the first.
        classes: old name -> new name, "" drops the class; classes not named stay.
        zero_is_class: whether 0 in a label raster is a class.

    Raises:
        GeoError: the file is damaged, has no such field or CRS, or no polygon lies in a scene.
        SecurityError: the path or the content is refused by policy.
    """
    files = resolve_inputs([path])
    if len(files) != 1:
        raise GeoError(f"labels {path} means {len(files)} files: expected one file")
    source = files[0]
    features = read_features(source, field) if is_vector(source) else _raster_features(source, zero_is_class)
    crs = _checked_crs(features.crs, grids[0], source)
    own_names = [class_name(v) for v in features.values]
    names = map_classes(own_names, classes, str(source))
    cleaned = _clean(features.geometries, source)
    has_class = np.array([bool(n) for n in names])
    usable = has_class & np.array([g is not None for g in cleaned.geometries])
    moved = np.full(len(names), None, dtype=object)
    moved[usable] = transform_geometries(cleaned.geometries[usable], crs, grids[0].crs)
    inside, partly = _place(moved, usable, grids)
    if not inside.any():
        _raise_outside(cleaned.geometries[usable], crs, grids, source)
    class_names = tuple(sorted({n for n in names if n}))
    chosen = np.flatnonzero(inside)
    return Labels(
        geometries=moved[chosen],
        class_ids=np.array([class_names.index(str(names[i])) + 1 for i in chosen], np.int16),
        class_names=class_names,
        source=str(source),
        crs=grids[0].crs,
        fingerprints=_fingerprints(cleaned.geometries[chosen]),
        n_outside=int((usable & ~inside).sum()),
        n_partly_outside=int(partly.sum()),
        n_empty=cleaned.n_empty,
        n_repaired=cleaned.n_repaired,
        n_null=sum(n is None for n in names),
        n_dropped=sum(n == "" for n in names),
    )


def _raster_features(path: Path, zero_is_class: bool) -> Features:
    """Turn the 4-connected regions of a label raster into polygons on its pixel edges."""
    from rasterio.features import shapes

    raster = read_label_raster(path, zero_is_class)
    geometries: list[Any] = []
    values: list[Any] = []
    for outline, value in shapes(
        raster.values, mask=raster.values >= 0, connectivity=4, transform=raster.grid.transform
    ):
        rings = outline["coordinates"]
        geometries.append(shapely.polygons(rings[0], holes=[shapely.linearrings(r) for r in rings[1:]] or None))
        values.append(raster.names[int(value)])
    if not geometries:
        raise GeoError(
            f"label raster {path} has no labelled pixel: expected class numbers besides nodata"
            " (0 and 255 unless one is declared); see --zero-is-class"
        )
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    return Features(array, values, raster.grid.crs)


def _checked_crs(crs: str, grid: Grid, path: Path) -> str:
    """Return the CRS of the labels, or say which side lacks one."""
    if not grid.crs and crs in {"", WGS84}:
        return ""
    if bool(crs) == bool(grid.crs):
        return crs
    if not crs:
        raise GeoError(
            f"{path} has no CRS, the scene has {crs_name(grid.crs)}: expected one in both; set it in QGIS"
            " (Layer > Set CRS)"
            " and export again"
        )
    raise GeoError(
        f"{path} has {crs_name(crs)}, the scene has no CRS: expected one in both; assign the scene's with"
        " gdal_edit -a_srs"
    )


def _clean(geometries: np.ndarray, path: Path) -> _Cleaned:
    """Keep the polygons, repair what crosses itself, drop what has no area.

    Raises:
        GeoError: the layer holds features but not one polygon.
    """
    kinds = shapely.get_type_id(geometries)
    if len(kinds) and (kinds >= 0).any() and not np.isin(kinds, (*POLYGONAL, 7)).any():
        found = next(g for g in geometries if g is not None).geom_type
        raise GeoError(f"{path} holds {found} features: expected polygons; buffer them in QGIS first")
    flat = shapely.force_2d(geometries)
    broken = ~shapely.is_valid(flat) & np.isin(kinds, (*POLYGONAL, 7))
    repaired = flat.copy()
    repaired[broken] = shapely.make_valid(flat[broken])
    result = np.full(len(flat), None, dtype=object)
    for i, geometry in enumerate(repaired):
        result[i] = _polygonal(geometry)
    has_area = np.array([g is not None for g in result], dtype=bool)
    return _Cleaned(result, int((~has_area).sum()), int((broken & has_area).sum()))


def _polygonal(geometry: Any) -> Any:
    """Return the polygons of a geometry as one, None when there is no finite area."""
    if geometry is None or shapely.is_empty(geometry):
        return None
    if shapely.get_type_id(geometry) not in POLYGONAL:
        parts = [p for p in shapely.get_parts(geometry) if shapely.get_type_id(p) in POLYGONAL]
        geometry = shapely.union_all(parts) if parts else None
    area = shapely.area(geometry) if geometry is not None else 0.0
    return geometry if np.isfinite(area) and area > 0 else None


def _place(moved: np.ndarray, usable: np.ndarray, grids: Sequence[Grid]) -> tuple[np.ndarray, np.ndarray]:
    """Return which geometries share area with a scene, and which of these reach over the edge."""
    outlines = [footprint(g, grids[0].crs) for g in grids]
    ground = shapely.union_all(outlines)
    with_seams = shapely.buffer(ground, 1e-6 * max(*grids[0].resolution))
    shapely.prepare(ground)
    shapely.prepare(with_seams)
    finite = usable.copy()
    finite[usable] = [bool(np.isfinite(shapely.bounds(g)).all()) for g in moved[usable]]
    touches = finite.copy()
    touches[finite] = shapely.intersects(ground, moved[finite])
    partly = touches.copy()
    partly[touches] = ~shapely.covers(with_seams, moved[touches])
    for i in np.flatnonzero(partly):
        touches[i] = partly[i] = shapely.area(shapely.intersection(ground, moved[i])) > 0
    return touches, partly


def _raise_outside(geometries: np.ndarray, crs: str, grids: Sequence[Grid], path: Path) -> None:
    """Say that no polygon lies in a scene, with both extents and CRS."""
    if not len(geometries):
        raise GeoError(
            f"{path} has no polygon with a class and an area: expected at least one per class; check --field"
        )
    labels = Bounds(*(float(v) for v in shapely.total_bounds(geometries)))
    scene = grids[0].bounds
    also = "" if same_crs(crs, grids[0].crs) else f" (transformed to {crs_name(grids[0].crs)} they lie elsewhere too)"
    more = f" (and {len(grids) - 1} more scenes)" if len(grids) > 1 else ""
    raise GeoError(
        f"all {len(geometries)} polygons of {path} lie outside the scene: they cover {labels} in"
        f" {crs_name(crs)}{also}, the scene"
        f" {scene} in {crs_name(grids[0].crs)}{more}; expected polygons inside, check the CRS of both in QGIS"
    )


def _fingerprints(geometries: np.ndarray) -> tuple[str, ...]:
    """Return a sha256 per polygon, of its outline in the file's own coordinates and a canonical order."""
    return tuple(hashlib.sha256(w).hexdigest() for w in shapely.to_wkb(shapely.normalize(geometries), byte_order=1))
