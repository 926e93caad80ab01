"""What a method reaches on test images with masks, as figures and as a row of the benchmark protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.api.mask_ask import ImageAnswer, ask_image, sample_places
from berunda.api.mask_fit import MaskFitted, MaskNet, fit_masks
from berunda.api.scene_result import RunInfo
from berunda.assess.calibration import CalibrationFigures, calibration_figures
from berunda.assess.forest import PixelForest
from berunda.assess.majority import majority_gain
from berunda.assess.metrics import confusion_matrix, score
from berunda.bench.weight_tables import weight_field
from berunda.cores import allowed_cores
from berunda.data.masks.draw import DrawnMasks
from berunda.methods.contract import Method, NetSpec
from berunda.progress import Progress
from berunda.train.config import TrainConfig
from berunda.train.passes import image_passes

__all__ = ["FOREST", "MaskResult", "forest_masks", "mask_row", "net_masks"]

FOREST = "random_forest"
"""The classical floor: a random forest on the bands of single pixels."""
MAX_GROUPS = 256
"""Confusion matrices that a row keeps at most; with more test images several share one."""
_MAX_PIXELS = 200_000
_LEAST = 1e-6  # probability of a class that no tree votes for
_CHUNK = 1 << 20

Answer = Callable[[int, np.ndarray], ImageAnswer]


@dataclass(frozen=True)
class MaskResult:
    """What one method reached.

    Attributes:
        method: its name.
        encoder: its encoder, "" for none.
        figures: plain JSON values, fractions of 1.
        by_image: (G, C, C) confusion matrices of groups of test images, one each where there are at most 256.
        before, after: calibration on test pixels, as it came and as it is stated.
        shown: (rows, columns) uint8 classes of the test images that were asked to be kept, by index.
        wall_s: wall time of the run from the opened images to the last figure, over all the processes that it took.
        image_passes: crops it was trained on, counted with repetition; forward passes alone as a third.
        images_per_s: those passes a second of training.
        training_s: seconds of it in the training loop; 0 where no net is trained.
        fitted: the trained net; None for the forest.
        variant: what tells it from other runs of the method; "" for nothing.
        facts: which net was trained in how many steps, how many crops a step had on average, and when the training
            diverged and went back; for its row.
    """

    method: str
    encoder: str
    figures: dict[str, Any]
    by_image: np.ndarray
    before: CalibrationFigures
    after: CalibrationFigures
    shown: Mapping[int, np.ndarray] = field(default_factory=dict)
    wall_s: float = 0.0
    image_passes: float = 0.0
    images_per_s: float = 0.0
    training_s: float = 0.0
    fitted: MaskFitted | None = None
    variant: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Method and variant, as the report's comparison groups them."""
        return f"{self.method}, {self.variant}" if self.variant else self.method


def net_masks(
    method: Method,
    drawn: DrawnMasks,
    net: MaskNet,
    settings: TrainConfig,
    *,
    keep: tuple[int, ...] = (),
    options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    progress: Progress,
) -> MaskResult:
    """Train a net, calibrate it, and measure it on the test images.

    Args:
        method, drawn, net, settings, options, folder, progress: as those of `fit_masks`.
        keep: test images whose predicted classes are kept.
    """
    start = time.perf_counter()
    fitted = fit_masks(method, drawn, net, settings, options=options, folder=folder, progress=progress)

    def answer(index: int, places: np.ndarray) -> ImageAnswer:
        return ask_image(fitted.predictor, drawn.masks, index, places)

    measured = _measured(drawn, answer, fitted.temperature.value, keep, progress)
    told = {"temperature": fitted.temperature.value, "temperature_fitted": fitted.temperature.is_fitted}
    trained, passes = fitted.trained.seconds, image_passes(method, settings)
    return MaskResult(
        method=method.name,
        encoder=net.encoder,
        figures={**measured.figures, **told},
        by_image=measured.by_image,
        before=measured.before,
        after=measured.after,
        shown=measured.shown,
        wall_s=time.perf_counter() - start + fitted.earlier_s,
        training_s=trained,
        image_passes=passes,
        images_per_s=passes / max(trained, 1e-9),
        fitted=fitted,
        facts=_facts(fitted, net.spec(drawn, method), settings),
    )


def _facts(fitted: MaskFitted, spec: NetSpec, settings: TrainConfig) -> dict[str, Any]:
    return {
        "decoder": spec.decoder,
        "encoder_depth": spec.encoder_depth,
        "has_pixel_path": spec.pixel_path,
        "is_pretrained": spec.pretrained,
        "steps": settings.steps,
        "labelled_a_step": settings.n_labelled,
        "returned": list(fitted.trained.returned),
        "unlabelled_a_step": round(fitted.trained.images_seen / settings.steps - settings.n_labelled, 2),
        **weight_field(fitted.trained.log),
    }


