"""From finished tiles to the three rasters, by one writer: write, verify, rename."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.errors import BerundaError
from berunda.geo.grid import Shape, Window
from berunda.geo.labels import LABELS_TAG, short_fingerprint
from berunda.geo.raster import describe
from berunda.geo.write import Cog, create_tiled, finish_cogs, write_qml
from berunda.mapping.arrivals import Arrivals
from berunda.mapping.journal import Receipt
from berunda.mapping.manifest import Manifest
from berunda.mapping.plan import Plan
from berunda.mapping.predictor import Planes
from berunda.mapping.result import MapFiles, MissingTile, Summary, Tally
from berunda.mapping.tiles import TileStore

__all__ = ["LIKELIHOOD_NAME", "Assembly", "find_finished", "likelihood_share", "write_legend"]

CHUNK_PX = 1024
"""Side of what is written at once: a multiple of the rasters' blocks; unaligned writes can lose errors."""
MAX_NAMED = 100
"""So many missing tiles are named in the tags."""
LIKELIHOOD_NAME = "log p(x), as share of validation data"
PLAN_TAG, SUMMARY_TAG, MISSING_TAG = "BERUNDA_PLAN", "BERUNDA_SUMMARY", "BERUNDA_MISSING"


@dataclass(frozen=True)
class Assembly:
    """The tiles of a plan on their way into files: `write` while they are made, then `finish`.

    Attributes:
        plan: of the map.
        manifest: of the bundle: classes, thresholds.
        store: the tiles' files.
        arrivals: receipts of the tiles; one without data for a tile that is missing.
        work: folder for files that are not verified yet, on the same disk as `files`.
        files: the final names; an incomplete map is written beside them.
    """

    plan: Plan
    manifest: Manifest
    store: TileStore
    arrivals: Arrivals
    work: Path
    files: MapFiles

    def write(self) -> Summary:
        """Write the temporary rasters in the order of their rows, waiting for tiles; return the counts.

        Raises:
            OutputError: a tile is damaged or the disk is full.
            NoMoreTiles: a tile will not come.
        """
        try:
            return self._write()
        except BaseException:
            self.clean()
            raise

    def finish(self, summary: Summary, missing: tuple[MissingTile, ...] = ()) -> None:
        """Verify and rename what `write` has written; an incomplete map gets the names of one.

        Args:
            summary: what `write` returned.
            missing: tiles that were set aside.

        Raises:
            OutputError: the disk is full, or a file did not verify; nothing stands under a final name.
        """
        files = self.files.incomplete() if missing else self.files
        try:
            self._finish(summary, files, missing)
        finally:
            self.clean()
        if not missing:
            for path in self.files.incomplete().every():
                path.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove the temporary rasters."""
        for path in self._temporary():
            path.unlink(missing_ok=True)

    def chunks(self) -> Iterator[tuple[Window, Planes]]:
        """Yield the map in windows aligned to the rasters' blocks, row by row."""
        checked: set[int] = set()
        for window in self.plan.grid.tiles(CHUNK_PX):
            planes = Planes.empty(window.n_rows, window.n_cols)
            for index in self.plan.tiles_under(window):
                tile, receipt = self.plan.tile(index), self.arrivals.wait_for(index)
                if index not in checked:
                    self.store.check(receipt, tile.shape)
                    checked.add(index)
                self._copy(receipt, tile, window, planes)
            yield window, planes

    def _copy(self, receipt: Receipt, tile: Window, window: Window, planes: Planes) -> None:
        common = tile.intersect(window)
        if common is None or not receipt.sha256:
            return
        rows, cols = common.slices_in(tile)
        part = self.store.read_rows(receipt, Shape(tile.n_rows, tile.n_cols), rows)
        place = common.slices_in(window)
        for target, source in zip(planes.arrays(), part.arrays(), strict=True):
            target[place] = source[:, cols]

    def _temporary(self) -> list[Path]:
        return [self.work / f"{path.stem}.part.tif" for path in self.files.rasters()]

    def _write(self) -> Summary:
        confidence, ood, classes = self._temporary()
        grid, tally = self.plan.grid, Tally(self.manifest)
        quantiles = self.manifest.ood.energy_quantiles if self.manifest.ood else ()
        with ExitStack() as stack:
            writers = [
                stack.enter_context(create_tiled(path, grid, len(names), dtype, nodata, names))
                for path, dtype, nodata, names in (
                    (confidence, "float32", np.nan, ("confidence", LIKELIHOOD_NAME) if quantiles else ("confidence",)),
                    (ood, "float32", np.nan, ("feature distance", "energy")),
                    (classes, "uint8", 0, ("class",)),
                )
            ]
            for window, planes in self.chunks():
                tally.add(planes)
                likelihood = (likelihood_share(planes.energy, quantiles),) if quantiles else ()
                writers[0].write(np.stack([planes.confidence, *likelihood]), window)
                writers[1].write(np.stack([planes.distance, planes.energy]), window)
                writers[2].write(planes.classes[None], window)
        return tally.summary()

    def _finish(self, summary: Summary, files: MapFiles, missing: tuple[MissingTile, ...]) -> None:
        confidence, ood, classes = self._temporary()
        own = {PLAN_TAG: self.plan.identity}
        if missing:  # whatever name it is given later, it is not taken for a finished map
            own = {MISSING_TAG: "; ".join(str(tile.window) for tile in missing[:MAX_NAMED])}
        finish_cogs(
            [
                Cog(confidence, files.confidence, "average", tags=own),
                Cog(ood, files.ood, "average", tags={**own, **self._thresholds()}),
                Cog(
                    classes,
                    files.map,
                    "mode",
                    colors={c.id: c.color for c in self.manifest.classes},
                    categories=["nodata", *self.manifest.class_names],
                    tags={**own, SUMMARY_TAG: summary.as_json(), **_labels_tag(self.manifest)},
                ),
            ],
            before=lambda: files.legend.unlink(missing_ok=True),
        )
        write_legend(files.legend, self.manifest)  # without it the map is not taken for finished

    def _thresholds(self) -> dict[str, str]:
        ood = self.manifest.ood
        pairs = {
            "OOD_THRESHOLD": ood.threshold if ood else None,
            "OOD_THRESHOLD_ENERGY": ood.threshold_energy if ood else None,
        }
        return {name: repr(value) for name, value in pairs.items() if value is not None}


def likelihood_share(energies: npt.NDArray[np.float32], quantiles: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return which share of the validation data is at most as likely as each pixel or patch: log p(x) within 0..1.

    Args:
        energies: -log p(x) up to a constant, NaN where there is no data.
        quantiles: energies of the validation data at even shares from 0 to 1, rising.

    Returns:
        Same shape; 1 for what is likelier than all validation data, 0 for what is less likely; NaN where there is none.
    """
    shares = 1 - np.interp(energies, quantiles, np.linspace(0, 1, len(quantiles)))
    return shares.astype(np.float32)


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
