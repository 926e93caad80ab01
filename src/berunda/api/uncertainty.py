"""How unsure a model is about each image of a set of sites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from berunda.data.scaling import scale_pixels
from berunda.data.site_pixels import Patch, SitePixels
from berunda.data.sites import SiteSet
from berunda.mapping.bundle import Bundle, load_bundle
from berunda.mapping.patches import ScenePredictor
from berunda.mapping.predictor import Predictor
from berunda.progress import Progress

__all__ = ["measure_uncertainty"]


def measure_uncertainty(bundle: Path | str, sites: SiteSet, *, device: str, progress: Progress) -> np.ndarray:
    """Return (N,) 0..1: what is lacking of the calibrated confidence to 1, over what could lack; 0 where it is sure.

    Of a model that draws maps it is the mean over an image's valid pixels. Images without a valid pixel, or that
    cannot be read, get 0.

    Args:
        bundle: the folder of the model.
        sites: the images, with the model's bands.
        device: where to compute.
        progress: told of every batch.

    Raises:
        CheckpointError, SecurityError: the model cannot be read.
        DataError: an image lacks a band of the model.
    """
    loaded = load_bundle(bundle)
    manifest = loaded.manifest
    pixels = SitePixels(sites, bands=manifest.band_names, source=f"the model {bundle}")
    confidence: Callable[[Patch], float]
    if manifest.task == "segmentation":
        confidence = _PixelConfidence(loaded, device)
    else:
        confidence = _ImageConfidence(loaded, device)
    most = 0.5 if manifest.task == "multilabel" else 1 - 1 / max(2, len(manifest.classes))
    unsure = np.zeros(len(sites))
    progress.start("uncertainty", len(sites))
    start = 0
    for piece in pixels.every(np.arange(len(sites))):
        for offset, patch in enumerate(piece):
            if isinstance(patch, Patch) and patch.valid.any():
                unsure[start + offset] = np.clip((1 - confidence(patch)) / most, 0, 1)
        start += len(piece)
        progress.advance(len(piece))
    progress.finish()
    return unsure


class _ImageConfidence:
    """Confidence of a model for whole images."""

    def __init__(self, bundle: Bundle, device: str) -> None:
        self._predictor = ScenePredictor(bundle, device)

    def __call__(self, patch: Patch) -> float:
        scaled = scale_pixels(patch.pixels, patch.valid, *self._predictor.scaling)
        probabilities = self._predictor.predict(scaled[None]).probabilities[0]
        if self._predictor.manifest.task == "multilabel":
            return float(np.maximum(probabilities, 1 - probabilities).mean())
        return float(probabilities.max())


class _PixelConfidence:
    """Mean confidence over the pixels of an image, of a model that draws maps."""

    def __init__(self, bundle: Bundle, device: str) -> None:
        self._predictor = Predictor(bundle, device)

    def __call__(self, patch: Patch) -> float:
        scaled = self._predictor.scale(patch.pixels, patch.valid)
        logits = self._predictor.features_and_logits(torch.from_numpy(scaled)[None])[1][0]
        temperature = self._predictor.manifest.calibration.temperature
        confidence = (logits / temperature).softmax(dim=0).max(dim=0).values.cpu().numpy()
        return float(confidence[patch.valid].mean())
