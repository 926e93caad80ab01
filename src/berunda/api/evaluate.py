"""What a model says at labelled pixels: the ground of calibration, thresholds and every figure of the report.

Labelled pixels are gathered once; every method of a comparison is asked about the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from berunda.api.prepare import Prepared
from berunda.data.order import Randomness
from berunda.data.splits import TEST, UNUSED, Parts, check_no_leak, parts_in_window
from berunda.geo.grid import Window, xy_of
from berunda.geo.raster import Scene
from berunda.mapping.plan import Lattice
from berunda.mapping.predictor import Predictor

__all__ = ["Answers", "PixelTable", "ask_net", "check_table", "gather_pixels"]

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


_COLUMNS = tuple(PixelTable.__dataclass_fields__)


@dataclass(frozen=True)
class Answers:
    """What a net says at the rows of a table.

    Attributes:
        logits: (n, C) float32.
        features: (n, D) float32 decoded features; (n, 0) where they were not asked for.
    """

    logits: np.ndarray
    features: np.ndarray


def gather_pixels(prepared: Prepared) -> PixelTable:
    """Return every valid labelled pixel that serves training, calibration or test.

    A part with more than a million labelled pixels is thinned at random (by fixed keys) to at most about that many.
    Labels are counted first, without the scene's pixels, so that memory does not grow with the labels.
    """
    windows = [(i, window) for i, scene in enumerate(prepared.scenes) for window in _labelled_windows(prepared, scene)]
    counts = np.zeros(4, np.int64)
    for index, window in windows:
        counts += np.bincount(_serving(prepared, index, window).part.ravel(), minlength=4)
    counts[UNUSED] = 0
    share = np.minimum(1.0, MAX_PIXELS_PER_PART / np.maximum(counts, 1))
    found = [_in_window(prepared, index, window, share) for index, window in windows]
    return PixelTable(
        *(np.concatenate([getattr(t, name) for t in (_empty_table(prepared), *found)]) for name in _COLUMNS)
    )


def check_table(prepared: Prepared, table: PixelTable) -> None:
    """Check on the very pixels in use that no test pixel lies near one that trains or calibrates.

    Raises:
        DataError: one does.
    """
    x, y = np.zeros(len(table)), np.zeros(len(table))
    for index, scene in enumerate(prepared.scenes):
        mine = table.scene == index
        x[mine], y[mine] = xy_of(scene.grid.transform, table.col[mine] + 0.5, table.row[mine] + 0.5)
    places, is_test = np.stack([x, y], axis=1), table.part == TEST
    pixel = min(min(scene.grid.resolution) for scene in prepared.scenes)
    check_no_leak(prepared.split, prepared.labels, places[~is_test], places[is_test], pixel)


def ask_net(predictor: Predictor, prepared: Prepared, table: PixelTable, *, features: bool = True) -> Answers:
    """Return the net's logits and features at the rows of `table`, through the windows that the map is made of.

    Args:
        predictor: the net.
        prepared: its scenes.
        table: where to ask.
        features: keep the features too; they take several times the memory of the logits.
    """
    lattice = Lattice(predictor.manifest.window_px, predictor.manifest.margin_px, 1)
    logits = np.zeros((len(table), len(predictor.manifest.classes)), np.float32)
    kept: np.ndarray | None = None
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
            if features:
                here = decoded[0].cpu().numpy()[:, at[0], at[1]].T
                if kept is None:
                    kept = np.zeros((len(table), here.shape[1]), np.float32)
                kept[rows] = here
            logits[rows] = said[0].cpu().numpy()[:, at[0], at[1]].T
    return Answers(logits, kept if kept is not None else np.zeros((len(table), int(features)), np.float32))


def _serving(prepared: Prepared, index: int, window: Window) -> Parts:
    """Return the split in a window, UNUSED where a pixel has no class."""
    parts = parts_in_window(prepared.split, prepared.labels, index, prepared.scenes[index].grid, window)
    return replace(parts, part=np.where(parts.classes > 0, parts.part, UNUSED))


def _in_window(prepared: Prepared, index: int, window: Window, share: np.ndarray) -> PixelTable:
    """Return the pixels of a window, of each part about a `share`."""
    parts = _serving(prepared, index, window)
    serves = parts.part != UNUSED
    if not serves.any():
        return _empty_table(prepared)
    block = prepared.scenes[index].read(window)
    serves &= block.valid
    if share.min() < 1:
        draw = Randomness(0).numpy("thinning", index, window.row, window.col)
        serves &= draw.random(serves.shape) < share[parts.part]
    rows, cols = np.nonzero(serves)
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


def _labelled_windows(prepared: Prepared, scene: Scene) -> list[Window]:
    """Return the windows of a scene in which a polygon may lie."""
    return [w for w in scene.grid.tiles(_BLOCK_PX) if len(prepared.labels.touching(scene.grid, w))]


def _by_lattice_window(lattice: Lattice, table: PixelTable, rows: np.ndarray) -> Iterator[tuple[Window, np.ndarray]]:
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
