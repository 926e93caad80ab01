"""Out-of-distribution scores against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from berunda.assess.ood import FeatureDistance, aupr, auroc, energy, fpr95, threshold_at
from berunda.errors import CheckpointError, DataError


@pytest.fixture
def labelled() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 3
    mixing = rng.normal(size=(5, 5))
    return rng.normal(size=(600, 5)) @ mixing + 6 * np.eye(5)[labels], labels


def test_mahalanobis_equals_scikit_learn(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = labelled
    means = np.stack([features[labels == c].mean(0) for c in range(3)])
    covariance = LedoitWolf(assume_centered=True).fit(features - means[labels])
    expected = np.min([np.sqrt(LedoitWolf.mahalanobis(_at(covariance, mean), features)) for mean in means], axis=0)
    np.testing.assert_allclose(FeatureDistance.fit(features, labels).distance(features), expected, rtol=1e-4)


def _at(covariance: LedoitWolf, mean: np.ndarray) -> LedoitWolf:
    covariance.location_ = mean
    return covariance


def test_knn_equals_scikit_learn(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = labelled
    fitted = FeatureDistance.fit(features, labels, kind="knn", k=7)
    neighbours = NearestNeighbors(n_neighbors=7).fit(features @ fitted.whitening)
    queries = features + 1.0
    expected = neighbours.kneighbors(queries @ fitted.whitening)[0][:, -1]
    np.testing.assert_allclose(fitted.distance(queries), expected, rtol=1e-4)


def test_knn_keeps_classes_in_balance(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = labelled
    rare = np.where(np.arange(600) < 594, 0, labels + 1)
    fitted = FeatureDistance.fit(features, rare, kind="knn", k=1, max_reference=20)
    assert fitted.targets.shape == (20, 5)
    np.testing.assert_allclose(fitted.distance(features[594:]), 0, atol=1e-3)


@pytest.mark.parametrize("kind", ["mahalanobis", "knn"])
def test_distance_does_not_depend_on_how_rows_are_grouped(kind: str, labelled: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = labelled
    fitted = FeatureDistance.fit(features, labels, kind=kind)  # type: ignore[arg-type]
    many = np.random.default_rng(1).normal(size=(9001, 5)).astype(np.float32)
    whole = fitted.distance(many)
    order = np.random.default_rng(2).permutation(len(many))
    pieces = np.concatenate([fitted.distance(p) for p in np.split(many[order], [1, 8, 700, 5000])])
    np.testing.assert_array_equal(whole[order], pieces)
    assert fitted.distance(many.reshape(-1, 9001, 5)).shape == (1, 9001)


@pytest.mark.parametrize("kind", ["mahalanobis", "knn"])
def test_arrays_restore_the_distance_bit_for_bit(kind: str, labelled: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = labelled
    fitted = FeatureDistance.fit(features, labels, kind=kind)  # type: ignore[arg-type]
    restored = FeatureDistance.from_arrays(fitted.as_arrays())
    np.testing.assert_array_equal(restored.distance(features), fitted.distance(features))


def test_far_pixels_are_flagged_and_dead_features_do_no_harm(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = labelled
    features = np.concatenate([features, np.zeros((600, 3))], 1)
    train, held = slice(0, 300), slice(300, 600)
    fitted = FeatureDistance.fit(features[train], labels[train])
    inside = fitted.distance(features[held])
    threshold = threshold_at(inside)
    assert (inside > threshold).mean() <= 0.05
    far = fitted.distance(features[held] + 20)
    assert (far > threshold).all()
    assert np.isfinite(far).all()


def test_constant_features_and_nan_rows() -> None:
    fitted = FeatureDistance.fit(np.ones((4, 2)), [0, 0, 1, 1])
    found = fitted.distance([[1, 1], [1, 3], [np.nan, 0]])
    np.testing.assert_allclose(found[:2], [0, 2])
    assert np.isnan(found[2])


def test_unlabelled_rows_are_left_out(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = labelled
    noisy = np.concatenate([features, np.full((9, 5), np.nan)])
    fitted = FeatureDistance.fit(noisy, np.concatenate([labels, np.full(9, -1)]))
    np.testing.assert_allclose(fitted.targets, FeatureDistance.fit(features, labels).targets)


def test_energy_equals_scipy_and_survives_large_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 300, (4, 5, 6))
    np.testing.assert_allclose(energy(logits), -logsumexp(logits, axis=-1))
    np.testing.assert_allclose(energy(logits, axis=0), -logsumexp(logits, axis=0))


def test_threshold_flags_at_most_its_share() -> None:
    assert threshold_at([3, 1, 2, np.nan], 1.0) == 3
    for n in (1, 7, 20, 333):
        scores = np.random.default_rng(n).normal(size=n)
        assert (scores > threshold_at(scores)).mean() <= 0.05
        assert (scores >= threshold_at(scores)).mean() >= 0.05


@pytest.mark.parametrize("digits", [1, 12], ids=["ties", "distinct"])
def test_ranking_scores_equal_scikit_learn(digits: int) -> None:
    rng = np.random.default_rng(0)
    is_out = rng.random(500) < 0.3
    scores = np.round(rng.normal(is_out * 1.5, 1), digits)
    assert auroc(scores, is_out) == pytest.approx(roc_auc_score(is_out, scores))
    assert aupr(scores, is_out) == pytest.approx(average_precision_score(is_out, scores))
    passed, accepted, _ = roc_curve(~is_out, -scores, drop_intermediate=False)
    assert fpr95(scores, is_out) == pytest.approx(passed[np.flatnonzero(accepted >= 0.95)[0]])


def test_one_group_alone_has_no_ranking_score() -> None:
    for measure in (auroc, aupr, fpr95):
        assert measure([1.0, 2.0], [True, True]) is None
        assert measure([1.0, 2.0], [False, False]) is None


def test_bad_input_is_named(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = labelled
    fitted = FeatureDistance.fit(features, labels)
    with pytest.raises(DataError, match="fitted on 5"):
        fitted.distance(np.zeros((3, 4)))
    with pytest.raises(DataError, match="no labelled pixel"):
        FeatureDistance.fit(features, -np.ones(600))
    with pytest.raises(DataError, match="not all finite"):
        FeatureDistance.fit(features * np.nan, labels)
    with pytest.raises(DataError, match="expected \\(n, D\\)"):
        FeatureDistance.fit(features, labels[1:])
    with pytest.raises(DataError, match="mahalanobis, knn"):
        FeatureDistance.fit(features, labels, kind="cosine")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="lacks ood_targets"):
        FeatureDistance.from_arrays({"ood_whitening": np.eye(2), "ood_settings": [0, 1]})
    with pytest.raises(CheckpointError, match="expected \\(D, D\\)"):
        FeatureDistance.from_arrays({**fitted.as_arrays(), "ood_settings": np.array([7, 1])})
    with pytest.raises(DataError, match="no finite score"):
        threshold_at([np.nan])
    with pytest.raises(DataError, match="share 95"):
        threshold_at([1.0], 95)
    with pytest.raises(DataError, match="1 scores are not finite"):
        auroc([np.inf, 1], [True, False])
    with pytest.raises(DataError, match="2 scores and 1 truths"):
        auroc([2, 1], [True])
