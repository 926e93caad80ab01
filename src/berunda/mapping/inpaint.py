"""Pixels under a mask filled from those around them, streamed over a scene of any size.

Windows of the side that the model was trained on lie on a lattice with half their side between them, moved inwards at
the scene's edges, so each pixel is seen by several, whose guesses are averaged with more weight near their middles. A
window of which too little is known is shown enlarged, two, four or eight times as wide, at as many times less detail.
What a pixel is filled with depends on the scene, the mask, the bundle and the seed alone, not on the tile it is
computed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from berunda.data.order import Randomness
from berunda.data.resampling import resample_images
from berunda.data.scaling import Scaling, scale_pixels
from berunda.errors import ConfigError, DataError
from berunda.geo.grid import Window
from berunda.geo.raster import Scene
from berunda.geo.source import Block
from berunda.geo.write import BLOCK_PX, create_tiled, finish_cog
from berunda.mapping.bundle import Bundle
from berunda.mapping.lock import file_lock
from berunda.methods import make_method, method_names
from berunda.models.device import resolve_device
from berunda.progress import Progress, Silent

__all__ = ["ENLARGED", "MIN_KNOWN", "Filled", "Filler", "check_can_fill", "fill_scene"]

ENLARGED = (1, 2, 4, 8)
"""How many times as wide the ground around a gap is that is looked at."""
MIN_KNOWN = 0.2
"""So large a share of what is looked at, within the scene, has to be known; in training it was a quarter."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Filled:
    """A scene with its gaps filled.

    Attributes:
        path: the GeoTIFF.
        n_filled: pixels under the mask that were filled.
        n_left: pixels under the mask too far from anything known, which are nodata.
    """

    path: Path
    n_filled: int
    n_left: int


def check_can_fill(bundle: Bundle) -> None:
    """Refuse a bundle whose method fills no gaps.

    Raises:
        ConfigError: naming the methods that do.
    """
    manifest = bundle.manifest
    method = make_method(manifest.method, manifest.method_options)
    if method.can_fill():
        return
    able = [name for name in method_names() if make_method(name).can_fill()]
    options = ", ".join(f"{name}={value}" for name, value in manifest.method_options.items())
    raise ConfigError(
        f"the bundle is of method {method.name!r}{f' with {options}' if options else ''}, which cannot fill gaps; "
        f"expected a bundle of {', '.join(able)}, with default options: train one by --method {able[0]}"
    )


