"""Lists of images before any is decoded: which files there are, which label and which part each one has."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from berunda.data.archive import Archive
from berunda.data.images import NO_LABEL, TEST, TRAIN, UNLABELLED, VALIDATION
from berunda.errors import DataError
from berunda.models.spec import Task

if TYPE_CHECKING:
    from berunda.geo.grid import Window

__all__ = [
    "PHOTO_SUFFIXES",
    "RASTER_SUFFIXES",
    "Blobs",
    "File",
    "Listing",
    "Sample",
    "complete_parts",
    "files_of",
    "labels_of",
    "natural",
    "split_by_name",
]

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
RASTER_SUFFIXES = (".tif", ".tiff", ".jp2")
"""A .tif may be either; its content decides."""

MAX_FILES = 2_000_000
"""A folder with more files than this is surely not meant."""


class File(NamedTuple):
    """Where an image's bytes lie.

    Attributes:
        path: the image, or the file that holds it.
        member: name within the archive `path`, or number of the row within the table `path`; "" for a plain file.
        size: of the image in bytes (of the table: of all of it).
        mtime_ns: when `path` was changed last.
        crc: CRC-32 of a member of an archive; None otherwise.
        window: the pixels of the raster `path` that are the image; None for all of them.
    """

    path: Path
    member: str
    size: int
    mtime_ns: int
    crc: int | None = None
    window: Window | None = None


class Sample(NamedTuple):
    """One image of a data set.

    Attributes:
        name: its path within the data set, with "/"; unique.
        file: where it lies.
        label: scene: class 0..C-1 or -1; multilabel: C values 1, 0 or NaN.
        part: TRAIN, VALIDATION, TEST or UNLABELLED of `berunda.data.images`.
    """

    name: str
    file: File
    label: int | tuple[float, ...]
    part: int


Blobs = Sequence[bytes | np.ndarray | str]
"""For each sample asked for: an image file's bytes, a decoded (B, H, W) image, or what is wrong with it."""


