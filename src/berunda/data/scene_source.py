"""Training images from large scenes: label-centred, class-balanced crops and random unlabelled ones.

A small scene is held whole; of a large one only chunks are read, those around training labels and a random sample of
the rest, so that memory does not grow with the scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from berunda.data.order import Randomness
from berunda.data.scaling import scale_pixels
from berunda.data.source import RawImages
from berunda.data.splits import TRAIN, BlockSplit, parts_in_window
from berunda.errors import DataError
from berunda.geo.grid import Shape, Window
from berunda.geo.raster import Scene
from berunda.geo.vector import Labels

__all__ = ["Chunk", "SceneSource", "build_source"]

_MAX_ANCHORS = 512  # pixels remembered of one polygon in one chunk


@dataclass(frozen=True)
class Chunk:
    """A piece of a scene in memory.

    Attributes:
        pixels: (B, h, w) float32, standardised, 0 where invalid.
        valid: (h, w) bool.
        labels: (h, w) int16, class 0..C-1, -1 where unlabelled; training labels only.
        polygon: (h, w) int32 index of the training polygon, -1 elsewhere.
    """

    pixels: np.ndarray
    valid: np.ndarray
    labels: np.ndarray
    polygon: np.ndarray

    @property
    def shape(self) -> Shape:
        """Rows and columns of the chunk."""
        return Shape(*self.valid.shape)


class SceneSource:
    """Draws crops from chunks; each draw is a pure function of the random keys.

    Labelled crops: a class at random, one of its polygons at random, one of its pixels at random, and a crop that
    holds that pixel at a random place. So a rare class and a small polygon are seen as often as the others.
    Unlabelled crops: anywhere in the chunks, in proportion to their area, at least half valid where that can be had.

    Args:
        chunks: the pieces; each at least one pixel large, padded with invalid pixels when smaller than the crop.
        crop_px: side of a crop in pixels.
        n_classes: number of classes; each must have a training pixel.

    Raises:
        DataError: a class has no valid training pixel.
    """

    def __init__(self, chunks: Sequence[Chunk], crop_px: int, n_classes: int) -> None:
        self.crop_px = crop_px
        self.chunks = tuple(_at_least(c, crop_px) for c in chunks)
        self.anchors = tuple(_anchors_by_polygon(self.chunks, c) for c in range(n_classes))
        empty = [c for c, polygons in enumerate(self.anchors) if not polygons]
        if empty:
            raise DataError(
                f"class ids {[c + 1 for c in empty]} have no valid training pixel: their polygons are smaller than a "
                "pixel, masked, or without data; draw larger polygons or drop the class with --classes"
            )
        areas = np.array([c.valid.size for c in self.chunks], float)
        self._area_edges = np.cumsum(areas) / areas.sum()

    @property
    def has_unlabelled(self) -> bool:
        """True: every scene has pixels without labels."""
        return True

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` crops around training labels."""
        draw = rng.numpy("labelled")
        picks = [self._labelled_crop(draw) for _ in range(n)]
        return self._gather(picks, with_labels=True)

    def unlabelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` crops from anywhere, without labels."""
        draw = rng.numpy("unlabelled")
        picks = [self._unlabelled_crop(draw) for _ in range(n)]
        return self._gather(picks, with_labels=False)

    def _labelled_crop(self, draw: np.random.Generator) -> tuple[int, int, int, int]:
        polygons = self.anchors[draw.integers(len(self.anchors))]
        number, anchors = polygons[draw.integers(len(polygons))]
        chunk, row, col = anchors[draw.integers(len(anchors))]
        shape = self.chunks[chunk].shape
        offset_row, offset_col = draw.integers(self.crop_px, size=2)
        top = int(np.clip(row - offset_row, 0, shape.rows - self.crop_px))
        left = int(np.clip(col - offset_col, 0, shape.cols - self.crop_px))
        return int(chunk), top, left, number

    def _unlabelled_crop(self, draw: np.random.Generator) -> tuple[int, int, int, int]:
        pick = (0, 0, 0, 0)
        for _ in range(8):
            chunk = int(np.searchsorted(self._area_edges, draw.random(), side="right"))
            shape = self.chunks[chunk].shape
            top = int(draw.integers(shape.rows - self.crop_px + 1))
            left = int(draw.integers(shape.cols - self.crop_px + 1))
            pick = (chunk, top, left, top * shape.cols + left)
            if self.chunks[chunk].valid[top : top + self.crop_px, left : left + self.crop_px].mean() >= 0.5:
                break
        return pick

    def _gather(self, picks: Sequence[tuple[int, int, int, int]], *, with_labels: bool) -> RawImages:
        n, size = len(picks), self.crop_px
        n_bands = self.chunks[0].pixels.shape[0]
        pixels = np.empty((n, n_bands, size, size), np.float32)
        valid = np.empty((n, size, size), bool)
        labels = np.empty((n, size, size), np.int64) if with_labels else None
        for i, (number, top, left, _) in enumerate(picks):
            chunk, at = self.chunks[number], (slice(top, top + size), slice(left, left + size))
            pixels[i] = chunk.pixels[:, at[0], at[1]]
            valid[i] = chunk.valid[at]
            if labels is not None:
                labels[i] = chunk.labels[at]
        return RawImages(
            pixels=torch.from_numpy(pixels),
            valid=torch.from_numpy(valid),
            labels=None if labels is None else torch.from_numpy(labels),
            index=torch.tensor([p[3] for p in picks], dtype=torch.int64),
        )


@dataclass(frozen=True)
class ChunkSettings:
    """How much of the scenes is held in memory.

    Attributes:
        budget_bytes: at most so many bytes of pixels over all scenes.
        chunk_px: side of a chunk of a scene that is too large to be held whole.
    """

    budget_bytes: int = 384 << 20
    chunk_px: int = 256


def build_source(
    scenes: Sequence[Scene],
    labels: Labels,
    split: BlockSplit,
    scaling: tuple[np.ndarray, np.ndarray],
    crop_px: int,
    *,
    settings: ChunkSettings | None = None,
) -> SceneSource:
    """Read what training needs from the scenes.

    Args:
        scenes: scenes with the same bands.
        labels: polygons in the scenes' coordinate reference system.
        split: which polygons train.
        scaling: (low, high), each (B,), as `berunda.data.scaling.measure_scaling` returns them.
        crop_px: side of a training crop in pixels.
        settings: memory budget and chunk size.

    Returns:
        A source for the training loop.

    Raises:
        DataError: a class has no valid training pixel.
    """
    settings = settings or ChunkSettings()
    cost = 4 * len(scenes[0].bands) + 8
    budget_px = settings.budget_bytes // cost
    chunks: list[Chunk] = []
    share = budget_px // len(scenes)
    for index, scene in enumerate(scenes):
        n_px = scene.grid.shape.rows * scene.grid.shape.cols
        windows = (
            [scene.grid.full_window]
            if n_px <= share
            else list(_sampled_windows(scene, index, labels, split, share, max(settings.chunk_px, 2 * crop_px)))
        )
        chunks += [_read_chunk(scene, index, labels, split, scaling, window) for window in windows]
    usable = [c for c in chunks if c.valid.any()]
    if not usable:
        raise DataError("no valid pixel in what was read of the scenes; check the nodata values and the --mask raster")
    _check_classes(usable, labels)
    return SceneSource(usable, crop_px, len(labels.class_names))


def _check_classes(chunks: Sequence[Chunk], labels: Labels) -> None:
    """Raise when a class has no pixel to train on, naming it."""
    there = {int(number) for chunk in chunks for number in np.unique(chunk.labels)}
    empty = [name for number, name in enumerate(labels.class_names) if number not in there]
    if empty:
        named = ", ".join(f"'{name}'" for name in empty)
        raise DataError(
            f"{labels.source}: no valid training pixel of class {named}: its training polygons are smaller than a "
            "pixel, masked, or without data; draw larger polygons, or drop the class with "
            f"--classes {','.join(f'{name}=' for name in empty)}"
        )


def _sampled_windows(
    scene: Scene, index: int, labels: Labels, split: BlockSplit, budget_px: int, chunk_px: int
) -> Iterator[Window]:
    """Yield lattice windows with training labels (at most half the budget) and random others, up to the budget.

    Of the labelled windows the classes choose in turns, so that a rare class is not crowded out.
    """
    tiles = list(scene.grid.tiles(chunk_px))
    rng = Randomness(0).numpy("chunks", index)
    held = _tiles_with_training(scene, index, labels, split, chunk_px, len(tiles))
    order = _in_turns([rng.permutation(numbers) for numbers in held])[: max(1, budget_px // (2 * chunk_px**2))]
    others = rng.permutation(np.setdiff1d(np.arange(len(tiles)), order))
    others = others[: max(1, budget_px // chunk_px**2 - len(order))]
    for number in np.sort(np.concatenate([order, others])):
        yield tiles[number]


def _tiles_with_training(
    scene: Scene, index: int, labels: Labels, split: BlockSplit, chunk_px: int, n_tiles: int
) -> list[np.ndarray]:
    """Return, for each class, the numbers of the lattice windows that the bounds of a training polygon touch."""
    import shapely

    grid = scene.grid
    mine = np.flatnonzero((split.part == TRAIN) & (split.scene == index))
    bounds = shapely.bounds(labels.geometries[mine])
    inverse = ~grid.transform
    per_row = -(-grid.shape.cols // chunk_px)
    numbers: list[set[int]] = [set() for _ in labels.class_names]
    for class_id, (left, bottom, right, top) in zip(labels.class_ids[mine], bounds, strict=True):
        corners = [inverse * point for point in ((left, bottom), (left, top), (right, bottom), (right, top))]
        cols = np.clip([c for c, _ in corners], 0, grid.shape.cols - 1).astype(int) // chunk_px
        rows = np.clip([r for _, r in corners], 0, grid.shape.rows - 1).astype(int) // chunk_px
        touched = np.add.outer(np.arange(rows.min(), rows.max() + 1) * per_row, np.arange(cols.min(), cols.max() + 1))
        numbers[class_id - 1].update(n for n in touched.ravel().tolist() if n < n_tiles)
    return [np.array(sorted(found), dtype=np.int64) for found in numbers]


def _in_turns(lists: Sequence[np.ndarray]) -> np.ndarray:
    """Return the numbers of all lists without repeats: the first of each list, then the second of each, and so on."""
    turns = [one[turn] for turn in range(max(map(len, lists), default=0)) for one in lists if turn < len(one)]
    return np.array(list(dict.fromkeys(turns)), dtype=np.int64)


def _read_chunk(
    scene: Scene,
    index: int,
    labels: Labels,
    split: BlockSplit,
    scaling: tuple[np.ndarray, np.ndarray],
    window: Window,
) -> Chunk:
    block = scene.read(window)
    parts = parts_in_window(split, labels, index, scene.grid, window)
    trains = (parts.part == TRAIN) & block.valid
    return Chunk(
        pixels=scale_pixels(block.values, block.valid, *scaling),
        valid=block.valid,
        labels=np.where(trains, parts.classes - 1, -1).astype(np.int16),
        polygon=np.where(trains, parts.polygon, -1).astype(np.int32),
    )


def _at_least(chunk: Chunk, side_px: int) -> Chunk:
    """Return the chunk padded at the bottom and right with invalid pixels to at least `side_px` on a side."""
    shape = chunk.shape
    pad = ((0, max(0, side_px - shape.rows)), (0, max(0, side_px - shape.cols)))
    if not any(after for _, after in pad):
        return chunk
    return Chunk(
        pixels=np.pad(chunk.pixels, ((0, 0), *pad)),
        valid=np.pad(chunk.valid, pad),
        labels=np.pad(chunk.labels, pad, constant_values=-1),
        polygon=np.pad(chunk.polygon, pad, constant_values=-1),
    )


def _anchors_by_polygon(chunks: Sequence[Chunk], class_index: int) -> list[tuple[int, np.ndarray]]:
    """Return, for one class, (polygon index, (k, 3) array of chunk, row, col) for each polygon with training pixels."""
    found: dict[int, list[np.ndarray]] = {}
    for number, chunk in enumerate(chunks):
        rows, cols = np.nonzero(chunk.labels == class_index)
        owner = chunk.polygon[rows, cols]
        for polygon in np.unique(owner):
            at = np.flatnonzero(owner == polygon)
            if len(at) > _MAX_ANCHORS:
                at = at[np.linspace(0, len(at) - 1, _MAX_ANCHORS).astype(int)]
            place = np.stack([np.full(len(at), number), rows[at], cols[at]], axis=1)
            found.setdefault(int(polygon), []).append(place)
    return [(polygon, np.concatenate(places)) for polygon, places in sorted(found.items())]
