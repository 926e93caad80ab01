"""Losses on labels and soft targets, each the mean over the positions that a mask counts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from berunda.losses.shared import over_ranks

__all__ = [
    "IGNORE",
    "balanced_cross_entropy_masked",
    "balancing_weights",
    "binary_cross_entropy_masked",
    "cross_entropy_masked",
    "is_labelled",
    "kl_divergence_masked",
    "masked_mean",
    "ramp_up",
    "real",
    "smooth_masked",
    "soft_cross_entropy_masked",
    "supervised_loss",
]

IGNORE = -1
"""The label of a position that carries none."""


def real(x: Tensor) -> Tensor:
    """Return `x` in float32, or float64 if it is that already."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `values` where `mask` counts, 0 if nothing does.

    Args:
        values: any shape, real.
        mask: bool or weights of at least 0, of the same shape or one that broadcasts to it.

    Returns:
        Scalar: sum(mask * values) / sum(mask); values where the mask is 0 may be anything, NaN included. Several
        ranks that share a batch add up both sums: each gets the mean over the whole batch.
    """
    values = real(values)
    weight = mask.to(values.dtype).expand_as(values)
    total = torch.where(weight > 0, values, torch.zeros_like(values)).mul(weight).sum()
    total, count = over_ranks(torch.stack([total, weight.sum()])).unbind()
    return total / torch.where(count > 0, count, torch.ones_like(count))


def is_labelled(labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return which positions carry a label and lie on valid pixels, in the shape of `labels` (bool).

    Args:
        labels: integers with -1 for none, (N, ...), or reals with NaN for none, (N, C).
        valid: (N, H, W) bool; for labels of whole images, a single valid pixel is enough. None counts all.
    """
    known = ~torch.isnan(labels) if labels.is_floating_point() else labels != IGNORE
    if valid is None:
        return known
    if valid.shape == labels.shape:
        return known & valid
    seen = valid.flatten(1).any(dim=1)
    return known & seen.view(-1, *[1] * (labels.ndim - 1))


def cross_entropy_masked(logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over labelled, valid positions.

    Args:
        logits: (N, C) or (N, C, H, W).
        labels: (N,) or (N, H, W) int64, 0 to C - 1, or -1 for none.
        valid: (N, H, W) bool, or None.

    Returns:
        Scalar; 0 with zero gradients if no position is labelled.
    """
    losses = F.cross_entropy(real(logits), labels, ignore_index=IGNORE, reduction="none")
    return masked_mean(losses, is_labelled(labels, valid))


def balanced_cross_entropy_masked(logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean over the classes present of each class's mean cross-entropy.

    With a few polygons the number of labelled pixels of a class says how large its polygons are, not how much the
    class matters; here a class counts once, however many of its pixels a batch holds.

    Args:
        logits: (N, C) or (N, C, H, W).
        labels: (N,) or (N, H, W) int64, 0 to C - 1, or -1 for none.
        valid: (N, H, W) bool, or None.

    Returns:
        Scalar; 0 with zero gradients if no position is labelled.
    """
    logits = real(logits)
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    return masked_mean(losses, balancing_weights(labels, is_labelled(labels, valid), logits))


def balancing_weights(labels: Tensor, known: Tensor, logits: Tensor) -> Tensor:
    """Return the weight of each position, in the shape of `labels`, with which every class of a batch counts once.

    Args:
        labels: (N, ...) int64, 0 to C - 1 where known.
        known: (N, ...) bool, which positions count; the others have the weight 0.
        logits: (N, C, ...), for the number of classes and the type.

    Returns:
        1 / the number of known positions of the same class, on all ranks.
    """
    n_classes = logits.shape[1]
    index = torch.where(known, labels, n_classes)
    ones = logits.new_ones(labels.shape).flatten()
    counts = over_ranks(logits.new_zeros(n_classes + 1).index_add(0, index.flatten(), ones))
    return torch.where(known, 1 / counts.clamp(min=1)[index], 0.0)


def binary_cross_entropy_masked(logits: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean binary cross-entropy over known targets.

    Args:
        logits: (N, C).
        targets: (N, C) real in 0..1, NaN where unknown.
        valid: (N, H, W) bool, or None; an image without a valid pixel does not count.
    """
    known = is_labelled(targets, valid)
    logits = real(logits)
    filled = torch.where(known, targets, torch.zeros_like(targets)).to(logits.dtype)
    return masked_mean(F.binary_cross_entropy_with_logits(logits, filled, reduction="none"), known)


def supervised_loss(logits: Tensor, labels: Tensor | None, valid: Tensor, *, balance: bool = False) -> Tensor:
    """Return the loss that the labels ask for: real labels are several an image, integers one a position.

    Args:
        logits: (N, C) or (N, C, H, W).
        labels: (N,) or (N, H, W) int64 with -1 for none; (N, C) real with NaN for unknown; None counts as
            no label.
        valid: (N, H, W) bool.
        balance: for integers, let every class of the batch count once, however many positions it has.

    Returns:
        Scalar; 0 with zero gradients if nothing is labelled.
    """
    if labels is None:
        return 0.0 * logits.sum()
    if labels.is_floating_point():
        return binary_cross_entropy_masked(logits, labels, valid)
    loss = balanced_cross_entropy_masked if balance else cross_entropy_masked
    return loss(logits, labels, valid)


def soft_cross_entropy_masked(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of -sum_c target_c log softmax(logits)_c.

    Args:
        logits: (N, C, ...).
        target: same shape, distributions over dimension 1; may carry gradient.
        mask: (N, ...) bool or weights.
    """
    logits = real(logits)
    losses = -(target.to(logits.dtype) * F.log_softmax(logits, dim=1)).sum(dim=1)
    return masked_mean(losses, mask)


def kl_divergence_masked(logits: Tensor, target_logits: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of KL(softmax(target_logits) || softmax(logits)) over (N, C, ...), mask (N, ...)."""
    log_p, log_q = F.log_softmax(real(logits), dim=1), F.log_softmax(real(target_logits), dim=1)
    return masked_mean((log_q.exp() * (log_q - log_p)).sum(dim=1), mask)


def smooth_masked(values: Tensor, valid: Tensor, side_px: int) -> Tensor:
    """Return `values` averaged over their valid neighbours: two passes of a square window (a tent).

    Args:
        values: (N, C, H, W).
        valid: (N, H, W) bool; other positions give and take nothing and come out as 0.
        side_px: side of the window, odd; 1 returns the valid values as they are.
    """
    weight = valid.to(values.dtype).unsqueeze(1)
    smooth = torch.where(weight > 0, values, 0.0)
    if side_px == 1:
        return smooth
    for _ in range(2):
        pooled, share = (F.avg_pool2d(x, side_px, 1, side_px // 2) for x in (smooth, weight))
        smooth = torch.where(weight > 0, pooled / share.clamp(min=1e-6), 0.0)
    return smooth


def ramp_up(progress: float, share: float) -> float:
    """Return exp(-5 (1 - progress / share)^2) until `progress` (0 to 1) reaches `share`, then 1.

    Source: Laine and Aila 2017, section 3.
    """
    if share <= 0 or progress >= share:
        return 1.0
    return math.exp(-5 * (1 - progress / share) ** 2)
