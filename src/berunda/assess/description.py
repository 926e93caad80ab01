"""What the analysis knows of each image: features, a thumbnail, a perceptual hash, a histogram of every band.

Images are read once, streamed in batches; what was found is kept in the cache, keyed by the images' contents (by path,
size and time of change for plain files) and by all settings that matter.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from berunda.assess.duplicates import content_hash, perceptual_hash
from berunda.cache import cache_folder
from berunda.data.photo import resampled
from berunda.data.scaling import Scaling, scale_pixels
from berunda.data.site_pixels import Broken, Patch, SitePixels
from berunda.data.sites import SiteSet
from berunda.errors import DataError
from berunda.progress import Progress, Silent

__all__ = [
    "BINS",
    "MIN_VALID",
    "THUMB_PX",
    "Description",
    "colour_bands",
    "describe_images",
    "refuse_broken",
    "thumbnail",
]

VERSION = 3
THUMB_PX = 40
BINS = 48
SPAN = 1.5
"""Histograms reach from -SPAN to SPAN on the scale on which `low` is -1 and `high` is 1; what lies outside counts
at the ends."""
_MAX_COUNTED = 60_000  # pixels of an image that its histograms count
_GAMMA = 0.7  # of thumbnails, which would be dark where a few images are very bright
_N_NAMED = 5
MIN_VALID = 0.5
"""Share of an image's pixels that hold data, at least; what has less shows the edge of its scene, and is left out."""


@dataclass(frozen=True)
class Description:
    """What is known of N images, those that cannot be read left out.

    Attributes:
        sites: the images that are described.
        features: (N, D) float32.
        thumbs: (N, 40, 40, 3) uint8 pictures in colour.
        hashes: (N,) uint64, alike for images that look alike; see `berunda.assess.duplicates`.
        contents: (N,) uint64, equal for equal pixels.
        histograms: (N, B, 48) uint16 counts of pixels of each band.
        sizes: (N, 2) rows and columns of the images.
        bands: names of the B bands.
        scaling: low and high of every band.
        broken: images that cannot be read, by name, and why.
        from_cache: whether it was described before.
        blank: images that hold too little data to be described, by name; they are left out as well.
    """

    sites: SiteSet
    features: np.ndarray
    thumbs: np.ndarray
    hashes: np.ndarray
    contents: np.ndarray
    histograms: np.ndarray
    sizes: np.ndarray
    bands: tuple[str, ...]
    scaling: Scaling
    broken: tuple[tuple[str, str], ...] = ()
    from_cache: bool = False
    blank: tuple[str, ...] = ()

    @property
    def n_images(self) -> int:
        """Number of images that were looked at, those included that are not described."""
        return len(self.sites) + len(self.broken) + len(self.blank)


def describe_images(
    pixels: SitePixels,
    scaling: Scaling,
    describe: Callable[[np.ndarray], np.ndarray],
    *,
    image_px: int,
    key: str,
    min_valid: float = MIN_VALID,
    progress: Progress | None = None,
) -> Description:
    """Describe all images, or return what the cache holds of them.

    Args:
        pixels: the images.
        scaling: low and high of every band, of all sites together.
        describe: from scaled images (n, B, px, px) float32 to features (n, D) float32.
        image_px: side at which the encoder sees every image.
        key: names the encoder, its weights and its settings.
        min_valid: share 0..1 of an image's pixels that must hold data; images with less are left out and named.
        progress: told of every batch.

    Raises:
        DataError: no image can be read or holds enough data, or their bands differ between sites.
    """
    told = progress or Silent()
    path = _cache_path(pixels, scaling, image_px, f"{key}|{min_valid}")
    rows = _tried_again(_load(path, len(pixels.sites)), pixels)
    known = rows is not None
    if rows is None:
        rows = _Rows(len(pixels.sites), min_valid)
        told.start("describe", len(pixels.sites))
        for piece in pixels.every(np.arange(len(pixels.sites))):
            rows.add(piece, scaling, describe, image_px)
            told.advance(len(piece))
        told.finish()
        _save(path, rows)
    return _description(pixels, scaling, rows, known)


