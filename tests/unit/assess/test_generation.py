"""Distances of samples and divergences of densities, against closed forms and other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import entropy

from berunda.assess.generation import (
    described,
    frechet_distance,
    histogram_divergence,
    kernel_distance,
    sample_distances,
)
from berunda.errors import DataError

RNG = np.random.default_rng(0)
MIXING = RNG.normal(size=(6, 6))


def features(n: int, shift: float = 0.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)) @ MIXING + shift


def test_frechet_distance_is_that_of_scipys_root() -> None:
    a, b = features(80), 1.3 * features(60, 0.5, seed=2)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_a_shift_is_its_square() -> None:
    a = features(50)
    assert frechet_distance(a, a + 2.0) == pytest.approx(6 * 4.0)
    assert frechet_distance(a[:3], a[:3]) == pytest.approx(0, abs=1e-6)  # fewer images than features


def test_kernel_distance_agrees_with_sums_over_pairs() -> None:
    a, b = features(7), features(7, 1.0, seed=2)

    def kernel(x, y):
        return (x @ y / 6 + 1) ** 3

    own = [sum(kernel(x[i], x[j]) for i in range(7) for j in range(7) if i != j) / 42 for x in (a, b)]
    expected = sum(own) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    mean, deviation, size = kernel_distance(a, b)
    assert (mean, size) == (pytest.approx(expected), 7)
    assert deviation == pytest.approx(0, abs=1e-6)  # the only subset of 7 of 7


def test_kernel_distance_of_equal_distributions_is_about_zero() -> None:
    mean, deviation, size = kernel_distance(features(400), features(300, seed=2))
    far, _, _ = kernel_distance(features(400), features(300, 3.0, seed=2))
    assert size == 300
    assert deviation > 0
    assert abs(mean) < 0.05 * far
    assert kernel_distance(features(40), features(30), 1) == kernel_distance(features(40), features(30), 1)


def test_smaller_subsets_differ_about_the_same_mean() -> None:
    a, b = features(60), features(60, 1.0, seed=2)
    whole, none, _ = kernel_distance(a, b)
    mean, deviation, size = kernel_distance(a, b, largest=15)
    assert (none, size) == (pytest.approx(0, abs=1e-6 * whole), 15)
    assert deviation > 0.05 * whole
    assert mean == pytest.approx(whole, abs=4 * deviation / 10)  # of 100 subsets


def test_divergence_of_densities_is_scipys_on_the_histograms() -> None:
    p, q = RNG.normal(size=500), RNG.normal(1, 2, size=400)
    span = (min(p.min(), q.min()), max(p.max(), q.max()))
    first, second = (np.histogram(x, 64, span)[0] / len(x) + 1e-6 for x in (p, q))
    assert histogram_divergence(p, q) == pytest.approx(entropy(first, second))
    assert histogram_divergence(p, p) == 0
    assert histogram_divergence(p + 100, q) > 10
    assert histogram_divergence([1.0, 1.0], [1.0]) == 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"shapes \(1, 6\) and \(5, 6\) found"):
        frechet_distance(features(1), features(5))
    with pytest.raises(DataError, match="not finite"):
        kernel_distance(np.full((3, 2), np.nan), np.zeros((3, 2)))
    with pytest.raises(DataError, match="densities of 0 and 2 images"):
        histogram_divergence([], [1.0, 2.0])
    with pytest.raises(DataError, match="all finite"):
        histogram_divergence([np.inf], [1.0, 2.0])


def test_real_images_are_nearer_to_real_images_than_noise_is() -> None:
    def smooth(seed: int) -> np.ndarray:
        coarse = np.random.default_rng(seed).uniform(-1, 1, (12, 3, 4, 4))
        return coarse.repeat(8, 2).repeat(8, 3).astype(np.float32)

    noise = np.random.default_rng(5).uniform(-1, 1, (12, 3, 32, 32)).astype(np.float32)
    near = sample_distances(smooth(1), smooth(2), "efficientnet_lite0")
    far = sample_distances(noise, smooth(2), "efficientnet_lite0")
    assert near.frechet < far.frechet
    assert near.kernel < far.kernel
    metrics = near.as_metrics()
    assert metrics["n_generated"] == 12
    assert metrics["frechet_efficientnet_lite0"] == near.frechet
    assert not any("fid" in name for name in metrics)
    assert described(noise, "efficientnet_lite0").shape == (12, 320)
