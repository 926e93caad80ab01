"""Tiles: reading, predicting and keeping one piece of the map; each step can be repeated, by anyone.

A tile's file holds the planes of `predictor.PLANES` one after the other, uncompressed, then those of the labels where
there are several. A tile without data has no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.errors import OutputError
from berunda.files import digest_of, write_atomic
from berunda.geo.grid import Shape, Window
from berunda.geo.raster import Scene
from berunda.mapping.journal import Receipt
from berunda.mapping.plan import Plan
from berunda.mapping.predictor import LABEL_PLANE, PLANES, Planes, Predictor

__all__ = ["LoadedTile", "TileStore", "TileWork"]

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""`map`, or `Executor.map`."""


class TileStore:
    """The files of finished tiles in one folder.

    Args:
        folder: where they are kept.
        n_labels: planes of probabilities that a tile has.
    """

    def __init__(self, folder: Path, n_labels: int = 0) -> None:
        self.folder = folder
        self._n_labels = n_labels
        self._kinds = (*(kind for _, kind in PLANES), *(LABEL_PLANE,) * n_labels)
        self._bytes_per_pixel = sum(np.dtype(kind).itemsize for kind in self._kinds)

    def path(self, index: int) -> Path:
        """Return where tile `index` is kept."""
        return self.folder / f"{index:08d}.tile"

    def write(self, index: int, planes: Planes | None) -> Receipt:
        """Keep a tile (None: it has no data) and return its receipt; an older file of it is replaced.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        if planes is None:
            return Receipt(index, "", 0)
        stored = [
            np.ascontiguousarray(array, dtype=kind) for array, kind in zip(planes.arrays(), self._kinds, strict=True)
        ]
        data = b"".join(array.data for array in stored)
        write_atomic(self.path(index), [data])
        return Receipt(index, digest_of(data), len(data))

    def check(self, receipt: Receipt, shape: Shape) -> None:
        """Make sure that the tile's file is the one that the receipt speaks of.

        Raises:
            OutputError: it is missing or damaged.
        """
        if not receipt.sha256:
            return
        path = self.path(receipt.index)
        try:
            fits = path.stat().st_size == receipt.n_bytes == shape.n_pixels * self._bytes_per_pixel
            intact = fits and digest_of(path.read_bytes()) == receipt.sha256
        except OSError:
            intact = False
        if not intact:
            raise OutputError(
                f"{path}: the tile is missing or damaged; run the same command again: it will be made anew"
            )

    def is_intact(self, receipt: Receipt, shape: Shape) -> bool:
        """Say whether `check` finds nothing wrong."""
        try:
            self.check(receipt, shape)
        except OutputError:
            return False
        return True

    def kept(self, plan: Plan, receipts: Mapping[int, Receipt]) -> set[int]:
        """Return which tiles of the plan are here and intact by their receipts (a damaged journal can name others)."""
        known = {index: receipt for index, receipt in receipts.items() if index < plan.n_tiles}
        return {index for index, receipt in known.items() if self.is_intact(receipt, plan.tile(index).shape)}

    def read_rows(self, receipt: Receipt, shape: Shape, rows: slice) -> Planes:
        """Return some rows of a tile of `shape`, without checking them.

        Raises:
            OutputError: the file is gone or too short.
        """
        n_rows = rows.stop - rows.start
        if not receipt.sha256:
            return Planes.empty(n_rows, shape.cols, n_labels=self._n_labels)
        arrays, start = [], 0
        path = self.path(receipt.index)
        try:
            with path.open("rb") as file:
                for kind in self._kinds:
                    size = np.dtype(kind).itemsize
                    file.seek(start + rows.start * shape.cols * size)
                    data = file.read(n_rows * shape.cols * size)
                    arrays.append(np.frombuffer(data, kind).reshape(n_rows, shape.cols))
                    start += shape.n_pixels * size
        except (OSError, ValueError) as error:
            raise OutputError(f"{path}: the tile cannot be read; run the same command again") from error
        return Planes.of(arrays)


@dataclass(frozen=True)
class LoadedTile:
    """A tile's pixels with the margin around it (`outer`): `pixels` (B, h, w) scaled, `valid` (h, w)."""

    index: int
    window: Window
    outer: Window
    pixels: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TileWork:
    """What a worker needs to make any tile: `load`, `predict`, `keep`; calling it does all three."""

    plan: Plan
    scene: Scene
    predictor: Predictor
    store: TileStore

    def __call__(self, index: int) -> Receipt:
        """Make tile `index` and return its receipt."""
        return self.keep(index, self.predict(self.load(index)))

    def load(self, index: int) -> LoadedTile | None:
        """Read and scale the pixels that tile `index` needs; None when it has no data.

        Raises:
            GeoError: the scene cannot be read there.
        """
        window = self.plan.tile(index)
        outer = self._covered(window).pad(self.plan.lattice.margin_px)
        block = self.scene.read(outer)
        if not block.valid[window.slices_in(outer)].any():
            return None
        pixels = self.predictor.scale(block.values, block.valid)
        return LoadedTile(index, window, outer, pixels, block.valid)

    def predict(self, tile: LoadedTile | None, each: Each = map) -> Planes | None:
        """Return the planes of a loaded tile; windows without data do not go through the net.

        Args:
            tile: what `load` returned.
            each: applies a function to every batch, in any order, and yields the results in theirs.
        """
        if tile is None:
            return None
        covered = self._covered(tile.window)
        result = Planes.empty(covered.n_rows, covered.n_cols)
        batches = (
            [w for w in batch if tile.valid[w.slices_in(tile.outer)].any()]
            for batch in self.plan.lattice.batches(tile.window)
        )
        seen = [batch for batch in batches if batch]
        for windows, planes in zip(seen, each(partial(self._predict_batch, tile), seen), strict=True):
            for number, window in enumerate(windows):
                place = window.slices_in(covered)
                for target, source in zip(result.arrays(), planes.arrays(), strict=True):
                    target[place] = source[number]
        rows, cols = slice(0, tile.window.n_rows), slice(0, tile.window.n_cols)
        return Planes.of(array[rows, cols] for array in result.arrays())

    def keep(self, index: int, planes: Planes | None) -> Receipt:
        """Write the tile and return its receipt.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        return self.store.write(index, planes)

    def _predict_batch(self, tile: LoadedTile, windows: list[Window]) -> Planes:
        places = [w.pad(self.plan.lattice.margin_px).slices_in(tile.outer) for w in windows]
        pixels = np.stack([tile.pixels[:, rows, cols] for rows, cols in places])
        valid = np.stack([tile.valid[rows, cols] for rows, cols in places])
        return self.predictor.predict(pixels, valid)

    def _covered(self, window: Window) -> Window:
        """Return the window grown at its end to whole steps of the lattice."""
        step = self.plan.lattice.stride_px
        n_rows, n_cols = (-(-n // step) * step for n in (window.n_rows, window.n_cols))
        return Window(window.row, window.col, n_rows, n_cols)
