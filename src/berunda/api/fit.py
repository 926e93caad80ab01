"""From prepared data to a bundle: train a net, calibrate it, and fit what tells unlike pixels apart."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from berunda.api.bundle_parts import calibration_part, ood_part
from berunda.api.evaluate import PixelTable, ask_net
from berunda.api.prepare import Prepared
from berunda.assess.calibration import Temperature, fit_temperature
from berunda.assess.colors import class_colors
from berunda.assess.ood import FeatureDistance, energy
from berunda.config import MapConfig
from berunda.data.scene_source import SceneSource
from berunda.data.source import Source
from berunda.data.splits import CALIBRATION, TRAIN
from berunda.errors import CheckpointError
from berunda.files import failed_write
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
from berunda.methods import make_method
from berunda.methods.contract import Method, NetSpec
from berunda.progress import Progress, Silent
from berunda.ranks import started_ranks
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained, train
from berunda.train.passes import passes_per_step, with_passes

__all__ = [
    "EFFORT_STEPS",
    "MARGIN_PX",
    "WINDOW_PX",
    "Fitted",
    "fit",
    "share_training",
    "spec_of",
    "train_config",
    "train_or_resume",
]

EFFORT_STEPS: Mapping[str, int] = {"quick": 300, "standard": 1200, "thorough": 6000}
"""Training steps by effort; about 2, 6 and 30 minutes on two cores with everything around them."""
N_LABELLED = 8
WINDOW_PX = 448
MARGIN_PX = 16
_MAX_OOD_PIXELS = 20_000


@dataclass(frozen=True)
class Fitted:
    """A trained and calibrated model.

    Attributes:
        method: what it was trained with.
        bundle: ready to save and to map with.
        predictor: the bundle, ready to be asked.
        trained: what the loop left behind.
        temperature: how the confidence was calibrated.
    """

    method: Method
    bundle: Bundle
    predictor: Predictor
    trained: Trained
    temperature: Temperature


def spec_of(method: Method, prepared: Prepared, config: MapConfig) -> NetSpec:
    """Return the specification of the net that `method` gets for this map."""
    return NetSpec(
        task="segmentation",
        n_bands=len(prepared.band_names),
        n_classes=prepared.n_classes,
        encoder=config.encoder,
        encoder_depth=config.encoder_depth,
        pretrained=config.pretrained,
        crop_px=config.crop_px,
        pixel_path=True,
        decoder=config.decoder or method.needs().decoder,
    )


def train_config(config: MapConfig, *, n_labelled: int = N_LABELLED, run_key: str = "") -> TrainConfig:
    """Return the loop's settings for this map."""
    return TrainConfig(
        steps=config.steps or EFFORT_STEPS[config.effort],
        n_labelled=n_labelled,
        seed=config.seed,
        device=config.device,
        run_key=run_key,
    )


def fit(
    method: Method,
    prepared: Prepared,
    source: SceneSource,
    table: PixelTable,
    config: MapConfig,
    settings: TrainConfig,
    *,
    folder: Path | None = None,
    has_ood: bool = True,
    progress: Progress | None = None,
) -> Fitted:
    """Train `method` and return it calibrated, with its out-of-distribution layer.

    Checkpoints in `folder` that belong to another run or are damaged are discarded, and the training starts anew.

    Args:
        method: what to train with.
        prepared: scenes, labels and split.
        source: training images.
        table: labelled pixels of all parts.
        config: the run's options.
        settings: the loop's.
        folder: where checkpoints go; None keeps none.
        has_ood: fit the out-of-distribution layer; a model that draws no map needs none.
        progress: told of the training.
    """
    trained = train_or_resume(method, spec_of(method, prepared, config), source, settings, folder, progress or Silent())
    bare = Bundle(
        _manifest(method, prepared, config, settings),
        make_tensors(trained.method, trained.model.net, trained.model.extra),
    )
    predictor = Predictor(bare, config.device)
    held_out = table.of(CALIBRATION)
    on_held_out = ask_net(predictor, prepared, held_out, features=has_ood)
    temperature = fit_temperature(on_held_out.logits, held_out.classes - 1, groups=held_out.polygon)
    update: dict[str, object] = {"calibration": calibration_part(temperature)}
    tensors = bare.tensors
    if has_ood:
        rows = _subsample(table.of(TRAIN), prepared.n_classes)
        distance = FeatureDistance.fit(ask_net(predictor, prepared, rows).features, rows.classes - 1)
        energies = energy(on_held_out.logits)
        update["ood"] = ood_part(
            distance,
            on_held_out.features,
            energies,
            "held-out labelled pixel",
            is_density=trained.method.has_density(),
        )
        tensors = make_tensors(trained.method, trained.model.net, trained.model.extra, distance.as_arrays())
    bundle = Bundle(bare.manifest.model_copy(update=update), tensors)
    return Fitted(method, bundle, Predictor(bundle, config.device), trained, temperature)


