"""What the report of a classifier shows of several labels an image: tiles, sentences and a table of the classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from berunda.assess.intervals import Interval
from berunda.assess.report_data import ClassInfo
from berunda.assess.report_parts import safe_color
from berunda.assess.verdicts import NOT_AVAILABLE, percent, percent_range

__all__ = ["LABELS_COMPARED", "label_beware", "label_rows", "label_tiles", "label_trust"]

LABELS_COMPARED = {
    "macro_auprc": "macro AUPRC",
    "macro_f1": "macro F1 at 0.5",
    "macro_f1_tuned": "macro F1, tuned",
    "ece": "calibration error",
}
"""Metrics of the comparison with their titles."""
_GOOD, _WEAK, _RARE = 0.9, 0.5, 10


def label_tiles(figures: Mapping[str, Any], interval: Interval | None) -> Iterator[dict[str, str]]:
    """Yield the figures at the top."""
    told = (
        ("Macro AUPRC", figures["macro_auprc"], percent_range(interval), "how well images rank, mean over the labels"),
        ("Macro F1", figures["macro_f1_tuned"], "", "at thresholds tuned on validation images"),
        ("Macro F1 at 0.5", figures["macro_f1"], "", "each label named from a probability of 50%"),
        ("Ranking loss", figures["ranking_loss"], "", "pairs of labels of an image in the wrong order"),
        ("Calibration error", figures["ece"], "", "mean gap between stated and true frequency"),
    )
    for label, value, between, note in told:
        yield {"label": label, "value": percent(value, 1), "range": between, "note": note}
    note = "images that the model was not trained on"
    yield {"label": "Tested on", "value": f"{figures['n_test']:,}", "range": "", "note": note}


def label_trust(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what can be relied upon."""
    good = [name for name, f1 in figures["f1_tuned"].items() if f1 is not None and f1 >= _GOOD]
    if good:
        yield f"Found and named rightly, with an F1 of 90% and more: {', '.join(good)}."


def label_beware(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield where to be careful."""
    for name, f1 in figures["f1_tuned"].items():
        n = figures["support"][name]
        if f1 is None:
            yield f"{name}: no test images, so nothing is known about its accuracy."
        elif f1 < _WEAK:
            found, right = percent(figures["recall"][name]), percent(figures["precision"][name])
            yield f"{name}: {found} of it is found, and {right} of the images said to have {name} have it."
        elif n < _RARE:
            yield f"{name}: measured on {n} test images only; its figures say little."


def label_rows(figures: Mapping[str, Any], classes: Sequence[ClassInfo]) -> Iterator[dict[str, Any]]:
    """Yield the row of each label."""
    shares = ("auprc", "f1", "f1_tuned", "recall", "precision", "threshold", "ece_of")
    for info in classes:
        auprc, brier = figures["auprc"][info.name], figures["brier_of"][info.name]
        yield {
            "name": info.name,
            "color": safe_color(info.color),
            "width": f"{100 * (auprc or 0):.1f}",
            "cells": [
                *(percent(figures[name][info.name], 1) for name in shares),
                NOT_AVAILABLE if brier is None else f"{brier:.3f}",
                f"{figures['support'][info.name]:,}",
            ],
        }
