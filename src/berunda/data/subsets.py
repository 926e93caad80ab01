"""Choosing which labels are used: nested, stratified, and a pure function of the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from berunda.data.images import TEST, TRAIN, VALIDATION, ImageSet
from berunda.data.order import Randomness
from berunda.errors import DataError

__all__ = [
    "key_of_draw",
    "label_subset",
    "labelled_images",
    "stratified_order",
    "stratified_parts",
    "validation_subset",
]

_MAX_CANDIDATES = 512  # images compared for one place of the order


def key_of_draw(fingerprint: str, drawn: Iterable[np.ndarray], settings: tuple[object, ...]) -> str:
    """Return 16 hex digits of a data set, of the images drawn from it (indices, by use) and of further `settings`."""
    digest = hashlib.sha256(fingerprint.encode())
    for index in drawn:
        digest.update(np.ascontiguousarray(index, dtype="<i8").tobytes() + b"|")
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def label_subset(
    images: ImageSet, n: int | float | str, unit: Literal["per_class", "fraction"] = "per_class", seed: int = 0
) -> np.ndarray:
    """Return the training images whose labels are used; for one seed a smaller choice is part of every larger one.

    Of scenes, every class gives its first images in an order of its own that the seed draws: `n` of them, or the
    share `n` (rounded, at least one). Of images with several labels, the first ones in a `stratified_order` are taken:
    the share `n` of all, or `n` times the number of classes.

    Args:
        images: the data set.
        n: images a class, at least 1; or the share of the training labels, above 0, at most 1; or "all".
        unit: what a number `n` counts.
        seed: of the draw.

    Returns:
        (k,) int64 indices into `images`, ascending.

    Raises:
        DataError: `n` is no such number, a class has no labelled training image, or fewer than asked for.
    """
    wanted = _checked_number(n, unit)
    pool, n_classes = labelled_images(images, TRAIN), len(images.classes)
    _check_every_class(images, pool)
    if wanted is None:
        return pool
    rng = Randomness(seed)
    if images.task == "multilabel":
        total = wanted * n_classes if unit == "per_class" else max(1, round(wanted * len(pool)))
        if total > len(pool):
            raise DataError(
                f"data set {images.name}: {total} labelled images asked for ({n} for each of {n_classes} classes), "
                f"{len(pool)} found; ask for fewer, or all"
            )
        order = stratified_order(images.labels[pool] == 1, rng.numpy("labels"))
        return np.sort(pool[order[: int(total)]])
    by_class = [rng.numpy("labels", c).permutation(pool[images.labels[pool] == c]) for c in range(n_classes)]
    if unit == "per_class":
        few = [f"{name!r} has {len(m)}" for name, m in zip(images.classes, by_class, strict=True) if len(m) < wanted]
        if few:
            raise DataError(
                f"data set {images.name}: {n} labels a class asked for, but {', '.join(few)} labelled training images; "
                "ask for fewer, or label more"
            )
        return np.sort(np.concatenate([members[: int(wanted)] for members in by_class]))
    return np.sort(np.concatenate([members[: max(1, round(wanted * len(members)))] for members in by_class]))


def validation_subset(images: ImageSet, n_labels: int, seed: int = 0) -> np.ndarray:
    """Return the validation images whose labels may be used: at most `n_labels`, the classes in turn.

    Args:
        images: the data set.
        n_labels: number of training labels in use.
        seed: of the draw; for one seed a smaller choice is part of every larger one.

    Returns:
        (k,) int64 indices into `images`, ascending; empty where there are none.
    """
    pool = labelled_images(images, VALIDATION)
    rng = Randomness(seed)
    if images.task == "multilabel":
        order = pool[stratified_order(images.labels[pool] == 1, rng.numpy("validation labels"))]
    else:
        labels = images.labels[pool]
        by_class = [rng.numpy("validation labels", int(c)).permutation(pool[labels == c]) for c in np.unique(labels)]
        order = _in_turn(by_class)
    return np.sort(order[:n_labels])


def stratified_order(present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an order of images with several labels in which the first ones hold every label in proportion.

    One image follows the other: the label that lags most behind its share (the rarest, where several do) chooses, among
    the images that have it, the one whose labels lag most together. So each label is there before any comes twice where
    that can be had, and afterwards all keep their shares.

    Source: after Sechidis, Tsoumakas and Vlahavas 2011, On the stratification of multi-label data, Algorithm 1.
    Deviations: theirs fills subsets of given sizes; this is one order, so that subsets of any size are nested. At most
    512 images are compared for one place.

    Args:
        present: (N, C) bool, the labels that each image has.
        rng: draws among equals.

    Returns:
        (N,) int64, a permutation of the images. Those without any label are spread evenly among the others.
    """
    drawn = rng.permutation(len(present))
    has = np.asarray(present, bool)[drawn].astype(np.float64)
    some = has.any(axis=1)
    share = has.sum(axis=0) / max(1, some.sum())
    waiting = [np.flatnonzero(column) for column in has.T]
    is_free: np.ndarray = np.array(some)
    count, order = np.zeros(has.shape[1]), []
    for place in range(int(some.sum())):
        lag = np.where(share > 0, (place + 1) - count / np.where(share > 0, share, 1.0), -np.inf)
        for label in np.lexsort((share, -lag)):
            waiting[label] = waiting[label][is_free[waiting[label]]]
            if len(waiting[label]):
                break
        candidates = waiting[label][:_MAX_CANDIDATES]
        missing = share * (place + 1) - count  # images that each label lacks; below 0 where it has too many
        chosen = candidates[int(np.argmax(has[candidates] @ missing))]
        is_free[chosen] = False
        count += has[chosen]
        order.append(chosen)
    return drawn[_spread(np.array(order, np.int64), np.flatnonzero(~some))].astype(np.int64)


