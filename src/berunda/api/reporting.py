"""From a finished map run to what its report shows."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from berunda._version import __version__
from berunda.api.compare import Result, command_of, comparison_row, hardware
from berunda.api.evaluate import PixelTable
from berunda.api.label_rule import LabelRule
from berunda.api.pictures import pictures_of
from berunda.api.prepare import Prepared
from berunda.assess.calibration import Temperature
from berunda.assess.intervals import bootstrap_interval, paired_bootstrap
from berunda.assess.metrics import score
from berunda.assess.ood import aupr, auroc, fpr95
from berunda.assess.report_data import (
    CalibrationFacts,
    ClassInfo,
    ComparisonDifference,
    LabelCount,
    LossCurve,
    OodFacts,
    PseudoLabels,
    ReportData,
    TrainingFacts,
)
from berunda.data.splits import CALIBRATION, TEST, TRAIN, UNUSED
from berunda.geo.raster import Scene, open_scenes
from berunda.mapping.result import MapResult
from berunda.methods.contract import Method

if TYPE_CHECKING:
    from berunda.api.fit import Fitted
    from berunda.api.pipeline import MapRun

__all__ = [
    "build_report",
    "cloud_scores",
    "label_counts",
    "loss_curves_of",
    "provenance_of",
    "pseudo_labels_of",
    "starved_classes",
    "went_back",
]

_PARTS = (("train", TRAIN), ("calibration", CALIBRATION), ("test", TEST), ("unused", UNUSED))
_CURVE_POINTS = 100
_SHARES = re.compile(r"(used|pseudo)(_\d+)?")
_STARVED = 0.001
MAX_RULE_PIXELS = 1 << 20


def build_report(run: MapRun) -> ReportData:
    """Return the report's data; nothing is trained or mapped here."""
    assert run.fitted is not None
    assert run.shipped is not None
    own = run.results[-1] if run.results else None
    names = run.prepared.labels.class_names
    return ReportData(
        title=f"Land-cover map of {', '.join(s.name for s in run.prepared.scenes)}",
        classes=_classes(run),
        scenes=tuple(pictures_of(run.prepared, i, m.files) for i, m in enumerate(run.maps)),
        scores=score(own.confusion, names) if own else None,
        intervals=bootstrap_interval(own.by_polygon, unit="polygons") if own else None,
        confusion=own.confusion if own else None,
        comparison=tuple(comparison_row(r, run.prepared, run.config) for r in run.results),
        differences=tuple(_difference(own, other) for other in run.results[:-1]) if own else (),
        calibration=CalibrationFacts(
            run.shipped.temperature,
            own.before if own else None,
            own.calibration if own else None,
            measured_on=_measured_on(run),
        ),
        ood=_ood_facts(run),
        training=_training(run),
        timing=dict(run.seconds),
        warnings=_warnings(run),
        is_transductive=bool(run.method.needs().unlabelled) and run.config.test_share > 0,
        attribution=run.attribution,
        provenance=provenance_of(command_of(run.config)),
    )


def cloud_scores(prepared: Prepared, maps: list[MapResult], rule: LabelRule) -> dict[str, float]:
    """Return how well the layers of `ood.tif` find the pixels that pass `rule` among all pixels of the maps."""
    distance, energy, truth = (np.concatenate(parts) for parts in zip(*_rule_pixels(prepared, maps, rule), strict=True))
    found = {
        "AUROC, feature distance": auroc(distance, truth),
        "AUPR, feature distance": aupr(distance, truth),
        "FPR at 95% TPR, feature distance": fpr95(distance, truth),
        "AUROC, energy": auroc(energy, truth),
    }
    return {name: value for name, value in found.items() if value is not None}


