"""ISPRS Potsdam: 38 aerial images in colour at 5 cm, 6000x6000 px, 6 classes."""

from __future__ import annotations

import re
from typing import ClassVar

from berunda.data.catalog._isprs import LICENCE, PAGE, SCHEMA
from berunda.data.catalog.contract import Download, MaskEntry
from berunda.data.images import TEST, TRAIN
from berunda.data.masks.listing import MaskPlace, MaskSample
from berunda.data.masks.schema import MaskSchema

__all__ = ["TEST_TILES", "Potsdam"]

TEST_TILES = (
    *("2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15"),
    *("5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13"),
)
"""The tiles of the contest's test."""
HELD_OUT_TILES = ("2_11", "2_12", "4_10", "5_11", "6_7", "7_8")
"""Tiles that test where only the participants' masks are there: a choice of this project, one of each row of tiles."""
_PATH = re.compile(r"(?:^|/)top_potsdam_(\d+_\d+)_(RGB|label)\.tif$")


class Potsdam(MaskEntry):
    """Potsdam: images of `2_Ortho_RGB`, masks of `5_Labels_all` (or `5_Labels_for_participants`).

    With all masks the 14 tiles of the contest's test do so, and 24 train. With the participants' masks alone six of
    those test and 18 train.
    """

    name = "potsdam"
    title = "ISPRS Potsdam"
    folders = ("potsdam", "ISPRS_POTSDAM")
    about = "38 aerial images in colour, 5 cm, 6000x6000 px, 6 classes"
    licence = LICENCE
    downloads = (Download("2_Ortho_RGB.zip", PAGE), Download("5_Labels_all.zip", PAGE))
    archives = ("2_Ortho_RGB.zip", "5_Labels_all.zip", "5_Labels_for_participants.zip")
    above: ClassVar[dict[str, str]] = {"5_Labels_for_participants.zip": "5_Labels_for_participants"}
    bands = ("red", "green", "blue")
    schema: ClassVar[MaskSchema] = SCHEMA

    def place_of(self, name: str) -> MaskPlace | None:
        """Read top_potsdam_<row>_<column>_RGB.tif and top_potsdam_<row>_<column>_label.tif."""
        found = _PATH.search(name)
        if found is None:
            return None
        mask = "some_mask" if "5_Labels_for_participants/" in name else "mask"
        part = TEST if found[1] in TEST_TILES else TRAIN
        return MaskPlace(found[1], "image" if found[2] == "RGB" else mask, part, found[1])

    def kept(self, samples: tuple[MaskSample, ...]) -> tuple[MaskSample, ...]:
        """Return the tiles with masks; without those of the contest's test six of the others test."""
        with_mask = tuple(sample for sample in samples if sample.mask is not None)
        if any(sample.part == TEST for sample in with_mask):
            return with_mask
        return tuple(s._replace(part=TEST) if s.site in HELD_OUT_TILES else s for s in with_mask)
