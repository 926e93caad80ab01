"""Several labels an image: class priors, thresholds that match them, and the loss with what is believed.

One threshold for all classes would starve some: of rare ones a net is never 95% sure, of common ones too soon. Each
class has a threshold from which it counts as present and one up to which it counts as absent, set so that as large a
share of the unlabelled images lies beyond them as the labels lead to expect.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from berunda.losses.masked import is_labelled, masked_mean, real
from berunda.losses.shared import over_ranks

__all__ = [
    "N_LOGIT_BINS",
    "believed_presence",
    "class_priors",
    "has_several",
    "logit_shares",
    "presence_counts",
    "presence_loss",
    "prior_thresholds",
]

N_LOGIT_BINS = 256
LARGEST_LOGIT = 12.0
"""Logits are told apart between minus and plus this number; beyond, a probability differs from 0 or 1 by 6e-6."""


def has_several(labels: Tensor | None) -> bool:
    """Say whether labels (N, C) real are several an image, rather than classes."""
    return labels is not None and labels.is_floating_point()


def presence_counts(labels: Tensor, valid: Tensor) -> Tensor:
    """Return (2, C) float32: of how many images each class is known to be present, and known at all, on all ranks.

    Args:
        labels: (N, C) 1, 0 or NaN.
        valid: (N, H, W) bool; an image without a valid pixel does not count.
    """
    known = is_labelled(labels, valid)
    return over_ranks(torch.stack([((labels == 1) & known).sum(0), known.sum(0)]).float())


def class_priors(counts: Tensor) -> Tensor:
    """Return (C,) the share of images that have each class, (present + 1/2) / (known + 1), of `presence_counts`."""
    return (counts[0] + 0.5) / (counts[1] + 1)


def logit_shares(logits: Tensor, mask: Tensor) -> Tensor:
    """Return (C, 256) float32: which share of the logits (N, C) under `mask` (N,) lies in which of even bins."""
    n_classes = logits.shape[1]
    place = (real(logits.detach()) + LARGEST_LOGIT) * (N_LOGIT_BINS / (2 * LARGEST_LOGIT))
    bins = place.nan_to_num(0.0).floor().clamp(0, N_LOGIT_BINS - 1).long()
    index = bins + N_LOGIT_BINS * torch.arange(n_classes, device=logits.device)
    weight = mask.float().unsqueeze(1).expand(index.shape)
    counts = torch.zeros(n_classes * N_LOGIT_BINS, device=logits.device)
    counts = over_ranks(counts.index_add(0, index.flatten(), weight.flatten())).view(n_classes, N_LOGIT_BINS)
    return counts / counts[0].sum().clamp(min=1)


def prior_thresholds(shares: Tensor, priors: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return two logits for each class (C,): from the first on it counts as present, up to the second as absent.

    A share `share` * prior of the predictions lies above the first, `share` * (1 - prior) below the second; within a
    bin predictions count as even.

    Args:
        shares: (C, 256) of `logit_shares`, or a running mean of it.
        priors: (C,) share of images that have each class.
        share: of the presences and absences that are expected, 0 to 1; with 1 both thresholds are the same.

    Source: Xie et al. 2023, "Class-distribution-aware pseudo-labeling for semi-supervised multi-label learning", eq. 5.
    Deviations: quantiles of a running histogram, instead of all unlabelled data at the end of each epoch.
    """
    total = shares.sum(dim=1).clamp(min=1e-12)
    present, absent = share * priors * total, share * (1 - priors) * total
    return -_quantile(shares.flip(1), present), _quantile(shares, absent)


def _quantile(shares: Tensor, wanted: Tensor) -> Tensor:
    """Return (C,) the logits below which `wanted` (C,) of the `shares` (C, 256) lie."""
    width = 2 * LARGEST_LOGIT / N_LOGIT_BINS
    below = F.pad(shares.cumsum(dim=1), (1, 0))
    place = (below[:, 1:] < wanted.unsqueeze(1)).sum(dim=1, keepdim=True).clamp(max=N_LOGIT_BINS - 1)
    inside = (wanted.unsqueeze(1) - below.gather(1, place)) / shares.gather(1, place).clamp(min=1e-12)
    found: Tensor = (place + inside.clamp(0, 1)).squeeze(1) * width - LARGEST_LOGIT
    return found


def believed_presence(logits: Tensor, present: Tensor, absent: Tensor) -> tuple[Tensor, Tensor]:
    """Return pseudo-labels (N, C), 1 or 0, of `logits` (N, C), and which of them are believed, bool.

    Args:
        logits: of the view that is labelled.
        present: (C,) logits above which a class is there.
        absent: (C,) logits below which it is not.
    """
    logits = real(logits.detach())
    is_there = logits > present
    return is_there.to(logits.dtype), is_there | (logits < absent)


def presence_loss(logits: Tensor, labels: Tensor, believed: Tensor, valid: Tensor) -> Tensor:
    """Return 1 / n sum_ic 1[believed_ic] BCE(label_ic, sigmoid(logits_ic)) over the n classes of valid images.

    Every pseudo-label that is believed weighs the same: weighing them by their confidence is worse.

    Args:
        logits: (N, C) of the view that is trained on.
        labels: (N, C) real 0 or 1.
        believed: (N, C) bool.
        valid: (N, H, W) bool.
    """
    logits = real(logits)
    losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return masked_mean(losses * believed, is_labelled(labels, valid))
