"""How well something rebuilds the pixels of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from berunda.losses.masked import masked_mean, real
from berunda.losses.shared import over_ranks

__all__ = ["l1", "l2", "mumford_shah", "relaxed_kmeans"]

_TINY = 1e-6
"""A cluster of less mass than a millionth of a pixel is empty: its centre is near 0 and rebuilds nothing."""


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
    sums, mass = _moments(x, y, valid)
    rebuilt = _product(sums / mass.clamp(min=_TINY)[:, None], y.flatten(2)).view_as(x)
    # sum_k y (1 - y) over all pixels is the mass of all clusters less the sum of squares: one pass instead of four.
    indecision = _mean_of_sum(mass.sum() - y.square().sum(), valid)
    return masked_mean((x - rebuilt).abs(), valid[:, None]), indecision


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
    n_bands = x.shape[1]
    sums, mass = _moments(torch.cat([x, x.square().sum(dim=1, keepdim=True)], dim=1), y, valid)
    sums, squares = sums[:, :n_bands], sums[:, n_bands]
    centres = sums / mass.clamp(min=_TINY)[:, None]
    # sum_i (x_i - c)^2 y_i multiplied out and summed per cluster, so that no pixel is met once for each cluster.
    fit = squares.sum() - (centres * (2 * sums - centres * mass[:, None])).sum()
    return _mean_of_sum(fit, valid) / n_bands, _variation(y, valid, 2) + _variation(y, valid, 3)


def _variation(y: Tensor, valid: Tensor, axis: int) -> Tensor:
    """Return the mean over valid neighbours along `axis` (2 or 3) of y (N, K, H, W) of sum_k of their difference."""
    n = y.shape[axis] - 1
    both = valid.narrow(axis - 1, 1, n) & valid.narrow(axis - 1, 0, n)
    return _mean_of_sum(_SumOfSteps.apply(y, both, axis), both)


class _SumOfSteps(torch.autograd.Function):
    """The sum of |y_i - y_j| over the pairs of neighbours that count; its gradient is written in half the passes."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, both: Tensor, axis: int) -> Tensor:
        n = y.shape[axis] - 1
        steps = y.narrow(axis, 1, n) - y.narrow(axis, 0, n)
        ctx.axis, ctx.shape = axis, y.shape
        ctx.save_for_backward(steps, both)
        return (steps.abs().sum(dim=1) * both).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        steps, both = ctx.saved_tensors
        n = steps.shape[ctx.axis]
        signs = steps.sign().mul_(both[:, None] * gradients[0])
        gradient = signs.new_zeros(ctx.shape)
        gradient.narrow(ctx.axis, 1, n).add_(signs)
        gradient.narrow(ctx.axis, 0, n).sub_(signs)
        return gradient, None, None


def _inside(values: Tensor, valid: Tensor) -> Tensor:
    """Return `values` (N, K, H, W) in float32 or better and in their usual order, 0 where not valid."""
    return real(values).contiguous().masked_fill(~valid[:, None], 0)


def _moments(x: Tensor, y: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums (N, B, K) of x (N, B, H, W) in each cluster of y (N, K, H, W), and its mass (N, K)."""
    ones = valid[:, None].to(x.dtype)
    sums = _product(torch.cat([x, ones], dim=1).flatten(2), y.flatten(2).transpose(1, 2))
    return sums[:, :-1], sums[:, -1]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix products of a (N, i, j) and b (N, j, k) in their own type, under autocast too.

    Autocast would sum thousands of pixels in bfloat16, and differences of such sums lose all their digits.
    """
    with torch.autocast(a.device.type, enabled=False):
        return torch.bmm(a, b)


def _mean_of_sum(total: Tensor, valid: Tensor) -> Tensor:
    """Return `total`, a sum over the valid pixels at hand, over their number; 0 of none; of all ranks together."""
    total, count = over_ranks(torch.stack([total, valid.sum().to(total.dtype)])).unbind()
    return total / count.clamp(min=1)
