"""Sentences of the report."""

from __future__ import annotations

import numpy as np

from berunda.api.reporting import _calibration_sentence
from berunda.assess.calibration import Temperature, fit_temperature
from berunda.assess.report_data import CalibrationFacts, ReportData
from berunda.assess.report_parts import calibration_view, comparison_view


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
