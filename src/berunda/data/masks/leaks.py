"""What makes test images easier than new ones: copies of training images, and neighbours of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from berunda.data.images import TEST, TRAIN, UNLABELLED, VALIDATION
from berunda.data.masks.images import MaskSet

__all__ = ["copied_test_images", "leaks"]

_LOOKED_AT = 64  # rows and columns of an image that are compared first
_N_NAMED = 3


def leaks(masks: MaskSet) -> Iterator[str]:
    """Yield in words what of the training can be seen in the test: equal images, and sites that lie on both sides."""
    copies = copied_test_images(masks)
    if copies:
        named = ", ".join(masks.names[i] for i in copies[:_N_NAMED])
        yield (
            f"{len(copies)} of {len(masks.of(TEST))} test images have the very pixels of an image that trains or "
            f"validates ({named}): their figures say nothing of new images; remove one of each"
        )
    tests = {masks.sites[i] for i in masks.of(TEST, labelled=True)} - {""}
    both = sorted(tests & {masks.sites[i] for i in masks.of(TRAIN, labelled=True)})
    if both:
        yield (
            f"{len(both)} of {len(tests)} test sites also train ({', '.join(both[:_N_NAMED])}): images of one site are "
            "neighbours, so figures are of known sites and flatter those of new ones"
        )


def copied_test_images(masks: MaskSet) -> list[int]:
    """Return the test images that equal an image of another part pixel by pixel.

    Images of equal size are compared by some thousand pixels first, and by all where those agree.
    """
    first: dict[bytes, list[int]] = {}
    for part in (TRAIN, VALIDATION, UNLABELLED):
        for index in masks.of(part):
            first.setdefault(_digest(masks, int(index)), []).append(int(index))
    return [
        int(index)
        for index in masks.of(TEST)
        if any(np.array_equal(masks.pixels(int(index)), masks.pixels(i)) for i in first.get(_digest(masks, index), ()))
    ]


def _digest(masks: MaskSet, index: int) -> bytes:
    """Return a digest of an image's size and of some of its pixels, spread over it."""
    rows, cols = (np.linspace(0, side - 1, min(side, _LOOKED_AT)).astype(np.int64) for side in masks.sizes[index])
    pixels = np.ascontiguousarray(masks.pixels(index)[:, rows][:, :, cols])
    return hashlib.sha256(repr(masks.sizes[index].tolist()).encode() + pixels.tobytes()).digest()
