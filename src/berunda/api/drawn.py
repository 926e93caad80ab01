"""Which images of a data set serve what in one run: the labelled ones are drawn by seed, nested and by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from berunda.data.images import TEST, TRAIN, UNLABELLED, ImageSet
from berunda.data.subsets import key_of_draw, label_subset, labelled_images, validation_subset
from berunda.errors import DataError

__all__ = ["Drawn", "Labels", "draw_images", "skipped_notes"]

Labels = int | float | Literal["all"]
_N_NAMED = 5  # pairs of equal images that a warning names


@dataclass(frozen=True)
class Drawn:
    """The images of one run, as indices into `images`.

    Attributes:
        images: the data set.
        train: whose labels are trained on.
        validation: whose labels set the temperature and the thresholds; at most as many as `train`.
        unlabelled: shown without their labels: all training and unlabelled images, those of `train` included.
        test: with a label, for the figures.
    """

    images: ImageSet
    train: np.ndarray
    validation: np.ndarray
    unlabelled: np.ndarray
    test: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.images.classes

    def labels(self, index: np.ndarray) -> np.ndarray:
        """Return the labels of some images: (n,) int64, or (n, C) float32 of several an image."""
        return np.asarray(self.images.labels[index])

    def key(self, *settings: object) -> str:
        """Return 16 hex digits of the data, the draw and further `settings` that decide a training."""
        return key_of_draw(self.images.fingerprint, (self.train, self.validation, self.unlabelled), settings)

    def counts(self) -> Iterator[tuple[str, int]]:
        """Yield what images are used for, and how many."""
        yield "training, with labels", len(self.train)
        yield "training, shown without labels", len(self.unlabelled)
        yield "validation labels (temperature, thresholds)", len(self.validation)
        yield "test", len(self.test)
        if self.images.repeats:
            yield "test, but in another part too", len(self.images.repeats)
        if self.images.skipped:
            yield "broken, left out", len(self.images.skipped)

    def repeats_told(self) -> str:
        """Return a warning that counts and names the test images that are in another part too, "" for none."""
        found, names = self.images.repeats, self.images.names
        if not found:
            return ""
        named = ", ".join(f"{names[i]} = {names[j]}" for i, j in found[:_N_NAMED])
        more = f", and {len(found) - _N_NAMED} more" if len(found) > _N_NAMED else ""
        n_test = len(self.images.of(TEST))
        return (
            f"{len(found)} of {n_test} test images have the very pixels of an image of another part, which flatters "
            f"the figures: {named}{more}; keep each image in one part"
        )


def draw_images(images: ImageSet, labels: Labels, unit: Literal["per_class", "fraction"], seed: int) -> Drawn:
    """Return the images of one run.

    Raises:
        DataError: there are not that many labels in a class, or no test image has a label.
    """
    train = label_subset(images, labels, unit, seed)
    test = labelled_images(images, TEST)
    if not len(test):
        raise DataError(
            f"data set {images.name}: no labelled test image found, expected some to measure the accuracy on; add more "
            "labelled images"
        )
    return Drawn(
        images=images,
        train=train,
        validation=validation_subset(images, len(train), seed),
        unlabelled=np.flatnonzero((images.parts == TRAIN) | (images.parts == UNLABELLED)),
        test=test,
    )


def skipped_notes(images: ImageSet) -> Iterator[str]:
    """Yield in words how many broken images were left out, and which; nothing where there are none."""
    if images.skipped:
        shown = ", ".join(images.skipped[:3]) + (", ..." if len(images.skipped) > 3 else "")
        yield f"{len(images.skipped)} images cannot be read and were left out: {shown}"
