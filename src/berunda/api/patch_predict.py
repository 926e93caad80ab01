"""Applying a model for whole images to files of images: one line of a table for each."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from berunda.api.outcome import PatchOutcome
from berunda.data.listing import PHOTO_SUFFIXES, RASTER_SUFFIXES, files_of
from berunda.data.photo import Decoded, Undecodable, decode_image
from berunda.data.resampling import resample_images
from berunda.data.scaling import Scaling, radiometry_warnings, scale_pixels
from berunda.errors import DataError
from berunda.files import write_atomic
from berunda.geo.raster import describe
from berunda.geo.resolve import is_remote
from berunda.mapping.lock import output_lock
from berunda.mapping.patches import PatchAnswers, ScenePredictor
from berunda.progress import Progress

__all__ = ["TABLE_NAME", "PatchFile", "are_scenes", "list_patches", "predict_patches", "with_bands"]

TABLE_NAME = "predictions.csv"
_CHUNK = 256
_HIGH_SHARE = 0.25
_PERCENTILES = (1.0, 99.0)
_MAX_SAMPLED = 1024
_PER_IMAGE = 1024


@dataclass(frozen=True)
class PatchFile:
    """An image: its name in the table, and where it lies."""

    name: str
    path: Path


@dataclass(frozen=True)
class _Image:
    """An image as the net sees it, with what the warnings rest on.

    Attributes:
        pixels: (B, px, px) scaled.
        side: rows and columns in the file.
        sample: (B, k) some raw valid values.
    """

    pixels: np.ndarray
    side: tuple[int, int]
    sample: np.ndarray


def list_patches(inputs: Sequence[str | Path]) -> list[PatchFile]:
    """Return the images among `inputs`: files, and all images in folders, at any depth.

    Raises:
        DataError: an input is missing, or there is no image in it.
    """
    found: list[PatchFile] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            inside = files_of(path, PHOTO_SUFFIXES + RASTER_SUFFIXES)
            found += [PatchFile(name, file.path) for name, file in inside.items()]
            if not inside:
                raise DataError(
                    f"{path}: no image found, expected files that end in "
                    f"{', '.join(PHOTO_SUFFIXES + RASTER_SUFFIXES)}; choose the folder that holds them"
                )
        elif path.is_file():
            found.append(PatchFile(path.name, path))
        else:
            raise DataError(f"{path}: not found; expected an image, a scene, or a folder of them")
    names = Counter(patch.name for patch in found)
    return [patch if names[patch.name] == 1 else PatchFile(str(patch.path), patch.path) for patch in found]


def are_scenes(inputs: Sequence[str | Path], side_px: int) -> bool:
    """Say whether `inputs` are scenes to map rather than images to classify.

    A georeferenced raster of at least four times the ground of an image the model was trained on is a scene.

    Args:
        inputs: files, folders, and addresses (which are scenes).
        side_px: side of the images the model was trained on.

    Raises:
        DataError: an input is missing, or there are scenes and images among them.
    """
    if any(is_remote(Path(text)) for text in inputs):
        return True
    patches = list_patches(inputs)
    scenes = [patch for patch in patches if _is_scene(patch.path, side_px)]
    if scenes and len(scenes) < len(patches):
        other = next(patch for patch in patches if patch not in scenes)
        raise DataError(
            f"{scenes[0].path} is a scene and {other.path} an image (the model was trained on images of {side_px} px): "
            "expected one kind; predict them one after the other"
        )
    return bool(scenes)


def _is_scene(path: Path, side_px: int) -> bool:
    if path.suffix.lower() not in RASTER_SUFFIXES:
        return False
    grid = describe(path).grid
    return grid.is_georeferenced and grid.shape.n_pixels >= 4 * side_px**2


def predict_patches(
    predictor: ScenePredictor,
    patches: Sequence[PatchFile],
    out: Path,
    *,
    bands: Sequence[str] | None = None,
    workers: int = 1,
    skip_broken: bool = False,
    progress: Progress,
) -> PatchOutcome:
    """Classify images and write `predictions.csv` in `out`, whole or not at all.

    Images are read by `workers` threads, piece by piece; the table does not depend on how many.

    Args:
        predictor: the model.
        patches: the images.
        out: folder of the table.
        bands: names of the images' bands, in order, where the files do not carry them.
        workers: threads that read.
        skip_broken: leave images out that cannot be read, and count them.
        progress: told of every image.

    Raises:
        DataError: an image cannot be read, or lacks a band of the model.
        OutputError: another run writes to `out`, or the table cannot be written.
    """
    tally = _Tally(predictor)
    lines = [_line(_header(predictor))]
    with output_lock(out), ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        progress.start("classifying", len(patches))
        for start in range(0, len(patches), _CHUNK):
            piece = patches[start : start + _CHUNK]
            read = list(pool.map(lambda patch: _read(predictor, patch, bands, skip_broken), piece))
            whole = [(patch, image) for patch, image in zip(piece, read, strict=True) if isinstance(image, _Image)]
            tally.broken += [patch.name for patch, image in zip(piece, read, strict=True) if image is None]
            if whole:
                answers = predictor.predict(np.stack([image.pixels for _, image in whole]))
                rows = list(_rows(predictor, [patch.name for patch, _ in whole], answers))
                lines += [_line(row) for row in rows]
                tally.add([image for _, image in whole], rows)
            progress.advance(len(piece))
        progress.finish()
        if not tally.n_images:
            raise DataError(f"none of {len(patches)} images can be read; the first is {patches[0].path}")
        write_atomic(out / TABLE_NAME, [line.encode() for line in lines])
    return tally.outcome(out / TABLE_NAME)


def _read(predictor: ScenePredictor, patch: PatchFile, bands: Sequence[str] | None, skip_broken: bool) -> _Image | None:
    """Return an image as the net sees it, None where it cannot be read and that was asked to be let be."""
    try:
        decoded = decode_image(patch.path.read_bytes(), patch.name, patch.path)
    except (Undecodable, OSError) as error:
        if skip_broken:
            return None
        raise DataError(
            f"{patch.path}: image cannot be read: {error}; expected a whole image, get it again or use --skip-broken"
        ) from error
    pixels = with_bands(predictor.manifest.band_names, patch, decoded, bands)
    finite = np.isfinite(pixels).all(axis=0) if pixels.dtype.kind == "f" else np.ones(pixels.shape[1:], bool)
    valid = finite & (pixels != 0).any(axis=0) if decoded.is_raster else finite
    scaled = scale_pixels(pixels, valid, *predictor.scaling)
    shown = resample_images(torch.from_numpy(scaled)[None], predictor.manifest.net.crop_px)[0].numpy()
    sample = pixels[:, valid]
    return _Image(shown, (pixels.shape[1], pixels.shape[2]), sample[:, :: max(1, sample.shape[1] // _PER_IMAGE)])


def with_bands(wanted: Sequence[str], patch: PatchFile, decoded: Decoded, bands: Sequence[str] | None) -> np.ndarray:
    """Return an image's pixels with the model's bands in the model's order.

    Args:
        wanted: names of the model's bands.
        patch: the image, for messages.
        decoded: what its file holds.
        bands: names of its bands, in order, where the file does not carry them.

    Raises:
        DataError: the names do not fit, or a band is missing.
    """
    names = tuple(bands) if bands is not None else decoded.bands
    if len(names) != len(decoded.pixels):
        raise DataError(f"{patch.path}: {len(decoded.pixels)} bands found, --bands names {len(names)}; name all")
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{patch.path}: band {', '.join(missing)} not found; it has {', '.join(names)}, the model needs "
            f"{', '.join(wanted)}: name the images' bands in order with --bands"
        )
    return decoded.pixels[[names.index(name) for name in wanted]]


def _header(predictor: ScenePredictor) -> list[str]:
    classes = predictor.manifest.class_names
    return ["file", "class", "confidence", "ood_distance", "energy", "flag", *(f"p_{name}" for name in classes)]


def _rows(predictor: ScenePredictor, names: Sequence[str], answers: PatchAnswers) -> Iterator[list[str]]:
    """Yield the line of each image; of several labels those from their thresholds on, and how sure all are."""
    classes, ood = predictor.manifest.class_names, predictor.manifest.ood
    threshold = None if ood is None else ood.threshold
    named, sure = predictor.named(answers), predictor.confidence(answers)
    for i, name in enumerate(names):
        share = answers.probabilities[i]
        shown = classes[int(share.argmax())]
        if predictor.manifest.label_names:
            shown = ";".join(label for label, is_there in zip(classes, named[i], strict=True) if is_there)
        flag = "" if threshold is None else str(int(answers.distance[i] > threshold))
        distance = "" if np.isnan(answers.distance[i]) else f"{answers.distance[i]:.6g}"
        yield [name, shown, f"{sure[i]:.6f}", distance, f"{answers.energy[i]:.6g}", flag, *(f"{p:.6f}" for p in share)]


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


class _Tally:
    """What the outcome tells of all images."""

    def __init__(self, predictor: ScenePredictor) -> None:
        self._predictor = predictor
        self._classes: Counter[str] = Counter()
        self._other_sizes: Counter[tuple[int, int]] = Counter()
        self._samples: list[np.ndarray] = []
        self._n_flagged = 0
        self.n_images = 0
        self.broken: list[str] = []

    def add(self, images: Sequence[_Image], rows: Sequence[Sequence[str]]) -> None:
        """Count some images with their lines of the table."""
        side = self._predictor.manifest.window_px
        self.n_images += len(images)
        several = self._predictor.manifest.task == "multilabel"
        self._classes.update(name for row in rows for name in (row[1].split(";") if several else [row[1]]))
        self._n_flagged += sum(row[5] == "1" for row in rows)
        self._other_sizes.update(image.side for image in images if image.side != (side, side))
        room = _MAX_SAMPLED - len(self._samples)
        self._samples += [image.sample for image in images[: max(0, room)]]

    def outcome(self, table: Path) -> PatchOutcome:
        """Return what was found."""
        ood = self._predictor.manifest.ood
        return PatchOutcome(
            table=table,
            n_images=self.n_images,
            class_counts=dict(sorted(self._classes.items())),
            n_flagged=None if ood is None or ood.threshold is None else self._n_flagged,
            warnings=tuple(self._warnings()),
        )

    def _warnings(self) -> Iterator[str]:
        manifest = self._predictor.manifest
        if self.broken:
            shown = ", ".join(self.broken[:3]) + (", ..." if len(self.broken) > 3 else "")
            yield f"{len(self.broken)} images cannot be read and are left out: {shown}"
        if self._other_sizes:
            rows, cols = self._other_sizes.most_common(1)[0][0]
            yield (
                f"{self._other_sizes.total()} of {self.n_images} images are not of {manifest.window_px} px, as the "
                f"training's were, but for example {cols} x {rows} px; they were resampled: see to it that they show "
                "as much ground"
            )
        yield from self._radiometry()
        if manifest.ood is None or manifest.ood.threshold is None:
            yield "no out-of-distribution threshold: the model was trained without validation labels to set one"
        elif self._n_flagged > _HIGH_SHARE * self.n_images:
            yield (
                f"{self._n_flagged / self.n_images:.0%} of the images are unlike the labelled training images (about "
                "5% expected): do not trust the classes of those flagged"
            )
        if manifest.calibration.warning:
            yield manifest.calibration.warning

    def _radiometry(self) -> list[str]:
        values = np.concatenate(self._samples, axis=1)
        if not values.shape[1]:
            return ["no image has a valid pixel"]
        low, high = np.percentile(values, _PERCENTILES, axis=1)
        found = radiometry_warnings(
            self._predictor.manifest.band_names, self._predictor.scaling, Scaling(low, np.maximum(high, low + 1e-9))
        )
        return [
            text.replace("the training scene", "the training images").replace("the map", "the classes")
            for text in found
        ]
