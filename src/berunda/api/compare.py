"""The comparison of a map run: what a random forest and the supervised net make of the same labels and test pixels."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from berunda._version import __version__
from berunda.api.evaluate import PixelTable, ask_net
from berunda.api.fit import Fitted, fit, supervised_settings
from berunda.api.prepare import Prepared
from berunda.assess.calibration import CalibrationFigures, calibration_figures
from berunda.assess.forest import PixelForest
from berunda.assess.metrics import confusion_matrix, grouped_confusion, score
from berunda.assess.ood import FeatureDistance
from berunda.config import MapConfig
from berunda.cores import allowed_cores
from berunda.data.scene_source import SceneSource
from berunda.data.splits import TEST, TRAIN
from berunda.geo.resolve import is_remote
from berunda.methods.contract import Method
from berunda.progress import Progress
from berunda.train.config import TrainConfig

__all__ = ["Result", "comparison_row", "forest_result", "hardware", "net_result", "supervised_result"]

_LEAST = 1e-6  # probability of a class that no tree votes for


@dataclass(frozen=True)
class Result:
    """What one method reached on the test pixels.

    Attributes:
        method: its name in the comparison.
        encoder: encoder, "" for none.
        predicted: (n,) class 1..C of each test pixel.
        confusion: (C, C), truth in rows.
        by_polygon: (G, C, C) the same for each test polygon.
        before: calibration of its raw probabilities.
        calibration: calibration of the probabilities that are shown.
        wall_s: training time in seconds.
        image_passes: images it was trained on, counted with repetition; forward passes alone as a third.
        is_transductive: it learned from unlabelled images, which may show the ground of the test.
        ood_share: share of the test pixels that its out-of-distribution layer flags; None without such a layer.
        facts: further figures for its row.
    """

    method: str
    encoder: str
    predicted: np.ndarray
    confusion: np.ndarray
    by_polygon: np.ndarray
    before: CalibrationFigures
    calibration: CalibrationFigures
    wall_s: float = 0.0
    image_passes: float = 0.0
    is_transductive: bool = False
    ood_share: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def net_result(fitted: Fitted, prepared: Prepared, test: PixelTable, name: str, image_passes: float) -> Result:
    """Return what a trained net reaches on the test pixels."""
    ood = fitted.bundle.manifest.ood
    threshold = None if ood is None else ood.threshold
    answers = ask_net(fitted.predictor, prepared, test, features=threshold is not None)
    facts = {
        "temperature": fitted.temperature.value,
        "images_per_s": image_passes / max(fitted.trained.seconds, 1e-9),
    }
    encoder = fitted.bundle.manifest.encoder
    result = _result(name, encoder, test, answers.logits, fitted.temperature.value)
    return replace(
        result,
        wall_s=fitted.trained.seconds,
        image_passes=image_passes,
        is_transductive=bool(fitted.method.needs().unlabelled),
        ood_share=None if threshold is None else _share_above(fitted, answers.features, threshold),
        facts=facts,
    )


def _share_above(fitted: Fitted, features: np.ndarray, threshold: float) -> float | None:
    if not len(features):
        return None
    layer = FeatureDistance.from_arrays(fitted.bundle.distance_arrays())
    return float((layer.distance(features) > threshold).mean())


def forest_result(prepared: Prepared, table: PixelTable, seed: int) -> Result:
    """Train the random forest on the training pixels and return what it reaches on the test pixels."""
    start = time.perf_counter()
    train, test = table.of(TRAIN), table.of(TEST)
    forest = PixelForest(seed, n_jobs=min(8, allowed_cores())).fit(train.values, train.classes)
    seconds = time.perf_counter() - start
    probabilities = forest.probabilities(test.values, prepared.n_classes)
    return replace(_result("random_forest", "", test, np.log(np.maximum(probabilities, _LEAST)), 1.0), wall_s=seconds)


def supervised_result(
    method: Method,
    prepared: Prepared,
    source: SceneSource,
    table: PixelTable,
    config: MapConfig,
    settings: TrainConfig,
    folder: Path | None,
    progress: Progress | None,
) -> Result:
    """Train the supervised net with as many image passes as `method` takes and return what it reaches.

    Checkpoints go to `folder`, from which an interrupted comparison goes on.
    """
    from berunda.methods import make_method

    equal = supervised_settings(settings, method)
    supervised = make_method("supervised", {})
    fitted = fit(supervised, prepared, source, table, config, equal, folder=folder, has_ood=False, progress=progress)
    return net_result(fitted, prepared, table.of(TEST), "supervised", float(equal.steps * equal.n_labelled))


def comparison_row(result: Result, prepared: Prepared, config: MapConfig, *, suite: str = "map") -> dict[str, Any]:
    """Return the result as a row of the benchmark protocol."""
    names = prepared.labels.class_names
    scores = score(result.confusion, names)
    metrics: dict[str, Any] = {"oa": scores.oa, "miou": scores.miou, "macro_f1": scores.macro_f1}
    metrics["iou"] = dict(zip(names, scores.iou, strict=True))
    metrics |= {"ece": result.calibration.ece, "ece_before": result.before.ece, "nll": result.calibration.nll}
    metrics.update({k: v for k, v in result.facts.items() if k != "images_per_s"})
    return {
        "suite": suite,
        "dataset": prepared.scenes[0].name,
        "task": "segmentation",
        "method": result.method,
        "encoder": result.encoder,
        "labels": config.polygons_per_class or 1.0,
        "labels_unit": "polygons_per_class" if config.polygons_per_class else "fraction",
        "seed": config.seed,
        "metrics": metrics,
        "wall_s": round(result.wall_s, 2),
        "images_per_s": round(float(result.facts.get("images_per_s", 0.0)), 1),
        "image_passes": round(result.image_passes),
        "n_test_px": int(result.confusion.sum()),
        "is_transductive": result.is_transductive,
        "hardware": hardware(),
        "command": command_of(config),
        "version": __version__,
    }


def command_of(config: MapConfig) -> str:
    """Return a command line that makes this run again in a folder DIR, local files by name."""
    words = ["berunda", "map", *map(_file_name, config.scenes)]
    for key, path in (("--labels", config.labels), ("--mask", config.mask)):
        words += [] if path is None else [key, _file_name(path)]
    for key, value in config.model_dump(mode="json", exclude_defaults=True).items():
        if key in ("scenes", "labels", "mask", "method_options", "classes") or value is None:
            continue
        flag = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    if config.classes:
        words += ["--classes", ",".join(f"{a}={b}" for a, b in config.classes.items())]
    for name, value in config.method_options.items():
        words += ["--option", f"{name}={value}"]
    return shlex.join([*words, "--out", "DIR"])


def _file_name(path: str) -> str:
    return path if is_remote(path) else Path(path).name


def hardware() -> str:
    """Return processor, the cores that the process may use, and accelerator in one line."""
    import torch

    name = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        name = platform.processor() or name
    cores = allowed_cores()
    text = f"{name}, {cores} core{'s' * (cores > 1)}"
    return f"{text}, {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else text


def _result(name: str, encoder: str, test: PixelTable, logits: np.ndarray, temperature: float) -> Result:
    n_classes = logits.shape[1]
    predicted = logits.argmax(1) + 1
    labels = test.classes.astype(np.int64) - 1
    return Result(
        method=name,
        encoder=encoder,
        predicted=predicted,
        confusion=confusion_matrix(test.classes, predicted, n_classes, first_id=1),
        by_polygon=grouped_confusion(test.classes, predicted, test.polygon, n_classes, first_id=1),
        before=calibration_figures(logits, labels),
        calibration=calibration_figures(logits, labels, temperature),
    )
