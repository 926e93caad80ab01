"""The tables and charts of the report: classes, confusion, comparison, calibration, training, timing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.assess import pictures, plots
from berunda.assess.calibration import CalibrationFigures
from berunda.assess.colors import rgb_of
from berunda.assess.intervals import Interval
from berunda.assess.report_data import PARTS, ClassInfo, ReportData, TrainingFacts
from berunda.assess.verdicts import NOT_AVAILABLE, percent, percent_range

__all__ = [
    "PART_TITLES",
    "calibration_view",
    "class_rows",
    "comparison_groups",
    "comparison_view",
    "confusion_rows",
    "method_title",
    "ood_view",
    "returned_lines",
    "safe_color",
    "timing_view",
    "training_view",
]

METHOD_TITLES = {
    "random_forest": "Random forest on pixels",
    "supervised": "Supervised net",
    "features_logreg": "Logistic regression on frozen features",
    "features_propagate": "Label propagation on frozen features",
    "features_propagate_transductive": "Label propagation on frozen features, test images in the graph",
}
PART_TITLES = {
    "train": "training",
    "calibration": "calibration (held out)",
    "test": "test (held out)",
    "unused": "not used",
}
RIGHT_COLOR, WRONG_COLOR = (11, 110, 105), (214, 106, 31)


def method_title(name: str) -> str:
    """Return the reader's name of a method."""
    return METHOD_TITLES.get(name, name)


def safe_color(text: str) -> str:
    """Return "#rrggbb" made of numbers only, whatever stood behind them."""
    return "#{:02x}{:02x}{:02x}".format(*rgb_of(text))


def class_rows(data: ReportData) -> list[dict[str, Any]]:
    """Return one row per class: score, interval, support and area, ready to print."""
    scores, rows = data.scores, []
    if scores is None:
        return []
    for i, info in enumerate(data.classes):
        interval = data.intervals.f1[i] if data.intervals else None
        whisker = None
        if interval is not None:
            whisker = {
                "left": f"{100 * interval.low:.1f}",
                "width": f"{100 * (interval.high - interval.low):.1f}",
            }
        rows.append(
            {
                "name": info.name,
                "color": safe_color(info.color),
                "f1": percent(scores.f1[i]),
                "f1_width": f"{100 * (scores.f1[i] or 0):.1f}",
                "is_absent": scores.f1[i] is None,
                "range": percent_range(interval),
                "whisker": whisker,
                "iou": percent(scores.iou[i]),
                "recall": percent(scores.recall[i]),
                "precision": percent(scores.precision[i]),
                "support": f"{scores.support[i]:,}",
                "area": f"{info.area_ha:,.0f} ha" if info.area_ha is not None else "",
            }
        )
    return rows


