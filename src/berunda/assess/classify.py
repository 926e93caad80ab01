"""Assessment of classifiers of whole images: agreement, calibration, and how unlike the training images others are.

Agreement and calibration are measured on test images; the temperature is fitted on validation images alone. Scores of
unlikeness are higher for images less alike.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.assess.calibration import (
    CalibrationFigures,
    ReliabilityTable,
    Temperature,
    calibration_figures,
    fit_temperature,
)
from berunda.assess.metrics import confusion_matrix, score
from berunda.assess.ood import FeatureDistance, aupr, auroc, energy, fpr95, neighbour_distance
from berunda.errors import DataError

__all__ = [
    "N_BINS",
    "N_NEIGHBOURS",
    "Classified",
    "calibration_values",
    "classifier_figures",
    "fit_image_temperature",
    "named_ood",
    "ood_figures",
    "ood_scores",
    "right_of",
]

N_BINS = 15
"""Equal-width bins of the calibration errors."""
N_NEIGHBOURS = 10
"""Which nearest training image the kNN score takes."""
_MAX_REFERENCE = 20_000


@dataclass(frozen=True)
class Classified:
    """What a classifier makes of n images.

    Attributes:
        logits: (n, C) finite real numbers, before any temperature.
        labels: (n,) true class 0..C-1, -1 = unknown; or, of several an image, (n, C) 1, 0 or NaN = unknown.
        features: (n, D) what the last layer reads, or None.

    Raises:
        DataError: the shapes do not fit, or logits or features are not finite.
    """

    logits: npt.NDArray[np.floating]
    labels: npt.NDArray[Any]
    features: npt.NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.logits.ndim != 2 or self.labels.shape not in ((len(self.logits),), self.logits.shape):
            raise DataError(
                f"logits of shape {self.logits.shape} and labels of shape {self.labels.shape} found, expected (n, C) "
                "and (n,) or (n, C)"
            )
        if self.features is not None and (self.features.ndim != 2 or len(self.features) != n):
            raise DataError(f"features of shape {self.features.shape} found, expected ({n}, D)")
        for name, values in (("logits", self.logits), ("features", self.features)):
            if values is not None and not np.isfinite(values).all():
                raise DataError(f"{name} of {n} images are not all finite; look at the training's log")


def fit_image_temperature(validation: Classified) -> Temperature:
    """Return the temperature fitted on validation images; 1 with a warning where they do not determine one.

    Too few images do not, nor do images that are all right (or all wrong): any temperature at the end of its range
    would be as good, and confidence as good as 100%.
    """
    found = fit_temperature(validation.logits, validation.labels, of="images")
    if found.is_calibrated:
        return found
    return replace(found, value=1.0, is_fitted=False, nll_after=found.nll_before)


def classifier_figures(
    validation: Classified, test: Classified, *, class_names: Sequence[str] | None = None, kappa: bool = False
) -> dict[str, Any]:
    """Measure a classifier on test images.

    Args:
        validation: images that fit the temperature and nothing else; may be none.
        test: images with labels; those without are left out.
        class_names: C names; "1".."C" when left out.
        kappa: Cohen's kappa too.

    Returns:
        Plain JSON values, fractions of 1, None where a figure has no meaning (a class that is absent):
        `oa`, `macro_f1`; by class `recall`, `precision`, `f1`; `ece`, `classwise_ece`, `brier`, `nll` after
        temperature scaling and, with the ending `_before`, before; `temperature`, `temperature_fitted` and, where it
        is not, `temperature_warning`; `reliability` and `reliability_before` as lists of bins; `confusion`, truth in
        rows; `n_validation`, `n_test`; `right`, which `right_of` reads; `test_key`, equal for equal test labels.

    Raises:
        DataError: no test image has a label, or the shapes do not fit.
    """
    known = test.labels >= 0
    logits, labels = test.logits[known], test.labels[known].astype(np.int64)
    if not labels.size:
        raise DataError(f"{len(test.labels)} test images found, none with a label; expected labels to measure on")
    n_classes = logits.shape[1]
    predicted = logits.argmax(1)
    matrix = confusion_matrix(labels, predicted, n_classes)
    scores = score(matrix, class_names)
    temperature = fit_image_temperature(validation)
    each = ("recall", "precision", "f1")
    by_class = {name: dict(zip(scores.class_names, getattr(scores, name), strict=True)) for name in each}
    return {
        "oa": scores.oa,
        "macro_f1": scores.macro_f1,
        **({"kappa": scores.kappa} if kappa else {}),
        **calibration_values(calibration_figures(logits, labels, temperature.value, N_BINS), ""),
        **calibration_values(calibration_figures(logits, labels, 1.0, N_BINS), "_before"),
        "temperature": temperature.value,
        "temperature_fitted": temperature.is_fitted,
        **({"temperature_warning": temperature.warning} if temperature.warning else {}),
        "n_validation": int((validation.labels >= 0).sum()),
        "n_test": int(labels.size),
        **by_class,
        "confusion": matrix.tolist(),
        "right": _packed(predicted == labels),
        "test_key": hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()[:16],
    }


def calibration_values(figures: CalibrationFigures, ending: str) -> dict[str, Any]:
    """Return calibration figures as plain values, each name with an ending."""
    whole = {f"{name}{ending}": getattr(figures, name) for name in ("ece", "classwise_ece", "brier", "nll")}
    return {**whole, f"reliability{ending}": _bins(figures.reliability)}


def _bins(table: ReliabilityTable) -> list[dict[str, Any]]:
    return [{"n": row.pop("n_pixels"), **row} for row in table.as_rows()]


def _packed(right: npt.NDArray[np.bool_]) -> str:
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def right_of(figures: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Return (n_test,) whether each test image was classified rightly, from what `classifier_figures` returned.

    Raises:
        DataError: the figures do not hold it.
    """
    try:
        packed = np.frombuffer(base64.b64decode(figures["right"], validate=True), np.uint8)
        n = int(figures["n_test"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise DataError(f"figures hold no readable 'right' and 'n_test' ({error}); run the benchmark again") from error
    if not 8 * packed.size - 8 < n <= 8 * packed.size:
        raise DataError(f"'right' holds {packed.size} bytes for {n} test images, expected {-(-n // 8)}")
    return np.unpackbits(packed, count=n).astype(bool)


def ood_scores(train: Classified, given: Classified, k: int = N_NEIGHBOURS) -> dict[str, npt.NDArray[np.float64]]:
    """Score how unlike the training images each given image is; higher = less alike.

    Args:
        train: training images. kNN rests on all of them, labelled or not (on at most 20,000, evenly chosen);
            Mahalanobis on those with a label, which may be the classifier's own.
        given: images to score; their labels are not looked at.
        k: which nearest training image kNN takes.

    Returns:
        (n,) scores by name: "msp" (1 - largest probability), "max_logit" (negated), "energy"; with features also
        "knn" (distance to the k-th nearest, features of length 1) and "mahalanobis" (to the nearest class mean,
        shared covariance).

    Raises:
        DataError: features differ in length, or no training image has a label.

    Source: Hendrycks, Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples", ICLR 2017
    (MSP); Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022 (max logit);
    the others as in `berunda.assess.ood`.
    Deviations: the covariance is shrunk (Ledoit-Wolf), since few labels give fewer images than features.
    """
    logits = np.asarray(given.logits, np.float64)
    top = logits.max(1)
    free = energy(logits)
    scores = {"msp": -np.expm1(top + free), "max_logit": -top, "energy": free}
    if train.features is None or given.features is None:
        return scores
    reference = train.features[:: max(1, -(-len(train.features) // _MAX_REFERENCE))]
    scores["knn"] = neighbour_distance(reference, given.features, k).astype(np.float64)
    fitted = FeatureDistance.fit(train.features, train.labels)
    scores["mahalanobis"] = fitted.distance(given.features).astype(np.float64)
    return scores


def ood_figures(
    train: Classified, inside: Classified, outside: Classified, k: int = N_NEIGHBOURS
) -> dict[str, dict[str, float | None]]:
    """Measure how well each score of `ood_scores` tells `outside` images from `inside` ones.

    Args:
        train: training images, see `ood_scores`.
        inside: held-out images like the training ones.
        outside: images unlike them; the class to find, so that chance gives their share as AUPR.
        k: which nearest training image kNN takes.

    Returns:
        By score `auroc`, `aupr` and `fpr95` (share of outside images that pass where 95% of the inside ones pass);
        None where a group is empty.
    """
    scores_in, scores_out = ood_scores(train, inside, k), ood_scores(train, outside, k)
    is_out = np.repeat([False, True], [len(inside.labels), len(outside.labels)])
    figures = {}
    for name, values in scores_in.items():
        both = np.concatenate([values, scores_out[name]])
        figures[name] = {"auroc": auroc(both, is_out), "aupr": aupr(both, is_out), "fpr95": fpr95(both, is_out)}
    return figures


def named_ood(found: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> dict[str, float | None]:
    """Return what `ood_figures` found against several sets of images, by names that tell figure, score and set.

    Example:
        >>> named_ood({"UC Merced": {"energy": {"auroc": 0.9}}})
        {'auroc_energy_against_uc_merced': 0.9}
    """
    return {
        f"{figure}_{score}_against_{name.lower().replace(' ', '_').replace('-', '_')}": value
        for name, scores in found.items()
        for score, figures in scores.items()
        for figure, value in figures.items()
    }
