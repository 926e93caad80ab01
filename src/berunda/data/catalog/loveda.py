"""LoveDA: 5,987 aerial images of 1024x1024 px from urban and rural scenes, 7 classes."""

from __future__ import annotations

import re
from typing import ClassVar

from berunda.data.catalog.contract import Download, MaskEntry
from berunda.data.images import TEST, TRAIN
from berunda.data.masks.listing import MaskPlace
from berunda.data.masks.schema import MaskSchema

__all__ = ["LoveDA"]

_PATH = re.compile(r"(?:^|/)(Train|Val)/(Urban|Rural)/(images_png|masks_png)/([^/]+)\.png$")
_RECORD = "https://zenodo.org/records/5706578/files"


class LoveDA(MaskEntry):
    """LoveDA: `Train` trains and `Val` tests; the masks of `Test` are not published, and its images are left out.

    Masks hold 1 to 7; 0 is no data and ignored. The scene, Urban or Rural, is the site.
    """

    name = "loveda"
    title = "LoveDA"
    folders = ("loveda", "LoveDA")
    about = "5,987 aerial images in colour, 0.3 m, 1024x1024 px, urban and rural, 7 classes"
    licence = "CC BY-NC-SA 4.0. Cite Wang et al. 2021, NeurIPS datasets and benchmarks, arXiv:2110.08733"
    downloads = (
        Download("Train.zip", f"{_RECORD}/Train.zip", "md5:de2b196043ed9b4af1690b3f9a7d558f"),
        Download("Val.zip", f"{_RECORD}/Val.zip", "md5:84cae2577468ff0b5386758bb386d31d"),
    )
    archives = ("Train.zip", "Val.zip")
    bands = ("red", "green", "blue")
    schema: ClassVar[MaskSchema] = MaskSchema.of_indices(
        dict(enumerate(("background", "building", "road", "water", "barren", "forest", "agriculture"), start=1)), (0,)
    )

    def place_of(self, name: str) -> MaskPlace | None:
        """Read <Train or Val>/<Urban or Rural>/images_png/<n>.png and masks_png/<n>.png."""
        found = _PATH.search(name)
        if found is None:
            return None
        kind = "image" if found[3] == "images_png" else "mask"
        return MaskPlace(f"{found[1]}/{found[2]}/{found[4]}", kind, TRAIN if found[1] == "Train" else TEST, found[2])
