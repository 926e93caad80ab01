"""Training batches from a set of images: class-balanced labelled ones, and unlabelled ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch

from berunda.data.images import ImageSet
from berunda.data.order import Randomness
from berunda.data.scaling import Scaling
from berunda.data.source import RawImages
from berunda.errors import DataError

__all__ = ["ImageSource"]


class ImageSource:
    """Draws images; each draw is a pure function of the random keys.

    Labelled: the classes in turn, in an order drawn anew for each batch, and of each class its images without repeats
    while there are enough. Images with several labels are drawn without regard to them, without repeats likewise.
    Unlabelled: all alike, without repeats while there are enough.

    The index of an image in a batch is its position in `labelled_index` or `unlabelled_index`.

    Args:
        images: the data set.
        labelled_index: (k,) indices of the images whose labels are used.
        unlabelled_index: (m,) indices of the images that are used without labels; may be empty, and may hold labelled
            ones.
        scaling: low and high of every band, of the data set or of a model.
        soft_labels: (N, C) probabilities of the classes of every image of the set, which take the place of the scene's
            class numbers; None for the labels given. Then the class an image is drawn by is its most probable one.

    Raises:
        DataError: no image is labelled, one of them carries no label, or the shapes do not fit.
    """

    def __init__(
        self,
        images: ImageSet,
        labelled_index: np.ndarray,
        unlabelled_index: np.ndarray,
        scaling: Scaling,
        soft_labels: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.labelled_index = np.asarray(labelled_index, np.int64)
        self.unlabelled_index = np.asarray(unlabelled_index, np.int64)
        self.scaling = scaling
        self._labels = _labels_in_use(images, self.labelled_index, soft_labels)
        if images.task == "multilabel":
            self._groups = [np.arange(len(self.labelled_index))]
        else:
            classes = self._labels if self._labels.ndim == 1 else self._labels.argmax(axis=1)
            self._groups = [np.flatnonzero(classes == number) for number in np.unique(classes)]

    @property
    def has_unlabelled(self) -> bool:
        """Whether there are images to draw without labels."""
        return len(self.unlabelled_index) > 0

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` labelled images."""
        draw = rng.numpy("labelled")
        turns = draw.permutation(len(self._groups))
        n_of_group = np.bincount(turns[np.arange(n) % len(turns)], minlength=len(turns))
        picks = [_draw(draw, len(group), k) for group, k in zip(self._groups, n_of_group, strict=True)]
        position = np.concatenate([group[pick] for group, pick in zip(self._groups, picks, strict=True)])
        return self._gather(self.labelled_index, draw.permutation(position), self._labels)

    def unlabelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` images without labels.

        Raises:
            DataError: there are none.
        """
        if not self.has_unlabelled:
            raise DataError(
                f"data set {self.images.name}: 0 unlabelled images found, but the method needs some; add images, "
                "use fewer of the labels, or choose the method supervised"
            )
        position = _draw(rng.numpy("unlabelled"), len(self.unlabelled_index), n)
        return self._gather(self.unlabelled_index, position, None)

    def every(self, stream: Literal["labelled", "unlabelled"], n: int) -> Iterator[RawImages]:
        """Yield all images of a stream in the order of its indices, `n` at a time."""
        index, labels = self.unlabelled_index, None
        if stream == "labelled":
            index, labels = self.labelled_index, self._labels
        for start in range(0, len(index), n):
            yield self._gather(index, np.arange(start, min(start + n, len(index))), labels)

    def twins(self) -> torch.Tensor:
        """Return where each labelled image stands in the unlabelled stream, (k,) int64; -1 where it does not."""
        place = np.full(len(self.images), -1, np.int64)
        place[self.unlabelled_index] = np.arange(len(self.unlabelled_index))
        return torch.from_numpy(place[self.labelled_index])

    def _gather(self, stream: np.ndarray, position: np.ndarray, labels: np.ndarray | None) -> RawImages:
        pixels, valid = self.images.scaled_and_valid(stream[position], self.scaling)
        return RawImages(
            pixels=torch.from_numpy(pixels),
            valid=torch.from_numpy(valid),
            labels=None if labels is None else torch.from_numpy(labels[position]),
            index=torch.from_numpy(position.astype(np.int64)),
        )


def _draw(draw: np.random.Generator, n_images: int, n: int) -> np.ndarray:
    """Return `n` positions below `n_images`: whole passes over all, then some without repeats."""
    passes = [draw.permutation(n_images) for _ in range(n // n_images)]
    return np.concatenate([*passes, draw.choice(n_images, n % n_images, replace=False)])


def _labels_in_use(images: ImageSet, index: np.ndarray, soft_labels: np.ndarray | None) -> np.ndarray:
    """Return the labels of the labelled images: (k,) int64, or (k, C) float32."""
    if len(index) == 0:
        raise DataError(f"data set {images.name}: 0 labelled images chosen, expected at least one of each class")
    if soft_labels is None:
        labels = np.asarray(images.labels[index])
        without = labels == -1 if labels.ndim == 1 else np.isnan(labels).all(axis=1)
        if without.any():
            name = images.names[index[int(np.argmax(without))]]
            raise DataError(f"data set {images.name}: image {name!r} has no label, but is to be used with one")
        return labels
    expected = (len(images), len(images.classes))
    if images.task != "scene" or soft_labels.shape != expected:
        raise DataError(
            f"data set {images.name}: soft labels of shape {soft_labels.shape} for task {images.task} found, expected "
            f"{expected} for task scene"
        )
    return soft_labels[index].astype(np.float32)
