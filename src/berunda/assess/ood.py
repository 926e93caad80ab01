"""Out-of-distribution scores: how unlike the labelled training data is a pixel? Higher means less alike.

Source: Lee, Lee, Lee, Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples", NeurIPS
2018 (Mahalanobis); Sun, Ming, Zhu, Li, "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022
(kNN); Liu, Wang, Owens, Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020 (energy); Ledoit,
Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004 (shrinkage).
Deviations: the kNN distance of `FeatureDistance` is taken in the space whitened by the shared covariance, not on
length-normalised features, so that both kinds are in the same unit (standard deviations); `neighbour_distance` is the
published form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from berunda.data.order import Randomness
from berunda.errors import CheckpointError, DataError

__all__ = ["FeatureDistance", "aupr", "auroc", "energy", "fpr95", "neighbour_distance", "threshold_at"]

FloatArray = npt.NDArray[np.float64]
Kind = Literal["mahalanobis", "knn"]
KINDS: tuple[Kind, ...] = ("mahalanobis", "knn")
CHUNK_ROWS = 4096
NEIGHBOUR_ROWS = 512
EIGENVALUE_FLOOR = 1e-3


@dataclass(frozen=True)
class FeatureDistance:
    """Distance of a feature vector to the labelled training features, in standard deviations.

    Rows are worked on in chunks of one fixed size, so that a row's distance is the same to the last bit
    however the rows are grouped into calls.

    Attributes:
        kind: "mahalanobis" (to the nearest class mean) or "knn" (to the k-th nearest reference feature).
        whitening: (D, D); features @ whitening has unit within-class covariance.
        targets: (K, D) whitened class means, or (R, D) whitened reference features.
        k: which nearest reference is taken; 1 for "mahalanobis".
    """

    kind: Kind
    whitening: FloatArray
    targets: FloatArray
    k: int = 1

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        *,
        kind: Kind = "mahalanobis",
        k: int = 10,
        max_reference: int = 2000,
        seed: int = 0,
    ) -> FeatureDistance:
        """Fit the distance on labelled training features.

        The within-class covariance is shared by the classes and shrunk towards a multiple of the identity
        (Ledoit-Wolf); its eigenvalues are floored at 0.001 of their mean so that dead features do not explode
        the distance.

        Args:
            features: (n, D) finite real numbers.
            labels: (n,) class ids; negative ones are left out.
            kind: "mahalanobis" or "knn".
            k: for "knn", which nearest reference is taken.
            max_reference: for "knn", at most this many reference features are kept, the same number of each
                class where there are enough.
            seed: draws the reference features.

        Returns:
            The fitted distance.

        Raises:
            DataError: shapes do not fit, features are not finite, or there is no labelled pixel.
        """
        features_ND, labels_N = _labelled(features, labels)
        if kind not in KINDS:
            raise DataError(f"distance kind '{kind}' found, expected one of {', '.join(KINDS)}")
        ids, index = np.unique(labels_N, return_inverse=True)
        sums_KD = np.zeros((ids.size, features_ND.shape[1]))
        np.add.at(sums_KD, index, features_ND)
        means_KD = sums_KD / np.bincount(index)[:, None]
        whitening = _whitening(features_ND - means_KD[index])
        if kind == "mahalanobis":
            return cls(kind, whitening, means_KD @ whitening)
        chosen = _balanced(index, max_reference, seed)
        return cls(kind, whitening, features_ND[chosen] @ whitening, min(k, chosen.size))

    def distance(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the distance of each feature vector.

        Args:
            features: (..., D) real numbers; a row with a NaN gives NaN.

        Returns:
            float32 (...), 0 or more, in standard deviations; higher = less alike.

        Raises:
            DataError: D differs from the fitted one.
        """
        given = np.asarray(features)
        n_features = self.whitening.shape[0]
        if given.shape[-1] != n_features:
            raise DataError(f"features of length {given.shape[-1]} found, the distance was fitted on {n_features}")
        rows = given.reshape(-1, n_features)
        out = np.empty(len(rows), np.float32)
        chunk = np.zeros((CHUNK_ROWS, n_features))
        for start in range(0, len(rows), CHUNK_ROWS):
            part = rows[start : start + CHUNK_ROWS]
            chunk[: len(part)], chunk[len(part) :] = part, 0.0
            out[start : start + len(part)] = self._chunk_distance(chunk)[: len(part)]
        return out.reshape(given.shape[:-1])

    def _chunk_distance(self, chunk: FloatArray) -> FloatArray:
        white = chunk @ self.whitening
        squared = (white**2).sum(1)[:, None] - 2 * white @ self.targets.T + (self.targets**2).sum(1)[None, :]
        nearest = squared.min(1) if self.k == 1 else np.partition(squared, self.k - 1, axis=1)[:, self.k - 1]
        return np.sqrt(np.maximum(nearest, 0.0))

    def as_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return everything as float64 and int64 arrays, to be stored in a bundle."""
        settings = np.array([KINDS.index(self.kind), self.k], np.int64)
        return {
            "ood_whitening": np.ascontiguousarray(self.whitening),
            "ood_targets": np.ascontiguousarray(self.targets),
            "ood_settings": settings,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.ArrayLike]) -> FeatureDistance:
        """Rebuild from `as_arrays`; distances are equal to the last bit.

        Raises:
            CheckpointError: an array is missing or of a wrong shape.
        """
        names = ("ood_whitening", "ood_targets", "ood_settings")
        missing = [name for name in names if name not in arrays]
        if missing:
            raise CheckpointError(f"the bundle's distance layer lacks {', '.join(missing)}; map the scene again")
        whitening, targets = (np.asarray(arrays[n], dtype=np.float64) for n in names[:2])
        settings = np.asarray(arrays["ood_settings"]).reshape(-1)
        fits = whitening.ndim == 2 and targets.ndim == 2 and whitening.shape == (targets.shape[1],) * 2
        if not fits or settings.size != 2 or not 0 <= settings[0] < len(KINDS) or not 1 <= settings[1] <= len(targets):
            raise CheckpointError(
                f"the bundle's distance layer has shapes {whitening.shape}, {targets.shape} and settings "
                f"{settings.tolist()}, expected (D, D), (K, D) and [kind, k]; map the scene again"
            )
        return cls(KINDS[int(settings[0])], whitening, targets, int(settings[1]))


def _labelled(features: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    features_ND = np.asarray(features, dtype=np.float64)
    labels_N = np.asarray(labels).reshape(-1).astype(np.int64)
    if features_ND.ndim != 2 or len(features_ND) != labels_N.size:
        raise DataError(
            f"features of shape {features_ND.shape} and {labels_N.size} labels found, expected (n, D) and n"
        )
    keep = labels_N >= 0
    if not keep.any():
        raise DataError("no labelled pixel found, expected at least one to fit the feature distance on")
    if not np.isfinite(features_ND[keep]).all():
        raise DataError("features of labelled pixels are not all finite; fit the distance on valid pixels only")
    return features_ND[keep], labels_N[keep]


def _whitening(residuals_ND: FloatArray) -> FloatArray:
    """Return the symmetric inverse square root of the shrunk covariance of centred residuals."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(residuals_ND, assume_centered=True)
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    mean = float(values.mean())
    if mean <= 0:
        return np.eye(residuals_ND.shape[1])
    values = np.maximum(values, EIGENVALUE_FLOOR * mean)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T, dtype=np.float64)


