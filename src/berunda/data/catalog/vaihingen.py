"""ISPRS Vaihingen: 33 aerial images in near infrared, red and green at 9 cm, 6 classes."""

from __future__ import annotations

import re
from typing import ClassVar

from berunda.data.catalog._isprs import LICENCE, PAGE, SCHEMA
from berunda.data.catalog.contract import Download, MaskEntry
from berunda.data.images import TEST, TRAIN
from berunda.data.masks.listing import MaskPlace, MaskSample
from berunda.data.masks.schema import MaskSchema

__all__ = ["TRAIN_AREAS", "Vaihingen"]

TRAIN_AREAS = (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)
"""The areas whose masks went to the participants; the other 17 tested."""
HELD_OUT_AREAS = (5, 15, 21, 30)
"""Areas that test where only the participants' masks are there. Source: Audebert et al. 2018, arXiv:1711.08681."""
_PATH = re.compile(r"(?:^|/)(?:([^/]+)/)?top_mosaic_09cm_area(\d+)\.tif$")
_COMPLETE = "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip"


class Vaihingen(MaskEntry):
    """Vaihingen: images in `top/`, masks in `gts_for_participants/` or, for all areas, as in the complete archive.

    With the complete masks the 17 areas of the contest's test do so, and 16 train. With the participants' masks alone
    areas 5, 15, 21 and 30 test and 12 train.
    """

    name = "vaihingen"
    title = "ISPRS Vaihingen"
    folders = ("vaihingen", "ISPRS_VAIHINGEN")
    about = "33 aerial images in near infrared, red and green, 9 cm, about 2500x1900 px, 6 classes"
    licence = LICENCE
    downloads = (Download("ISPRS_semantic_labeling_Vaihingen.zip", PAGE), Download(_COMPLETE, PAGE))
    archives = ("ISPRS_semantic_labeling_Vaihingen.zip", _COMPLETE)
    above: ClassVar[dict[str, str]] = {_COMPLETE: "complete"}
    bands = ("nir", "red", "green")
    schema: ClassVar[MaskSchema] = SCHEMA

    def place_of(self, name: str) -> MaskPlace | None:
        """Read top/top_mosaic_09cm_area<n>.tif, and the masks of the same name elsewhere."""
        found = _PATH.search(name)
        if found is None:
            return None
        kinds = {"top": "image", "gts_for_participants": "some_mask"}
        area = int(found[2])
        return MaskPlace(found[2], kinds.get(found[1] or "", "mask"), TRAIN if area in TRAIN_AREAS else TEST, found[2])

    def kept(self, samples: tuple[MaskSample, ...]) -> tuple[MaskSample, ...]:
        """Return the areas with masks; without those of the contest's test four of the others test."""
        with_mask = tuple(sample for sample in samples if sample.mask is not None)
        if any(sample.part == TEST for sample in with_mask):
            return with_mask
        return tuple(s._replace(part=TEST) if int(s.site) in HELD_OUT_AREAS else s for s in with_mask)