class Filler:
    """Guesses the pixels under a scene's mask.

    Args:
        bundle: of a method that can fill.
        scene: with the bundle's bands and a mask.
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the draws; a window has draws of its own.
    """

    def __init__(self, bundle: Bundle, scene: Scene, device: str = "cpu", seed: int = 0) -> None:
        check_can_fill(bundle)
        self.scene, self.seed = scene, seed
        manifest, self.shown_px = bundle.manifest, bundle.manifest.net.crop_px
        self.side = self.shown_px if manifest.task == "segmentation" else manifest.window_px  # maps: crops as they are
        self.device = resolve_device(device)
        self._model = bundle.build(self.device)
        bands = bundle.manifest.bands
        self._scaling = Scaling(np.array([b.low for b in bands]), np.array([b.high for b in bands]))
        ramp = np.minimum(np.arange(self.side) + 0.5, np.arange(self.side)[::-1] + 0.5) / (self.side / 2)
        self._weight = np.outer(ramp, ramp)

    def fill(self, tile: Window) -> tuple[Array, Array, Array]:
        """Return values (B, h, w) float32 of a window of the scene, filled; which are there; which were filled.

        Values that are neither known nor could be filled are NaN.
        """
        gaps = self.scene.masked(tile)
        near = _Near(self.scene, tile.pad(2 * self.side) if gaps.any() else tile)
        block = near.read(tile)
        values = np.where(block.valid, block.values, np.float32(np.nan))
        total, weight = np.zeros(values.shape), np.zeros(gaps.shape)
        for window in self._windows(tile):
            both = window.intersect(tile)
            if both is None or not gaps[both.slices_in(tile)].any():
                continue
            guess = self._guess(near, window)
            if guess is not None:
                here, there = both.slices_in(tile), both.slices_in(window)
                total[:, here[0], here[1]] += (guess * self._weight)[:, there[0], there[1]]
                weight[here] += self._weight[there]
        filled = gaps & (weight > 0)
        values[:, filled] = (total[:, filled] / weight[filled]).astype(np.float32)
        return values, block.valid | filled, filled

    def _windows(self, tile: Window) -> Iterator[Window]:
        """Yield the windows of the lattice that touch `tile`, row by row."""
        step, shape = self.side // 2, self.scene.grid.shape
        rows, cols = (
            dict.fromkeys(_inside(at, self.side, n) for at in range((first // step - 2) * step, last + self.side, step))
            for first, last, n in ((tile.row, tile.row_stop, shape.rows), (tile.col, tile.col_stop, shape.cols))
        )
        for row in rows:
            for col in cols:
                yield Window(row, col, self.side, self.side)

    def _around(self, window: Window, times: int) -> Window:
        """Return the window `times` as wide, about the same middle or moved inwards."""
        wide, shape = window.pad(self.side * (times - 1) // 2), self.scene.grid.shape
        row, col = _inside(wide.row, wide.n_rows, shape.rows), _inside(wide.col, wide.n_cols, shape.cols)
        return Window(row, col, wide.n_rows, wide.n_cols)

    @torch.no_grad()
    def _guess(self, near: _Near, window: Window) -> Array | None:
        """Return what lies in `window` (B, side, side), in the units of the scene, or None if nothing can be said."""
        for times in ENLARGED:
            wide = self._around(window, times)
            block, inner = near.read(wide), wide.intersect(self.scene.grid.full_window)
            if inner is None or block.valid.sum() < MIN_KNOWN * inner.shape.n_pixels:
                continue
            pixels, known = self._shown(scale_pixels(block.values, block.valid, *self._scaling), block.valid)
            rng = Randomness(self.seed).at(window.row, window.col)
            guess = self._model.method.fill(self._model.net, self._model.extra, pixels, known, rng)
            if not bool(guess.isfinite().all()):
                continue
            if tuple(guess.shape[2:]) != block.valid.shape:
                guess = interpolate(guess, block.valid.shape, mode="bilinear", align_corners=False)
            rows, cols = window.slices_in(wide)
            return self._unscaled(guess[0, :, rows, cols].double().cpu().numpy())
        return None

    def _shown(self, pixels: Array, valid: Array) -> tuple[Tensor, Tensor]:
        """Return pixels (1, B, s, s) and which are known (1, s, s), at the size that the net was trained on.

        A pixel that shrinks together from known and unknown ones is the mean of the known, if they are the most.
        """
        given, weight = torch.from_numpy(pixels)[None], torch.from_numpy(valid.astype(np.float32))[None, None]
        share = resample_images(weight, self.shown_px)
        shown = resample_images(given * weight, self.shown_px) / share.clamp(min=1e-6)
        return shown.to(self.device), (share[:, 0] > 0.5).to(self.device)

    def _unscaled(self, scaled: Array) -> Array:
        low, high = (part.reshape(-1, 1, 1) for part in self._scaling)
        values: Array = (scaled + 1) / 2 * (high - low) + low
        return values


class _Near:
    """The pixels around a tile, read once; further ones are read from the scene each time."""

    def __init__(self, scene: Scene, outer: Window) -> None:
        self._scene, self._outer, self._block = scene, outer, scene.read(outer)

    def read(self, window: Window) -> Block:
        """Return what `Scene.read` returns."""
        if window.intersect(self._outer) != window:
            return self._scene.read(window)
        rows, cols = window.slices_in(self._outer)
        return Block(self._block.values[:, rows, cols], self._block.valid[rows, cols])


def fill_scene(
    bundle: Bundle, scene: Scene, out: Path, *, device: str = "cpu", seed: int = 0, progress: Progress | None = None
) -> Filled:
    """Write `scene` with the pixels under its mask filled, as a GeoTIFF of the bundle's bands.

    Values are float32 in the units of the scene; those that were known are as they were, nodata is NaN. The file has
    its name only when it is whole.

    Args:
        bundle: of a method that can fill.
        scene: with the bundle's bands and a mask.
        out: the file.
        device: where the net computes.
        seed: of the draws.
        progress: told of the pixels.

    Raises:
        ConfigError: the bundle cannot fill gaps.
        DataError: nothing of the scene is known outside the mask.
        OutputError: the file cannot be written, or another run is writing it.
    """
    filler = Filler(bundle, scene, device, seed)
    _check_something_known(scene)
    with file_lock(out):
        return _written(filler, scene, out, progress or Silent())


def _written(filler: Filler, scene: Scene, out: Path, told: Progress) -> Filled:
    unfinished = out.with_name(f".{out.name}.tmp")
    n_filled = n_left = 0
    told.start(f"filling {scene.name}", scene.grid.shape.n_pixels)
    with create_tiled(unfinished, scene.grid, len(scene.bands), "float32", float("nan"), scene.band_names) as writer:
        for tile in scene.grid.tiles(BLOCK_PX):
            values, there, filled = filler.fill(tile)
            writer.write(values.astype(np.float32), tile)
            n_filled += int(filled.sum())
            n_left += int((scene.masked(tile) & ~there).sum())
            told.advance(tile.shape.n_pixels)
    finish_cog(unfinished, out, overview="average", tags={"BERUNDA_FILLED_PIXELS": str(n_filled)})
    told.finish()
    return Filled(out, n_filled, n_left)


def _inside(start: int, length: int, n: int) -> int:
    """Return where a stretch of `length` begins that is moved into 0..n; longer ones begin at 0."""
    return max(0, min(start, n - length))


def _check_something_known(scene: Scene) -> None:
    if not any(scene.read(tile).valid.any() for tile in scene.grid.tiles(BLOCK_PX)):
        raise DataError(
            f"scene {scene.name}: found no valid pixel outside the mask, expected some to fill the others from; "
            "check that the mask is 0 where the scene is clear"
        )
