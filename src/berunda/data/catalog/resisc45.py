"""NWPU-RESISC45: 31,500 aerial images of 256x256 pixels, 45 classes."""

from __future__ import annotations

from berunda.data.catalog.contract import ClassFolders, Download

__all__ = ["RESISC45"]


class RESISC45(ClassFolders):
    """NWPU-RESISC45: the folder as unpacked from the authors' .rar, or the .zip of the same content.

    There is no official split: 60/20/20 of every class by the sha256 of the file's name.
    """

    name = "resisc45"
    title = "NWPU-RESISC45"
    folders = ("resisc45", "NWPU-RESISC45")
    about = "31,500 aerial images in colour, 0.2 to 30 m, 256x256 px, 45 classes"
    licence = "no licence stated, images from Google Earth. Cite Cheng et al. 2017, doi:10.1109/JPROC.2017.2675998"
    downloads = (
        Download(
            "NWPU-RESISC45.zip",
            "https://hf.co/datasets/torchgeo/resisc45/resolve/a826b44d938a883185f11ebe3d512d38b464312f/NWPU-RESISC45.zip",
            "md5:75206b2e16446591afa88e2628744886",
        ),
    )
    archives = ("NWPU-RESISC45.zip",)
    classes = (
        "airplane",
        "airport",
        "baseball_diamond",
        "basketball_court",
        "beach",
        "bridge",
        "chaparral",
        "church",
        "circular_farmland",
        "cloud",
        "commercial_area",
        "dense_residential",
        "desert",
        "forest",
        "freeway",
        "golf_course",
        "ground_track_field",
        "harbor",
        "industrial_area",
        "intersection",
        "island",
        "lake",
        "meadow",
        "medium_residential",
        "mobile_home_park",
        "mountain",
        "overpass",
        "palace",
        "parking_lot",
        "railway",
        "railway_station",
        "rectangular_farmland",
        "river",
        "roundabout",
        "runway",
        "sea_ice",
        "ship",
        "snowberg",
        "sparse_residential",
        "stadium",
        "storage_tank",
        "tennis_court",
        "terrace",
        "thermal_power_station",
        "wetland",
    )
