"""What a net says about whole images: classes everywhere, and logits and features where they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from berunda.data.masks.images import MaskSet
from berunda.data.order import Randomness
from berunda.geo.grid import Window
from berunda.mapping.plan import Lattice
from berunda.mapping.predictor import Predictor

__all__ = ["ImageAnswer", "PixelAnswers", "ask_image", "ask_pixels", "sample_places"]


@dataclass(frozen=True)
class ImageAnswer:
    """What a net says about one image.

    Attributes:
        classes: (rows, columns) uint8, 1..C, 0 where there is no data.
        logits: (k, C) float32 at the places asked for.
        features: (k, D) float32 at them; (k, 0) where they were not asked for.
    """

    classes: np.ndarray
    logits: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class PixelAnswers:
    """What a net says at labelled pixels of several images.

    Attributes:
        logits: (n, C) float32.
        labels: (n,) int64, 0..C-1.
        features: (n, D) float32.
        image: (n,) index of the image of each pixel.
    """

    logits: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    image: np.ndarray


def sample_places(masks: MaskSet, index: int, n: int, seed: int = 0) -> np.ndarray:
    """Return rows and columns (k, 2) of at most `n` labelled pixels of an image, the same for every model."""
    places = np.flatnonzero(masks.codes(index).ravel() < len(masks.classes))
    if len(places) > n:
        draw = Randomness(seed).numpy("asked pixels", index)
        places = np.sort(draw.choice(places, n, replace=False))
    return np.stack(np.divmod(places, int(masks.sizes[index, 1])), axis=1)


def ask_pixels(predictor: Predictor, masks: MaskSet, index: np.ndarray, n_pixels: int) -> PixelAnswers:
    """Return what the net says at about `n_pixels` labelled pixels of some images, as many of each."""
    logits, labels, features, image = [], [], [], []
    for i in index:
        places = sample_places(masks, int(i), max(1, n_pixels // len(index)))
        answer = ask_image(predictor, masks, int(i), places, features=True)
        logits.append(answer.logits)
        features.append(answer.features)
        labels.append(masks.labels(int(i))[places[:, 0], places[:, 1]])
        image.append(np.full(len(places), i))
    n_classes = len(masks.classes)
    return PixelAnswers(
        logits=np.concatenate([np.zeros((0, n_classes), np.float32), *logits]),
        labels=np.concatenate([np.zeros(0, np.int64), *labels]),
        features=np.concatenate(features) if features else np.zeros((0, 1), np.float32),
        image=np.concatenate([np.zeros(0, np.int64), *image]),
    )


def ask_image(
    predictor: Predictor, masks: MaskSet, index: int, places: np.ndarray, *, features: bool = False
) -> ImageAnswer:
    """Return what the net says about an image, window by window as maps are made.

    Args:
        predictor: the net.
        masks: the data set.
        index: of the image.
        places: (k, 2) rows and columns at which logits are kept.
        features: keep the features there too.
    """
    manifest = predictor.manifest
    lattice = Lattice(manifest.window_px, manifest.margin_px, 1)
    rows, cols = (int(side) for side in masks.sizes[index])
    classes = np.zeros((rows, cols), np.uint8)
    logits = np.zeros((len(places), len(manifest.classes)), np.float32)
    kept: list[np.ndarray] = [np.zeros((0, 0), np.float32)] * len(places) if features else []
    for window in _windows(lattice, rows, cols):
        outer = window.pad(lattice.margin_px)
        pixels, valid, _ = masks.crop(index, outer, predictor.scaling)
        if not valid.any():
            continue
        decoded, said = predictor.features_and_logits(torch.from_numpy(pixels)[None])
        inner = Window(lattice.margin_px, lattice.margin_px, window.n_rows, window.n_cols).slices
        best = said[0].argmax(0).cpu().numpy()[inner] + 1
        classes[window.slices] = np.where(valid[inner], best, 0)
        mine = np.flatnonzero(_inside(places, window))
        if len(mine):
            at = places[mine, 0] - outer.row, places[mine, 1] - outer.col
            logits[mine] = said[0].cpu().numpy()[:, at[0], at[1]].T
            for number, row in zip(mine, decoded[0].cpu().numpy()[:, at[0], at[1]].T if features else (), strict=False):
                kept[number] = row
    return ImageAnswer(classes, logits, np.stack(kept) if kept else np.zeros((len(places), 0), np.float32))


def _windows(lattice: Lattice, rows: int, cols: int) -> Iterator[Window]:
    """Yield the windows of an image, the last ones cut at its end."""
    for (window,) in lattice.batches(Window(0, 0, rows, cols)):
        yield Window(
            window.row, window.col, min(window.n_rows, rows - window.row), min(window.n_cols, cols - window.col)
        )


def _inside(places: np.ndarray, window: Window) -> np.ndarray:
    row, col = places[:, 0], places[:, 1]
    inside = (row >= window.row) & (row < window.row_stop) & (col >= window.col) & (col < window.col_stop)
    return np.asarray(inside)
