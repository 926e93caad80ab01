"""Scores against scikit-learn and torchmetrics, and the treatment of absent classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torchmetrics.functional.classification import multiclass_jaccard_index

from berunda.assess.metrics import class_scores, confusion_matrix, grouped_confusion, score
from berunda.errors import DataError

N_CLASSES = 4


@pytest.fixture
def labelled() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    truth = rng.choice(N_CLASSES, 3000, p=[0.5, 0.3, 0.15, 0.05])
    predicted = np.where(rng.random(3000) < 0.6, truth, rng.integers(N_CLASSES, size=3000))
    return truth, predicted


def test_all_scores_equal_scikit_learn(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = labelled
    found = score(confusion_matrix(truth, predicted, N_CLASSES))
    precision, recall, f1, support = reference.precision_recall_fscore_support(truth, predicted)
    assert found.oa == pytest.approx(reference.accuracy_score(truth, predicted))
    assert found.kappa == pytest.approx(reference.cohen_kappa_score(truth, predicted))
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.f1, f1)
    np.testing.assert_allclose(found.iou, reference.jaccard_score(truth, predicted, average=None))
    assert found.support == tuple(support)
    assert found.macro_f1 == pytest.approx(f1.mean())
    assert found.macro_precision == pytest.approx(precision.mean())
    assert found.macro_recall == pytest.approx(recall.mean())


def test_iou_equals_torchmetrics(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = labelled
    found = score(confusion_matrix(truth, predicted, N_CLASSES))
    expected = multiclass_jaccard_index(torch.from_numpy(predicted), torch.from_numpy(truth), N_CLASSES, average=None)
    np.testing.assert_allclose(found.iou, expected.numpy(), rtol=1e-5)
    assert found.miou == pytest.approx(float(expected.mean()), rel=1e-5)


def test_confusion_has_truth_in_rows_and_ignores_unlabelled_and_nodata() -> None:
    truth = np.array([[0, 0, 1], [-1, 1, 0]])
    predicted = np.array([[0, 1, 1], [1, -1, 1]])
    assert confusion_matrix(truth, predicted, 2).tolist() == [[1, 2], [0, 1]]


def test_map_codes_start_at_one_and_unsigned_zero_is_nodata() -> None:
    truth = np.array([0, 1, 2, 2], np.uint8)
    predicted = np.array([1, 1, 0, 1], np.uint8)
    assert confusion_matrix(truth, predicted, 2, first_id=1).tolist() == [[1, 0], [1, 0]]


def test_absent_class_is_none_and_outside_the_means_but_its_pixels_are_errors() -> None:
    found = score([[8, 0, 2], [0, 5, 0], [0, 0, 0]], ["farm", "forest", "water"])
    assert found.absent == ("water",)
    assert found.iou[2] is found.f1[2] is found.precision[2] is found.recall[2] is None
    assert found.recall[0] == pytest.approx(0.8)
    assert found.miou == pytest.approx((0.8 + 1) / 2)
    assert found.as_dict()["classes"]["water"]["iou"] is None
    assert found.as_dict()["absent_classes"] == ["water"]


def test_class_that_is_never_predicted_scores_zero() -> None:
    found = score([[5, 0], [3, 0]])
    assert (found.precision[1], found.recall[1], found.f1[1], found.iou[1]) == (0, 0, 0, 0)


def test_no_pixels_at_all_gives_none_everywhere() -> None:
    found = score(np.zeros((3, 3), int))
    assert found.oa is found.miou is found.kappa is found.macro_f1 is None
    assert found.n_pixels == 0


def test_kappa_of_a_single_class_is_undefined() -> None:
    assert score([[7, 0], [0, 0]]).kappa is None


def test_groups_sum_to_the_whole(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = labelled
    groups = np.arange(truth.size) % 17 - 3
    parts = grouped_confusion(truth, predicted, groups, N_CLASSES)
    assert parts.shape == (17, N_CLASSES, N_CLASSES)
    np.testing.assert_array_equal(parts.sum(0), confusion_matrix(truth, predicted, N_CLASSES))
    np.testing.assert_array_equal(parts[0], confusion_matrix(truth[groups == -3], predicted[groups == -3], N_CLASSES))


def test_stacked_scores_equal_single_ones() -> None:
    stack = np.random.default_rng(0).integers(0, 50, (6, 3, 3))
    together = class_scores(stack)
    for i, matrix in enumerate(stack):
        for key, value in class_scores(matrix).items():
            np.testing.assert_allclose(together[key][i], value)


def test_errors_say_what_was_found() -> None:
    with pytest.raises(DataError, match="truth has 2 pixels and the prediction 3"):
        confusion_matrix([0, 1], [0, 1, 1], 2)
    with pytest.raises(DataError, match="class index 5 found, expected at most 1"):
        confusion_matrix([0, 5], [0, 1], 2)
    with pytest.raises(DataError, match="square"):
        score(np.zeros((2, 3)))
    with pytest.raises(DataError, match="1 class names"):
        score(np.zeros((2, 2)), ["a"])
    with pytest.raises(DataError, match="groups has 1"):
        grouped_confusion([0, 1], [0, 1], [0], 2)