def _rule_pixels(
    prepared: Prepared, maps: list[MapResult], rule: LabelRule
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield distance, energy and truth of about a million pixels in all, on a regular raster of places."""
    n_px = sum(s.grid.shape.n_pixels for s in prepared.scenes)
    step = max(1, int(np.ceil(np.sqrt(n_px / MAX_RULE_PIXELS))))
    for scene, made in zip(prepared.scenes, maps, strict=True):
        band: Scene = scene.select([rule.band])
        with open_scenes([made.files.ood])[0] as layers:
            for window in scene.grid.tiles(1024):
                raw, layer = band.read(window), layers.read(window)
                seen = (raw.valid & layer.valid)[::step, ::step]
                distance, energy = layer.values[:2, ::step, ::step][:, seen]
                yield distance, energy, np.asarray(rule.holds(raw.values[0, ::step, ::step][seen]))


def _classes(run: MapRun) -> tuple[ClassInfo, ...]:
    assert run.shipped is not None
    infos = []
    for entry in run.shipped.bundle.manifest.classes:
        areas = [m.class_area_m2.get(entry.name) for m in run.maps]
        known = [a for a in areas if a is not None]
        infos.append(
            ClassInfo(
                name=entry.name,
                color=entry.color,
                n_mapped_px=sum(m.class_pixels.get(entry.name, 0) for m in run.maps),
                area_ha=sum(known) / 10_000 if len(known) == len(areas) and known else None,
            )
        )
    return tuple(infos)


def _difference(own: Result, other: Result) -> ComparisonDifference:
    return ComparisonDifference(
        own.method, other.method, paired_bootstrap(own.by_polygon, other.by_polygon, unit="polygons")
    )


def _ood_facts(run: MapRun) -> OodFacts | None:
    shipped: Fitted | None = run.shipped
    assert shipped is not None
    ood = shipped.bundle.manifest.ood
    if ood is None or ood.threshold is None:
        return None
    n_valid = sum(sum(m.class_pixels.values()) for m in run.maps)
    n_above = sum((m.ood_share or 0.0) * sum(m.class_pixels.values()) for m in run.maps)
    scores, note = {}, ""
    if run.config.drop_labels_where:
        rule = LabelRule.parse(run.config.drop_labels_where)
        scores = cloud_scores(run.prepared, run.maps, rule)
        note = f"Measured on the pixels of the scene: those with {rule} are taken as unlike, all others as alike."
    return OodFacts(
        threshold=ood.threshold,
        threshold_energy=ood.threshold_energy,
        share_map=n_above / n_valid if n_valid else None,
        share_test=run.results[-1].ood_share if run.results and not run.config.refit else None,
        n_held_out_px=ood.n_pixels,
        scores=scores,
        note=note,
    )


def label_counts(prepared: Prepared, table: PixelTable) -> tuple[LabelCount, ...]:
    """Return the polygons and pixels of each class and part."""
    return tuple(
        LabelCount(
            class_name=name,
            part=part_name,
            n_polygons=int(np.count_nonzero((prepared.split.part == part) & (prepared.labels.class_ids == i))),
            n_pixels=int(np.count_nonzero((table.part == part) & (table.classes == i))),
        )
        for i, name in enumerate(prepared.labels.class_names, start=1)
        for part_name, part in _PARTS
    )


def _training(run: MapRun) -> TrainingFacts:
    assert run.shipped is not None
    prepared, trained = run.prepared, run.shipped.trained
    facts = {
        "Crop": f"{run.config.crop_px} px",
        "Blocks": f"{prepared.split.block_px} px, buffer {prepared.split.buffer_px} px",
        "Calibration": _calibration_sentence(run.shipped.temperature),
    }
    if run.config.refit:
        facts["Figures"] = _figures_sentence(run)
    return TrainingFacts(
        method=run.method.name,
        encoder=run.config.encoder,
        n_steps=run.settings.steps,
        images_seen=trained.images_seen,
        seed=run.config.seed,
        facts=facts,
        fingerprints=tuple(o.fingerprint for o in run.shipped.bundle.manifest.training.labels),
        is_refit=run.config.refit,
        label_counts=run.shipped_counts or label_counts(prepared, run.table),
        curves=tuple(loss_curves_of(trained.log)),
        pseudo_labels=pseudo_labels_of(trained.log, prepared.labels.class_names),
        returned=trained.returned,
    )


def _calibration_sentence(t: Temperature) -> str:
    if not t.is_fitted:
        return "not calibrated: too few held-out labels"
    end = "" if t.is_calibrated else "not calibrated: "
    at = "" if t.is_calibrated else "the end of its range, "
    told = f"fitted on {t.n_pixels} pixels of {t.n_groups} polygons held out of training"
    return f"{end}temperature {t.value:.2f}, {at}{told}"


def _figures_sentence(run: MapRun) -> str:
    """Say which model the figures of a run with a refit are of; all else describes the shipped one."""
    assert run.fitted is not None
    n_train, n_test = (int(np.count_nonzero(run.prepared.split.part == part)) for part in (TRAIN, TEST))
    return (
        f"those of the model before the refit, trained on {n_train} polygons and tested on {n_test} others; its "
        f"calibration: {_calibration_sentence(run.fitted.temperature)}"
    )


def _measured_on(run: MapRun) -> str:
    assert run.fitted is not None
    if not run.config.refit:
        return "test polygons"
    return f"test polygons (by the model before the refit, at its temperature {run.fitted.temperature.value:.2f})"


def loss_curves_of(log: list[dict[str, float]]) -> Iterator[LossCurve]:
    """Yield the loss terms, averaged over about a hundred stretches of the training."""
    if not log:
        return
    hidden = ("step", "stage_index", "gradient_norm", "learning_rate")
    names = [n for n in log[-1] if n not in hidden and not _SHARES.fullmatch(n)]
    size = max(1, len(log) // _CURVE_POINTS)
    groups = [log[i : i + size] for i in range(0, len(log), size)]
    for name in names:
        with_it = [[row for row in group if name in row] for group in groups]
        kept = [group for group in with_it if group]
        steps = tuple(int(group[-1]["step"]) + 1 for group in kept)
        yield LossCurve(name, steps, tuple(float(np.mean([row[name] for row in group])) for group in kept))


def provenance_of(command: str) -> dict[str, str]:
    """Return by what, when, how and on what a report is made."""
    return {
        "Made by": f"Berunda {__version__}",
        "Date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Command": command,
        "Hardware": hardware(),
    }


def pseudo_labels_of(log: list[dict[str, float]], class_names: Sequence[str]) -> tuple[PseudoLabels, ...]:
    """Return how much each class was pseudo-labelled in the last stage; nothing of methods that label nothing."""
    rows = [row for row in log if "pseudo_0" in row and row["stage_index"] == log[-1]["stage_index"]]
    if not rows:
        return ()
    tenth = -(-len(rows) // 10)
    first, last = rows[:tenth], rows[-tenth:]

    def mean(part: list[dict[str, float]], name: str) -> float:
        return float(np.mean([row[name] for row in part]))

    return tuple(
        PseudoLabels(name, mean(first, f"used_{c}"), mean(last, f"used_{c}"), mean(last, f"pseudo_{c}"))
        for c, name in enumerate(class_names)
    )


def starved_classes(told: Sequence[PseudoLabels], method: Method) -> Iterator[str]:
    """Yield a warning where classes got hardly any pseudo-label, so that unlabelled images taught nothing of them."""
    starved = [entry.class_name for entry in told if entry.share < _STARVED]
    if starved:
        has_threshold = "threshold" in {item.name for item in fields(method)}
        advice = "; a lower threshold may help (--option threshold=VALUE)" if has_threshold else ""
        yield (
            f"Fewer than one in a thousand unlabelled pixels were pseudo-labelled {', '.join(starved)}, so the "
            f"unlabelled imagery taught next to nothing of it{advice}."
        )


def went_back(returned: Sequence[str]) -> Iterator[str]:
    """Yield a warning where a training diverged and went back, see `berunda.train.loop.Trained`."""
    if returned:
        times = "once" if len(returned) == 1 else f"{len(returned)} times"
        yield (
            f"The training diverged {times} and went back to an earlier step, from where it went on with smaller "
            "steps; how it was made says when and why. Another seed or a lower learning rate may do without."
        )


def _warnings(run: MapRun) -> tuple[str, ...]:
    found = list(run.prepared.warnings)
    found += [warning for made in run.maps for warning in made.warnings]
    if run.shipped is not None:
        told = pseudo_labels_of(run.shipped.trained.log, run.prepared.labels.class_names)
        found += [*starved_classes(told, run.method), *went_back(run.shipped.trained.returned)]
    if not run.results:
        found.append("No label was held out: the accuracy of this map is not known.")
    if run.config.refit:
        found.append(
            "The shipped model was trained again on all labels but those kept for calibration; the figures are those "
            "of the model before, on labels it had not seen."
        )
    return tuple(dict.fromkeys(found))