def share_training(
    method: Method, prepared: Prepared, source: SceneSource, config: MapConfig, settings: TrainConfig, folder: Path
) -> None:
    """Take the part of a rank other than the first in what `fit` trains on the first; nothing of it is kept."""
    train_or_resume(method, spec_of(method, prepared, config), source, settings, folder, Silent())


def method_of(config: MapConfig) -> Method:
    """Return the method that `config` names, with its options."""
    return make_method(config.method, config.method_options)


def supervised_settings(settings: TrainConfig, method: Method) -> TrainConfig:
    """Return the settings that give the supervised net as many image passes a step as `method` takes.

    Of several ranks each takes as many.
    """
    return with_passes(settings, passes_per_step(method, settings.n_labelled))


def train_or_resume(
    method: Method, spec: NetSpec, source: Source, settings: TrainConfig, folder: Path | None, progress: Progress
) -> Trained:
    """Train, going on from the checkpoints in `folder` where they are whole and of this run."""
    try:
        return train(method, spec, source, settings, folder=folder, progress=progress)
    except CheckpointError as error:
        if folder is None:
            raise
        reason = str(error).rsplit("; ", 1)[0]
        progress.note(f"checkpoints of an earlier run are discarded, training starts anew: {reason}")
        if started_ranks()[0] == 0 or settings.ranks == "alone":  # the other ranks wait for the first
            try:
                shutil.rmtree(folder)
            except OSError as failure:
                raise failed_write(folder, 0, failure) from failure
    return train(method, spec, source, settings, folder=folder, progress=progress)


def _subsample(table: PixelTable, n_classes: int) -> PixelTable:
    """Return at most 20,000 rows, every class as evenly as it goes, spread over the table."""
    share = _MAX_OOD_PIXELS // n_classes
    kept = []
    for class_id in range(1, n_classes + 1):
        mine = np.flatnonzero(table.classes == class_id)
        if len(mine) > share:
            mine = mine[np.linspace(0, len(mine) - 1, share).astype(np.int64)]
        kept.append(mine)
    return table.take(np.sort(np.concatenate(kept)))


def _manifest(method: Method, prepared: Prepared, config: MapConfig, settings: TrainConfig) -> Manifest:
    names, spec = prepared.labels.class_names, spec_of(method, prepared, config)
    bands = zip(prepared.band_names, *prepared.scaling, strict=True)
    return Manifest(
        task="segmentation",
        method=method.name,
        method_options=dict(config.method_options) if config.method == method.name else {},
        encoder=config.encoder,
        net=NetSettings(
            encoder_depth=spec.encoder_depth,
            crop_px=spec.crop_px,
            pixel_path=spec.pixel_path,
            decoder=spec.decoder,
        ),
        bands=tuple(BandScale(name=n, low=float(low), high=float(high)) for n, low, high in bands),
        classes=tuple(
            ClassEntry(id=i, name=name, color=color)
            for i, (name, color) in enumerate(zip(names, class_colors(names), strict=True), start=1)
        ),
        window_px=WINDOW_PX,
        margin_px=MARGIN_PX,
        training=Training(
            scenes=tuple(Origin(name=s.name, fingerprint=s.fingerprint()) for s in prepared.scenes),
            labels=_used_labels(prepared),
            seed=settings.seed,
            steps=settings.steps,
            notes={"n_labelled_a_step": settings.n_labelled, "torch_threads": torch.get_num_threads()},
        ),
        versions=current_versions(),
    )


def _used_labels(prepared: Prepared) -> tuple[Origin, ...]:
    """Return every polygon that the model or its calibration has seen, by fingerprint."""
    used = np.flatnonzero(np.isin(prepared.split.part, (TRAIN, CALIBRATION)))
    name = Path(prepared.labels.source).name
    return tuple(Origin(name=f"{name}, polygon {i}", fingerprint=prepared.labels.fingerprints[i]) for i in used)
