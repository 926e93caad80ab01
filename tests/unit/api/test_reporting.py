"""Sentences of the report."""

from __future__ import annotations

import numpy as np

from berunda.api.reporting import _calibration_sentence, loss_curves_of, pseudo_labels_of, starved_classes
from berunda.assess.calibration import Temperature, fit_temperature
from berunda.assess.report_data import CalibrationFacts, ReportData
from berunda.assess.report_parts import calibration_view, comparison_view
from berunda.methods import make_method


def at_the_end() -> Temperature:
    """Return what is fitted where confident logits know nothing."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 400)
    return fit_temperature(np.eye(2)[draw.integers(0, 2, 400)] * 1000, labels, np.arange(400) // 10)


def test_a_temperature_at_the_end_of_its_range_is_no_calibration() -> None:
    found = at_the_end()
    assert found.is_fitted
    assert _calibration_sentence(found).startswith("not calibrated: temperature 20.00, the end of its range, fitted on")
    view = calibration_view(ReportData("x", (), calibration=CalibrationFacts(found)))
    assert view is not None
    assert "the end of its range" in view["text"]
    assert view["warning"].startswith("confidence is not calibrated")


def test_a_fitted_temperature_is_told_with_what_it_rests_on() -> None:
    told = _calibration_sentence(Temperature(1.5, True, 90, 7, 1.0, 0.9))
    assert told == "temperature 1.50, fitted on 90 pixels of 7 polygons held out of training"


def test_a_table_of_one_is_not_shown() -> None:
    row = {"method": "fixmatch", "metrics": {"oa": 0.5, "miou": 0.4}, "labels": 1.0, "labels_unit": "fraction"}
    assert comparison_view(ReportData("x", (), comparison=(row,))) is None
    both = comparison_view(ReportData("x", (), comparison=(row, {**row, "method": "supervised"})))
    assert both is not None
    assert both["labels"] == "100% of those to train on"


def log_rows(used: tuple[float, float], pseudo: tuple[float, float], n: int = 20) -> list[dict[str, float]]:
    """Rows of a training whose shares go from one value to another in its middle."""
    return [
        {
            "step": step,
            "stage_index": 0,
            "total": 1.0,
            "used": 0.5,
            "used_0": used[step >= n // 2],
            "used_1": 0.0,
            "pseudo_0": pseudo[step >= n // 2],
            "pseudo_1": 0.0,
        }
        for step in range(n)
    ]


def test_pseudo_labels_are_told_by_class() -> None:
    log = log_rows((0.25, 0.75), (0.125, 0.5))
    first, second = pseudo_labels_of(log, ("field", "water"))
    assert (first.class_name, first.believed_first, first.believed, first.share) == ("field", 0.25, 0.75, 0.5)
    assert (second.believed, second.share) == (0, 0)
    assert [curve.name for curve in loss_curves_of(log)] == ["total"], "shares are no losses"
    assert pseudo_labels_of([{"step": 0, "stage_index": 0, "total": 1.0}], ("field", "water")) == ()
    assert pseudo_labels_of([], ("field", "water")) == ()


def test_a_class_without_pseudo_labels_is_warned_of() -> None:
    told = pseudo_labels_of(log_rows((0.25, 0.75), (0.125, 0.5)), ("field", "water"))
    (warning,) = starved_classes(told, make_method("fixmatch"))
    assert "pseudo-labelled water," in warning
    assert "--option threshold=VALUE" in warning
    assert "threshold" not in next(starved_classes(told, make_method("mean_teacher")))
    assert list(starved_classes(told[:1], make_method("fixmatch"))) == []
