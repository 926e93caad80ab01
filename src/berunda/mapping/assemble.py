"""From finished tiles to the three rasters, by one writer: write, verify, rename."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from berunda.errors import BerundaError
from berunda.geo.grid import Shape, Window
from berunda.geo.labels import LABELS_TAG, short_fingerprint
from berunda.geo.raster import describe
from berunda.geo.write import create_tiled, finish_cog, write_qml
from berunda.mapping.journal import Receipt
from berunda.mapping.manifest import Manifest
from berunda.mapping.plan import Plan
from berunda.mapping.predictor import Planes
from berunda.mapping.result import MapFiles, MissingTile, Summary, Tally
from berunda.mapping.tiles import TileStore
from berunda.progress import Progress

__all__ = ["Assembly", "find_finished", "write_legend"]

CHUNK_PX = 1024
"""Side of what is written at once: a multiple of the rasters' blocks; unaligned writes can lose errors."""
MAX_NAMED = 100
"""So many missing tiles are named in the tags."""
PLAN_TAG, SUMMARY_TAG, MISSING_TAG = "BERUNDA_PLAN", "BERUNDA_SUMMARY", "BERUNDA_MISSING"


@dataclass(frozen=True)
class Assembly:
    """All tiles of a plan, ready to become files.

    Attributes:
        plan: of the map.
        manifest: of the bundle: classes, thresholds.
        store: the tiles' files.
        receipts: of every tile of the plan; one without data for a tile that is missing.
        work: folder for files that are not verified yet, on the same disk as `files`.
        files: the final names; an incomplete map is written beside them.
        missing: tiles that were set aside.
    """

    plan: Plan
    manifest: Manifest
    store: TileStore
    receipts: Mapping[int, Receipt]
    work: Path
    files: MapFiles
    missing: tuple[MissingTile, ...] = ()

    def run(self, progress: Progress) -> Summary:
        """Write the rasters, verify and rename them; return the counts.

        Raises:
            OutputError: a tile is damaged, the disk is full, or a file did not verify; nothing stands
                half-written under a final name.
        """
        temporary = [self.work / f"{path.stem}.part.tif" for path in self.files.rasters()]
        tally = Tally(self.manifest)
        try:
            self._write(temporary, tally, progress)
            summary = tally.summary()
            self._finish(temporary, summary, self.files.incomplete() if self.missing else self.files)
        finally:
            for path in temporary:
                path.unlink(missing_ok=True)
        if not self.missing:
            for path in self.files.incomplete().every():
                path.unlink(missing_ok=True)
        return summary

    def chunks(self) -> Iterator[tuple[Window, Planes]]:
        """Yield the map in windows aligned to the rasters' blocks, row by row."""
        checked: set[int] = set()
        for window in self.plan.grid.tiles(CHUNK_PX):
            planes = Planes.empty(window.n_rows, window.n_cols)
            for index in self.plan.tiles_under(window):
                tile = self.plan.tile(index)
                if index not in checked:
                    self.store.check(self.receipts[index], tile.shape)
                    checked.add(index)
                self._copy(index, tile, window, planes)
            yield window, planes

    def _copy(self, index: int, tile: Window, window: Window, planes: Planes) -> None:
        receipt, common = self.receipts[index], tile.intersect(window)
        if common is None or not receipt.sha256:
            return
        rows, cols = common.slices_in(tile)
        part = self.store.read_rows(receipt, Shape(tile.n_rows, tile.n_cols), rows)
        place = common.slices_in(window)
        for target, source in zip(planes.arrays(), part.arrays(), strict=True):
            target[place] = source[:, cols]

    def _write(self, paths: list[Path], tally: Tally, progress: Progress) -> None:
        confidence, ood, classes = paths
        grid = self.plan.grid
        progress.start("writing", grid.shape.n_pixels)
        with ExitStack() as stack:
            writers = [
                stack.enter_context(create_tiled(path, grid, len(names), dtype, nodata, names))
                for path, dtype, nodata, names in (
                    (confidence, "float32", np.nan, ("confidence",)),
                    (ood, "float32", np.nan, ("feature distance", "energy")),
                    (classes, "uint8", 0, ("class",)),
                )
            ]
            for window, planes in self.chunks():
                tally.add(planes)
                writers[0].write(planes.confidence[None], window)
                writers[1].write(np.stack([planes.distance, planes.energy]), window)
                writers[2].write(planes.classes[None], window)
                progress.advance(window.shape.n_pixels)
        progress.finish()

    def _finish(self, paths: list[Path], summary: Summary, files: MapFiles) -> None:
        confidence, ood, classes = paths
        own = {PLAN_TAG: self.plan.identity}
        if self.missing:  # whatever name it is given later, it is not taken for a finished map
            own = {MISSING_TAG: "; ".join(str(tile.window) for tile in self.missing[:MAX_NAMED])}
        finish_cog(confidence, files.confidence, overview="average", tags=own)
        finish_cog(ood, files.ood, overview="average", tags={**own, **self._thresholds()})
        write_legend(files.legend, self.manifest)
        finish_cog(
            classes,
            files.map,
            overview="mode",
            colors={c.id: c.color for c in self.manifest.classes},
            categories=["nodata", *self.manifest.class_names],
            tags={**own, SUMMARY_TAG: summary.as_json(), **_labels_tag(self.manifest)},
        )

    def _thresholds(self) -> dict[str, str]:
        ood = self.manifest.ood
        pairs = {
            "OOD_THRESHOLD": ood.threshold if ood else None,
            "OOD_THRESHOLD_ENERGY": ood.threshold_energy if ood else None,
        }
        return {name: repr(value) for name, value in pairs.items() if value is not None}


def write_legend(path: Path, manifest: Manifest) -> None:
    """Write the legend of a bundle's classes for QGIS."""
    write_qml(path, [(c.id, c.name, c.color) for c in manifest.classes])


def _labels_tag(manifest: Manifest) -> dict[str, str]:
    """Return the tag by which an assessment knows the polygons that trained the model, wherever the map goes."""
    known = (o.fingerprint for o in manifest.training.labels if re.fullmatch("[0-9a-f]{64}", o.fingerprint))
    prints = {short_fingerprint(fingerprint) for fingerprint in known}
    return {LABELS_TAG: " ".join(sorted(prints))} if prints else {}


def find_finished(files: MapFiles, identity: str) -> Summary | None:
    """Return the counts of a map of this identity that stands complete under its final names, else None."""
    if not all(path.is_file() for path in (*files.rasters(), files.legend)):
        return None
    try:
        tags: list[dict[str, Any]] = [dict(describe(path).tags) for path in files.rasters()]
        if any(found.get(PLAN_TAG) != identity for found in tags):
            return None
        return Summary.from_json(tags[-1][SUMMARY_TAG])
    except (BerundaError, KeyError, ValueError, TypeError):  # whatever an older output is, it is made anew
        return None
