"""Which images to label next: those that add most to what is covered, and of which a model is unsure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from berunda.assess.embedding import nearest_distances
from berunda.errors import DataError

__all__ = ["Ranked", "rank_next"]


@dataclass(frozen=True)
class Ranked:
    """Images in the order in which to label them.

    Attributes:
        index: (n,) indices of the images.
        distance: (n,) from each to the nearest labelled or earlier image, when its turn came.
        score: (n,) what decided: the distance, weighted by the uncertainty where there is one.
        largest_left: (n,) the largest distance of any candidate to a covered image after each one is labelled.
    """

    index: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    largest_left: npt.NDArray[np.float64]


def rank_next(
    components: np.ndarray,
    labelled: np.ndarray,
    candidates: np.ndarray,
    n: int,
    *,
    uncertainty: np.ndarray | None = None,
    weight: float = 0.5,
) -> Ranked:
    """Rank candidates greedily: the next one is the one furthest from all that is labelled or ranked before it.

    Without uncertainty this is the farthest-first traversal, whose largest remaining distance is at most twice that of
    the best possible choice. Without labelled images the first one is that nearest to the mean of the candidates.

    Args:
        components: (N, d) of all images.
        labelled: indices of images that have labels.
        candidates: indices of images that could be labelled.
        n: how many to rank; fewer where there are fewer candidates.
        uncertainty: (N,) 0..1 of a model about each image; None without a model. Images of which it is NaN, as the
            model could not be asked, are ranked after all others, and count as if the model were sure.
        weight: 0..1, how much the uncertainty counts: the score is distance * (1 - weight + weight * uncertainty).

    Raises:
        DataError: there is no candidate.

    Source: Gonzalez 1985; for labelling Sener and Savarese 2018 (core-set).
    """
    if not len(candidates):
        raise DataError("no unlabelled image to choose from found, expected some; give sites the role unlabelled")
    points = np.asarray(components, np.float64)[candidates]
    factor, is_known = np.ones(len(candidates)), np.ones(len(candidates), bool)
    if uncertainty is not None:
        unsure = np.asarray(uncertainty, np.float64)[candidates]
        factor, is_known = 1 - weight + weight * np.nan_to_num(unsure, nan=0.0), np.isfinite(unsure)
    if len(labelled):
        left = nearest_distances(
            np.asarray(components, np.float32)[candidates], np.asarray(components, np.float32)[labelled], 1
        )[1][:, 0].astype(np.float64)
    else:
        left = np.full(len(candidates), np.inf)
    chosen: list[int] = []
    rows: list[tuple[float, float, float]] = []
    is_open = np.ones(len(candidates), bool)
    for _ in range(min(n, len(candidates))):
        pick = _next(points, left, factor, is_open & is_known if (is_open & is_known).any() else is_open)
        is_open[pick] = False
        distance = float(left[pick])
        left = np.minimum(left, np.sqrt(((points - points[pick]) ** 2).sum(axis=1)))
        chosen.append(pick)
        rows.append((distance, distance * float(factor[pick]), float(left.max())))
    table = np.array(rows)
    return Ranked(np.asarray(candidates, np.int64)[chosen], table[:, 0], table[:, 1], table[:, 2])


def _next(points: np.ndarray, left: np.ndarray, factor: np.ndarray, is_open: np.ndarray) -> int:
    """Return the position of the open candidate of the highest score; the first of equal ones."""
    if not np.isfinite(left).all():
        squares = ((points - points.mean(axis=0)) ** 2).sum(axis=1)
        return int(np.argmin(np.where(is_open, squares, np.inf)))
    return int(np.argmax(np.where(is_open, left * factor, -1.0)))
