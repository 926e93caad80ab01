"""Figures of scene classifiers against scikit-learn and torchmetrics."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from berunda.assess.calibration import MIN_IMAGES
from berunda.assess.classify import (
    Classified,
    classifier_figures,
    fit_image_temperature,
    ood_figures,
    ood_scores,
    right_of,
)
from berunda.errors import DataError

NAMES = ("forest", "river", "sea", "never")


def classified(n: int, seed: int = 0, sharpness: float = 4.0, shift: float = 0.0) -> Classified:
    """Images of three of four classes, whose logits are right more often than not and far too sure."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    features = 2.0 * np.eye(4, 6)[labels] + rng.normal(size=(n, 6)) + shift
    return Classified(sharpness * features[:, :4], labels, features)


def test_agreement_equals_scikit_learn() -> None:
    test = classified(500)
    found = classifier_figures(classified(100, 1), test, class_names=NAMES, kappa=True)
    truth, predicted = test.labels, test.logits.argmax(1)
    assert found["oa"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    there = [0, 1, 2]
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, labels=there, average="macro"))
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(truth, predicted))
    assert found["confusion"] == metrics.confusion_matrix(truth, predicted, labels=range(4)).tolist()
    for name, measure in (("recall", metrics.recall_score), ("precision", metrics.precision_score)):
        expected = measure(truth, predicted, labels=there, average=None)
        np.testing.assert_allclose([found[name][c] for c in NAMES[:3]], expected)
        assert found[name]["never"] is None
    assert "kappa" not in classifier_figures(classified(100, 1), test)


def test_calibration_equals_torchmetrics_and_scikit_learn() -> None:
    validation, test = classified(200, 1), classified(500)
    found = classifier_figures(validation, test)
    for ending, temperature in (("_before", 1.0), ("", found["temperature"])):
        probabilities = softmax(test.logits / temperature, axis=1)
        ece = multiclass_calibration_error(
            torch.from_numpy(probabilities), torch.from_numpy(test.labels), num_classes=4, n_bins=15
        )
        assert found[f"ece{ending}"] == pytest.approx(float(ece), abs=1e-6)
        nll = metrics.log_loss(test.labels, probabilities, labels=range(4))
        assert found[f"nll{ending}"] == pytest.approx(nll)
        one_hot = np.eye(4)[test.labels]
        assert found[f"brier{ending}"] == pytest.approx(((probabilities - one_hot) ** 2).sum(1).mean())
        classwise = [_binary_ece(probabilities[:, c], one_hot[:, c]) for c in range(4)]
        assert found[f"classwise_ece{ending}"] == pytest.approx(np.mean(classwise))
    assert found["temperature"] > 1.5
    for name in ("ece", "nll", "brier"):
        assert found[name] < found[f"{name}_before"]


def _binary_ece(probability: np.ndarray, truth: np.ndarray) -> float:
    index = np.minimum(np.ceil(probability * 15).astype(int) - 1, 14).clip(0)
    gaps = [(index == b).mean() * abs(np.mean(probability[index == b] - truth[index == b])) for b in np.unique(index)]
    return float(np.sum(gaps))


def test_the_temperature_sees_validation_images_only() -> None:
    validation = classified(200, 1)
    one, other = (classifier_figures(validation, classified(300, seed)) for seed in (2, 3))
    assert one["temperature"] == other["temperature"] == fit_image_temperature(validation).value
    grid = np.exp(np.linspace(-1, 3, 2001))
    picked = np.arange(200), validation.labels
    nll = [-log_softmax(validation.logits / t, axis=1)[picked].mean() for t in grid]
    assert one["temperature"] == pytest.approx(grid[int(np.argmin(nll))], rel=2e-3)


@pytest.mark.parametrize("n", [0, MIN_IMAGES - 1])
def test_few_validation_images_fit_nothing_and_say_so(n: int) -> None:
    found = classifier_figures(classified(n, 1), classified(300))
    assert found["temperature"] == 1
    assert not found["temperature_fitted"]
    assert f"{n} labelled validation images" in found["temperature_warning"]
    assert found["ece"] == found["ece_before"]
    assert found["n_validation"] == n


def test_validation_images_that_are_all_right_do_not_make_the_model_sure() -> None:
    labels = np.arange(60) % 3
    found = classifier_figures(Classified(np.eye(3)[labels], labels), Classified(np.eye(3)[labels], labels))
    assert found["temperature"] == 1
    assert "end of its range" in found["temperature_warning"]


