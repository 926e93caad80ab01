"""How well something rebuilds the pixels of an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from berunda.losses.masked import masked_mean, real

__all__ = ["l1", "l2", "relaxed_kmeans", "relaxed_kmeans_loss"]


def l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the mean absolute error over valid pixels and all bands; (N, B, H, W), valid (N, H, W).

    Source: Castillo-Navarro 2022, eq. 3.6 (a sum there, a mean here).
    """
    return masked_mean((real(prediction) - real(target)).abs(), valid[:, None])


def l2(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the mean squared error over valid pixels and all bands; (N, B, H, W), valid (N, H, W).

    Source: Castillo-Navarro 2022, eq. 3.7 (a sum there, a mean here).
    """
    return masked_mean((real(prediction) - real(target)).square(), valid[:, None])


def relaxed_kmeans(pixels: Tensor, assignment: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return how well soft clusters of each image explain it, and how undecided they are.

    Args:
        pixels: (N, B, H, W).
        assignment: (N, K, H, W), each pixel's distribution over the clusters.
        valid: (N, H, W) bool.

    Returns:
        reconstruction: mean over valid pixels and bands of |x - x_c|, x_c = sum_k c_k y^k with the centres
            c_k = sum_i x_i y_i^k / sum_i y_i^k of each image; an empty cluster has centre 0.
        indecision: mean over valid pixels of sum_k y^k (1 - y^k), 0 when every pixel has one cluster.

    Source: Castillo-Navarro 2022, eq. 3.8 to 3.11.
    Deviations: means over pixels instead of sums, so that the weight does not depend on the size of the crop.
    """
    pixels, assignment = real(pixels), real(assignment)
    inside = valid[:, None]
    x = torch.where(inside, pixels, torch.zeros_like(pixels)).flatten(2)
    y = torch.where(inside, assignment, torch.zeros_like(assignment)).flatten(2)
    mass = y.sum(dim=2)
    centres = torch.einsum("nbi,nki->nbk", x, y) / mass.clamp(min=1e-6)[:, None]
    rebuilt = torch.einsum("nbk,nki->nbi", centres, y).view_as(pixels)
    reconstruction = masked_mean((x.view_as(pixels) - rebuilt).abs(), inside)
    indecision = masked_mean((assignment * (1 - assignment)).sum(dim=1), valid)
    return reconstruction, indecision


def relaxed_kmeans_loss(pixels: Tensor, logits: Tensor, valid: Tensor, regularisation: float = 1.0) -> Tensor:
    """Return reconstruction + regularisation * indecision of `relaxed_kmeans` for softmax(logits)."""
    reconstruction, indecision = relaxed_kmeans(pixels, F.softmax(real(logits), dim=1), valid)
    return reconstruction + regularisation * indecision
