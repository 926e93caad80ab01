"""Applying a model for maps to photographs and other images without a place on Earth: a mask for each."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from berunda.api.outcome import MaskOutcome
from berunda.api.patch_predict import PatchFile, list_patches, with_bands
from berunda.assess.colors import rgb_of
from berunda.data.listing import PHOTO_SUFFIXES
from berunda.data.masks.folder import SCHEMA_NAME
from berunda.data.photo import Undecodable, decode_image
from berunda.errors import DataError
from berunda.files import write_atomic
from berunda.geo.raster import describe
from berunda.geo.resolve import is_remote
from berunda.mapping.arrays import predict_array
from berunda.mapping.lock import output_lock
from berunda.mapping.manifest import Manifest
from berunda.mapping.predictor import Predictor
from berunda.progress import Progress

__all__ = ["are_images", "predict_masks"]


def are_images(inputs: Sequence[str | Path], n_bands: int) -> bool:
    """Say whether `inputs` are images to mask rather than scenes to map.

    Photographs are, and several rasters without a place on Earth that have all the model's bands each.

    Args:
        inputs: files, folders, and addresses (which are scenes).
        n_bands: bands of the model.

    Raises:
        DataError: an input is missing, or there are scenes and images among them.
    """
    if any(is_remote(Path(text)) for text in inputs):
        return False
    files = list_patches(inputs)
    photos = [file for file in files if file.path.suffix.lower() in PHOTO_SUFFIXES]
    rasters = [file for file in files if file not in photos]
    placed = [file for file in rasters if describe(file.path).grid.is_georeferenced]
    if photos and placed:
        raise DataError(
            f"{placed[0].path} is a scene and {photos[0].path} an image: expected one kind; predict them one after the "
            "other"
        )
    if photos:
        return True
    return len(rasters) > 1 and not placed and all(len(describe(f.path).data_indexes) >= n_bands for f in rasters)


def predict_masks(
    predictor: Predictor,
    images: Sequence[PatchFile],
    out: Path,
    *,
    bands: Sequence[str] | None = None,
    skip_broken: bool = False,
    progress: Progress,
) -> MaskOutcome:
    """Write a mask for each image in `out`, and `classes.csv`, which says what their values mean.

    A mask is a PNG with palette of the image's size and name: 1..C, 0 where there is no data. So the folder can be
    read as masks again.

    Args:
        predictor: the model.
        images: the images.
        out: folder of the masks.
        bands: names of the images' bands, in order, where the files do not carry them.
        skip_broken: leave images out that cannot be read, and count them.
        progress: told of every image.

    Raises:
        DataError: an image cannot be read, or lacks a band of the model.
        OutputError: another run writes to `out`, or a mask cannot be written.
    """
    manifest, counts, broken = predictor.manifest, Counter[str](), []
    stems = Counter(_stem(image.name) for image in images)
    with output_lock(out):
        progress.start("masks", len(images))
        for image in images:
            try:
                classes = _classes(predictor, image, bands)
            except Undecodable as error:
                if not skip_broken:
                    raise DataError(
                        f"{image.path}: image cannot be read: {error}; expected a whole image, get it again or use "
                        "--skip-broken"
                    ) from error
                broken.append(image.name)
                continue
            finally:
                progress.advance()
            name = _stem(image.name) if stems[_stem(image.name)] == 1 else image.name.lstrip("/")
            path = out / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, [_png(classes, manifest)])
            found = np.bincount(classes.ravel(), minlength=len(manifest.classes) + 1)[1:]
            counts.update(dict(zip(manifest.class_names, found.tolist(), strict=True)))
        progress.finish()
        if len(broken) == len(images):
            raise DataError(f"none of {len(images)} images can be read; the first is {images[0].path}")
        write_atomic(out / SCHEMA_NAME, [_schema(manifest).encode()])
    warnings = [f"{len(broken)} images cannot be read and are left out: {', '.join(broken[:3])}"] if broken else []
    if manifest.calibration.warning:
        warnings.append(manifest.calibration.warning)
    return MaskOutcome(out, len(images) - len(broken), dict(counts), tuple(warnings))


def _classes(predictor: Predictor, image: PatchFile, bands: Sequence[str] | None) -> np.ndarray:
    try:
        decoded = decode_image(image.path.read_bytes(), image.name, image.path)
    except OSError as error:
        raise Undecodable(str(error)) from error
    pixels = with_bands(predictor.manifest.band_names, image, decoded, bands)
    valid = np.isfinite(pixels).all(axis=0) if pixels.dtype.kind == "f" else np.ones(pixels.shape[1:], bool)
    if decoded.is_raster:
        valid &= (pixels != 0).any(axis=0)
    return predict_array(predictor, pixels, valid).classes


def _stem(name: str) -> str:
    path = PurePosixPath(name.lstrip("/"))
    return (path.parent / path.stem).as_posix()


def _png(classes: np.ndarray, manifest: Manifest) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    picture = Image.fromarray(classes, "P")
    picture.putpalette([0, 0, 0, *(part for entry in manifest.classes for part in rgb_of(entry.color))])
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def _schema(manifest: Manifest) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("value", "name", "color"), (0, "", "")])
    writer.writerows((entry.id, entry.name, entry.color) for entry in manifest.classes)
    return text.getvalue()
