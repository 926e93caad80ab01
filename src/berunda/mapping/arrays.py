"""Predicting images that are held in memory whole, window by window as maps are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from berunda.geo.grid import Window
from berunda.mapping.plan import Lattice
from berunda.mapping.predictor import Planes, Predictor

__all__ = ["predict_array", "predict_arrays"]


class _Cut(NamedTuple):
    """A window with its margin: number of its image, its place there, raw pixels (B, h, w) and where they are data."""

    image: int
    window: Window
    raw: npt.NDArray[np.float32]
    seen: npt.NDArray[np.bool_]


def predict_array(predictor: Predictor, values: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]) -> Planes:
    """Return what the model makes of every pixel of an image.

    Args:
        predictor: the model.
        values: (B, rows, columns) raw pixels, the model's bands in its order.
        valid: (rows, columns) bool.

    Returns:
        Planes of (rows, columns).
    """
    return predict_arrays(predictor, [(values, valid)])[0]


def predict_arrays(
    predictor: Predictor, images: Sequence[tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]], batch: int = 1
) -> list[Planes]:
    """Return what the model makes of every pixel of some images.

    Args:
        predictor: the model.
        images: of each (B, rows, columns) raw pixels, the model's bands in its order, and (rows, columns) bool where
            they are data.
        batch: windows that go through the net at once, of several images; with 1 the answer for an image does not
            depend on the others, not even in the last bits.

    Returns:
        Planes of (rows, columns) for each.
    """
    results = [Planes.empty(*valid.shape) for _, valid in images]
    waiting: list[_Cut] = []
    for number, (values, valid) in enumerate(images):
        for cut in _cuts(predictor, number, values, valid):
            waiting.append(cut)
            if len(waiting) == batch:
                _predict(predictor, waiting, results)
                waiting = []
    if waiting:
        _predict(predictor, waiting, results)
    return results


def _cuts(
    predictor: Predictor, number: int, values: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]
) -> Iterator[_Cut]:
    """Yield the windows of an image in which there is data."""
    manifest, whole = predictor.manifest, Window(0, 0, *valid.shape)
    lattice = Lattice(manifest.window_px, manifest.margin_px, 1)
    for (window,) in lattice.batches(whole):
        outer = window.pad(lattice.margin_px)
        raw = np.zeros((len(values), outer.n_rows, outer.n_cols), np.float32)
        seen = np.zeros((outer.n_rows, outer.n_cols), bool)
        held = outer.intersect(whole)
        assert held is not None
        into, at = held.slices_in(outer), held.slices
        raw[:, into[0], into[1]] = values[:, at[0], at[1]]
        seen[into] = valid[at]
        if seen.any():
            yield _Cut(number, window, raw, seen)


def _predict(predictor: Predictor, cuts: Sequence[_Cut], results: Sequence[Planes]) -> None:
    """Write what the model says about windows into the planes of their images."""
    pixels = np.stack([predictor.scale(cut.raw, cut.seen) for cut in cuts])
    said = predictor.predict(pixels, np.stack([cut.seen for cut in cuts]))
    for turn, cut in enumerate(cuts):
        window, targets = cut.window, results[cut.image].arrays()
        rows, cols = targets[0].shape
        n_rows, n_cols = min(window.n_rows, rows - window.row), min(window.n_cols, cols - window.col)
        place = (slice(window.row, window.row + n_rows), slice(window.col, window.col + n_cols))
        for target, source in zip(targets, said.arrays(), strict=True):
            target[place] = source[turn, :n_rows, :n_cols]
