"""Calibration: does a confidence of 80% mean 80% right? Temperature scaling, ECE, Brier, NLL, reliability.

Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017 (temperature
scaling, ECE); Kull et al., "Beyond temperature scaling", NeurIPS 2019 (class-wise ECE).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from berunda.errors import DataError

__all__ = [
    "MIN_GROUPS",
    "MIN_IMAGES",
    "MIN_PIXELS",
    "CalibrationFigures",
    "ReliabilityTable",
    "Temperature",
    "binned_table",
    "brier_score",
    "calibration_figures",
    "classwise_calibration_error",
    "expected_calibration_error",
    "fit_temperature",
    "reliability_table",
    "softmax",
    "table_error",
]

FloatArray = npt.NDArray[np.float64]
MIN_PIXELS = 50
MIN_GROUPS = 2
MIN_IMAGES = 20
TEMPERATURE_RANGE = (0.05, 20.0)


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature, or 1 with the reason in `warning` where there was too little to fit it on."""

    value: float
    is_fitted: bool
    n_pixels: int
    n_groups: int
    nll_before: float | None
    nll_after: float | None
    warning: str | None = None

    @property
    def is_calibrated(self) -> bool:
        """Whether confidence reads as a probability: fitted, and not at the end of the range."""
        return self.is_fitted and self.warning is None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ReliabilityTable:
    """Pixels binned by confidence in equal-width bins; `confidence` and `accuracy` are NaN in empty bins.

    `edges` has n_bins + 1 entries from 0 to 1, the others n_bins.
    """

    edges: FloatArray
    count: npt.NDArray[np.int64]
    confidence: FloatArray
    accuracy: FloatArray

    def as_rows(self) -> list[dict[str, Any]]:
        """Return one JSON-ready row per bin that holds pixels."""
        return [
            {
                "low": float(self.edges[i]),
                "high": float(self.edges[i + 1]),
                "n_pixels": int(self.count[i]),
                "confidence": float(self.confidence[i]),
                "accuracy": float(self.accuracy[i]),
            }
            for i in np.flatnonzero(self.count)
        ]


@dataclass(frozen=True)
class CalibrationFigures:
    """Calibration of one set of predictions: ECE and class-wise ECE (0 to 1), Brier (0 to 2), NLL (nats)."""

    n_pixels: int
    n_bins: int
    ece: float
    classwise_ece: float
    brier: float
    nll: float
    reliability: ReliabilityTable

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        whole = {name: getattr(self, name) for name in ("n_pixels", "n_bins", "ece", "classwise_ece", "brier", "nll")}
        return {**whole, "reliability": self.reliability.as_rows()}


def softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> FloatArray:
    """Return softmax(logits / temperature) along the last axis, in float64."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(-1, keepdims=True)
    out = np.exp(scaled)
    return out / out.sum(-1, keepdims=True)


def fit_temperature(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    of: Literal["pixels", "images"] = "pixels",
) -> Temperature:
    """Fit the temperature that minimises the negative log likelihood of held-out labels.

    The NLL is convex in 1/T, so a bounded search on log T over 0.05 to 20 finds the minimum. With fewer than
    50 pixels, fewer than 2 groups, or a single class among the labels the temperature stays 1 and `warning`
    says why: neighbouring pixels of one polygon say almost the same thing. Whole images are less alike: 20 are enough.

    Args:
        logits: (n, C) real numbers.
        labels: (n,) class indices 0..C-1; negative ones are left out.
        groups: (n,) polygon of each pixel; without it every pixel (or image) counts as its own group.
        of: what a row of `logits` belongs to; it decides how many are enough.

    Returns:
        The temperature (above 1: the net was overconfident) with the NLL before and after.

    Raises:
        DataError: the shapes do not fit, or logits are not finite.
    """
    logits_NC, labels_N = _checked(logits, labels)
    keep = labels_N >= 0
    group_N = np.arange(labels_N.size) if groups is None else np.asarray(groups).reshape(-1)
    if group_N.shape != labels_N.shape:
        raise DataError(f"groups has {group_N.size} entries, expected {labels_N.size}, one for each labelled pixel")
    logits_NC, labels_N = logits_NC[keep], labels_N[keep]
    n_groups = int(np.unique(group_N[keep]).size)
    problem = _too_little(labels_N, n_groups) if of == "pixels" else _too_few_images(labels_N)
    if problem is not None:
        before = _nll_at(logits_NC, labels_N, 1.0) if labels_N.size else None
        return Temperature(1.0, False, int(labels_N.size), n_groups, before, before, problem)
    from scipy.optimize import minimize_scalar

    low, high = np.log(TEMPERATURE_RANGE)
    found = minimize_scalar(
        lambda t: _nll_at(logits_NC, labels_N, float(np.exp(t))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    value = float(np.exp(found.x))
    warning = None
    if min(abs(found.x - low), abs(found.x - high)) < 1e-3:
        warning = (
            "confidence is not calibrated: "
            f"the fitted temperature {value:.3g} lies at the end of its range {TEMPERATURE_RANGE[0]} to "
            f"{TEMPERATURE_RANGE[1]}: the held-out labels are nearly all right or all wrong; "
            "take confidence as a rough guide only"
        )
    before, after = _nll_at(logits_NC, labels_N, 1.0), _nll_at(logits_NC, labels_N, value)
    return Temperature(value, True, int(labels_N.size), n_groups, before, after, warning)


def _too_little(labels_N: npt.NDArray[np.int64], n_groups: int) -> str | None:
    n_classes = np.unique(labels_N).size
    if labels_N.size >= MIN_PIXELS and n_groups >= MIN_GROUPS and n_classes >= 2:
        return None
    return (
        f"confidence is not calibrated: {labels_N.size} held-out labelled pixels of {n_classes} classes in "
        f"{n_groups} polygons found, at least {MIN_PIXELS} pixels of 2 classes in {MIN_GROUPS} polygons are "
        "needed; more polygons per class would allow it"
    )


def _too_few_images(labels_N: npt.NDArray[np.int64]) -> str | None:
    n_classes = np.unique(labels_N).size
    if labels_N.size >= MIN_IMAGES and n_classes >= 2:
        return None
    return (
        f"confidence is not calibrated: {labels_N.size} labelled validation images of {n_classes} classes found, at "
        f"least {MIN_IMAGES} of 2 classes are needed; more validation labels would allow it"
    )


def _checked(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    logits_NC = np.asarray(logits, dtype=np.float64)
    labels_N = np.asarray(labels).reshape(-1).astype(np.int64)
    if logits_NC.ndim != 2 or len(logits_NC) != labels_N.size:
        raise DataError(f"logits of shape {logits_NC.shape} and {labels_N.size} labels found, expected (n, C) and n")
    if labels_N.max(initial=-1) >= logits_NC.shape[1]:
        raise DataError(f"label {labels_N.max()} found, expected 0 to {logits_NC.shape[1] - 1}")
    if not np.isfinite(logits_NC[labels_N >= 0]).all():
        raise DataError("logits of labelled pixels are not all finite; calibrate on valid pixels only")
    return logits_NC, labels_N


def _nll_at(logits_NC: FloatArray, labels_N: npt.NDArray[np.int64], temperature: float) -> float:
    scaled = logits_NC / temperature
    top = scaled.max(1)
    log_sum = top + np.log(np.exp(scaled - top[:, None]).sum(1))
    return float((log_sum - scaled[np.arange(labels_N.size), labels_N]).mean())


def brier_score(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the Brier score, the mean over pixels of the sum over classes of (p - y)^2: 0 (best) to 2."""
    probs_NC, labels_N = _labelled(probabilities, labels)
    residual = probs_NC.copy()
    residual[np.arange(labels_N.size), labels_N] -= 1
    return float((residual**2).sum(1).mean())


