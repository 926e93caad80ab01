"""Images of one size with their labels: what scene classification draws from.

The pixels of a data set are decoded once and lie in the cache as one memory-mapped array; labels and parts are read
anew from the data set each time, which is quick. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from berunda.data.order import Randomness
from berunda.data.scaling import Scaling, scale_pixels
from berunda.errors import DataError
from berunda.models.spec import Task

if TYPE_CHECKING:
    from berunda.progress import Progress

__all__ = [
    "NO_LABEL",
    "PART_NAMES",
    "TEST",
    "TRAIN",
    "UNLABELLED",
    "VALIDATION",
    "ImageSet",
    "ScaledImages",
    "open_images",
]

TRAIN, VALIDATION, TEST, UNLABELLED = range(4)
"""Parts of a data set. Images of TRAIN carry labels (and may be used without them); those of UNLABELLED have none."""

PART_NAMES = ("train", "validation", "test", "unlabelled")

NO_LABEL = -1
"""The class of an image that has none; of several labels the unknown ones are NaN instead."""

_SCALING_PERCENTILES = (1.0, 99.0)
_SCALING_IMAGES = 1024  # images that the scaling is measured on, at most
_SCALING_VALUES = 1 << 20  # and values of each band, about


class ScaledImages(NamedTuple):
    """Images as the nets see them: `pixels` (n, B, H, W) float32, 0 where not `valid` (n, H, W) bool."""

    pixels: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, decoded once. Arrays are read-only, memory-mapped where they come from the cache.

    Attributes:
        name: of the data set ("eurosat") or its folder.
        task: "scene" (one class an image) or "multilabel".
        pixels: (N, B, H, W) uint8, uint16, int16 or float32.
        labels: scene (N,) int64, class 0..C-1, -1 without label; multilabel (N, C) float32, 1 where present, 0 where
            absent, NaN where unknown.
        classes: names of the C classes.
        bands: names of the B bands.
        parts: (N,) int8: TRAIN, VALIDATION, TEST or UNLABELLED.
        names: the image's path within the data set, with "/" between its parts.
        fingerprint: sha256 of pixels' sources, labels, parts and classes: equal for equal content, wherever it lies.
        skipped: broken images that were left out because that was asked for.
        zero_is_missing: whether a pixel that is 0 in all bands is no data (rasters), or black (photographs). Pixels of
            float images that are not finite are no data in any case.
        opening_s: seconds that opening it took, without the decoding of images that were not in the cache yet.
    """

    name: str
    task: Task
    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    bands: tuple[str, ...]
    parts: np.ndarray
    names: tuple[str, ...]
    fingerprint: str
    skipped: tuple[str, ...] = ()
    zero_is_missing: bool = False
    opening_s: float = 0.0

    def __post_init__(self) -> None:
        """Check that the arrays fit each other.

        Raises:
            DataError: they do not; the message names the array.
        """
        n = len(self.names)
        of_labels = (n,) if self.task == "scene" else (n, len(self.classes))
        shapes = {
            "pixels": (self.pixels.shape[:2], (n, len(self.bands))),
            "labels": (self.labels.shape, of_labels),
            "parts": (self.parts.shape, (n,)),
        }
        for what, (found, expected) in shapes.items():
            if found != expected:
                raise DataError(f"data set {self.name}: {what} of shape {found} found, expected {expected}")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of every image."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def of(self, part: int) -> np.ndarray:
        """Return the indices (k,) int64 of the images of a part, ascending."""
        return np.flatnonzero(self.parts == part)

    @cached_property
    def repeats(self) -> tuple[tuple[int, int], ...]:
        """Pairs of another and a test image with the same pixels, bit by bit, each test image once; looked for once.

        The others are those that train, with labels or without, or calibrate.

        It is not a search for similar images: one that was resampled or compressed anew is not found.
        """
        # One row of each image tells nearly all of them apart; only those that agree in it are read whole.
        row = self.size[0] // 2
        others = {int(i): _key_of(self.pixels[i, :, row]) for i in np.flatnonzero(self.parts != TEST)}
        test = {int(i): _key_of(self.pixels[i, :, row]) for i in self.of(TEST)}
        both = set(others.values()) & set(test.values())
        twin = {_key_of(self.pixels[i]): i for i, key in reversed(others.items()) if key in both}
        whole = ((i, _key_of(self.pixels[i])) for i, key in test.items() if key in both)
        return tuple((twin[key], i) for i, key in whole if key in twin)

    def scaling(self) -> Scaling:
        """Return `low` and `high` of every band, each (B,), in the units of the pixels; measured once.

        They are the 1st and 99th percentile over a fixed sample of at most 1024 training and unlabelled images; a
        constant band gets high = low + 1.

        Raises:
            DataError: there is no valid pixel to measure.
        """
        return self._scaling

    @cached_property
    def _scaling(self) -> Scaling:
        pool = np.flatnonzero((self.parts == TRAIN) | (self.parts == UNLABELLED))
        chosen = Randomness(0).numpy("image scaling").permutation(pool)[:_SCALING_IMAGES]
        per_image = max(1, _SCALING_VALUES // max(1, len(chosen)))
        step = max(1, int(np.ceil(np.sqrt(self.pixels[0, 0].size / per_image)))) if len(chosen) else 1
        # The lattice starts elsewhere in each image, so that a border or a watermark does not weigh too much.
        samples = []
        for turn, i in enumerate(np.sort(chosen)):
            pixels = self.pixels[i, :, turn % step :: step, (turn // step) % step :: step]
            samples.append(pixels[:, self._valid(pixels[None])[0]])
        if not any(sample.shape[1] for sample in samples):
            raise DataError(
                f"data set {self.name}: {len(chosen)} training and unlabelled images without a valid pixel found, "
                "expected some to measure the radiometry on; check the images and their parts"
            )
        low, high = np.percentile(np.concatenate(samples, axis=1), _SCALING_PERCENTILES, axis=1).astype(np.float64)
        return Scaling(low, np.where(high > low, high, low + 1.0))

    def scaled(self, index: np.ndarray, scaling: Scaling | None = None) -> np.ndarray:
        """Return images as the nets see them: `low` becomes -1, `high` 1, clipped to -3..3, 0 where there is no data.

        Args:
            index: (n,) indices of images.
            scaling: of the model; the data set's own where None.

        Returns:
            (n, B, H, W) float32, a new array.
        """
        return self.scaled_and_valid(index, scaling).pixels

    def scaled_and_valid(self, index: np.ndarray, scaling: Scaling | None = None) -> ScaledImages:
        """Return what `scaled` returns, and where there is data."""
        low, high = scaling or self.scaling()
        if len(low) != len(self.bands):
            raise DataError(
                f"data set {self.name}: {len(self.bands)} bands found ({', '.join(self.bands)}), the scaling expects "
                f"{len(low)}; use the images the model was trained for"
            )
        chosen = np.asarray(self.pixels[np.asarray(index, np.int64)])
        valid = self._valid(chosen)
        n, n_bands, *size = chosen.shape
        # One call of the function that mapping uses as well, all images' bands in a row: bit for bit the same numbers.
        flat = chosen.reshape(n * n_bands, *size)
        with np.errstate(invalid="ignore"):
            scaled = scale_pixels(flat, np.ones(size, bool), np.tile(low, n), np.tile(high, n)).reshape(chosen.shape)
        if not valid.all():
            scaled *= valid[:, None]
            np.nan_to_num(scaled, copy=False, nan=0.0)
        return ScaledImages(scaled, valid)

    def _valid(self, pixels: np.ndarray) -> np.ndarray:
        """Return (n, H, W) bool: where (n, B, H, W) pixels are data."""
        is_valid = np.ones((len(pixels), *pixels.shape[2:]), bool)
        if self.pixels.dtype.kind == "f":
            is_valid &= np.isfinite(pixels).all(axis=1)
        if self.zero_is_missing:
            is_valid &= (pixels != 0).any(axis=1)
        return is_valid


def _key_of(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


def open_images(
    dataset: str,
    *,
    folder: str | Path | None = None,
    task: Task | None = None,
    skip_broken: bool = False,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Open a data set for classification; the first time its images are decoded into the cache.

    Args:
        dataset: a name of the catalogue ("eurosat", see `berunda.data.catalog.names`), or the path of a folder with one
            sub-directory a class, or of a .csv table.
        folder: where the data set of that name lies; else `BERUNDA_DATA`/<its usual folder>, else the cache.
        task: "scene" or "multilabel", for data sets that serve both; else their first.
        skip_broken: leave broken images out (they are listed in `skipped`) instead of raising.
        cache: folder for decoded images, else `berunda.cache.cache_folder()`.
        progress: told how the decoding goes.

    Raises:
        DataError: the data set is unknown, missing (the message says what to fetch from where into which folder),
            damaged or not uniform.
        SecurityError: an archive or a path was refused.
    """
    from berunda.data.catalog import find
    from berunda.data.decode import decoded

    start = time.perf_counter()
    entry, root = find(dataset, None if folder is None else Path(folder))
    listing = entry.listing(root, task)
    listing_s = time.perf_counter() - start
    place = None if cache is None else Path(cache)
    images = decoded(listing, skip_broken=skip_broken, cache=place, progress=progress)
    return replace(images, opening_s=listing_s + images.opening_s)
