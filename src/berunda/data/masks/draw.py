"""Which images with masks serve what in one run: the labelled ones are drawn by seed, nested and stratified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from berunda.data.images import TEST, TRAIN, UNLABELLED, VALIDATION
from berunda.data.masks.images import MaskSet
from berunda.data.order import Randomness
from berunda.data.subsets import key_of_draw, stratified_order
from berunda.errors import DataError

__all__ = ["DrawnMasks", "Unit", "draw_masks"]

Unit = Literal["images", "fraction"]
_LEAST_SHARE = 0.01  # of its labelled pixels, for an image to count as one that shows a class


@dataclass(frozen=True)
class DrawnMasks:
    """The images of one run, as indices into `masks`.

    Attributes:
        masks: the data set.
        train: whose masks are trained on.
        validation: whose masks set the temperature and the thresholds; at most as many as `train`.
        unlabelled: shown without their masks: all training and unlabelled images, those of `train` included.
        test: with a mask, for the figures.
    """

    masks: MaskSet
    train: np.ndarray
    validation: np.ndarray
    unlabelled: np.ndarray
    test: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.masks.classes

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that no labelled training image shows."""
        there = self.masks.class_counts[self.train].sum(axis=0) > 0
        return tuple(name for name, is_there in zip(self.classes, there, strict=True) if not is_there)

    @property
    def n_only_unlabelled(self) -> int:
        """Images shown without a mask that are not labelled ones."""
        return len(np.setdiff1d(self.unlabelled, self.train))

    def key(self, *settings: object) -> str:
        """Return 16 hex digits of the data, the draw and further `settings` that decide a training."""
        return key_of_draw(self.masks.fingerprint, (self.train, self.validation, self.unlabelled), settings)

    def counts(self) -> Iterator[tuple[str, int]]:
        """Yield what images are used for, and how many."""
        yield "training, with masks", len(self.train)
        yield "training, shown without masks", len(self.unlabelled)
        yield "validation masks (temperature, thresholds)", len(self.validation)
        yield "test", len(self.test)


def draw_masks(
    masks: MaskSet, labels: int | float | str, unit: Unit, seed: int, *, sites: Sequence[str] | None = None
) -> DrawnMasks:
    """Return the images of one run.

    The labelled images follow an order that the seed draws, in which the first ones show every class in proportion, so
    that for one seed a smaller choice is part of every larger one.

    Args:
        masks: the data set.
        labels: how many training images are labelled; a share of them; or "all".
        unit: what a number counts.
        seed: of the draw.
        sites: images whose masks train or validate come from these sites alone; from all where None.

    Raises:
        DataError: there are not that many images with masks, a site is unknown, or no test image has a labelled pixel.
    """
    pool = _with_labels(masks, TRAIN)
    if sites is not None:
        known = sorted({masks.sites[i] for i in pool})
        unknown = [site for site in sites if site not in known]
        if unknown:
            raise DataError(
                f"data set {masks.name}: no labelled image of site {unknown[0]!r} found, expected one of "
                f"{', '.join(known)}"
            )
        pool = _of_sites(masks, pool, sites)
    test = _with_labels(masks, TEST)
    if not len(test):
        n_void = len(masks.of(TEST, labelled=True))
        found = f"{n_void} test images have masks without a labelled pixel" if n_void else "no test image with a mask"
        raise DataError(
            f"data set {masks.name}: {found} found, expected some to measure on; add images and masks to test/, or "
            "more images" + (", and check which values the schema ignores" if n_void else "")
        )
    train = _first(masks, pool, labels, unit, Randomness(seed).numpy("labelled masks"))
    held_out = _of_sites(masks, _with_labels(masks, VALIDATION), sites)
    validation = Randomness(seed).numpy("validation masks").permutation(held_out)[: len(train)]
    return DrawnMasks(
        masks=masks,
        train=train,
        validation=np.sort(validation),
        unlabelled=np.flatnonzero((masks.parts == TRAIN) | (masks.parts == UNLABELLED)),
        test=test,
    )


def _with_labels(masks: MaskSet, part: int) -> np.ndarray:
    """Return the images of a part whose masks hold a labelled pixel."""
    index = masks.of(part, labelled=True)
    return np.asarray(index[masks.class_counts[index].sum(axis=1) > 0])


def _of_sites(masks: MaskSet, index: np.ndarray, sites: Sequence[str] | None) -> np.ndarray:
    return index if sites is None else np.array([i for i in index if masks.sites[i] in sites], np.int64)


def _first(
    masks: MaskSet, pool: np.ndarray, labels: int | float | str, unit: Unit, rng: np.random.Generator
) -> np.ndarray:
    """Return the first images of the drawn order, ascending."""
    if labels == "all":
        return np.sort(pool)
    n = _checked_number(labels, unit, len(pool))
    if n > len(pool):
        raise DataError(
            f"data set {masks.name}: {n} labelled images asked for, {len(pool)} training images with masks found; ask "
            "for fewer, or all"
        )
    counts = masks.class_counts[pool]
    shows = counts >= np.maximum(1, _LEAST_SHARE * counts.sum(axis=1, keepdims=True))
    return np.sort(pool[stratified_order(shows, rng)[:n]])


def _checked_number(labels: int | float | str, unit: Unit, n_images: int) -> int:
    is_number = isinstance(labels, int | float | np.number) and not isinstance(labels, bool)
    if unit == "images" and is_number and float(labels) == int(labels) >= 1:
        return int(labels)
    if unit == "fraction" and is_number and 0 < float(labels) <= 1:
        return max(1, round(float(labels) * n_images))
    expected = "a whole number from 1 on" if unit == "images" else "a share above 0, at most 1"
    raise DataError(f"labelled images {labels!r} ({unit}) found, expected {expected}, or all")
