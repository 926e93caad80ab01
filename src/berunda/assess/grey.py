"""Images of different bands made comparable: what all of them have is a grey value."""

from __future__ import annotations

import numpy as np

from berunda.assess.description import BINS, MIN_VALID, Description, colour_bands, thumbnail
from berunda.assess.duplicates import content_hash, perceptual_hash
from berunda.data.scaling import Scaling
from berunda.data.site_pixels import Broken, Patch, SitePixels
from berunda.data.sites import SiteSet

__all__ = ["describe_grey"]

_PERCENTILES = (1.0, 99.0)


def describe_grey(sites: SiteSet) -> Description | None:
    """Return pictures and hashes of images whose bands differ; None where all have the same bands, or none holds data.

    The grey value of a pixel is the mean of its red, green and blue, or of the bands that are shown as such; each image
    is stretched by itself. Features and histograms are empty, and so are the names of the bands. Images with data on
    less than `MIN_VALID` of their pixels are left out.

    Args:
        sites: the images; each is read once, one after another.
    """
    kept: list[int] = []
    thumbs: list[np.ndarray] = []
    contents: list[int] = []
    sizes: list[tuple[int, ...]] = []
    broken: list[tuple[str, str]] = []
    blank: list[str] = []
    kinds: set[tuple[str, ...]] = set()
    for index, item in enumerate(sites.items):
        read = SitePixels(sites.subset(np.array([index]))).read(0)
        if isinstance(read, Broken):
            broken.append((item.name, read.reason))
            continue
        kinds.add(read.bands)
        if read.valid.mean() < MIN_VALID:
            blank.append(item.name)
            continue
        kept.append(index)
        thumbs.append(_grey_thumbnail(read))
        contents.append(content_hash(read.pixels))
        sizes.append(read.valid.shape)
    if len(kinds) < 2 or not kept:
        return None
    return Description(
        sites=sites.subset(np.array(kept, np.int64)),
        features=np.zeros((len(kept), 0), np.float32),
        thumbs=np.stack(thumbs),
        hashes=np.array([perceptual_hash(picture) for picture in thumbs], np.uint64),
        contents=np.array(contents, np.uint64),
        histograms=np.zeros((len(kept), 0, BINS), np.uint16),
        sizes=np.array(sizes, np.int64),
        bands=(),
        scaling=Scaling(np.zeros(0), np.ones(0)),
        broken=tuple(broken),
        blank=tuple(blank),
    )


def _grey_thumbnail(patch: Patch) -> np.ndarray:
    grey = patch.pixels[colour_bands(patch.bands)].mean(axis=0, keepdims=True)
    values = grey[:, patch.valid]
    low, high = np.percentile(values, _PERCENTILES) if values.size else (0.0, 1.0)
    scaling = Scaling(np.array([low], np.float64), np.array([max(high, low + 1e-6)], np.float64))
    return thumbnail(Patch(grey, patch.valid, ("grey",)), scaling)
