"""How alike generated images are to real ones, and the densities that a model gives to two sets of images.

Source: Heusel et al. 2017 (Frechet distance of features); Binkowski et al. 2018 (kernel distance, KID);
Castillo-Navarro 2022, section 4.2 (histograms of log p(x)).
Deviations: both distances are of the features of a named encoder, and carry its name; they are FID and KID only where
that encoder is Inception. Its weights are those that timm carries (TensorFlow's, of 2016), not those of the original
code (2015), and images are scaled by their bands' low and high: compare figures of one table, not with published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from berunda.data.order import Randomness
from berunda.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "EPSILON",
    "INCEPTION",
    "N_BINS",
    "Describe",
    "SampleDistances",
    "density_agreement",
    "density_histograms",
    "described",
    "described_by",
    "describer",
    "feature_distances",
    "frechet_distance",
    "histogram_divergence",
    "kernel_distance",
    "sample_distances",
]

FloatArray = npt.NDArray[np.float64]
Describe = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""From images (n, B, H, W), scaled, to features (n, D)."""
INCEPTION = "inception"
N_BINS, EPSILON = 64, 1e-6
_N_SUBSETS, _LARGEST_SUBSET = 100, 1000
_CHUNK, _SIDE_PX, _DEPTH = 64, 96, 5
_INCEPTION_PX = 299


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
        n_subset: images of a subset, at most half of the smaller side.
    """

    encoder: str
    frechet: float
    kernel: float
    kernel_deviation: float
    n_generated: int
    n_real: int
    n_subset: int

    def as_metrics(self) -> dict[str, float | int]:
        """Return the figures by names that hold the encoder's; of Inception they are `fid` and `kid`."""
        names = ("fid", "kid") if self.encoder == INCEPTION else (f"frechet_{self.encoder}", f"kernel_{self.encoder}")
        return {
            names[0]: self.frechet,
            names[1]: self.kernel,
            f"{names[1]}_deviation": self.kernel_deviation,
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


def kernel_distance(first: npt.ArrayLike, second: npt.ArrayLike, seed: int = 0) -> tuple[float, float, int]:
    """Return the mean and standard deviation of the unbiased squared discrepancy over 100 subsets, and their size.

    The kernel is (x.y / D + 1)^3; a subset holds 1000 features of each side, or half of what the smaller side has (two
    at least), so that subsets differ and their deviation says something.

    Args, Raises: as of `frechet_distance`; `seed` draws the subsets.
    """
    a, b = _features(first, second)
    size = max(2, min(_LARGEST_SUBSET, min(len(a), len(b)) // 2))
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
    _, found = density_histograms({"scores": scores, "reference": reference})
    first, second = ((share + EPSILON) / (share + EPSILON).sum() for share in found.values())
    return float((first * np.log(first / second)).sum())


def density_histograms(densities: Mapping[str, npt.ArrayLike]) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the edges of 64 bins over the joint range of all sets, (65,), and the shares of each set in them, (64,).

    Args:
        densities: log p(x), up to one constant, of the images of each set, by name.

    Raises:
        DataError: a set is empty, or not finite.
    """
    given = {name: _densities(values) for name, values in densities.items()}
    edges = _edges(*given.values())
    return edges, {name: np.histogram(values, edges)[0] / len(values) for name, values in given.items()}


def density_agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation of what two models say of the same images; 1 where they rank them alike.

    Unlike a divergence it does not depend on the constants up to which densities are known, nor on their scale.

    Args:
        first: (n,) log p(x), up to a constant, of images under one model; n at least 2.
        second: (n,) of the same images under the other.

    Returns:
        -1 to 1; 0 where a model says the same of all images.

    Raises:
        DataError: there are not as many of both, fewer than two, or one is not finite.
    """
    from scipy.stats import rankdata

    a, b = _densities(first), _densities(second)
    if len(a) != len(b) or len(a) < 2:
        raise DataError(f"densities of {len(a)} and {len(b)} images found, expected the same images, two or more")
    ranks = [rankdata(x) - (len(x) + 1) / 2 for x in (a, b)]
    scale = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float((ranks[0] * ranks[1]).sum() / scale) if scale else 0.0


def describer(encoder: str, n_bands: int) -> Describe:
    """Return what gives the features of images: the means of an encoder's coarsest features, with pretrained weights.

    Args:
        encoder: "inception", "efficientnet_lite0", or a name that timm knows and whose weights can be fetched.
        n_bands: of the images; Inception takes three, as red, green and blue.

    Raises:
        ConfigError, FetchError: there is no such encoder, it cannot take the bands, or its weights are not to be had.
    """
    from berunda.models.encoders import build_encoder, build_inception

    if encoder != INCEPTION:
        return partial(described_by, build_encoder(encoder, n_bands=n_bands, depth=_DEPTH, pretrained=True))
    if n_bands != 3:
        raise ConfigError(
            f"features of 'inception': images of {n_bands} bands found, expected red, green and blue; take other "
            "features, such as 'efficientnet_lite0'"
        )
    return partial(_described_by_inception, build_inception())


def described(pixels: npt.NDArray[np.float32], encoder: str) -> npt.NDArray[np.float32]:
    """Return what an encoder with its pretrained weights says of images, (n, D).

    Args:
        pixels: (n, B, H, W) scaled, -1 to 1 between a band's low and high; smaller images are enlarged to 96 px (for
            Inception all are brought to 299 px).
        encoder: as of `describer`.

    Raises:
        ConfigError, FetchError: as `describer`.
    """
    return describer(encoder, pixels.shape[1])(pixels)


def described_by(net: nn.Module, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what `described` does, of an encoder at hand: one that gives a pyramid, on any device."""
    from berunda.data.resampling import resample_images

    def means(part: Tensor) -> Tensor:
        found: Tensor = net(resample_images(part, max(_SIDE_PX, part.shape[2], part.shape[3])))[-1].mean((2, 3))
        return found

    return _in_chunks(net, means, pixels)


def _described_by_inception(net: nn.Module, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    from berunda.data.resampling import resample_images

    return _in_chunks(net, lambda part: net(resample_images(part.clamp(-1, 1), _INCEPTION_PX)), pixels)


def _in_chunks(
    net: nn.Module, describe: Callable[[Tensor], Tensor], pixels: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    import torch

    device = next((value.device for value in net.eval().parameters()), torch.device("cpu"))
    found = []
    with torch.inference_mode():
        for start in range(0, len(pixels), _CHUNK):
            part = torch.from_numpy(np.ascontiguousarray(pixels[start : start + _CHUNK])).to(device)
            found.append(describe(part).cpu().numpy())
    return np.concatenate(found)


def sample_distances(
    generated: npt.NDArray[np.float32], real: npt.NDArray[np.float32], encoder: str, seed: int = 0
) -> SampleDistances:
    """Return both distances between images (n, B, H, W) and (m, B, H, W), scaled alike."""
    describe = describer(encoder, generated.shape[1])
    return feature_distances(describe(generated), describe(real), encoder, seed)


def feature_distances(generated: npt.ArrayLike, real: npt.ArrayLike, encoder: str, seed: int = 0) -> SampleDistances:
    """Return both distances between features (n, D) and (m, D) of an encoder.

    Raises:
        DataError: there are fewer than two images on a side, or a feature is not finite.
    """
    first, second = _features(generated, real)
    kernel, deviation, size = kernel_distance(first, second, seed)
    return SampleDistances(encoder, frechet_distance(first, second), kernel, deviation, len(first), len(second), size)


def _discrepancy(a: FloatArray, b: FloatArray) -> float:
    n, width = len(a), a.shape[1]

    def kernel(x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray((x @ y.T / width + 1) ** 3)

    within = sum(own.sum() - np.trace(own) for own in (kernel(a, a), kernel(b, b)))
    return float(within / (n * (n - 1)) - 2 * kernel(a, b).mean())


def _features(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError(f"features of shapes {a.shape} and {b.shape} found, expected (n, D) and (m, D), n and m from 2")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("features that are not finite found; leave out images that are all nodata")
    return a, b


def _densities(values: npt.ArrayLike) -> FloatArray:
    found = np.asarray(values, np.float64).reshape(-1)
    if not len(found) or not np.isfinite(found).all():
        raise DataError(f"densities of {len(found)} images found, expected some, all finite; score valid images")
    return found


def _edges(*given: FloatArray) -> FloatArray:
    low, high = min(x.min() for x in given), max(x.max() for x in given)
    return np.linspace(low, high if high > low else low + 1.0, N_BINS + 1)
