"""What a graph of all images says about each: of classes that exclude each other, or of several labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

from berunda.methods.contract import IGNORE, Step, Surveyed
from berunda.models import presence, propagation
from berunda.models.propagation import FloatArray, IntArray

__all__ = ["Spreading", "graph_points", "known_labels"]

Guessed = tuple[FloatArray, npt.NDArray[np.bool_]]


def known_labels(labelled: Surveyed, n_unlabelled: int) -> np.ndarray:
    """Return the labels of a graph in which each image stands once: the unlabelled ones, then labelled ones apart.

    Args:
        labelled: the labelled images, with labels and twins; those with a twin are among the unlabelled ones.
        n_unlabelled: images of the other stream.

    Returns:
        (N,) int64 with -1 for none, or (N, C) real with NaN for what is not known.
    """
    assert labelled.labels is not None
    assert labelled.twins is not None
    given, twins = labelled.labels.numpy(), labelled.twins.numpy()
    nothing = np.nan if given.ndim == 2 else IGNORE
    known = np.concatenate([np.full((n_unlabelled, *given.shape[1:]), nothing, given.dtype), given[twins < 0]])
    known[twins[twins >= 0]] = given[twins >= 0]
    return known


def graph_points(extra: nn.Module, features: Tensor, n_components: int, step: Step) -> tuple[FloatArray, Tensor]:
    """Return the points (N, d) of the images of a graph, and the new value of the buffer "first".

    Args:
        extra: with "first", the points of the first graph where `is_pretrained`; later points are joined with them.
        features: (N, D) of the net.
        n_components: d at most.
        step: when.
    """
    found = features.numpy()
    points, first = propagation.fit_projection(found, n_components).apply(found), extra.get_buffer("first")
    if step.index > 0:
        return propagation.joined(points, first[: len(points)].cpu().numpy()), first
    if extra.get_buffer("is_pretrained"):
        unused = (0, n_components - points.shape[1], 0, len(first) - len(points))
        first = nn.functional.pad(torch.from_numpy(points), unused)
    return points, first


@dataclass(frozen=True, eq=False)
class Spreading:
    """How labels spread in the first graph of a training, and the net's own answers in later ones.

    Attributes:
        graph: (N, N) of all images.
        n_asked: images to label: the first ones of the graph.
        alpha: how far labels spread, or answers.
        progress: share of the training that is done, by which the classes' shares are what the net finds.
        believed: share of the images to believe.
    """

    graph: sparse.csr_array
    n_asked: int
    alpha: float
    progress: float
    believed: float

    def of_classes(self, known: IntArray, answers: FloatArray | None, n_classes: int) -> Guessed:
        """Return distributions (n, C) and which images are believed (n,).

        Args:
            known: (N,) classes, -1 for none.
            answers: (N, C) distributions of the net; None to spread the labels alone.
            n_classes: C.
        """
        given = known[known >= 0]
        shares = (np.bincount(given, minlength=n_classes) / len(given)).astype(np.float32)
        if answers is None:
            soft = propagation.propagate(self.graph, known, n_classes, alpha=self.alpha)
        else:
            shares = self._moved(shares, answers)
            soft = propagation.corrected(self.graph, propagation.aligned(answers, shares), known, alpha=self.alpha)
        guess = propagation.aligned(soft, shares)
        guess[known >= 0] = np.eye(n_classes, dtype=guess.dtype)[given]
        guess = guess[: self.n_asked]
        return guess, propagation.most_trusted(guess, shares, self.believed)

    def of_labels(self, known: FloatArray, answers: FloatArray | None) -> Guessed:
        """Return probabilities (n, C) and which of them are believed (n, C): what is known, always.

        Args:
            known: (N, C) 1, 0 or NaN.
            answers: (N, C) probabilities of the net; None to spread the labels alone.
        """
        shares = presence.presence_shares(known)
        if answers is None:
            soft = presence.propagate_presence(self.graph, known, alpha=self.alpha)
        else:
            shares = self._moved(shares, answers)
            soft = presence.aligned_presence(answers, shares)
            soft = presence.corrected_presence(self.graph, soft, known, alpha=self.alpha)
        guess = presence.held_presence(presence.aligned_presence(soft, shares), known)[: self.n_asked]
        believed = presence.trusted_presence(guess, shares, self.believed) & presence.is_told(known)
        return guess, believed | ~np.isnan(known[: self.n_asked])

    def _moved(self, shares: FloatArray, answers: FloatArray) -> FloatArray:
        """Return shares between those of the labels and those that the net finds."""
        return (1 - self.progress) * shares + self.progress * answers[: self.n_asked].mean(axis=0)
