"""The first screen and the pictures of the report: strings, data URIs, legends; the template places them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from berunda.assess import pictures
from berunda.assess.intervals import Interval
from berunda.assess.report_data import PARTS, ClassInfo, ReportData, ScenePictures
from berunda.assess.report_parts import (
    PART_TITLES,
    calibration_view,
    class_rows,
    comparison_view,
    confusion_rows,
    method_title,
    ood_view,
    safe_color,
    timing_view,
    training_view,
)
from berunda.assess.verdicts import NOT_AVAILABLE, percent, percent_range, to_beware, to_trust

__all__ = ["first_plate", "interval_note", "report_view"]


def report_view(data: ReportData) -> dict[str, Any]:
    """Return everything that `report.html.j2` places on the page."""
    return {
        "title": data.title,
        "subtitle": _subtitle(data),
        "figures": _key_figures(data),
        "trust": to_trust(data),
        "beware": to_beware(data),
        "warnings": data.warnings,
        "is_wide": bool(data.scenes) and data.scenes[0].rgb.shape[1] > 1.3 * data.scenes[0].rgb.shape[0],
        "scenes": [_scene_view(scene, data, is_first=i == 0) for i, scene in enumerate(data.scenes)],
        "class_rows": class_rows(data),
        "confusion": confusion_rows(data.confusion, data.classes) if data.confusion is not None else None,
        "interval_note": interval_note(data),
        "comparison": comparison_view(data),
        "calibration": calibration_view(data),
        "ood": ood_view(data),
        "training": training_view(data),
        "timing": timing_view(data.timing),
        "is_transductive": data.is_transductive,
        "attribution": data.attribution,
        "provenance": data.provenance,
    }


def _subtitle(data: ReportData) -> str:
    parts = []
    if data.scenes:
        first, n = data.scenes[0], len(data.scenes)
        parts.append(first.name if n == 1 else f"{n} scenes, first {first.name}")
        parts.extend([first.facts["Size"]] if "Size" in first.facts else [])
    parts.append(f"{len(data.classes)} classes")
    if data.training is not None:
        parts.append(f"method {method_title(data.training.method)}")
    return " · ".join(parts)


def _key_figures(data: ReportData) -> list[dict[str, str]]:
    figures = []
    if data.scores is not None:
        oa = data.intervals.oa if data.intervals else None
        miou = data.intervals.miou if data.intervals else None
        figures += [
            _figure("Overall accuracy", percent(data.scores.oa), oa, "of the held-out test pixels are right"),
            _figure("Mean IoU", percent(data.scores.miou), miou, "overlap of map and reference, mean over classes"),
        ]
        figures.append({"label": "Tested on", "value": _tested_on(data), "range": "", "note": _test_note(data)})
    if data.ood is not None and data.ood.share_map is not None:
        note = "of the map is unlike the training data"
        figures.append({"label": "Flagged", "value": percent(data.ood.share_map), "range": "", "note": note})
    return figures


def _figure(label: str, value: str, interval: Interval | None, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "range": percent_range(interval), "note": note}


def _tested_on(data: ReportData) -> str:
    if data.intervals is not None:
        return f"{data.intervals.n_groups} {data.intervals.unit}"
    return f"{data.scores.n_pixels:,} px" if data.scores else ""


def _test_note(data: ReportData) -> str:
    n = data.scores.n_pixels if data.scores else 0
    return f"{n:,} pixels in blocks that the model was not trained on"


def interval_note(data: ReportData) -> str:
    """Say what the intervals are, in one sentence."""
    if data.intervals is None:
        return ""
    return (
        f"Ranges are {100 * data.intervals.level:.0f}% intervals: how far the figure would move with other "
        f"{data.intervals.unit} ({data.intervals.n_groups} here, bootstrap over whole {data.intervals.unit})."
    )


def _scene_view(scene: ScenePictures, data: ReportData, is_first: bool) -> dict[str, Any]:
    plates = [_plate(scene, "The scene", pictures.jpeg_uri(scene.rgb), f"Quick-look of {scene.name}")]
    if scene.confidence is not None:
        plates.append(_confidence_plate(scene))
    if scene.distance is not None and data.ood is not None:
        plates.append(_ood_plate(scene, data))
    if scene.parts is not None:
        plates.append(_parts_plate(scene))
    return {
        "name": scene.name,
        "facts": scene.facts,
        "extent": _extent(scene),
        "map": _map_plate(scene, data.classes) if scene.classes is not None else None,
        "plates": plates,
        "is_first": is_first,
    }


def first_plate(data: ReportData) -> tuple[dict[str, Any], str]:
    """Return the map picture of the first scene and its extent."""
    return _map_plate(data.scenes[0], data.classes), _extent(data.scenes[0])


def _plate(scene: ScenePictures, title: str, uri: str, alt: str) -> dict[str, Any]:
    height, width = scene.rgb.shape[:2]
    plate: dict[str, Any] = {"title": title, "uri": uri, "alt": alt, "ratio": f"{width / height:.4f}"}
    plate |= {"is_small": width < 700, "scale": None, "swatches": [], "ramp": None, "note": ""}
    if scene.pixel_m is not None:
        length_m = pictures.nice_length_m(width * scene.pixel_m)
        text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
        plate["scale"] = {"text": text, "share": f"{100 * length_m / (width * scene.pixel_m):.2f}"}
    return plate


def _map_plate(scene: ScenePictures, classes: Sequence[ClassInfo]) -> dict[str, Any]:
    assert scene.classes is not None
    counts = np.bincount(scene.classes.reshape(-1), minlength=len(classes) + 1)[1 : len(classes) + 1]
    shares = counts / max(1, counts.sum())
    listed = ", ".join(f"{c.name} {percent(s)}" for c, s in zip(classes, shares, strict=True))
    colors = [safe_color(c.color) for c in classes]
    uri = pictures.png_uri(pictures.color_classes(scene.classes, colors))
    plate = _plate(scene, "The map", uri, f"Land-cover map of {scene.name}: {listed}")
    swatches = [(c.name, color, percent(s)) for c, color, s in zip(classes, colors, shares, strict=True)]
    plate["swatches"] = [*swatches, *_nodata_swatch(bool((scene.classes == 0).any()))]
    return plate


def _nodata_swatch(is_needed: bool) -> list[tuple[str, str, str]]:
    return [("no data", pictures.NODATA_COLOR, "")] if is_needed else []


def _confidence_plate(scene: ScenePictures) -> dict[str, Any]:
    assert scene.confidence is not None
    finite = scene.confidence[np.isfinite(scene.confidence)]
    middle = percent(float(np.median(finite))) if finite.size else NOT_AVAILABLE
    uri = pictures.png_uri(pictures.color_confidence(scene.confidence))
    plate = _plate(scene, "Confidence", uri, f"Confidence of the map; half of the pixels are above {middle}")
    plate["ramp"] = _ramp(pictures.CONFIDENCE_MAP, "0% unsure", "100% sure")
    plate["note"] = f"How sure the model is of the class shown. Half of the pixels are above {middle}."
    plate["swatches"] = _nodata_swatch(bool(np.isnan(scene.confidence).any()))
    return plate


def _ood_plate(scene: ScenePictures, data: ReportData) -> dict[str, Any]:
    assert scene.distance is not None
    assert data.ood is not None
    threshold = data.ood.threshold
    low, high = pictures.ood_limits(scene.distance, threshold)
    uri = pictures.png_uri(pictures.color_ood(scene.distance, threshold, scene.rgb))
    finite = scene.distance[np.isfinite(scene.distance)]
    share = percent(float((finite > threshold).mean())) if finite.size else NOT_AVAILABLE
    alt = f"Pixels unlike the training data are coloured: {share} of the scene"
    plate = _plate(scene, "Unlike the training data", uri, alt)
    plate["ramp"] = _ramp(pictures.OOD_MAP, f"threshold {low:.1f}", f"{high:.1f} far", start=0.12)
    plate["note"] = f"Coloured pixels ({share}) lie further from every labelled training pixel than the threshold."
    plate["swatches"] = [("like the training data", "#d6d8d5", "")]
    return plate


def _parts_plate(scene: ScenePictures) -> dict[str, Any]:
    assert scene.parts is not None
    uri = pictures.png_uri(pictures.color_parts(scene.rgb, scene.parts, PARTS, scene.test_blocks))
    plate = _plate(scene, "Which labels were used for what", uri, "Labels by their use, test blocks tinted")
    used = set(np.unique(scene.parts).tolist())
    plate["swatches"] = [
        (PART_TITLES[name], pictures.PART_COLORS[name], "")
        for position, name in enumerate(PARTS, start=1)
        if position in used
    ]
    if scene.test_blocks is not None:
        plate["note"] = "The tinted blocks were kept for the test: no label in them was used for training."
    return plate


def _ramp(name: str, low: str, high: str, start: float = 0.0) -> dict[str, str]:
    stops = pictures.ramp(name, 21)[round(20 * start) :]
    return {"stops": ", ".join(stops), "low": low, "high": high}


def _extent(scene: ScenePictures) -> str:
    if scene.bounds is None:
        return scene.crs
    left, bottom, right, top = scene.bounds
    return f"{scene.crs}  x {left:,.10g} to {right:,.10g}, y {bottom:,.10g} to {top:,.10g}".strip()