def confusion_rows(
    matrix: npt.ArrayLike, classes: Sequence[ClassInfo], *, unit: str = "pixels", verb: str = "mapped as"
) -> list[dict[str, Any]]:
    """Return the confusion matrix as table rows; cells are percent of the true class, tinted by it.

    Args:
        matrix: (C, C) counts, truth in rows.
        classes: in order.
        unit: what is counted.
        verb: what happens to what is counted.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    rows = []
    for i, info in enumerate(classes):
        total = int(counts[i].sum())
        cells = []
        for j, other in enumerate(classes):
            share = counts[i, j] / total if total else 0.0
            fate = f"rightly {verb.split()[0]}" if i == j else f"{verb} {other.name}"
            cells.append(
                {
                    "text": f"{100 * share:.0f}" if total else NOT_AVAILABLE,
                    "tip": f"{int(counts[i, j]):,} {unit} of {info.name} {fate}",
                    "is_right": i == j,
                    "background": _tint(RIGHT_COLOR if i == j else WRONG_COLOR, share),
                    "ink": "#ffffff" if i == j and share > 0.62 else "#1d2826",
                }
            )
        rows.append({"name": info.name, "color": safe_color(info.color), "cells": cells, "total": f"{total:,}"})
    return rows


def _tint(color: tuple[int, int, int], share: float) -> str:
    return "#" + "".join(f"{round(255 - (255 - c) * min(1.0, share) * 0.92):02x}" for c in color)


def comparison_groups(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group comparison rows by method and variant ("method, variant"), in order of their first row."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        name = ", ".join(str(row[key]) for key in ("method", "variant") if row.get(key))
        groups.setdefault(name, []).append(row)
    return groups


def comparison_view(data: ReportData) -> dict[str, Any] | None:
    """Return the comparison of methods, None where there are not two to compare."""
    groups = comparison_groups(data.comparison)
    if len(groups) < 2:
        return None
    shipped = data.training.method if data.training else None
    by_title = {method_title(m): [float(r["metrics"]["miou"]) for r in g] for m, g in groups.items()}
    chart = plots.comparison_dots(by_title, "mean IoU on the test pixels", method_title(shipped or ""))
    first = data.comparison[0]
    return {
        "chart": pictures.svg_uri(plots.figure_svg(chart)),
        "alt": "Mean IoU of each method: "
        + "; ".join(f"{m} {percent(float(np.mean(v)), 1)}" for m, v in by_title.items()),
        "rows": [_comparison_row(name, group, name == shipped) for name, group in groups.items()],
        "labels": _labels_text(first),
        "n_seeds": max(len(g) for g in groups.values()),
        "differences": [_difference_sentence(d.method_a, d.method_b, d.differences.miou) for d in data.differences],
    }


def _labels_text(row: Mapping[str, Any]) -> str:
    if row.get("labels_unit") == "fraction":
        return f"{percent(row['labels'])} of those to train on"
    return f"{row.get('labels', '?')} {str(row.get('labels_unit', 'labels')).replace('_', ' ')}"


def _comparison_row(name: str, group: Sequence[Mapping[str, Any]], is_shipped: bool) -> dict[str, Any]:
    def figure(key: str) -> str:
        values = [float(r["metrics"][key]) for r in group if r["metrics"].get(key) is not None]
        if not values:
            return NOT_AVAILABLE
        spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        return f"{100 * np.mean(values):.1f}{spread}%"

    seconds = [float(r["wall_s"]) for r in group if r.get("wall_s") is not None]
    return {
        "name": method_title(name),
        "is_shipped": is_shipped,
        "oa": figure("oa"),
        "miou": figure("miou"),
        "n_seeds": len(group),
        "time": _duration(float(np.mean(seconds))) if seconds else NOT_AVAILABLE,
    }


def _difference_sentence(a: str, b: str, interval: Interval | None) -> str:
    names = f"{method_title(a)} against {method_title(b)}"
    if interval is None:
        return f"{names}: too few test groups for an interval of the difference."
    verdict = "unlikely to be chance" if interval.excludes(0) else "this could be chance"
    return (
        f"{names}: {100 * interval.estimate:+.1f} points of mean IoU "
        f"({100 * interval.low:+.1f} to {100 * interval.high:+.1f}); {verdict}."
    )


def calibration_view(data: ReportData) -> dict[str, Any] | None:
    """Return the calibration section."""
    facts = data.calibration
    if facts is None:
        return None
    chart = None
    if facts.after is not None:
        chart = pictures.svg_uri(plots.figure_svg(plots.reliability_diagram(facts.before, facts.after)))
    temperature = facts.temperature
    return {
        "chart": chart,
        "measured_on": facts.measured_on,
        "rows": _calibration_rows(facts.before, facts.after),
        "text": (
            f"Temperature {temperature.value:.2f}{'' if temperature.is_calibrated else ', the end of its range'}, "
            f"fitted on {temperature.n_pixels:,} held-out pixels in {temperature.n_groups} polygons."
            if temperature.is_fitted
            else "The temperature was left at 1."
        ),
        "warning": temperature.warning or "",
    }


def _calibration_rows(
    before: CalibrationFigures | None, after: CalibrationFigures | None
) -> list[tuple[str, str, str]]:
    names = {
        "ece": "ECE: mean gap between confidence and accuracy (15 bins)",
        "classwise_ece": "ECE class by class",
        "brier": "Brier score (0 best, 2 worst)",
        "nll": "Negative log likelihood",
    }
    if after is None:
        return []

    def text(figures: CalibrationFigures | None, key: str) -> str:
        if figures is None:
            return NOT_AVAILABLE
        value = getattr(figures, key)
        return percent(value, 1) if "ece" in key else f"{value:.3f}"

    return [(title, text(before, key), text(after, key)) for key, title in names.items()]


def ood_view(data: ReportData) -> dict[str, Any] | None:
    """Return the facts of the layer of unlikeness."""
    facts = data.ood
    if facts is None:
        return None
    lines = [("Threshold of the feature distance", f"{facts.threshold:.3g}")]
    if facts.threshold_energy is not None:
        lines.append(("Threshold of the energy", f"{facts.threshold_energy:.3g}"))
    if facts.n_held_out_px is not None:
        lines.append(("Set to flag 5% of", f"{facts.n_held_out_px:,} held-out labelled pixels"))
    lines += [("Flagged test pixels", percent(facts.share_test, 1))] if facts.share_test is not None else []
    lines += [("Flagged part of the map", percent(facts.share_map, 1))] if facts.share_map is not None else []
    lines += [(name, f"{value:.3f}") for name, value in facts.scores.items()]
    return {"lines": lines, "note": facts.note}


def training_view(data: ReportData) -> dict[str, Any] | None:
    """Return what was trained on what."""
    facts = data.training
    if facts is None:
        return None
    lines = [("Method", method_title(facts.method)), ("Encoder", facts.encoder)]
    lines += [("Steps", f"{facts.n_steps:,}")] if facts.n_steps is not None else []
    lines += [("Image passes", f"{facts.images_seen:,}")] if facts.images_seen is not None else []
    lines += [("Seed", str(facts.seed))] if facts.seed is not None else []
    chart = pictures.svg_uri(plots.figure_svg(plots.loss_curves(facts.curves))) if facts.curves else None
    return {
        "lines": [(k, v) for k, v in [*lines, *facts.facts.items(), *returned_lines(facts)] if v],
        "counts": _count_rows(data),
        "parts": [(p, PART_TITLES[p]) for p in PARTS if any(c.part == p for c in facts.label_counts)],
        "chart": chart,
        "is_refit": facts.is_refit,
        "pseudo_labels": _pseudo_rows(data),
    }


def returned_lines(facts: TrainingFacts) -> Iterator[tuple[str, str]]:
    """Yield label and text for each time that the training went back."""
    for number, told in enumerate(facts.returned, start=1):
        yield f"Went back, {number} of {len(facts.returned)}", f"{told[0].upper()}{told[1:]}."


def _pseudo_rows(data: ReportData) -> list[dict[str, str]]:
    assert data.training is not None
    colors = {info.name: safe_color(info.color) for info in data.classes}
    return [
        {
            "name": told.class_name,
            "color": colors.get(told.class_name, "#888888"),
            "share": percent(told.share, 1),
            "width": f"{100 * told.share:.1f}",
            "first": percent(told.believed_first),
            "last": percent(told.believed),
        }
        for told in data.training.pseudo_labels
    ]


def _count_rows(data: ReportData) -> list[dict[str, Any]]:
    assert data.training is not None
    counts = {(c.class_name, c.part): c for c in data.training.label_counts}
    return [
        {
            "name": info.name,
            "color": safe_color(info.color),
            "parts": {p: (c.n_polygons, f"{c.n_pixels:,}") for p in PARTS if (c := counts.get((info.name, p)))},
        }
        for info in data.classes
        if data.training.label_counts
    ]


def timing_view(timing: Mapping[str, float]) -> list[dict[str, str]]:
    """Return one row per phase and the total."""
    total = sum(timing.values())
    rows = [(name.replace("_", " "), seconds) for name, seconds in timing.items()]
    return [
        {"name": name, "time": _duration(s), "share": f"{100 * s / total if total else 0:.1f}"} for name, s in rows
    ] + ([{"name": "total", "time": _duration(total), "share": ""}] if rows else [])


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"
