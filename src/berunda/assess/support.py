"""The support of each site on the appearance plane: which images a one-class machine takes for its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from berunda.data.order import Randomness
from berunda.errors import ConfigError

__all__ = ["GAMMA", "GRID", "NU", "PlaneGrid", "Support", "estimate_supports"]

NU = 0.05
"""Share of a site's images that may lie outside its support, at most (about)."""
GAMMA = 4.0
"""1 / (2 width^2) of the kernel, on a plane whose mean variance is 1: a width of 0.35."""
GRID = 256
MIN_IMAGES = 3
"""A site of fewer images has no support: its figures are not stated."""
ROUGH_IMAGES = 20
MAX_FITTED = 2000
"""Images of a site that its support is fitted to, drawn by seed: the cost grows with their square."""
_MARGIN = 0.1
_ROWS = 16_384

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PlaneGrid:
    """A grid of `n` by `n` cells over the plane.

    Attributes:
        x_low, x_high, y_low, y_high: its edges.
        n: cells along a side.
    """

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    n: int = GRID

    @classmethod
    def over(cls, plane: np.ndarray, n: int = GRID) -> PlaneGrid:
        """Return the square grid over all places (N, 2), with a tenth of their extent as margin on each side."""
        low, high = plane.min(axis=0), plane.max(axis=0)
        half = max(float((high - low).max()) * (0.5 + _MARGIN), 1e-6)
        x, y = ((low + high) / 2).tolist()
        return cls(x - half, x + half, y - half, y + half, n)

    @property
    def centres(self) -> np.ndarray:
        """Middles of the cells, (n * n, 2) of (x, y), row by row from `y_low`."""
        xs = self.x_low + (np.arange(self.n) + 0.5) * (self.x_high - self.x_low) / self.n
        ys = self.y_low + (np.arange(self.n) + 0.5) * (self.y_high - self.y_low) / self.n
        grid = np.meshgrid(xs, ys)
        return np.stack([grid[0].ravel(), grid[1].ravel()], axis=1)

    def cells_of(self, plane: np.ndarray) -> np.ndarray:
        """Return the number of the cell (N,) that each place (N, 2) lies in."""
        col = np.clip((plane[:, 0] - self.x_low) / (self.x_high - self.x_low) * self.n, 0, self.n - 1).astype(np.int64)
        row = np.clip((plane[:, 1] - self.y_low) / (self.y_high - self.y_low) * self.n, 0, self.n - 1).astype(np.int64)
        return row * self.n + col


@dataclass(frozen=True)
class Support:
    """Supports of S sites.

    Attributes:
        grid: what areas are counted on.
        masks: (S, n * n) bool, True in the cells of the site's support.
        n_fitted: (S,) images that each was fitted to; 0 where there is none.
        nu, gamma: settings.
    """

    grid: PlaneGrid
    masks: BoolArray
    n_fitted: np.ndarray
    nu: float
    gamma: float

    def union(self, sites: Sequence[int] | np.ndarray) -> BoolArray:
        """Return the cells (n * n,) of the union of some sites' supports."""
        return np.asarray(self.masks[np.asarray(sites, np.int64)].any(axis=0))


def estimate_supports(
    plane: np.ndarray,
    site_of: np.ndarray,
    n_sites: int,
    *,
    nu: float = NU,
    gamma: float = GAMMA,
    seed: int = 0,
) -> Support:
    """Return the support of each site by a one-class support vector machine with a Gaussian kernel.

    Args:
        plane: (N, 2) places, of mean variance 1.
        site_of: (N,) site of each, 0..n_sites - 1.
        n_sites: S.
        nu: see `NU`; above 0, at most 1.
        gamma: see `GAMMA`; above 0.
        seed: of the draw where a site has more than 2000 images.

    Raises:
        ConfigError: a setting is out of range.

    Source: Schölkopf et al. 2001.
    """
    if not 0 < nu <= 1:
        raise ConfigError(f"nu is {nu}, expected above 0, at most 1")
    if not gamma > 0:
        raise ConfigError(f"gamma is {gamma}, expected above 0")
    grid = PlaneGrid.over(plane)
    centres = grid.centres
    masks = np.zeros((n_sites, len(centres)), bool)
    n_fitted = np.zeros(n_sites, np.int64)
    for site in range(n_sites):
        mine = np.flatnonzero(site_of == site)
        if len(mine) < MIN_IMAGES:
            continue
        if len(mine) > MAX_FITTED:
            mine = np.sort(Randomness(seed).numpy("support", site).choice(mine, MAX_FITTED, replace=False))
        masks[site] = _accepts(plane[mine], centres, nu, gamma)
        n_fitted[site] = len(mine)
    return Support(grid, masks, n_fitted, nu, gamma)


def _accepts(places: np.ndarray, centres: np.ndarray, nu: float, gamma: float) -> BoolArray:
    """Return which of the cells' middles the machine fitted to `places` takes for its own."""
    from sklearn.svm import OneClassSVM

    machine = OneClassSVM(kernel="rbf", gamma=gamma, nu=nu, cache_size=64).fit(places)
    reach = 6.0 / np.sqrt(2 * gamma)  # six widths of the kernel: nothing is accepted further away
    near = np.flatnonzero(
        ((centres >= places.min(axis=0) - reach) & (centres <= places.max(axis=0) + reach)).all(axis=1)
    )
    accepted = np.zeros(len(centres), bool)
    for start in range(0, len(near), _ROWS):
        part = near[start : start + _ROWS]
        accepted[part] = machine.decision_function(centres[part]) >= 0
    return accepted
