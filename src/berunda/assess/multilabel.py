"""Assessment of classifiers that give an image several labels: ranking, decisions, calibration; class by class.

Unknown labels are left out everywhere, pair of image and class by pair. Temperature and thresholds are chosen on
validation images alone; test images measure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.assess.calibration import CalibrationFigures, Temperature, binned_table, table_error
from berunda.assess.classify import N_BINS, Classified, calibration_values, fit_image_temperature
from berunda.assess.label_intervals import packed_scores
from berunda.assess.ood import FeatureDistance, aupr
from berunda.errors import DataError

__all__ = [
    "PLAIN_THRESHOLD",
    "Decisions",
    "Ranking",
    "decide",
    "fit_label_distance",
    "fit_label_temperature",
    "label_calibration",
    "label_energy",
    "label_figures",
    "rank",
    "ranking_loss",
    "sigmoid",
    "tuned_thresholds",
]

FloatArray = npt.NDArray[np.float64]
PLAIN_THRESHOLD = 0.5
_NO_CLASS = -1


def sigmoid(logits: npt.ArrayLike, temperature: float = 1.0) -> FloatArray:
    """Return 1 / (1 + exp(-logits / temperature)) in float64."""
    scaled = np.clip(np.asarray(logits, np.float64) / temperature, -700, 700)
    return 1 / (1 + np.exp(-scaled))


def label_energy(logits: npt.ArrayLike) -> FloatArray:
    """Return (n,) the free energy of several labels, -sum_c log(1 + exp(logits_c)); higher = less alike.

    Source: Wang et al. 2021, "Can multi-label classification networks know what they don't know?", eq. 7.
    """
    result: FloatArray = -np.logaddexp(0, np.asarray(logits, np.float64)).sum(1)
    return result


@dataclass(frozen=True)
class Ranking:
    """How well scores rank the images that have a class before those that do not.

    Attributes:
        auprc: average precision of each class; None without an image that has it, or one that has not.
        macro: mean over the classes that have one; None if none has.
        micro: of all pairs of image and class together.
    """

    auprc: tuple[float | None, ...]
    macro: float | None
    micro: float | None


def rank(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Ranking:
    """Measure scores (n, C) against labels (n, C), 1, 0 or NaN for unknown."""
    given, truth = _pair(scores, labels)
    known = ~np.isnan(truth)
    each = tuple(aupr(given[known[:, c], c], truth[known[:, c], c] == 1) for c in range(given.shape[1]))
    return Ranking(each, _mean(each), aupr(given[known], truth[known] == 1))


def ranking_loss(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Return the share of an image's pairs (class it has, class it has not) that scores order wrongly, ties included.

    The mean over images that have such a pair; None if none has. 0 is best.

    Source: Tsoumakas, Katakis, Vlahavas 2010, Mining multi-label data, section 7.2.
    """
    given, truth = _pair(scores, labels)
    losses = []
    for row, said in zip(given, truth, strict=True):
        has, lacks = row[said == 1], row[said == 0]
        if has.size and lacks.size:
            losses.append(float((has[:, None] <= lacks).mean()))
    return float(np.mean(losses)) if losses else None


@dataclass(frozen=True)
class Decisions:
    """How good decisions are; None where a class is neither there nor named.

    Attributes:
        precision, recall, f1: by class; None without an image that has it.
        macro_f1: mean over those.
        micro_f1: of all pairs of image and class together.
    """

    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    macro_f1: float | None
    micro_f1: float | None


def decide(probabilities: npt.ArrayLike, labels: npt.ArrayLike, thresholds: npt.ArrayLike | float) -> Decisions:
    """Name a class where its probability (n, C) reaches its threshold, and compare with labels (n, C)."""
    given, truth = _pair(probabilities, labels)
    known, named = ~np.isnan(truth), given >= np.asarray(thresholds, np.float64)
    hits = (named & (truth == 1)).sum(0)
    n_named, n_there = (named & known).sum(0), (truth == 1).sum(0)
    counts = [(int(h), int(n), int(t)) for h, n, t in zip(hits, n_named, n_there, strict=True)]
    f1 = tuple(2 * h / (n + t) if t else None for h, n, t in counts)
    whole = int(n_named.sum() + n_there.sum())
    return Decisions(
        precision=tuple((h / n if n else None) if t else None for h, n, t in counts),
        recall=tuple(h / t if t else None for h, _, t in counts),
        f1=f1,
        macro_f1=_mean(f1),
        micro_f1=2 * int(hits.sum()) / whole if n_there.sum() else None,
    )


