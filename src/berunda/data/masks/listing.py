"""Lists of images with masks before any is decoded, and the checks that need no pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from berunda.data.images import PART_NAMES, TRAIN, UNLABELLED, VALIDATION
from berunda.data.listing import PHOTO_SUFFIXES, RASTER_SUFFIXES, File, files_of
from berunda.data.masks.schema import MaskSchema
from berunda.errors import DataError

__all__ = ["SUFFIXES", "MaskListing", "MaskPlace", "MaskSample", "archives_and_files"]

SUFFIXES = (*PHOTO_SUFFIXES, *RASTER_SUFFIXES)


class MaskPlace(NamedTuple):
    """What the path of a file says.

    Attributes:
        key: equal for an image and its mask.
        kind: "image", "elevation", "mask", or "some_mask" for one that a "mask" of the same key replaces.
        part: TRAIN, VALIDATION, TEST or UNLABELLED.
        site: the tile, town or region it was cut from; "" where that is unknown.
    """

    key: str
    kind: str
    part: int
    site: str


class MaskSample(NamedTuple):
    """One image of a data set, with its mask.

    Attributes:
        name: its path within the data set, with "/"; unique.
        images: where its bands lie: one file, or several rasters of the same ground, which are put on the finest grid.
        mask: where its mask lies; None for an image without.
        part: TRAIN, VALIDATION, TEST or UNLABELLED of `berunda.data.images`.
        site: the tile, town or region it was cut from; images of one site are neighbours. "" where that is unknown.
    """

    name: str
    images: tuple[File, ...]
    mask: File | None
    part: int
    site: str


@dataclass(frozen=True)
class MaskListing:
    """All that is known of a data set with masks before its pixels are read.

    Attributes:
        name: of the data set.
        schema: what the masks' values mean.
        samples: the images.
        bands: names of the bands; empty where the images tell.
        has_part: parts that the data set declares, whether or not it has images of them.

    Raises:
        DataError: there is no image, one is listed twice, a labelled one has no mask, or a declared part is empty.
    """

    name: str
    schema: MaskSchema
    samples: tuple[MaskSample, ...]
    bands: tuple[str, ...] = ()
    has_part: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError(f"data set {self.name}: no images found, expected images with masks; check the folder")
        seen: set[str] = set()
        for sample in self.samples:
            if sample.name in seen:
                raise DataError(
                    f"data set {self.name}: image {sample.name!r} is listed twice, expected each image once"
                )
            seen.add(sample.name)
        without = [s.name for s in self.samples if s.mask is None and s.part in (TRAIN, VALIDATION)]
        if without:
            raise DataError(
                f"data set {self.name}: {len(without)} images of the labelled split have no mask, the first is "
                f"{without[0]!r}; expected a mask of the same name for each: add the masks, or move these images to "
                "unlabelled/"
            )
        empty = [PART_NAMES[part] for part in self.has_part if not any(s.part == part for s in self.samples)]
        if empty:
            raise DataError(
                f"data set {self.name}: the {empty[0]} split is there but holds no image, expected at least one; add "
                "images to it or remove its folder"
            )
        if not any(s.mask is not None and s.part == TRAIN for s in self.samples):
            raise DataError(
                f"data set {self.name}: no training image with a mask found among {len(self.samples)} images, expected "
                "at least one"
            )

    @property
    def has_unlabelled(self) -> bool:
        """Whether there are images that can only be used without labels."""
        return any(sample.part == UNLABELLED for sample in self.samples)


def archives_and_files(
    root: Path, archives: Iterable[str], suffixes: Sequence[str] = SUFFIXES, above: Mapping[str, str] | None = None
) -> dict[str, File]:
    """Return the files of a folder and of the archives in it, by their path below the folder.

    Members count with their path in the archive, below the folder that `above` gives for it. What lies unpacked as
    well is taken once.

    Args:
        root: the folder, or one of the archives.
        archives: names under which the archives are published.
        suffixes: of the files that are wanted.
        above: folder by archive name, for archives without a folder of their own.

    Raises:
        DataError, SecurityError: an archive is damaged or refused.
    """
    if root.is_file():
        return files_of(root, suffixes)
    found: dict[str, File] = {}
    for name in archives:
        if (root / name).is_file():
            folder = (above or {}).get(name, "")
            inside = files_of(root / name, suffixes)
            found |= {f"{folder}/{member}".lstrip("/"): file for member, file in inside.items()}
    plain = {name: file for name, file in files_of(root, suffixes).items() if not file.member}
    found |= plain
    return dict(sorted(found.items()))
