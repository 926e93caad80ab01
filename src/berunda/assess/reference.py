"""What a map is assessed with: its class codes in windows, reference points, and what the model has seen.

Files are opened by `berunda.geo` only.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from berunda.assess.colors import class_colors
from berunda.errors import DataError
from berunda.geo.classes import class_name, map_classes
from berunda.geo.features import Features, is_vector, read_features
from berunda.geo.grid import Grid, Window
from berunda.geo.labelraster import category_names
from berunda.geo.labels import LABELS_TAG, short_fingerprint
from berunda.geo.raster import Scene, open_scenes
from berunda.geo.reproject import transform_points
from berunda.geo.resolve import resolve_inputs

__all__ = [
    "MapSource",
    "Points",
    "colors_of",
    "join_classes",
    "open_map",
    "points_in",
    "read_points",
    "refuse_training_polygons",
]

TILE_PX = 1024
MAX_CODE = 255
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
CLOSE = 0.75


@dataclass(frozen=True)
class MapSource:
    """A class map, read in windows.

    Attributes:
        path: the file.
        scene: the opened raster.
        names: code -> class name, as the file says; empty when it says nothing.
        colors: code -> "#rrggbb" from the file's colour table.
    """

    path: Path
    scene: Scene
    names: Mapping[int, str]
    colors: Mapping[int, str]

    @property
    def grid(self) -> Grid:
        """The map's grid."""
        return self.scene.grid

    def tiles(self) -> Iterator[tuple[Window, npt.NDArray[np.uint8]]]:
        """Yield windows that cover the map once, with their class codes; 0 = nodata.

        Raises:
            DataError: a value is no class code.
        """
        for window in self.grid.tiles(TILE_PX):
            yield window, self.codes(window)

    def codes(self, window: Window) -> npt.NDArray[np.uint8]:
        """Return the class codes of a window, uint8 (h, w), 0 = nodata."""
        block = self.scene.read(window)
        values = block.values[0]
        wrong = block.valid & ((values < 0) | (values > MAX_CODE) | (values != np.floor(values)))
        if wrong.any():
            raise DataError(
                f"{self.path} ({window}) holds the value {values[wrong][0]:g}, expected whole class codes "
                f"0 to {MAX_CODE}; assess the class map (map.tif), not a layer of it"
            )
        return np.where(block.valid, values, 0).astype(np.uint8)


def open_map(path: str | Path) -> MapSource:
    """Open a class map.

    Raises:
        DataError: it is not one raster with one band.
        GeoError, SecurityError: it cannot be opened.
    """
    scenes = open_scenes([path])
    if len(scenes) != 1 or len(scenes[0].bands) != 1:
        found = f"{len(scenes)} rasters" if len(scenes) != 1 else f"{len(scenes[0].bands)} bands"
        raise DataError(f"{path} has {found}, expected one class map with one band, such as map.tif")
    file = scenes[0].files[0]
    names = {c: n for c, n in category_names(file.path, dict(file.tags)).items() if 1 <= c <= MAX_CODE}
    colors = {code: "#{:02x}{:02x}{:02x}".format(*rgba[:3]) for code, rgba in file.palette}
    return MapSource(file.path, scenes[0], names, colors)


def join_classes(source: MapSource, counts: npt.NDArray[np.int64], reference: Sequence[str]) -> list[str]:
    """Return the classes of map and reference: the map's by code, then those only the reference has.

    Args:
        source: the map.
        counts: (256,) pixels per code, for codes that the file does not name.
        reference: names of the reference's classes.

    Returns:
        Names; position i is map code i + 1 as far as the map's classes go.

    Raises:
        DataError: no reference class is in the map, or one is probably misspelt.
    """
    top = max([*source.names, *np.flatnonzero(counts)[-1:].tolist(), 0])
    mapped = [source.names.get(code, str(code)) for code in range(1, top + 1)]
    extra = [name for name in reference if name not in mapped]
    listed = ", ".join(mapped) or "none"
    if len(extra) == len(set(reference)):
        raise DataError(
            f"{source.path} has the classes {listed}, the reference has {', '.join(reference)}: none in "
            "common; expected the same names, translate with --classes old=new"
        )
    for name in extra:
        near = difflib.get_close_matches(name, mapped, 1, CLOSE)
        if near:
            raise DataError(
                f"reference class '{name}' is not in {source.path}, whose classes are {listed}; if it means "
                f"'{near[0]}' use --classes {name}={near[0]}, else drop it with --classes {name}="
            )
    return [*mapped, *extra]


