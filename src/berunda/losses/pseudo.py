"""Pseudo-labels: which predictions are believed, and how often each class is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from berunda.losses.masked import IGNORE, is_labelled, masked_mean, real
from berunda.losses.shared import over_ranks

__all__ = [
    "align_distribution",
    "class_counts",
    "class_means",
    "class_shares",
    "fixmatch_loss",
    "flexible_thresholds",
    "join_views",
    "probabilities_of",
    "pseudo_labels",
    "running_distribution",
    "sharpen",
    "used_shares",
]

_TINY = 1e-30
"""A joint probability below it counts as it, so that its logarithm stays finite."""


def probabilities_of(logits: Tensor) -> Tensor:
    """Return softmax(logits) over dimension 1, without gradient, in float32 or better."""
    return F.softmax(real(logits.detach()), dim=1)


def pseudo_labels(probabilities: Tensor, threshold: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return the likeliest class of each position and whether it is sure enough to be believed.

    Args:
        probabilities: (N, C, ...).
        threshold: one number in 0..1, or (C,) with one for each class.

    Returns:
        labels (N, ...) int64 and mask (N, ...) bool: probability at least the (class's) threshold.
    """
    confidence, labels = probabilities.max(dim=1)
    if isinstance(threshold, Tensor) and threshold.ndim == 1:
        return labels, confidence >= threshold[labels]
    return labels, confidence >= threshold


def fixmatch_loss(logits: Tensor, labels: Tensor, sure: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return 1 / n sum_i 1[sure_i] H(label_i, softmax(logits_i)) over the n valid positions, sure or not.

    Args:
        logits: (N, C) or (N, C, H, W) of the strong view.
        labels: (N,) or (N, H, W) int64, the pseudo-labels.
        sure: same shape, bool.
        valid: (N, H, W) bool, or None.

    Source: Sohn et al. 2020 (FixMatch), eq. 4.
    """
    believed = labels.masked_fill(~sure, IGNORE)
    losses = F.cross_entropy(real(logits), believed, ignore_index=IGNORE, reduction="none")
    return masked_mean(losses, is_labelled(labels, valid))


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Return p^(1/T) / sum_c p_c^(1/T) over dimension 1 (T = 0.5 sharpens, 1 leaves as is)."""
    return F.softmax(probabilities.clamp(min=1e-12).log() / temperature, dim=1)


def align_distribution(probabilities: Tensor, target: Tensor, current: Tensor) -> Tensor:
    """Return probabilities * target / current, normalised over dimension 1.

    Args:
        probabilities: (N, C, ...).
        target: (C,) the class distribution that predictions should have on the whole.
        current: (C,) the one that they have (a running mean).

    Source: Berthelot et al. 2020 (ReMixMatch), section 3.1.
    """
    ratio = (target / current.clamp(min=1e-6)).to(probabilities.dtype)
    scaled = probabilities * ratio.view(1, -1, *[1] * (probabilities.ndim - 2))
    return scaled / scaled.sum(dim=1, keepdim=True).clamp(min=1e-12)


def class_means(probabilities: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (C,) of probabilities (N, C, ...) over the positions of `mask`, 0 if there are none."""
    weight = mask.to(probabilities.dtype).unsqueeze(1)
    reduced = [d for d in range(probabilities.ndim) if d != 1]
    total = over_ranks((probabilities * weight).sum(dim=reduced))
    return total / over_ranks(weight.sum()).clamp(min=1)


def class_counts(labels: Tensor, mask: Tensor, n_classes: int) -> Tensor:
    """Return (C,) float32: how many of the `labels` (N, ...) under `mask` (N, ...) are of each class, on all ranks."""
    classes = torch.arange(n_classes, device=labels.device).view(-1, *[1] * labels.ndim)
    return over_ranks(((labels == classes) & mask).flatten(1).sum(dim=1).float())


def class_shares(labels: Tensor, mask: Tensor, n_classes: int) -> Tensor:
    """Return (C,) float32: the share of each class among the `labels` under `mask`; 0 if there are none."""
    counts = class_counts(labels, mask, n_classes)
    return counts / counts.sum().clamp(min=1)


def used_shares(labels: Tensor, sure: Tensor, mask: Tensor, n_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return how much of what lies under `mask` is believed.

    Args:
        labels: (N, ...) int64, the predicted classes.
        sure: (N, ...) bool, which of them are believed.
        mask: (N, ...) bool.
        n_classes: C.

    Returns:
        The share of positions that are sure; that share among the positions predicted to be of each class, (C,); and
        the share of all positions that carry each class as a pseudo-label, (C,), which adds up to the first.
    """
    used, present = class_counts(labels, sure & mask, n_classes), class_counts(labels, mask, n_classes)
    total = present.sum().clamp(min=1)
    return used.sum() / total, used / present.clamp(min=1), used / total


def flexible_thresholds(threshold: float, class_shares: Tensor, undecided: Tensor | float = 0.0) -> Tensor:
    """Return (C,) thresholds: lower for classes that are rarely sure.

    b_c is the share of class c over the largest share; the threshold is multiplied by b_c / (2 - b_c).

    Args:
        threshold: that of the class that is sure most often, 0 to 1.
        class_shares: (C,) how often each class is the confident prediction.
        undecided: in the same unit, how often none is; where it is the largest, it takes the place of the largest
            share, so that all thresholds rise with what is decided.

    Source: Zhang et al. 2021 (FlexMatch), eq. 6 and 11.
    """
    largest = torch.clamp(class_shares.max(), min=undecided)
    ease = class_shares / largest.clamp(min=1e-12)
    return threshold * ease / (2 - ease)


def running_distribution(old: Tensor, new: Tensor, step: int, decay: float) -> Tensor:
    """Return d * old + (1 - d) * new, d = min(decay, (1 + step) / (10 + step)).

    An all-zero `new` leaves `old` as it is.

    Args:
        old: (C,) the running distribution, whose type the result has.
        new: (C,) that of this batch, zeros where the batch showed nothing.
        step: from 0.
        decay: 0 to 1.
    """
    new = new.detach().to(old.dtype)
    return torch.where(new.sum() > 0, torch.lerp(new, old, min(decay, (1 + step) / (10 + step))), old)


def join_views(context: Tensor, spectrum: Tensor, prior: Tensor, exponent: float) -> Tensor:
    """Return joint logits of two classifiers: log((p + q) / 2) + exponent log(prior), keeping their free energy.

    The mean of the two log-sum-exps is added back, so that the energy of the joint logits still says how alike a
    pixel is to what was trained on.

    Args:
        context: (N, C, ...) logits.
        spectrum: (N, C, ...) logits.
        prior: (C,) class shares, above 0.
        exponent: 0 leaves the classes as they are, 1 multiplies by the prior.
    """
    shares_c, log_sum_c = _shares(context)
    shares_s, log_sum_s = _shares(spectrum)
    weight = prior.clamp(min=1e-6).pow(exponent).to(context.dtype).view(1, -1, *[1] * (context.ndim - 2))
    joint = shares_c.add(shares_s).mul(weight).clamp(min=_TINY)
    free_energy = (log_sum_c + log_sum_s) / 2
    return joint.log() + (free_energy - joint.sum(1, keepdim=True).log())


def _shares(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax and log-sum-exp (kept dimension) of `logits` over dimension 1, with one exponential."""
    top = logits.amax(1, keepdim=True)
    powers = (logits - top).exp()
    total = powers.sum(1, keepdim=True)
    return powers / total, top + total.log()
