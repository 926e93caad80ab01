"""Label propagation: labels spread along the edges of a graph that joins images whose features are alike.

In numpy and scipy alone; features come from whatever net there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from berunda.errors import DataError

__all__ = [
    "FloatArray",
    "Projection",
    "aligned",
    "corrected",
    "fit_projection",
    "inductive",
    "joined",
    "knn_graph",
    "most_trusted",
    "nearest",
    "propagate",
    "smoothed",
]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
POWER = 3.0
"""Edges weigh cosine ** 3. Source: Iscen et al. 2019, eq. 9."""
_ROWS = 8192  # of float64 features at a time


@dataclass(frozen=True, eq=False)
class Projection:
    """Principal components of features, after which each image is a point on the unit sphere.

    Attributes:
        mean: (D,) of the features that it was fitted to.
        axes: (D, d), scaled by the inverse standard deviation where it whitens.
    """

    mean: FloatArray
    axes: FloatArray

    def apply(self, features: FloatArray) -> FloatArray:
        """Return points (N, d) of length 1 for features (N, D); a feature at the mean becomes 0.

        Raises:
            DataError: another number of features.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise DataError(f"features: found shape {features.shape}, expected (N, {len(self.mean)}); use the same net")
        return _on_sphere((np.asarray(features, np.float32) - self.mean) @ self.axes)


def fit_projection(features: FloatArray, n_components: int = 64, *, whiten: bool = False) -> Projection:
    """Return the first principal components of features (N, D).

    Args:
        features: real and finite, N at least 2.
        n_components: kept, at least 1; all D where that is fewer.
        whiten: give all components the same variance before the points are put on the sphere.

    Raises:
        DataError: features that are not finite, or too few.
    """
    _check(features)
    if n_components < 1:
        raise DataError(f"feature graph: n_components is {n_components}, expected at least 1")
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((features.shape[1],) * 2)
    for start in range(0, len(features), _ROWS):
        part = features[start : start + _ROWS] - mean
        covariance += part.T @ part
    variance, axes = np.linalg.eigh(covariance / len(features))
    order = np.argsort(variance)[::-1][: min(n_components, features.shape[1])]
    kept = axes[:, order]
    if whiten:
        kept = kept / np.sqrt(np.maximum(variance[order], 1e-12 * max(variance[-1], 1e-30)))
    return Projection(mean.astype(np.float32), kept.astype(np.float32))


def joined(points: FloatArray, others: FloatArray) -> FloatArray:
    """Return points (N, d + e) of length 1 that are near where (N, d) and (N, e) both are; zeros have no say."""
    return _on_sphere(np.concatenate([points, others], axis=1))


