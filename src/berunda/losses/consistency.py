"""How far two answers to the same image are apart, and which positions of an image have an answer."""

from __future__ import annotations

from torch import Tensor

from berunda.losses.masked import masked_mean, real

__all__ = ["positions_of", "squared_error_masked"]


def positions_of(valid: Tensor, logits: Tensor) -> Tensor:
    """Return which positions of `logits` lie on data: pixels of a map, or images with a single valid pixel.

    Args:
        valid: (N, H, W) bool.
        logits: (N, C, H, W) or (N, C).

    Returns:
        (N, H, W) or (N,) bool.
    """
    return valid if logits.ndim == 4 else valid.flatten(1).any(dim=1)


def squared_error_masked(probabilities: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over positions and classes of (p - q)^2.

    Args:
        probabilities: (N, C, ...).
        target: same shape; may carry gradient.
        mask: (N, ...) bool or weights.

    Source: Laine and Aila 2017, algorithm 1; Berthelot et al. 2019 (MixMatch), eq. 4.
    """
    return masked_mean((real(probabilities) - real(target)).square(), mask.unsqueeze(1))
