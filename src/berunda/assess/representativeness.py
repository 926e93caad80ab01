"""Do the labels stand for what is to be mapped? Class shares by site and role, their distances, colours per band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from berunda.assess.support import PlaneGrid
from berunda.data.site_classes import ClassCounts
from berunda.data.sites import ROLES, SiteSet

__all__ = [
    "ClassFigures",
    "class_figures",
    "class_shares_on_plane",
    "histogram_distances",
    "jensen_shannon",
    "role_histograms",
    "shares",
]

FloatArray = npt.NDArray[np.float64]
_CELLS = 32  # along a side of the map of class shares


@dataclass(frozen=True)
class ClassFigures:
    """Classes by site and by role.

    Attributes:
        classes: names of the C classes.
        unit: what is counted.
        by_site: (S, C) counts.
        by_role: role -> (C,) counts, of the roles that have sites with labels.
        site_distance: (S, S) Jensen-Shannon distance between the sites' shares, 0..1; NaN without labels.
        role_distance: (role, role) -> distance.
        missing: classes that occur in the test sites, or elsewhere where there are none, but not in the labelled ones.
        rare: classes whose share in the labelled sites is less than a third of that in the test sites.
        only_in_one: class -> the one site that has it.
    """

    classes: tuple[str, ...]
    unit: str
    by_site: FloatArray
    by_role: dict[str, FloatArray]
    site_distance: FloatArray
    role_distance: dict[tuple[str, str], float]
    missing: tuple[str, ...]
    rare: tuple[str, ...]
    only_in_one: dict[str, str]


def shares(counts: npt.ArrayLike) -> FloatArray:
    """Return counts (..., C) as fractions of 1; NaN where there is nothing."""
    given = np.asarray(counts, np.float64)
    total = given.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(total > 0, given / total, np.nan))


def jensen_shannon(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the Jensen-Shannon distance of two histograms: the root of the divergence, with logarithms to base 2.

    Args:
        first: (C,) counts or shares, 0 or more.
        second: (C,) likewise.

    Returns:
        0 for equal shares to 1 for nothing in common; NaN where one of them is empty.

    Source: Endres and Schindelin 2003.

    Example:
        >>> jensen_shannon([1, 0], [0, 5]), jensen_shannon([1, 3], [2, 6])
        (1.0, 0.0)
    """
    p, q = shares(first), shares(second)
    if np.isnan(p).any() or np.isnan(q).any():
        return float("nan")
    middle = (p + q) / 2
    divergence = (_relative(p, middle) + _relative(q, middle)) / 2
    return float(np.sqrt(min(1.0, max(0.0, divergence))))


def _relative(p: FloatArray, q: FloatArray) -> float:
    """Return the Kullback-Leibler divergence in bits; nothing where p is 0."""
    held = p > 0
    return float((p[held] * np.log2(p[held] / q[held])).sum())


def class_figures(found: ClassCounts, sites: SiteSet) -> ClassFigures:
    """Return the figures of the classes of all sites."""
    by_site = found.by_site(sites.site_of, len(sites.sites))
    by_role = {role: by_site[sites.of_role(role)].sum(axis=0) for role in ROLES if len(sites.of_role(role))}
    by_role = {role: counts for role, counts in by_role.items() if counts.sum() > 0}
    n = len(by_site)
    distance = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            distance[i, j] = distance[j, i] = jensen_shannon(by_site[i], by_site[j])
        distance[i, i] = 0.0 if by_site[i].sum() > 0 else np.nan
    pairs = {(a, b): jensen_shannon(by_role[a], by_role[b]) for a in by_role for b in by_role if a < b}
    present = by_site > 0
    lonely = {
        found.classes[c]: sites.site_names[int(np.argmax(present[:, c]))]
        for c in np.flatnonzero(present.sum(axis=0) == 1)
    }
    missing, rare = _lacking(found.classes, by_role, by_site)
    return ClassFigures(
        found.classes, found.unit, by_site, by_role, distance, pairs, missing, rare, lonely if n > 1 else {}
    )


def _lacking(
    classes: tuple[str, ...], by_role: dict[str, FloatArray], by_site: FloatArray
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes that the labelled sites lack, and those that they have too little of."""
    if "labelled" not in by_role:
        return (), ()
    labelled = shares(by_role["labelled"])
    wanted = shares(by_role.get("test", by_site.sum(axis=0)))
    missing = tuple(c for c, has, want in zip(classes, labelled, wanted, strict=True) if has == 0 and want > 0)
    rare = tuple(c for c, has, want in zip(classes, labelled, wanted, strict=True) if 0 < has < want / 3)
    return missing, rare


def class_shares_on_plane(found: ClassCounts, plane: np.ndarray, grid: PlaneGrid) -> FloatArray:
    """Return the mean share (C, 32, 32) of each class among the images in each cell of the plane, NaN without images.

    Args:
        found: classes of the N images.
        plane: (N, 2) their places.
        grid: its extent counts, not its cells.
    """
    coarse = PlaneGrid(grid.x_low, grid.x_high, grid.y_low, grid.y_high, _CELLS)
    of_image = shares(found.counts)
    known = np.flatnonzero(~np.isnan(of_image).any(axis=1))
    cell = coarse.cells_of(plane[known])
    n = np.bincount(cell, minlength=_CELLS**2)
    maps = np.full((len(found.classes), _CELLS**2), np.nan)
    for c in range(len(found.classes)):
        summed = np.bincount(cell, weights=of_image[known, c], minlength=_CELLS**2)
        maps[c, n > 0] = summed[n > 0] / n[n > 0]
    return maps.reshape(-1, _CELLS, _CELLS)


def role_histograms(histograms: np.ndarray, sites: SiteSet) -> dict[str, FloatArray]:
    """Return the shares (B, bins) of pixel values of each band by role, "all" where no role is given.

    Args:
        histograms: (N, B, bins) counts.
        sites: the N images.
    """
    groups = {role: sites.items_of(sites.of_role(role)) for role in ROLES if len(sites.of_role(role))}
    groups = {role: index for role, index in groups.items() if len(index)} or {"all": np.arange(len(sites))}
    return {role: shares(histograms[index].sum(axis=0, dtype=np.float64)) for role, index in groups.items()}


def histogram_distances(by_role: dict[str, FloatArray]) -> dict[str, list[float]]:
    """Return the Jensen-Shannon distances between labelled and test (and unlabelled and test) values, band by band."""
    if "test" not in by_role:
        return {}
    return {
        f"{role} to test": [jensen_shannon(a, b) for a, b in zip(by_role[role], by_role["test"], strict=True)]
        for role in ("labelled", "unlabelled")
        if role in by_role
    }
