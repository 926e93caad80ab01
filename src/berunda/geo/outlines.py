"""Outlines of images as polygons, and a vector file of them that QGIS opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from berunda.errors import GeoError
from berunda.geo.write import finish_tiled

__all__ = ["write_outlines"]


def write_outlines(path: Path, geometries: np.ndarray, columns: Mapping[str, np.ndarray], crs: str, layer: str) -> Path:
    """Write polygons with their attributes as a GeoPackage, whole or not at all.

    Args:
        path: name of the file; an older one is replaced.
        geometries: (n,) object array of shapely polygons in `crs`, n at least 1.
        columns: name -> (n,) values: texts as object arrays, or numbers.
        crs: WKT; "" where it is not known.
        layer: name of the layer.

    Raises:
        GeoError: there is nothing to write, or a column is of another length.
        OutputError: the file cannot be written.
    """
    import pyogrio
    import shapely

    lengths = {len(values) for values in columns.values()} | {len(geometries)}
    if lengths != {len(geometries)} or not len(geometries):
        raise GeoError(f"{path}: columns of {sorted(lengths)} values found, expected as many as polygons, at least one")
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.stem}.part.gpkg")
    tmp.unlink(missing_ok=True)
    pyogrio.raw.write(
        tmp.absolute(),
        shapely.to_wkb(np.asarray(geometries, dtype=object)),
        [np.asarray(values) for values in columns.values()],
        list(columns),
        layer=layer,
        driver="GPKG",
        geometry_type="Polygon",
        crs=crs or None,
    )
    finish_tiled(tmp, path)
    return path
