"""EuroSAT with all 13 bands of Sentinel-2: 27,000 GeoTIFF patches of 64x64 pixels, 10 classes."""

from __future__ import annotations

from berunda.data.catalog.contract import ClassFolders, Download
from berunda.data.catalog.eurosat import CLASSES, LICENCE

__all__ = ["EuroSATBands"]


class EuroSATBands(ClassFolders):
    """EuroSAT, 13 bands (top of the atmosphere, digital numbers): the archive as downloaded, or unpacked.

    The files name no bands; B8A comes last in them. Split 60/20/20 of every class by the sha256 of the file's name.
    """

    name = "eurosat_ms"
    title = "EuroSAT, 13 bands"
    folders = ("eurosat_ms", "EuroSAT_MS", "eurosat_13band_samples")
    about = "27,000 Sentinel-2 patches with 13 bands, 64x64 px, 10 classes"
    licence = LICENCE
    downloads = (
        Download(
            "EuroSAT_MS.zip",
            "https://zenodo.org/records/7711810/files/EuroSAT_MS.zip",
            "md5:091174add3c8e680a49244acf185b9f0",
        ),
    )
    classes = CLASSES
    archives = ("EuroSAT_MS.zip", "EuroSATallBands.zip")
    suffixes = (".tif", ".tiff")
    bands = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
