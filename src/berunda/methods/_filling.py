"""Guesses of hidden pixels: a smooth start from what is known, and rounds of drawing the hidden part anew."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from berunda.data.scaling import CLIP

__all__ = ["ROUNDS", "continued", "redrawn"]

ROUNDS = 20
"""Rounds after which the hidden part of an image has forgotten how it began."""


def continued(pixels: Tensor, known: Tensor) -> Tensor:
    """Return `pixels` with what is not known continued smoothly from what is, the farther from it the coarser.

    Args:
        pixels: (N, B, H, W); values that are not known are not looked at.
        known: (N, H, W) bool.

    Returns:
        (N, B, H, W): `pixels` where known; NaN in an image of which nothing is.

    Source: Gortler et al. 1996 (The Lumigraph), pull and push.
    """
    weight = known[:, None].to(pixels.dtype)
    given = torch.where(known[:, None], pixels, 0)
    if pixels.shape[-2:] == (1, 1):
        return given / weight
    share = F.avg_pool2d(weight, 2, ceil_mode=True)
    coarse = F.avg_pool2d(given, 2, ceil_mode=True) / share.clamp(min=1e-6)
    around = F.interpolate(continued(coarse, share[:, 0] > 0), pixels.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(known[:, None], pixels, around)


def redrawn(pixels: Tensor, known: Tensor, rebuild: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `pixels` with what is not known taken from `rebuild` of the image so far, round by round.

    The rounds are a chain whose draws are those of the hidden pixels given the known ones, as far as encoder and
    decoder agree.

    Args:
        pixels: (N, B, H, W); values that are not known are not looked at.
        known: (N, H, W) bool.
        rebuild: from whole images to images drawn from what an encoder finds in them.

    Returns:
        (N, B, H, W): `pixels` where known; NaN in an image of which nothing is.

    Source: Rezende, Mohamed and Wierstra 2014 (imputation of missing data).
    """
    image = continued(pixels, known)
    stays = known[:, None] | image.isnan()
    for _ in range(ROUNDS):
        image = torch.where(stays, image, rebuild(image).clamp(-CLIP, CLIP).to(image.dtype))
    return image
