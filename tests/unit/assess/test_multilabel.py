"""Measures of several labels an image, against scikit-learn and by hand; unknown labels count nowhere."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from berunda.assess.classify import Classified
from berunda.assess.label_intervals import auprc_difference, scores_of
from berunda.assess.multilabel import (
    decide,
    fit_label_distance,
    fit_label_temperature,
    label_calibration,
    label_energy,
    label_figures,
    rank,
    ranking_loss,
    sigmoid,
    tuned_thresholds,
)
from berunda.errors import DataError

N, C = 120, 5


def draw(seed: int = 0, n: int = N, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels that agree more or less; each class is there and not there."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, C)) < [0.6, 0.4, 0.3, 0.2, 0.1]).astype(float)
    labels[0], labels[1] = 1, 0
    logits = sharpness * (2 * labels - 1) + 2 * rng.normal(size=(n, C)) - 1
    return np.round(logits, 1), labels  # rounded: ties


def test_ranking_agrees_with_scikit_learn() -> None:
    logits, labels = draw()
    found = rank(logits, labels)
    expected = metrics.average_precision_score(labels, logits, average=None)
    np.testing.assert_allclose(np.array(found.auprc, float), expected, atol=1e-12)
    assert found.macro == pytest.approx(expected.mean())
    assert found.micro == pytest.approx(metrics.average_precision_score(labels, logits, average="micro"))
    some = labels.any(1) & ~labels.all(1)
    expected_loss = metrics.label_ranking_loss(labels[some], logits[some])
    assert ranking_loss(logits, labels) == pytest.approx(expected_loss)


def test_decisions_agree_with_scikit_learn() -> None:
    logits, labels = draw()
    probabilities = sigmoid(logits)
    thresholds = np.array([0.5, 0.3, 0.7, 0.4, 0.9])
    for at in (0.5, thresholds):
        found = decide(probabilities, labels, at)
        told = metrics.precision_recall_fscore_support(labels, probabilities >= at, zero_division=0)
        for mine, theirs in zip((found.precision, found.recall, found.f1), told[:3], strict=True):
            np.testing.assert_allclose(np.array(mine, float), theirs)
        assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, probabilities >= at, average="macro"))
        assert found.micro_f1 == pytest.approx(metrics.f1_score(labels, probabilities >= at, average="micro"))


def test_tuned_thresholds_have_the_largest_f1_there_is() -> None:
    logits, labels = draw(sharpness=0.7)
    probabilities = sigmoid(logits)
    found = tuned_thresholds(probabilities, labels)
    tuned = decide(probabilities, labels, found).f1
    for c in range(C):
        every = [metrics.f1_score(labels[:, c], probabilities[:, c] >= t) for t in np.unique(probabilities[:, c])]
        assert tuned[c] == pytest.approx(max(every))
    assert (np.abs(probabilities[:, :, None] - found).min() > 0).all()


def test_equally_good_thresholds_give_the_one_nearest_to_a_half() -> None:
    probabilities = np.array([[0.9], [0.8], [0.2], [0.1]])
    assert tuned_thresholds(probabilities, np.array([[1], [1], [0], [0]])).tolist() == [0.5]
    assert tuned_thresholds(probabilities, np.array([[1.0], [1], [1], [1]])).tolist() == [0.5]


def test_unknown_labels_count_nowhere() -> None:
    logits, labels = draw()
    holes = np.random.default_rng(5).random(labels.shape) < 0.3
    holes[:2] = False
    other = np.where(holes, 50 * np.random.default_rng(6).normal(size=logits.shape), logits)
    unknown = np.where(holes, np.nan, labels)
    validation = Classified(*draw(3))
    a, b = (label_figures(validation, Classified(given, unknown)) for given in (logits, other))
    told = {name for name in a if a[name] != b[name]}
    assert told == {"scores"}
    for c in range(C):
        keep = ~holes[:, c]
        expected = metrics.average_precision_score(labels[keep, c], logits[keep, c])
        assert a["auprc"][str(c + 1)] == pytest.approx(expected)


def test_absent_classes_are_told_absent() -> None:
    logits, labels = draw()
    labels[:, 2], labels[:, 3] = 0, np.nan
    figures = label_figures(Classified(*draw(3)), Classified(logits, labels), class_names=list("abcde"))
    assert figures["auprc"]["c"] is None
    assert figures["f1"]["c"] is None
    assert figures["ece_of"]["d"] is None
    assert figures["support"] == dict(zip("abcde", [int((labels[:, c] == 1).sum()) for c in range(C)], strict=True))
    assert figures["macro_auprc"] == pytest.approx(np.mean([figures["auprc"][c] for c in "abe"]))
    with pytest.raises(DataError, match="none with a label"):
        label_figures(Classified(*draw(3)), Classified(logits, np.full_like(labels, np.nan)))


def test_temperature_is_that_of_the_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, C))
    labels = (rng.random(logits.shape) < sigmoid(logits)).astype(float)
    found = fit_label_temperature(Classified(3 * logits, labels))
    assert found.is_calibrated
    assert found.value == pytest.approx(3, rel=0.05)
    assert not fit_label_temperature(Classified(logits[:2], labels[:2])).is_fitted


def test_calibration_of_each_class_and_of_all() -> None:
    logits, labels = draw()
    p = sigmoid(logits, 2.0)
    found = label_calibration(logits, labels, 2.0)
    assert found.brier == pytest.approx(np.mean((p - labels) ** 2))
    assert found.nll == pytest.approx(metrics.log_loss(labels.ravel(), p.ravel()))
    figures = label_figures(Classified(*draw(3)), Classified(logits, labels))
    p = sigmoid(logits, figures["temperature"])
    eces = []
    for c in range(C):
        assert figures["brier_of"][str(c + 1)] == pytest.approx(metrics.brier_score_loss(labels[:, c], p[:, c]))
        place, total = np.ceil(p[:, c] * 15), 0.0
        for bin_ in np.unique(place):
            mine = place == bin_
            total += mine.sum() * abs(p[mine, c].mean() - labels[mine, c].mean())
        eces.append(total / N)
        assert figures["ece_of"][str(c + 1)] == pytest.approx(eces[-1])
    assert figures["classwise_ece"] == pytest.approx(np.mean(eces))


def test_energy_and_distance_of_several_labels() -> None:
    logits, labels = draw()
    np.testing.assert_allclose(label_energy(logits), -np.log1p(np.exp(logits)).sum(1))
    labels[5] = 0
    features = np.random.default_rng(1).normal(size=(N, 3)) + 4 * labels[:, :3]
    distance = fit_label_distance(features, labels)
    assert len(distance.targets) == C + 1, "a mean of each class, and one of images without any"
    far = distance.distance(features + 40).min()
    assert far > distance.distance(features).max()


def test_scores_come_back_from_the_figures() -> None:
    logits, labels = draw()
    labels[3, 2] = np.nan
    figures = label_figures(Classified(*draw(3)), Classified(logits, labels))
    scores, truth = scores_of(figures)
    np.testing.assert_allclose(scores, logits, atol=5e-3)
    np.testing.assert_array_equal(truth, labels)
    with pytest.raises(DataError, match="hold no readable 'scores'"):
        scores_of({**figures, "scores": "x"})


def test_the_paired_difference_and_its_interval() -> None:
    validation = Classified(*draw(3))
    logits, labels = draw()
    worse = logits + 3 * np.random.default_rng(2).normal(size=logits.shape)
    a, b = (label_figures(validation, Classified(given, labels)) for given in (logits, worse))
    found = auprc_difference([a, a], [b])
    assert found is not None
    assert found.estimate == pytest.approx(a["macro_auprc"] - b["macro_auprc"], abs=0.01)
    assert 0 < found.low < found.estimate < found.high
    same = auprc_difference([a], [a])
    assert same is not None
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    other = label_figures(validation, Classified(logits[:50], labels[:50]))
    with pytest.raises(DataError, match="expected those of the same images"):
        auprc_difference([a], [other])


def test_shapes_that_do_not_fit_are_told() -> None:
    logits, labels = draw()
    with pytest.raises(DataError, match="expected"):
        Classified(logits, labels[:, :2])
    with pytest.raises(DataError, match="expected"):
        rank(logits, labels[:, 0])