@dataclass(frozen=True)
class Listing:
    """All that is known of a data set before its pixels are read.

    Attributes:
        name: of the data set.
        task: "scene" or "multilabel".
        classes: names of the classes.
        samples: the images.
        bands: expected names of the bands; empty where the images tell.
        side_px: resample every image to this many rows and columns; None leaves them as they are.
        load: reads samples that are neither image files nor members of archives; None for those.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    bands: tuple[str, ...] = ()
    side_px: int | None = None
    load: Callable[[Sequence[Sample]], Blobs] | None = None

    def __post_init__(self) -> None:
        """Raise when there is nothing to read, or a name is there twice."""
        if not self.samples:
            raise DataError(f"data set {self.name}: no images found, expected some; check the folder")
        if len({sample.name for sample in self.samples}) < len(self.samples):
            seen: set[str] = set()
            twice = next(s.name for s in self.samples if s.name in seen or seen.add(s.name))  # type: ignore[func-returns-value]
            raise DataError(f"data set {self.name}: image {twice!r} is listed twice, expected each image once")


def files_of(root: Path, suffixes: Sequence[str]) -> dict[str, File]:
    """Return the files of a folder (at any depth) or a zip archive that end in one of `suffixes`, by relative name.

    Hidden files and folders are left out, and so is what macOS adds to archives. Folders that are links are
    followed, each once.

    Raises:
        DataError, SecurityError: the archive is damaged or refused.
    """
    found = _members(root) if root.is_file() else _walk(root)
    wanted = {name: file for name, file in found if os.path.splitext(name)[1].lower() in suffixes}
    return {name: wanted[name] for name in sorted(wanted) if not _is_hidden(name)}


def _is_hidden(name: str) -> bool:
    return "/." in name or name.startswith((".", "__MACOSX/"))


def _members(archive: Path) -> Iterable[tuple[str, File]]:
    mtime_ns = archive.stat().st_mtime_ns
    with Archive(archive) as opened:
        for name, info in opened.members.items():
            yield name, File(archive, name, info.file_size, mtime_ns, info.CRC)


def _walk(root: Path) -> Iterable[tuple[str, File]]:
    waiting, seen, n_files = [("", root)], {root.resolve()}, 0
    while waiting:
        prefix, folder = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir():
                    real = Path(entry.path).resolve()
                    if real not in seen and not entry.name.startswith("."):
                        seen.add(real)
                        waiting.append((name + "/", Path(entry.path)))
                elif entry.is_file():
                    n_files += 1
                    state = entry.stat()
                    yield name, File(Path(entry.path), "", state.st_size, state.st_mtime_ns)
                if n_files > MAX_FILES:
                    raise DataError(f"{root}: more than {MAX_FILES} files found; choose the folder of the data set")


def split_by_name(names: Sequence[str], labels: Sequence[int]) -> np.ndarray:
    """Return the part of each image: 60% TRAIN, 20% VALIDATION, 20% TEST of every class, by the hash of its name.

    Within a class the images are ordered by the sha256 of their file's name (without folders); the first 60% train, so
    a split depends neither on the machine nor on the order of the files. Images without a label are UNLABELLED.

    Args:
        names: of the images, (N,).
        labels: class of each, (N,), -1 for none.

    Returns:
        (N,) int8.

    Example:
        >>> split_by_name(["a/1.jpg", "a/2.jpg", "a/3.jpg", "a/4.jpg", "a/5.jpg"], [0] * 5).tolist()
        [1, 0, 0, 0, 2]
    """
    parts = np.full(len(names), UNLABELLED, np.int8)
    keys = [hashlib.sha256(name.rsplit("/", 1)[-1].encode()).hexdigest() for name in names]
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        if label != NO_LABEL:
            by_class.setdefault(int(label), []).append(index)
    for members in by_class.values():
        members.sort(key=lambda index: (keys[index], names[index]))
        n = len(members)
        train, validation = (6 * n + 5) // 10, (8 * n + 5) // 10
        parts[members[:train]] = TRAIN
        parts[members[train:validation]] = VALIDATION
        parts[members[validation:]] = TEST
    return parts


def complete_parts(names: Sequence[str], labels: Sequence[int], said: Sequence[int | None]) -> list[int]:
    """Return the part of each image where some are said.

    Where none is said, 60/20/20 by the hash of the names; where some are but none validates, 20% of the training
    images of every class do.

    Args:
        names: of the images.
        labels: class numbers; images with -1 are UNLABELLED.
        said: the part that folder or table gives, None for none.
    """
    by_hash = split_by_name(names, labels)
    given = np.array([-1 if part is None else part for part in said])
    parts = np.where(given < 0, by_hash, given)
    if (given >= 0).any() and not (given == VALIDATION).any():
        parts[
            (parts == TRAIN) & (split_by_name(names, np.where(parts == TRAIN, labels, NO_LABEL).tolist()) == VALIDATION)
        ] = VALIDATION
    parts[np.array(labels) == NO_LABEL] = UNLABELLED
    return [int(part) for part in parts]


def labels_of(names: Sequence[str], class_names: Sequence[str], classes: Sequence[str], where: str) -> list[int]:
    """Return the class number of each image; an empty class name is no label.

    Raises:
        DataError: a class is not one of `classes`; the message names it and an image.
    """
    number: Mapping[str, int] = {"": NO_LABEL} | {name: index for index, name in enumerate(classes)}
    unknown = [index for index, name in enumerate(class_names) if name not in number]
    if unknown:
        found = ", ".join(repr(name) for name in dict.fromkeys(class_names[index] for index in unknown))
        raise DataError(
            f"{where}: class {found} is not in the schema (image {names[unknown[0]]!r}), expected one of "
            f"{', '.join(classes)}; correct the labels or leave these images out"
        )
    return [number[name] for name in class_names]


def natural(name: str) -> tuple[int, int, str]:
    """Return a key that sorts whole numbers by their value, before other names.

    Example:
        >>> sorted(["10", "b", "9", "a"], key=natural)
        ['9', '10', 'a', 'b']
    """
    is_number = name.isascii() and name.isdigit() and len(name) < 19
    return (0, int(name), name) if is_number else (1, 0, name)
