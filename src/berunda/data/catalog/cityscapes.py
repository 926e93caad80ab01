"""Cityscapes: street scenes of 2048x1024 px, by its eight categories."""

from __future__ import annotations

import re
from typing import ClassVar

from berunda.data.catalog.contract import Download, MaskEntry
from berunda.data.images import TEST, TRAIN, UNLABELLED
from berunda.data.masks.listing import MaskPlace
from berunda.data.masks.schema import MaskSchema

__all__ = ["CATEGORIES", "Cityscapes"]

CATEGORIES: dict[str, tuple[int, ...]] = {
    "void": (0, 1, 2, 3, 4, 5, 6),
    "flat": (7, 8, 9, 10),
    "construction": (11, 12, 13, 14, 15, 16),
    "object": (17, 18, 19, 20),
    "nature": (21, 22),
    "sky": (23,),
    "human": (24, 25),
    "vehicle": (26, 27, 28, 29, 30, 31, 32, 33),
}
"""Label ids by category. Source: cityscapesScripts, cityscapesscripts/helpers/labels.py."""

_ORDER = ("flat", "human", "vehicle", "construction", "object", "nature", "sky")
_COLORS = ("#804080", "#dc143c", "#00008e", "#464646", "#999999", "#6b8e23", "#4682b4")
"""Of road, person, car, building, pole, vegetation and sky in the same file."""
_PATH = re.compile(
    r"(?:^|/)(leftImg8bit|gtFine)/(train|val|train_extra)/([^/]+)/([^/]+)_(leftImg8bit|gtFine_labelIds)\.png$"
)
_PARTS = {"train": TRAIN, "val": TEST, "train_extra": UNLABELLED}


class Cityscapes(MaskEntry):
    """Cityscapes with its eight categories; void is ignored, seven are learned.

    2,975 training images train and the 500 validation images test, as is usual: the masks of the test images are not
    published, and those images are left out. `train_extra` is used without masks.
    """

    name = "cityscapes"
    title = "Cityscapes, by category"
    folders = ("cityscapes",)
    about = "5,000 street scenes in colour, 2048x1024 px, 7 categories and void"
    licence = "for research, after registration. Cite Cordts et al. 2016, CVPR, arXiv:1604.01685"
    downloads = (
        Download("leftImg8bit_trainvaltest.zip", "https://www.cityscapes-dataset.com/downloads/"),
        Download("gtFine_trainvaltest.zip", "https://www.cityscapes-dataset.com/downloads/"),
    )
    archives = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip", "leftImg8bit_trainextra.zip")
    bands = ("red", "green", "blue")
    schema: ClassVar[MaskSchema] = MaskSchema.of_indices(
        {label: name for name in _ORDER for label in CATEGORIES[name]}, CATEGORIES["void"], _COLORS
    )

    def place_of(self, name: str) -> MaskPlace | None:
        """Read leftImg8bit/<split>/<city>/<image>_leftImg8bit.png and gtFine/.../<image>_gtFine_labelIds.png."""
        found = _PATH.search(name)
        if found is None or (found[1] == "leftImg8bit") != (found[5] == "leftImg8bit"):
            return None
        kind = "image" if found[1] == "leftImg8bit" else "mask"
        return MaskPlace(f"{found[2]}/{found[3]}/{found[4]}", kind, _PARTS[found[2]], found[3])
