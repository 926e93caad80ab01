"""Temperature scaling and calibration errors against independent references."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from berunda.assess.calibration import (
    brier_score,
    calibration_figures,
    classwise_calibration_error,
    expected_calibration_error,
    fit_temperature,
    reliability_table,
    softmax,
)
from berunda.errors import DataError


def sample(n: int = 4000, sharpen: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits whose softmax is exactly calibrated when `sharpen` is 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 3))
    labels = (softmax(logits).cumsum(1) < rng.random((n, 1))).sum(1)
    return logits * sharpen, labels


@pytest.mark.parametrize("sharpen", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_sharpening(sharpen: float) -> None:
    logits, labels = sample(sharpen=sharpen)
    found = fit_temperature(logits, labels)
    assert found.is_fitted
    assert found.warning is None
    assert found.value == pytest.approx(sharpen, rel=0.08)
    assert found.nll_before is not None
    assert found.nll_after is not None
    assert found.nll_after <= found.nll_before + 1e-9


def test_temperature_equals_a_grid_search() -> None:
    logits, labels = sample(300, 2.0)
    grid = np.exp(np.linspace(np.log(1), np.log(4), 301))
    best = min(grid, key=lambda t: log_loss(labels, softmax(logits, t)))
    assert fit_temperature(logits, labels).value == pytest.approx(best, rel=4e-3)


@pytest.mark.parametrize(
    ("n", "groups", "one_class"),
    [(49, 10, False), (200, 1, False), (200, 10, True)],
    ids=["px", "poly", "class"],
)
def test_too_few_labels_leave_the_temperature_at_one_and_say_so(n: int, groups: int, one_class: bool) -> None:
    logits, labels = sample(n, 3.0)
    found = fit_temperature(logits, labels * (not one_class), np.arange(n) % groups)
    assert (found.value, found.is_fitted) == (1.0, False)
    assert found.warning is not None
    assert f"{n} held-out labelled pixels" in found.warning
    assert f"{groups} polygons" in found.warning


def test_no_label_at_all_is_a_warning_not_a_crash() -> None:
    found = fit_temperature(np.zeros((5, 3)), np.full(5, -1))
    assert (found.value, found.n_pixels, found.nll_before) == (1.0, 0, None)
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0)).value == 1.0


def test_all_right_hits_the_end_of_the_range_and_says_so() -> None:
    labels = np.arange(100) % 3
    found = fit_temperature(np.eye(3)[labels], labels)
    assert found.value == pytest.approx(0.05, rel=1e-2)
    assert found.warning is not None
    assert "end of its range" in found.warning
    assert found.warning.startswith("confidence is not calibrated: ")
    assert not found.is_calibrated


def test_ece_equals_torchmetrics() -> None:
    logits, labels = sample(sharpen=2.5)
    probs = softmax(logits)
    expected = multiclass_calibration_error(torch.from_numpy(probs), torch.from_numpy(labels), 3, n_bins=15)
    assert expected_calibration_error(probs, labels) == pytest.approx(float(expected), rel=1e-5)
    assert expected_calibration_error(softmax(logits, 2.5), labels) < 0.02 < expected_calibration_error(probs, labels)


def test_brier_score_equals_scikit_learn() -> None:
    logits, labels = sample(500)
    probs = softmax(logits)
    assert brier_score(probs, labels) == pytest.approx(
        sum(brier_score_loss(labels == c, probs[:, c]) for c in range(3))
    )


def test_classwise_error_equals_a_loop_over_classes_and_bins() -> None:
    logits, labels = sample(800, 2.0)
    probs = softmax(logits)
    errors = []
    for c in range(3):
        gap = 0.0
        for low in range(15):
            inside = (probs[:, c] > low / 15) & (probs[:, c] <= (low + 1) / 15)
            if inside.any():
                gap += abs(probs[inside, c].mean() - (labels[inside] == c).mean()) * inside.mean()
        errors.append(gap)
    assert classwise_calibration_error(probs, labels) == pytest.approx(np.mean(errors))


def test_reliability_table_counts_every_labelled_pixel_once() -> None:
    logits, labels = sample(1000)
    labels[::7] = -1
    table = reliability_table(softmax(logits), labels)
    assert table.count.sum() == (labels >= 0).sum()
    assert np.isnan(table.accuracy[table.count == 0]).all()
    used = table.count > 0
    inside = (table.confidence > table.edges[:-1]) & (table.confidence <= table.edges[1:])
    assert inside[used].all()


def test_figures_are_json_and_agree_with_the_functions() -> None:
    logits, labels = sample(600, 2.0)
    found = calibration_figures(logits, labels, 2.0)
    probs = softmax(logits, 2.0)
    assert found.nll == pytest.approx(log_loss(labels, probs))
    assert found.ece == pytest.approx(expected_calibration_error(probs, labels))
    assert sum(row["n_pixels"] for row in json.loads(json.dumps(found.as_dict()))["reliability"]) == 600


def test_unlabelled_pixels_change_nothing() -> None:
    logits, labels = sample(400, 2.0)
    more = np.concatenate([logits, np.full((50, 3), np.nan)])
    more_labels = np.concatenate([labels, np.full(50, -1)])
    assert fit_temperature(more, more_labels).value == fit_temperature(logits, labels).value


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="expected \\(n, C\\)"):
        fit_temperature(np.zeros((5, 3)), np.zeros(4))
    with pytest.raises(DataError, match="label 3 found, expected 0 to 2"):
        fit_temperature(np.zeros((5, 3)), np.full(5, 3))
    with pytest.raises(DataError, match="not all finite"):
        fit_temperature(np.full((5, 3), np.nan), np.zeros(5))
    with pytest.raises(DataError, match="no labelled pixel"):
        reliability_table(np.full((5, 2), 0.5), np.full(5, -1))
    with pytest.raises(DataError, match="groups has 2"):
        fit_temperature(np.zeros((5, 3)), np.zeros(5), [1, 2])
