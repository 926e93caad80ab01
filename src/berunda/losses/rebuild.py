"""How well something rebuilds the pixels of an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from berunda.losses.masked import masked_mean, real

__all__ = ["l1", "l2", "mumford_shah", "relaxed_kmeans", "relaxed_kmeans_loss"]


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
    x, y = _inside(pixels, valid), _inside(assignment, valid)
    centres = _centres(x, y)
    reconstruction = masked_mean((x - torch.einsum("nbk,nkhw->nbhw", centres, y)).abs(), valid[:, None])
    indecision = masked_mean((y * (1 - y)).sum(dim=1), valid)
    return reconstruction, indecision


def relaxed_kmeans_loss(pixels: Tensor, logits: Tensor, valid: Tensor, regularisation: float = 1.0) -> Tensor:
    """Return reconstruction + regularisation * indecision of `relaxed_kmeans` for softmax(logits)."""
    reconstruction, indecision = relaxed_kmeans(pixels, F.softmax(real(logits), dim=1), valid)
    return reconstruction + regularisation * indecision


def mumford_shah(pixels: Tensor, assignment: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far pixels are from the means of their soft regions, and how long the regions' borders are.

    Args:
        pixels: (N, B, H, W).
        assignment: (N, K, H, W), each pixel's distribution over the regions.
        valid: (N, H, W) bool.

    Returns:
        fit: mean over valid pixels and bands of sum_k (x - c_k)^2 y^k, with the centres c_k of `relaxed_kmeans`.
        length: sum over both directions of the mean over neighbouring valid pixels of sum_k |y_i^k - y_j^k|, the
            anisotropic total variation of the regions (not of the image); 0 where there are no neighbours.

    Source: Castillo-Navarro 2022, eq. 3.12.
    Deviations: means over pixels and over pairs of neighbours instead of sums, so that the weight does not depend on
        the size of the crop.
    """
    x, y = _inside(pixels, valid), _inside(assignment, valid)
    centres = _centres(x, y)
    rebuilt = torch.einsum("nbk,nkhw->nbhw", centres, y)
    # sum_k (x - c_k)^2 y_k multiplied out, so that nothing of the size (N, B, K, H, W) is made.
    offset = torch.einsum("nk,nkhw->nhw", centres.square().sum(dim=1), y)
    fits = x.square().sum(dim=1) * y.sum(dim=1) - 2 * (x * rebuilt).sum(dim=1) + offset
    length = sum(
        masked_mean(y.diff(dim=axis).abs().sum(dim=1), valid.narrow(axis - 1, 1, n - 1) & valid.narrow(axis - 1, 0, n - 1))
        for axis, n in ((2, y.shape[2]), (3, y.shape[3]))
    )
    return masked_mean(fits, valid) / x.shape[1], torch.as_tensor(length)


def _inside(values: Tensor, valid: Tensor) -> Tensor:
    """Return `values` (N, K, H, W) in float32 or better, 0 where not valid, whatever stood there."""
    values = real(values)
    return torch.where(valid[:, None], values, torch.zeros_like(values))


def _centres(x: Tensor, y: Tensor) -> Tensor:
    """Return (N, B, K): the mean of x (N, B, H, W) in each cluster of y (N, K, H, W), 0 of an empty one."""
    mass = y.sum(dim=(2, 3)).clamp(min=1e-6)
    return torch.einsum("nbhw,nkhw->nbk", x, y) / mass[:, None]
