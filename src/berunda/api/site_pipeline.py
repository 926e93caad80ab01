"""From inputs to described images: what `analyze` and `split` have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from berunda.assess.description import Description, describe_images, refuse_broken
from berunda.assess.embedding import principal_components
from berunda.data.site_classes import ClassCounts, count_classes
from berunda.data.site_layouts import Cutting
from berunda.data.site_pixels import SAME_RESOLUTION, Ground, Patch, SitePixels, measure_site_scaling, resolution_of
from berunda.data.sites import SiteSet
from berunda.errors import DataError
from berunda.models.describe import Describer
from berunda.options.analyze import SiteOptions
from berunda.progress import Progress

__all__ = [
    "Described",
    "Stages",
    "check_several",
    "coarse_notes",
    "common_ground",
    "cutting_of",
    "describe_sites",
    "with_resolution",
]


FEW_PX = 16
"""Images of fewer pixels a side hold hardly any texture for an encoder."""


@dataclass
class Stages:
    """Seconds by stage, filled as stages end."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time the block as stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def up_to_total(self, total_s: float) -> dict[str, float]:
        """Return the seconds by stage with the rest of a total as "other", so that they add up to it."""
        return {**self.seconds, "other": max(0.0, total_s - sum(self.seconds.values()))}


@dataclass(frozen=True)
class Described:
    """Images with what is known of them.

    Attributes:
        found: features, thumbnails and so on.
        components: (N, d) principal components.
        classes: of the images; None where they are not known.
        notes: what a reader should know of the data.
    """

    found: Description
    components: np.ndarray
    classes: ClassCounts | None
    notes: tuple[str, ...]


def cutting_of(options: SiteOptions) -> Cutting:
    """Return how rasters become images."""
    return Cutting(
        block_px=options.block_px,
        site_px=options.site_px,
        max_per_site=options.max_per_site,
        seed=options.seed,
        bands=options.bands,
        skip_broken=options.skip_broken,
    )


def check_several(sites: SiteSet) -> None:
    """Refuse a single site: there is nothing to compare it with.

    Raises:
        DataError: saying what to do.
    """
    if len(sites.sites) < 2:
        raise DataError(
            f"data set {sites.name}: one site found ({sites.site_names[0]}), expected at least two to compare; give "
            "further "
            "sites, cut the scene into smaller ones with --site-px, or compare with another data set"
        )


def with_resolution(sites: SiteSet, resolution_m: float | None) -> SiteSet:
    """Return the set with a pixel size for images whose files do not tell it; None changes nothing.

    A georeference in metres goes before it.
    """
    if resolution_m is None:
        return sites
    return replace(sites, sites=tuple(replace(site, resolution_m=resolution_m) for site in sites.sites))


def common_ground(both: SiteSet, resolution_m: float | None, bands: Sequence[str] | None) -> Ground:
    """Return the resolution and the extent of ground that all images of two data sets can be shown at.

    The resolution is that of the coarsest images, the extent that of the smallest ground, measured on the first image
    of every site.

    Args:
        both: the images of two data sets.
        resolution_m: asked for; None for the coarsest.
        bands: names of the bands; None for those of the first image.

    Raises:
        DataError: a resolution is not known, or no image can be read.
    """
    pixels = SitePixels(both, bands=bands, names=bands)
    resolutions, sides = [], []
    for site in range(len(both.sites)):
        for index in both.items_of([site])[:3]:
            patch = pixels.read(int(index))
            if isinstance(patch, Patch):
                own = resolution_of(both, both.items[int(index)])
                resolutions.append(own)
                sides.append(own * min(patch.valid.shape))
                break
    if not sides:
        raise DataError(f"data sets {both.name}: no image can be read; check the files")
    coarsest = max(resolutions)
    if resolution_m is not None and resolution_m < (1 - SAME_RESOLUTION) * coarsest:
        raise DataError(
            f"--common-resolution: {resolution_m:g} m found, expected at least {coarsest:g} m, the side of the "
            "coarsest images' pixels, as what is coarser cannot be made finer"
        )
    return Ground(resolution_m or coarsest, min(sides))


def coarse_notes(ground: Ground) -> list[str]:
    """Return what a reader should know of images that hardly any pixels are left of at the common resolution."""
    n_px = round(ground.side_m / ground.resolution_m)
    if n_px >= FEW_PX:
        return []
    return [
        f"Only {n_px} x {n_px} px are left of each image at {ground.resolution_m:g} m, expected {FEW_PX} or more: the "
        "encoder sees colours and hardly any texture. Cut scenes into larger blocks with --block-px, so that "
        f"the smallest image shows at least {FEW_PX * ground.resolution_m:g} m."
    ]


def describe_sites(
    sites: SiteSet, options: SiteOptions, stages: Stages, progress: Progress, ground: Ground | None = None
) -> Described:
    """Describe all images, and count their classes.

    Raises:
        BerundaError: images cannot be read (unless skipped), differ in their bands or are all alike; the encoder cannot
            be had.
    """
    pixels = SitePixels(sites, bands=options.bands, names=options.bands, ground=ground)
    with stages.timed("radiometry"):
        scaling = measure_site_scaling(pixels, options.seed)
    with stages.timed("encoder"):
        describer = Describer(options.encoder, len(pixels.bands), pretrained=options.pretrained, device=options.device)
    key = f"{options.encoder}|{options.pretrained}|{describer.device.type}|stages|{describer.digest}"
    with stages.timed("describe images"):
        found = describe_images(
            pixels,
            scaling,
            describer,
            image_px=options.image_px,
            key=key,
            min_valid=options.min_valid,
            progress=progress,
        )
    if not options.skip_broken:
        refuse_broken(found, len(sites))
    with stages.timed("classes"):
        classes = count_classes(found.sites, options.labels, options.field or "", zero_is_class=options.zero_is_class)
    with stages.timed("principal components"):
        components = principal_components(found.features, stages=describer.stages)
    return Described(found, components, classes, (*sites.notes, *_told(found, pixels, options.min_valid)))


def _told(found: Description, pixels: SitePixels, min_valid: float) -> list[str]:
    """Return what a reader should know of the images that were read."""
    told = []
    if found.blank:
        told.append(
            f"{len(found.blank)} of {len(pixels.sites)} images hold data on less than {min_valid:.0%} of their pixels "
            f"and are left out ({found.blank[0]!r} is the first), see --min-valid."
        )
    if pixels.renamed:
        told.append(f"Bands {', '.join(pixels.renamed)} are called {', '.join(pixels.bands)}, as --bands says.")
    return told