def test_reliability_bins_hold_every_test_image() -> None:
    found = classifier_figures(classified(200, 1), classified(500))
    for name in ("reliability", "reliability_before"):
        assert sum(row["n"] for row in found[name]) == 500
        gap = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in found[name]) / 500
        assert gap == pytest.approx(found[name.replace("reliability", "ece")])


def test_figures_are_plain_json_and_keep_which_images_were_right() -> None:
    test = classified(501)
    found = json.loads(json.dumps(classifier_figures(classified(100, 1), test), allow_nan=False))
    np.testing.assert_array_equal(right_of(found), test.logits.argmax(1) == test.labels)
    assert found["test_key"] == classifier_figures(classified(60, 3), classified(501, sharpness=1.0))["test_key"]
    assert found["test_key"] != classifier_figures(classified(60, 3), classified(501, 7))["test_key"]
    with pytest.raises(DataError, match="expected 64"):
        right_of({**found, "n_test": 505 + 7})
    with pytest.raises(DataError, match="run the benchmark again"):
        right_of({"oa": 1.0})


def test_images_without_a_label_are_left_out() -> None:
    test = classified(300)
    more = Classified(np.concatenate([test.logits, np.zeros((9, 4))]), np.append(test.labels, [-1] * 9))
    validation = classified(100, 1)
    assert classifier_figures(validation, more) == classifier_figures(validation, Classified(test.logits, test.labels))
    with pytest.raises(DataError, match="none with a label"):
        classifier_figures(validation, Classified(test.logits, test.labels * 0 - 1))


def test_scores_equal_their_definitions() -> None:
    train, given = classified(400), classified(50, 1)
    assert given.features is not None
    assert train.features is not None
    found = ood_scores(train, given, k=3)
    np.testing.assert_allclose(found["msp"], 1 - softmax(given.logits, axis=1).max(1), atol=1e-12)
    np.testing.assert_allclose(found["max_logit"], -given.logits.max(1))
    np.testing.assert_allclose(found["energy"], -np.log(np.exp(given.logits).sum(1)))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train.features, given.features)]
    distances = np.sort(np.linalg.norm(unit[1][:, None] - unit[0][None], axis=2), axis=1)
    np.testing.assert_allclose(found["knn"], distances[:, 2], atol=1e-6)
    assert set(ood_scores(train, Classified(given.logits, given.labels))) == {"msp", "max_logit", "energy"}


def test_images_unlike_the_training_ones_are_found() -> None:
    train, inside, outside = classified(400), classified(300, 1), classified(200, 2, sharpness=0.5, shift=-3.0)
    found = ood_figures(train, inside, outside)
    for name in ("msp", "max_logit", "energy", "knn", "mahalanobis"):
        both = np.concatenate([ood_scores(train, x)[name] for x in (inside, outside)])
        is_out = np.arange(500) >= 300
        assert found[name]["auroc"] == pytest.approx(metrics.roc_auc_score(is_out, both))
        assert found[name]["aupr"] == pytest.approx(metrics.average_precision_score(is_out, both))
    for name in ("max_logit", "energy", "mahalanobis"):
        auroc, fpr95 = found[name]["auroc"], found[name]["fpr95"]
        assert auroc is not None
        assert fpr95 is not None
        assert auroc > 0.95
        assert fpr95 < 0.3
    empty = Classified(np.zeros((0, 4)), np.zeros(0, int), np.zeros((0, 6)))
    assert ood_figures(train, inside, empty)["energy"] == {"auroc": None, "aupr": None, "fpr95": None}


def test_alike_images_cannot_be_told_apart() -> None:
    found = ood_figures(classified(400), classified(1500, 1), classified(1500, 2))
    assert all(abs(figures["auroc"] - 0.5) < 0.04 for figures in found.values() if figures["auroc"] is not None)


def test_bad_shapes_are_named() -> None:
    with pytest.raises(DataError, match=r"expected \(n, C\)"):
        Classified(np.zeros((3, 2)), np.zeros(4, int))
    with pytest.raises(DataError, match=r"expected \(3, D\)"):
        Classified(np.zeros((3, 2)), np.zeros(3, int), np.zeros((4, 2)))
    with pytest.raises(DataError, match="features of 3 images"):
        Classified(np.zeros((3, 2)), np.zeros(3, int), np.full((3, 2), np.nan))
    with pytest.raises(DataError, match="k 0 found"):
        ood_scores(classified(30), classified(3, 1), k=0)
