"""Christchurch Aerial Semantic Dataset (CASD): aerial images at 10 cm with buildings, vehicles and vegetation."""

from __future__ import annotations

import re
from pathlib import Path

from berunda.data.catalog.contract import Download, MaskEntry
from berunda.data.images import TEST, TRAIN
from berunda.data.listing import split_by_name
from berunda.data.masks import folder
from berunda.data.masks.listing import MaskPlace, MaskSample
from berunda.data.masks.schema import MaskSchema
from berunda.errors import DataError

__all__ = ["Christchurch"]

_SUFFIX = re.compile(r"[-_.](gt|label|labels|mask|masks|semantic|segmentation)$", re.IGNORECASE)


class Christchurch(MaskEntry):
    """CASD: images of Land Information New Zealand with masks of H. Randrianarivo and B. Le Saux.

    The names of its files and the coding of its masks could not be verified from public documentation. So it is read
    as it may lie: images and masks side by side (the mask with an ending such as `_gt`, `_label` or `_mask`), or in
    folders `images/` and `masks/`, also one in each folder of the archive. What the masks' colours or numbers mean
    has to stand in `classes.csv` (value,name) in the folder. There is no official split: 60/20/20 by the hash of names.
    """

    name = "christchurch"
    title = "Christchurch Aerial Semantic Dataset"
    folders = ("christchurch", "casd")
    about = "aerial images in colour after the 2011 earthquake, 0.1 m; buildings, vehicles, vegetation, background"
    licence = (
        "CC BY 4.0 (imagery: Land Information New Zealand). Cite Randrianarivo, Le Saux, Ferecatu 2013, IGARSS, "
        "doi:10.5281/zenodo.3566005"
    )
    downloads = (Download("the files of the record", "https://zenodo.org/record/3566005"),)
    bands = ("red", "green", "blue")

    def place_of(self, name: str) -> MaskPlace | None:
        """Read a pair by its folders, or by the ending of the mask's name."""
        by_folder = folder.place_of(name)
        if by_folder is not None:
            key = _SUFFIX.sub("", by_folder.key)
            return MaskPlace(key, by_folder.kind, TRAIN, "")
        path = Path(name)
        stem = _SUFFIX.sub("", path.stem)
        return MaskPlace((path.parent / stem).as_posix(), "image" if stem == path.stem else "mask", TRAIN, "")

    def schema_of(self, root: Path) -> MaskSchema:
        """Return the schema of `classes.csv`.

        Raises:
            DataError: it is not there.
        """
        table = (root if root.is_dir() else root.parent) / folder.SCHEMA_NAME
        if not table.is_file():
            raise DataError(
                f"{table}: not found; what the colours or numbers of the masks mean has to stand there, one row each: "
                "value,name, such as #0000ff,building (classes: building, vehicle, vegetation, background)"
            )
        return folder.read_schema(table)

    def kept(self, samples: tuple[MaskSample, ...]) -> tuple[MaskSample, ...]:
        """Return the images with masks, split by the hash of their names."""
        with_mask = [sample for sample in samples if sample.mask is not None]
        parts = split_by_name([sample.name for sample in with_mask], [0] * len(with_mask))
        if TEST not in parts and len(with_mask) > 1:  # so few that rounding leaves none
            parts[-1] = TEST
        return tuple(s._replace(part=int(part)) for s, part in zip(with_mask, parts, strict=True))
