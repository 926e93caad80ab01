"""Any folder of images with one sub-directory a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from berunda.data.catalog.contract import Entry
from berunda.data.images import TRAIN, UNLABELLED
from berunda.data.listing import (
    PHOTO_SUFFIXES,
    RASTER_SUFFIXES,
    File,
    Listing,
    Sample,
    complete_parts,
    files_of,
    labels_of,
    natural,
)
from berunda.data.masks.folder import has_masks, list_folder
from berunda.data.masks.listing import MaskListing
from berunda.data.tables import PART_WORDS
from berunda.errors import DataError
from berunda.models.spec import Task

__all__ = ["Folder"]


class Folder(Entry):
    """A folder (or zip archive) with one sub-directory a class, and images in them at any depth.

    - `unlabelled/` (or `unlabeled/`) holds images without labels.
    - With `train/`, and perhaps `validation/` and `test/`, the classes lie in those; without `validation/` 20% of the
      training images of every class validate. Otherwise 60/20/20 of every class by the sha256 of the file's name.
    - A folder of images without sub-directories is a set of images without labels.

    With masks: folders `images/` and `masks/` side by side, at any depth, files of the same name in both. What the
    masks' numbers or colours mean stands in `classes.csv` (value,name and perhaps color; an empty name is ignored);
    without it every number of index masks is a class, 0 and 255 are ignored. `train/`, `validation/`, `test/` and
    `unlabelled/` as above; without them 60/20/20, of whole folders where there are five or more.
    """

    name = "folder"
    title = "any folder, one sub-directory a class, or images/ and masks/"
    tasks = ("scene", "segmentation")
    about = "JPEG, PNG, WebP, BMP, TIFF or GeoTIFF; unlabelled/, train/, validation/, test/ are optional"
    licence = "your own"

    def is_here(self, root: Path) -> bool:
        """Say whether it is a folder or a zip archive."""
        return root.is_dir() or root.suffix.lower() == ".zip"

    def task_of(self, root: Path) -> Task:
        """Return "segmentation" where there is a folder of masks, else "scene"."""
        return "segmentation" if has_masks(root) else "scene"

    def list_masks(self, root: Path) -> MaskListing:
        """Return the images in folders `images/` with the masks of the same name in folders `masks/` beside them."""
        return list_folder(root, root.resolve().stem or self.name)

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the images with their folders as labels."""
        files = _without_top(files_of(root, (*PHOTO_SUFFIXES, *RASTER_SUFFIXES)), root)
        if not files:
            expected = ", ".join((*PHOTO_SUFFIXES, *RASTER_SUFFIXES))
            raise DataError(f"{root}: no images found, expected files {expected} in one sub-directory a class")
        folders = {name: PurePosixPath(name).parts[:-1] for name in files}
        tops = {parts[0] for parts in folders.values() if parts}
        has_parts = any(PART_WORDS.get(top.lower()) == TRAIN for top in tops) and all(
            t.lower() in PART_WORDS for t in tops
        )
        places = [_place(root, name, parts, has_parts, bool(tops)) for name, parts in folders.items()]
        names, class_names, said = list(files), [place[0] for place in places], [place[1] for place in places]
        taught = {c for c, part in zip(class_names, said, strict=True) if c and part in (None, TRAIN)}
        classes = tuple(sorted(taught | (_folders_of_classes(root, has_parts) if tops else set()), key=natural))
        labels = labels_of(names, class_names, classes, str(root))
        parts = complete_parts(names, labels, said)
        samples = map(Sample, names, files.values(), labels, parts)
        return Listing(root.resolve().stem or self.name, task, classes, tuple(samples))


def _place(root: Path, name: str, parts: Sequence[str], has_parts: bool, has_folders: bool) -> tuple[str, int | None]:
    """Return the class of an image ("" for none) and the part that its folders give."""
    top = parts[0].lower() if parts else ""
    if PART_WORDS.get(top) == UNLABELLED or not has_folders:
        return "", UNLABELLED
    if has_parts and len(parts) > 1:
        own = parts[1].lower()
        return ("", UNLABELLED) if PART_WORDS.get(own) == UNLABELLED else (parts[1], PART_WORDS[top])
    if parts and not has_parts:
        return parts[0], None
    raise DataError(
        f"{root}: image {name!r} lies in no class's folder; expected one sub-directory a class, and images without "
        "label in unlabelled/"
    )


def _folders_of_classes(root: Path, has_parts: bool) -> set[str]:
    """Return the names of the folders in which training images of a class belong, those without any image included."""
    if not root.is_dir():
        return set()
    above = [root]
    if has_parts:
        above = [path for path in root.iterdir() if path.is_dir() and PART_WORDS.get(path.name.lower()) == TRAIN]
    return {path.name for place in above for path in place.iterdir() if _is_class(path)}


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and PART_WORDS.get(path.name.lower()) != UNLABELLED


def _without_top(files: dict[str, File], root: Path) -> dict[str, File]:
    """Return the files of an archive without the one folder that all of them lie in, where classes lie below it."""
    tops = {name.split("/")[0] for name in files}
    if root.is_dir() or len(tops) != 1 or not all(name.count("/") > 1 for name in files):
        return files
    return {name.split("/", 1)[1]: file for name, file in files.items()}
