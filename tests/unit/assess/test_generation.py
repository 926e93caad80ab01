"""Distances of samples and divergences of densities, against closed forms and other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from scipy.linalg import sqrtm
from scipy.stats import entropy, spearmanr

from berunda.assess import generation
from berunda.assess.generation import (
    density_agreement,
    density_histograms,
    described,
    described_by,
    feature_distances,
    frechet_distance,
    histogram_divergence,
    kernel_distance,
    sample_distances,
)
from berunda.errors import ConfigError, DataError, FetchError
from berunda.models.encoders import packaged_pyramid, packaged_weights

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
    """Of two sets of two there is one subset, and of two sets of 14 the mean over subsets of 7 is near that of all."""

    def expected(a, b):
        def kernel(x, y):
            return (x @ y / 6 + 1) ** 3

        n = len(a)
        own = [sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1)) for x in (a, b)]
        return sum(own) - 2 * np.mean([kernel(x, y) for x in a for y in b])

    a, b = features(2), features(2, 1.0, seed=2)
    mean, deviation, size = kernel_distance(a, b)
    assert (mean, size) == (pytest.approx(expected(a, b)), 2)
    assert deviation == pytest.approx(0, abs=1e-9 * abs(mean) + 1e-9)
    a, b = features(14), features(14, 1.0, seed=2)
    mean, deviation, size = kernel_distance(a, b)
    assert size == 7
    assert abs(mean - expected(a, b)) < 4 * deviation / 10  # of a mean over 100 subsets


@pytest.mark.parametrize(("n_generated", "n_real"), [(60, 60), (60, 500)])
def test_kernel_distance_deviates_over_subsets_however_many_images_each_side_has(n_generated: int, n_real: int) -> None:
    found = [kernel_distance(features(n_generated, 0.5, seed), features(n_real, seed=99)) for seed in range(3, 23)]
    assert {size for _, _, size in found} == {30}
    spread = np.std([mean for mean, _, _ in found])
    assert 0.5 * spread < np.mean([deviation for _, deviation, _ in found]) < 10 * spread


def test_kernel_distance_of_equal_distributions_is_about_zero() -> None:
    mean, deviation, size = kernel_distance(features(400), features(300, seed=2))
    far, _, _ = kernel_distance(features(400), features(300, 3.0, seed=2))
    assert size == 150
    assert deviation > 0
    assert abs(mean) < 0.05 * far
    assert kernel_distance(features(40), features(30), 1) == kernel_distance(features(40), features(30), 1)


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
    with pytest.raises(DataError, match="densities of 0 images"):
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


def test_histograms_share_their_bins_and_add_up_to_one() -> None:
    sets = {"a": RNG.normal(size=500), "b": RNG.normal(3, 2, size=100)}
    edges, shares = density_histograms(sets)
    assert (edges[0], edges[-1]) == (min(x.min() for x in sets.values()), max(x.max() for x in sets.values()))
    for name, values in sets.items():
        np.testing.assert_allclose(shares[name], np.histogram(values, edges)[0] / len(values))
        assert shares[name].sum() == pytest.approx(1)
    p, q = (share + 1e-6 for share in shares.values())
    assert histogram_divergence(sets["a"], sets["b"]) == pytest.approx(entropy(p, q))


def test_agreement_is_spearmans_and_knows_neither_constant_nor_scale() -> None:
    a, b = RNG.normal(size=80), RNG.integers(0, 9, 80)
    assert density_agreement(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert density_agreement(a, 3 * a - 100) == pytest.approx(1)
    assert density_agreement(a, -a) == pytest.approx(-1)
    assert density_agreement(a, np.ones(80)) == 0
    with pytest.raises(DataError, match="80 and 79 images found, expected the same"):
        density_agreement(a, b[1:])


def test_of_inception_the_distances_are_fid_and_kid_with_their_numbers() -> None:
    of_inception = feature_distances(features(40), features(30, seed=2), "inception").as_metrics()
    own = feature_distances(features(40), features(30, seed=2), "efficientnet_lite0").as_metrics()
    assert set(of_inception) == {"fid", "kid", "kid_deviation", "n_generated", "n_real", "n_subset"}
    assert of_inception["fid"] == own["frechet_efficientnet_lite0"]
    assert (of_inception["n_generated"], of_inception["n_real"], of_inception["n_subset"]) == (40, 30, 15)


def test_without_the_weights_of_inception_there_is_no_fid_and_nothing_takes_its_place(monkeypatch) -> None:
    def unreachable(*args, **options):
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(FetchError, match=r"inception_v3\.tf_in1k.*no route to the hub.*'efficientnet_lite0'"):
        generation.describer("inception", 3)
    with pytest.raises(ConfigError, match="images of 13 bands found, expected red, green and blue"):
        generation.describer("inception", 13)


def test_inception_is_shown_images_of_its_own_size(monkeypatch) -> None:
    seen = []

    class Net(torch.nn.Module):
        def forward(self, pixels):
            seen.append((tuple(pixels.shape), float(pixels.abs().max())))
            return pixels.mean((2, 3))

    monkeypatch.setattr(timm, "create_model", lambda *args, **options: Net())
    pixels = np.full((70, 3, 8, 8), 2.0, np.float32)
    assert described(pixels, "inception").shape == (70, 3)
    assert seen == [((64, 3, 299, 299), 1.0), ((6, 3, 299, 299), 1.0)]


def test_an_encoder_at_hand_describes_as_the_one_by_name_does() -> None:
    images = np.random.default_rng(3).uniform(-1, 1, (3, 4, 32, 32)).astype(np.float32)
    found = described_by(packaged_pyramid(packaged_weights(), 4), images)
    np.testing.assert_array_equal(found, described(images, "efficientnet_lite0"))
    distances = feature_distances(found, found[:2], "mine")
    assert distances.as_metrics()["frechet_mine"] == frechet_distance(found, found[:2])
    assert (distances.n_generated, distances.n_real) == (3, 2)
