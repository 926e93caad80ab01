"""Pictures of single images for the report of a classifier: what is made of hidden patches, what labels rest on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate

from berunda.api.drawn import Drawn
from berunda.api.pictures import true_colour_bands
from berunda.assess.multilabel import PLAIN_THRESHOLD
from berunda.assess.report_data import ImageLook
from berunda.mapping.bundle import Bundle
from berunda.mapping.looks import occlusion, refill
from berunda.mapping.patches import ScenePredictor

__all__ = ["looks_of"]

N_LOOKS, MAX_LABELS = 4, 3
_GREY = 150


def looks_of(bundle: Bundle, predictor: ScenePredictor, drawn: Drawn, n: int = N_LOOKS) -> tuple[ImageLook, ...]:
    """Return pictures of some test images, evenly spread over them, and what the labels that `predict` gives rest on.

    Args:
        bundle: the model.
        predictor: of the bundle.
        drawn: the images.
        n: at most so many.
    """
    index = drawn.test[np.linspace(0, len(drawn.test) - 1, min(n, len(drawn.test))).round().astype(int)]
    if not len(index):
        return ()
    pixels = drawn.images.scaled(index, predictor.scaling)
    filled = refill(bundle, pixels)
    bands = [drawn.images.bands.index(name) for name in true_colour_bands(drawn.images.bands)]
    thresholds = None
    if drawn.images.task == "multilabel":
        thresholds = np.array(bundle.manifest.thresholds or (PLAIN_THRESHOLD,) * len(drawn.classes))
    looks = []
    for i, image in enumerate(index):
        classes = _told(predictor.predict(pixels[i : i + 1]).probabilities[0], thresholds)
        falls = list(occlusion(predictor, pixels[i], classes)) if classes else []
        original = _picture(pixels[i], bands)
        masked = rebuilt = None
        if filled is not None:
            shown, visible, guess = (part[i] for part in filled)
            masked = np.where(visible[..., None], _picture(shown, bands), np.uint8(_GREY))
            rebuilt = _picture(guess, bands)
        reasons = tuple((drawn.classes[c], _overlaid(original, part)) for c, part in zip(classes, falls, strict=True))
        looks.append(ImageLook(drawn.images.names[image], original, masked, rebuilt, reasons))
    return tuple(looks)


def _told(probabilities: np.ndarray, thresholds: np.ndarray | None) -> list[int]:
    """Return the classes that `predict` gives an image: the likeliest, or all from their thresholds on, in that order.

    Args:
        probabilities: (C,).
        thresholds: (C,) of several labels; None where an image has one.
    """
    order = [int(c) for c in np.argsort(-probabilities)]
    return order[:1] if thresholds is None else [c for c in order if probabilities[c] >= thresholds[c]][:MAX_LABELS]


def _picture(pixels: np.ndarray, bands: Sequence[int]) -> np.ndarray:
    """Return scaled pixels (B, h, w) as colours (h, w, 3)."""
    shown = np.clip((pixels[list(bands)] + 1) / 2, 0, 1) ** 0.8
    colours: np.ndarray = (np.nan_to_num(shown, nan=1.0) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return colours


def _overlaid(picture: np.ndarray, fall: np.ndarray) -> np.ndarray:
    """Return the picture in grey, the redder the more the label rests on a part."""
    strength = torch.from_numpy(np.clip(fall, 0, None) / max(float(fall.max()), 1e-6))[None, None]
    spread = interpolate(strength.float(), picture.shape[:2], mode="bilinear", align_corners=False)
    heat = spread[0, 0, :, :, None].numpy()
    grey = picture.mean(2, keepdims=True).repeat(3, 2) * 0.6 + 80
    mixed = grey * (1 - 0.7 * heat) + np.array([214, 40, 40]) * 0.7 * heat
    overlaid: np.ndarray = mixed.clip(0, 255).astype(np.uint8)
    return overlaid
