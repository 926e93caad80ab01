"""Percentile bootstrap over groups of pixels or over images: how far scores would move with other test samples.

Neighbouring pixels are alike, so resampling single pixels would give intervals that are far too narrow. The
unit drawn is a group: a polygon or a spatial block. The intervals describe agreement with polygons like
these; they are not the design-based intervals of a probability sample (see `berunda.assess.area`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.assess.metrics import class_scores, optional
from berunda.data.order import Randomness
from berunda.errors import DataError

__all__ = [
    "Interval",
    "ScoreDifferences",
    "ScoreIntervals",
    "accuracy_difference",
    "bootstrap_interval",
    "paired_bootstrap",
]

WHOLE = ("oa", "miou", "macro_f1")
EACH = ("iou", "precision", "recall", "f1")


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its interval, in the unit of the estimate."""

    estimate: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Tell whether `value` lies outside the interval."""
        return not self.low <= value <= self.high


@dataclass(frozen=True)
class ScoreIntervals:
    """Bootstrap intervals of the scores; None where a score is absent or fewer than two groups support it.

    `unit` names what was resampled ("polygons" or "blocks"), `n_groups` how many there were.
    """

    unit: str
    n_groups: int
    n_draws: int
    level: float
    oa: Interval | None
    miou: Interval | None
    macro_f1: Interval | None
    iou: tuple[Interval | None, ...]
    precision: tuple[Interval | None, ...]
    recall: tuple[Interval | None, ...]
    f1: tuple[Interval | None, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ScoreDifferences:
    """Differences a - b of two methods on the same pixels, paired intervals; None as in `ScoreIntervals`."""

    unit: str
    n_groups: int
    level: float
    oa: Interval | None
    miou: Interval | None
    macro_f1: Interval | None
    iou: tuple[Interval | None, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def bootstrap_interval(
    matrices: npt.ArrayLike,
    *,
    unit: str = "polygons",
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> ScoreIntervals:
    """Estimate percentile intervals of the scores by resampling groups.

    A draw in which a class has no true pixel does not count for that class, and the draw's means are over the
    classes it has. A class whose truth lies in a single group has no interval.

    Args:
        matrices: (G, C, C) counts, one confusion matrix per group (`grouped_confusion`), truth in rows.
        unit: what a group is, in the plural, for the report.
        n_draws: number of bootstrap draws.
        level: share of the draws inside the interval, 0 to 1.
        seed: equal seeds give equal intervals.

    Returns:
        The intervals.

    Raises:
        DataError: `matrices` is not of shape (G, C, C).
    """
    counts = _checked(matrices)
    drawn = class_scores(_resampled(counts, n_draws, seed))
    estimates = class_scores(counts.sum(0))
    whole = {k: _interval(estimates[k], drawn[k], len(counts), level) for k in WHOLE}
    n_support = (counts.sum(2) > 0).sum(0)
    each = {
        k: tuple(_interval(estimates[k][c], drawn[k][:, c], int(n), level) for c, n in enumerate(n_support))
        for k in EACH
    }
    return ScoreIntervals(unit=unit, n_groups=len(counts), n_draws=n_draws, level=level, **whole, **each)  # type: ignore[arg-type]


def paired_bootstrap(
    matrices_a: npt.ArrayLike,
    matrices_b: npt.ArrayLike,
    *,
    unit: str = "polygons",
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> ScoreDifferences:
    """Estimate intervals of the difference a - b between two methods on the same pixels and groups.

    Args:
        matrices_a: (G, C, C) counts of method a, one confusion matrix per group, truth in rows.
        matrices_b: (G, C, C) counts of method b for the same groups in the same order.
        unit: what a group is, in the plural.
        n_draws: number of draws; each draw takes the same groups for both methods.
        level: share of the draws inside the interval, 0 to 1.
        seed: equal seeds give equal intervals.

    Returns:
        Differences with intervals.

    Raises:
        DataError: the groups or their true pixels differ between the methods.
    """
    counts_a, counts_b = _checked(matrices_a), _checked(matrices_b)
    if counts_a.shape != counts_b.shape or not np.array_equal(counts_a.sum(2), counts_b.sum(2)):
        raise DataError(
            f"the two methods were scored on different pixels ({len(counts_a)} and {len(counts_b)} groups); "
            "expected the same groups with the same true pixels; score both on the pixels that both mapped"
        )
    drawn_a = class_scores(_resampled(counts_a, n_draws, seed))
    drawn_b = class_scores(_resampled(counts_b, n_draws, seed))
    all_a, all_b = class_scores(counts_a.sum(0)), class_scores(counts_b.sum(0))
    n = len(counts_a)
    whole = {k: _interval(all_a[k] - all_b[k], drawn_a[k] - drawn_b[k], n, level) for k in WHOLE}
    gap = drawn_a["iou"] - drawn_b["iou"]
    n_support = (counts_a.sum(2) > 0).sum(0)
    iou = tuple(_interval((all_a["iou"] - all_b["iou"])[c], gap[:, c], int(m), level) for c, m in enumerate(n_support))
    return ScoreDifferences(unit=unit, n_groups=n, level=level, iou=iou, **whole)


def accuracy_difference(
    right_a: npt.ArrayLike, right_b: npt.ArrayLike, *, n_draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Estimate the difference in accuracy a - b of two methods on the same images, with a paired interval.

    The images are resampled, the trained models are not: the interval says how far the difference would move with
    other test images. An image counts with the mean over the seeds of each method.

    Args:
        right_a: (S, n) bool, whether the run of each of S seeds of method a is right about each of n images.
        right_b: (T, n) bool of method b, the same images in the same order; T may differ from S.
        n_draws: number of bootstrap draws.
        level: share of the draws inside the interval, 0 to 1.
        seed: equal seeds give equal intervals.

    Returns:
        The difference with its interval; None for fewer than two images.

    Raises:
        DataError: the images differ in number.
    """
    a_SN, b_TN = np.atleast_2d(right_a), np.atleast_2d(right_b)
    if a_SN.shape[1] != b_TN.shape[1]:
        raise DataError(
            f"the two methods were tested on {a_SN.shape[1]} and {b_TN.shape[1]} images, expected the same ones"
        )
    n = a_SN.shape[1]
    if n < 2:
        return None
    # Images with equal differences are interchangeable: draw how many of each value there are, not which.
    values, counts = np.unique(a_SN.mean(0) - b_TN.mean(0), return_counts=True)
    drawn = Randomness(seed).numpy("bootstrap", n).multinomial(n, counts / n, size=n_draws)
    return _interval(values @ counts / n, drawn @ values / n, n, level)


def _checked(matrices: npt.ArrayLike) -> npt.NDArray[np.float64]:
    counts = np.asarray(matrices, dtype=np.float64)
    if counts.ndim != 3 or counts.shape[1] != counts.shape[2]:
        raise DataError(f"group matrices of shape {counts.shape} found, expected (groups, classes, classes)")
    return counts


def _resampled(counts: npt.NDArray[np.float64], n_draws: int, seed: int) -> npt.NDArray[np.float64]:
    """Return (n_draws, C, C): the summed matrices of G groups drawn with replacement, for each draw."""
    n_groups = len(counts)
    if n_groups == 0:
        return np.zeros((n_draws, *counts.shape[1:]))
    rng = Randomness(seed).numpy("bootstrap", n_groups)
    weights = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_draws).astype(np.float64)
    return (weights @ counts.reshape(n_groups, -1)).reshape(n_draws, *counts.shape[1:])


def _interval(estimate: Any, draws: npt.NDArray[np.float64], n_groups: int, level: float) -> Interval | None:
    value = optional(estimate)
    finite = draws[np.isfinite(draws)]
    if value is None or n_groups < 2 or finite.size < 2:
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
