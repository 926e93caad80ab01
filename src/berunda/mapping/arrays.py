"""Predicting an image that is held in memory whole, window by window as maps are made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from berunda.geo.grid import Window
from berunda.mapping.plan import Lattice
from berunda.mapping.predictor import Planes, Predictor

__all__ = ["predict_array"]


def predict_array(predictor: Predictor, values: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]) -> Planes:
    """Return what the model makes of every pixel of an image.

    Args:
        predictor: the model.
        values: (B, rows, columns) raw pixels, the model's bands in its order.
        valid: (rows, columns) bool.

    Returns:
        Planes of (rows, columns).
    """
    manifest = predictor.manifest
    lattice = Lattice(manifest.window_px, manifest.margin_px, 1)
    rows, cols = valid.shape
    result = Planes.empty(rows, cols)
    for (window,) in lattice.batches(Window(0, 0, rows, cols)):
        outer = window.pad(lattice.margin_px)
        raw = np.zeros((len(values), outer.n_rows, outer.n_cols), np.float32)
        seen = np.zeros((outer.n_rows, outer.n_cols), bool)
        held = outer.intersect(Window(0, 0, rows, cols))
        assert held is not None
        into, at = held.slices_in(outer), held.slices
        raw[:, into[0], into[1]] = values[:, at[0], at[1]]
        seen[into] = valid[at]
        if not seen.any():
            continue
        said = predictor.predict(predictor.scale(raw, seen)[None], seen[None])
        n_rows, n_cols = min(window.n_rows, rows - window.row), min(window.n_cols, cols - window.col)
        place = (slice(window.row, window.row + n_rows), slice(window.col, window.col + n_cols))
        for target, source in zip(result.arrays(), said.arrays(), strict=True):
            target[place] = source[0, :n_rows, :n_cols]
    return result
