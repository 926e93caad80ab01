"""The same questions without a plane: which images of a site have a near neighbour in another, in the full space.

The full space is that of the first principal components of the features, see `berunda.assess.embedding`. The support of
a site is the union of balls around its images; their radius is what all but a share nu of the site's own images have a
neighbour within. IoT(S1, S2) is the share of the images of S2 that lie in the support of S1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from berunda.assess.embedding import nearest_distances
from berunda.assess.overlap import Overlap
from berunda.assess.support import MIN_IMAGES

__all__ = ["FullSpace", "measure_full_space"]

FloatArray = npt.NDArray[np.float64]
_ROWS = 8192  # images that are compared with all unions at once


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
        first, second = self._members(rows.values()), self._members(cols.values())
        n_inside, n_shared, n_either = (np.zeros((len(rows), len(cols))) for _ in range(3))
        for start in range(0, len(self.site_of), _ROWS):
            part = slice(start, start + _ROWS)
            one, two = self._looked_at(first, part), self._looked_at(second, part)
            shared = _among(one, two)
            n_inside += one.covered.T @ two.own
            n_shared += shared
            n_either += _among(one, two._replace(covered=np.ones_like(two.covered))) - shared
            n_either += _among(one._replace(covered=np.ones_like(one.covered)), two)
        n_images = np.bincount(self.site_of, minlength=len(self.radius)) * self.is_known
        n_first, n_second = n_images @ first, n_images @ second
        has_both = (n_first[:, None] > 0) & (n_second > 0)
        target = np.where(has_both, n_inside / np.maximum(n_second, 1), np.nan)
        return Overlap(tuple(rows), tuple(cols), np.where(has_both, n_shared / np.maximum(n_either, 1), np.nan), target)

    def _members(self, unions: Iterable[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return which sites belong to each of k unions, as 0 and 1, (S, k)."""
        sets = list(unions)
        found = np.zeros((len(self.radius), len(sets)), np.float32)
        for number, sites in enumerate(sets):
            found[np.asarray(sites, np.int64), number] = 1
        return found

    def _looked_at(self, members: npt.NDArray[np.float32], part: slice) -> _Images:
        """Return what unions of sites (S, k) have of some images."""
        covered = self.is_covered[part].astype(np.float32) @ members > 0
        own = (members * self.is_known[:, None])[self.site_of[part]]
        return _Images(covered.astype(np.float32), own.astype(np.float32))


class _Images(NamedTuple):
    """Of n images, as 0 and 1 (n, k): which the supports of k unions cover, and which are of their sites."""

    covered: npt.NDArray[np.float32]
    own: npt.NDArray[np.float32]


def _among(first: _Images, second: _Images) -> FloatArray:
    """Return how many images of either union both supports cover, for all pairs of unions (R, C)."""
    mine, yours = first.covered * first.own, second.covered * second.own
    return np.asarray(mine.T @ second.covered + first.covered.T @ yours - mine.T @ yours, np.float64)


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
