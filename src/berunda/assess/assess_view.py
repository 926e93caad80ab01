"""What the assessment page shows; the class and confusion tables are those of the map report."""

from __future__ import annotations

from typing import Any

from berunda.assess.area import AreaEstimate, Estimate
from berunda.assess.report_data import ReportData
from berunda.assess.report_parts import class_rows, confusion_rows, safe_color
from berunda.assess.report_view import first_plate, interval_note
from berunda.assess.verdicts import NOT_AVAILABLE, percent, percent_range

__all__ = ["assess_view"]


def assess_view(
    data: ReportData, area: AreaEstimate | None, statement: str, unit: str, reference: str
) -> dict[str, Any]:
    """Return everything that `assess.html.j2` places on the page.

    Args:
        data: classes, map picture, agreement.
        area: design-based estimates, or None for agreement.
        statement: what the figures mean.
        unit: of areas, "ha" or "px".
        reference: name of the reference file.
    """
    plate, extent = first_plate(data)
    return {
        "title": data.title,
        "subtitle": f"against {reference}",
        "statement": statement,
        "figures": _design_figures(area) if area is not None else _agreement_figures(data),
        "plate": plate,
        "extent": extent,
        "warnings": data.warnings,
        "class_rows": class_rows(data),
        "confusion": confusion_rows(data.confusion, data.classes) if data.confusion is not None else None,
        "interval_note": interval_note(data),
        "areas": _area_rows(data, area) if area is not None else [],
        "unit": unit,
        "estimator": area.estimator if area is not None else "",
    }


def _agreement_figures(data: ReportData) -> list[dict[str, str]]:
    if data.scores is None or data.intervals is None:
        return []
    n = f"{data.intervals.n_groups:,} {data.intervals.unit}"
    pixels = f"{data.scores.n_pixels:,} pixels compared"
    return [
        _tile("Overall agreement", percent(data.scores.oa), percent_range(data.intervals.oa), "of the pixels"),
        _tile("Mean IoU", percent(data.scores.miou), percent_range(data.intervals.miou), "mean over classes"),
        _tile("Reference", n, "", pixels),
    ]


def _design_figures(area: AreaEstimate) -> list[dict[str, str]]:
    oa = area.oa
    half = f"± {100 * oa.half_width:.1f} points"
    return [
        _tile("Overall accuracy", percent(oa.value, 1), half, "of the mapped area is right"),
        _tile("Reference", f"{area.n_points:,} points", "", f"{area.estimator} estimator"),
    ]


def _tile(label: str, value: str, spread: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "range": spread, "note": note}


def _area_rows(data: ReportData, area: AreaEstimate) -> list[dict[str, str]]:
    each = zip(data.classes, area.mapped_ha, area.area_ha, area.users, area.producers, strict=True)
    return [
        {
            "name": info.name,
            "color": safe_color(info.color),
            "mapped": f"{mapped:,.0f}",
            "area": f"{estimate.value:,.0f}",
            "half": f"± {estimate.half_width:,.0f}",
            "users": _accuracy(users),
            "producers": _accuracy(producers),
        }
        for info, mapped, estimate, users, producers in each
    ]


def _accuracy(estimate: Estimate | None) -> str:
    if estimate is None:
        return NOT_AVAILABLE
    return f"{100 * estimate.value:.0f} ± {100 * estimate.half_width:.0f}%"
