"""Log-densities of latent variables and pixels, and the evidence lower bound."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from berunda.losses.masked import real
from berunda.losses.shared import over_ranks

__all__ = ["bernoulli_log", "gaussian_log", "kl_to_normal", "per_pixel"]


def gaussian_log(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log-density of `x` (N, K, ...) under independent normals, summed over dimension 1.

    Args:
        x: values.
        mean: same shape.
        log_scale: logarithm of the standard deviation, same shape or one that broadcasts to it.
    """
    x, mean, log_scale = real(x), real(mean), real(log_scale)
    apart = (x - mean) * torch.exp(-log_scale)
    return -(apart.square() / 2 + log_scale + math.log(2 * math.pi) / 2).sum(dim=1)


def bernoulli_log(bits: Tensor, logits: Tensor) -> Tensor:
    """Return the log-probability of `bits` (N, K, ...), 0 or 1, summed over dimension 1."""
    return -F.binary_cross_entropy_with_logits(real(logits), real(bits), reduction="none").sum(dim=1)


def kl_to_normal(mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_scale)^2) || N(0, 1)) of (N, K), summed over dimension 1.

    Source: Kingma and Welling 2014 (auto-encoding variational Bayes), appendix B.
    """
    mean, log_scale = real(mean), real(log_scale)
    return (mean.square() / 2 + torch.expm1(2 * log_scale) / 2 - log_scale).sum(dim=1)


def per_pixel(values: Tensor, valid: Tensor) -> Tensor:
    """Return the sum of `values` (N, ...) over the number of valid pixels, 0 if there are none.

    Args:
        values: (N,), or maps (N, h, w) at any resolution, of which the positions that hold a valid pixel count.
        valid: (N, H, W) bool; an image without any counts nowhere.

    Returns:
        Scalar, of all ranks together.
    """
    seen = valid.flatten(1).any(dim=1)
    if values.ndim == 3:
        seen = valid
        if values.shape[1:] != valid.shape[1:]:
            size = (values.shape[1], values.shape[2])
            seen = F.adaptive_max_pool2d(valid[:, None].to(values.dtype), size)[:, 0] > 0
    total = torch.where(seen, values, torch.zeros_like(values)).sum()
    total, count = over_ranks(torch.stack([total, valid.sum().to(total.dtype)])).unbind()
    return total / count.clamp(min=1)
