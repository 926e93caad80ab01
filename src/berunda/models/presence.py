"""Several labels an image on a graph of all images: each class by itself is a choice between absent and present.

So all of `berunda.models.propagation` serves here with two classes. A class that all or none of its known labels have
tells nothing about images: its presence is the same everywhere, and nobody should believe it.

Source: Zhou et al. 2004, section 2, with each class against its absence.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit, logit

from berunda.models.propagation import POWER, FloatArray, corrected, nearest, propagate

__all__ = [
    "aligned_presence",
    "corrected_presence",
    "held_presence",
    "inductive_presence",
    "is_told",
    "presence_shares",
    "propagate_presence",
    "trusted_presence",
]

_NONE = -1
_LEAST = 1e-6  # probability that alignment starts from
_FARTHEST, _HALVINGS = 40.0, 30  # logits by which it shifts at most, and how exactly: to 1e-7


def presence_shares(labels: FloatArray) -> FloatArray:
    """Return (C,) the share of images that have each class, (present + 1/2) / (known + 1), of labels (N, C)."""
    counts = (labels == 1).sum(axis=0), (~np.isnan(labels)).sum(axis=0)
    return ((counts[0] + 0.5) / (counts[1] + 1)).astype(np.float32)


def is_told(labels: FloatArray) -> npt.NDArray[np.bool_]:
    """Return (C,) for which classes labels (N, C) know both an image that has it and one that has not."""
    found: npt.NDArray[np.bool_] = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    return found


def propagate_presence(graph: sparse.csr_array, labels: FloatArray, *, alpha: float = 0.9) -> FloatArray:
    """Return the probabilities (N, C) that reach all images from the known labels, each class by itself.

    Args:
        graph: (N, N), see `berunda.models.propagation.knn_graph`.
        labels: (N, C) 1, 0, or NaN where it is not known.
        alpha: how far labels spread, 0 to below 1; by default less far than classes that exclude each other, since
            neighbours share most of several labels and not all.

    Returns:
        Probabilities whose mean over all images is `presence_shares`.
    """
    shares, told = presence_shares(labels), is_told(labels)
    presence = np.broadcast_to(shares, labels.shape).copy()
    for c in np.flatnonzero(told):
        presence[:, c] = propagate(graph, _as_classes(labels[:, c]), 2, alpha=alpha)[:, 1]
    return aligned_presence(presence, shares)


def corrected_presence(
    graph: sparse.csr_array, presence: FloatArray, labels: FloatArray, *, alpha: float = 0.9
) -> FloatArray:
    """Return a classifier's probabilities (N, C) smoothed over the graph, with the known labels (N, C) held fast.

    See `berunda.models.propagation.corrected`, which does it for each class with a label of both kinds; others stay.
    """
    found = presence.copy()
    for c in np.flatnonzero(is_told(labels)):
        found[:, c] = corrected(graph, _two_sided(presence[:, c]), _as_classes(labels[:, c]), alpha=alpha)[:, 1]
    return found


def aligned_presence(presence: FloatArray, shares: FloatArray) -> FloatArray:
    """Return probabilities (N, C) of the same order, whose mean over all images is `shares` (C,).

    The odds of each class are multiplied by a number, which is found by halving.

    Args:
        presence: (N, C), 0 to 1.
        shares: (C,), within 0 to 1.
    """
    logits = logit(np.clip(presence.astype(np.float64), _LEAST, 1 - _LEAST))
    low, high = np.full(len(shares), -_FARTHEST), np.full(len(shares), _FARTHEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_low = expit(logits + middle).mean(axis=0) < shares
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    found: FloatArray = expit(logits + low).astype(np.float32)
    return found


def held_presence(presence: FloatArray, labels: FloatArray) -> FloatArray:
    """Return probabilities (N, C) in which known labels (N, C) are what they are."""
    return np.where(np.isnan(labels), presence, labels).astype(np.float32)


def trusted_presence(presence: FloatArray, shares: FloatArray, share: float) -> npt.NDArray[np.bool_]:
    """Return (N, C) which labels to believe: of each class the images most likely to have it, and to lack it.

    Args:
        presence: (N, C) probabilities; their order within a class decides, not how large they are.
        shares: (C,) of the images that should have each class.
        share: 0 to 1, of as many images as should have the class, and as should lack it.
    """
    n = len(presence)
    order = np.argsort(-presence, axis=0, kind="stable")
    believed = np.zeros(presence.shape, bool)
    for c, due in enumerate(shares.astype(float)):
        believed[order[: _rounded_up(share * due * n), c], c] = True
        believed[order[n - _rounded_up(share * (1 - due) * n) :, c], c] = True
    return believed


def inductive_presence(queries: FloatArray, points: FloatArray, presence: FloatArray, k: int = 15) -> FloatArray:
    """Return the probabilities (M, C) of images that are not in the graph: the mean of their k nearest, by cosine ** 3.

    Args:
        queries: (M, d) of length 1, by the projection that made `points`.
        points: (N, d) of the graph.
        presence: (N, C) of the images in it.
        k: neighbours that are asked.
    """
    index, cosine = nearest(queries, points, k)
    weights = np.maximum(cosine, 1e-4) ** POWER
    total = np.einsum("mk,mkc->mc", weights, presence[index])
    return (total / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _two_sided(presence: FloatArray) -> FloatArray:
    """Return the distributions (N, 2) of absent and present of probabilities (N,)."""
    return np.stack([1 - presence, presence], axis=1).astype(np.float32)


def _as_classes(labels: FloatArray) -> npt.NDArray[np.int64]:
    """Return labels (N,) as classes: 0 absent, 1 present, -1 not known."""
    return np.where(np.isnan(labels), _NONE, labels).astype(np.int64)


def _rounded_up(number: float) -> int:
    return math.ceil(round(number, 4))  # 15.0000004 of float32 shares are 15