def nearest(queries: FloatArray | None, points: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return the k points of largest cosine to each query, exactly, nearest first.

    Memory beyond the answer stays bounded, whatever the number of points.

    Args:
        queries: (M, d) of length 1; None for the points themselves, none of which is its own neighbour.
        points: (N, d) of length 1.
        k: at least 1, less than N.

    Returns:
        index (M, k) int64 and cosine (M, k) float32.

    Raises:
        DataError: there are not so many points.
    """
    from sklearn.neighbors import NearestNeighbors

    n_others = len(points) - (queries is None)
    if not 1 <= k <= n_others:
        raise DataError(f"feature graph: k is {k}, expected 1 to {n_others}, the images there are to join; lower k")
    finder = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(np.asarray(points, np.float32))
    distance, index = finder.kneighbors(None if queries is None else np.asarray(queries, np.float32))
    return index.astype(np.int64), (1 - 0.5 * distance**2).astype(np.float32)


def knn_graph(points: FloatArray, k: int = 15, *, power: float = POWER) -> sparse.csr_array:
    """Return the graph of the k nearest neighbours as D^-1/2 W D^-1/2, symmetric, without loops.

    Args:
        points: (N, d) of length 1, see `Projection`.
        k: neighbours that an image is joined to; others may be joined to it as well.
        power: an edge weighs max(cosine, 0) ** power, twice that where both are neighbours of each other.

    Returns:
        (N, N) float32.

    Raises:
        DataError: fewer than k + 1 points.

    Source: Zhou et al. 2004, section 2; Iscen et al. 2019, eq. 9 and 10.
    """
    index, cosine = nearest(None, points, k)
    n = len(points)
    weights = np.maximum(cosine, 0) ** power
    directed = sparse.csr_array((weights.ravel(), index.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    joined = (directed + directed.T).tocsr()
    scale = 1 / np.sqrt(np.maximum(joined.sum(axis=1), 1e-12))
    rows = np.repeat(np.arange(n), np.diff(joined.indptr))
    values = (joined.data * scale[rows] * scale[joined.indices]).astype(np.float32)
    return sparse.csr_array((values, joined.indices, joined.indptr), shape=(n, n))


def propagate(
    graph: sparse.csr_array,
    labels: IntArray,
    n_classes: int,
    *,
    alpha: float = 0.99,
    iterations: int = 60,
    class_balanced: bool = True,
) -> FloatArray:
    """Return soft labels of all images: Z <- alpha S Z + (1 - alpha) Y, from Z = Y on.

    Args:
        graph: (N, N) S, see `knn_graph`.
        labels: (N,) class of each image, -1 for none.
        n_classes: C.
        alpha: how far labels spread, 0 to below 1.
        iterations: at least 1.
        class_balanced: give each class the same mass at the start, however many labels it has, and at the end.

    Returns:
        (N, C) distributions; uniform for images that no label reaches.

    Raises:
        DataError: labels do not fit the graph or the classes, or there are none.

    Source: Zhou et al. 2004, section 2; for the classes' mass Zhu et al. 2003, section 4.
    """
    _check_labels(graph, labels, n_classes)
    known = np.flatnonzero(labels >= 0)
    given = np.zeros((len(labels), n_classes), np.float32)
    given[known, labels[known]] = 1
    if class_balanced:
        given /= np.maximum(given.sum(axis=0), 1)
    soft = given
    for _ in range(iterations):
        spread: FloatArray = graph @ soft
        soft = np.float32(alpha) * spread + np.float32(1 - alpha) * given
    if class_balanced:
        mass = soft.sum(axis=0)
        soft = (soft / np.where(mass > 0, mass, 1)).astype(np.float32)
    return _distributions(soft)


def smoothed(graph: sparse.csr_array, soft: FloatArray, *, alpha: float = 0.8, iterations: int = 10) -> FloatArray:
    """Return soft labels in which the neighbours of every image had their say: Z <- alpha S Z + (1 - alpha) Y, Z = Y.

    Args:
        graph: (N, N) S, see `knn_graph`.
        soft: (N, C) Y, at least 0.
        alpha: the neighbours' say, 0 to below 1.
        iterations: how far it reaches.

    Returns:
        (N, C) distributions.
    """
    answer = soft
    for _ in range(iterations):
        spread: FloatArray = graph @ answer
        answer = np.float32(alpha) * spread + np.float32(1 - alpha) * soft
    return _distributions(answer)


def corrected(graph: sparse.csr_array, answers: FloatArray, labels: IntArray, *, alpha: float = 0.9) -> FloatArray:
    """Return a classifier's answers (N, C) smoothed over the graph, with the known labels (N,), -1 for none, held fast.

    All labelled images together weigh as much as the answers about all images, divided by the neighbours that each has
    in the mean.
    """
    known = np.flatnonzero(labels >= 0)
    said = answers.astype(np.float32)
    weight = len(labels) / max(len(known), 1) / max(graph.nnz / len(labels), 1)
    said[known] = np.eye(answers.shape[1], dtype=np.float32)[labels[known]] * np.float32(weight)
    return smoothed(graph, said, alpha=alpha, iterations=20)


def aligned(soft: FloatArray, shares: FloatArray, *, iterations: int = 5) -> FloatArray:
    """Return distributions (N, C) whose mean over all images is near `shares` (C,).

    Columns and rows are scaled in turn, as in optimal transport between images and classes.

    Source: Cuturi 2013 (Sinkhorn distances), algorithm 1; for pseudo-labels Asano et al. 2020, section 3.
    """
    answer = _distributions(np.maximum(soft, np.float32(1e-8)))
    for _ in range(iterations):
        answer = _distributions(answer * (shares / np.maximum(answer.mean(axis=0), 1e-12)))
    return answer


def most_trusted(soft: FloatArray, shares: FloatArray, share: float) -> npt.NDArray[np.bool_]:
    """Return (N,) which images to believe: of each class the surest, `share` of as many as it should have.

    Args:
        soft: (N, C) distributions.
        shares: (C,) of the classes among all images.
        share: 0 to 1; at 1 every image up to the class's due.
    """
    label, confidence = soft.argmax(axis=1), soft.max(axis=1)
    believed = np.zeros(len(soft), bool)
    for number, due in enumerate(shares):
        mine = np.flatnonzero(label == number)
        surest = np.argsort(-confidence[mine], kind="stable")
        n_due = math.ceil(round(share * float(due) * len(soft), 4))  # 15.0000004 of float32 shares are 15
        believed[mine[surest[:n_due]]] = True
    return believed


def inductive(queries: FloatArray, points: FloatArray, soft: FloatArray, k: int = 15) -> FloatArray:
    """Return soft labels of images that are not in the graph: those of their k nearest in it, by cosine ** 3.

    Args:
        queries: (M, d) of length 1, by the projection that made `points`.
        points: (N, d) of the graph.
        soft: (N, C) what `propagate` returned.
        k: neighbours that are asked.

    Returns:
        (M, C) distributions.
    """
    index, cosine = nearest(queries, points, k)
    weights = np.maximum(cosine, 0) ** POWER
    return _distributions(np.einsum("mk,mkc->mc", weights, soft[index]))


def _distributions(soft: npt.NDArray[np.floating]) -> FloatArray:
    total = soft.sum(axis=1, keepdims=True)
    uniform = np.float32(1 / soft.shape[1])
    return np.where(total > 0, soft / np.where(total > 0, total, 1), uniform).astype(np.float32)


def _on_sphere(points: npt.NDArray[np.floating]) -> FloatArray:
    length = np.linalg.norm(points, axis=1, keepdims=True)
    return np.ascontiguousarray(points / np.maximum(length, 1e-12), dtype=np.float32)


def _check(features: FloatArray) -> None:
    if features.ndim != 2 or len(features) < 2:
        raise DataError(f"features: found shape {features.shape}, expected (N, D) with N at least 2")
    if not np.isfinite(features).all():
        raise DataError("features: found values that are not finite, expected none; look at the net that made them")


def _check_labels(graph: sparse.csr_array, labels: IntArray, n_classes: int) -> None:
    if labels.shape != (graph.shape[0],):
        raise DataError(f"labels: found shape {labels.shape}, expected ({graph.shape[0]},), one for each image")
    if labels.max(initial=-1) >= n_classes or labels.min(initial=-1) < -1:
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(f"labels: found {found}, expected -1 (none) to {n_classes - 1}")
    if not (labels >= 0).any():
        raise DataError("labels: found none, expected at least one to spread; label some images")