def colors_of(source: MapSource, names: Sequence[str]) -> list[str]:
    """Return one colour per class: the map's own, else one made up from the name."""
    made = class_colors(names)
    return [source.colors.get(code, made[code - 1]) for code in range(1, len(names) + 1)]


@dataclass(frozen=True)
class Points:
    """Reference points on the map's grid.

    Attributes:
        rows: (n,) pixel rows.
        cols: (n,) pixel columns.
        class_names: (n,) names.
        n_outside: points outside the map, left out.
        n_unused: points without a class or dropped by the class mapping.
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    n_outside: int
    n_unused: int


def points_in(path: str | Path, field: str) -> Features | None:
    """Return the features of a file when they are points, None for polygons and rasters."""
    files = resolve_inputs([path])
    if len(files) != 1 or not is_vector(files[0]):
        return None
    features = read_features(files[0], field)
    kinds = {g.geom_type for g in features.geometries if g is not None}
    return features if kinds and kinds <= {"Point"} else None


def read_points(features: Features, path: str | Path, grid: Grid, classes: Mapping[str, str] | None) -> Points:
    """Place point features on a grid.

    Args:
        features: points with class values.
        path: of their file, for messages.
        grid: of the map.
        classes: old name -> new name, "" drops the class.

    Raises:
        DataError: no point with a class lies in the map.
        GeoError: the class mapping names a class that is not there, or a CRS is missing.
    """
    names = map_classes([class_name(v) for v in features.values], classes, str(path))
    has_place = [g is not None and not g.is_empty for g in features.geometries]
    is_used = np.array([bool(n) and p for n, p in zip(names, has_place, strict=True)])
    chosen = features.geometries[is_used]
    x, y = (np.array([getattr(g, axis) for g in chosen], dtype=np.float64) for axis in ("x", "y"))
    x, y = transform_points(x, y, features.crs, grid.crs)
    inverse = ~grid.transform
    col = inverse.a * x + inverse.b * y + inverse.c
    row = inverse.d * x + inverse.e * y + inverse.f
    with np.errstate(invalid="ignore"):
        inside = (row >= 0) & (row < grid.shape.rows) & (col >= 0) & (col < grid.shape.cols)
    if not inside.any():
        raise DataError(
            f"{path}: none of {is_used.sum()} points with a class lies in the map ({grid.bounds}); check its CRS"
        )
    kept = np.flatnonzero(is_used)[inside]
    return Points(
        rows=np.floor(row[inside]).astype(np.int64),
        cols=np.floor(col[inside]).astype(np.int64),
        class_names=tuple(str(names[i]) for i in kept),
        n_outside=int((~inside).sum()),
        n_unused=int((~is_used).sum()),
    )


def refuse_training_polygons(source: MapSource, fingerprints: Sequence[str]) -> None:
    """Refuse reference polygons that trained the model of the map.

    The map's tag BERUNDA_LABELS holds the beginnings of their fingerprints. For other maps the model's own record is
    looked for in `model/model.json` and `report.json` beside the map and one folder above (maps of several scenes lie
    in folders of their own); every sha256 under its `training` counts.

    Raises:
        DataError: some reference polygons were used in training or calibration.
    """
    tagged = set(dict(source.scene.files[0].tags).get(LABELS_TAG, "").split())
    n_tagged = sum(short_fingerprint(f) in tagged for f in fingerprints)
    if n_tagged:
        _refuse(n_tagged, len(fingerprints), f"tag {LABELS_TAG} of {source.path}")
    for record in _records(source.path):
        seen = set(_fingerprints_in(_training_of(record)))
        n_seen = sum(f in seen for f in fingerprints)
        if n_seen:
            _refuse(n_seen, len(fingerprints), str(record))


def _refuse(n_seen: int, n: int, record: str) -> NoReturn:
    raise DataError(
        f"{n_seen} of the {n} reference polygons trained the model of this map ({record}): expected polygons that it "
        "has not seen; leave them out, or draw new ones for the assessment"
    )


def _records(map_path: Path) -> list[Path]:
    folders = [map_path.resolve().parent, map_path.resolve().parent.parent]
    candidates = [folder / name for folder in folders for name in ("model/model.json", "report.json")]
    return [path for path in candidates if path.is_file()]


def _training_of(record: Path) -> Any:
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{record} cannot be read ({error}), so polygons that trained the model cannot be told apart; "
            "expected the model's own record, restore it or move the map away from it"
        ) from error
    return values.get("training") if isinstance(values, dict) else None


def _fingerprints_in(value: Any) -> Iterator[str]:
    if isinstance(value, str) and FINGERPRINT.fullmatch(value):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _fingerprints_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _fingerprints_in(item)
