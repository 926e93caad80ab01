"""MiniFrance: aerial images of 16 French conurbations at 50 cm with land use of UrbanAtlas 2012."""

from __future__ import annotations

from typing import ClassVar

from berunda.data.catalog._france import CITE, ROLES, SCHEMA, kind_and_stem, town_of
from berunda.data.catalog.contract import Download, MaskEntry
from berunda.data.masks.listing import MaskPlace
from berunda.data.masks.schema import MaskSchema

__all__ = ["MiniFrance"]


class MiniFrance(MaskEntry):
    """MiniFrance: images in folders `BDORTHO`, masks in folders `UA` (or `UrbanAtlas`), one folder a conurbation.

    Nice and Nantes with Saint-Nazaire are labelled, six conurbations are used without masks, eight test. Folders may
    be nested either way round (`BDORTHO/Nice` or `Nice/BDORTHO`). The names are those of
    MiniFrance-DFC22 and of public code that reads tinyMiniFrance, not verified against the publisher's own listing; so
    both orders and both names of the masks' folder are taken. Decoded, all of it takes about 640 GB;
    `berunda.data.masks.tiny.build_tiny` makes the small form of it.
    """

    name = "minifrance"
    title = "MiniFrance"
    folders = ("minifrance", "MiniFrance")
    about = "2,121 aerial images in colour of 16 conurbations, 0.5 m, about 10,000x10,000 px, 14 classes"
    licence = f"Open Licence (IGN BD ORTHO), Copernicus (UrbanAtlas). {CITE}"
    downloads = (Download("MiniFrance", "https://ieee-dataport.org/open-access/minifrance"),)
    bands = ("red", "green", "blue")
    schema: ClassVar[MaskSchema] = SCHEMA

    def place_of(self, name: str) -> MaskPlace | None:
        """Read <...>/BDORTHO/<...>/<tile> and <...>/UA/<...>/<tile>, with a conurbation among the folders."""
        town, found = town_of(name), kind_and_stem(name)
        if town is None or found is None or found[0] == "elevation":
            return None
        return MaskPlace(f"{town}/{found[1]}", found[0], ROLES[town], town)
