"""Images brought to the side that a net is trained with: one function for training, prediction and maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from berunda.data.images import ImageSet
from berunda.data.order import Randomness
from berunda.data.source import ListedSource, RawImages
from berunda.errors import DataError

__all__ = ["ResampledSource", "averaged_images", "resample_images"]


def averaged_images(images: ImageSet, side_px: int) -> ImageSet:
    """Return the images at `side_px`, each pixel the mean of those it covers, as a coarser sensor would see them.

    Raises:
        DataError: the side does not divide.
    """
    n, n_bands, rows, cols = images.pixels.shape
    if rows != cols or rows % side_px:
        raise DataError(f"data set {images.name}: {cols} x {rows} px found, expected a multiple of {side_px} px")
    factor = rows // side_px
    blocks = images.pixels.reshape(n, n_bands, side_px, factor, side_px, factor)
    return replace(images, pixels=blocks.mean((3, 5), dtype=np.float32))


def resample_images(pixels: Tensor, side_px: int) -> Tensor:
    """Return images of `side_px` rows and columns: bilinear, over the whole area of a new pixel where they shrink.

    Args:
        pixels: (N, B, H, W) float.
        side_px: at least 1.

    Returns:
        (N, B, side_px, side_px); `pixels` itself where they have that size.
    """
    if pixels.shape[2:] == (side_px, side_px):
        return pixels
    return interpolate(pixels, (side_px, side_px), mode="bilinear", antialias=True, align_corners=False)


class ResampledSource:
    """A source whose images are brought to one side."""

    def __init__(self, source: ListedSource, side_px: int) -> None:
        self._source = source
        self._side_px = side_px

    @property
    def has_unlabelled(self) -> bool:
        """Whether `unlabelled` can be called."""
        return self._source.has_unlabelled

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` labelled images."""
        return self._resampled(self._source.labelled(rng, n))

    def unlabelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` images without labels."""
        return self._resampled(self._source.unlabelled(rng, n))

    def every(self, stream: Literal["labelled", "unlabelled"], n: int) -> Iterator[RawImages]:
        """Yield all images of a stream in their order, `n` at a time."""
        return map(self._resampled, self._source.every(stream, n))

    def twins(self) -> Tensor:
        """Return where each labelled image stands in the unlabelled stream, (k,) int64; -1 where it does not."""
        return self._source.twins()

    def _resampled(self, images: RawImages) -> RawImages:
        side = (self._side_px, self._side_px)
        if images.pixels.shape[2:] == side:
            return images
        valid = interpolate(images.valid[:, None].to(torch.float32), side, mode="nearest-exact")[:, 0] > 0
        pixels = resample_images(images.pixels, self._side_px) * valid[:, None]
        return RawImages(pixels, valid, images.labels, images.index)
