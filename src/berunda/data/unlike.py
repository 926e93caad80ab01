"""Images unlike those of a training: classes that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from berunda.data.images import NO_LABEL, TEST, ImageSet
from berunda.errors import DataError

__all__ = ["HELD_OUT", "held_out_images", "without_classes"]

HELD_OUT = "held-out classes"
"""What the images of classes that no training saw are called."""


def without_classes(images: ImageSet, held_out: Sequence[str]) -> ImageSet:
    """Return the data set as if the held-out classes did not exist; its fingerprint says so.

    Raises:
        DataError: a class is not one of the data set's.
    """
    if not held_out:
        return images
    lost = set(_numbers(images, held_out))
    kept = [number for number in range(len(images.classes)) if number not in lost]
    number_of = np.full(len(images.classes) + 1, NO_LABEL, np.int64)
    number_of[kept] = np.arange(len(kept))
    chosen = _chosen(images, np.flatnonzero(np.isin(images.labels, [NO_LABEL, *kept])))
    return replace(
        chosen,
        labels=number_of[chosen.labels],
        classes=tuple(images.classes[number] for number in kept),
        fingerprint=f"{images.fingerprint} without {tuple(held_out)}",
    )


def held_out_images(images: ImageSet, held_out: Sequence[str]) -> ImageSet:
    """Return the test images of the held-out classes.

    Raises:
        DataError: a class is not one of the data set's.
    """
    is_held = np.isin(images.labels, _numbers(images, held_out))
    return _chosen(images, np.flatnonzero((images.parts == TEST) & is_held))


def _numbers(images: ImageSet, held_out: Sequence[str]) -> list[int]:
    strange = [name for name in held_out if name not in images.classes]
    if strange:
        raise DataError(f"class {strange[0]!r} to hold out: expected one of {', '.join(images.classes)}")
    return [images.classes.index(name) for name in held_out]


def _chosen(images: ImageSet, index: np.ndarray) -> ImageSet:
    return replace(
        images,
        pixels=images.pixels[index],
        labels=images.labels[index],
        parts=images.parts[index],
        names=tuple(images.names[i] for i in index),
    )
