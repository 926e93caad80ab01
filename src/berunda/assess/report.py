"""Write the report of a map: `report.html` for people, `report.json` for programs.

The page is one file: styles inline, pictures as data URIs, no script, and a content policy that forbids the
network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from berunda.assess.page import json_text, render_page
from berunda.assess.report_data import ReportData
from berunda.assess.report_parts import comparison_groups
from berunda.assess.report_view import report_view
from berunda.files import write_text

__all__ = ["report_json", "summarize_comparison", "write_report"]

FORMAT = "berunda-report-1"


def write_report(folder: str | Path, data: ReportData) -> tuple[Path, Path]:
    """Write `report.html` and `report.json` into a folder, each whole or not at all.

    Args:
        folder: made if missing; older reports in it are replaced.
        data: what to report.

    Returns:
        Paths of the page and of the JSON file.

    Raises:
        OutputError: the folder cannot be written.
    """
    page, values = Path(folder) / "report.html", Path(folder) / "report.json"
    html = render_page("report.html.j2", **report_view(data))
    write_text(values, json_text(report_json(data)))
    write_text(page, html)
    return page, values


def report_json(data: ReportData) -> dict[str, Any]:
    """Return the report without its pictures as JSON-ready values; metrics are fractions of 1."""
    return {
        "format": FORMAT,
        "title": data.title,
        "metrics": _metrics(data),
        "classes": [
            {"id": i, "name": c.name, "color": c.color, "n_mapped_px": c.n_mapped_px, "area_ha": c.area_ha}
            for i, c in enumerate(data.classes, start=1)
        ],
        "comparison": [dict(row) for row in data.comparison],
        "comparison_summary": summarize_comparison(data.comparison),
        "comparison_differences": [
            {"a": d.method_a, "b": d.method_b, **d.differences.as_dict()} for d in data.differences
        ],
        "calibration": _calibration(data),
        "ood": _ood(data),
        "training": _training(data),
        "scenes": [{"name": s.name, "crs": s.crs, "bounds": s.bounds, "facts": dict(s.facts)} for s in data.scenes],
        "timing": dict(data.timing),
        "warnings": list(data.warnings),
        "transductive": data.is_transductive,
        "attribution": list(data.attribution),
        "provenance": dict(data.provenance),
    }


def _metrics(data: ReportData) -> dict[str, Any]:
    metrics = data.scores.as_dict() if data.scores is not None else {}
    metrics["intervals"] = data.intervals.as_dict() if data.intervals is not None else None
    metrics["confusion_truth_by_map"] = data.confusion.tolist() if data.confusion is not None else None
    return metrics


def summarize_comparison(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per method: number of runs, mean and standard deviation of each metric and of wall_s.

    The standard deviation is that of a sample (n - 1), None for a single run.
    """
    return [
        {
            "method": method,
            "n_runs": len(group),
            "seeds": [row.get("seed") for row in group],
            "metrics": {key: _spread(row["metrics"].get(key) for row in group) for key in _metric_names(group)},
            "wall_s": _spread(row.get("wall_s") for row in group),
        }
        for method, group in comparison_groups(rows).items()
    ]


def _metric_names(group: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(k for row in group for k, v in row["metrics"].items() if isinstance(v, int | float))
    return list(names)


def _spread(values: Iterable[Any]) -> dict[str, float | None]:
    numbers = [float(v) for v in values if isinstance(v, int | float)]
    return {
        "mean": float(np.mean(numbers)) if numbers else None,
        "std": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
    }


def _calibration(data: ReportData) -> dict[str, Any] | None:
    facts = data.calibration
    if facts is None:
        return None
    return {
        "temperature": facts.temperature.as_dict(),
        "measured_on": facts.measured_on,
        "before": facts.before.as_dict() if facts.before else None,
        "after": facts.after.as_dict() if facts.after else None,
    }


def _ood(data: ReportData) -> dict[str, Any] | None:
    facts = data.ood
    if facts is None:
        return None
    keys = ("threshold", "threshold_energy", "share_map", "share_test", "n_held_out_px", "note")
    return {**{key: getattr(facts, key) for key in keys}, "scores": dict(facts.scores)}


def _training(data: ReportData) -> dict[str, Any] | None:
    facts = data.training
    if facts is None:
        return None
    keys = ("method", "encoder", "n_steps", "images_seen", "seed", "is_refit")
    return {
        **{key: getattr(facts, key) for key in keys},
        "facts": dict(facts.facts),
        "fingerprints": list(facts.fingerprints),
        "label_counts": [vars(count) for count in facts.label_counts],
        "loss_curves": [vars(curve) for curve in facts.curves],
        "pseudo_labels": [vars(told) for told in facts.pseudo_labels],
        "returned": list(facts.returned),
    }
