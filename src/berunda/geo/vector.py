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
from berunda.geo.classes import class_name, map_classes
from berunda.geo.features import WGS84, Features, is_vector, read_features
from berunda.geo.grid import Bounds, Grid, crs_name, same_crs
from berunda.geo.labels import Labels, count_conflicts, rasterize
from berunda.geo.regions import read_regions
from berunda.geo.reproject import footprint, transform_geometries
from berunda.geo.resolve import resolve_inputs

__all__ = ["Labels", "count_conflicts", "rasterize", "read_labels"]

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
    cut_px: int | None = None,
) -> Labels:
    """Read labelled polygons from a GeoPackage, GeoJSON or shapefile, or turn a label raster into polygons.

    Regions of a label raster are its 4-connected components where the scenes lie; `field` is not used then.

    A scene without CRS takes labels without CRS in its own coordinates (GeoJSON without a `crs` member counts
    as such there), and refuses labels that have one; a scene with a CRS refuses labels without.

    Args:
        path: the file.
        field: name of the field that holds the class.
        grids: grids of the scenes, at least one; the polygons come back in the CRS of the first.
        classes: old name -> new name, "" drops the class; classes not named stay.
        zero_is_class: whether 0 in a label raster is a class.
        cut_px: cut the regions of a label raster where two blocks of this side meet on a scene's grid; a part
            keeps the fingerprint of its region. None leaves them whole.

    Raises:
        GeoError: the file is damaged, has no such field or CRS, or no polygon lies in a scene.
        SecurityError: the path or the content is refused by policy.
    """
    files = resolve_inputs([path])
    if len(files) != 1:
        raise GeoError(f"labels {path} means {len(files)} files: expected one file")
    source = files[0]
    features = (
        read_features(source, field)
        if is_vector(source)
        else read_regions(source, grids, zero_is_class=zero_is_class, cut_px=cut_px)
    )
    own_names = [class_name(v) for v in features.values]
    names = map_classes(own_names, classes, str(source), _further(features, classes))
    return _labels(features, names, grids, source)


def _labels(features: Features, names: list[str | None], grids: Sequence[Grid], source: Path) -> Labels:
    """Return the features that lie on a scene, in the CRS of the first, with what was left out counted."""
    crs = _checked_crs(features.crs, grids[0], source)
    cleaned = _clean(features.geometries, source)
    has_class = np.array([bool(n) for n in names])
    usable = has_class & np.array([g is not None for g in cleaned.geometries])
    moved = np.full(len(names), None, dtype=object)
    moved[usable] = transform_geometries(cleaned.geometries[usable], crs, grids[0].crs)
    inside, partly = _place(moved, usable, grids)
    if not inside.any():
        _raise_outside(cleaned.geometries[usable], crs, grids, source)
    chosen = np.flatnonzero(inside)
    class_names = tuple(sorted({str(names[i]) for i in chosen}))
    number = {name: i for i, name in enumerate(class_names, 1)}
    outlines = cleaned.geometries if features.originals is None else features.originals
    return Labels(
        geometries=moved[chosen],
        class_ids=np.array([number[str(names[i])] for i in chosen], np.int16),
        class_names=class_names,
        source=str(source),
        crs=grids[0].crs,
        fingerprints=_fingerprints(outlines[chosen]),
        n_outside=int((usable & ~inside).sum()),
        n_partly_outside=int(partly.sum()),
        n_empty=cleaned.n_empty,
        n_repaired=cleaned.n_repaired,
        n_null=sum(n is None for n in names),
        n_dropped=sum(n == "" for n in names),
        absent_classes=tuple(sorted({n for n in names if n} - set(class_names))),
    )


def _further(features: Features, classes: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return what a mapping may name beside the classes found: of a label raster only the part on the scenes is read,
    so its other names, and any number, may be there."""
    numbers = (old for old in classes or {} if old.isdecimal())
    return () if features.originals is None else (*features.known, *numbers)


def _checked_crs(crs: str, grid: Grid, path: Path) -> str:
    """Return the CRS of the labels, or say which side lacks one."""
    if not grid.crs and crs in {"", WGS84}:
        return ""
    if bool(crs) == bool(grid.crs):
        return crs
    if not crs:
        raise GeoError(
            f"{path} has no CRS, the scene has {crs_name(grid.crs)}: expected one in both; set it in QGIS"
            " (Layer > Set CRS) and export again"
        )
    raise GeoError(
        f"{path} has {crs_name(crs)}, the scene has no CRS: expected one in both; assign the scene's with gdal_edit"
        " -a_srs"
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
    repaired[broken] = _made_valid(flat[broken])
    result = np.full(len(flat), None, dtype=object)
    with np.errstate(over="ignore"):
        areas = shapely.area(repaired)
    plain = np.isin(shapely.get_type_id(repaired), POLYGONAL) & np.isfinite(areas) & (areas > 0)
    result[plain] = repaired[plain]
    for i in np.flatnonzero(~plain):
        result[i] = _polygonal(repaired[i])
    has_area = np.array([g is not None for g in result], dtype=bool)
    return _Cleaned(result, int((~has_area).sum()), int((broken & has_area).sum()))


def _made_valid(geometries: np.ndarray) -> np.ndarray:
    """Return the geometries repaired; None where that cannot be computed (coordinates near the largest number)."""
    try:
        repaired: np.ndarray = shapely.make_valid(geometries)
    except shapely.GEOSException:
        if len(geometries) == 1:
            return np.array([None], dtype=object)
        return np.concatenate([_made_valid(geometries[i : i + 1]) for i in range(len(geometries))])
    return repaired


def _polygonal(geometry: Any) -> Any:
    """Return the polygons of a geometry as one, None when there is no finite area."""
    if geometry is None or shapely.is_empty(geometry):
        return None
    if shapely.get_type_id(geometry) not in POLYGONAL:
        parts = [p for p in shapely.get_parts(geometry) if shapely.get_type_id(p) in POLYGONAL]
        geometry = shapely.union_all(parts) if parts else None
    with np.errstate(over="ignore"):
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
    finite[usable] = np.isfinite(shapely.bounds(moved[usable])).all(axis=1)
    touches = finite.copy()
    touches[finite] = shapely.intersects(ground, moved[finite])
    partly = touches.copy()
    partly[touches] = ~shapely.covers(with_seams, moved[touches])
    shares = shapely.area(shapely.intersection(ground, moved[partly])) > 0
    touches[partly] = shares
    partly[partly] = shares
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
        f"all {len(geometries)} polygons of {path} lie outside the scene: they cover {labels} in {crs_name(crs)}{also},"
        f" the scene {scene} in {crs_name(grids[0].crs)}{more}; expected polygons inside, check the CRS of both in QGIS"
    )


def _fingerprints(geometries: np.ndarray) -> tuple[str, ...]:
    """Return a sha256 per polygon, of its outline in the file's own coordinates and a canonical order."""
    return tuple(hashlib.sha256(w).hexdigest() for w in shapely.to_wkb(shapely.normalize(geometries), byte_order=1))