def refuse_broken(found: Description, n_images: int) -> None:
    """Raise when there are images that cannot be read.

    Raises:
        DataError: naming the first ones and the number of all.
    """
    if found.broken:
        named = "; ".join(f"{name!r} ({reason[:120]})" for name, reason in found.broken[:_N_NAMED])
        more = f"; and {len(found.broken) - _N_NAMED} more" if len(found.broken) > _N_NAMED else ""
        raise DataError(
            f"data set {found.sites.name}: {len(found.broken)} of {n_images} images cannot be read: {named}{more}; "
            "replace them, or leave them out with --skip-broken"
        )


def thumbnail(patch: Patch, scaling: Scaling, side_px: int = THUMB_PX) -> np.ndarray:
    """Return a picture (side_px, side_px, 3) uint8: red, green, blue where bands are called so, else three bands."""
    at = colour_bands(patch.bands)
    low, high = np.asarray(scaling.low)[at], np.asarray(scaling.high)[at]
    shown = scale_pixels(patch.pixels[at], patch.valid, low, high)
    small = resampled(shown, side_px)
    return (np.clip(small.transpose(1, 2, 0) * 0.5 + 0.5, 0, 1) ** _GAMMA * 255).astype(np.uint8)


def colour_bands(bands: tuple[str, ...]) -> list[int]:
    """Return the places of the three bands that are shown as red, green and blue; one thrice where there are fewer."""
    lower = [name.lower() for name in bands]
    for names in (("red", "green", "blue"), ("b04", "b03", "b02"), ("b4", "b3", "b2")):
        if all(name in lower for name in names) and not (names[0] == "b4" and len(bands) < 6):
            return [lower.index(name) for name in names]
    return [0, 1, 2] if len(bands) >= 3 else [0, 0, 0]


