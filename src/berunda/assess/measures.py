"""What a classifier of whole images is measured by, with one class an image or with several labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from berunda.assess.calibration import CalibrationFigures, Temperature, calibration_figures
from berunda.assess.classify import Classified, classifier_figures, fit_image_temperature, right_of
from berunda.assess.intervals import Interval, accuracy_difference
from berunda.assess.label_intervals import auprc_interval
from berunda.assess.multilabel import (
    fit_label_distance,
    fit_label_temperature,
    label_calibration,
    label_energy,
    label_figures,
    rank,
    sigmoid,
    tuned_thresholds,
)
from berunda.assess.ood import FeatureDistance, energy
from berunda.models.spec import Task

__all__ = ["Measures", "measures_of"]


@dataclass(frozen=True)
class Measures:
    """The measures of a task.

    Attributes:
        headline: the metric that tables show first.
        score: that metric of some images, which choices on validation images rest on; None where it has no meaning.
        fit_temperature: of validation images.
        figures: of validation and test images, with class_names.
        calibration: of logits, labels and temperature.
        fit_distance: of features (n, D) and labels.
        energy: of logits (n, C); higher = less alike.
        thresholds: from which probability on a class is named, of validation images and temperature; None where the
            most probable class is.
        interval: of the headline over test images, of figures.
    """

    headline: str
    score: Callable[[Classified], float | None]
    fit_temperature: Callable[[Classified], Temperature]
    figures: Callable[..., dict[str, Any]]
    calibration: Callable[..., CalibrationFigures]
    fit_distance: Callable[..., FeatureDistance]
    energy: Callable[[np.ndarray], np.ndarray]
    thresholds: Callable[[Classified, float], np.ndarray | None]
    interval: Callable[[dict[str, Any]], Interval | None]


def measures_of(task: Task) -> Measures:
    """Return the measures of "multilabel" or "scene"."""
    return _SEVERAL if task == "multilabel" else _ONE


def _thresholds(validation: Classified, temperature: float) -> np.ndarray:
    return tuned_thresholds(sigmoid(validation.logits, temperature), validation.labels)


def _accuracy_interval(figures: dict[str, Any]) -> Interval | None:
    right = right_of(figures)
    return accuracy_difference(right, np.zeros_like(right))


def _accuracy(given: Classified) -> float | None:
    known = given.labels >= 0
    return float((given.logits[known].argmax(1) == given.labels[known]).mean()) if known.any() else None


_ONE = Measures(
    headline="oa",
    score=_accuracy,
    fit_temperature=fit_image_temperature,
    figures=classifier_figures,
    calibration=calibration_figures,
    fit_distance=FeatureDistance.fit,
    energy=energy,
    thresholds=lambda validation, temperature: None,
    interval=_accuracy_interval,
)
_SEVERAL = Measures(
    headline="macro_auprc",
    score=lambda given: rank(given.logits, given.labels).macro,
    fit_temperature=fit_label_temperature,
    figures=label_figures,
    calibration=label_calibration,
    fit_distance=fit_label_distance,
    energy=label_energy,
    thresholds=_thresholds,
    interval=auprc_interval,
)
