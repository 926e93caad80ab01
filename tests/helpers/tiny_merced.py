"""A data set in the layout of UC Merced with several labels an image, small enough to train on in a second."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from berunda.data.catalog.ucmerced import UCMerced

LABELS = ("trees", "water", "cars")


def write_archive(folder: Path, side_px: int = 16, n_per_class: int = 4) -> Path:
    """Write an archive of all classes, every label of a colour of its own that adds up, and its table."""
    rng = np.random.default_rng(0)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file", "class", *LABELS])
    with zipfile.ZipFile(folder / "images_128.zip", "w") as opened:
        for name in UCMerced.classes:
            for number in range(n_per_class):
                present = rng.integers(0, 2, len(LABELS))
                pixels = (150 * present + rng.integers(0, 100, (side_px, side_px, 3))).astype(np.uint8)
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "PNG")
                opened.writestr(f"{name}/{name}{number:02d}.png", content.getvalue())
                writer.writerow([f"{name}/{name}{number:02d}.png", name, *present.tolist()])
    (folder / "labels.csv").write_text(table.getvalue())
    return folder / "images_128.zip"
