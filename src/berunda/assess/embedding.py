"""From features to the appearance plane: principal components, exact neighbours, t-SNE; the same seed, the same bits.

A plane deceives: t-SNE keeps neighbours together, and neither distances nor densities. What is counted on the plane is
therefore counted in the full space beside it, that of the components, see `berunda.assess.full_space`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from berunda.cores import allowed_cores
from berunda.errors import DataError
from berunda.models.propagation import fit_projection

__all__ = ["N_COMPONENTS", "PERPLEXITY", "appearance_plane", "nearest_distances", "principal_components"]

N_COMPONENTS = 50
PERPLEXITY = 30.0
_LEAST = 8  # images that t-SNE is used for; fewer are shown on their first two components
_MANY = 10_000  # images from which on forces are interpolated on a grid instead of summed over a tree
_ROWS = 1024  # of the matrix of distances that are held at once

FloatArray = npt.NDArray[np.float32]


def principal_components(
    features: FloatArray, n: int = N_COMPONENTS, *, stages: Sequence[int] | None = None
) -> FloatArray:
    """Return the first principal components (N, d) of features (N, D), scaled so that their variances add up to 1.

    Args:
        features: (N, D).
        n: components kept.
        stages: sizes of blocks of features, D in all, that are to count alike: each is scaled to a total variance of
            1 before. None leaves the features as they are.

    Raises:
        DataError: features are not finite, or all images are alike.
    """
    if not np.isfinite(features).all():
        bad = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise DataError(
            f"features of image {bad} are not finite, expected numbers; leave it out or use another encoder"
        )
    if len(features) < 2:
        raise DataError(f"{len(features)} image found, expected at least 2 to compare; add images")
    features = _balanced(features, stages) if stages else features
    projection = fit_projection(features, n)
    centred = (features.astype(np.float64) - projection.mean) @ projection.axes.astype(np.float64)
    spread = float(np.sqrt((centred**2).sum(axis=1).mean()))
    if spread <= 1e-6 * (1.0 + float(np.abs(features).max())):
        raise DataError(
            f"all {len(features)} images have the same features, expected images that differ; check that they are not "
            "blank or copies of one"
        )
    return (centred / spread).astype(np.float32)


def _balanced(features: FloatArray, stages: Sequence[int]) -> FloatArray:
    """Return features whose blocks have a total variance of 1 each; constant blocks stay."""
    if sum(stages) != features.shape[1]:
        raise DataError(f"features: {features.shape[1]} a image found, expected {sum(stages)}, those of all stages")
    blocks = np.split(features.astype(np.float64), np.cumsum(stages)[:-1], axis=1)
    spread = [float(np.sqrt(block.var(axis=0).sum())) for block in blocks]
    scaled = [block / (width if width > 1e-9 else 1.0) for block, width in zip(blocks, spread, strict=True)]
    return np.concatenate(scaled, axis=1).astype(np.float32)


def appearance_plane(
    components: FloatArray, *, seed: int = 0, perplexity: float = PERPLEXITY, n_threads: int | None = None
) -> npt.NDArray[np.float64]:
    """Return a place (N, 2) on the plane for each image, by t-SNE; fewer than 8 images keep their first two components.

    The plane is centred, and scaled so that the mean variance of its two axes is 1. Neighbours are exact, the start is
    the first two components, and the threads do not change the result.

    Args:
        components: (N, d), see `principal_components`.
        seed: of the little that is left to chance.
        perplexity: how many neighbours count, about; less where there are few images (a third of them).
        n_threads: None for all cores.

    Source: van der Maaten and Hinton 2008; for the accelerations Poličar et al. 2024 (openTSNE).
    """
    n = len(components)
    start = np.zeros((n, 2))
    n_kept = min(2, components.shape[1])
    start[:, :n_kept] = components[:, :n_kept]
    plane = start if n < _LEAST else _embedded(components, start, seed, min(perplexity, (n - 1) / 3), n_threads)
    plane = plane - plane.mean(axis=0)
    spread = float(np.sqrt((plane**2).mean()))
    return plane / max(spread, 1e-12)


def _embedded(
    components: FloatArray, start: np.ndarray, seed: int, perplexity: float, n_threads: int | None
) -> npt.NDArray[np.float64]:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    threads = n_threads or _n_cores()
    k = min(len(components) - 1, int(3 * perplexity))
    index, distance = nearest_distances(components, components, k, skip_self=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        affinity = PerplexityBasedNN(
            knn_index=PrecomputedNeighbors(index, distance.astype(np.float64)), perplexity=perplexity, n_jobs=threads
        )
        scaled = start / max(float(start[:, 0].std()), 1e-12) * 1e-4
        method = "fft" if len(components) >= _MANY else "bh"
        embedding = TSNEEmbedding(
            scaled, affinity, negative_gradient_method=method, n_jobs=threads, random_state=seed % 2**32
        )
        embedding = embedding.optimize(n_iter=250, exaggeration=12, momentum=0.5, inplace=False)
        embedding = embedding.optimize(n_iter=500, momentum=0.8, inplace=False)
    return np.asarray(embedding, np.float64)


def nearest_distances(
    queries: FloatArray, points: FloatArray, k: int, *, skip_self: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return index and Euclidean distance (M, k) of the k points nearest to each query, exactly, nearest first.

    Args:
        queries: (M, d).
        points: (N, d).
        k: 1 to N, or N - 1 with `skip_self`.
        skip_self: the queries are the points, and none is its own neighbour.
    """
    squares = (points.astype(np.float64) ** 2).sum(axis=1)
    index = np.empty((len(queries), k), np.int64)
    distance = np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _ROWS):
        part = queries[start : start + _ROWS]
        found = squares - 2.0 * (part @ points.T) + (part.astype(np.float64) ** 2).sum(axis=1)[:, None]
        if skip_self:
            found[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        best = np.argpartition(found, k - 1, axis=1)[:, :k] if k < found.shape[1] else np.argsort(found, axis=1)
        values = np.take_along_axis(found, best, axis=1)
        order = np.argsort(values, axis=1, kind="stable")
        index[start : start + _ROWS] = np.take_along_axis(best, order, axis=1)
        distance[start : start + _ROWS] = np.sqrt(np.maximum(np.take_along_axis(values, order, axis=1), 0))
    return index, distance


def _n_cores() -> int:
    """Return the cores that this process may use; `OMP_NUM_THREADS` bounds them, as it does everywhere else."""
    n = allowed_cores()
    asked = os.environ.get("OMP_NUM_THREADS", "").strip()
    return min(n, max(1, int(asked))) if asked.isdecimal() else n
