"""Reading features from vector files: one field and the geometries, by content and through few doors.

GeoJSON is read without GDAL (several JSON drivers of GDAL can point at other files or hosts); GeoPackage and
shapefile through pyogrio, after their content was recognised.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from berunda.errors import GeoError, SecurityError
from berunda.geo.grid import parse_crs

__all__ = ["Features", "is_vector", "read_features"]

MAX_JSON_BYTES = 1 << 29
"""A larger GeoJSON file is refused: parsed it takes about ten times its size."""
WGS84 = "OGC:CRS84"
GEOJSON_TYPES = frozenset(
    {"Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString", "MultiLineString", "GeometryCollection"}
)


@dataclass(frozen=True)
class Features:
    """Features of one layer.

    Attributes:
        geometries: (n,) object array of shapely geometries or None.
        values: (n,) values of the field, as stored.
        crs: WKT or code, "" when the file does not say.
        originals: (n,) what each geometry was cut from, None where nothing was cut.
        known: further values that the file tells of, without a feature.
    """

    geometries: np.ndarray
    values: list[Any]
    crs: str
    originals: np.ndarray | None = None
    known: tuple[str, ...] = ()


def is_vector(path: Path) -> bool:
    """Whether a file is a vector file by its content (a raster otherwise).

    Raises:
        GeoError: the file is empty or cannot be read.
        SecurityError: it is an XML dataset that can point elsewhere.
    """
    return _kind(path) != ""


def read_features(path: Path, field: str) -> Features:
    """Return geometries and the values of one field.

    Raises:
        GeoError: the file is damaged, has no such field, or several layers with it.
    """
    if _kind(path) == "GeoJSON":
        return _read_geojson(path, field)
    return _read_ogr(path, field)


def _kind(path: Path) -> str:
    """Return the kind of vector file by content, "" for anything else."""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise GeoError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    if not head:
        raise GeoError(f"{path} is empty (0 bytes): expected polygons or a label raster; copy or download it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<") and b"VRT" in text[:200]:
        raise SecurityError(
            f"{path} is a VRT by its content: refused, it can point at any file or host; export the layer as GeoPackage"
        )
    if text.startswith((b"{", b"[")):
        return "GeoJSON"
    if head.startswith(b"SQLite format 3\0"):
        return "GPKG"
    if head.startswith(b"\0\0\x27\x0a"):
        return "ESRI Shapefile"
    if text.startswith(b"<") or path.suffix.lower() in {
        ".kml",
        ".gml",
        ".csv",
        ".dbf",
        ".shx",
        ".kmz",
        ".gdb",
        ".fgb",
    }:
        raise GeoError(
            f"{path} is not a kind of polygon file that is read here: expected GeoPackage, GeoJSON or shapefile"
            " (.shp); export the layer as GeoPackage in QGIS"
        )
    return ""


def _read_geojson(path: Path, field: str) -> Features:
    """Read a GeoJSON file without GDAL."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise GeoError(
            f"{path} is GeoJSON of {size / 2**20:.0f} MiB: expected at most {MAX_JSON_BYTES >> 20}, it is read into"
            " memory whole; export the layer as GeoPackage"
        )
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise GeoError(f"{path} is not valid JSON: {error}; export the layer again as GeoPackage or GeoJSON") from error
    kind = data.get("type") if isinstance(data, dict) else type(data).__name__
    if kind == "Feature":
        data = {"features": [data], "crs": data.get("crs")}
    elif kind != "FeatureCollection" or not isinstance(data.get("features"), list):
        raise GeoError(f"{path} is JSON of type '{str(kind)[:60]}': expected a GeoJSON FeatureCollection of polygons")
    features = [f for f in data["features"] if isinstance(f, dict)]
    rows = [f["properties"] if isinstance(f.get("properties"), dict) else {} for f in features]
    _require_field(path, field, list(dict.fromkeys(k for row in rows for k in row)))
    geometries = np.empty(len(features), dtype=object)
    for i, feature in enumerate(features):
        geometries[i] = _geometry(path, i, feature.get("geometry"))
    return Features(geometries, [row.get(field) for row in rows], _geojson_crs(path, data.get("crs")))


def _geometry(path: Path, number: int, data: Any) -> Any:
    """Return the shapely geometry of a GeoJSON one, None when there is none."""
    if not data:
        return None
    try:
        if data["type"] not in GEOJSON_TYPES:
            raise ValueError(f"geometry type {data['type']!r}")
        return shapely.from_geojson(json.dumps(data))
    except (KeyError, TypeError, ValueError, RecursionError, shapely.GEOSException) as error:
        reason = " ".join(str(error).split())
        raise GeoError(f"{path} feature {number + 1} has a damaged geometry: {reason}; expected a polygon") from error


def _geojson_crs(path: Path, crs: Any) -> str:
    """Return the CRS: WGS 84 by the standard, or what the older `crs` member names; "" when that is null."""
    if crs is None:
        return WGS84
    try:
        name = str(crs["properties"]["name"])
    except (KeyError, TypeError) as error:
        raise GeoError(f"{path} has a 'crs' member that names no system: expected a name such as EPSG:32633") from error
    return str(parse_crs(name).to_wkt())


def _read_ogr(path: Path, field: str) -> Features:
    """Read a GeoPackage or shapefile."""
    import pyogrio

    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path.absolute()) if kind is not None]
        fields = {name: list(pyogrio.read_info(path.absolute(), layer=name)["fields"]) for name in layers}
        holders = [name for name in layers if field in fields[name]]
        if not layers:
            raise GeoError(f"{path} holds no layer with geometries: expected one with polygons")
        if not holders:
            _require_field(path, field, list(dict.fromkeys(f for names in fields.values() for f in names)))
        if len(holders) > 1:
            raise GeoError(
                f"{path} has the field '{field}' in {len(holders)} layers ({', '.join(holders[:5])}):"
                " expected one; export the one to use to its own file"
            )
        meta, _, wkb, values = pyogrio.raw.read(path.absolute(), layer=holders[0], columns=[field], force_2d=True)
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        pyogrio.errors.FeatureError,
    ) as error:
        reason = " ".join(str(error).split())
        raise GeoError(
            f"{path} cannot be read: {reason}; expected a whole GeoPackage or shapefile (.shp, .shx, .dbf)"
        ) from error
    geometries = shapely.from_wkb(wkb, on_invalid="ignore")
    return Features(np.asarray(geometries, dtype=object), list(values[0]), _known(meta["crs"]))


def _known(crs: str | None) -> str:
    """Return the CRS's WKT, "" for none and for GeoPackage's "undefined" ones."""
    if not crs:
        return ""
    parsed = parse_crs(crs)
    return "" if parsed.is_engineering or "undefined" in parsed.name.lower() else str(parsed.to_wkt())


def _require_field(path: Path, field: str, fields: Sequence[str]) -> None:
    """Raise when a field is missing, listing the fields there are."""
    if field in fields:
        return
    fields = [" ".join(f.split()) for f in fields]
    listed = ", ".join(f[:60] for f in fields[:20]) + (f" and {len(fields) - 20} more" if len(fields) > 20 else "")
    if not field:
        told = f"the fields are {listed}" if fields else "the file has no fields"
        raise GeoError(f"{path}: --field is needed: the attribute that holds the class; {told}")
    near = difflib.get_close_matches(field, fields, 1) or [f for f in fields if f.lower() == field.lower()]
    hint = f"did you mean '{near[0]}'?" if near else "give one of them with --field"
    raise GeoError(f"{path} has no field '{field}': expected one of {listed or '(the file has no fields)'}; {hint}")
