"""Tiny images with masks, laid out as published or as people keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PUBLISHED = Path(__file__).resolve().parents[1] / "unit" / "data" / "published"
COLORS = ((200, 40, 40), (40, 160, 60), (40, 60, 200))
NAMES = ("roof", "grass", "pond")
CLASSES_CSV = "value,name\n#c82828,roof\n#28a03c,grass\n#283cc8,pond\n#000000,\n"


def published(name: str) -> list[str]:
    """Return the published file names of a data set."""
    lines = (PUBLISHED / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def write_png(path: Path, array: np.ndarray, **how: Any) -> Path:
    """Write a picture (rows, columns[, 3]) in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)
    return path


def write_tif(path: Path, array: np.ndarray, resolution: float = 0.5, **how: Any) -> Path:
    """Write a georeferenced raster (B, rows, columns)."""
    import rasterio
    from rasterio.transform import from_origin

    path.parent.mkdir(parents=True, exist_ok=True)
    bands, rows, cols = array.shape
    left = 400_000 + (sum(map(ord, path.stem.split("_RGEALTI")[0])) % 1000) * 1000.0
    profile = {"driver": "GTiff", "count": bands, "height": rows, "width": cols, "dtype": array.dtype}
    where = {"crs": "EPSG:2154", "transform": from_origin(left, 6_700_000, resolution, resolution)}
    with rasterio.open(path, "w", **profile, **where, **how) as target:
        target.write(array)
    return path


def scene(side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (side, side, 3) of three colours in stripes, and its classes (side, side) 0..2."""
    rng = np.random.default_rng(seed)
    shift = int(rng.integers(side))
    classes = ((np.arange(side)[:, None] + shift) // max(1, side // 6) % 3).repeat(side, axis=1)
    image = np.array(COLORS, np.int16)[classes] + rng.integers(-30, 30, (side, side, 3))
    return image.clip(0, 255).astype(np.uint8), classes


def write_folder(root: Path, n: int = 10, side: int = 48, parts: dict[str, int] | None = None) -> Path:
    """Write images/ and masks/ in colours, with classes.csv; `parts` gives numbers by folder instead."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.csv").write_text(CLASSES_CSV)
    number = 0
    for part, count in (parts or {"": n}).items():
        for _ in range(count):
            image, classes = scene(side, number)
            name = f"part_{number:02d}.png"
            if part == "unlabelled":
                write_png(root / part / name, image)
            else:
                write_png(root / part / "images" / name, image)
                write_png(root / part / "masks" / name, np.array(COLORS, np.uint8)[classes])
            number += 1
    return root
