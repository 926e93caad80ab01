"""A closer look at single images: what a model fills hidden patches with, and what of an image a label rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from berunda.data.order import Randomness
from berunda.data.resampling import resample_images
from berunda.mapping.bundle import Bundle
from berunda.mapping.patches import ScenePredictor

__all__ = ["CELL_PX", "hide_cells", "occlusion", "refill"]

CELL_PX = 16
"""Side of the squares that are hidden to see what is made of the rest: whole patches of the house's transformers."""

Pixels = npt.NDArray[np.float32]


def hide_cells(n: int, side_px: int, ratio: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return (n, side, side): which pixels of square images stay visible when `ratio` of their cells is hidden.

    Args:
        n: images.
        side_px: of an image; cells of `CELL_PX`, or of 8 px if only they divide it.
        ratio: share that is hidden, at least one cell and never all.
        seed: of the draw.
    """
    cell = next(px for px in (CELL_PX, 8, 1) if side_px % px == 0)
    grid = side_px // cell
    n_hidden = min(max(1, round(ratio * grid * grid)), grid * grid - 1)
    order = Randomness(seed).numpy("looks").random((n, grid * grid)).argsort(1).argsort(1)
    visible = (order >= n_hidden).reshape(n, grid, grid)
    return visible.repeat(cell, 1).repeat(cell, 2)


@torch.no_grad()
def refill(bundle: Bundle, pixels: Pixels, seed: int = 0) -> tuple[Pixels, npt.NDArray[np.bool_], Pixels] | None:
    """Hide parts of images and let the model fill them.

    Args:
        bundle: for whole images.
        pixels: (n, B, h, w) scaled.
        seed: of what is hidden: the share that was hidden in training.

    Returns:
        At the side that the net is shown: the images (n, B, s, s), which pixels were visible (n, s, s), and the images
        as they were filled; None of a method that hides nothing in training.
    """
    model, side = bundle.build(), bundle.manifest.net.crop_px
    ratio = model.method.hidden_share()
    if not ratio:
        return None
    shown = resample_images(torch.from_numpy(np.ascontiguousarray(pixels)), side)
    visible = hide_cells(len(shown), side, ratio, seed)
    filled = model.method.rebuild(model.net, model.extra, shown, torch.from_numpy(visible), Randomness(seed))
    return shown.numpy(), visible, filled.numpy()


def occlusion(predictor: ScenePredictor, pixels: Pixels, classes: list[int], grid: int = 8) -> npt.NDArray[np.float32]:
    """Return how much lower the model holds each of `classes` when a part of the image is hidden.

    It tells what the answer rests on, not why: two parts that say the same can each be hidden without a change.

    Args:
        predictor: of any model for whole images.
        pixels: (B, h, w) scaled; a hidden part is given the image's means.
        classes: positions of the classes.
        grid: the image is hidden part by part, in so many rows and columns.

    Returns:
        (len(classes), grid, grid): the fall of the logit; negative where hiding helps.

    Source: Zeiler and Fergus 2014, section 4.2.
    """
    _, rows, cols = pixels.shape
    edges: list[Any] = [np.linspace(0, n, grid + 1).round().astype(int) for n in (rows, cols)]
    shown = np.repeat(pixels[None], 1 + grid * grid, axis=0)
    means = pixels.mean((1, 2))[:, None, None]
    for i in range(grid):
        for j in range(grid):
            place = slice(edges[0][i], edges[0][i + 1]), slice(edges[1][j], edges[1][j + 1])
            shown[1 + i * grid + j][:, *place] = means
    logits = predictor.predict(shown).logits[:, classes]
    fall: npt.NDArray[np.float32] = (logits[:1] - logits[1:]).T.reshape(len(classes), grid, grid)
    return fall
