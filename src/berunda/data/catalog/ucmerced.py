"""UC Merced Land Use: 2,100 aerial images of 256x256 pixels, 21 classes; also with 17 labels an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from berunda.data.catalog.contract import ClassFolders, Download
from berunda.data.listing import Listing, Sample
from berunda.data.order import Randomness
from berunda.data.subsets import stratified_parts
from berunda.data.tables import Table, read_table, rows_by_image
from berunda.errors import DataError
from berunda.models.spec import Task

__all__ = ["UCMerced"]

TABLES = ("labels.csv", "LandUse_Multilabeled.txt")
"""The second is the publishers' (tabs between cells, header IMAGE\\LABEL and 17 classes); the first goes before it."""
PUBLISHED_PX = 256
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1


class UCMerced(ClassFolders):
    """UC Merced: the archive of .tif files or its folder, or the same images in another format and size.

    44 of the published .tif files are 247 to 255 pixels on a side: all of them are brought to 256. Images of other
    formats are taken as they are. Several labels an image come from the publishers' `LandUse_Multilabeled.txt` in the
    folder, or from `labels.csv`: a column file, whose names without suffix are those of the images, and one column a
    class.

    There is no official split. Scenes: 60/20/20 of every class by the sha256 of the file's name. Several labels:
    70/10/20, stratified.
    """

    name = "ucmerced"
    title = "UC Merced Land Use"
    tasks = ("scene", "multilabel")
    folders = ("ucmerced", "UCMerced_LandUse", "ucmerced_multilabel_128")
    about = "2,100 aerial images in colour, 0.3 m, 256x256 px, 21 classes, or 17 labels an image"
    licence = (
        "for research; imagery of the USGS National Map, public domain. Cite Yang and Newsam 2010, "
        "doi:10.1145/1869790.1869829; the 17 labels: Chaudhuri et al. 2018, doi:10.1109/TGRS.2017.2760909"
    )
    downloads = (
        Download(
            "UCMerced_LandUse.zip",
            "https://hf.co/datasets/torchgeo/ucmerced/resolve/7c5ef3454d9b1cccfa7ccde0c01fc8f00a45909a/UCMerced_LandUse.zip",
            "sha256:06c539ef28703a58fb07bd2837991ac7c48b813b00bb12ac197efd813a18daeb",
        ),
    )
    archives = ("UCMerced_LandUse.zip", "images_128.zip")
    suffixes = (".tif", ".tiff", ".webp", ".png", ".jpg")
    classes = (
        "agricultural",
        "airplane",
        "baseballdiamond",
        "beach",
        "buildings",
        "chaparral",
        "denseresidential",
        "forest",
        "freeway",
        "golfcourse",
        "harbor",
        "intersection",
        "mediumresidential",
        "mobilehomepark",
        "overpass",
        "parkinglot",
        "river",
        "runway",
        "sparseresidential",
        "storagetanks",
        "tenniscourt",
    )

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the images with their folders, or the columns of the table, as labels."""
        if task == "scene":
            scenes = super().list_samples(root, task)
            names = [sample.name for sample in scenes.samples]
            return Listing(self.name, task, self.classes, scenes.samples, self.bands, _side_px(names))
        files = self.files(root)
        table = _table_of(root.parent if root.is_file() else root)
        values, n = rows_by_image(list(files), table), len(files)
        rng = Randomness(0).numpy("ucmerced split")
        parts = stratified_parts(np.array(values), round(TEST_SHARE * n), round(VALIDATION_SHARE * n), rng)
        samples = map(Sample, files, files.values(), values, parts.tolist())
        return Listing(self.name, task, table.classes, tuple(samples), self.bands, _side_px(list(files)))


def _side_px(names: list[str]) -> int | None:
    return PUBLISHED_PX if names[0].lower().endswith((".tif", ".tiff")) else None


def _table_of(folder: Path) -> Table:
    """Return the table of several labels an image.

    Raises:
        DataError: the table is missing or cannot be read.
    """
    path = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if path is None:
        raise DataError(
            f"{folder / TABLES[0]}: not found, nor {TABLES[1]}; several labels an image need the annotation of "
            f"Chaudhuri et al. 2018, {TABLES[1]} from https://bigearth.eu/datasets, or a table with the columns file "
            "and one a class (1 or 0): put it there"
        )
    return read_table(path, with_values=True)
