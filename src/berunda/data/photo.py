"""From the bytes of one image file to an array: photographs through Pillow, rasters through `berunda.geo.raster`."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from berunda.errors import BerundaError, GeoError

if TYPE_CHECKING:
    from berunda.geo.grid import Window

__all__ = [
    "TIFF_MAGIC",
    "Decoded",
    "Undecodable",
    "decode_image",
    "decode_window",
    "header_values",
    "is_photograph",
    "open_photo",
    "reason_of",
    "resampled",
]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Pillow knows many more; what nobody needs is not tried on what a stranger sent."""

MAX_PIXELS = 1 << 26
"""An image of more pixels than this is no patch; Pillow's own limit holds as well."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GEO_TAGS = (33550, 33922, 34264, 34735)  # pixel scale, tie points, transformation, coordinate system
_BITS, _SAMPLES = 258, 277
_GREY = {"L": "L", "1": "L", "LA": "L", "I;16": "I;16", "I;16B": "I;16", "I;16L": "I;16"}
_COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr")
_KEPT = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16))


class Undecodable(Exception):
    """An image is damaged or of a kind that cannot be read; the text says why, without the image's name."""


class Decoded(NamedTuple):
    """One image: `pixels` (B, H, W) uint8, uint16, int16 or float32, names of its bands, and whether it is a raster."""

    pixels: np.ndarray
    bands: tuple[str, ...]
    is_raster: bool


def decode_image(content: bytes, name: str, path: Path | None) -> Decoded:
    """Return the image that `content` holds.

    What a photograph's tags say of its orientation is ignored: a patch has no upright. Transparency is dropped.
    A TIFF counts as photograph when it has one, three or four bands of 8 bits and no georeference.

    Args:
        content: of the image file.
        name: its name; a suffix .jp2 marks a raster.
        path: where the file lies on its own; None when it is part of an archive.

    Raises:
        Undecodable: it is damaged or of another format.
        SecurityError: it is a raster that was refused by policy.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if not content:
        raise Undecodable("the file is empty")
    if suffix == ".jp2" or (content.startswith(TIFF_MAGIC) and not is_photograph(content)):
        return _raster(content, suffix, path)
    try:
        pixels = _photograph(content)
    except Undecodable:
        raise
    except Exception as error:  # a decoder meets hostile bytes here, and raises what it likes
        raise Undecodable(reason_of(error)) from error
    return Decoded(pixels, ("grey",) if len(pixels) == 1 else ("red", "green", "blue"), False)


def decode_window(path: Path, window: Window) -> Decoded:
    """Return the part of a raster that `window` says; no more of the file is read.

    Raises:
        Undecodable: it is damaged, or the window does not lie in it.
        SecurityError: it was refused by policy.
    """
    return _read_raster(path, window)


def reason_of(error: Exception) -> str:
    """Return in one line why a decoder failed."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"no image of the formats {', '.join(FORMATS)}"
    text = str(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__} {error}"
    return " ".join(text.split())[:200] or type(error).__name__


def resampled(pixels: np.ndarray, side_px: int) -> np.ndarray:
    """Return (B, H, W) pixels as (B, side_px, side_px) of the same type, bilinear, smoothed where they shrink."""
    if pixels.shape[1:] == (side_px, side_px):
        return pixels
    from PIL import Image

    bands = [
        np.asarray(Image.fromarray(band.astype(np.float32)).resize((side_px, side_px), Image.Resampling.BILINEAR))
        for band in pixels
    ]
    out = np.stack(bands)
    return (out if pixels.dtype.kind == "f" else np.rint(out)).astype(pixels.dtype)


def _photograph(content: bytes) -> np.ndarray:
    with open_photo(content) as image:
        rows, cols = image.height, image.width
        from PIL import Image

        limit = min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
        if rows * cols > limit:
            raise Undecodable(f"{rows}x{cols} pixels, at most {limit} expected of a patch")
        mode = _GREY.get(image.mode) or ("RGB" if image.mode in _COLOUR else "")
        if not mode:
            raise Undecodable(f"pixels of kind {image.mode!r}, expected grey or colour of 8 bits, or grey of 16")
        image.load()
        array = np.asarray(image if image.mode == mode else image.convert(mode))
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = array.astype(np.uint16)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def header_values(path: Path) -> int:
    """Return how many values an image file decodes to, all bands together, from its header; 0 where that fails."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            n_bands = 1 if image.mode in _GREY else 3
            return int(image.width * image.height * n_bands)
    except Exception:  # of another format, or damaged, as those know who decode it
        return _raster_values(path)


def _raster_values(path: Path) -> int:
    from berunda.geo.raster import describe

    try:
        facts = describe(path)
    except (BerundaError, OSError):
        return 0
    return facts.grid.shape.n_pixels * len(facts.data_indexes)


def is_photograph(content: bytes) -> bool:
    """Say whether a TIFF is a photograph rather than a raster, from the tags of its first image alone."""
    from PIL import TiffImagePlugin

    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        has_bytes = set(tags.get(_BITS, (1,))) <= {1, 8}
        return has_bytes and tags.get(_SAMPLES, 1) in (1, 3, 4) and not any(tag in tags for tag in _GEO_TAGS)
    except Exception:  # damaged, or a kind of TIFF that Pillow does not know; GDAL says what is wrong with it
        return False


def open_photo(content: bytes) -> Any:
    """Return the photograph as Pillow opens it: its header alone is read."""
    from PIL import Image

    return Image.open(io.BytesIO(content), formats=FORMATS)


def _raster(content: bytes, suffix: str, path: Path | None) -> Decoded:
    """Read a raster from its file; that of a member of an archive is a temporary one, as GDAL is let at no archive."""
    if path is not None:
        return _read_raster(path)
    with tempfile.TemporaryDirectory(prefix="berunda-") as folder:
        own = Path(folder) / f"image{suffix}"
        own.write_bytes(content)
        return _read_raster(own)


def _read_raster(path: Path, window: Window | None = None) -> Decoded:
    from berunda.geo.raster import open_scenes

    try:
        with open_scenes([path])[0] as scene:
            whole = scene.grid.full_window
            part = window or whole
            if part.intersect(whole) != part:
                raise Undecodable(f"{part} found, expected one inside its {whole.n_rows}x{whole.n_cols} pixels")
            if part.shape.n_pixels > MAX_PIXELS:
                raise Undecodable(f"{part.n_rows}x{part.n_cols} pixels, at most {MAX_PIXELS} expected of a patch")
            block = scene.read(part)
            kinds = {np.dtype(band.dtype) for band in scene.bands}
            names = scene.band_names
    except GeoError as error:
        raise Undecodable(str(error)) from error
    kind = kinds.pop() if len(kinds) == 1 else np.dtype(np.float32)
    if kind not in _KEPT:
        return Decoded(np.where(block.valid, block.values, np.float32(np.nan)), names, True)
    return Decoded(block.values.astype(kind), names, True)
