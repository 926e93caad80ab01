"""Design-based accuracy and area: what a probability sample of points says about the map and the land.

Source: Olofsson, Foody, Herold, Stehman, Woodcock, Wulder, "Good practices for estimating area and assessing
accuracy of land change", Remote Sensing of Environment 148 (2014) 42-57, equations 1 to 11. In this file
matrices have the map in their rows and the reference in their columns, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from berunda.errors import DataError

__all__ = ["Z_95", "AreaEstimate", "Estimate", "estimate_area"]

FloatArray = npt.NDArray[np.float64]
Design = Literal["stratified", "random"]
Z_95 = 1.96


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error and the half width of its 95% interval (1.96 standard errors)."""

    value: float
    standard_error: float

    @property
    def half_width(self) -> float:
        """Half the width of the 95% interval."""
        return Z_95 * self.standard_error

    def as_dict(self) -> dict[str, float]:
        """Return plain JSON values."""
        return {
            "value": self.value,
            "standard_error": self.standard_error,
            "low": self.value - self.half_width,
            "high": self.value + self.half_width,
        }


@dataclass(frozen=True)
class AreaEstimate:
    """Accuracy and area from a probability sample.

    Attributes:
        class_names: C names.
        estimator: "stratified", "post-stratified" or "simple random".
        n_points: sample size.
        counts: (C, C) sample counts, map in rows.
        proportions: (C, C) estimated share of the mapped area in each cell, sums to 1.
        oa: overall accuracy.
        users: user's accuracy per class, None for a class that is not in the map or, in the simple random
            estimator, has under 2 points.
        producers: producer's accuracy per class, None for a class that is not estimated to exist.
        mapped_ha: area of the class in the map.
        area_ha: estimated area of the class on the ground.
    """

    class_names: tuple[str, ...]
    estimator: str
    n_points: int
    counts: npt.NDArray[np.int64]
    proportions: FloatArray
    oa: Estimate
    users: tuple[Estimate | None, ...]
    producers: tuple[Estimate | None, ...]
    mapped_ha: tuple[float, ...]
    area_ha: tuple[Estimate, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, per-class ones under `classes` by name."""
        each = zip(self.class_names, self.users, self.producers, self.mapped_ha, self.area_ha, strict=True)
        return {
            "estimator": self.estimator,
            "n_points": self.n_points,
            "counts_map_by_reference": self.counts.tolist(),
            "proportions_map_by_reference": self.proportions.tolist(),
            "oa": self.oa.as_dict(),
            "classes": {
                name: {
                    "users_accuracy": users.as_dict() if users else None,
                    "producers_accuracy": producers.as_dict() if producers else None,
                    "mapped_ha": mapped,
                    "area_ha": area.as_dict(),
                }
                for name, users, producers, mapped, area in each
            },
        }


@dataclass(frozen=True)
class _Sample:
    """Checked input: counts n_ij, stratum weights W_i, row sums n_i (floats), and which strata exist."""

    counts: FloatArray
    weights: FloatArray
    n_rows: FloatArray
    exists: npt.NDArray[np.bool_]


def estimate_area(
    counts: npt.ArrayLike,
    mapped_ha: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    design: Design = "stratified",
) -> AreaEstimate:
    """Estimate accuracy and area from reference points.

    "stratified": points drawn at random within each class of the map (the strata). "random": drawn at random
    over the whole map; the paper recommends the same formulas then, as a post-stratified estimator, which is
    used when every class in the map holds at least 2 points, and the plain proportions of the sample else.

    Args:
        counts: (C, C) numbers of points, map class in rows, reference class in columns.
        mapped_ha: (C,) mapped area of each class (any unit; the estimates come in the same).
        class_names: C names.
        design: "stratified" or "random".

    Returns:
        Estimates with standard errors.

    Raises:
        DataError: shapes do not fit, a stratum holds under 2 points, or points lie where the map has no such
            class.
    """
    matrix, area_ha = np.asarray(counts, dtype=np.int64), np.asarray(mapped_ha, dtype=np.float64)
    names = tuple(class_names)
    _check(matrix, area_ha, names, design)
    n_rows = matrix.sum(1)
    sample = _Sample(matrix.astype(np.float64), area_ha / area_ha.sum(), n_rows.astype(np.float64), area_ha > 0)
    thin = [n for n, count, area in zip(names, n_rows, area_ha, strict=True) if area > 0 and count < 2]
    if thin and design == "stratified":
        raise DataError(
            f"class '{thin[0]}' of the map holds {n_rows[names.index(thin[0])]} points, expected at "
            "least 2 in every mapped class for a stratified design; add points there, or use --design random "
            "if the points were drawn over the whole map"
        )
    estimator = "stratified" if design == "stratified" else ("simple random" if thin else "post-stratified")
    compute = _simple_random if thin else _stratified
    proportions, oa, users, producers, shares = compute(sample)
    total = float(area_ha.sum())
    return AreaEstimate(
        class_names=names,
        estimator=estimator,
        n_points=int(matrix.sum()),
        counts=matrix,
        proportions=proportions,
        oa=oa,
        users=users,
        producers=producers,
        mapped_ha=tuple(float(a) for a in area_ha),
        area_ha=tuple(Estimate(s.value * total, s.standard_error * total) for s in shares),
    )


def _check(matrix: npt.NDArray[np.int64], area_ha: FloatArray, names: tuple[str, ...], design: str) -> None:
    n = len(names)
    if matrix.shape != (n, n) or area_ha.shape != (n,):
        raise DataError(
            f"counts of shape {matrix.shape} and areas of shape {area_ha.shape} found, expected ({n}, {n}) and ({n},)"
        )
    if design not in ("stratified", "random"):
        raise DataError(f"design '{design}' found, expected 'stratified' or 'random'")
    if (matrix < 0).any() or not np.isfinite(area_ha).all() or (area_ha < 0).any() or area_ha.sum() <= 0:
        raise DataError("counts and mapped areas must be finite and not negative, with some mapped area")
    stray = np.flatnonzero((area_ha == 0) & (matrix.sum(1) > 0))
    if stray.size:
        raise DataError(
            f"{matrix[stray[0]].sum()} points lie in map class '{names[stray[0]]}', whose mapped area is 0; "
            "expected areas counted on the very map that the points were read from"
        )
    if matrix.sum() < 2:
        raise DataError(f"{matrix.sum()} usable reference points found, expected at least 2")


_Result = tuple[FloatArray, Estimate, tuple[Estimate | None, ...], tuple[Estimate | None, ...], tuple[Estimate, ...]]


def _stratified(sample: _Sample) -> _Result:
    weights, n_rows, exists = sample.weights, sample.n_rows, sample.exists
    shares = np.divide(sample.counts, n_rows[:, None], out=np.zeros_like(sample.counts), where=exists[:, None])
    spread = np.where(exists, n_rows - 1, 1.0)
    proportions = weights[:, None] * shares  # eq. 4
    users = np.diagonal(shares)
    users_variance = users * (1 - users) / spread  # eq. 6
    oa = Estimate(float(np.trace(proportions)), float(np.sqrt((weights**2 * users_variance).sum())))  # eq. 1, 5
    cell_variance = shares * (1 - shares) / spread[:, None]
    area_variance = (weights[:, None] ** 2 * cell_variance).sum(0)  # eq. 10
    column = proportions.sum(0)  # eq. 9
    return (
        proportions,
        oa,
        tuple(
            Estimate(float(u), float(np.sqrt(v))) if e else None
            for u, v, e in zip(users, users_variance, exists, strict=True)
        ),
        tuple(_producers(j, weights, shares, cell_variance, column) for j in range(len(weights))),
        tuple(Estimate(float(p), float(np.sqrt(v))) for p, v in zip(column, area_variance, strict=True)),
    )


def _producers(
    j: int, weights: FloatArray, shares: FloatArray, cell_variance: FloatArray, column: FloatArray
) -> Estimate | None:
    """Return the producer's accuracy of class j, eq. 3 and 7, with areas as shares of the whole."""
    if column[j] <= 0:
        return None
    accuracy = weights[j] * shares[j, j] / column[j]
    terms = weights**2 * cell_variance[:, j]
    others = np.delete(terms, j).sum()
    variance = ((1 - accuracy) ** 2 * terms[j] + accuracy**2 * others) / column[j] ** 2
    return Estimate(float(accuracy), float(np.sqrt(variance)))


def _simple_random(sample: _Sample) -> _Result:
    n = float(sample.counts.sum())
    proportions = sample.counts / n
    hits, rows, columns = np.diagonal(sample.counts), sample.counts.sum(1), sample.counts.sum(0)
    return (
        proportions,
        _share(float(hits.sum()), n),
        tuple(_share(h, r) if r >= 2 else None for h, r in zip(hits, rows, strict=True)),
        tuple(_share(h, c) if c >= 2 else None for h, c in zip(hits, columns, strict=True)),
        tuple(_share(c, n) for c in columns),
    )


def _share(part: float, whole: float) -> Estimate:
    p = part / whole
    return Estimate(float(p), float(np.sqrt(p * (1 - p) / (whole - 1))))