class _Rows:
    """What is found, image by image; broken and blank ones keep their place, empty."""

    def __init__(self, n: int, min_valid: float = 0.0) -> None:
        self.n, self.min_valid = n, min_valid
        self.parts: list[dict[str, np.ndarray]] = []
        self.broken: dict[int, str] = {}
        self.blank: list[int] = []
        self.n_seen = 0

    def add(
        self,
        piece: list[Patch | Broken],
        scaling: Scaling,
        describe: Callable[[np.ndarray], np.ndarray],
        image_px: int,
    ) -> None:
        """Describe some images."""
        whole: list[Patch] = []
        for index, patch in enumerate(piece, self.n_seen):
            if isinstance(patch, Broken):
                self.broken[patch.item] = patch.reason
            elif patch.valid.mean() < self.min_valid:
                self.blank.append(index)
            else:
                whole.append(patch)
        self.n_seen += len(piece)
        if not whole:
            return
        scaled = np.stack([resampled(scale_pixels(p.pixels, p.valid, *scaling), image_px) for p in whole])
        thumbs = np.stack([thumbnail(patch, scaling) for patch in whole])
        features = np.concatenate([describe(scaled[i : i + 64]) for i in range(0, len(scaled), 64)])
        self.parts.append(
            {
                "features": features.astype(np.float32),
                "thumbs": thumbs,
                "hashes": np.array([perceptual_hash(picture) for picture in thumbs], np.uint64),
                "contents": np.array([content_hash(patch.pixels) for patch in whole], np.uint64),
                "histograms": np.stack([_histogram(patch, scaling) for patch in whole]),
                "sizes": np.array([patch.valid.shape for patch in whole], np.int64),
            }
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was found, in the order of the images that could be read."""
        names = self.parts[0] if self.parts else {}
        return {name: np.concatenate([part[name] for part in self.parts]) for name in names}


def _histogram(patch: Patch, scaling: Scaling) -> np.ndarray:
    """Return counts (B, 48) uint16 of the valid pixels of every band."""
    step = max(1, int(np.ceil(np.sqrt(patch.valid.size / _MAX_COUNTED))))
    pixels, valid = patch.pixels[:, ::step, ::step], patch.valid[::step, ::step]
    n_bands = len(pixels)
    scaled = scale_pixels(pixels, valid, *scaling)[:, valid]
    bins = np.clip(((scaled + SPAN) * (BINS / (2 * SPAN))).astype(np.int64), 0, BINS - 1)
    flat = (bins + np.arange(n_bands)[:, None] * BINS).ravel()
    return np.bincount(flat, minlength=n_bands * BINS).reshape(n_bands, BINS).astype(np.uint16)


def _description(pixels: SitePixels, scaling: Scaling, rows: _Rows, known: bool) -> Description:
    sites, arrays = pixels.sites, rows.arrays()
    if not arrays:
        reason = next(iter(rows.broken.values()), "they are nodata")
        raise DataError(
            f"data set {sites.name}: none of its {len(sites)} images can be read and holds data: {reason[:200]}; check "
            "the files and their nodata values"
        )
    left_out = {*rows.broken, *rows.blank}
    kept = np.array([i for i in range(len(sites)) if i not in left_out], np.int64)
    bad = np.flatnonzero(~np.isfinite(arrays["features"]).all(axis=1))
    if len(bad):
        name = sites.items[int(kept[bad[0]])].name
        raise DataError(
            f"data set {sites.name}: features of {len(bad)} images are not finite, the first {name!r}; expected "
            "numbers: "
            "use another --encoder or leave these images out"
        )
    broken = tuple((sites.items[i].name, reason) for i, reason in sorted(rows.broken.items()))
    return Description(
        sites=sites.subset(kept) if left_out else sites,
        bands=pixels.bands,
        scaling=scaling,
        broken=broken,
        from_cache=known,
        blank=tuple(sites.items[i].name for i in rows.blank),
        **arrays,
    )


def _cache_path(pixels: SitePixels, scaling: Scaling, image_px: int, key: str) -> Path:
    head = [VERSION, key, image_px, THUMB_PX, BINS, pixels.bands, repr(pixels.ground)]
    digest = hashlib.sha256(json.dumps(head).encode())
    digest.update(np.asarray(scaling, np.float64).tobytes())
    for line in _lines(pixels.sites):
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.npz"


def _lines(sites: SiteSet) -> Iterator[str]:
    """Yield what identifies the pixels of each image."""
    yield from (images.fingerprint for images in sites.arrays)
    prints = [scene.fingerprint() for scene in sites.scenes]
    for item in sites.items:
        if item.window is not None:
            yield f"{prints[item.scene]}|{item.window}"
        elif item.row >= 0:
            yield f"{item.scene}|{item.row}"
        else:
            try:
                state = item.path.stat()
                yield f"{item.path.absolute()}|{state.st_size}|{state.st_mtime_ns}"
            except OSError:
                yield f"{item.path}|missing"


def _load(path: Path, n: int) -> _Rows | None:
    """Return what the cache holds; None where it holds nothing, or something damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name not in ("blank", "broken")}
            blank, broken = file["blank"].tolist(), file["broken"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    rows = _Rows(n)
    rows.blank, rows.broken = blank, dict.fromkeys(broken, "")
    rows.parts = [arrays] if arrays else []
    if arrays and {len(values) for values in arrays.values()} != {n - len(blank) - len(broken)}:
        return None
    return rows


def _tried_again(rows: _Rows | None, pixels: SitePixels) -> _Rows | None:
    """Return what the cache holds where images that could not be read still cannot; None where one can.

    That an image is broken is never taken from the cache: a share may have been away, or handles too few.
    """
    if rows is None:
        return None
    for index in tuple(rows.broken):
        patch = pixels.read(index)
        if isinstance(patch, Patch):
            return None
        rows.broken[index] = patch.reason
    return rows


def _save(path: Path, rows: _Rows) -> None:
    """Keep what was found; a cache that cannot be written is no reason to fail."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, own = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                kept: dict[str, Any] = rows.arrays()
                kept |= {"blank": np.array(rows.blank, np.int64), "broken": np.array(list(rows.broken), np.int64)}
                np.savez(file, **kept)
            os.replace(own, path)
        except OSError:
            Path(own).unlink(missing_ok=True)
            raise
