"""Tasks that an image sets by itself: to fill a hole, to tell how its patches were shuffled."""

from __future__ import annotations

from torch import Tensor

from berunda.losses.masked import cross_entropy_masked
from berunda.losses.rebuild import l2

__all__ = ["inpainting", "jigsaw"]


def inpainting(prediction: Tensor, pixels: Tensor, hole: Tensor, valid: Tensor) -> Tensor:
    """Return the mean squared error over the valid pixels of a hole and all bands.

    Args:
        prediction: (N, B, H, W), made of images with the hole in them.
        pixels: (N, B, H, W), the images as they were.
        hole: (N, H, W) bool, M in the paper.
        valid: (N, H, W) bool.

    Source: Castillo-Navarro 2022, eq. 3.13 (a sum there, a mean over the hole here).
    """
    return l2(prediction, pixels, hole & valid)


def jigsaw(logits: Tensor, order: Tensor, valid: Tensor) -> Tensor:
    """Return the mean cross-entropy of the guesses which permutation each image was shuffled by.

    Args:
        logits: (N, P), one guess an image over the permutations.
        order: (N,) int64, the permutation it was.
        valid: (N, H, W) bool; an image without a valid pixel does not count.

    Source: Castillo-Navarro 2022, section 3.2; Noroozi and Favaro 2016.
    """
    return cross_entropy_masked(logits, order, valid)
