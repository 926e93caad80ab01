"""What a model says at labelled pixels: the ground of calibration, thresholds and every figure of the report.

Labelled pixels are gathered once; every method of a comparison is asked about the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from berunda.api.prepare import Prepared
from berunda.data.order import Randomness
from berunda.data.splits import UNUSED, parts_in_window
from berunda.geo.grid import Grid, Window
from berunda.geo.raster import Scene
from berunda.mapping.plan import Lattice
from berunda.mapping.predictor import Predictor

__all__ = ["Answers", "PixelTable", "ask_net", "gather_pixels"]

_BLOCK_PX = 512
MAX_PIXELS_PER_PART = 1_000_000


@dataclass(frozen=True)
class PixelTable:
    """Labelled pixels, one a row, in the order scene, part of the scene, row, column.

    Attributes:
        scene: (n,) int16 index of the scene.
        row: (n,) int64.
        col: (n,) int64.
        part: (n,) int8 as in `berunda.data.splits`.
        classes: (n,) int16, 1..C.
        polygon: (n,) int32 index of the polygon.
        values: (n, B) float32 raw band values.
    """

    scene: np.ndarray
    row: np.ndarray
    col: np.ndarray
    part: np.ndarray
    classes: np.ndarray
    polygon: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def take(self, where: np.ndarray) -> PixelTable:
        """Return the rows that `where` (bool or indices) selects."""
        return PixelTable(*(getattr(self, name)[where] for name in self.__dataclass_fields__))

    def of(self, part: int) -> PixelTable:
        """Return the rows of one part."""
        return self.take(self.part == part)


@dataclass(frozen=True)
class Answers:
    """What a net says at the rows of a table.

    Attributes:
        logits: (n, C) float32.
        features: (n, D) float32 decoded features.
    """

    logits: np.ndarray
    features: np.ndarray


def gather_pixels(prepared: Prepared) -> PixelTable:
    """Return every valid labelled pixel that serves training, calibration or test.

    A part with more than a million pixels is thinned at random (by fixed keys) to about that many.
    """
    found = [
        table
        for index, scene in enumerate(prepared.scenes)
        for window in scene.grid.tiles(_BLOCK_PX)
        if len(table := _in_window(prepared, index, scene, window))
    ]
    if not found:
        return _empty_table(prepared)
    names = PixelTable.__dataclass_fields__
    table = PixelTable(*(np.concatenate([getattr(t, name) for t in found]) for name in names))
    counts = np.bincount(table.part, minlength=4)
    if counts.max() <= MAX_PIXELS_PER_PART:
        return table
    chance = (MAX_PIXELS_PER_PART / np.maximum(counts, 1))[table.part]
    return table.take(Randomness(0).numpy("thinning").random(len(table)) < chance)


def ask_net(predictor: Predictor, prepared: Prepared, table: PixelTable) -> Answers:
    """Return the net's logits and features at the rows of `table`, through the windows that the map is made of."""
    lattice = Lattice(predictor.manifest.window_px, predictor.manifest.margin_px, 1)
    logits = np.zeros((len(table), len(predictor.manifest.classes)), np.float32)
    features: np.ndarray | None = None
    for index, scene in enumerate(prepared.scenes):
        mine = np.flatnonzero(table.scene == index)
        for window, rows in _by_lattice_window(lattice, table, mine):
            block = scene.read(window.pad(lattice.margin_px))
            pixels = torch.from_numpy(predictor.scale(block.values, block.valid)[None])
            decoded, said = predictor.features_and_logits(pixels)
            at = (
                table.row[rows] - window.row + lattice.margin_px,
                table.col[rows] - window.col + lattice.margin_px,
            )
            here = decoded[0].cpu().numpy()[:, at[0], at[1]].T
            if features is None:
                features = np.zeros((len(table), here.shape[1]), np.float32)
            features[rows] = here
            logits[rows] = said[0].cpu().numpy()[:, at[0], at[1]].T
    return Answers(logits, features if features is not None else np.zeros((len(table), 1), np.float32))


def _in_window(prepared: Prepared, index: int, scene: Scene, window: Window) -> PixelTable:
    if not _may_hold_labels(prepared, scene.grid, window):
        return _empty_table(prepared)
    parts = parts_in_window(prepared.split, prepared.labels, index, scene.grid, window)
    serves = (parts.part != UNUSED) & (parts.classes > 0)
    if not serves.any():
        return _empty_table(prepared)
    block = scene.read(window)
    rows, cols = np.nonzero(serves & block.valid)
    return PixelTable(
        scene=np.full(len(rows), index, np.int16),
        row=rows + window.row,
        col=cols + window.col,
        part=parts.part[rows, cols],
        classes=parts.classes[rows, cols],
        polygon=parts.polygon[rows, cols],
        values=block.values[:, rows, cols].T.astype(np.float32),
    )


def _empty_table(prepared: Prepared) -> PixelTable:
    kinds = {"scene": "i2", "row": "i8", "col": "i8", "part": "i1", "classes": "i2", "polygon": "i4"}
    values = np.zeros((0, len(prepared.band_names)), np.float32)
    return PixelTable(values=values, **{name: np.zeros(0, kind) for name, kind in kinds.items()})


def _may_hold_labels(prepared: Prepared, grid: Grid, window: Window) -> bool:
    boxes = [p.box for p in prepared.labels.pixels(grid)]
    return any(box.intersect(window) is not None for box in boxes)


def _by_lattice_window(
    lattice: Lattice, table: PixelTable, rows: np.ndarray
) -> Iterator[tuple[Window, np.ndarray]]:
    """Yield each lattice window that holds rows of the table, with those rows."""
    if not len(rows):
        return
    step = lattice.stride_px
    cell = (table.row[rows] // step) << 32 | (table.col[rows] // step)
    order = np.argsort(cell, kind="stable")
    ordered = cell[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    for key, members in zip(ordered[starts], np.split(order, starts[1:]), strict=True):
        yield Window(int(key >> 32) * step, int(key & 0xFFFFFFFF) * step, step, step), rows[members]