def forest_masks(drawn: DrawnMasks, seed: int, *, keep: tuple[int, ...] = (), progress: Progress) -> MaskResult:
    """Train a random forest on labelled pixels of the labelled images, and measure it on the test images."""
    start = time.perf_counter()
    masks, n_classes = drawn.masks, len(drawn.classes)
    values, classes = [], []
    for index in drawn.train:
        places = sample_places(masks, int(index), _MAX_PIXELS // len(drawn.train), seed)
        values.append(masks.pixels(int(index))[:, places[:, 0], places[:, 1]].T.astype(np.float32))
        classes.append(masks.labels(int(index))[places[:, 0], places[:, 1]] + 1)
    forest = PixelForest(seed, n_jobs=min(8, allowed_cores())).fit(
        np.nan_to_num(np.concatenate(values)), np.concatenate(classes)
    )

    def answer(index: int, places: np.ndarray) -> ImageAnswer:
        values, where = _distinct(masks.pixels(index))
        shares = [forest.probabilities(values[i : i + _CHUNK], n_classes) for i in range(0, len(values), _CHUNK)]
        said = np.concatenate(shares)
        classes = (said.argmax(1) + 1).astype(np.uint8)[where].reshape(masks.sizes[index])
        asked = said[where.reshape(masks.sizes[index])[places[:, 0], places[:, 1]]]
        return ImageAnswer(classes, np.log(np.maximum(asked, _LEAST)), np.zeros((len(places), 0), np.float32))

    found = _measured(drawn, answer, 1.0, keep, progress)
    told = (found.figures, found.by_image, found.before, found.after, found.shown)
    return MaskResult(FOREST, "", *told, wall_s=time.perf_counter() - start)


def _distinct(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different pixels (k, B) float32 of an image (B, h, w), and which of them each of its pixels is.

    A forest is slow, and an image of 8 bits has far fewer colours than pixels.
    """
    rows = np.ascontiguousarray(pixels.reshape(len(pixels), -1).T)
    width = rows.dtype.itemsize * rows.shape[1]
    if width > 8:
        return np.nan_to_num(rows.astype(np.float32)), np.arange(len(rows))
    packed = np.zeros((len(rows), 8), np.uint8)
    packed[:, :width] = rows.view(np.uint8).reshape(len(rows), width)
    _, first, where = np.unique(packed.view(np.uint64).ravel(), return_index=True, return_inverse=True)
    return np.nan_to_num(rows[first].astype(np.float32)), where.ravel()


class _Measured(NamedTuple):
    """What `_measured` finds: fields of the same names in `MaskResult`."""

    figures: dict[str, Any]
    by_image: np.ndarray
    before: CalibrationFigures
    after: CalibrationFigures
    shown: dict[int, np.ndarray]


def _measured(
    drawn: DrawnMasks, answer: Answer, temperature: float, keep: tuple[int, ...], progress: Progress
) -> _Measured:
    """Return the figures on the test images, and the classes of those that are kept."""
    masks, n_classes = drawn.masks, len(drawn.classes)
    matrices, logits, labels, shown = [], [], [], {}
    progress.start("test images", len(drawn.test))
    for index in map(int, drawn.test):
        places = sample_places(masks, index, max(1, _MAX_PIXELS // len(drawn.test)))
        said, truth = answer(index, places), masks.labels(index)
        matrices.append(confusion_matrix(truth + 1, said.classes, n_classes, first_id=1))
        logits.append(said.logits)
        labels.append(truth[places[:, 0], places[:, 1]])
        if index in keep:
            shown[index] = said.classes
        progress.advance()
    progress.finish()
    by_image = np.stack(matrices)
    said_NC, true_N = np.concatenate(logits), np.concatenate(labels)
    before, after = (calibration_figures(said_NC, true_N, value) for value in (1.0, temperature))
    calibration = {"ece": after.ece, "ece_before": before.ece, "nll": after.nll}
    n = len(by_image)
    group = np.arange(n) * min(n, MAX_GROUPS) // n
    groups = np.stack([by_image[group == g].sum(axis=0) for g in range(int(group.max()) + 1)])
    return _Measured(
        {**_scores(drawn, by_image), **calibration, "by_image": groups.tolist()}, groups, before, after, shown
    )


def _scores(drawn: DrawnMasks, by_image: np.ndarray) -> dict[str, Any]:
    """Return plain JSON values: scores over all test pixels, by class and by site."""
    names, total = drawn.classes, by_image.sum(axis=0)
    scores, majority = score(total, names), majority_gain(by_image)
    sites = np.array([drawn.masks.sites[i] for i in drawn.test])
    by_site = {site: score(by_image[sites == site].sum(axis=0), names) for site in sorted(set(sites)) if site}
    return {
        "oa": scores.oa,
        "miou": scores.miou,
        "macro_f1": scores.macro_f1,
        "iou": dict(zip(names, scores.iou, strict=True)),
        "recall": dict(zip(names, scores.recall, strict=True)),
        "majority_miou": majority.majority_miou,
        "is_collapsed": majority.is_collapsed,
        "confusion": total.tolist(),
        "by_site": {site: {"oa": found.oa, "miou": found.miou} for site, found in by_site.items()},
        "n_test": len(by_image),
        "n_test_px": int(total.sum()),
        "n_validation": len(drawn.validation),
    }


def mask_row(result: MaskResult, drawn: DrawnMasks, info: RunInfo) -> dict[str, Any]:
    """Return a result as a row of the benchmark protocol; its wall time counts the opening of the decoded images in."""
    return {
        "suite": info.suite,
        "dataset": drawn.masks.name,
        "task": "segmentation",
        "method": result.method,
        "variant": info.variant,
        "encoder": result.encoder,
        "labels": info.labels,
        "labels_unit": info.labels_unit,
        "seed": info.seed,
        "metrics": result.figures,
        "wall_s": round(drawn.masks.opening_s + result.wall_s, 2),
        "training_s": round(result.training_s, 2),
        "images_per_s": round(result.images_per_s, 1),
        "image_passes": round(result.image_passes),
        "is_transductive": False,
        "n_labelled": len(drawn.train),
        **result.facts,
        "protocol": info.protocol,
        "hardware": hardware(),
        "command": info.command,
        "version": __version__,
    }
