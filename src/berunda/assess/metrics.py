"""Agreement scores of a class map: overall accuracy, IoU, precision, recall, F1, kappa.

A confusion matrix has the truth in its rows and the prediction in its columns. A class without a single true
pixel is *absent*: its scores are None, never 0 or 1, and it does not enter any mean. Pixels wrongly given to
it still count as errors of the classes they truly belong to, so predicting an absent class is never free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.errors import DataError

__all__ = ["Scores", "class_scores", "confusion_matrix", "grouped_confusion", "optional", "score"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """Scores of one confusion matrix, all fractions of 1 (kappa: -1 to 1); None where a score has no meaning.

    The per-class tuples are in the order of `class_names`. `support` counts the true pixels of each class.
    """

    class_names: tuple[str, ...]
    n_pixels: int
    support: tuple[int, ...]
    oa: float | None
    miou: float | None
    macro_precision: float | None
    macro_recall: float | None
    macro_f1: float | None
    kappa: float | None
    iou: tuple[float | None, ...]
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    f1: tuple[float | None, ...]

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that have no true pixel."""
        return tuple(n for n, count in zip(self.class_names, self.support, strict=True) if count == 0)

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values, per-class ones under `classes` by name."""
        whole = ("oa", "miou", "macro_precision", "macro_recall", "macro_f1", "kappa")
        each = ("support", "iou", "precision", "recall", "f1")
        return {
            **{name: getattr(self, name) for name in whole},
            "n_pixels": self.n_pixels,
            "absent_classes": list(self.absent),
            "classes": {
                name: {field: getattr(self, field)[i] for field in each} for i, name in enumerate(self.class_names)
            },
        }


def confusion_matrix(truth: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int, *, first_id: int = 0) -> IntArray:
    """Count pixels by true class (rows) and predicted class (columns).

    Args:
        truth: class ids, any shape; ids below `first_id` mean "no truth here".
        predicted: class ids, same shape; ids below `first_id` mean "not predicted here" (nodata).
        n_classes: C, the number of classes.
        first_id: id of the first class: 0 for training labels (-1 = none), 1 for maps (0 = nodata).

    Returns:
        int64 (C, C). Pixels without truth or without prediction are left out.

    Raises:
        DataError: the shapes differ or an id lies past the last class.

    Example:
        >>> confusion_matrix([0, 0, 1, -1], [0, 1, 1, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    true_n, predicted_n = _ids(truth, first_id), _ids(predicted, first_id)
    _check_ids(true_n, predicted_n, n_classes)
    keep = (true_n >= 0) & (predicted_n >= 0)
    cells = true_n[keep] * n_classes + predicted_n[keep]
    return np.bincount(cells, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def grouped_confusion(
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    groups: npt.ArrayLike,
    n_classes: int,
    *,
    first_id: int = 0,
) -> IntArray:
    """Count one confusion matrix per group (polygon or block), the unit that a bootstrap resamples.

    Args:
        truth: class ids, any shape (see `confusion_matrix`).
        predicted: class ids, same shape.
        groups: integer group of each pixel, same shape, any values.
        n_classes: C.
        first_id: id of the first class.

    Returns:
        int64 (G, C, C), one for each group that has at least one counted pixel, in the order of the group
        values.

    Raises:
        DataError: the shapes differ or an id lies past the last class.
    """
    true_n, predicted_n = _ids(truth, first_id), _ids(predicted, first_id)
    group_n = np.asarray(groups).reshape(-1)
    _check_ids(true_n, predicted_n, n_classes)
    if group_n.shape != true_n.shape:
        raise DataError(f"groups has {group_n.size} entries, expected one for each of the {true_n.size} pixels")
    keep = (true_n >= 0) & (predicted_n >= 0)
    values, index = np.unique(group_n[keep], return_inverse=True)
    n_cells = n_classes * n_classes
    cells = index.reshape(-1) * n_cells + true_n[keep] * n_classes + predicted_n[keep]
    return np.bincount(cells, minlength=values.size * n_cells).reshape(values.size, n_classes, n_classes)


def _ids(values: npt.ArrayLike, first_id: int) -> IntArray:
    return np.asarray(values).reshape(-1).astype(np.int64) - first_id


def _check_ids(true_n: IntArray, predicted_n: IntArray, n_classes: int) -> None:
    if true_n.shape != predicted_n.shape:
        raise DataError(
            f"truth has {true_n.size} pixels and the prediction {predicted_n.size}; expected the same pixels in both"
        )
    largest = max(true_n.max(initial=-1), predicted_n.max(initial=-1))
    if largest >= n_classes:
        raise DataError(f"class index {largest} found, expected at most {n_classes - 1} for {n_classes} classes")


def class_scores(matrices: npt.ArrayLike) -> dict[str, FloatArray]:
    """Compute the per-class scores and their means for any stack of confusion matrices.

    Args:
        matrices: (..., C, C), truth in rows, counts or weights, non-negative.

    Returns:
        `iou`, `precision`, `recall`, `f1` of shape (..., C) and `oa`, `miou`, `macro_precision`,
        `macro_recall`, `macro_f1`, `kappa` of shape (...); NaN where a class is absent from the truth or a
        score has no meaning. A class that has truth but is never predicted has precision 0, as in
        scikit-learn's default: else a method would gain by giving up a class.
    """
    matrix = np.asarray(matrices, dtype=np.float64)
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    true, predicted = matrix.sum(-1), matrix.sum(-2)
    total = true.sum(-1)
    present = true > 0
    each = {
        "iou": _ratio(hit, true + predicted - hit, present),
        "precision": np.where(present, _ratio(hit, np.maximum(predicted, 1e-300), present), np.nan),
        "recall": _ratio(hit, true, present),
        "f1": _ratio(2 * hit, true + predicted, present),
    }
    names = {"iou": "miou", "precision": "macro_precision", "recall": "macro_recall", "f1": "macro_f1"}
    whole = {names[key]: _mean_present(value, present) for key, value in each.items()}
    oa = _ratio(hit.sum(-1), total, total > 0)
    chance = _ratio((true * predicted).sum(-1), total**2, total > 0)
    kappa = _ratio(oa - chance, 1 - chance, (total > 0) & (1 - chance > 1e-12))
    return {**each, **whole, "oa": oa, "kappa": kappa}


def _ratio(above: FloatArray, below: FloatArray, where: npt.NDArray[np.bool_]) -> FloatArray:
    out = np.full(np.broadcast(above, below).shape, np.nan)
    return np.divide(above, below, out=out, where=where)


def _mean_present(values: FloatArray, present: npt.NDArray[np.bool_]) -> FloatArray:
    count = present.sum(-1)
    return _ratio(np.where(present, values, 0.0).sum(-1), count.astype(np.float64), count > 0)


def score(matrix: npt.ArrayLike, class_names: Sequence[str] | None = None) -> Scores:
    """Compute all scores of one confusion matrix.

    Args:
        matrix: (C, C) counts, truth in rows, prediction in columns.
        class_names: C names; "1".."C" when left out.

    Returns:
        The scores; see `class_scores` for the treatment of absent classes.

    Raises:
        DataError: the matrix is not square or the number of names differs.

    Example:
        >>> score([[3, 1], [0, 0]], ["water", "forest"]).absent
        ('forest',)
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise DataError(f"confusion matrix of shape {counts.shape} found, expected a square one")
    names = tuple(class_names) if class_names is not None else tuple(str(i + 1) for i in range(len(counts)))
    if len(names) != len(counts):
        raise DataError(f"{len(names)} class names given for a confusion matrix of {len(counts)} classes")
    values = class_scores(counts)
    each = {key: tuple(optional(v) for v in values[key]) for key in ("iou", "precision", "recall", "f1")}
    keys = ("oa", "miou", "macro_precision", "macro_recall", "macro_f1", "kappa")
    whole = {key: optional(values[key]) for key in keys}
    support = tuple(int(n) for n in counts.sum(1))
    return Scores(class_names=names, n_pixels=int(counts.sum()), support=support, **whole, **each)  # type: ignore[arg-type]


def optional(value: Any) -> float | None:
    """Return a float, or None for NaN."""
    number = float(value)
    return None if np.isnan(number) else number
