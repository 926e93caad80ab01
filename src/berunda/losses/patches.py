"""How well hidden patches of an image were guessed."""

from __future__ import annotations

import torch
from torch import Tensor

from berunda.losses.masked import masked_mean, real

__all__ = ["normalised_patches", "patch_l1", "with_contrast_of"]

_TINY = 1e-6
"""Added to the variance of a patch (pixels are of about unit range), so that an even one is not blown up."""


def patch_l1(guess: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Return the mean absolute error over the pixels that count, and all bands.

    Args:
        guess: (N, M, B * Q), M patches of Q pixels each, the bands one after the other.
        target: same shape.
        counted: (N, M, Q) bool, which pixels have data.

    Returns:
        Scalar; 0 with zero gradients if no pixel counts.

    Source: Stoimchev et al. 2025 (SSL-MAE); l1 as in Xie et al. 2022 (SimMIM), section 3.4.
    """
    error = (real(guess) - real(target)).abs().unflatten(2, (-1, counted.shape[2]))
    return masked_mean(error, counted[:, :, None])


def normalised_patches(patches: Tensor, counted: Tensor) -> Tensor:
    """Return patches with mean 0 and variance 1 each, over all its bands and the pixels that count; others are 0.

    What is left to guess is structure; brightness and contrast of the patch are not asked for.

    Args:
        patches: (N, M, B * Q).
        counted: (N, M, Q) bool.

    Source: He et al. 2022 (masked autoencoders), section 3, "reconstruction target".
    """
    centred, _, deviation = _centred(patches, counted)
    return (centred / deviation).flatten(2)


def with_contrast_of(patches: Tensor, normalised: Tensor) -> Tensor:
    """Return what `normalised_patches` makes `normalised` of, if it had the means and deviations of `patches`.

    Args:
        patches: (N, M, D), every pixel of which has data.
        normalised: same shape, such as a guess.
    """
    _, mean, deviation = _centred(patches, torch.ones_like(patches, dtype=torch.bool))
    return real(normalised) * deviation[..., 0] + mean[..., 0]


def _centred(patches: Tensor, counted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return patches (N, M, B, Q) less their means, 0 where nothing counts; means and deviations (N, M, 1, 1)."""
    values = real(patches).unflatten(2, (-1, counted.shape[2]))
    weight = counted[:, :, None].to(values.dtype).expand_as(values)
    values = torch.where(weight > 0, values, torch.zeros_like(values))
    count = weight.sum((2, 3), keepdim=True).clamp(min=1)
    mean = values.sum((2, 3), keepdim=True) / count
    centred = (values - mean) * weight
    variance = centred.square().sum((2, 3), keepdim=True) / count
    return centred, mean, (variance + _TINY).sqrt()
