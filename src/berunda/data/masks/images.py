"""A set of images with masks, of any sizes, decoded once: what segmentation draws from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from berunda.data.images import TRAIN, UNLABELLED
from berunda.data.masks.schema import NO_DATA
from berunda.data.order import Randomness
from berunda.data.scaling import Scaling, scale_pixels
from berunda.errors import DataError

if TYPE_CHECKING:
    from berunda.geo.grid import Window
    from berunda.progress import Progress

__all__ = ["MaskSet", "is_valid", "labels_of", "open_masks"]

_PERCENTILES = (1.0, 99.0)
_N_VALUES = 1 << 20  # values of each band that the scaling is measured on, about
_N_IMAGES = 1024


@dataclass(frozen=True)
class MaskSet:
    """Images with masks. The pixels lie one image behind the other, read-only, memory-mapped from the cache.

    Attributes:
        name: of the data set, or of its folder.
        classes: names of the C classes.
        colors: "#rrggbb" of each class, "" where the data set gives none.
        bands: names of the B bands.
        names: of the N images, with "/".
        parts: (N,) int8: TRAIN, VALIDATION, TEST or UNLABELLED.
        sites: of the images; "" where unknown.
        has_mask: (N,) bool.
        sizes: (N, 2) int64 rows and columns.
        flat_pixels: (B * sum of rows * columns,) uint8, uint16, int16 or float32; each image (B, rows, columns).
        flat_labels: (sum of rows * columns,) uint8: class 0..C-1, 255 without label, 254 without data.
        fingerprint: sha256 of all of it.
        opening_s: seconds that opening it took, without the decoding of images that were not in the cache yet.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[str, ...]
    bands: tuple[str, ...]
    names: tuple[str, ...]
    parts: np.ndarray
    sites: tuple[str, ...]
    has_mask: np.ndarray
    sizes: np.ndarray
    flat_pixels: np.ndarray
    flat_labels: np.ndarray
    fingerprint: str
    opening_s: float = 0.0

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.sizes.prod(axis=1))])

    def pixels(self, index: int) -> np.ndarray:
        """Return the raw pixels (B, rows, columns) of an image, a view."""
        start, stop = (len(self.bands) * int(self._starts[index + i]) for i in (0, 1))
        return self.flat_pixels[start:stop].reshape(len(self.bands), *self.sizes[index])

    def codes(self, index: int) -> np.ndarray:
        """Return class numbers (rows, columns) uint8 of an image, a view: 255 without label, 254 without data."""
        return self.flat_labels[int(self._starts[index]) : int(self._starts[index + 1])].reshape(self.sizes[index])

    def labels(self, index: int) -> np.ndarray:
        """Return class numbers (rows, columns) int64, -1 without label or data."""
        return labels_of(self.codes(index))

    def of(self, part: int, *, labelled: bool = False) -> np.ndarray:
        """Return the indices (k,) of the images of a part; with `labelled` those that have a mask."""
        chosen = self.parts == part
        return np.flatnonzero(chosen & self.has_mask if labelled else chosen)

    @cached_property
    def class_counts(self) -> np.ndarray:
        """(N, C) labelled pixels of each class in each image."""
        counts = [np.bincount(self.codes(i).ravel(), minlength=256)[: len(self.classes)] for i in range(len(self))]
        return np.stack(counts)

    def scaling(self) -> Scaling:
        """Return `low` and `high` of every band, each (B,), in the units of the pixels.

        They are the 1st and 99th percentile over a fixed sample of the training and unlabelled images.

        Raises:
            DataError: there is no valid pixel.
        """
        return self._scaling

    @cached_property
    def _scaling(self) -> Scaling:
        pool = np.flatnonzero((self.parts == TRAIN) | (self.parts == UNLABELLED))
        chosen = np.sort(Randomness(0).numpy("mask scaling").permutation(pool)[:_N_IMAGES])
        samples = []
        for index in chosen:
            step = max(1, int(np.ceil(np.sqrt(self.sizes[index].prod() * len(chosen) / _N_VALUES))))
            pixels, codes = self.pixels(index)[:, ::step, ::step], self.codes(index)[::step, ::step]
            samples.append(pixels[:, is_valid(pixels, codes)].astype(np.float64))
        if not any(sample.shape[1] for sample in samples):
            raise DataError(
                f"data set {self.name}: no valid pixel found in {len(chosen)} training and unlabelled images, expected "
                "some to measure the radiometry on; check the images and their nodata values"
            )
        low, high = np.percentile(np.concatenate(samples, axis=1), _PERCENTILES, axis=1)
        return Scaling(low, np.where(high > low, high, low + 1.0))

    def crop(self, index: int, window: Window, scaling: Scaling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a window of an image as the nets see it; what lies beyond the image is not valid.

        Args:
            index: of the image.
            window: may reach beyond the image.
            scaling: low and high of the bands.

        Returns:
            pixels (B, h, w) float32, 0 where not valid; valid (h, w) bool; codes (h, w) uint8 as `codes` returns.
        """
        rows, cols = (int(side) for side in self.sizes[index])
        codes = np.full((window.n_rows, window.n_cols), NO_DATA, np.uint8)
        raw = np.zeros((len(self.bands), window.n_rows, window.n_cols), self.flat_pixels.dtype)
        top, left = max(window.row, 0), max(window.col, 0)
        stop_row, stop_col = min(window.row_stop, rows), min(window.col_stop, cols)
        if top < stop_row and left < stop_col:
            into = (slice(top - window.row, stop_row - window.row), slice(left - window.col, stop_col - window.col))
            codes[into] = self.codes(index)[top:stop_row, left:stop_col]
            raw[:, into[0], into[1]] = self.pixels(index)[:, top:stop_row, left:stop_col]
        valid = is_valid(raw, codes)
        if raw.dtype.kind == "f":
            raw[:, ~valid] = 0
        return scale_pixels(raw, valid, *scaling), valid, codes

    def class_shares(self, index: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the share (C,) of each class among the labelled pixels of some images."""
        counts = self.class_counts[np.asarray(index, np.int64)].sum(axis=0).astype(np.float64)
        return counts / max(1.0, counts.sum())


def labels_of(codes: np.ndarray) -> np.ndarray:
    """Return int64 class numbers, -1 without label or data, of stored ones."""
    return np.where(codes >= NO_DATA, np.int64(-1), codes.astype(np.int64))


def is_valid(pixels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return (h, w) bool: where pixels (B, h, w) are data."""
    valid = codes != NO_DATA
    return valid & np.isfinite(pixels).all(axis=0) if pixels.dtype.kind == "f" else valid


def open_masks(
    dataset: str,
    *,
    folder: str | Path | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> MaskSet:
    """Open a data set for segmentation; the first time its images and masks are decoded into the cache.

    Args:
        dataset: a name of the catalogue ("dubai", "loveda"), or the path of a folder with images and masks.
        folder: where the data set of that name lies; else `BERUNDA_DATA`/<its usual folder>, else the cache.
        cache: folder for decoded images, else `berunda.cache.cache_folder()`.
        progress: told how the decoding goes.

    Raises:
        ConfigError: the data set has no masks.
        DataError: unknown, missing (the message says what to fetch from where into which folder), damaged, masks of
            another size than their images, values outside the schema.
        SecurityError: an archive or a path was refused.
    """
    from berunda.data.catalog import find
    from berunda.data.masks.decode import decoded_masks

    start = time.perf_counter()
    entry, root = find(dataset, None if folder is None else Path(folder))
    listing = entry.mask_listing(root)
    listing_s = time.perf_counter() - start
    masks = decoded_masks(listing, cache=None if cache is None else Path(cache), progress=progress)
    return replace(masks, opening_s=listing_s + masks.opening_s)
