"""What a map report holds: plain frozen values, filled by the caller, rendered by `berunda.assess.report`.

Nearly every part is optional: what is left out is left out of the page, and nothing is made up for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.assess.calibration import CalibrationFigures, Temperature
from berunda.assess.intervals import ScoreDifferences, ScoreIntervals
from berunda.assess.metrics import Scores

__all__ = [
    "PARTS",
    "CalibrationFacts",
    "ClassInfo",
    "ComparisonDifference",
    "ImageLook",
    "LabelCount",
    "LossCurve",
    "OodFacts",
    "PseudoLabels",
    "ReportData",
    "ScenePictures",
    "TrainingFacts",
]

PARTS = ("train", "calibration", "test", "unused")
"""Names of the label parts; `ScenePictures.parts` holds 1-based positions in this tuple, 0 = no label."""


@dataclass(frozen=True)
class ClassInfo:
    """One class of the map: its name, its colour "#rrggbb" and what the map gives it."""

    name: str
    color: str
    n_mapped_px: int | None = None
    area_ha: float | None = None


@dataclass(frozen=True)
class ImageLook:
    """Pictures of one whole image, each uint8 (h, w, 3).

    Attributes:
        name: of the image.
        original: as it is.
        masked: with parts hidden; None of a model that fills nothing.
        rebuilt: as the model fills those; None likewise.
        reasons: label -> which parts of the image it rests on.
    """

    name: str
    original: npt.NDArray[np.uint8]
    masked: npt.NDArray[np.uint8] | None
    rebuilt: npt.NDArray[np.uint8] | None
    reasons: tuple[tuple[str, npt.NDArray[np.uint8]], ...]


@dataclass(frozen=True)
class ScenePictures:
    """Quick-looks of one scene, all on one picture grid of h x w pixels (about 1000 px at the longer side).

    Attributes:
        name: of the scene.
        rgb: uint8 (h, w, 3) quick-look, already stretched.
        classes: uint8 (h, w), 0 = nodata, else 1..C.
        confidence: float32 (h, w), 0 to 1, NaN = nodata.
        distance: float32 (h, w), feature distance, NaN = nodata.
        parts: uint8 (h, w), 0 = no label, else 1-based position in `PARTS`.
        test_blocks: bool (h, w), True inside the spatial blocks held out for testing.
        pixel_m: metres on the ground per picture pixel, None where unknown (no scale bar then).
        bounds: (left, bottom, right, top) in units of `crs`.
        crs: short name, such as "EPSG:32633".
        facts: things to know about the scene, in order, as label -> text ("Size": "1536 x 768 px of 10 m").
    """

    name: str
    rgb: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8] | None = None
    confidence: npt.NDArray[np.float32] | None = None
    distance: npt.NDArray[np.float32] | None = None
    parts: npt.NDArray[np.uint8] | None = None
    test_blocks: npt.NDArray[np.bool_] | None = None
    pixel_m: float | None = None
    bounds: tuple[float, float, float, float] | None = None
    crs: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelCount:
    """How many polygons and pixels of one class one part holds (`part` is one of `PARTS`)."""

    class_name: str
    part: str
    n_polygons: int
    n_pixels: int


@dataclass(frozen=True)
class LossCurve:
    """One term of the training loss over the steps."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class PseudoLabels:
    """How much a class was pseudo-labelled on unlabelled images; shares of pixels (or images), fractions of 1.

    Attributes:
        class_name: the class.
        believed_first: of what was predicted to be of the class, the share that was believed, in the first tenth of the
            training; 0 where nothing was predicted so.
        believed: the same in the last tenth.
        share: of all unlabelled pixels, the share that carried the class as a pseudo-label in the last tenth.
    """

    class_name: str
    believed_first: float
    believed: float
    share: float


@dataclass(frozen=True)
class TrainingFacts:
    """What was trained on what.

    Attributes:
        method: registered name ("fixmatch").
        encoder: name of the encoder.
        n_steps: optimiser steps.
        images_seen: image passes, all streams together.
        seed: of the run.
        facts: further things to know, label -> text, in order.
        fingerprints: of every polygon that the shipped model saw (training and calibration).
        is_refit: the shipped model was retrained on all labels after the figures were taken.
        label_counts: polygons and pixels per class and part.
        curves: loss terms over the steps.
        pseudo_labels: one entry a class, of methods that label unlabelled images.
        returned: for each time that the training diverged and went back to an earlier step, what had happened.
    """

    method: str
    encoder: str = ""
    n_steps: int | None = None
    images_seen: int | None = None
    seed: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    fingerprints: tuple[str, ...] = ()
    is_refit: bool = False
    label_counts: tuple[LabelCount, ...] = ()
    curves: tuple[LossCurve, ...] = ()
    pseudo_labels: tuple[PseudoLabels, ...] = ()
    returned: tuple[str, ...] = ()


@dataclass(frozen=True)
class CalibrationFacts:
    """Calibration before and after temperature scaling, measured on the pixels that `measured_on` names."""

    temperature: Temperature
    before: CalibrationFigures | None = None
    after: CalibrationFigures | None = None
    measured_on: str = "test polygons"


@dataclass(frozen=True)
class OodFacts:
    """The layer of unlikeness: its thresholds and what they flag (shares are fractions of 1).

    Attributes:
        threshold: feature distance above which a pixel is flagged.
        threshold_energy: the same for the energy.
        share_map: share of the mapped pixels that are flagged.
        share_test: share of the labelled test pixels that are flagged.
        n_held_out_px: labelled pixels that the threshold was set on.
        scores: measured detection scores, label -> value ("AUROC, cloud against clear": 0.91).
        note: how those were measured, in one sentence.
    """

    threshold: float
    threshold_energy: float | None = None
    share_map: float | None = None
    share_test: float | None = None
    n_held_out_px: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class ComparisonDifference:
    """A paired difference a - b of two methods of the comparison."""

    method_a: str
    method_b: str
    differences: ScoreDifferences


@dataclass(frozen=True)
class ReportData:
    """All that a map report shows.

    Attributes:
        title: of the page.
        classes: in the order of the map's codes 1..C.
        scenes: pictures of each scene mapped; the first is shown on the first screen.
        scores: on held-out test blocks, None when there were none.
        intervals: bootstrap intervals of the scores.
        confusion: (C, C) counts of test pixels, truth in rows.
        comparison: rows in the form of the benchmark protocol: suite, dataset, task, method, encoder, labels,
            labels_unit, seed, metrics {oa, miou, ...}, wall_s, ... one a finished run.
        differences: paired differences between methods of the comparison.
        calibration: of the confidence layer.
        ood: the layer of unlikeness.
        training: what was trained on what.
        timing: seconds per phase, in order.
        warnings: plain-language sentences, most important first.
        is_transductive: unlabelled training windows covered test blocks.
        attribution: sources and licences of imagery and labels, one sentence each.
        provenance: label -> text: version, command, date, hardware.
    """

    title: str
    classes: tuple[ClassInfo, ...]
    scenes: tuple[ScenePictures, ...] = ()
    scores: Scores | None = None
    intervals: ScoreIntervals | None = None
    confusion: npt.NDArray[np.int64] | None = None
    comparison: tuple[Mapping[str, Any], ...] = ()
    differences: tuple[ComparisonDifference, ...] = ()
    calibration: CalibrationFacts | None = None
    ood: OodFacts | None = None
    training: TrainingFacts | None = None
    timing: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    is_transductive: bool = False
    attribution: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
