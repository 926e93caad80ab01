"""Intervals of the macro AUPRC over test images, from the scores that the figures of a run keep."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.assess.intervals import Interval
from berunda.data.order import Randomness
from berunda.errors import DataError

__all__ = ["auprc_difference", "auprc_interval", "packed_scores", "scores_of"]

FloatArray = npt.NDArray[np.float64]
_N_DRAWS = 1000


def packed_scores(logits: FloatArray, labels: FloatArray) -> str:
    """Return logits and labels (n, C) of test images as text, for `scores_of`."""
    kept = logits.clip(-6e4, 6e4).astype("<f2").tobytes() + np.nan_to_num(labels, nan=2.0).astype(np.int8).tobytes()
    return base64.b64encode(zlib.compress(kept, 9)).decode()


def scores_of(figures: dict[str, Any]) -> tuple[FloatArray, FloatArray]:
    """Return the logits (to three digits) and labels (n, C) of the test images.

    Args:
        figures: of `berunda.assess.multilabel.label_figures`.

    Raises:
        DataError: the figures do not hold them.
    """
    try:
        n, n_classes = int(figures["n_test"]), len(figures["auprc"])
        unpacker = zlib.decompressobj()
        kept = unpacker.decompress(base64.b64decode(figures["scores"], validate=True), 3 * n * n_classes + 1)
        logits = np.frombuffer(kept[: 2 * n * n_classes], "<f2").reshape(n, n_classes).astype(np.float64)
        labels = np.frombuffer(kept[2 * n * n_classes :], np.int8).reshape(n, n_classes).astype(np.float64)
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise DataError(f"figures hold no readable 'scores' and 'n_test' ({error}); run the benchmark again") from error
    return logits, np.where(labels == 2, np.nan, labels)


def auprc_difference(
    runs_a: Sequence[dict[str, Any]], runs_b: Sequence[dict[str, Any]], *, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Estimate the difference in macro AUPRC a - b of two methods on the same images, with a paired interval.

    The test images are resampled a thousand times, the trained models are not; each method counts with its mean over
    the runs. Classes that a draw has no image of are left out of its mean.

    Args:
        runs_a: figures of `label_figures`, one a seed.
        runs_b: of the other method, on the same test images.
        level: share of the draws inside the interval, 0 to 1.
        seed: equal seeds give equal intervals.

    Returns:
        The difference with its interval; None for fewer than two images.

    Raises:
        DataError: the figures hold no scores, or of other images.
    """
    drawn = _drawn_macros((runs_a, runs_b), seed)
    return None if drawn is None else _interval(drawn[0] - drawn[1], level)


def auprc_interval(figures: dict[str, Any], *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """Return the macro AUPRC of one run with its interval over test images; see `auprc_difference`."""
    drawn = _drawn_macros(([figures],), seed)
    return None if drawn is None else _interval(drawn[0], level)


def _drawn_macros(groups: Sequence[Sequence[dict[str, Any]]], seed: int) -> list[FloatArray] | None:
    """Return for each group of runs its mean macro AUPRC on the test images, then on each draw of them."""
    kept = [[scores_of(figures) for figures in runs] for runs in groups]
    sizes = {scores.shape for runs in kept for scores, _ in runs}
    if len(sizes) != 1:
        raise DataError(f"scores of shapes {sorted(sizes)} found, expected those of the same images and classes")
    n = sizes.pop()[0]
    if n < 2:
        return None
    weights = Randomness(seed).numpy("bootstrap", n).multinomial(n, np.full(n, 1 / n), size=_N_DRAWS)
    weights = np.concatenate([np.ones((1, n), np.int64), weights])
    return [np.mean([_weighted_macro(*one, weights) for one in runs], axis=0) for runs in kept]


def _interval(values: FloatArray, level: float) -> Interval:
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values[0]), float(low), float(high))


def _weighted_macro(scores: FloatArray, labels: FloatArray, weights: npt.NDArray[np.int64]) -> FloatArray:
    """Return (D,) the macro AUPRC of images (n, C) that count as often as each of D draws (D, n) says."""
    each = []
    for values, truth in zip(scores.T, labels.T, strict=True):
        known = np.flatnonzero(~np.isnan(truth))
        order = known[np.argsort(-values[known], kind="stable")]
        ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
        drawn = weights[:, order]
        hits = np.cumsum(drawn * (truth[order] == 1), axis=1)[:, ends]
        seen = np.cumsum(drawn, axis=1)[:, ends]
        gained = np.diff(hits, axis=1, prepend=0)
        total = hits[:, -1]
        area = (gained * hits / np.maximum(seen, 1)).sum(axis=1) / np.maximum(total, 1)
        each.append(np.where((total > 0) & (total < seen[:, -1]), area, np.nan))
    table = np.stack(each)
    there = ~np.isnan(table)
    mean: FloatArray = np.where(there, table, 0.0).sum(0) / np.maximum(there.sum(0), 1)
    return mean
