"""Any table of images: file and label, or file and one column a class."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from berunda.data.catalog.contract import Entry
from berunda.data.images import NO_LABEL, TRAIN, UNLABELLED
from berunda.data.listing import (
    PHOTO_SUFFIXES,
    RASTER_SUFFIXES,
    File,
    Listing,
    Sample,
    complete_parts,
    labels_of,
    natural,
)
from berunda.data.masks.folder import schema_of
from berunda.data.masks.listing import MaskListing, MaskSample
from berunda.data.order import Randomness
from berunda.data.subsets import stratified_parts
from berunda.data.tables import FILES_JOINT, Table, read_table
from berunda.errors import DataError, SecurityError
from berunda.geo.grid import Window
from berunda.models.spec import Task

__all__ = ["TableOfImages"]


class TableOfImages(Entry):
    """A .csv table with a header, and images beside it or below.

    One class an image: columns `file` and `label` (or `class`), an empty cell is no label. Several labels: columns
    `file` and one a class, which hold 1, 0 or nothing for unknown. A column `split` (train, validation, test,
    unlabelled) is optional: without it 60/20/20 by the sha256 of the file's name, of every class where there is one; of
    several labels stratified. With several labels every image beside those of the table needs a row, if one of empty
    cells, or one whose split is "left out".

    One class a pixel: a column `truth` names a raster of classes for each image, of the size of its file. What its
    values mean stands in `classes.csv` beside the table, as for folders of masks; else in the rasters. Several rasters
    of one ground, joined by ";" in the column `file`, are the bands of one image.

    Columns `row`, `col`, `n_rows` and `n_cols` say which pixels of a raster (and of its truth) are the image, so that a
    table can hold the blocks of a scene; where they are empty it is all of the file. `berunda split` writes such
    tables.
    """

    name = "csv"
    title = "any table: file,label[,split], one column a class, or file,truth"
    tasks = ("scene", "multilabel", "segmentation")
    about = "paths count from the table's folder; JPEG, PNG, WebP, BMP, TIFF or GeoTIFF of one size"
    licence = "your own"

    def is_here(self, root: Path) -> bool:
        """Say whether it is a table."""
        return root.is_file() and root.suffix.lower() == ".csv"

    def task_of(self, root: Path) -> Task:
        """Return the task that the columns tell: rasters of classes, one class an image, or several."""
        table = read_table(root, with_values=False)
        if any(table.truths):
            return "segmentation"
        return "scene" if table.names else "multilabel"

    def listing(self, root: Path, task: Task | None = None) -> Listing:
        """Return the images; where no task is asked for, the table's columns tell."""
        return super().listing(root, task or self.task_of(root))

    def list_masks(self, root: Path) -> MaskListing:
        """Return the images with the rasters of classes in the table's column `truth`; unlabelled ones without."""
        table = read_table(root, with_values=False)
        if not any(table.truths):
            raise DataError(
                f"{root}: no raster of classes found, expected a column truth that names one for each image"
            )
        names = table.names_of_images
        said: list[int | None] = [None if truth else UNLABELLED for truth in table.truths]
        said = list(table.parts) or said
        parts = complete_parts(names, [NO_LABEL if part == UNLABELLED else 0 for part in said], said)
        samples = []
        for row, part in enumerate(parts):
            at, truth = table.windows[row], "" if part == UNLABELLED else table.truths[row]
            mask = _file(root, truth, at) if truth else None
            images = tuple(_file(root, name, at) for name in table.files[row].split(FILES_JOINT))
            samples.append(MaskSample(names[row], images, mask, part, table.sites[row]))
        masks = {sample.name: sample.mask for sample in samples if sample.mask is not None}
        return MaskListing(root.resolve().stem, schema_of(root, masks), tuple(samples))

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the images with the table's labels."""
        table = read_table(root, with_values=task == "multilabel")
        names, places = table.names_of_images, zip(table.files, table.windows, strict=True)
        files = [_file(root, name, at) for name, at in places]
        said: list[int | None] = list(table.parts) or [None] * len(files)
        if task == "scene":
            classes, labels = _scene_labels(table, said)
            parts = complete_parts(names, labels, said)
            samples = map(Sample, names, files, labels, parts)
            return Listing(root.resolve().stem, task, classes, tuple(samples))
        if not table.classes:
            raise DataError(
                f"{root}: no column for a class found, expected one column a class that holds 1, 0 or nothing"
            )
        _check_none_is_unlisted(table)
        known = [NO_LABEL if all(map(math.isnan, row)) else 0 for row in table.values]
        known = [NO_LABEL if part == UNLABELLED else label for part, label in zip(said, known, strict=True)]
        parts = complete_parts(names, known, said) if table.parts else _stratified(table, known)
        several = map(Sample, names, files, table.values, parts)
        return Listing(root.resolve().stem, task, table.classes, tuple(several))


def _scene_labels(table: Table, said: Sequence[int | None]) -> tuple[tuple[str, ...], list[int]]:
    """Return the classes that training images have, and the class number of each image."""
    if not table.names:
        raise DataError(f"{table.path}: no column label or class found, expected one for the class of each image")
    names = ["" if part == UNLABELLED else name for name, part in zip(table.names, said, strict=True)]
    taught = {name for name, part in zip(names, said, strict=True) if name and part in (None, TRAIN)}
    classes = tuple(sorted(taught, key=natural))
    return classes, labels_of(table.names_of_images, names, classes, str(table.path))


def _check_none_is_unlisted(table: Table) -> None:
    """Raise when a folder with images of the table holds one that has no row."""
    listed, suffixes = set(table.listed), (*PHOTO_SUFFIXES, *RASTER_SUFFIXES)
    for folder in sorted({str(PurePosixPath(name).parent) for name in table.files}):
        place = table.path.parent / folder
        here = sorted(place.iterdir()) if place.is_dir() else ()
        for path in here:
            name = PurePosixPath(folder, path.name).as_posix()
            if path.suffix.lower() in suffixes and name not in listed and not path.name.startswith("."):
                raise DataError(
                    f"{table.path}: no row for image {name!r}, expected one for each image beside those of the table; "
                    "add one (empty cells are unknown labels), or move the image elsewhere"
                )


def _stratified(table: Table, known: Sequence[int]) -> list[int]:
    """Return 60/20/20 of the images with a label, stratified; it does not depend on the order of the rows."""
    parts = np.full(len(known), UNLABELLED, np.int8)
    keys = [hashlib.sha256(name.encode()).hexdigest() for name in table.names_of_images]
    index = sorted((i for i, label in enumerate(known) if label != NO_LABEL), key=keys.__getitem__)
    if index:
        n, train, validation = len(index), (6 * len(index) + 5) // 10, (8 * len(index) + 5) // 10
        values, rng = np.array(table.values)[index], Randomness(0).numpy("table split")
        parts[index] = stratified_parts(values, n - validation, validation - train, rng)
    return parts.tolist()


def _file(table: Path, name: str, window: Window | None) -> File:
    """Return an image of the table's folder.

    Raises:
        SecurityError: its path is absolute or leaves the folder.
        DataError: it is missing.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or PureWindowsPath(name).drive:
        raise SecurityError(f"{table}: file {name!r} refused: expected a path below {table.parent} without '..'")
    path = table.parent / name
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{table}: file {name!r} is not in {table.parent}; correct the column file") from error
    return File(path, "", state.st_size, state.st_mtime_ns, window=window)
