"""MLRSNet: 109,161 aerial images of 256x256 pixels in 46 categories, with 60 labels.

The layout (`Images/<category>/*.jpg`, `Labels/<category>.csv` with the columns `image` and one a class) is that of the
authors' download, whose images come as one .rar a category, as published code reads it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from berunda.data.catalog._labels import home_of
from berunda.data.catalog.contract import Download, Entry
from berunda.data.listing import PHOTO_SUFFIXES, Listing, Sample, files_of
from berunda.data.order import Randomness
from berunda.data.subsets import stratified_parts
from berunda.data.tables import Table, read_table, rows_by_image
from berunda.errors import DataError
from berunda.models.spec import Task

__all__ = ["MLRSNet"]

IMAGES, LABELS = "Images", "Labels"
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1


class MLRSNet(Entry):
    """MLRSNet: the folder of the authors with the archives of images unpacked.

    There is no official split: 70/10/20, stratified.
    """

    name = "mlrsnet"
    title = "MLRSNet"
    tasks = ("multilabel",)
    folders = ("mlrsnet", "MLRSNet")
    about = "109,161 aerial images in colour, 0.1 to 10 m, 256x256 px, 60 labels"
    licence = "as its page says, images from Google Earth. Cite Qi et al. 2020, doi:10.1016/j.isprsjprs.2020.09.020"
    downloads = (Download("Images and Labels", "https://data.mendeley.com/datasets/7j9bv9vwsx/3"),)
    bands = ("red", "green", "blue")

    def is_here(self, root: Path) -> bool:
        """Say whether both folders are there, with a table of labels."""
        home = home_of(root, IMAGES, LABELS)
        return home is not None and any((home / LABELS).glob("*.csv"))

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the images with the columns of all tables as labels."""
        home = home_of(root, IMAGES, LABELS)
        assert home is not None
        files = files_of(home / IMAGES, PHOTO_SUFFIXES)
        if not files:
            raise DataError(f"data set {self.name}: no image found in {home / IMAGES}; unpack the .rar archives there")
        table = _joined(home / LABELS)
        values, n = rows_by_image(list(files), table), len(files)
        rng = Randomness(0).numpy("mlrsnet split")
        parts = stratified_parts(np.array(values), round(TEST_SHARE * n), round(VALIDATION_SHARE * n), rng)
        samples = map(Sample, files, files.values(), values, parts.tolist())
        return Listing(self.name, task, table.classes, tuple(samples), self.bands)


def _joined(folder: Path) -> Table:
    """Return the tables of a folder as one.

    Raises:
        DataError: their columns differ.
    """
    tables = [read_table(path, with_values=True) for path in sorted(folder.glob("*.csv"))]
    first = tables[0]
    odd = next((table for table in tables if table.classes != first.classes), None)
    if odd is not None:
        raise DataError(
            f"{odd.path}: {len(odd.classes)} columns of classes found, expected the {len(first.classes)} of "
            f"{first.path.name} in the same order; fetch it again"
        )
    by_row = ("files", "values", "windows", "truths", "sites", "listed")
    joined = {name: tuple(chain.from_iterable(getattr(table, name) for table in tables)) for name in by_row}
    return replace(first, path=folder, names=(), parts=(), **joined)
