"""The report of a classifier of images: `report.html` for people, `report.json` for programs.

The page is one file: styles inline, pictures as data URIs, no script, and a content policy that forbids the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from berunda.assess import pictures, plots
from berunda.assess.calibration import CalibrationFigures, Temperature
from berunda.assess.intervals import Interval
from berunda.assess.label_report import LABELS_COMPARED, label_beware, label_rows, label_tiles, label_trust
from berunda.assess.page import json_text, render_page
from berunda.assess.report import summarize_comparison
from berunda.assess.report_data import ClassInfo, ImageLook, OodFacts, TrainingFacts
from berunda.assess.report_parts import confusion_rows, method_title, returned_lines, safe_color, timing_view
from berunda.assess.verdicts import NOT_AVAILABLE, percent, percent_range
from berunda.files import write_text

__all__ = ["SceneReport", "scene_report_json", "write_scene_report"]

FORMAT = "berunda-scene-report-1"
WEAK_F1, GOOD_ECE = 0.5, 0.05
COMPARED = {"oa": "accuracy", "macro_f1": "macro F1", "ece": "calibration error"}
"""Metrics of the comparison with their titles."""


@dataclass(frozen=True)
class SceneReport:
    """All that the report of a classifier shows.

    Attributes:
        title: of the page.
        classes: names and colours, in the order of the classes.
        figures: what the task's `berunda.assess.measures.Measures` measured on the test images.
        interval: of the first of them, over test images; None for fewer than two.
        temperature: how the confidence was calibrated.
        before, after: calibration on the test images, as it came and as it is stated.
        ood: thresholds of unlikeness, counted in images.
        training: what was trained on what.
        counts: images by use.
        comparison: rows in the form of the benchmark protocol, the run's own last.
        looks: pictures of single test images.
        timing: seconds by phase, in order.
        warnings: plain sentences, most important first.
        provenance: label -> text: version, command, date, hardware.
    """

    title: str
    classes: tuple[ClassInfo, ...]
    figures: Mapping[str, Any]
    interval: Interval | None
    temperature: Temperature
    before: CalibrationFigures
    after: CalibrationFigures
    ood: OodFacts | None
    training: TrainingFacts
    counts: Mapping[str, int]
    comparison: tuple[Mapping[str, Any], ...] = ()
    looks: tuple[ImageLook, ...] = ()
    timing: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)


def write_scene_report(folder: Path, report: SceneReport) -> Path:
    """Write `report.json` and `report.html` into a folder, each whole or not at all; return the page.

    Raises:
        OutputError: the folder cannot be written.
    """
    page = folder / "report.html"
    html = render_page("scene.html.j2", **_view(report))
    write_text(folder / "report.json", json_text(scene_report_json(report)))
    write_text(page, html)
    return page


def scene_report_json(report: SceneReport) -> dict[str, Any]:
    """Return the report without its pictures as JSON-ready values; metrics are fractions of 1."""
    training = report.training
    return {
        "format": FORMAT,
        "title": report.title,
        "metrics": {
            **report.figures,
            _interval_name(report): None if report.interval is None else vars(report.interval),
        },
        "classes": [{"id": i, "name": c.name, "color": c.color} for i, c in enumerate(report.classes, start=1)],
        "images": dict(report.counts),
        "comparison": [dict(row) for row in report.comparison],
        "comparison_summary": summarize_comparison(report.comparison),
        "calibration": {
            "temperature": report.temperature.as_dict(),
            "before": report.before.as_dict(),
            "after": report.after.as_dict(),
        },
        "ood": _ood_json(report.ood),
        "training": {
            "method": training.method,
            "encoder": training.encoder,
            "n_steps": training.n_steps,
            "images_seen": training.images_seen,
            "seed": training.seed,
            "facts": dict(training.facts),
            "loss_curves": [vars(curve) for curve in training.curves],
            "pseudo_labels": [vars(told) for told in training.pseudo_labels],
            "returned": list(training.returned),
        },
        "timing": dict(report.timing),
        "warnings": list(report.warnings),
        "provenance": dict(report.provenance),
    }


def _interval_name(report: SceneReport) -> str:
    return "macro_auprc_interval" if "macro_auprc" in report.figures else "oa_interval"


def _ood_json(facts: OodFacts | None) -> dict[str, Any] | None:
    if facts is None:
        return None
    return {
        "threshold": facts.threshold,
        "threshold_energy": facts.threshold_energy,
        "share_test": facts.share_test,
        "n_held_out": facts.n_held_out_px,
    }


def _view(report: SceneReport) -> dict[str, Any]:
    n_classes, method = len(report.classes), method_title(report.training.method)
    shown = _labels_view(report) if "macro_auprc" in report.figures else _classes_view(report)
    return {
        "title": report.title,
        "subtitle": f"{n_classes} classes · method {method} · encoder {report.training.encoder}",
        "warnings": report.warnings,
        **shown,
        "calibration": _calibration_view(report),
        "ood": list(_ood_lines(report.ood)),
        "comparison": [_comparison_row(row, shown["compared"]) for row in report.comparison]
        if len(report.comparison) > 1
        else [],
        "training": [(k, v) for k, v in _training_lines(report.training) if v],
        "counts": [(use, f"{n:,}") for use, n in report.counts.items()],
        "curves": _curves(report.training),
        "looks": [_look_view(look) for look in report.looks],
        "timing": timing_view(report.timing),
        "provenance": report.provenance,
    }


def _classes_view(report: SceneReport) -> dict[str, Any]:
    """Return what is shown of one class an image."""
    return {
        "figures": list(_tiles(report)),
        "trust": [*_trust(report), *_trusted_confidence(report)],
        "beware": [*_beware(report), *_doubted_confidence(report)],
        "label_rows": [],
        "class_rows": list(_class_rows(report)),
        "confusion": confusion_rows(report.figures["confusion"], report.classes, unit="images", verb="named as"),
        "compared": COMPARED,
    }


def _labels_view(report: SceneReport) -> dict[str, Any]:
    """Return what is shown of several labels an image."""
    return {
        "figures": list(label_tiles(report.figures, report.interval)),
        "trust": [*label_trust(report.figures), *_trusted_confidence(report)],
        "beware": [*label_beware(report.figures), *_doubted_confidence(report)],
        "label_rows": list(label_rows(report.figures, report.classes)),
        "compared": LABELS_COMPARED,
    }


def _tiles(report: SceneReport) -> Iterator[dict[str, str]]:
    figures = report.figures
    told = (
        ("Overall accuracy", percent(figures["oa"], 1), percent_range(report.interval), "of the test images are right"),
        ("Macro F1", percent(figures["macro_f1"], 1), "", "mean over the classes"),
        ("Calibration error", percent(figures["ece"], 1), "", "mean gap between confidence and accuracy"),
        ("Tested on", f"{figures['n_test']:,}", "", "images that the model was not trained on"),
    )
    for label, value, between, note in told:
        yield {"label": label, "value": value, "range": between, "note": note}


def _trust(report: SceneReport) -> Iterator[str]:
    good = [name for name, f1 in report.figures["f1"].items() if f1 is not None and f1 >= 0.9]
    if good:
        yield f"Found and named rightly, with an F1 of 90% and more: {', '.join(good)}."


def _trusted_confidence(report: SceneReport) -> Iterator[str]:
    if report.temperature.is_calibrated and report.after.ece <= GOOD_ECE:
        gap = 100 * report.after.ece
        yield f"The confidence reads as a probability: on the test images it was off by {gap:.1f} points on average."


def _beware(report: SceneReport) -> Iterator[str]:
    figures = report.figures
    for name, f1 in figures["f1"].items():
        if f1 is None:
            yield f"{name}: no test images, so nothing is known about its accuracy."
        elif f1 < WEAK_F1:
            found, right = percent(figures["recall"][name]), percent(figures["precision"][name])
            yield f"{name}: {found} of it is found, and {right} of what the model calls {name} is {name}."


def _doubted_confidence(report: SceneReport) -> Iterator[str]:
    if report.temperature.is_calibrated and report.after.ece > GOOD_ECE:
        gap = 100 * report.after.ece
        yield f"Confidence was off by {gap:.0f} points on average: use it to rank images, not as a probability."


def _class_rows(report: SceneReport) -> Iterator[dict[str, Any]]:
    figures, support = report.figures, np.sum(report.figures["confusion"], axis=1)
    for info, n in zip(report.classes, support, strict=True):
        f1 = figures["f1"][info.name]
        yield {
            "name": info.name,
            "color": safe_color(info.color),
            "f1": percent(f1, 1),
            "f1_width": f"{100 * (f1 or 0):.1f}",
            "recall": percent(figures["recall"][info.name], 1),
            "precision": percent(figures["precision"][info.name], 1),
            "support": f"{int(n):,}",
        }


def _calibration_view(report: SceneReport) -> dict[str, Any]:
    temperature = report.temperature
    unit = "labels" if "macro_auprc" in report.figures else "images"
    chart = plots.reliability_diagram(report.before, report.after, unit)
    names = {
        "ece": f"ECE: mean gap between confidence and accuracy ({report.after.n_bins} bins)",
        "classwise_ece": "ECE class by class",
        "brier": f"Brier score (0 best, {1 if unit == 'labels' else 2} worst)",
        "nll": "Negative log likelihood",
    }

    def text(figures: CalibrationFigures, key: str) -> str:
        value = getattr(figures, key)
        return percent(value, 1) if "ece" in key else f"{value:.3f}"

    return {
        "chart": pictures.svg_uri(plots.figure_svg(chart)),
        "rows": [(title, text(report.before, key), text(report.after, key)) for key, title in names.items()],
        "text": f"Temperature {temperature.value:.2f}, fitted on {temperature.n_pixels:,} validation {unit}."
        if temperature.is_fitted
        else "The temperature was left at 1.",
        "warning": temperature.warning or "",
    }


def _ood_lines(facts: OodFacts | None) -> Iterator[tuple[str, str]]:
    if facts is None:
        return
    yield "Threshold of the feature distance", f"{facts.threshold:.3g}"
    if facts.threshold_energy is not None:
        yield "Threshold of the energy", f"{facts.threshold_energy:.3g}"
    yield "Set to flag 5% of", f"{facts.n_held_out_px:,} validation images"
    if facts.share_test is not None:
        yield "Flagged test images", percent(facts.share_test, 1)


def _comparison_row(row: Mapping[str, Any], compared: Mapping[str, str]) -> dict[str, Any]:
    metrics = row["metrics"]
    return {
        "name": method_title(str(row["method"])),
        "shown": [percent(metrics.get(name), 1) for name in compared],
        "passes": f"{row['image_passes']:,}" if row.get("image_passes") else NOT_AVAILABLE,
        "time": f"{row['wall_s']:.0f} s",
    }


def _training_lines(facts: TrainingFacts) -> Sequence[tuple[str, str]]:
    return (
        ("Method", method_title(facts.method)),
        ("Encoder", facts.encoder),
        ("Steps", f"{facts.n_steps:,}" if facts.n_steps is not None else ""),
        ("Images drawn", f"{facts.images_seen:,}" if facts.images_seen is not None else ""),
        ("Seed", str(facts.seed) if facts.seed is not None else ""),
        *facts.facts.items(),
        *returned_lines(facts),
    )


def _look_view(look: ImageLook) -> dict[str, Any]:
    pairs = (
        ("as it is", look.original),
        ("what was left visible", look.masked),
        ("what the model makes of that", look.rebuilt),
        *((f"what “{name}” rests on", picture) for name, picture in look.reasons),
    )
    shown = [(title, pictures.png_uri(picture)) for title, picture in pairs if picture is not None]
    return {"name": look.name, "pictures": shown}


def _curves(facts: TrainingFacts) -> str | None:
    return pictures.svg_uri(plots.figure_svg(plots.loss_curves(facts.curves))) if facts.curves else None
