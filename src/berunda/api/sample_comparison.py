"""How far generated images are from real ones in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from berunda.api.patch_predict import PatchFile, list_patches, with_bands
from berunda.assess.generation import INCEPTION, Describe, SampleDistances, describer, feature_distances
from berunda.data.photo import Undecodable, decode_image
from berunda.data.resampling import resample_images
from berunda.data.scaling import Scaling, scale_pixels
from berunda.errors import DataError
from berunda.files import write_atomic
from berunda.mapping.manifest import Manifest
from berunda.progress import Progress

__all__ = ["COMPARISON_NAME", "Comparison", "distance_lines", "distance_warnings"]

COMPARISON_NAME = "comparison.json"
_CHUNK = 256
_FEW = 2000
"""Of fewer images than features, 320 to 2048 of them, a covariance is not of full rank."""


@dataclass(frozen=True)
class Comparison:
    """What generated images are compared with; made before they are drawn, so that what is wrong is told at once.

    Attributes:
        manifest: of the model that generates: bands, scaling, side of the images.
        folder: of the real images.
        images: those in it.
        features: name of the encoder.
        describe: that encoder.
    """

    manifest: Manifest
    folder: Path
    images: Sequence[PatchFile]
    features: str
    describe: Describe

    @classmethod
    def of(cls, manifest: Manifest, folder: Path | str, features: str = INCEPTION) -> Comparison:
        """List the images and load the encoder.

        Raises:
            DataError: there are not two images in the folder.
            ConfigError, FetchError: the encoder cannot be had, see `berunda.assess.generation.describer`.
        """
        images = list_patches([folder])
        if len(images) < 2:
            raise DataError(
                f"--compare {folder}: a single image found, expected two or more; choose a folder of images"
            )
        return cls(manifest, Path(folder), images, features, describer(features, len(manifest.bands)))

    def distances(self, generated: np.ndarray, seed: int, progress: Progress) -> SampleDistances:
        """Return the distances of generated images (n, B, side, side), in the units of the training's images.

        The real ones are brought to the same side; they are read piece by piece.

        Raises:
            DataError: a real image cannot be read, or lacks a band of the model.
        """
        low, high = self._scaling()
        scaled = 2 * (generated - low[:, None, None]) / (high - low)[:, None, None] - 1
        drawn = self.describe(scaled.astype(np.float32))
        real: list[np.ndarray] = []
        progress.start("describing real images", len(self.images))
        for pixels in self._pieces(generated.shape[-1]):
            real.append(self.describe(pixels))
            progress.advance(len(pixels))
        progress.finish()
        return feature_distances(drawn, np.concatenate(real), self.features, seed)

    def write(self, path: Path, found: SampleDistances) -> None:
        """Write the figures and what they are of as JSON."""
        told = {"metrics": found.as_metrics(), "compared_with": str(self.folder), **asdict(found)}
        write_atomic(path, [json.dumps(told, indent=1).encode() + b"\n"])

    def _pieces(self, side_px: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self.images), _CHUNK):
            yield np.stack([self._read(image, side_px) for image in self.images[start : start + _CHUNK]])

    def _read(self, image: PatchFile, side_px: int) -> np.ndarray:
        try:
            decoded = decode_image(image.path.read_bytes(), image.name, image.path)
        except (Undecodable, OSError) as error:
            raise DataError(
                f"{image.path}: image cannot be read: {error}; expected a whole image, get it again or take it away"
            ) from error
        pixels = with_bands(self.manifest.band_names, image, decoded, None)
        valid = np.isfinite(pixels).all(axis=0)
        scaled = torch.from_numpy(scale_pixels(pixels, valid, *self._scaling()))
        return resample_images(scaled[None], side_px)[0].numpy()

    def _scaling(self) -> Scaling:
        bands = self.manifest.bands
        return Scaling(np.array([b.low for b in bands]), np.array([b.high for b in bands]))


def distance_lines(found: SampleDistances) -> list[str]:
    """Return the distances in words, with the number of images."""
    names = ("FID", "KID")
    if found.encoder != INCEPTION:
        names = (f"Frechet distance of {found.encoder}", f"kernel distance of {found.encoder}")
    return [
        f"{names[0]} {found.frechet:.4g}, {names[1]} {found.kernel:.4g} +- {found.kernel_deviation:.2g}",
        f"  {found.n_generated} generated and {found.n_real} real images, 100 subsets of {found.n_subset}",
    ]


def distance_warnings(found: SampleDistances) -> tuple[str, ...]:
    """Say so where there are too few images for a Frechet distance that stands by itself."""
    n = min(found.n_generated, found.n_real)
    if n >= _FEW:
        return ()
    return (
        f"the first distance rests on {n} images, expected {_FEW} or more: of fewer it is too large; compare it with "
        "others of as many images only, or draw more (-n)",
    )
