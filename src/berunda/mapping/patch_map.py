"""Maps of whole-image models: one pixel a patch, streamed and resumed like any map.

The lattice of patches starts at the scene's first pixel and depends on scene, bundle and stride alone. A pixel of the
map stands for `stride_px` by `stride_px` pixels of the scene and is answered from the patch around its middle, moved
inwards where it would reach over the scene's edge. So patches overlap where the stride is smaller than they are.

A patch of a model of several labels has the probability of each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from affine import Affine

from berunda.data.scaling import scale_pixels
from berunda.errors import ConfigError
from berunda.geo.grid import Grid, Shape, Window
from berunda.geo.raster import Scene
from berunda.mapping.bundle import Bundle, current_versions
from berunda.mapping.journal import Receipt
from berunda.mapping.patches import ScenePredictor
from berunda.mapping.plan import Lattice, Plan
from berunda.mapping.predictor import Planes
from berunda.mapping.tiles import Each, LoadedTile, TileStore

__all__ = ["BLOCK_CELLS", "MIN_DATA", "PatchWork", "make_patch_plan", "patch_grid"]

BLOCK_CELLS = 8
"""Patches go through the net in blocks of so many rows and columns of the map, whatever the tiling."""
MIN_DATA = 0.5
"""A patch of which a smaller share is data is nodata in the map."""


def patch_grid(grid: Grid, stride_px: int) -> Grid:
    """Return the grid of the map: that of the scene with pixels `stride_px` times as large; the last may reach out."""
    rows, cols = -(-grid.shape.rows // stride_px), -(-grid.shape.cols // stride_px)
    return Grid(Shape(rows, cols), grid.transform * Affine.scale(stride_px), grid.crs)


def make_patch_plan(
    bundle: Bundle, scene: Scene, predictor: ScenePredictor, tile_px: int, stride_px: int | None = None
) -> Plan:
    """Return the plan of mapping `scene`, whose bands are already those of the bundle, patch by patch.

    Args:
        bundle: the model, for whole images.
        scene: to map.
        predictor: of the bundle.
        tile_px: least side of a tile, in pixels of the scene; it is rounded up to whole blocks of patches.
        stride_px: from one patch to the next; the patches' own side where None.

    Raises:
        ConfigError: the stride is below 1 or larger than a patch, which would leave ground unseen.
    """
    side = bundle.manifest.window_px
    stride = side if stride_px is None else stride_px
    if not 1 <= stride <= side:
        raise ConfigError(
            f"--stride is {stride} px, expected 1 to {side}, the side of the images the model was trained on"
        )
    n_cells = -(-tile_px // (stride * BLOCK_CELLS)) * BLOCK_CELLS
    versions = current_versions()
    numerics = {
        "precision": predictor.precision,
        "device": predictor.device.type,
        "stride_px": str(stride),
        **{name: versions[name] for name in ("berunda", "torch")},
    }
    return Plan(
        scene=scene.fingerprint(),
        bundle=bundle.fingerprint,
        grid=patch_grid(scene.grid, stride),
        lattice=Lattice(side, 0, BLOCK_CELLS**2),
        numerics=tuple(sorted(numerics.items())),
        tile_rows=n_cells,
        tile_cols=n_cells,
    )


@dataclass(frozen=True)
class PatchWork:
    """What a worker needs to make any tile of a map of patches; the steps are those of `TileWork`."""

    plan: Plan
    scene: Scene
    predictor: ScenePredictor
    store: TileStore
    stride_px: int

    def __call__(self, index: int) -> Receipt:
        """Make tile `index` and return its receipt."""
        return self.keep(index, self.predict(self.load(index)))

    def load(self, index: int) -> LoadedTile | None:
        """Read and scale the pixels that tile `index` needs; None when it has no data.

        Raises:
            GeoError: the scene cannot be read there.
        """
        cells = self.plan.tile(index)
        first, last = self.patch(cells.row, cells.col), self.patch(cells.row_stop - 1, cells.col_stop - 1)
        outer = Window(first.row, first.col, last.row_stop - first.row, last.col_stop - first.col)
        block = self.scene.read(outer)
        if not block.valid.any():
            return None
        pixels = scale_pixels(block.values, block.valid, *self.predictor.scaling)
        return LoadedTile(index, cells, outer, pixels, block.valid)

    def predict(self, tile: LoadedTile | None, each: Each = map) -> Planes | None:
        """Return the planes of a loaded tile; patches with little data do not go through the net.

        Args:
            tile: what `load` returned.
            each: applies a function to every batch, in any order, and yields the results in theirs.
        """
        if tile is None:
            return None
        n_labels = len(self.predictor.manifest.label_names)
        result = Planes.empty(tile.window.n_rows, tile.window.n_cols, n_labels=n_labels)
        blocks = [cells for cells in self._blocks(tile) if cells]
        for cells, planes in zip(blocks, each(partial(self._predict_cells, tile), blocks), strict=True):
            rows, cols = (np.array(part) for part in zip(*cells, strict=True))
            place = rows - tile.window.row, cols - tile.window.col
            for target, source in zip(result.arrays(), planes.arrays(), strict=True):
                target[place] = source
        return result

    def keep(self, index: int, planes: Planes | None) -> Receipt:
        """Write the tile and return its receipt.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        return self.store.write(index, planes)

    def patch(self, row: int, col: int) -> Window:
        """Return the pixels of the scene that answer for the map's pixel (row, col)."""
        side, shape = self.plan.lattice.window_px, self.scene.grid.shape
        top, left = (
            max(0, min(at * self.stride_px + (self.stride_px - side) // 2, n - side))
            for at, n in ((row, shape.rows), (col, shape.cols))
        )
        return Window(top, left, side, side)

    def _blocks(self, tile: LoadedTile) -> Iterator[list[tuple[int, int]]]:
        """Yield the map's pixels (row, col) that have enough data, block by block."""
        cells = tile.window
        for top in range(cells.row, cells.row_stop, BLOCK_CELLS):
            for left in range(cells.col, cells.col_stop, BLOCK_CELLS):
                yield [
                    (row, col)
                    for row in range(top, min(top + BLOCK_CELLS, cells.row_stop))
                    for col in range(left, min(left + BLOCK_CELLS, cells.col_stop))
                    if tile.valid[self.patch(row, col).slices_in(tile.outer)].mean() >= MIN_DATA
                ]

    def _predict_cells(self, tile: LoadedTile, cells: list[tuple[int, int]]) -> Planes:
        places = [self.patch(row, col).slices_in(tile.outer) for row, col in cells]
        answers = self.predictor.predict_batch(np.stack([tile.pixels[:, rows, cols] for rows, cols in places]))
        classes = (answers.classes + 1).astype(np.uint8)
        shares = tuple(answers.probabilities.T) if self.predictor.manifest.label_names else ()
        return Planes(classes, self.predictor.confidence(answers), answers.distance, answers.energy, shares)
