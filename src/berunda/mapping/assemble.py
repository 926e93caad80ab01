"""From finished tiles to the rasters, by one writer: write, verify, rename."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berunda.errors import BerundaError
from berunda.geo.grid import Shape, Window
from berunda.geo.labels import LABELS_TAG, short_fingerprint
from berunda.geo.raster import describe
from berunda.geo.write import BLOCK_PX, Cog, create_tiled, finish_cogs, write_qml
from berunda.mapping.arrivals import Arrivals
from berunda.mapping.journal import Receipt
from berunda.mapping.layers import Layer, layers_of, legend_of
from berunda.mapping.manifest import Manifest
from berunda.mapping.plan import Plan
from berunda.mapping.predictor import Planes
from berunda.mapping.result import MAP_NAME, PROBABILITIES_NAME, MapFiles, MissingTile, Summary, Tally
from berunda.mapping.tiles import TileStore

__all__ = ["Assembly", "find_finished", "write_legend"]

CHUNK_PX = 1024
"""Side of what is written at once: a multiple of the rasters' blocks; unaligned writes can lose errors. Of several
labels it is a single block, since each of them is a band."""
MAX_NAMED = 100
"""So many missing tiles are named in the tags."""
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
        n_labels = len(self.manifest.label_names)
        for window in self.plan.grid.tiles(BLOCK_PX if n_labels else CHUNK_PX):
            planes = Planes.empty(window.n_rows, window.n_cols, n_labels=n_labels)
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
        grid, tally, layers = self.plan.grid, Tally(self.manifest), layers_of(self.manifest)
        with ExitStack() as stack:
            writers = [
                stack.enter_context(create_tiled(path, grid, len(one.bands), one.dtype, one.nodata, one.bands))
                for path, one in zip(self._temporary(), layers, strict=True)
            ]
            for window, planes in self.chunks():
                tally.add(planes)
                for writer, one in zip(writers, layers, strict=True):
                    writer.write(one.values(planes), window)
        return tally.summary()

    def _finish(self, summary: Summary, files: MapFiles, missing: tuple[MissingTile, ...]) -> None:
        own = {PLAN_TAG: self.plan.identity}
        if missing:  # whatever name it is given later, it is not taken for a finished map
            own = {MISSING_TAG: "; ".join(str(tile.window) for tile in missing[:MAX_NAMED])}
        of_map = {SUMMARY_TAG: summary.as_json(), **_labels_tag(self.manifest)}
        made = zip(self._temporary(), files.rasters(), layers_of(self.manifest), strict=True)
        cogs = [
            _cog(tmp, final, one, {**own, **one.tags, **(of_map if final == files.map else {})})
            for tmp, final, one in made
        ]
        finish_cogs(cogs, before=lambda: _withdraw(files))
        write_legend(files.legend, self.manifest)  # without it the map is not taken for finished


def _withdraw(files: MapFiles) -> None:
    """Remove what must not stand beside a map that is not there yet, or that is of another kind than the one before."""
    files.legend.unlink(missing_ok=True)
    if files.probabilities is None and files.map.name == MAP_NAME:
        files.map.with_name(PROBABILITIES_NAME).unlink(missing_ok=True)


def _cog(tmp: Path, final: Path, layer: Layer, tags: dict[str, str]) -> Cog:
    return Cog(
        tmp,
        final,
        layer.overview,
        colors={entry.value: entry.color for entry in layer.legend} if len(layer.bands) == 1 else None,
        categories=["nodata", *(entry.name for entry in layer.legend)] if layer.legend else None,
        tags=tags,
    )


def write_legend(path: Path, manifest: Manifest) -> None:
    """Write the legend of the maps of a bundle for QGIS."""
    write_qml(path, legend_of(manifest))


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
