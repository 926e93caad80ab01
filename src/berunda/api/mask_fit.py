"""From drawn images with masks to a bundle that draws maps: train, calibrate, fit what tells unlike pixels apart."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from berunda.api.bundle_parts import calibration_part, ood_part
from berunda.api.fit import MARGIN_PX, WINDOW_PX, train_or_resume
from berunda.api.mask_ask import ask_pixels
from berunda.assess.calibration import Temperature, fit_temperature
from berunda.assess.colors import class_colors
from berunda.assess.ood import FeatureDistance, energy
from berunda.data.masks.draw import DrawnMasks
from berunda.data.masks.images import MaskSet
from berunda.data.masks.source import MaskSource
from berunda.errors import DataError
from berunda.mapping.bundle import Bundle, current_versions, make_tensors
from berunda.mapping.manifest import (
    BandScale,
    ClassEntry,
    Manifest,
    NetSettings,
    Origin,
    Training,
)
from berunda.mapping.predictor import Predictor
from berunda.methods.contract import Method, NetSpec
from berunda.models.spec import Decoder
from berunda.progress import Progress, Silent
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained

__all__ = ["MaskFitted", "MaskNet", "check_unlabelled", "colors_of", "fit_masks", "mask_source"]

_MAX_PIXELS = 20_000
_DEPTH, _SEGNET_DEPTH = 3, 5


@dataclass(frozen=True)
class MaskNet:
    """The net of a run on images with masks.

    Attributes:
        encoder: its name.
        depth: stages of it in use; None for what the decoder is made for: 5 of SegNet, 3 of others.
        pretrained: whether it starts from pretrained weights.
        crop_px: side of a training crop.
        decoder: its decoder; None for the one that a method asks for.
        frozen_stages: stages of the encoder, from the first, that keep their pretrained weights.
    """

    encoder: str
    depth: int | None
    pretrained: bool
    crop_px: int
    decoder: Decoder | None = None
    frozen_stages: int = 0

    def spec(self, drawn: DrawnMasks, method: Method) -> NetSpec:
        """Return the specification of the net that `method` gets for these images.

        SegNet has its published form: all five stages and no pixel path, where the options do not say otherwise.
        """
        decoder = self.decoder or method.needs().decoder
        return NetSpec(
            task="segmentation",
            n_bands=len(drawn.masks.bands),
            n_classes=len(drawn.classes),
            encoder=self.encoder,
            encoder_depth=self.depth or (_SEGNET_DEPTH if decoder == "segnet" else _DEPTH),
            pretrained=self.pretrained,
            crop_px=self.crop_px,
            pixel_path=decoder != "segnet",
            decoder=decoder,
            frozen_stages=self.frozen_stages,
        )


@dataclass(frozen=True)
class MaskFitted:
    """A trained and calibrated model for maps.

    Attributes:
        method: what it was trained with.
        bundle: ready to save and to map with.
        predictor: the bundle, ready to be asked.
        trained: what the loop left behind.
        temperature: how the confidence was calibrated.
        earlier_s: seconds of the training in earlier processes, for one that was resumed.
    """

    method: Method
    bundle: Bundle
    predictor: Predictor
    trained: Trained
    temperature: Temperature
    earlier_s: float = 0.0


def colors_of(masks: MaskSet) -> list[str]:
    """Return the colour of each class: the data set's own where it gives all of them, else the house's."""
    return list(masks.colors) if all(masks.colors) else class_colors(masks.classes)


def check_unlabelled(method: Method, drawn: DrawnMasks) -> None:
    """Refuse a method that learns from images without masks where no image is left to be shown without its mask.

    Raises:
        DataError: saying what to do.
    """
    if method.needs().unlabelled and not drawn.n_only_unlabelled:
        raise DataError(
            f"data set {drawn.masks.name}: the unlabelled split is empty: all {len(drawn.train)} training images are "
            f"used with their masks, and method {method.name!r} learns from images without; add images to unlabelled/, "
            "use fewer masks, or choose the method supervised"
        )


def mask_source(drawn: DrawnMasks, crop_px: int) -> MaskSource:
    """Return what the training draws from."""
    return MaskSource(drawn.masks, drawn.train, drawn.unlabelled, drawn.masks.scaling(), crop_px)


def fit_masks(
    method: Method,
    drawn: DrawnMasks,
    net: MaskNet,
    settings: TrainConfig,
    *,
    options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> MaskFitted:
    """Train `method` and return it calibrated, with its thresholds of unlikeness.

    Checkpoints in `folder` that belong to another run or are damaged are discarded, and the training starts anew.

    Args:
        method: what to train with.
        drawn: the images.
        net: which net.
        settings: the loop's.
        options: the method's hyper-parameters that differ from its defaults, for the bundle.
        folder: where checkpoints go; None keeps none.
        progress: told of the training.
    """
    source = mask_source(drawn, net.crop_px)
    start = time.perf_counter()
    trained = train_or_resume(method, net.spec(drawn, method), source, settings, folder, progress or Silent())
    earlier_s = max(0.0, trained.seconds - (time.perf_counter() - start))
    model = trained.model
    manifest = _manifest(trained.method, drawn, net, settings, options if trained.method == method else None)
    bare = Bundle(manifest, make_tensors(trained.method, model.net, model.extra))
    predictor = Predictor(bare, settings.device)
    held_out, labelled = (ask_pixels(predictor, drawn.masks, i, _MAX_PIXELS) for i in (drawn.validation, drawn.train))
    temperature = fit_temperature(held_out.logits, held_out.labels, groups=held_out.image)
    distance = FeatureDistance.fit(labelled.features, labelled.labels)
    ood = ood_part(
        distance,
        held_out.features,
        energy(held_out.logits),
        "labelled validation image",
        is_density=trained.method.has_density(),
    )
    update = {"calibration": calibration_part(temperature), "ood": ood}
    tensors = make_tensors(trained.method, model.net, model.extra, distance.as_arrays())
    bundle = Bundle(manifest.model_copy(update=update), tensors)
    return MaskFitted(method, bundle, Predictor(bundle, settings.device), trained, temperature, earlier_s)


def _manifest(
    method: Method, drawn: DrawnMasks, net: MaskNet, settings: TrainConfig, options: Mapping[str, Any] | None
) -> Manifest:
    masks, names, spec = drawn.masks, drawn.classes, net.spec(drawn, method)
    bands = zip(masks.bands, *masks.scaling(), strict=True)
    return Manifest(
        task="segmentation",
        method=method.name,
        method_options=dict(options or {}),
        encoder=net.encoder,
        net=NetSettings(
            encoder_depth=spec.encoder_depth, crop_px=spec.crop_px, pixel_path=spec.pixel_path, decoder=spec.decoder
        ),
        bands=tuple(BandScale(name=n, low=float(low), high=float(high)) for n, low, high in bands),
        classes=tuple(
            ClassEntry(id=i, name=name, color=color)
            for i, (name, color) in enumerate(zip(names, colors_of(masks), strict=True), start=1)
        ),
        window_px=WINDOW_PX,
        margin_px=MARGIN_PX,
        training=Training(
            scenes=(Origin(name=masks.name, fingerprint=masks.fingerprint),),
            labels=(_origin("training", drawn, drawn.train), _origin("validation", drawn, drawn.validation)),
            seed=settings.seed,
            steps=settings.steps,
            notes={"n_labelled_a_step": settings.n_labelled, "torch_threads": torch.get_num_threads()},
        ),
        versions=current_versions(),
    )


def _origin(use: str, drawn: DrawnMasks, index: np.ndarray) -> Origin:
    """Return which images' masks were used for what; the fingerprint is that of the data set and their names."""
    digest = hashlib.sha256(drawn.masks.fingerprint.encode())
    for i in np.sort(index):
        digest.update(f"{drawn.masks.names[i]}\n".encode())
    return Origin(name=f"{len(index)} images with masks for {use}", fingerprint=digest.hexdigest())
