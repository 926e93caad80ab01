"""The plan of a map: which windows the net reads, in which batches, and which tiles they make up.

The lattice of inference windows starts at the scene's first pixel and depends on the scene's size and the
bundle alone. Tiles consist of whole batches of the lattice: their size, their order and who works on them
decide when a batch is computed, never what is in it. So the map is equal to the last bit for any of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from berunda.errors import ConfigError
from berunda.files import digest_of
from berunda.geo.grid import Grid, Window
from berunda.geo.raster import Scene
from berunda.mapping.bundle import Bundle, current_versions
from berunda.mapping.predictor import Predictor

__all__ = ["Lattice", "Plan", "make_plan"]

LAYOUT = 1
"""Version of the tile files and of the journal; another one makes a fresh plan."""


@dataclass(frozen=True)
class Lattice:
    """Inference windows over a scene.

    Attributes:
        window_px: side of what the net reads.
        margin_px: what is cropped off its answer on each side.
        batch: windows that go through the net together: neighbours in a row of the lattice.
    """

    window_px: int
    margin_px: int
    batch: int

    @property
    def stride_px(self) -> int:
        """Side of what a window contributes."""
        return self.window_px - 2 * self.margin_px

    def tile_shape(self, tile_px: int) -> tuple[int, int]:
        """Return rows and columns of the smallest tile of whole batches with sides of at least `tile_px`."""
        rows, cols = self.stride_px, self.stride_px * self.batch
        return -(-tile_px // rows) * rows, -(-tile_px // cols) * cols

    def batches(self, tile: Window) -> Iterator[tuple[Window, ...]]:
        """Yield the batches of a tile: output windows, stride_px square; the last may reach over its end.

        Args:
            tile: starts on a multiple of the batch's size; windows wholly beyond its end are left out.
        """
        step = self.stride_px
        for row in range(tile.row, tile.row_stop, step):
            for start in range(tile.col, tile.col_stop, step * self.batch):
                stop = min(start + step * self.batch, tile.col_stop)
                yield tuple(Window(row, col, step, step) for col in range(start, stop, step))


@dataclass(frozen=True)
class Plan:
    """Everything that decides a map, and the tiles it is made of.

    Attributes:
        scene: fingerprint of the scene.
        bundle: fingerprint of the bundle.
        grid: of the scene and of the map.
        lattice: inference windows and batches.
        numerics: precision, kind of device and versions: what else can change a bit.
        tile_rows, tile_cols: size of a tile in pixels; tiles at the scene's end are smaller.
    """

    scene: str
    bundle: str
    grid: Grid
    lattice: Lattice
    numerics: tuple[tuple[str, str], ...]
    tile_rows: int
    tile_cols: int

    @cached_property
    def identity(self) -> str:
        """Sha256 of what decides the pixels; the size of the tiles does not enter."""
        told = self._told()
        del told["tile_rows"], told["tile_cols"]
        return digest_of(json.dumps(told, sort_keys=True).encode())

    @cached_property
    def digest(self) -> str:
        """Sha256 of the whole plan, tiles included."""
        return digest_of(self.as_json().encode())

    def as_json(self) -> str:
        """Return the plan as JSON; equal plans give equal text."""
        return json.dumps(self._told(), sort_keys=True, indent=1)

    @property
    def n_tile_rows(self) -> int:
        """Rows of tiles."""
        return -(-self.grid.shape.rows // self.tile_rows)

    @property
    def n_tile_cols(self) -> int:
        """Columns of tiles."""
        return -(-self.grid.shape.cols // self.tile_cols)

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return self.n_tile_rows * self.n_tile_cols

    def tile(self, index: int) -> Window:
        """Return the window of tile `index`, 0.. row by row, cut at the scene's end."""
        row, col = divmod(index, self.n_tile_cols)
        shape = self.grid.shape
        top, left = row * self.tile_rows, col * self.tile_cols
        return Window(top, left, min(self.tile_rows, shape.rows - top), min(self.tile_cols, shape.cols - left))

    def tiles_under(self, window: Window) -> Iterator[int]:
        """Yield the indices of the tiles that share pixels with `window` (inside the scene)."""
        for row in range(window.row // self.tile_rows, (window.row_stop - 1) // self.tile_rows + 1):
            for col in range(window.col // self.tile_cols, (window.col_stop - 1) // self.tile_cols + 1):
                yield row * self.n_tile_cols + col

    def _told(self) -> dict[str, Any]:
        grid = {
            "rows": self.grid.shape.rows,
            "cols": self.grid.shape.cols,
            "transform": list(self.grid.transform[:6]),
            "crs": self.grid.crs,
        }
        return {
            "layout": LAYOUT,
            "scene": self.scene,
            "bundle": self.bundle,
            "grid": grid,
            "lattice": asdict(self.lattice),
            "numerics": dict(self.numerics),
            "tile_rows": self.tile_rows,
            "tile_cols": self.tile_cols,
        }


def make_plan(bundle: Bundle, scene: Scene, predictor: Predictor, tile_px: int) -> Plan:
    """Return the plan of mapping `scene`, whose bands are already those of the bundle.

    Raises:
        ConfigError: `tile_px` is not positive.
    """
    if tile_px < 1:
        raise ConfigError(f"tile_px is {tile_px}, expected at least 1")
    manifest = bundle.manifest
    lattice = Lattice(manifest.window_px, manifest.margin_px, predictor.batch)
    rows, cols = lattice.tile_shape(tile_px)
    versions = current_versions()
    numerics = {
        "precision": predictor.precision,
        "device": predictor.device.type,
        **{name: versions[name] for name in ("berunda", "torch")},
    }
    return Plan(
        scene=scene.fingerprint(),
        bundle=bundle.fingerprint,
        grid=scene.grid,
        lattice=lattice,
        numerics=tuple(sorted(numerics.items())),
        tile_rows=rows,
        tile_cols=cols,
    )
