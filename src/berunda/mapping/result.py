"""What a map run returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from berunda.geo.grid import Grid, Window
from berunda.mapping.layers import named_planes
from berunda.mapping.manifest import Manifest
from berunda.mapping.predictor import Planes

__all__ = ["MAP_NAME", "PROBABILITIES_NAME", "MapFiles", "MapResult", "MissingTile", "Summary", "Tally"]


MAP_NAME, PROBABILITIES_NAME = "map.tif", "probabilities.tif"


@dataclass(frozen=True)
class MapFiles:
    """The files of one map, in one folder; `probabilities` of a map of several labels alone."""

    map: Path
    confidence: Path
    ood: Path
    legend: Path
    probabilities: Path | None = None

    @classmethod
    def under(cls, folder: Path, *, several: bool = False) -> MapFiles:
        """Return the fixed names in `folder`, of a map of `several` labels or of one class a pixel."""
        names = (MAP_NAME, "confidence.tif", "ood.tif", "legend.qml", *([PROBABILITIES_NAME] if several else ()))
        return cls(*(folder / name for name in names))

    def incomplete(self) -> MapFiles:
        """Return the names of a map that lacks tiles, beside the final ones: `map.incomplete.tif` and so on."""
        return MapFiles(*(path.with_name(f"{path.stem}.incomplete{path.suffix}") for path in self._named()))

    def every(self) -> list[Path]:
        """Return every file that may stand under these names, with the side files."""
        return [name for p in self._named() for name in (p, p.with_name(p.name + ".aux.xml"))]

    def leftovers(self) -> list[Path]:
        """Return the temporary files that a killed run left beside the final names."""
        return [left for path in self._named() for left in path.parent.glob(f".{path.name}.*.part*")]

    def rasters(self) -> tuple[Path, ...]:
        """Return the rasters; the map is last, so that where it stands the others do too."""
        beside = () if self.probabilities is None else (self.probabilities,)
        return self.confidence, self.ood, *beside, self.map

    def _named(self) -> list[Path]:
        return [path for path in vars(self).values() if path is not None]


@dataclass(frozen=True)
class Summary:
    """Counts over a map; equal for equal maps.

    Attributes:
        class_pixels: pixels of each class 1..C; a pixel of several labels counts for each that it is said to have.
        n_valid: pixels with data.
        n_pixels: of the grid.
        n_above: pixels whose feature distance is above the threshold, None without one.
        n_above_energy: the same for the energy.
        confidence_sum: over all pixels with data.
    """

    class_pixels: tuple[int, ...]
    n_valid: int
    n_pixels: int
    n_above: int | None
    n_above_energy: int | None
    confidence_sum: float

    def as_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Summary:
        """Read what `as_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        value = json.loads(text)
        if not isinstance(value, dict) or value.keys() != cls.__dataclass_fields__.keys():
            raise ValueError(text)
        return cls(**{**value, "class_pixels": tuple(int(n) for n in value["class_pixels"])})


class Tally:
    """Adds up a summary, window by window."""

    def __init__(self, manifest: Manifest) -> None:
        ood = manifest.ood
        self._limits = (ood.threshold, ood.threshold_energy) if ood else (None, None)
        self._above = [0, 0]
        self._named_from = manifest.named_from
        self._classes = np.zeros(len(manifest.classes) + 1, np.int64)
        self._labels = np.zeros(len(manifest.label_names), np.int64)
        self._confidence = 0.0

    def add(self, planes: Planes) -> None:
        """Count the pixels of one window."""
        self._classes += np.bincount(planes.classes.reshape(-1), minlength=len(self._classes))
        if planes.probabilities:
            self._labels += [plane.sum() for plane in named_planes(planes, self._named_from)]
        self._confidence += float(np.nansum(planes.confidence, dtype=np.float64))
        for i, (limit, plane) in enumerate(zip(self._limits, (planes.distance, planes.energy), strict=True)):
            if limit is not None:
                self._above[i] += int((plane > limit).sum())

    def summary(self) -> Summary:
        """Return the counts so far."""
        above = [None if limit is None else n for limit, n in zip(self._limits, self._above, strict=True)]
        counts = tuple(int(n) for n in (self._labels if len(self._labels) else self._classes[1:]))
        n_valid, n_pixels = int(self._classes[1:].sum()), int(self._classes.sum())
        return Summary(counts, n_valid, n_pixels, above[0], above[1], self._confidence)


@dataclass(frozen=True)
class MissingTile:
    """A tile that was set aside: its pixels `window` are nodata, after `n_tries` tries, the last for `cause`."""

    window: Window
    n_tries: int
    cause: str


@dataclass(frozen=True)
class MapResult:
    """One map.

    Attributes:
        name: of the scene.
        folder: where its files lie.
        files: its files; those of `MapFiles.incomplete` when tiles are missing.
        grid: of scene and map.
        class_pixels: pixels by class name; of several labels a pixel counts for each that it is said to have.
        class_area_m2: area of these pixels by class name, None where the CRS has no area.
        nodata_share: part of the grid without data, 0 to 1.
        ood_share, ood_energy_share: part of the pixels with data above the threshold, if any.
        mean_confidence: over pixels with data, None when there are none.
        seconds: from plan to verified files.
        mpx_per_s: megapixels of the grid per second; None when the map was there already.
        n_tiles, n_tiles_kept: tiles, and those of them kept from an interrupted run.
        warnings: in plain language.
        missing: tiles that were set aside.
    """

    name: str
    folder: Path
    files: MapFiles
    grid: Grid
    class_pixels: Mapping[str, int]
    class_area_m2: Mapping[str, float | None]
    nodata_share: float
    ood_share: float | None
    ood_energy_share: float | None
    mean_confidence: float | None
    seconds: float
    mpx_per_s: float | None
    n_tiles: int
    n_tiles_kept: int
    warnings: tuple[str, ...]
    missing: tuple[MissingTile, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every tile was made, so that the map stands under its final names."""
        return not self.missing

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        told = {key: value for key, value in vars(self).items() if key not in ("files", "grid", "folder")}
        return {
            **told,
            "folder": str(self.folder),
            "warnings": list(self.warnings),
            "missing": [asdict(tile) for tile in self.missing],
            "rows": self.grid.shape.rows,
            "cols": self.grid.shape.cols,
        }
