"""MiniFrance-DFC22: the data of the 2022 data fusion contest, aerial images with elevation."""

from __future__ import annotations

import re
from typing import ClassVar

from berunda.data.catalog._france import CITE, SCHEMA, kind_and_stem
from berunda.data.catalog.contract import Download, MaskEntry
from berunda.data.images import TEST, TRAIN, UNLABELLED
from berunda.data.listing import split_by_name
from berunda.data.masks.listing import MaskPlace, MaskSample
from berunda.data.masks.schema import MaskSchema

__all__ = ["MFDFC22"]

_PATH = re.compile(r"(?:^|/)(labeled_train|unlabeled_train|val)/([^/]+)/[^/]+/[^/]+\.tif$")
_PARTS = {"labeled_train": TRAIN, "unlabeled_train": UNLABELLED, "val": TEST}
_PAGE = "https://ieee-dataport.org/competitions/data-fusion-contest-2022-dfc2022"


class MFDFC22(MaskEntry):
    """MF-DFC22: `<split>/<conurbation>/BDORTHO`, `RGEALTI` and, for `labeled_train`, `UrbanAtlas`.

    Images at .5 m and elevations at 1 m come on one grid, that of the images. Masks hold 0 to 15; 0 (no information)
    and 15 (clouds and shadows) are ignored. The masks of `val` are not published: its images serve submissions
    (`berunda.api.submission`), and of the labelled tiles 60/20/20 train, validate and test, by the hash of their names.
    So tiles of one conurbation lie on both sides: figures are of known towns, which every report says, and submissions
    tell of new ones.
    """

    name = "mf_dfc22"
    title = "MiniFrance-DFC22"
    folders = ("mf_dfc22", "dfc2022", "DFC2022")
    about = "aerial images in colour, 0.5 m, about 2,000x2,000 px, with elevation at 1 m, 14 classes"
    licence = f"Open Licence (IGN BD ORTHO, RGE ALTI), Copernicus (UrbanAtlas). {CITE}"
    downloads = (
        Download("labeled_train.zip", _PAGE, "md5:2e87d6a218e466dd0566797d7298c7a9"),
        Download("unlabeled_train.zip", _PAGE, "md5:1016d724bc494b8c50760ae56bb0585e"),
        Download("val.zip", _PAGE, "md5:6ddd9c0f89d8e74b94ea352d4002073f"),
    )
    archives = ("labeled_train.zip", "unlabeled_train.zip")
    bands = ("red", "green", "blue", "elevation")
    schema: ClassVar[MaskSchema] = SCHEMA

    def place_of(self, name: str) -> MaskPlace | None:
        """Read <split>/<conurbation>/<BDORTHO, RGEALTI or UrbanAtlas>/<tile><ending>.tif."""
        found, kind = _PATH.search(name), kind_and_stem(name)
        if found is None or kind is None:
            return None
        return MaskPlace(f"{found[1]}/{found[2]}/{kind[1]}", kind[0], _PARTS[found[1]], found[2])

    def kept(self, samples: tuple[MaskSample, ...]) -> tuple[MaskSample, ...]:
        """Return the training images, the labelled ones split by the hash of their names."""
        used = [sample for sample in samples if sample.part != TEST]
        drawn = split_by_name([s.name for s in used], [0 if s.part == TRAIN else -1 for s in used])
        return tuple(s._replace(part=int(part)) for s, part in zip(used, drawn, strict=True))
