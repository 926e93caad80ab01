"""How alike generated images are to real ones, and the densities that a model gives to two sets of images.

Source: Heusel et al. 2017 (Frechet distance of features); Binkowski et al. 2018 (kernel distance, KID);
Castillo-Navarro 2022, section 4.2 (histograms of log p(x)).
Deviations: both distances are of the features of a named encoder, and carry its name; they are FID and KID only where
that encoder is Inception with its published weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from berunda.data.order import Randomness
from berunda.errors import DataError

__all__ = [
    "EPSILON",
    "N_BINS",
    "SampleDistances",
    "described",
    "frechet_distance",
    "histogram_divergence",
    "kernel_distance",
    "sample_distances",
]

FloatArray = npt.NDArray[np.float64]
N_BINS, EPSILON = 64, 1e-6
_N_SUBSETS, _LARGEST_SUBSET = 100, 1000
_CHUNK, _SIDE_PX, _DEPTH = 64, 96, 5


@dataclass(frozen=True)
class SampleDistances:
    """Distances between generated and real images in the features of one encoder.

    Attributes:
        encoder: whose features.
        frechet: 0 for features of equal mean and covariance.
        kernel: mean of the squared maximum mean discrepancy over subsets; about 0 for equal distributions.
        kernel_deviation: its standard deviation over the subsets.
        n_generated: generated images.
        n_real: real images; the Frechet distance of fewer images is larger.
        n_subset: images of a subset.
    """

    encoder: str
    frechet: float
    kernel: float
    kernel_deviation: float
    n_generated: int
    n_real: int
    n_subset: int

    def as_metrics(self) -> dict[str, float | int]:
        """Return the figures by names that hold the encoder's."""
        return {
            f"frechet_{self.encoder}": self.frechet,
            f"kernel_{self.encoder}": self.kernel,
            f"kernel_{self.encoder}_deviation": self.kernel_deviation,
            "n_generated": self.n_generated,
            "n_real": self.n_real,
            "n_subset": self.n_subset,
        }


def frechet_distance(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of features (n, D) and (m, D), n and m at least 2.

    Raises:
        DataError: the shapes do not fit, there are too few, or a feature is not finite.
    """
    a, b = _features(first, second)
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(max(0.0, mean + np.trace(cov_a) + np.trace(cov_b) - 2 * shared))


def kernel_distance(
    first: npt.ArrayLike, second: npt.ArrayLike, seed: int = 0, largest: int = _LARGEST_SUBSET
) -> tuple[float, float, int]:
    """Return the mean and standard deviation of the unbiased squared discrepancy over 100 subsets, and their size.

    The kernel is (x.y / D + 1)^3; a subset holds `largest` features of each side, or as many as the smaller side has:
    then there is one subset of it, and the deviation says nothing of it.

    Args, Raises: as of `frechet_distance`; `seed` draws the subsets.
    """
    a, b = _features(first, second)
    size = min(largest, len(a), len(b))
    draw = Randomness(seed).numpy("kernel distance")
    found = [
        _discrepancy(a[draw.choice(len(a), size, replace=False)], b[draw.choice(len(b), size, replace=False)])
        for _ in range(_N_SUBSETS)
    ]
    return float(np.mean(found)), float(np.std(found)), size


def histogram_divergence(scores: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return KL(P || Q) of two histograms: 64 bins over the joint range, 1e-6 added to the share of each.

    Args:
        scores: (n,) log p(x), up to a constant, of a set of images.
        reference: (m,) the same of the training images.

    Raises:
        DataError: one is empty, or not finite.
    """
    p, q = (np.asarray(x, np.float64).reshape(-1) for x in (scores, reference))
    if not len(p) or not len(q) or not np.isfinite(np.concatenate([p, q])).all():
        raise DataError(
            f"densities of {len(p)} and {len(q)} images found, expected some of each, all finite; score valid images"
        )
    low, high = min(p.min(), q.min()), max(p.max(), q.max())
    span = (low, high if high > low else low + 1.0)
    shares = [np.histogram(x, N_BINS, span)[0] / len(x) + EPSILON for x in (p, q)]
    first, second = (share / share.sum() for share in shares)
    return float((first * np.log(first / second)).sum())


def described(pixels: npt.NDArray[np.float32], encoder: str) -> npt.NDArray[np.float32]:
    """Return what an encoder with its pretrained weights says of images, the means of its coarsest features (n, D).

    Args:
        pixels: (n, B, H, W) scaled, -1 to 1 between a band's low and high; smaller images are enlarged to 96 px.
        encoder: "efficientnet_lite0", or a name that timm knows and whose weights can be fetched.

    Raises:
        ConfigError, FetchError: there is no such encoder, or its weights are not to be had.
    """
    import torch

    from berunda.data.resampling import resample_images
    from berunda.models.encoders import build_encoder

    net = build_encoder(encoder, n_bands=pixels.shape[1], depth=_DEPTH, pretrained=True).eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(pixels), _CHUNK):
            part = torch.from_numpy(np.ascontiguousarray(pixels[start : start + _CHUNK]))
            shown = resample_images(part, max(_SIDE_PX, part.shape[2], part.shape[3]))
            found.append(net(shown)[-1].mean((2, 3)).numpy())
    return np.concatenate(found)


def sample_distances(
    generated: npt.NDArray[np.float32],
    real: npt.NDArray[np.float32],
    encoder: str,
    seed: int = 0,
    largest: int = _LARGEST_SUBSET,
) -> SampleDistances:
    """Return both distances between images (n, B, H, W) and (m, B, H, W), scaled alike; subsets hold `largest`."""
    first, second = described(generated, encoder), described(real, encoder)
    kernel, deviation, size = kernel_distance(first, second, seed, largest)
    return SampleDistances(encoder, frechet_distance(first, second), kernel, deviation, len(first), len(second), size)


def _discrepancy(a: FloatArray, b: FloatArray) -> float:
    n, width = len(a), a.shape[1]

    def kernel(x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray((x @ y.T / width + 1) ** 3)

    within = sum(kernel(x, x).sum() - np.trace(kernel(x, x)) for x in (a, b))
    return float(within / (n * (n - 1)) - 2 * kernel(a, b).mean())


def _features(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError(f"features of shapes {a.shape} and {b.shape} found, expected (n, D) and (m, D), n and m from 2")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("features that are not finite found; leave out images that are all nodata")
    return a, b
