"""EuroSAT in colour: 27,000 Sentinel-2 patches of 64x64 pixels as JPEG, 10 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from berunda.data.catalog.contract import ClassFolders, Download
from berunda.data.tables import read_table
from berunda.errors import DataError

__all__ = ["CLASSES", "LICENCE", "EuroSAT"]

CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
LICENCE = (
    "MIT (Patrick Helber); contains modified Copernicus Sentinel data 2015-2017. Cite Helber et al. 2019, IEEE JSTARS "
    "12(7), doi:10.1109/JSTARS.2019.2918242"
)
INDEX = "index.csv"


class EuroSAT(ClassFolders):
    """EuroSAT RGB: the archive as downloaded, or unpacked.

    The data set has no official split. An `index.csv` beside the archive or in the folder (columns file, class, split)
    gives one; without it 60/20/20 of every class by the sha256 of the file's name.
    """

    name = "eurosat"
    title = "EuroSAT RGB"
    folders = ("eurosat_rgb", "eurosat", "EuroSAT_RGB")
    about = "27,000 Sentinel-2 patches in colour, 64x64 px, 10 classes"
    licence = LICENCE
    downloads = (
        Download(
            "EuroSAT_RGB.zip",
            "https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip",
            "md5:f46e308c4d50d4bf32fedad2d3d62f3b",
        ),
    )
    classes = CLASSES
    archives = ("EuroSAT_RGB.zip", "EuroSAT.zip")

    def parts(self, root: Path, names: Sequence[str], labels: Sequence[int]) -> Sequence[int]:
        """Return the part of each image, from `index.csv` where that is there."""
        index = (root.parent if root.is_file() else root) / INDEX
        if not index.is_file():
            return super().parts(root, names, labels)
        table = read_table(index, with_values=False)
        if not table.parts or not table.names:
            raise DataError(f"{index}: no column for class or split found, expected file, class and split")
        known = {
            "/".join(PurePosixPath(file).parts[-2:]): (name, part)
            for file, name, part in zip(table.files, table.names, table.parts, strict=True)
        }
        unlike = [name for name, label in zip(names, labels, strict=True) if _said(known, name) != CLASSES[label]]
        lost = sorted(set(known) - set(names))
        if unlike or lost:
            said = f"{unlike[0]!r} is {_said(known, unlike[0])}" if unlike else f"{lost[0]!r} has no image"
            raise DataError(
                f"{index}: it does not fit the images in {root}: {said} ({len(unlike) + len(lost)} such); expected one "
                "row for each image with the class of its folder; remove it for a split by the hash of the names"
            )
        return [known[name][1] for name in names]


def _said(known: dict[str, tuple[str, int]], name: str) -> str:
    return known[name][0] if name in known else "not in it"
