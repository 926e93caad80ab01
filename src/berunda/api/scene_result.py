"""What a method reaches on the test images of a data set, as figures and as a row of the benchmark protocol."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.api.drawn import Drawn
from berunda.api.scene_fit import Net, SceneFitted, classified, fit_scene
from berunda.assess.classify import Classified
from berunda.assess.measures import measures_of
from berunda.mapping.patches import ScenePredictor
from berunda.methods.contract import Method
from berunda.progress import Progress
from berunda.train.config import TrainConfig
from berunda.train.passes import AllImages, image_passes

__all__ = ["RunInfo", "SceneResult", "all_images", "net_result", "passes_of_run", "scene_row"]

_SINGLE_VIEW = (
    *("oa", "macro_auprc", "macro_f1", "macro_f1_tuned"),
    *("ece", "ece_before", "nll", "nll_before", "temperature"),
)


@dataclass(frozen=True)
class SceneResult:
    """What one method reached.

    Attributes:
        method: its name.
        encoder: its encoder.
        figures: of the task's `berunda.assess.measures.Measures`; where a net answers over symmetries of an image,
            those that end in `_single_view` are of its answers to the images as they are, as published figures are.
        test: what it makes of the test images.
        wall_s: wall time of the run from the opened images to the last figure, over all the processes that it took.
        image_passes: images it was trained on, counted with repetition; forward passes alone as a third.
        images_per_s: those passes a second of training; images a second where nothing is trained.
        training_s: seconds of it in the training loop; 0 where no net is trained.
        is_transductive: whether it saw the test images without their labels.
        fitted: the trained net; None for a method that trains none.
        validation: the task's first metric on the validation images; None where there are none, or nothing is trained.
    """

    method: str
    encoder: str
    figures: dict[str, Any]
    test: Classified
    wall_s: float
    image_passes: float
    images_per_s: float
    training_s: float = 0.0
    is_transductive: bool = False
    fitted: SceneFitted | None = None
    validation: float | None = None


@dataclass(frozen=True)
class RunInfo:
    """What a row says of the run beside its result.

    Attributes:
        suite: the benchmark, or "train".
        labels: how many labels were used, and in which unit.
        labels_unit: "per_class" or "fraction".
        seed: of the run.
        command: a command line that makes it again.
        protocol: how it was trained and tested, in words.
        variant: settings that differ from the method's defaults, "" for none.
    """

    suite: str
    labels: int | float | str
    labels_unit: str
    seed: int
    command: str
    protocol: str
    variant: str = ""


def all_images(drawn: Drawn, net: Net) -> AllImages:
    """Return what a method that looks at all images of a run looks at."""
    return AllImages(len(drawn.train) + len(drawn.unlabelled), net.image_px, net.pretrained)


def passes_of_run(method: Method, settings: TrainConfig, drawn: Drawn, net: Net) -> float:
    """Return what a training costs in trained image passes, see `image_passes`."""
    return image_passes(method, settings, all_images(drawn, net))


def net_result(
    method: Method,
    drawn: Drawn,
    net: Net,
    settings: TrainConfig,
    *,
    folder: Path | None = None,
    progress: Progress,
) -> SceneResult:
    """Train a net, calibrate it, and measure it on the test images; arguments as those of `fit_scene`."""
    start = time.perf_counter()
    fitted = fit_scene(method, drawn, net, settings, folder=folder, progress=progress)
    test = classified(fitted.predictor, drawn, drawn.test)
    figures = measures_of(drawn.images.task).figures(fitted.validation, test, class_names=drawn.classes)
    if net.symmetries > 1:
        figures |= _single_view(fitted, drawn, settings.device)
    trained, passes = fitted.trained.seconds, passes_of_run(method, settings, drawn, net)
    return SceneResult(
        method=method.name,
        encoder=net.encoder,
        figures=figures,
        test=test,
        wall_s=time.perf_counter() - start + fitted.earlier_s,
        training_s=trained,
        image_passes=passes,
        images_per_s=passes / max(trained, 1e-9),
        fitted=fitted,
        validation=measures_of(drawn.images.task).score(fitted.validation),
    )


def _single_view(fitted: SceneFitted, drawn: Drawn, device: str) -> dict[str, float]:
    """Return the agreement and the calibration of the same net without averaging over symmetries."""
    predictor = ScenePredictor(fitted.bundle, device, n_symmetries=1)
    validation, test = (classified(predictor, drawn, index) for index in (drawn.validation, drawn.test))
    figures = measures_of(drawn.images.task).figures(validation, test, class_names=drawn.classes)
    return {f"{name}_single_view": figures[name] for name in _SINGLE_VIEW if name in figures}


def scene_row(result: SceneResult, drawn: Drawn, info: RunInfo) -> dict[str, Any]:
    """Return a result as a row of the benchmark protocol; its wall time counts the opening of the decoded images in."""
    return {
        "suite": info.suite,
        "dataset": drawn.images.name,
        "task": drawn.images.task,
        "method": result.method,
        "variant": info.variant,
        "encoder": result.encoder,
        "labels": info.labels,
        "labels_unit": info.labels_unit,
        "seed": info.seed,
        "metrics": result.figures,
        "validation": result.validation,
        "wall_s": round(drawn.images.opening_s + result.wall_s, 2),
        "training_s": round(result.training_s, 2),
        "images_per_s": round(result.images_per_s, 1),
        "image_passes": round(result.image_passes),
        "is_transductive": result.is_transductive,
        "n_labelled": len(drawn.train),
        "n_skipped": len(drawn.images.skipped),
        **({} if result.fitted is None else {"n_returns": len(result.fitted.trained.returned)}),
        "protocol": info.protocol,
        "hardware": hardware(),
        "command": info.command,
        "version": __version__,
    }