def _balanced(index: npt.NDArray[np.intp], n_wanted: int, seed: int) -> npt.NDArray[np.intp]:
    """Choose at most `n_wanted` rows, classes in turn, in random order within a class."""
    order = Randomness(seed).numpy("ood reference").permutation(index.size)
    by_class = order[np.argsort(index[order], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(index))[:-1]])
    rank = np.arange(index.size) - starts[index[by_class]]
    return np.sort(by_class[np.argsort(rank, kind="stable")][:n_wanted])


def energy(logits: npt.ArrayLike, axis: int = -1) -> FloatArray:
    """Return the free energy -logsumexp(logits) along `axis`; higher = less alike."""
    values = np.asarray(logits, dtype=np.float64)
    top = values.max(axis, keepdims=True)
    total = np.log(np.exp(values - top).sum(axis, keepdims=True)) + top
    return -np.squeeze(total, axis)


def neighbour_distance(reference: npt.ArrayLike, features: npt.ArrayLike, k: int) -> npt.NDArray[np.float32]:
    """Return the distance of each feature vector to its k-th nearest reference, all scaled to length 1.

    Args:
        reference: (R, D) finite features of training images, labelled or not.
        features: (n, D) finite features.
        k: which nearest one is taken, from 1; the farthest where there are fewer than k references.

    Returns:
        (n,) float32, 0 to 2; higher = less alike.

    Raises:
        DataError: the shapes do not fit, there is no reference, or k is below 1.

    Source: Sun et al. 2022, section 3.
    """
    known, given = np.asarray(reference, np.float64), np.asarray(features, np.float64)
    if known.ndim != 2 or given.ndim != 2 or known.shape[1] != given.shape[1] or not len(known) or k < 1:
        raise DataError(
            f"reference features of shape {known.shape}, features of shape {given.shape} and k {k} found, expected "
            "(R, D) with R at least 1, (n, D), and k at least 1"
        )
    unit, at = _unit_length(known), min(k, len(known)) - 1
    out = np.empty(len(given), np.float32)
    for start in range(0, len(given), NEIGHBOUR_ROWS):
        likeness = _unit_length(given[start : start + NEIGHBOUR_ROWS]) @ unit.T
        nearest = np.partition(-likeness, at, axis=1)[:, at]
        out[start : start + NEIGHBOUR_ROWS] = np.sqrt(np.maximum(2 + 2 * nearest, 0.0))
    return out


