"""Tiny images on disk, for tests of data sets."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from berunda.data.images import NO_LABEL, TRAIN, UNLABELLED, ImageSet


def photo(seed: int = 0, *, size: tuple[int, int] = (8, 8), kind: str = "PNG", bands: int = 3) -> bytes:
    """Return the bytes of a random photograph of (rows, cols)."""
    shape = size if bands == 1 else (*size, bands)
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder; return it."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write an archive; return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def class_files(
    classes: Sequence[str], per_class: int, *, suffix: str = ".png", prefix: str = "", kind: str = "PNG"
) -> dict[str, bytes]:
    """Return photographs under the names `<prefix><class>/<class>_<number><suffix>`."""
    return {
        f"{prefix}{name}/{name}_{number}{suffix}": photo(100 * index + number, kind=kind)
        for index, name in enumerate(classes)
        for number in range(per_class)
    }


def image_set(labels: Sequence[int] | np.ndarray, n_classes: int, parts: Sequence[int] | None = None) -> ImageSet:
    """Return random images with these labels; all of them train unless told otherwise."""
    values = np.asarray(labels)
    n = len(values)
    without = np.isnan(values).all(axis=1) if values.ndim == 2 else values == NO_LABEL
    of_part = np.where(without, UNLABELLED, TRAIN) if parts is None else np.asarray(parts)
    return ImageSet(
        name="toy",
        task="multilabel" if values.ndim == 2 else "scene",
        pixels=np.random.default_rng(0).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8),
        labels=values.astype(np.float32) if values.ndim == 2 else values.astype(np.int64),
        classes=tuple(f"class{number}" for number in range(n_classes)),
        bands=("red", "green", "blue"),
        parts=of_part.astype(np.int8),
        names=tuple(f"{number}.png" for number in range(n)),
        fingerprint="0" * 64,
    )
