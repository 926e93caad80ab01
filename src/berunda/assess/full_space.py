"""The same questions without a plane: which images of a site have a near neighbour in another, in the full space.

The full space is that of the first principal components of the features, see `berunda.assess.embedding`. The support of
a site is the union of balls around its images; their radius is what all but a share nu of the site's own images have a
neighbour within. IoT(S1, S2) is the share of the images of S2 that lie in the support of S1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from berunda.assess.embedding import nearest_distances
from berunda.assess.overlap import Overlap
from berunda.assess.support import MIN_IMAGES

__all__ = ["FullSpace", "measure_full_space"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FullSpace:
    """Distances between images and sites.

    Attributes:
        distance: (N, S) from each image to the nearest image of each site, itself left out; inf for a site without any.
        radius: (S,) within which a site covers; NaN for a site of fewer than `MIN_IMAGES` images, which covers nothing.
        site_of: (N,) site of each image.
    """

    distance: npt.NDArray[np.float32]
    radius: FloatArray
    site_of: npt.NDArray[np.int64]

    @cached_property
    def is_covered(self) -> npt.NDArray[np.bool_]:
        """Whether each image lies in the support of each site, (N, S); computed once."""
        with np.errstate(invalid="ignore"):
            inside: npt.NDArray[np.bool_] = self.distance <= self.radius
        return inside

    @property
    def is_known(self) -> npt.NDArray[np.bool_]:
        """Which sites have enough images for a support, (S,)."""
        return np.isfinite(self.radius)

    def covered_by(self, sites: Sequence[int] | np.ndarray) -> npt.NDArray[np.bool_]:
        """Return whether each image (N,) lies in the union of some sites' supports."""
        return np.asarray(self.is_covered[:, np.asarray(sites, np.int64)].any(axis=1))

    def covered_by_others(self) -> FloatArray:
        """Return the share (S,) of each site's images that all other sites cover; NaN for sites of too few images."""
        n_covering = self.is_covered.sum(axis=1) - self.is_covered[np.arange(len(self.site_of)), self.site_of]
        n_sites = len(self.radius)
        n_images = np.bincount(self.site_of, minlength=n_sites)
        n_shared = np.bincount(self.site_of, weights=n_covering > 0, minlength=n_sites)
        return np.where(self.is_known & (n_sites > 1), n_shared / np.maximum(n_images, 1), np.nan)

    def overlap(self, rows: Mapping[str, Sequence[int]], cols: Mapping[str, Sequence[int]]) -> Overlap:
        """Return the overlaps of unions of sites, counted in images of sites that have a support.

        IoU counts the images of both unions: those in both supports over those in either.

        Args:
            rows: name -> sites of S1.
            cols: name -> sites of S2.
        """
        whole, target = np.full((len(rows), len(cols)), np.nan), np.full((len(rows), len(cols)), np.nan)
        sets = {**rows, **cols}
        covered = {name: self.covered_by(sites) for name, sites in sets.items()}
        known = np.flatnonzero(self.is_known)
        members = {name: np.isin(self.site_of, np.intersect1d(sites, known)) for name, sites in sets.items()}
        for i, first in enumerate(rows):
            for j, second in enumerate(cols):
                if not members[first].any() or not members[second].any():
                    continue
                target[i, j] = covered[first][members[second]].mean()
                among = members[first] | members[second]
                either = (covered[first] | covered[second])[among].sum()
                whole[i, j] = (covered[first] & covered[second])[among].sum() / max(1, either)
        return Overlap(tuple(rows), tuple(cols), whole, target)


def measure_full_space(components: np.ndarray, site_of: np.ndarray, n_sites: int, *, nu: float) -> FullSpace:
    """Return the distances of all images to all sites.

    Args:
        components: (N, d) of the images.
        site_of: (N,) site of each.
        n_sites: S.
        nu: share of a site's own images that its radius leaves out.
    """
    points = np.asarray(components, np.float32)
    distance = np.full((len(points), n_sites), np.inf, np.float32)
    radius = np.full(n_sites, np.nan)
    for site in range(n_sites):
        mine = np.flatnonzero(site_of == site)
        if not len(mine):
            continue
        others = np.flatnonzero(site_of != site)
        if len(others):
            distance[others, site] = nearest_distances(points[others], points[mine], 1)[1][:, 0]
        if len(mine) > 1:  # its own distances; a radius needs more
            own = nearest_distances(points[mine], points[mine], 1, skip_self=True)[1][:, 0]
            distance[mine, site] = own
            if len(mine) >= MIN_IMAGES:
                radius[site] = np.quantile(own.astype(np.float64), 1 - nu, method="higher")
    return FullSpace(distance, radius, np.asarray(site_of, np.int64))