def _unit_length(features: FloatArray) -> FloatArray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def threshold_at(scores: npt.ArrayLike, share: float = 0.95) -> float:
    """Return the threshold that flags at most 1 - share of the given scores; flagged means score > threshold.

    Args:
        scores: scores of held-out labelled pixels, any shape; non-finite ones are left out.
        share: part of them that stays unflagged, above 0 and at most 1.

    Returns:
        The smallest score that at least `share` of the scores do not exceed.

    Raises:
        DataError: no finite score, or a share outside (0, 1].

    Example:
        >>> threshold_at(range(1, 21))
        19.0
    """
    values = np.asarray(scores, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not 0 < share <= 1:
        raise DataError(f"share {share} found, expected above 0 and at most 1")
    if values.size == 0:
        raise DataError("no finite score found, expected scores of at least one held-out labelled pixel")
    return float(np.quantile(values, share, method="inverted_cdf"))


def auroc(scores: npt.ArrayLike, is_out: npt.ArrayLike) -> float | None:
    """Return the area under the ROC curve: the chance that an unlike pixel outscores an alike one, ties half.

    Args:
        scores: (n,) higher = less alike.
        is_out: (n,) True for pixels known to be unlike the training data.

    Returns:
        0 to 1, or None when one of the two groups is empty.

    Raises:
        DataError: shapes differ or scores are not finite.
    """
    values, out = _scored(scores, is_out)
    n_out, n_in = int(out.sum()), int((~out).sum())
    if n_out == 0 or n_in == 0:
        return None
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = middle_rank[index.reshape(-1)][out].sum()
    return float((rank_sum - n_out * (n_out + 1) / 2) / (n_out * n_in))


def aupr(scores: npt.ArrayLike, is_out: npt.ArrayLike) -> float | None:
    """Return the average precision of finding the unlike pixels (a chance ranking gives their share).

    Args, Returns and Raises as in `auroc`.
    """
    values, out = _scored(scores, is_out)
    if not out.any() or out.all():
        return None
    hits, false_hits = _cumulative(values, out)
    precision, recall = hits / (hits + false_hits), hits / out.sum()
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def fpr95(scores: npt.ArrayLike, is_out: npt.ArrayLike) -> float | None:
    """Return the share of unlike pixels that pass when the threshold lets 95% of the alike pixels pass.

    Alike (in-distribution) pixels are the positives here, as in Liu et al. 2020: FPR at 95% TPR.
    Args, Returns and Raises as in `auroc`.
    """
    values, out = _scored(scores, is_out)
    if not out.any() or out.all():
        return None
    return float((values[out] <= threshold_at(values[~out], 0.95)).mean())


def _cumulative(values: FloatArray, out: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Return hits and false hits at every distinct threshold, from the highest score down."""
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    hits = np.cumsum(out[order])[ends].astype(np.float64)
    return hits, ends + 1 - hits


def _scored(scores: npt.ArrayLike, is_out: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    out = np.asarray(is_out).reshape(-1).astype(bool)
    if values.shape != out.shape:
        raise DataError(f"{values.size} scores and {out.size} truths found, expected as many of each")
    if not np.isfinite(values).all():
        raise DataError(f"{int((~np.isfinite(values)).sum())} scores are not finite; score valid pixels only")
    return values, out
