"""What MiniFrance, tinyMiniFrance and MiniFrance-DFC22 share: conurbations, their roles, classes, and file names."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from berunda.data.images import TEST, TRAIN, UNLABELLED
from berunda.data.masks.schema import MaskSchema

__all__ = [
    "CITE",
    "CLASSES",
    "IGNORED",
    "LABELLED",
    "MASK_FOLDERS",
    "ROLES",
    "SCHEMA",
    "TESTED",
    "UNLABELLED_TOWNS",
    "kind_and_stem",
    "town_of",
]

LABELLED = ("Nantes_Saint-Nazaire", "Nice")
UNLABELLED_TOWNS = ("Brest", "Caen", "Calais_Dunkerque", "LeMans", "Lorient", "Saint-Brieuc")
TESTED = (
    "Angers",
    "Cherbourg",
    "Clermont-Ferrand",
    "Lille_Arras_Lens_Douai_Henin",
    "Marseille_Martigues",
    "Quimper",
    "Rennes",
    "Vannes",
)
ROLES = dict.fromkeys(LABELLED, TRAIN) | dict.fromkeys(UNLABELLED_TOWNS, UNLABELLED) | dict.fromkeys(TESTED, TEST)
"""Part by conurbation. Source: Castillo-Navarro et al. 2022, Machine Learning 111, doi:10.1007/s10994-020-05943-y; the
folders' names as in MiniFrance-DFC22 and in published code for tinyMiniFrance."""

CLASSES = (
    ("urban fabric", "#db5f57"),
    ("industrial, commercial, public, military, private and transport units", "#db9757"),
    ("mine, dump and construction sites", "#dbd057"),
    ("artificial non-agricultural vegetated areas", "#addb57"),
    ("arable land (annual crops)", "#75db57"),
    ("permanent crops", "#7bc47b"),
    ("pastures", "#58b158"),
    ("complex and mixed cultivation patterns", "#d4f6d4"),
    ("orchards at the fringe of urban classes", "#b0e2b0"),
    ("forests", "#008000"),
    ("herbaceous vegetation associations", "#58b0a7"),
    ("open spaces with little or no vegetation", "#995d13"),
    ("wetlands", "#579bdb"),
    ("water", "#0062ff"),
)
"""UrbanAtlas classes 1 to 14 with their colours. Source: the data set's page, as in torchgeo's DFC2022."""
IGNORED = (0, 15)
"""Values of masks without a class: 0 is no information, 15 clouds and shadows."""
SCHEMA = MaskSchema.of_indices(
    {number: name for number, (name, _) in enumerate(CLASSES, start=1)}, IGNORED, [color for _, color in CLASSES]
)
CITE = "Cite Castillo-Navarro et al. 2022, Machine Learning 111, doi:10.1007/s10994-020-05943-y"

MASK_FOLDERS = ("UA", "UrbanAtlas")
_IMAGES, _ELEVATIONS = ("BDORTHO",), ("RGEALTI",)
_ENDING = re.compile(r"_(?:RGEALTI|UA2012|UA)$")


def town_of(name: str) -> str | None:
    """Return the conurbation in a path, None where there is none.

    Example:
        >>> town_of("BDORTHO/Nice/06-2014-1007-6318-LA93-0M50-E080.tif")
        'Nice'
    """
    plain = {_plain(town): town for town in ROLES}
    return next((plain[_plain(p)] for p in PurePosixPath(name).parts[:-1] if _plain(p) in plain), None)


def _plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def kind_and_stem(name: str) -> tuple[str, str] | None:
    """Return whether a path is an image, an elevation or a mask, and its name without ending and suffix.

    Example:
        >>> kind_and_stem("val/Nice/RGEALTI/06-2014_RGEALTI.tif")
        ('elevation', '06-2014')
    """
    path = PurePosixPath(name)
    folders = set(path.parts[:-1])
    for kind, names in (("image", _IMAGES), ("elevation", _ELEVATIONS), ("mask", MASK_FOLDERS)):
        if folders & set(names):
            return kind, _ENDING.sub("", path.stem)
    return None
