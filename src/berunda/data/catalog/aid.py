"""AID: 10,000 aerial images of 600x600 pixels, 30 classes."""

from __future__ import annotations

from berunda.data.catalog.contract import ClassFolders, Download

__all__ = ["AID"]


class AID(ClassFolders):
    """AID: the archive or the folder unpacked from it.

    There is no official split: 60/20/20 of every class by the sha256 of the file's name.
    """

    name = "aid"
    title = "AID"
    folders = ("aid", "AID")
    about = "10,000 aerial images in colour, 0.5 to 8 m, 600x600 px, 30 classes"
    licence = "no licence stated, images from Google Earth. Cite Xia et al. 2017, doi:10.1109/TGRS.2017.2685945"
    downloads = (Download("AID.zip", "https://captain-whu.github.io/AID/"),)
    archives = ("AID.zip", "AID_dataset.zip")
    classes = (
        "Airport",
        "BareLand",
        "BaseballField",
        "Beach",
        "Bridge",
        "Center",
        "Church",
        "Commercial",
        "DenseResidential",
        "Desert",
        "Farmland",
        "Forest",
        "Industrial",
        "Meadow",
        "MediumResidential",
        "Mountain",
        "Park",
        "Parking",
        "Playground",
        "Pond",
        "Port",
        "RailwayStation",
        "Resort",
        "River",
        "School",
        "SparseResidential",
        "Square",
        "Stadium",
        "StorageTanks",
        "Viaduct",
    )
