"""Data sets of other packages as input: anything with a length and items of an image and its label.

That is how classification data sets of torchvision and torchgeo look; neither package is needed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from berunda.data.images import NO_LABEL, TEST, TRAIN, UNLABELLED, VALIDATION, ImageSet
from berunda.data.listing import split_by_name
from berunda.errors import DataError
from berunda.models.spec import Task

__all__ = ["Dataset", "from_dataset"]

_PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "unlabelled": UNLABELLED}
_KEPT = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16))


class Dataset(Protocol):
    """What is asked of a data set: items are (image, label) or a mapping with "image" and perhaps "label".

    An image is a tensor or array (B, H, W), or a Pillow image. A label is a class number, or C values 1 or 0.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def from_dataset(
    train: Dataset,
    *,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    unlabelled: Dataset | None = None,
    name: str = "dataset",
    bands: Sequence[str] = (),
) -> ImageSet:
    """Return the images of a data set of torchvision, torchgeo or one's own, held in memory.

    Args:
        train: items with labels. Where neither `validation` nor `test` is given it is split 60/20/20 in each class,
            by the hash of the item's number.
        validation: items with labels.
        test: items with labels.
        unlabelled: items; their labels are not looked at.
        name: of the new set.
        bands: names of the bands; if not given those that `train` has as `bands`, else red, green, blue where there are
            three of them, else b1, b2, ...

    Returns:
        Float images as float32, whole numbers as they are where uint8, uint16 or int16 holds them. Class names are
        those that `train` has as `classes`, else numbers.

    Raises:
        DataError: an item is neither of the two forms, images or labels differ in shape (the message names items), or
            there are not as many bands as names.

    Example:
        >>> import berunda, torchvision  # doctest: +SKIP
        >>> images = from_dataset(torchvision.datasets.EuroSAT("data"), name="mine")  # doctest: +SKIP
        >>> berunda.train(berunda.TrainOptions(dataset="mine"), "out", images=images)  # doctest: +SKIP
    """
    given = {"train": train, "validation": validation, "test": test, "unlabelled": unlabelled}
    names, pixels, labels, parts = [], [], [], []
    for word, dataset in given.items():
        for index in range(0 if dataset is None else len(dataset)):
            image, label = _item(dataset[index], f"{name}: {word} item {index}")  # type: ignore[index]
            names.append(f"{word}/{index}")
            pixels.append(image)
            labels.append(None if word == "unlabelled" else label)
            parts.append(_PARTS[word])
    stack = _stacked(name, names, pixels)
    task, values, n_classes = _values(name, names, labels)
    classes = _class_names(train, n_classes)
    of_part = np.array(parts, np.int8)
    if validation is None and test is None:
        seen = of_part == TRAIN
        numbers = values.tolist() if task == "scene" else [0] * len(values)
        of_part[seen] = split_by_name(names, numbers)[seen]
    digest = hashlib.sha256(repr((task, classes, stack.shape, str(stack.dtype))).encode())
    for array in (stack, values, of_part):
        digest.update(array.tobytes())
        array.flags.writeable = False
    named = _band_names(train, name, bands, stack.shape[1])
    return ImageSet(name, task, stack, values, classes, named, of_part, tuple(names), digest.hexdigest())


def _item(item: Any, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return an item's image (B, H, W) and its label."""
    if isinstance(item, Mapping) and "image" in item:
        image, label = item["image"], item.get("label")
    elif isinstance(item, Sequence) and len(item) == 2:
        image, label = item
    else:
        raise DataError(f"{where}: {type(item).__name__} found, expected (image, label) or a mapping with 'image'")
    pixels = np.asarray(image)
    if hasattr(image, "getbands"):  # a Pillow image: rows and columns come first
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if pixels.ndim != 3 or pixels.dtype.kind not in "uif":
        raise DataError(f"{where}: image of shape {pixels.shape} {pixels.dtype} found, expected (bands, rows, cols)")
    return pixels, None if label is None else np.asarray(label)


def _stacked(name: str, names: Sequence[str], pixels: Sequence[np.ndarray]) -> np.ndarray:
    if not pixels:
        raise DataError(f"data set {name}: no images found, expected some")
    odd = next((i for i, p in enumerate(pixels) if p.shape != pixels[0].shape or p.dtype != pixels[0].dtype), None)
    if odd is not None:
        raise DataError(
            f"data set {name}: images differ: {names[0]!r} is {pixels[0].shape} {pixels[0].dtype}, {names[odd]!r} is "
            f"{pixels[odd].shape} {pixels[odd].dtype}; expected one size, number of bands and type of all: add a "
            "transform that brings them to one"
        )
    stack = np.stack(pixels)
    return stack if stack.dtype in _KEPT else stack.astype(np.float32)


def _values(name: str, names: Sequence[str], labels: Sequence[np.ndarray | None]) -> tuple[Task, np.ndarray, int]:
    """Return the task, the labels as `ImageSet` holds them, and the number of classes."""
    known = [(i, label) for i, label in enumerate(labels) if label is not None]
    if not known:
        raise DataError(f"data set {name}: no item has a label, expected some in train")
    shape = known[0][1].shape
    odd = next((i for i, label in known if label.shape != shape or label.dtype.kind not in "buif"), None)
    if odd is not None or len(shape) > 1:
        odd = known[0][0] if odd is None else odd
        raise DataError(f"data set {name}: label of {names[odd]!r} found, expected a class number, or C values of all")
    if shape == ():
        numbers = np.array([NO_LABEL if label is None else int(label) for label in labels], np.int64)
        if (numbers < NO_LABEL).any():
            raise DataError(f"data set {name}: class number {numbers.min()} found, expected 0 on, or -1 for no label")
        return "scene", numbers, int(numbers.max()) + 1
    several = np.full((len(labels), shape[0]), np.nan, np.float32)
    for i, label in known:
        several[i] = label
    return "multilabel", several, shape[0]


def _band_names(train: Dataset, name: str, given: Sequence[str], n_bands: int) -> tuple[str, ...]:
    if given and len(given) != n_bands:
        raise DataError(f"data set {name}: {n_bands} bands found, {len(given)} names given: {', '.join(given)}")
    own = getattr(train, "bands", None) or ()
    if not given and not isinstance(own, str) and len(own) == n_bands:
        given = [str(band) for band in own]
    if not given and n_bands == 3:
        given = ("red", "green", "blue")
    return tuple(given) or tuple(f"b{i}" for i in range(1, n_bands + 1))


def _class_names(train: Dataset, n_classes: int) -> tuple[str, ...]:
    own = tuple(str(name) for name in getattr(train, "classes", None) or ())
    return own if len(own) >= n_classes else tuple(str(number) for number in range(n_classes))
