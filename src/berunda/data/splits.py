"""Honest splits of labelled polygons: spatial blocks with a buffer.

A scene is cut into square blocks; whole blocks are kept for the test. A polygon belongs to the block that holds its
representative point. Test pixels lie in test blocks, further than a buffer from every pixel whose label trained or
calibrated the model, those of neighbouring and overlapping scenes included. What lies between counts for nothing. The
imagery itself knows no border: a training crop may show ground of a test block, but never a label of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from scipy import ndimage
from scipy.spatial import cKDTree

from berunda.data.order import Randomness
from berunda.errors import DataError
from berunda.geo.grid import Grid, Window
from berunda.geo.vector import Labels, rasterize

__all__ = [
    "BLOCK_PX",
    "CALIBRATION",
    "TEST",
    "TRAIN",
    "UNUSED",
    "BlockSplit",
    "Parts",
    "SplitSettings",
    "check_no_leak",
    "parts_in_window",
    "split_blocks",
]

UNUSED, TRAIN, CALIBRATION, TEST = 0, 1, 2, 3
_N_DRAWS = 256
_MIN_LABELLED_BLOCKS = 10
_MIN_BLOCK_PX = 32
_FEW_POLYGONS = 3  # a class with so many training polygons can spare one for calibration
BLOCK_PX = 128
"""Side of a block where none is asked for and labels are many."""


@dataclass(frozen=True)
class SplitSettings:
    """How to split.

    Attributes:
        block_px: side of a block in pixels; None starts at 128 and halves it (down to 32, and never below twice the
            buffer) until at least ten blocks hold labels.
        buffer_px: least distance in pixels between a test pixel and a training or calibration pixel.
        test_share: share of the labelled area that the test blocks should hold, 0 to 0.9; 0 keeps nothing for the test.
        polygons_per_class: at most so many training polygons a class; None takes all that are left.
        calibration_share: share of the training blocks' polygons kept from training for calibration when
            `polygons_per_class` is None, at least one of three. Otherwise at most as many
            polygons as train are kept, from those left over.
        seed: seed of the draws.
    """

    block_px: int | None = None
    buffer_px: int = 32
    test_share: float = 0.3
    polygons_per_class: int | None = None
    calibration_share: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class BlockSplit:
    """Which polygon serves what.

    Attributes:
        part: (n_polygons,) int8, one of UNUSED, TRAIN, CALIBRATION, TEST.
        scene: (n_polygons,) int16 index of the scene that holds the polygon's representative point, -1 for none.
        test_blocks: for each scene a bool array (block rows, block columns), True where the block is kept for the test.
        block_px: side of a block in pixels.
        buffer_px: buffer in pixels.
        warnings: what a reader of the figures should know, in plain words.
    """

    part: np.ndarray
    scene: np.ndarray
    test_blocks: tuple[np.ndarray, ...]
    block_px: int
    buffer_px: int
    warnings: tuple[str, ...] = field(default_factory=tuple)

    def counts(self, labels: Labels) -> dict[str, dict[str, int]]:
        """Return the number of polygons by part and class name."""
        names = {"train": TRAIN, "calibration": CALIBRATION, "test": TEST}
        return {
            name: {
                cls: int(np.count_nonzero((self.part == part) & (labels.class_ids == i + 1)))
                for i, cls in enumerate(labels.class_names)
            }
            for name, part in names.items()
        }


@dataclass(frozen=True)
class Parts:
    """The split on the pixels of one window.

    Attributes:
        part: (h, w) int8, one of UNUSED, TRAIN, CALIBRATION, TEST.
        classes: (h, w) int16, the class 1..C, 0 where there is no label.
        polygon: (h, w) int32, index of the polygon, -1 where there is none.
    """

    part: np.ndarray
    classes: np.ndarray
    polygon: np.ndarray


def split_blocks(labels: Labels, grids: Sequence[Grid], settings: SplitSettings) -> BlockSplit:
    """Split polygons into training, calibration and test by spatial blocks.

    Of 256 random draws of test blocks the one is taken in which every class comes closest to the test share, so that
    each class that can be is present on both sides.

    Args:
        labels: polygons in the coordinate reference system of the grids.
        grids: the grids of the scenes.
        settings: how to split.

    Returns:
        The split, with warnings for classes that cannot be evaluated or trained as asked.

    Raises:
        DataError: no polygon lies on any scene, or a class is left without training polygons.
    """
    scene, rows, cols, areas = _locate(labels, grids)
    on_scene = scene >= 0
    if not on_scene.any():
        raise DataError(f"{labels.source}: none of its {len(scene)} polygons lies on the scene; nothing to train on")
    block_px = settings.block_px or _choose_block_px(scene, rows, cols, 2 * settings.buffer_px)
    shapes = [(-(-g.shape.rows // block_px), -(-g.shape.cols // block_px)) for g in grids]
    offsets = np.cumsum([0, *(r * c for r, c in shapes)])
    widths = np.array([c for _, c in shapes])
    block = np.where(on_scene, offsets[scene] + rows // block_px * widths[scene] + cols // block_px, -1)
    is_test = _draw_test_blocks(block, labels.class_ids, areas, int(offsets[-1]), settings)
    part = np.where(on_scene, np.where(is_test[np.maximum(block, 0)], TEST, TRAIN), UNUSED).astype(np.int8)
    part = _choose_training(part, labels, settings, np.stack([rows, cols], 1))
    test_blocks = tuple(is_test[a:b].reshape(s) for a, b, s in zip(offsets, offsets[1:], shapes, strict=False))
    warnings = _warnings(part, labels, settings)
    return BlockSplit(part, scene, test_blocks, block_px, settings.buffer_px, warnings)


def parts_in_window(split: BlockSplit, labels: Labels, scene: int, grid: Grid, window: Window) -> Parts:
    """Return the split on the pixels of `window`; the same pixel gets the same answer in any window.

    Pixels of a training or calibration polygon that reach into a test block, pixels of a test polygon outside test
    blocks, and test pixels within the buffer of a training or calibration pixel are UNUSED.
    """
    wide = window.pad(split.buffer_px)
    polygon = rasterize(labels, grid, wide)
    serves = np.append(split.part, UNUSED)[polygon]
    row = np.clip(np.arange(wide.row, wide.row + wide.n_rows), 0, grid.shape.rows - 1) // split.block_px
    col = np.clip(np.arange(wide.col, wide.col + wide.n_cols), 0, grid.shape.cols - 1) // split.block_px
    in_test = split.test_blocks[scene][np.ix_(row, col)]
    here = np.append(split.scene, -1)[polygon] == scene
    fitted = np.isin(serves, (TRAIN, CALIBRATION)) & ~(in_test & here)
    part = np.where(fitted & here, serves, UNUSED).astype(np.int8)
    tested = (serves == TEST) & in_test & here
    if tested.any():
        if fitted.any() and split.buffer_px > 0:
            tested &= ndimage.distance_transform_edt(~fitted) > split.buffer_px
        part[tested] = TEST
    inner = window.slices_in(wide)
    classes = np.append(labels.class_ids, 0)[polygon].astype(np.int16)
    return Parts(part[inner], classes[inner], polygon[inner])


def check_no_leak(
    split: BlockSplit, labels: Labels, fitted_xy: np.ndarray, tested_xy: np.ndarray, pixel: float
) -> None:
    """Make sure of what the split promises, on the very pixels that are used; a second opinion, computed another way.

    Args:
        split: the split.
        labels: its polygons.
        fitted_xy: (n, 2) map coordinates of pixels whose labels train or calibrate.
        tested_xy: (m, 2) map coordinates of test pixels.
        pixel: side of a pixel in map units (the shorter one).

    Raises:
        DataError: a test pixel lies within the buffer of a fitted pixel, or one polygon stands on both sides.
    """
    prints = shapely.to_wkb(shapely.normalize(labels.geometries), hex=True)
    both = np.intersect1d(prints[np.isin(split.part, (TRAIN, CALIBRATION))], prints[split.part == TEST])
    if len(both):
        raise DataError(
            f"{labels.source}: {len(both)} polygons stand in the training and in the test part (drawn twice); remove "
            "the doubles from the file"
        )
    if len(fitted_xy) == 0 or len(tested_xy) == 0:
        return
    nearest = float(cKDTree(fitted_xy).query(tested_xy)[0].min())
    if nearest <= split.buffer_px * pixel:
        raise DataError(
            f"{labels.source}: a test pixel lies {nearest:.6g} map units from a training pixel, expected more than "
            f"{split.buffer_px * pixel:.6g}; the figures would be too good: report this as a bug"
        )


def _locate(labels: Labels, grids: Sequence[Grid]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return for each polygon its scene, the pixel of its representative point there and its area in pixels."""
    n = len(labels.geometries)
    scene = np.full(n, -1, np.int16)
    rows, cols = np.zeros(n, np.int64), np.zeros(n, np.int64)
    areas = np.zeros(n)
    for index, grid in enumerate(grids):
        extent = shapely.Polygon(grid.corners)
        clipped = shapely.intersection(labels.geometries, extent)
        x, y = _representative(clipped)
        inverse = ~grid.transform
        col = np.floor(inverse.a * x + inverse.b * y + inverse.c)
        row = np.floor(inverse.d * x + inverse.e * y + inverse.f)
        inside = (row >= 0) & (row < grid.shape.rows) & (col >= 0) & (col < grid.shape.cols) & (scene < 0)
        scene[inside] = index
        rows[inside], cols[inside] = row[inside].astype(np.int64), col[inside].astype(np.int64)
        areas[inside] = shapely.area(clipped)[inside] / abs(grid.transform.determinant)
    return scene, rows, cols, areas