def stratified_parts(values: np.ndarray, n_test: int, n_validation: int, rng: np.random.Generator) -> np.ndarray:
    """Return the part of each image with several labels: the first of a `stratified_order` test, the next validate.

    Args:
        values: (N, C) 1 where a label is present.
        n_test: images of TEST.
        n_validation: images of VALIDATION; the rest is TRAIN.
        rng: draws among equals.

    Returns:
        (N,) int8.
    """
    order = stratified_order(np.asarray(values) == 1, rng)
    parts = np.full(len(order), TRAIN, np.int8)
    parts[order[:n_test]] = TEST
    parts[order[n_test : n_test + n_validation]] = VALIDATION
    return parts


def _spread(order: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return `order` with `others` strewn in at even distances."""
    places = (np.arange(len(others)) + 0.5) * (len(order) / max(1, len(others)))
    return np.insert(order, places.astype(int), others) if len(others) else order


def _in_turn(lists: Sequence[np.ndarray]) -> np.ndarray:
    """Return the numbers of all lists: the first of each, then the second of each, and so on."""
    turns = [one[turn] for turn in range(max(map(len, lists), default=0)) for one in lists if turn < len(one)]
    return np.array(turns, np.int64)


def _checked_number(n: int | float | str, unit: str) -> float | None:
    if n == "all":
        return None
    if unit not in ("per_class", "fraction"):
        raise DataError(f"labels unit {unit!r} found, expected per_class or fraction")
    is_number = isinstance(n, int | float | np.number) and not isinstance(n, bool)
    if unit == "per_class" and is_number and float(n) == int(n) >= 1:
        return int(n)
    if unit == "fraction" and is_number and 0 < float(n) <= 1:
        return float(n)
    expected = "a whole number from 1 on" if unit == "per_class" else "a share above 0, at most 1"
    raise DataError(f"labels {n!r} ({unit}) found, expected {expected}, or all")


def labelled_images(images: ImageSet, part: int) -> np.ndarray:
    """Return the images of a part that carry a label (of several labels: at least one known one)."""
    index = images.of(part)
    labels = images.labels[index]
    return index[labels >= 0] if images.task == "scene" else index[~np.isnan(labels).all(axis=1)]


def _check_every_class(images: ImageSet, pool: np.ndarray) -> None:
    """Raise when a class has no labelled training image."""
    labels = images.labels[pool]
    if images.task == "scene":
        there = np.bincount(labels, minlength=len(images.classes)) > 0
    else:
        there = (labels == 1).any(axis=0)
    empty = [name for name, is_there in zip(images.classes, there, strict=True) if not is_there]
    if empty or not images.classes:
        named = f"class {', '.join(map(repr, empty))} has" if empty else "there are no classes and"
        raise DataError(
            f"data set {images.name}: {named} no labelled training image, expected at least one of each class; "
            "label some, or remove the class"
        )
