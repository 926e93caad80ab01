"""Radiometry: how raw pixel values become the numbers that a net sees, measured once and kept with the model.

Every band is described by two robust percentiles of its valid values, `low` and `high`. Training and mapping
scale with the same function and the same two numbers, so a model can tell when a scene is far from what it was
trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from berunda.data.order import Randomness
from berunda.errors import DataError

if TYPE_CHECKING:
    from berunda.geo.grid import Window
    from berunda.geo.raster import Scene

__all__ = ["CLIP", "Scaling", "measure_scaling", "radiometry_warnings", "scale_pixels"]

FloatArray = npt.NDArray[np.float64]
CLIP = 3.0
"""Scaled pixels are clipped to -CLIP..CLIP; `low` maps to -1 and `high` to 1."""
MIN_OVERLAP = 0.5
_WINDOW_PX = 256
_N_WINDOWS = 64  # read at least so many windows of a scene (all, if it has fewer)
_N_PIXELS = 1 << 20  # and keep about so many pixels, over all scenes


class Scaling(NamedTuple):
    """`low` and `high` of every band, each (B,) float64, in the units of the raw pixels."""

    low: FloatArray
    high: FloatArray


def scale_pixels(
    values: npt.NDArray[np.floating],
    valid: npt.NDArray[np.bool_],
    low: npt.ArrayLike,
    high: npt.ArrayLike,
) -> npt.NDArray[np.float32]:
    """Return 2 (v - low) / (high - low) - 1, clipped to -3..3, and 0 where invalid.

    Args:
        values: (B, h, w) raw pixel values; may be anything, NaN too, where invalid.
        valid: (h, w) bool.
        low: (B,) value that becomes -1.
        high: (B,) value that becomes 1; above `low`.

    Returns:
        (B, h, w) float32, a new array.

    Example:
        >>> scale_pixels(np.array([[[1.0, 2.0, 9.0]]]), np.array([[True, True, True]]), [1.0], [3.0]).tolist()
        [[[-1.0, 0.0, 3.0]]]
    """
    low_B11 = np.asarray(low, np.float64).reshape(-1, 1, 1)
    gain_B11 = (2.0 / (np.asarray(high, np.float64).reshape(-1, 1, 1) - low_B11)).astype(np.float32)
    if values.ndim != 3 or len(values) != len(low_B11):
        raise DataError(f"pixels of shape {values.shape} found, expected ({len(low_B11)} bands, rows, cols)")
    scaled = values.astype(np.float32)
    scaled -= low_B11.astype(np.float32)
    scaled *= gain_B11
    scaled -= 1.0
    np.clip(scaled, -CLIP, CLIP, out=scaled)
    if not valid.all():
        scaled[:, ~valid] = 0.0
    return scaled


def measure_scaling(scenes: Scene | Sequence[Scene], *, percentiles: tuple[float, float] = (1.0, 99.0)) -> Scaling:
    """Measure `low` and `high` of every band on a fixed sample of windows, in bounded memory.

    The sample is a pure function of the scene's size: the same scene gives the same numbers on every machine.
    Where the sampled windows hold too little data further ones are read, so a scene that is mostly nodata is
    measured on what it has.

    Args:
        scenes: one scene, or several with the same bands, measured together.
        percentiles: of the valid values, in percent.

    Returns:
        low and high, each (B,); a band that is constant gets high = low + 1.

    Raises:
        DataError: no scene has a valid pixel.
    """
    several = list(scenes) if isinstance(scenes, Sequence) else [scenes]
    samples = [part for scene in several for part in _sample(scene, _N_PIXELS // len(several))]
    if not samples:
        names = ", ".join(scene.name for scene in several)
        raise DataError(
            f"scene {names}: no valid pixel found, expected some to measure the radiometry on; "
            "check the nodata values and the --mask raster"
        )
    low, high = np.percentile(np.concatenate(samples, axis=1), percentiles, axis=1).astype(np.float64)
    return Scaling(low, np.where(high > low, high, low + 1.0))


def _sample(scene: Scene, n_pixels: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield (B, k) valid values of one window after the other, at most about `n_pixels` in all."""
    windows: list[Window] = list(scene.grid.tiles(_WINDOW_PX))
    order = Randomness(0).numpy("scaling").permutation(len(windows))
    per_window = max(1, n_pixels // min(len(windows), _N_WINDOWS))
    step = max(1, int(np.ceil(np.sqrt(_WINDOW_PX**2 / per_window))))
    n_kept = 0
    for n_read, number in enumerate(order):
        if n_read >= _N_WINDOWS and n_kept >= n_pixels // 8:
            return
        block = scene.read(windows[number])
        kept = block.values[:, ::step, ::step][:, block.valid[::step, ::step]]
        if kept.shape[1] == 0 and block.valid.any():  # a few valid pixels beside the sampling lattice
            kept = block.values[:, block.valid][:, :per_window]
        if kept.shape[1]:
            n_kept += kept.shape[1]
            yield kept


def radiometry_warnings(names: Sequence[str], trained: Scaling, measured: Scaling) -> list[str]:
    """Return plain-language warnings about bands whose radiometry is far from the training one.

    The rule: the interval from `low` to `high` measured on the scene must share at least half of what it and
    the training interval cover together (intersection over union at least 0.5). A change of units, an added
    offset, a missing correction or a scene under cloud break it; seasons and atmospheres mostly do not.

    Args:
        names: band names, (B,).
        trained: what the model was trained with.
        measured: what the scene has.
    """
    far = []
    for name, a, b, c, d in zip(names, *trained, *measured, strict=True):
        shared = max(0.0, min(b, d) - max(a, c))
        if shared < MIN_OVERLAP * (max(b, d) - min(a, c)):
            far.append(f"{name} ({c:.5g} to {d:.5g}, trained on {a:.5g} to {b:.5g})")
    if not far:
        return []
    return [
        f"radiometry far from the training scene in {len(far)} of {len(names)} bands: {'; '.join(far)}; "
        "the result may be wrong: check the units, the processing level and clouds"
    ]
