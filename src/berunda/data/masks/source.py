"""Training crops from images with masks: class-balanced labelled ones, and unlabelled ones from anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from berunda.data.masks.images import MaskSet, labels_of
from berunda.data.order import Randomness
from berunda.data.scaling import Scaling
from berunda.data.source import RawImages
from berunda.errors import DataError
from berunda.geo.grid import Window

__all__ = ["MaskSource"]

_MAX_ANCHORS = 4096  # pixels remembered of one class in one image
_LOOKED_AT = 1 << 22  # pixels of an image among which they are looked for
_TRIES = 8


class MaskSource:
    """Draws crops; each draw is a pure function of the random keys.

    Labelled crops: a class at random, one of the labelled images that show it at random, one of its pixels at random,
    and a crop that holds this pixel at a random place. So a rare class is seen as often as the others. Unlabelled
    crops: anywhere in the images, in proportion to their area, at least half valid where that can be had. Images
    smaller than a crop are surrounded by pixels that are not valid.

    Args:
        masks: the data set.
        labelled_index: (k,) indices of the images whose masks are used.
        unlabelled_index: (m,) indices of the images that are shown without masks; may be empty, and may hold labelled
            ones.
        scaling: low and high of every band.
        crop_px: side of a crop in pixels.

    Raises:
        DataError: no labelled image, one without a mask, or none with a labelled pixel.
    """

    def __init__(
        self,
        masks: MaskSet,
        labelled_index: Sequence[int] | np.ndarray,
        unlabelled_index: Sequence[int] | np.ndarray,
        scaling: Scaling,
        crop_px: int,
    ) -> None:
        self.masks, self.scaling, self.crop_px = masks, scaling, crop_px
        self.labelled_index = np.asarray(labelled_index, np.int64)
        self.unlabelled_index = np.asarray(unlabelled_index, np.int64)
        without = [masks.names[i] for i in self.labelled_index if not masks.has_mask[i]]
        if without:
            raise DataError(f"data set {masks.name}: image {without[0]!r} has no mask, but is to be used with one")
        by_class = [self._anchors(number) for number in range(len(masks.classes))]
        self.anchors = tuple(found for found in by_class if found)
        if not self.anchors:
            raise DataError(
                f"data set {masks.name}: no labelled pixel found in {len(self.labelled_index)} labelled images, "
                "expected some; check the masks and which values the schema ignores"
            )
        areas = masks.sizes[self.unlabelled_index].prod(axis=1).astype(np.float64)
        self._area_edges = np.cumsum(areas) / max(1.0, areas.sum())
        self._starts = np.concatenate([[0], np.cumsum(masks.sizes.prod(axis=1))])

    @property
    def has_unlabelled(self) -> bool:
        """Whether there are images to draw without labels."""
        return len(self.unlabelled_index) > 0

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` crops around labelled pixels."""
        draw = rng.numpy("labelled")
        return self._gather([self._labelled_crop(draw) for _ in range(n)], with_labels=True)

    def unlabelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` crops from anywhere, without labels.

        Raises:
            DataError: there are no images to draw from.
        """
        if not self.has_unlabelled:
            raise DataError(
                f"data set {self.masks.name}: 0 unlabelled images found, but the method needs some; add images, use "
                "fewer of the labels, or choose the method supervised"
            )
        draw = rng.numpy("unlabelled")
        return self._gather([self._unlabelled_crop(draw) for _ in range(n)], with_labels=False)

    def _anchors(self, number: int) -> list[tuple[int, np.ndarray]]:
        """Return, for one class, (image, (k, 2) rows and columns) of each labelled image that shows it."""
        found = []
        for index in self.labelled_index:
            if not self.masks.class_counts[index, number]:
                continue
            codes = self.masks.codes(int(index))
            step = max(1, int(np.ceil(np.sqrt(codes.size / _LOOKED_AT))))
            places = np.argwhere(codes[::step, ::step] == number) * step
            if not len(places):  # only between the pixels that were looked at
                places = np.argwhere(codes == number)
            if len(places) > _MAX_ANCHORS:
                places = places[np.linspace(0, len(places) - 1, _MAX_ANCHORS).astype(np.int64)]
            found.append((int(index), places.astype(np.int32)))
        return found

    def _labelled_crop(self, draw: np.random.Generator) -> tuple[int, int, int]:
        images = self.anchors[draw.integers(len(self.anchors))]
        index, places = images[draw.integers(len(images))]
        row, col = places[draw.integers(len(places))]
        offset_row, offset_col = draw.integers(self.crop_px, size=2)
        return index, *self._inside(index, int(row) - int(offset_row), int(col) - int(offset_col))

    def _unlabelled_crop(self, draw: np.random.Generator) -> tuple[int, int, int]:
        pick = (0, 0, 0)
        for _ in range(_TRIES):
            place = min(int(np.searchsorted(self._area_edges, draw.random(), side="right")), len(self._area_edges) - 1)
            index = int(self.unlabelled_index[place])
            rows, cols = self.masks.sizes[index]
            top, left = (int(draw.integers(max(1, side - self.crop_px + 1))) for side in (rows, cols))
            pick = (index, top, left)
            _, valid, _ = self.masks.crop(index, self._window(top, left), self.scaling)
            if valid.mean() >= 0.5:
                break
        return pick

    def _inside(self, index: int, top: int, left: int) -> tuple[int, int]:
        """Return the corner moved so that the crop lies within the image where it fits."""
        rows, cols = (int(side) for side in self.masks.sizes[index])
        return min(max(top, 0), max(0, rows - self.crop_px)), min(max(left, 0), max(0, cols - self.crop_px))

    def _window(self, top: int, left: int) -> Window:
        return Window(top, left, self.crop_px, self.crop_px)

    def _gather(self, picks: Sequence[tuple[int, int, int]], *, with_labels: bool) -> RawImages:
        cut = [self.masks.crop(index, self._window(top, left), self.scaling) for index, top, left in picks]
        places = [int(self._starts[i]) + top * int(self.masks.sizes[i, 1]) + left for i, top, left in picks]
        labels = np.stack([labels_of(codes) for _, _, codes in cut]) if with_labels else None
        return RawImages(
            pixels=torch.from_numpy(np.stack([pixels for pixels, _, _ in cut])),
            valid=torch.from_numpy(np.stack([valid for _, valid, _ in cut])),
            labels=None if labels is None else torch.from_numpy(labels),
            index=torch.tensor(places, dtype=torch.int64),
        )
