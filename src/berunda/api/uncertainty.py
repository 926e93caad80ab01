"""How unsure a model is about images of sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from berunda.data.scaling import scale_pixels
from berunda.data.site_pixels import Patch, SitePixels
from berunda.data.sites import SiteSet
from berunda.mapping.arrays import predict_arrays
from berunda.mapping.bundle import Bundle
from berunda.mapping.patches import ScenePredictor
from berunda.mapping.predictor import Predictor
from berunda.progress import Progress

__all__ = ["check_model", "measure_uncertainty"]

_Confidence = Callable[[Sequence[Patch]], list[float]]


def check_model(bundle: Bundle, sites: SiteSet, names: Sequence[str] | None = None) -> None:
    """Refuse a model whose bands the sites do not have, before anything is computed; one image of each site is read.

    Args:
        bundle: the model.
        sites: the images.
        names: names for all bands of images that bear none of these.

    Raises:
        DataError: an image lacks a band of the model.
    """
    pixels = _pixels(bundle, sites, names)
    for site in range(len(sites.sites)):
        for index in sites.items_of([site])[:1]:
            pixels.read(int(index))


def measure_uncertainty(
    bundle: Bundle,
    sites: SiteSet,
    index: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    device: str = "auto",
    progress: Progress,
) -> np.ndarray:
    """Return (N,) 0..1: what is lacking of the calibrated confidence to 1, over what could lack; 0 where it is sure.

    Of a model that draws maps it is the mean over an image's valid pixels. NaN stands for images that were not asked
    for, have no valid pixel or cannot be read: nothing is known of them.

    Args:
        bundle: the model.
        sites: the images, with the model's bands.
        index: (n,) images to ask the model about.
        names: names for all bands of images that bear none of these.
        device: where to compute.
        progress: told of every batch.

    Raises:
        CheckpointError, SecurityError: the model's weights do not fit it.
        DataError: an image lacks a band of the model.
    """
    manifest = bundle.manifest
    pixels = _pixels(bundle, sites, names)
    is_map = manifest.task == "segmentation"
    confidence: _Confidence = _PixelConfidence(bundle, device) if is_map else _ImageConfidence(bundle, device)
    most = 0.5 if manifest.task == "multilabel" else 1 - 1 / max(2, len(manifest.classes))
    unsure = np.full(len(sites), np.nan)
    progress.start("uncertainty", len(index))
    start = 0
    for piece in pixels.every(index):
        known = [(place, patch) for place, patch in enumerate(piece, start) if _has_data(patch)]
        places = np.asarray(index, np.int64)[[place for place, _ in known]]
        sure = confidence([patch for _, patch in known if isinstance(patch, Patch)])
        unsure[places] = np.clip((1 - np.array(sure)) / most, 0, 1)
        start += len(piece)
        progress.advance(len(piece))
    progress.finish()
    return unsure


def _pixels(bundle: Bundle, sites: SiteSet, names: Sequence[str] | None) -> SitePixels:
    return SitePixels(sites, bands=bundle.manifest.band_names, names=names, source="the model of --bundle")


def _has_data(patch: object) -> bool:
    return isinstance(patch, Patch) and bool(patch.valid.any())


class _ImageConfidence:
    """Confidence of a model for whole images."""

    def __init__(self, bundle: Bundle, device: str) -> None:
        self._predictor = ScenePredictor(bundle, device)

    def __call__(self, patches: Sequence[Patch]) -> list[float]:
        sure = np.zeros(len(patches))
        for shape in dict.fromkeys(patch.valid.shape for patch in patches):  # images of one size go together
            mine = [i for i, patch in enumerate(patches) if patch.valid.shape == shape]
            scaling = self._predictor.scaling
            scaled = np.stack([scale_pixels(patches[i].pixels, patches[i].valid, *scaling) for i in mine])
            sure[mine] = self._predictor.confidence(self._predictor.predict(scaled))
        return sure.tolist()


class _PixelConfidence:
    """Mean confidence over the pixels of an image, of a model that draws maps."""

    def __init__(self, bundle: Bundle, device: str) -> None:
        self._predictor = Predictor(bundle, device)

    def __call__(self, patches: Sequence[Patch]) -> list[float]:
        images = [(patch.pixels, patch.valid) for patch in patches]
        planes = predict_arrays(self._predictor, images, self._predictor.batch)
        return [float(plane.confidence[patch.valid].mean()) for plane, patch in zip(planes, patches, strict=True)]