def reliability_table(probabilities: npt.ArrayLike, labels: npt.ArrayLike, n_bins: int = 15) -> ReliabilityTable:
    """Bin pixels by their confidence and compare it with the share that is right.

    Args:
        probabilities: (n, C), each row sums to 1.
        labels: (n,) class indices 0..C-1; negative ones are left out.
        n_bins: number of equal-width bins over (0, 1], open at the left.

    Returns:
        Count, mean confidence and accuracy of each bin.

    Raises:
        DataError: the shapes do not fit or no pixel has a label.
    """
    probs_NC, labels_N = _labelled(probabilities, labels)
    return binned_table(probs_NC.max(1), probs_NC.argmax(1) == labels_N, n_bins)


def binned_table(confidence: FloatArray, is_right: npt.NDArray[np.bool_], n_bins: int) -> ReliabilityTable:
    """Return stated probabilities (n,) 0 to 1 in equal-width bins, open at the left, with the share that is right."""
    edges = np.linspace(0, 1, n_bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    count = np.bincount(index, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, confidence, n_bins) / count
        accuracy = np.bincount(index, is_right.astype(np.float64), n_bins) / count
    return ReliabilityTable(edges, count, mean_confidence, accuracy)


def table_error(table: ReliabilityTable) -> float:
    """Return the mean gap between stated probability and share, weighted by the counts."""
    used = table.count > 0
    gap = np.abs(table.confidence[used] - table.accuracy[used])
    return float((gap * table.count[used]).sum() / table.count.sum())


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, n_bins: int = 15) -> float:
    """Return the ECE: the mean gap between confidence and accuracy over equal-width bins, 0 (best) to 1.

    Args and Raises as in `reliability_table`.
    """
    return table_error(reliability_table(probabilities, labels, n_bins))


def classwise_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, n_bins: int = 15) -> float:
    """Return the class-wise ECE: the ECE of each class's own probability, averaged over the classes.

    Args and Raises as in `reliability_table`. Classes absent from the labels count too: their probability
    should be 0.
    """
    probs_NC, labels_N = _labelled(probabilities, labels)
    errors = [table_error(binned_table(probs_NC[:, c], labels_N == c, n_bins)) for c in range(probs_NC.shape[1])]
    return float(np.mean(errors))


def _labelled(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    probs_NC, labels_N = _checked(probabilities, labels)
    keep = labels_N >= 0
    if not keep.any():
        raise DataError("no labelled pixel found, expected at least one to measure calibration on")
    return probs_NC[keep], labels_N[keep]


def calibration_figures(
    logits: npt.ArrayLike, labels: npt.ArrayLike, temperature: float = 1.0, n_bins: int = 15
) -> CalibrationFigures:
    """Measure the calibration of softmax(logits / temperature) on labelled pixels.

    Args:
        logits: (n, C) real numbers.
        labels: (n,) class indices 0..C-1; negative ones are left out.
        temperature: above 0.
        n_bins: number of equal-width bins of the ECE.

    Returns:
        All figures with the reliability table.

    Raises:
        DataError: the shapes do not fit or no pixel has a label.
    """
    probs_NC, labels_N = _labelled(softmax(logits, temperature), labels)
    return CalibrationFigures(
        n_pixels=int(labels_N.size),
        n_bins=n_bins,
        ece=expected_calibration_error(probs_NC, labels_N, n_bins),
        classwise_ece=classwise_calibration_error(probs_NC, labels_N, n_bins),
        brier=brier_score(probs_NC, labels_N),
        nll=_nll_at(np.asarray(logits, np.float64)[np.asarray(labels).reshape(-1) >= 0], labels_N, temperature),
        reliability=reliability_table(probs_NC, labels_N, n_bins),
    )