def tuned_thresholds(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Return (C,) the threshold of each class with the largest F1; of equal ones that nearest to 0.5.

    It lies in the middle between two probabilities. A class without an image that has it, or one that has not, keeps
    0.5.

    Args:
        probabilities: (n, C) of validation images.
        labels: (n, C) 1, 0 or NaN.
    """
    given, truth = _pair(probabilities, labels)
    found = np.full(given.shape[1], PLAIN_THRESHOLD)
    for c in range(given.shape[1]):
        known = ~np.isnan(truth[:, c])
        values, is_there = given[known, c], truth[known, c] == 1
        if is_there.any() and not is_there.all():
            found[c] = _best_threshold(values, is_there)
    return found


def _best_threshold(values: FloatArray, is_there: npt.NDArray[np.bool_]) -> float:
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    f1 = 2 * np.cumsum(is_there[order])[ends] / (ends + 1 + is_there.sum())
    between = (ordered[ends] + np.append(ordered[ends[1:]], 0.0)) / 2
    best = between[f1 >= f1.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - PLAIN_THRESHOLD))])


def fit_label_temperature(validation: Classified) -> Temperature:
    """Return the one temperature for all classes that minimises the cross-entropy of the known labels."""
    return fit_image_temperature(Classified(*_as_classes(validation.logits, validation.labels)))


def _as_classes(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return every pair of image and class as a choice between absent, of logit 0, and present."""
    given, truth = _pair(logits, labels)
    flat = given.reshape(-1)
    classes = np.where(np.isnan(truth), _NO_CLASS, truth).astype(np.int64).reshape(-1)
    return np.stack([np.zeros_like(flat), flat], axis=1), classes


def label_calibration(
    logits: npt.ArrayLike, labels: npt.ArrayLike, temperature: float = 1.0, n_bins: int = N_BINS
) -> CalibrationFigures:
    """Measure how sigmoid(logits / temperature) agrees with how often classes are there.

    `ece` is over all known pairs of image and class, `classwise_ece` the mean of the classes' own; `brier` is the mean
    of (p - y)^2 (0 to 1), `nll` the mean cross-entropy.

    Raises:
        DataError: the shapes do not fit or no label is known.
    """
    probabilities, truth = _pair(sigmoid(logits, temperature), labels)
    known = ~np.isnan(truth)
    if not known.any():
        raise DataError("no known label found, expected at least one to measure calibration on")
    p, y = probabilities[known], truth[known]
    table = binned_table(p, y == 1, n_bins)
    eces = [ece for ece, _ in _calibration_by_class(probabilities, truth, n_bins) if ece is not None]
    safe = np.clip(p, 1e-12, 1 - 1e-12)
    return CalibrationFigures(
        n_pixels=int(known.sum()),
        n_bins=n_bins,
        ece=table_error(table),
        classwise_ece=float(np.mean(eces)),
        brier=float(((p - y) ** 2).mean()),
        nll=float(-(y * np.log(safe) + (1 - y) * np.log(1 - safe)).mean()),
        reliability=table,
    )


def _calibration_by_class(
    probabilities: FloatArray, truth: FloatArray, n_bins: int
) -> list[tuple[float | None, float | None]]:
    """Return ECE and Brier score of each class, None without a known label."""
    found: list[tuple[float | None, float | None]] = []
    for p, y in zip(probabilities.T, truth.T, strict=True):
        known = ~np.isnan(y)
        if not known.any():
            found.append((None, None))
            continue
        table = binned_table(p[known], y[known] == 1, n_bins)
        found.append((table_error(table), float(((p[known] - y[known]) ** 2).mean())))
    return found


def fit_label_distance(features: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> FeatureDistance:
    """Return the feature distance to the nearest class mean, an image counting for each class that it has.

    Images that have no class count for a further one of their own.
    """
    image, label = np.nonzero(labels == 1)
    bare = np.flatnonzero(~(labels == 1).any(1))
    index = np.concatenate([image, bare])
    return FeatureDistance.fit(features[index], np.concatenate([label, np.full(len(bare), labels.shape[1])]))


def label_figures(
    validation: Classified, test: Classified, *, class_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Measure a classifier of several labels an image on test images.

    Args:
        validation: images that fit temperature and thresholds and nothing else; may be none.
        test: images with labels.
        class_names: C names; "1".."C" when left out.

    Returns:
        Plain JSON values, fractions of 1, None where a figure has no meaning: `macro_auprc`, `micro_auprc`,
        `ranking_loss`; `macro_f1` and `micro_f1` at 0.5, `macro_f1_tuned` and `micro_f1_tuned` at the tuned
        thresholds; by class `auprc`, `f1`, `f1_tuned`, `threshold`, `precision` and `recall` (tuned), `ece_of`,
        `brier_of`, `support`; calibration figures and their counterparts `_before` temperature scaling, as in
        `berunda.assess.classify.classifier_figures`; `n_validation`, `n_test`; `scores`, for
        `berunda.assess.label_intervals`; `test_key`, equal for equal test labels.

    Raises:
        DataError: no test label is known, or the shapes do not fit.
    """
    logits, labels = _pair(test.logits, test.labels)
    if np.isnan(labels).all():
        raise DataError(f"{len(labels)} test images found, none with a label; expected labels to measure on")
    names = class_names or [str(number) for number in range(1, logits.shape[1] + 1)]
    temperature = fit_label_temperature(validation)
    thresholds = tuned_thresholds(sigmoid(validation.logits, temperature.value), validation.labels)
    probabilities = sigmoid(logits, temperature.value)
    ranking = rank(logits, labels)
    plain, tuned = (decide(probabilities, labels, at) for at in (PLAIN_THRESHOLD, thresholds))
    by_class = _calibration_by_class(probabilities, labels, N_BINS)
    columns: dict[str, Sequence[Any]] = {
        "auprc": ranking.auprc,
        "f1": plain.f1,
        "f1_tuned": tuned.f1,
        "precision": tuned.precision,
        "recall": tuned.recall,
        "threshold": thresholds.tolist(),
        "ece_of": [ece for ece, _ in by_class],
        "brier_of": [brier for _, brier in by_class],
        "support": (labels == 1).sum(0).tolist(),
    }
    return {
        "macro_auprc": ranking.macro,
        "micro_auprc": ranking.micro,
        "macro_f1": plain.macro_f1,
        "micro_f1": plain.micro_f1,
        "macro_f1_tuned": tuned.macro_f1,
        "micro_f1_tuned": tuned.micro_f1,
        "ranking_loss": ranking_loss(logits, labels),
        **calibration_values(label_calibration(logits, labels, temperature.value), ""),
        **calibration_values(label_calibration(logits, labels), "_before"),
        "temperature": temperature.value,
        "temperature_fitted": temperature.is_fitted,
        **({"temperature_warning": temperature.warning} if temperature.warning else {}),
        "n_validation": len(validation.labels),
        "n_test": len(labels),
        **{name: dict(zip(names, values, strict=True)) for name, values in columns.items()},
        "scores": packed_scores(logits, labels),
        "test_key": hashlib.sha256(np.nan_to_num(labels, nan=2.0).astype(np.int8).tobytes()).hexdigest()[:16],
    }


def _pair(values: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    given, truth = np.asarray(values, np.float64), np.asarray(labels, np.float64)
    if given.ndim != 2 or given.shape != truth.shape:
        raise DataError(f"values of shape {given.shape} and labels of shape {truth.shape} found, expected (n, C)")
    return given, truth


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
