"""What data sets of images with a table of several labels share."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from berunda.data.catalog.contract import Entry
from berunda.data.images import TEST, TRAIN
from berunda.data.listing import PHOTO_SUFFIXES, Listing, Sample, files_of
from berunda.data.order import Randomness
from berunda.data.subsets import stratified_parts
from berunda.data.tables import read_table, rows_by_image
from berunda.errors import DataError
from berunda.models.spec import Task

__all__ = ["TrainTestTable", "home_of"]

VALIDATION_SHARE = 1 / 8
"""Of the training images, so that of 80% training images 10% of all validate."""


def home_of(root: Path, *wanted: str) -> Path | None:
    """Return the folder that holds all that is `wanted`: `root`, or one in it; None where there is none."""
    folders = (root, *sorted(p for p in root.iterdir() if p.is_dir())) if root.is_dir() else ()
    return next((folder for folder in folders if all((folder / name).exists() for name in wanted)), None)


class TrainTestTable(Entry):
    """Images below `images_tr/` and `images_test/`, and a table with one column a class.

    Attributes:
        table: name of the table.
        bands: names of the bands.
    """

    tasks: ClassVar[tuple[Task, ...]] = ("multilabel",)
    table: ClassVar[str] = "multilabel.csv"
    bands: ClassVar[tuple[str, ...]] = ("red", "green", "blue")
    parts: ClassVar[dict[str, int]] = {"images_tr": TRAIN, "images_test": TEST}

    def is_here(self, root: Path) -> bool:
        """Say whether the table and both folders are there."""
        return home_of(root, self.table, *self.parts) is not None

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the images with the columns of the table as labels."""
        home = home_of(root, self.table, *self.parts)
        assert home is not None
        files = {name: f for name, f in files_of(home, PHOTO_SUFFIXES).items() if name.split("/")[0] in self.parts}
        if not files:
            raise DataError(
                f"data set {self.name}: no image found in {' or '.join(self.parts)} of {home}; {self.about}"
            )
        table = read_table(home / self.table, with_values=True)
        values = rows_by_image(list(files), table)
        parts = np.array([self.parts[name.split("/")[0]] for name in files], np.int8)
        trains = np.flatnonzero(parts == TRAIN)
        rng = Randomness(0).numpy(f"{self.name} split")
        parts[trains] = stratified_parts(np.array(values)[trains], 0, round(VALIDATION_SHARE * len(trains)), rng)
        samples = map(Sample, files, files.values(), values, parts.tolist())
        return Listing(self.name, task, table.classes, tuple(samples), self.bands)
