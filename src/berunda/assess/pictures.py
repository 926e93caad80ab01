"""Quick-looks as colour arrays and as data URIs for the report page.

Pixels become colours here; legends, scale bars and captions are drawn by the page (as text) or by `plots` (in
figures).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.assess.colors import rgb_of

__all__ = [
    "CONFIDENCE_MAP",
    "NODATA_COLOR",
    "OOD_MAP",
    "PART_COLORS",
    "color_classes",
    "color_confidence",
    "color_ood",
    "color_parts",
    "jpeg_uri",
    "nice_length_m",
    "ood_limits",
    "png_uri",
    "ramp",
    "shrink_step",
    "svg_uri",
]

Picture = npt.NDArray[np.uint8]
NODATA_COLOR = "#e7e9e6"
CONFIDENCE_MAP = "cividis"
OOD_MAP = "plasma_r"
PART_COLORS = {"train": "#0072b2", "calibration": "#f0b400", "test": "#c2257f", "unused": "#8a918d"}
"""Colours of the label parts, distinct under common colour vision deficiencies."""
MAX_SIDE_PX = 1200


def ramp(name: str, n: int = 9) -> list[str]:
    """Return `n` evenly spaced "#rrggbb" stops of a named matplotlib colour map, low to high."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps[name](v)) for v in np.linspace(0, 1, n)]


def _mapped(values: npt.NDArray[np.floating[Any]], name: str) -> Picture:
    """Color values 0..1; NaN becomes the nodata colour."""
    from matplotlib import colormaps

    colored = colormaps[name](np.nan_to_num(np.clip(values, 0, 1)), bytes=True)[..., :3]
    picture = np.array(colored, dtype=np.uint8)
    picture[~np.isfinite(values)] = rgb_of(NODATA_COLOR)
    return picture


def color_classes(classes: npt.NDArray[np.uint8], colors: Sequence[str]) -> Picture:
    """Color class codes 0..C (0 = nodata) with one "#rrggbb" per class; uint8 (h, w, 3)."""
    table = np.array([rgb_of(c) for c in (NODATA_COLOR, *colors)], np.uint8)
    return table[np.minimum(classes, len(colors))]


def color_confidence(confidence: npt.NDArray[np.floating[Any]]) -> Picture:
    """Color confidences 0..1, NaN = nodata; uint8 (h, w, 3)."""
    return _mapped(confidence, CONFIDENCE_MAP)


def ood_limits(distance: npt.NDArray[np.floating[Any]], threshold: float) -> tuple[float, float]:
    """Return the distances at the ends of the colour ramp: the threshold, the 99th percentile or beyond."""
    finite = distance[np.isfinite(distance)]
    top = float(np.quantile(finite, 0.99)) if finite.size else threshold
    return threshold, max(top, threshold * 1.25, threshold + 1e-6)


def color_ood(distance: npt.NDArray[np.floating[Any]], threshold: float, backdrop: Picture | None = None) -> Picture:
    """Color the pixels beyond the threshold, the further the darker, over a pale grey picture of the scene.

    Args:
        distance: (h, w) feature distance, NaN = nodata.
        threshold: distance above which a pixel is flagged.
        backdrop: uint8 (h, w, 3) scene, shown in grey where nothing is flagged; plain grey without it.

    Returns:
        uint8 (h, w, 3).
    """
    low, high = ood_limits(distance, threshold)
    pale = _pale(backdrop) if backdrop is not None else np.full((*distance.shape, 3), 225, np.uint8)
    flagged = np.nan_to_num(distance, nan=-np.inf) > threshold
    # The first tenth of the ramp is too pale to be seen on the backdrop.
    colored = _mapped(0.12 + 0.88 * (distance - low) / (high - low), OOD_MAP)
    picture = np.where(flagged[..., None], colored, pale)
    picture[~np.isfinite(distance)] = rgb_of(NODATA_COLOR)
    return np.asarray(picture, np.uint8)


def _pale(rgb: Picture) -> Picture:
    grey = rgb.astype(np.float32).mean(2)
    return np.repeat((170 + grey * (75 / 255)).astype(np.uint8)[..., None], 3, axis=2)


def color_parts(
    rgb: Picture,
    parts: npt.NDArray[np.uint8],
    part_names: Sequence[str],
    test_blocks: npt.NDArray[np.bool_] | None = None,
) -> Picture:
    """Show which labels were used for what, over a pale scene whose test blocks are tinted.

    Args:
        rgb: uint8 (h, w, 3) scene.
        parts: uint8 (h, w), 0 = no label, else 1-based position in `part_names`.
        part_names: names of the parts, keys of `PART_COLORS`.
        test_blocks: bool (h, w), True inside blocks held out for testing.

    Returns:
        uint8 (h, w, 3).
    """
    picture = _pale(rgb).astype(np.float32)
    if test_blocks is not None:
        tint = np.array(rgb_of(PART_COLORS["test"]), np.float32)
        picture[test_blocks] = 0.8 * picture[test_blocks] + 0.2 * tint
        picture[_edges(test_blocks)] = 0.45 * picture[_edges(test_blocks)] + 0.55 * tint
    for position, name in enumerate(part_names, start=1):
        picture[parts == position] = rgb_of(PART_COLORS[name])
    return picture.astype(np.uint8)


def _edges(blocks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    padded = np.pad(blocks, 1, mode="edge")
    middle = padded[1:-1, 1:-1]
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(middle & ~inside)


def shrink_step(shape: tuple[int, ...], max_side_px: int = MAX_SIDE_PX) -> int:
    """Return the step that brings the longer side to at most `max_side_px` (1 where it already is)."""
    return max(1, -(-max(shape[:2]) // max_side_px))


def _encoded(picture: Picture, kind: str, **options: Any) -> str:
    from PIL import Image

    step = shrink_step(picture.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture[::step, ::step])).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def png_uri(picture: Picture) -> str:
    """Return a picture with few colours or sharp edges as a PNG data URI."""
    return _encoded(picture, "PNG", optimize=True)


def jpeg_uri(picture: Picture) -> str:
    """Return a photograph-like picture as a JPEG data URI (a tenth of the PNG's size)."""
    return _encoded(picture, "JPEG", quality=87)


def svg_uri(svg: str) -> str:
    """Return an SVG drawing as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def nice_length_m(width_m: float) -> float:
    """Return a round length in metres (1, 2 or 5 times a power of ten) of about a quarter of the width.

    Example:
        >>> nice_length_m(15_360)
        2000.0
    """
    power = 10.0 ** np.floor(np.log10(width_m / 4))
    return float(max(k * power for k in (1, 2, 5) if k * power <= width_m / 4 * 1.001))
