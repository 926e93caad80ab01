"""From drawn images to a bundle: train a net, calibrate it, and fit what tells unlike images apart."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from berunda.api.bundle_parts import calibration_part, ood_part
from berunda.api.drawn import Drawn
from berunda.api.fit import train_or_resume
from berunda.api.scene_checks import check_images
from berunda.assess.calibration import Temperature
from berunda.assess.classify import Classified
from berunda.assess.colors import class_colors
from berunda.assess.measures import measures_of
from berunda.data.image_source import ImageSource
from berunda.data.resampling import ResampledSource
from berunda.data.source import Source
from berunda.mapping.bundle import Bundle, current_versions, make_tensors
from berunda.mapping.manifest import (
    BandScale,
    ClassEntry,
    Manifest,
    NetSettings,
    Origin,
    Training,
)
from berunda.mapping.patches import PatchAnswers, ScenePredictor
from berunda.methods.contract import Method, NetSpec
from berunda.progress import Progress, Silent
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained

__all__ = ["Net", "SceneFitted", "ask_images", "classified", "fit_scene", "source_of"]

_CHUNK = 512


@dataclass(frozen=True)
class Net:
    """The net of a run on images.

    Attributes:
        encoder: its name.
        depth: stages of it in use.
        pretrained: whether it starts from pretrained weights.
        image_px: side of the images it is shown.
        frozen_stages: stages that keep their pretrained weights.
        symmetries: mirrored and turned views of an image whose answers are averaged: 1, 2, 4 or 8.
    """

    encoder: str
    depth: int
    pretrained: bool
    image_px: int
    frozen_stages: int = 0
    symmetries: Literal[1, 2, 4, 8] = 1

    def spec(self, drawn: Drawn) -> NetSpec:
        """Return the specification of the net for these images."""
        return NetSpec(
            task=drawn.images.task,
            n_bands=len(drawn.images.bands),
            n_classes=len(drawn.classes),
            encoder=self.encoder,
            encoder_depth=self.depth,
            pretrained=self.pretrained,
            crop_px=self.image_px,
            n_labelled=len(drawn.train),
            n_unlabelled=len(drawn.unlabelled),
            frozen_stages=self.frozen_stages,
        )


@dataclass(frozen=True)
class SceneFitted:
    """A trained and calibrated classifier of images.

    Attributes:
        method: what it was trained with.
        bundle: ready to save and to predict with.
        predictor: the bundle, ready to be asked.
        trained: what the loop left behind.
        temperature: how the confidence was calibrated.
        validation: what it makes of the validation images.
        labelled: what it makes of the training images with labels.
        earlier_s: seconds of the training in earlier processes, for one that was resumed.
    """

    method: Method
    bundle: Bundle
    predictor: ScenePredictor
    trained: Trained
    temperature: Temperature
    validation: Classified
    labelled: Classified
    earlier_s: float = 0.0


def source_of(drawn: Drawn, image_px: int) -> Source:
    """Return what the training draws from."""
    source = ImageSource(drawn.images, drawn.train, drawn.unlabelled, drawn.images.scaling())
    return source if drawn.images.size == (image_px, image_px) else ResampledSource(source, image_px)


def fit_scene(
    method: Method,
    drawn: Drawn,
    net: Net,
    settings: TrainConfig,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> SceneFitted:
    """Train `method` and return it calibrated, with its thresholds of unlikeness.

    Checkpoints in `folder` that belong to another run or are damaged are discarded, and the training starts anew.

    Args:
        method: what to train with.
        drawn: the images.
        net: which net.
        settings: the loop's.
        folder: where checkpoints go; None keeps none.
        progress: told of the training.

    Raises:
        DataError: the images are too small, or of too many classes, for a bundle.
    """
    check_images(drawn)
    source = source_of(drawn, net.image_px)
    start = time.perf_counter()
    trained = train_or_resume(method, net.spec(drawn), source, settings, folder, progress or Silent())
    earlier_s = max(0.0, trained.seconds - (time.perf_counter() - start))
    bare = Bundle(
        _manifest((method, trained.method), drawn, net, settings),
        make_tensors(trained.method, trained.model.net, trained.model.extra),
    )
    predictor = ScenePredictor(bare, settings.device)
    validation, labelled = (classified(predictor, drawn, index) for index in (drawn.validation, drawn.train))
    measures = measures_of(drawn.images.task)
    temperature = measures.fit_temperature(validation)
    distance = measures.fit_distance(labelled.features, labelled.labels)
    ood = ood_part(
        distance,
        validation.features,
        measures.energy(validation.logits),
        "labelled validation image",
        is_density=trained.method.has_density(),
    )
    update: dict[str, Any] = {"calibration": calibration_part(temperature), "ood": ood}
    thresholds = measures.thresholds(validation, temperature.value)
    if thresholds is not None:
        update["thresholds"] = tuple(thresholds.tolist())
    bundle = Bundle(
        bare.manifest.model_copy(update=update),
        make_tensors(trained.method, trained.model.net, trained.model.extra, distance.as_arrays()),
    )
    return SceneFitted(
        method=method,
        bundle=bundle,
        predictor=ScenePredictor(bundle, settings.device),
        trained=trained,
        temperature=temperature,
        validation=validation,
        labelled=labelled,
        earlier_s=earlier_s,
    )


def ask_images(predictor: ScenePredictor, drawn: Drawn, index: np.ndarray) -> PatchAnswers | None:
    """Return what the net says about some images, None of none; they are read piece by piece."""
    pieces = [index[start : start + _CHUNK] for start in range(0, len(index), _CHUNK)]
    answers = [predictor.predict(drawn.images.scaled(piece, predictor.scaling)) for piece in pieces]
    return PatchAnswers.joined(answers) if answers else None


def classified(predictor: ScenePredictor, drawn: Drawn, index: np.ndarray) -> Classified:
    """Return what the net makes of some images, beside their labels."""
    answers, labels = ask_images(predictor, drawn, index), drawn.labels(index)
    if answers is None:
        return Classified(np.zeros((0, len(drawn.classes)), np.float32), labels, None)
    return Classified(answers.logits, labels, answers.features)


def _manifest(methods: tuple[Method, Method], drawn: Drawn, net: Net, settings: TrainConfig) -> Manifest:
    """Return what the bundle says of itself; `methods` are the one that was asked for, and the one that ended."""
    asked, method = methods
    images, names = drawn.images, drawn.classes
    bands = zip(images.bands, *images.scaling(), strict=True)
    notes: dict[str, str | int | float | bool | None] = {
        "n_labelled_a_step": settings.n_labelled,
        "torch_threads": torch.get_num_threads(),
        "zero_is_missing": images.zero_is_missing,
    }
    if asked is not method:
        told = " ".join(f"{name}={value}" for name, value in _changed_options(asked).items())
        notes["trained_by"] = f"{asked.name} {told}"
    return Manifest(
        task=images.task,
        method=method.name,
        method_options=_changed_options(method),
        encoder=net.encoder,
        net=NetSettings(encoder_depth=net.depth, crop_px=net.image_px, symmetries=net.symmetries),
        bands=tuple(BandScale(name=n, low=float(low), high=float(high)) for n, low, high in bands),
        classes=tuple(
            ClassEntry(id=i, name=name, color=color)
            for i, (name, color) in enumerate(zip(names, class_colors(names), strict=True), start=1)
        ),
        window_px=round(float(np.sqrt(images.size[0] * images.size[1]))),
        margin_px=0,
        training=Training(
            scenes=(Origin(name=images.name, fingerprint=images.fingerprint),),
            labels=(_origin("training", drawn, drawn.train), _origin("validation", drawn, drawn.validation)),
            seed=settings.seed,
            steps=settings.steps,
            notes=notes,
        ),
        versions=current_versions(),
    )


def _changed_options(method: Method) -> dict[str, Any]:
    """Return the hyper-parameters of a method that differ from their defaults."""
    values = {item.name: (getattr(method, item.name), item.default) for item in fields(method)}
    return {name: value for name, (value, default) in values.items() if value != default}


def _origin(use: str, drawn: Drawn, index: np.ndarray) -> Origin:
    """Return which labelled images were used for what; the fingerprint is that of their names and labels."""
    digest = hashlib.sha256()
    for i in np.sort(index):
        digest.update(f"{drawn.images.names[i]}\0{drawn.images.labels[i].tolist()}\n".encode())
    return Origin(name=f"{len(index)} labelled images for {use}", fingerprint=digest.hexdigest())