def _representative(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of a point inside each geometry; NaN for empty ones."""
    x, y = np.full(len(geometries), np.nan), np.full(len(geometries), np.nan)
    there = ~shapely.is_empty(geometries)
    points = shapely.point_on_surface(geometries[there])
    x[there], y[there] = shapely.get_x(points), shapely.get_y(points)
    return x, y


def _choose_block_px(scene: np.ndarray, rows: np.ndarray, cols: np.ndarray, least_px: int) -> int:
    block_px = BLOCK_PX
    while block_px < least_px:
        block_px *= 2
    here = scene >= 0
    while block_px // 2 >= max(_MIN_BLOCK_PX, least_px):
        held = {*zip(scene[here], rows[here] // block_px, cols[here] // block_px, strict=True)}
        if len(held) >= _MIN_LABELLED_BLOCKS:
            break
        block_px //= 2
    return block_px


def _draw_test_blocks(
    block: np.ndarray, class_ids: np.ndarray, areas: np.ndarray, n_blocks: int, settings: SplitSettings
) -> np.ndarray:
    """Return a bool array over all blocks: the draw whose classes come closest to the test share."""
    if settings.test_share <= 0:
        return np.zeros(n_blocks, bool)
    labelled = np.unique(block[block >= 0])
    position = np.searchsorted(labelled, np.maximum(block, 0))
    used = block >= 0
    n_ids = int(class_ids.max()) + 1
    cell = position[used] * n_ids + class_ids[used]
    counted = [np.bincount(cell, w, minlength=len(labelled) * n_ids) for w in (None, areas[used])]
    weight = np.stack(counted, axis=1).reshape(len(labelled), n_ids, 2)
    total = weight.sum(0)
    present = total[:, 0] > 0
    rng = Randomness(settings.seed).numpy("split")
    n_test = round(settings.test_share * n_blocks)
    best, least = np.zeros(n_blocks, bool), np.inf
    for _ in range(_N_DRAWS):
        drawn = np.zeros(n_blocks, bool)
        drawn[rng.random(n_blocks).argsort()[:n_test]] = True
        fault = _fault_of_draw(weight[drawn[labelled]].sum(0)[present], total[present], settings.test_share)
        if fault < least:
            best, least = drawn, fault
    return best


def _fault_of_draw(held: np.ndarray, total: np.ndarray, test_share: float) -> float:
    """Return how far test polygons and areas `held` (classes, 2) of `total` are from the share that was asked for.

    A class that is not tested weighs more than any misfit, one of a single polygon excepted, which is better trained; a
    class that is not trained weighs more than all of that, for no map can be made.
    """
    untrained = held[:, 0] > total[:, 0] - 0.5
    untested = (held[:, 0] < 0.5) & (total[:, 0] > 1)
    misfit = np.abs(held / np.maximum(total, 1e-9) - test_share).mean()
    return float(misfit + 10 * np.count_nonzero(untested) + 10_000 * np.count_nonzero(untrained))


def _choose_training(part: np.ndarray, labels: Labels, settings: SplitSettings, at: np.ndarray) -> np.ndarray:
    """Set apart the calibration polygons and leave at most `polygons_per_class` for training."""
    part = part.copy()
    rng = Randomness(settings.seed).numpy("polygons")
    for class_id in range(1, len(labels.class_names) + 1):
        mine = rng.permutation(np.flatnonzero((part == TRAIN) & (labels.class_ids == class_id)))
        if settings.polygons_per_class is None:
            least = 1 if settings.calibration_share > 0 and len(mine) >= _FEW_POLYGONS else 0
            n_calibration = max(least, int(settings.calibration_share * len(mine)))
            n_train = len(mine) - n_calibration
        else:
            n_train = min(settings.polygons_per_class, len(mine))
            n_calibration = min(n_train, len(mine) - n_train)
        chosen, rest = mine[:n_train], mine[n_train:]
        part[rest] = UNUSED
        if n_calibration:
            gap = cKDTree(at[chosen]).query(at[rest])[0]
            far_first = np.argsort(gap < 2 * settings.buffer_px, kind="stable")
            part[rest[far_first[:n_calibration]]] = CALIBRATION
    return part


def _warnings(part: np.ndarray, labels: Labels, settings: SplitSettings) -> tuple[str, ...]:
    found: list[str] = []
    for class_id, name in enumerate(labels.class_names, start=1):
        mine = labels.class_ids == class_id
        n_train, n_test = (int(np.count_nonzero(mine & (part == p))) for p in (TRAIN, TEST))
        if n_train == 0:
            raise DataError(
                f"{labels.source}: class '{name}' has no polygon left to train on ({int(mine.sum())} in the file, "
                f"{n_test} in test blocks); draw more polygons, merge the class with --classes, or lower --test-share"
            )
        if n_test == 0 and settings.test_share > 0:
            found.append(f"Class '{name}' has no test polygon: its accuracy is not known.")
        if settings.polygons_per_class and n_train < settings.polygons_per_class:
            asked = settings.polygons_per_class
            found.append(f"Class '{name}' trains on {n_train} polygons, fewer than the {asked} asked for.")
    return tuple(found)
